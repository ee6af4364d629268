"""Drug responses on TGSA's 82,833 pairs: unseen lines, unseen drugs and random pairs, beside plain baselines.

Run as ``make bench-drug`` or ``python -m benchmarks.bench_drug``. Every method of a split learns from the same pairs
(training and validation; what was chosen, was chosen on those) and answers the same test pairs of the stored draws.
For unseen lines the field is shown twice: with TGSA's training lines alone, and with what the two GDSC screens measured
on further lines and drugs; lines of the test are kept out of both by identifier and name. Writes
``benchmarks/results/drug.json`` and exits 0 only where the bars hold.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.common import at_least, below, shared_folder, write_result
from cellingua.baselines.additive import Additive
from cellingua.baselines.drug_form import Known
from cellingua.baselines.drug_mean import DrugMean, GlobalMean
from cellingua.baselines.drug_ridge import DrugRidge
from cellingua.baselines.drug_trees import DrugTrees
from cellingua.baselines.factorisation import Factorisation
from cellingua.calibration.ranges import covered
from cellingua.measures.regression import MEASURES, bootstrap, within
from cellingua.molecules.smiles import fingerprints
from cellingua.molecules.splits import check_split, digest
from cellingua.recipes.drug import Answered, answer, learned_grid
from cellingua.recipes.drug_data import DrugData, read_drug_data, read_more_lines

LEARN = ("train", "val")


def scores(data: DrugData, done: Answered, draws: int, *, kind: str = "random_pairs") -> dict[str, Any]:
    """Return all measures over pairs and within drugs and lines; intervals of lines (or drugs) drawn anew."""
    line, drug = data.pairs.line[done.rows], data.pairs.drug[done.rows]
    out: dict[str, Any] = {name: round(f(done.truth, done.prediction), 4) for name, f in MEASURES.items()}
    for name, groups in (("drug", drug), ("line", line)):
        for measure in ("pearson", "spearman", "rmse"):
            inside = within(done.truth, done.prediction, groups, measure=MEASURES[measure])
            out[f"{measure}_within_{name}"] = round(inside.median, 4)
    if draws:
        for name in ("pearson", "rmse"):
            drawn = bootstrap(
                done.truth, done.prediction, MEASURES[name], units=drug if kind == "unseen_drugs" else line, draws=draws
            )
            out[f"{name}_interval"] = [round(drawn.low, 4), round(drawn.high, 4)]
    if np.ptp(done.sd) > 0:
        out["covered_by_1.645_deviations"] = round(
            float(np.mean(np.abs(done.truth - done.prediction) <= 1.645 * done.sd)), 4
        )
    if kind == "unseen_lines" and done.new_lines is not None:
        for level in done.new_lines.reach:
            ends = done.new_lines.around(done.prediction, done.sd, level)
            out[f"covered_by_range_{level:g}"] = round(covered(done.truth, *ends), 4)
    return out


def baselines(data: DrugData, kind: str) -> dict[str, Callable[[NDArray[np.float64]], NDArray[np.float64]]]:
    """Return the baselines of a split: a table with holes in, a full one out."""
    wide = Known(data.tables["wide"], fingerprints(data.molecules).astype(np.float64))
    near = Known(data.tables["expression"], wide.drugs)
    made: dict[str, Callable[[NDArray[np.float64]], NDArray[np.float64]]] = {
        "global mean": lambda grid: GlobalMean().complete(grid, wide),
        "drug mean": lambda grid: DrugMean().complete(grid, wide),
        "drug + line additive": lambda grid: Additive().complete(grid, wide),
    }
    if kind == "random_pairs":
        made["matrix factorisation, no features"] = lambda grid: Factorisation(24, 8.0).complete(grid, wide)
    if kind != "unseen_drugs":
        made["ridge a drug, 706 genes"] = lambda grid: DrugRidge().complete(grid, near)
        made["ridge a drug, 5,778 genes"] = lambda grid: DrugRidge().complete(grid, wide)
    made["boosted trees, components of 5,778 genes and fingerprints"] = lambda grid: DrugTrees().complete(grid, wide)
    return made


def measure(data: DrugData, folder: Path, kind: str, draws: int, trees: bool) -> dict[str, Any]:
    """Return method -> scores for one split."""
    out: dict[str, Any] = {}
    grid = learned_grid(data, kind, LEARN)
    rows = data.splits[kind].rows("test")
    where = data.pairs.line[rows], data.pairs.drug[rows]
    for name, method in baselines(data, kind).items():
        if "trees" in name and not trees:
            continue
        began = time.perf_counter()
        guess = method(grid)[where]
        out[name] = scores(data, Answered(rows, data.pairs.value[rows], guess, np.zeros(len(rows))), 0)
        out[name]["seconds"] = round(time.perf_counter() - began, 1)
        _say(kind, name, out[name])
    ways: dict[str, dict[str, Any]] = {"field, training pairs alone": {"learn": ("train",)}, "field": {}}
    if kind == "unseen_lines":
        learned = np.asarray(np.isfinite(grid).any(axis=1))
        ways["field, with further lines and drugs of GDSC"] = {"more": read_more_lines(folder, data, learned)}
    for name, options in ways.items():
        began = time.perf_counter()
        out[name] = scores(data, answer(data, kind, **options), draws, kind=kind)
        out[name]["seconds"] = round(time.perf_counter() - began, 1)
        _say(kind, name, out[name])
    return out


def _say(kind: str, name: str, found: dict[str, Any]) -> None:
    print(
        f"{kind:<14}{name:<60}{found['pearson']:>8}{found['rmse']:>8}{found['pearson_within_drug']:>8}"
        f"{found['seconds']:>8}",
        flush=True,
    )


def bars(found: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return the bars; unseen lines are judged by the field that learned from all that may be learned from."""
    lines, drugs, pairs = found["unseen_lines"], found["unseen_drugs"], found["random_pairs"]
    best, additive = lines["field, with further lines and drugs of GDSC"], drugs["drug + line additive"]
    return {
        "unseen lines: median Pearson within a drug": at_least(best["pearson_within_drug"], 0.57),
        "unseen lines: Pearson": at_least(best["pearson"], 0.90),
        "unseen drugs: RMSE below the additive guess": below(drugs["field"]["rmse"], min(additive["rmse"], 2.62)),
        "unseen drugs: Pearson within a drug, the additive guess": at_least(
            drugs["field"]["pearson_within_drug"], max(additive["pearson_within_drug"], 0.678)
        ),
        "random pairs: Pearson": at_least(pairs["field"]["pearson"], 0.945),
        "random pairs: RMSE": below(pairs["field"]["rmse"], 0.9300001),
    }


