"""Write the measured figures into the documents, from the JSON that the benchmarks wrote.

    python scripts/write_figures.py [--check]

Fills the blocks ``<!-- figures:NAME -->`` to ``<!-- end -->`` of ``README.md`` and some pages of ``docs``:
``overview`` is a table over all benchmarks, ``overview-NAME`` its rows of one; ``scoreboard`` has all tables of the
scoreboard and ``scoreboard-summary`` those of the README; any other NAME is everything in
``benchmarks/results/NAME.json``. A benchmark without a result says "not measured yet". No figure in these documents is
typed by hand. ``--check`` writes nothing and exits with 1 where a document is out of date.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
DOCUMENTS = (
    "README.md",
    "docs/benchmarks.md",
    "docs/pretraining.md",
    "docs/matching.md",
    "docs/models.md",
    "docs/answers.md",
    "docs/drug-cells.md",
    "docs/drug-explain.md",
)
BLOCK = re.compile(r"(<!-- figures:([a-z0-9_-]+) -->\n).*?(<!-- end -->)", re.DOTALL)
MISSING = "not measured yet"
#: What is not measured by ``make bench-NAME``.
TARGETS = {"drug_referee": "referee-drug"}

# What the overview says: benchmark, what was done, what was measured, what it is compared with. A name in braces is a
# path into the figures of that benchmark, its steps joined by "/".
OVERVIEW = (
    (
        "annotate",
        "Name pbmc3k (2,638 cells) from the whole Cell Ontology, report included, cold start, {threads} threads",
        "{annotate_seconds:.0f} s, {annotate_peak_gb:.1f} GB",
        "a plain scanpy path to a UMAP on the same file: {scanpy_seconds:.0f} s, {scanpy_peak_gb:.1f} GB",
    ),
    ("annotate", "Cell tower alone, tokens to embedding", "{tower_cells_per_second:,.0f} cells/s", ""),
    (
        "annotate",
        "pbmc3k, its own labels as candidates ({pbmc3k_candidates} types)",
        "accuracy {pbmc3k_accuracy:.3f}, macro-F1 {pbmc3k_macro_f1:.3f}",
        "",
    ),
    (
        "annotate",
        "Baron pancreas donor 1 ({baron_donor1_cells} cells), its own labels ({baron_donor1_candidates} types)",
        "accuracy {baron_donor1_accuracy:.3f}, macro-F1 {baron_donor1_macro_f1:.3f}",
        "",
    ),
    (
        "fewshot",
        "5 labelled cells of each type, mean over three sets that were never trained on, {draws} draws",
        "macro-F1 {five_cells_unseen_classifier:.3f}",
        "logistic regression: {five_cells_unseen_logistic:.3f}; k-NN: {five_cells_unseen_neighbours:.3f}; the same "
        "model without labels: {five_cells_unseen_zero_shot:.3f}",
    ),
    (
        "tokens",
        "Counts to LangCell's tokens, one core",
        "{ours_cells_per_second:,.0f} cells/s",
        "a densify-and-sort loop over cells: {loop_cells_per_second:,.0f} cells/s",
    ),
    (
        "texts",
        "Texts of a million cells of an atlas from their metadata ({atlas/distinct_texts:,} distinct), cold start",
        "{atlas/seconds_first_call:.1f} s",
        "a loop over the cells, extrapolated from a sample: {atlas/loop_seconds_extrapolated:,.0f} s",
    ),
    (
        "labels",
        "Labels of published data read as their curated term ({set aside/rules/labels} labels set aside)",
        "{set aside/rules/right_share:.1%}",
        "exact names: {set aside/exact name/right_share:.1%}; names and synonyms in any case: "
        "{set aside/name or synonym, any case/right_share:.1%}",
    ),
    (
        "embed",
        "LangCell's BERT tower at the paper's size, pbmc3k ({cells} cells, {median_tokens:.0f} tokens), float32",
        "{float32/cells_per_second:.2f} cells/s ({float32/ratio:.1f} times), cosine at least {float32/cosine:.7f}",
        "transformers' `BertModel`, float32, padded minibatches: {theirs/cells_per_second:.2f} cells/s",
    ),
    (
        "embed",
        "The same in bfloat16",
        "{bfloat16/cells_per_second:.2f} cells/s ({bfloat16/ratio:.1f} times), cosine at least {bfloat16/cosine:.5f}",
        "the same",
    ),
    ("embed", "The same with 8-bit weights", "cosine at least {int8/cosine:.5f}", "the same"),
)


def read_result(name: str) -> dict[str, Any] | None:
    """Return the result of a benchmark, None where it was not run."""
    path = RESULTS / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def table(head: list[str], rows: list[list[str]]) -> str:
    """Return a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def filled(template: str, figures: dict[str, Any]) -> str | None:
    """Return `template` with the figures that it names, None where one is missing."""

    def value(found: re.Match[str]) -> str:
        at: Any = figures
        for step in found[1].split("/"):
            at = at[step]
        return format(at, found[2] or "")

    try:
        return re.sub(r"\{([^{}:]+)(?::([^{}]*))?\}", value, template)
    except (KeyError, TypeError, ValueError):
        return None


