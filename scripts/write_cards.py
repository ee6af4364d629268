"""Bring the cards of the bundled models up to date: sources, evidence by tissue, and what the benchmarks measured.

Run as ``python scripts/write_cards.py [--data ../shared/data/cells]`` after the benchmarks. Sections are replaced, or
put before "Intended use"; weights stay as they are, and the manifest is written anew. Figures are those of
``benchmarks/results/*.json``, each bar with whether it holds, also where it does not.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from cellingua.calibration.answers import Answers
from cellingua.cells.collections import data_hashes, read_cell_file, read_markers, read_profiles
from cellingua.core.files import write_text
from cellingua.models.bundle import CALIBRATION
from cellingua.models.folder import CARD
from cellingua.models.manifest import read_manifest, write_manifest
from cellingua.models.seen import CELLS, read_seen, told_in_short
from cellingua.models.shelf import BUNDLED
from cellingua.recipes.card_evidence import evidence, sources
from cellingua.recipes.card_parts import table
from cellingua.recipes.langcell_config import preset
from cellingua.recipes.material import reviewed_labels

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
# Which benchmarks speak of which model.
MEASURED = {
    "langcell_mini": ("zeroshot", "annotate", "calibration", "unknown", "fewshot", "matching"),
    "cellm_mini": ("cellm", "pretrain", "leakage"),
}
LAST = "Intended use"
STATED = (0.01, 0.05, 0.1, 0.2)


def sections(card: str) -> dict[str, str]:
    """Return a card as heading -> text; what stands before the first heading has the heading ``""``."""
    parts = ("\n" + card).split("\n## ")
    found = {"": parts[0].strip("\n")}
    for part in parts[1:]:
        heading, _, text = part.partition("\n")
        found[heading] = text.strip("\n")
    return found


def joined(parts: dict[str, str]) -> str:
    """Return the card; the intended use is last."""
    order = [*(name for name in parts if name != LAST), *([LAST] if LAST in parts else [])]
    return "\n\n".join(f"## {name}\n\n{parts[name]}" if name else parts[name] for name in order) + "\n"


def measured(names: tuple[str, ...]) -> str:
    """Return the bars of the benchmarks that there are results of."""
    rows = []
    for name in names:
        path = RESULTS / f"{name}.json"
        if path.is_file():
            held = json.loads(path.read_text(encoding="utf-8"))
            rows += [[f"bench-{name}", bar, *_bar(told)] for bar, told in held["bars"].items()]
    if not rows:
        return "Not yet: `make bench`."
    return table(["benchmark", "what", "value", "bar", "holds"], rows)


def _bar(told: dict[str, Any]) -> list[str]:
    value = told["value"]
    shown = f"{value:.4g}" if isinstance(value, float) else json.dumps(value)
    return [shown, str(told["bar"]), "yes" if told["ok"] else "NO"]


def evidence_of_langcell(folder: Path, data: Path) -> str:
    """Return the evidence of the types: labels of the cells and profiles that the model saw, and markers."""
    seen = read_seen(folder)
    wide = set(preset("langcell_mini").generic_terms)
    terms: set[str] = set()
    for held in seen.data_sets if seen else ():
        if held.kind == CELLS:
            terms |= set(read_cell_file(data / "corpus" / f"{held.id}.h5ad").terms.tolist()) - {""}
    profiles = read_profiles(data / "profiles", reviewed_labels()).terms
    markers = read_markers(data / "markers" / "cellconsensus_top40.parquet")
    return evidence(terms - wide, np.setdiff1d(profiles, list(wide)).tolist(), set(markers) - wide)


def answers_of(folder: Path) -> str:
    """Return what was fitted for answers at an error rate, and on what (`benchmarks.calibrate_mini`)."""
    held = json.loads((folder / CALIBRATION).read_text(encoding="utf-8"))
    answers = Answers.from_calibration(held)
    assert answers is not None
    both = (answers.error_rates["user"], answers.error_rates["ontology"])
    rows = [
        [
            f"{rate:g}",
            *(f"{one.rule(rate).threshold:.4g}" for one in both),
            *(f"{one.attainable(rate):.3f}" for one in both),
        ]
        for rate in STATED
    ]
    head = ["error rate", "probability needed", "in the whole ontology", "left uncovered", "in the whole ontology"]
    return (
        f"For candidates that a user names: temperature {held['temperature']:.3f} (in place of that above), the "
        f'thresholds below, and "unknown" above a score of {answers.open_set.cutoff:.3f}, fitted on models at a tenth '
        f"of the steps that had not seen {', '.join(answers.sets)}. For the whole ontology: fitted on the held-out "
        "files above.\n\n" + table(head, rows)
    )


def main() -> None:
    """Write the cards."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=list(MEASURED))
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared/data/cells")
    args = parser.parse_args()
    hashes = data_hashes(args.data)
    for name in args.models:
        folder = BUNDLED / name
        before, seen = read_manifest(folder), read_seen(folder)
        parts = sections(before.verified(CARD).read_text(encoding="utf-8"))
        if seen is not None:
            parts["What is recorded of it"] = (
                f"{told_in_short(seen)} Fingerprints of {seen.parts[0].printed:,} of them travel with the model, so "
                "that these cells are told when they come again."
            )
        if name.startswith("langcell"):  # the sources of a CellLM are written by benchmarks/pretrain_card.py
            parts.pop("Data files (SHA-256)", None)  # they are among the sources
            used = {held.sha256 for held in (seen.data_sets if seen else ())}
            parts["Sources"] = sources({path: digest for path, digest in hashes.items() if digest in used}, args.data)
            parts["Evidence by tissue"] = evidence_of_langcell(folder, args.data)
            parts["Answers at an error rate"] = answers_of(folder)
        parts["Measured"] = measured(MEASURED.get(name, ()))
        write_text(folder / CARD, joined(parts))
        write_manifest(folder, before.optional)


if __name__ == "__main__":
    main()