def main() -> int:
    """Measure, print, write the result, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--without-trees", action="store_true", help="leave the slowest baseline out (to try things)")
    parser.add_argument("--draws", type=int, default=200, help="resamples of the intervals")
    arguments = parser.parse_args()
    folder = shared_folder() / "data" / "drug"
    data = read_drug_data(folder)
    scaffolds = dict(zip(data.pairs.drugs.tolist(), data.drugs.scaffold.tolist(), strict=True))
    for split in data.splits.values():
        check_split(split, data.pairs, scaffolds=scaffolds)
    kinds = ("unseen_lines", "unseen_drugs", "random_pairs")
    found = {kind: measure(data, folder, kind, arguments.draws, not arguments.without_trees) for kind in kinds}
    figures = {
        "pairs": len(data.pairs),
        "learned_from": "train and val; what was chosen was chosen on these",
        "splits_sha256": {kind: digest(split, data.pairs) for kind, split in data.splits.items()},
        "tables": found,
    }
    files = [folder / "tgsa" / "pairs.parquet", folder / "gdsc" / "gdsc1.parquet", folder / "gdsc" / "gdsc2.parquet"]
    return write_result("drug", figures, bars(found), seeds={"stored draws": 42, "bootstrap": 0}, data=files)


if __name__ == "__main__":
    sys.exit(main())