def overview(only: str | None = None) -> str:
    """Return the table over all benchmarks, or of one, and on what it was measured."""
    rows, used = [], {}
    for name, task, measured, beside in OVERVIEW:
        if only not in (None, name):
            continue
        result = read_result(name)
        figures = result["figures"] if result else {}
        shown = filled(measured, figures)
        title = filled(task, figures) or re.sub(r" \([^()]*\{[^()]*\)|, \{[^{}]*\} threads", "", task)
        rows.append([title, shown or MISSING, (filled(beside, figures) or "") if shown else ""])
        if result and shown:
            used[name] = result
    return "\n\n".join([table(["what", "measured", "compared with"], rows), *notes(used.values())])


def notes(results: Iterable[dict[str, Any]]) -> list[str]:
    """Return one line for each machine that results were measured on; a package of two versions is named twice."""
    together: dict[str, dict[str, list[str]]] = {}
    machines = {}
    for result in results:
        machine = json.dumps(result["hardware"], sort_keys=True)
        machines[machine] = result["hardware"]
        for package, version in result["versions"].items():
            held = together.setdefault(machine, {}).setdefault(package, [])
            held.extend([version] if version not in held else [])
    return [
        hardware({"hardware": on, "versions": {name: " and ".join(held) for name, held in together[machine].items()}})
        for machine, on in machines.items()
    ]


def hardware(result: dict[str, Any]) -> str:
    """Return the line that says on what a result was measured."""
    on, versions = result["hardware"], result["versions"]
    packages = ", ".join(f"{name} {version}" for name, version in versions.items())
    memory = f", {on['memory_gib']} GiB" if on.get("memory_gib") else ""
    return (
        f"Measured on {on.get('usable_cores', on['cores'])} cores of {on['processor']}{memory}, "
        f"{on['system']}; {packages}."
    )


def everything(name: str) -> str:
    """Return all that a benchmark wrote: bars, figures, provenance."""
    result = read_result(name)
    if result is None:
        target = TARGETS.get(name, f"bench-{name.replace('_', '-')}")
        return f"{MISSING.capitalize()}: run `make {target}`."
    bars = [
        [bar, text(held["value"]), text(held["bar"]), "holds" if held["ok"] else "**missed**"]
        for bar, held in result["bars"].items()
    ]
    parts = [table(["bar", "measured", "wanted", ""], bars)]
    scalars = [[key, text(value)] for key, value in result["figures"].items() if not isinstance(value, (dict, list))]
    if scalars:
        parts.append(table(["figure", "value"], scalars))
    for columns, rows in nested(result["figures"]).items():
        parts.append(table(["", *columns], rows))
    for title, rows in result["figures"].get("tables", {}).items():
        parts.append(f"{title}:\n\n{spread_table(rows)}")
    parts.append(hardware(result))
    if result["seeds"]:
        parts.append("Seeds: " + ", ".join(f"{key} {value}" for key, value in result["seeds"].items()) + ".")
    if result["data"]:
        hashes = (f"`{file}` {digest[:16]}…" for file, digest in result["data"].items())
        parts.append("Data (SHA-256): " + ", ".join(hashes) + ".")
    return "\n\n".join(parts)


