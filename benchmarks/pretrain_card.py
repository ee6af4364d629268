"""Writes the measured effect of the contrast, and where the cells came from, onto the card of a trained CellLM.

``python -m benchmarks.pretrain_card MODEL_FOLDER`` reads ``benchmarks/results/pretrain.json`` and the table of sources
of the shared data; every figure and sentence on the card follows from them. Run again, it replaces what it wrote.
"""

from __future__ import annotations

import argparse
import csv
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.common import RESULTS, shared_folder
from benchmarks.pretrain_arms import ARMS, UNTRAINED
from cellingua.models.cellm_bundle import CellLMParts, load_cellm, save_cellm
from cellingua.models.seen import read_seen

BEGIN, END = "<!-- measured -->", "<!-- end of measured -->"
GEOMETRY = ("uniformity", "mean_cosine", "effective_rank", "participation", "spectrum_1", "spectrum_8")
FEATURES = ("majority", "pca_training_cells", "pca_pretraining_cells", UNTRAINED, "without", "contrast")


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def effect(result: dict[str, Any]) -> str:
    """Return what the ablation measured, in tables and in a sentence that counts."""
    figures = result["figures"]
    shapes = {row["arm"]: row for row in figures["geometry"]}
    geometry = [
        [arm, *(f"{shapes[arm][name]:.3f} ({shapes[arm][f'{name}_range'][0]:.3f} to "
                f"{shapes[arm][f'{name}_range'][1]:.3f})" for name in GEOMETRY)]
        for arm in (UNTRAINED, "without", "contrast")
    ]  # fmt: skip
    tasks = figures["macro_f1"]
    rows = [[task, *(f"{told[name]:.3f}" for name in FEATURES)] for task, told in tasks.items()]
    best = {task: max(told["pca_training_cells"], told["pca_pretraining_cells"]) for task, told in tasks.items()}
    wins = sum(told["contrast"] > told["without"] for told in tasks.values())
    above = sum(told["contrast"] > told[UNTRAINED] for told in tasks.values())
    beaten = sum(told["contrast"] > best[task] for task, told in tasks.items())
    return "\n\n".join([
        "The same model was trained with and without the contrast, on the same cells, steps and three seeds (mean, and "
        "smallest to largest), without the studies that it is judged on here. Geometry of 2,000 of their cells:",
        table(["arm", *GEOMETRY], geometry),
        f"Linear probes, macro F1, mean of three seeds. With the contrast a probe is better than without it in {wins} "
        f"of {len(tasks)} tasks, better than the untrained model's in {above}, and better than the better of the two "
        f"principal component analyses in {beaten}.",
        table(["task", *FEATURES], rows),
    ])  # fmt: skip


def sources(files: Sequence[str]) -> str:
    """Return where the files came from, and under which licence."""
    path = shared_folder() / "data" / "cells" / "SOURCES.tsv"
    with path.open(encoding="utf-8") as handle:
        known = {row["file"]: row for row in csv.DictReader(handle, delimiter="\t") if row["folder"] == "corpus"}
    rows = [[name, *(known[name][key] for key in ("title", "source", "licence", "file_sha256"))] for name in files]
    return table(["file", "what", "source", "licence", "SHA-256"], rows)


def with_measured(card: str, result: dict[str, Any]) -> str:
    """Return a card with these sections before "How"; what an earlier call wrote is replaced."""
    card = re.sub(rf"{BEGIN}.*?{END}\n\n", "", card, flags=re.DOTALL)
    files = re.findall(r"^\| (\S+\.h5ad) \|", card, re.MULTILINE)
    parts = [BEGIN, "## What the contrast does", effect(result), "## Sources", sources(files), END]
    return card.replace("## How\n", "\n\n".join(parts) + "\n\n## How\n", 1)


def main() -> int:
    """Rewrite the card, and the manifest with it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    args = parser.parse_args()
    result = json.loads((RESULTS / "pretrain.json").read_text(encoding="utf-8"))
    model = load_cellm(args.model)
    held = json.loads((args.model / "config.json").read_text(encoding="utf-8"))
    card = with_measured((args.model / "card.md").read_text(encoding="utf-8"), result)
    parts = CellLMParts(held["name"], held["description"], model.module, model.genes, card, read_seen(args.model))
    save_cellm(args.model, parts)  # float16 to float32 and back loses nothing
    print(f"{args.model}: {load_cellm(args.model).hash}; arms {', '.join((*ARMS, UNTRAINED))}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