def scoreboard(*, short: bool) -> str:
    """Return the tables of the scoreboard: a row a set, in full the measures of every method, too."""
    result = read_result("scoreboard")
    if result is None:
        return f"{MISSING.capitalize()}: run `make scoreboard`."
    from cellingua.bench.tables import asked, markdown, summary

    held = result["figures"]["result"]
    unseen = [run for run in held["runs"] if not held["sets"][run["set"]]["in_training"]]
    if short:
        held = {**held, "runs": unseen}
    questions = list(dict.fromkeys(run["question"] for run in held["runs"]))
    shown = [name for name in questions if not short or name in ("terms", "few:5", "share", "donors")]
    parts = [f"Macro-F1, {asked(name)}:\n\n{summary(held, name)}" for name in shown]
    asked_of = {f"{run['set']}, {run['question']}" for run in unseen}
    wins = [line.rsplit(": ", 1)[0] for line in result["figures"]["baseline_wins"]]
    told = [one for one in wins if one in asked_of]
    parts.append(
        f"Of {len(asked_of)} comparisons on sets that the model has not seen, a baseline is above it in {len(told)}"
        f"{': ' if told else ''}{'; '.join(told)}."
    )
    if not short:
        if (ROOT / "docs" / "scoreboard.svg").is_file():
            parts.insert(0, "![Macro-F1 of every method, set by set](scoreboard.svg)")
        parts.append(markdown(held))
        left = dict.fromkeys(f"{e['method'] or e['question']} ({e['reason']})" for e in held["skipped"])
        parts.append("Left out: " + "; ".join(left) + ".")
        parts.append(training_seeds(result["figures"]["training_seeds"]))
        parts.append(", ".join(f"`{file}` {digest[:16]}…" for file, digest in result["data"].items()))
    return "\n\n".join([*parts, hardware(result)])


def training_seeds(held: dict[str, Any]) -> str:
    """Return how far models of other training seeds are apart."""
    if not held:
        return "Spread over training seeds: " + MISSING + "."
    rows = [
        [name, *(f"{one['mean']:.3f} ± {text(one['deviation'])}" for one in kinds.values())]
        for name, kinds in held["sets"].items()
    ]
    return (
        f"{len(held['models'])} training seeds at a tenth of the budget:\n\n{table(['', 'accuracy', 'macro-F1'], rows)}"
    )


def spread_table(rows: dict[str, dict[str, list[float | None] | None]]) -> str:
    """Return a table of means with their standard deviations; the largest mean of a row is bold."""
    columns = list(next(iter(rows.values()), {}))
    lines = []
    for name, cells in rows.items():
        means = [cell[0] for cell in cells.values() if cell and cell[0] is not None]
        best = max(means, default=None)
        lines.append([name])
        for column in columns:
            mean, deviation = cells.get(column) or (None, None)
            shown = "–" if mean is None else f"{mean:.3f}" + ("" if deviation is None else f" ± {deviation:.3f}")
            lines[-1].append(f"**{shown}**" if mean is not None and mean == best else shown)
    return table(["", *columns], lines)


def nested(figures: dict[str, Any]) -> dict[tuple[str, ...], list[list[str]]]:
    """Return the figures that lie deeper as rows of tables: columns -> rows, one table for each set of columns."""
    found: dict[tuple[str, ...], list[list[str]]] = {}

    def walk(path: tuple[str, ...], at: dict[str, Any]) -> None:
        leaves = {key: value for key, value in at.items() if not isinstance(value, (dict, list))}
        if path and leaves:
            found.setdefault(tuple(leaves), []).append([" · ".join(path), *map(text, leaves.values())])
        for key, value in at.items():
            if isinstance(value, dict):
                walk((*path, key), value)

    walk((), figures)
    return found


def text(value: Any) -> str:
    """Return a figure as it is shown."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    return "–" if value is None else str(value)


def fill(document: str) -> str:
    """Return a document with its blocks filled."""

    def block(found: re.Match[str]) -> str:
        name = found[2]
        if name.startswith("scoreboard"):
            body = scoreboard(short=name != "scoreboard")
        else:
            body = overview(name.partition("-")[2] or None) if name.startswith("overview") else everything(name)
        return f"{found[1]}{body}\n{found[3]}"

    return BLOCK.sub(block, document)


def main() -> int:
    """Fill all documents; with ``--check`` say which are out of date."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 if a document is out of date")
    args = parser.parse_args()
    stale = []
    for name in DOCUMENTS:
        path = ROOT / name
        before = path.read_text(encoding="utf-8")
        after = fill(before)
        if after != before:
            stale.append(name)
            if not args.check:
                path.write_text(after, encoding="utf-8")
    if args.check:
        print(f"out of date: {', '.join(stale)}; run: make figures" if stale else "all figures are up to date")
        return 1 if stale else 0
    print(f"written: {', '.join(stale) or 'nothing changed'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
