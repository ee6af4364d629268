"""A referee for drug responses: drevalpy, in an environment of its own, splits, fits its naive predictors and judges.

Run as ``make referee-drug`` or ``python -m benchmarks.drug_referee --python cache/drevalpy/bin/python``. TGSA's pairs
are exported; drevalpy draws five folds of unseen lines (its ``LCO``, seed 42) and fits its naive predictors; our
baselines and the field learn from the same lines (training and validation) of the folds asked for; drevalpy measures
all of them. Writes ``benchmarks/results/drug_referee.json`` and exits 0 only where its figures for our predictions are
ours, and its drug mean is ours.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from benchmarks.common import at_least, below, shared_folder, write_result
from cellingua.baselines.additive import Additive
from cellingua.baselines.drug_form import Known
from cellingua.baselines.drug_mean import DrugMean
from cellingua.baselines.drug_ridge import DrugRidge
from cellingua.measures.regression import MEASURES, within
from cellingua.models.drug_field import complete
from cellingua.recipes.drug import FULL
from cellingua.recipes.drug_data import DrugData, read_drug_data
from cellingua.tasks.drug_export import DRUG, LINE, SAID, write_dataset, write_predictions

NAME, MODE, FOLDS = "TGSA", "LCO", 5
SIDE = Path(__file__).with_name("drevalpy_side.py")
THEIRS = {"pearson": "Pearson", "spearman": "Spearman", "r2": "R^2", "rmse": "RMSE", "mae": "MAE"}
Floats = NDArray[np.float64]


def places(data: DrugData, compounds: dict[str, str], path: Path) -> NDArray[np.int64]:
    """Return the pairs of a file of drevalpy's, in its order."""
    table = pd.read_csv(path, dtype={DRUG: str, LINE: str})
    line = {name: at for at, name in enumerate(data.pairs.lines.tolist())}
    drug = {compounds[name]: at for at, name in enumerate(data.pairs.drugs.tolist())}
    pair = {(int(a), int(b)): row for row, (a, b) in enumerate(zip(data.pairs.line, data.pairs.drug, strict=True))}
    return np.array([pair[line[a], drug[b]] for a, b in zip(table[LINE], table[DRUG], strict=True)], dtype=np.int64)


def ours(data: DrugData, learned: NDArray[np.int64]) -> dict[str, Floats]:
    """Return model -> the full table, learned from some pairs."""
    grid = np.full((len(data.pairs.lines), len(data.pairs.drugs)), np.nan)
    grid[data.pairs.line[learned], data.pairs.drug[learned]] = data.pairs.value[learned]
    known = Known(data.tables["wide"], np.zeros((len(data.pairs.drugs), 1)))
    field = complete(grid, dict(data.tables), FULL)
    return {
        "cellingua_drug_mean": DrugMean().complete(grid, known),
        "cellingua_additive": Additive().complete(grid, known),
        "cellingua_ridge_a_drug": DrugRidge().complete(grid, known),
        "cellingua_field": np.asarray(field.values),
    }


def side(python: Path, *words: str, folder: Path) -> None:
    """Run drevalpy's half; what it prints is kept in a log beside its results."""
    environment = {**os.environ, "WANDB_MODE": "disabled", "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")}
    environment.pop("PYTHONPATH", None)
    with (folder / "drevalpy.log").open("a") as log:
        subprocess.run([python, SIDE, *words], check=True, env=environment, cwd=folder, stdout=log, stderr=log)


def answer(data: DrugData, compounds: dict[str, str], run: Path, folds: list[int]) -> dict[str, dict[str, Any]]:
    """Predict the test lines of some folds, write them where drevalpy looks, and return our own figures."""
    found: dict[str, dict[str, Any]] = {}
    at = run / NAME / MODE
    for fold in folds:
        parts = {
            role: places(data, compounds, at / "splits" / f"cv_split_{fold}_{role}.csv")
            for role in ("train", "validation", "test")
        }
        tables = ours(data, np.concatenate([parts["train"], parts["validation"]]))
        rows = parts["test"]
        line, drug, truth = data.pairs.line[rows], data.pairs.drug[rows], data.pairs.value[rows]
        for model, table in tables.items():
            said = table[line, drug]
            write_predictions(run, NAME, model, data.pairs, rows, said, mode=MODE, fold=fold, compounds=compounds)
            scores = {key: float(MEASURES[key](truth, said)) for key in THEIRS}
            scores["pearson_within_drug"] = float(within(truth, said, drug, measure=MEASURES["pearson"]).median)
            found.setdefault(model, {})[str(fold)] = scores
            print(f"fold {fold}  {model:<28}{scores['pearson']:.4f} {scores['rmse']:.4f}", flush=True)
    return found


def drug_means_apart(run: Path, folds: list[int]) -> float:
    """Return how far drevalpy's drug mean and ours are apart at most, in ln µM."""
    gaps = []
    for fold in folds:
        both = [
            pd.read_csv(run / NAME / MODE / model / "predictions" / f"predictions_split_{fold}.csv", dtype={DRUG: str})
            .set_index([LINE, DRUG])[SAID].sort_index()
            for model in ("NaiveDrugMeanPredictor", "cellingua_drug_mean")
        ]  # fmt: skip
        gaps.append(float((both[0] - both[1]).abs().max()))
    return max(gaps)


def answered(run: Path) -> dict[str, int]:
    """Return model -> pairs that it predicted, over all folds: none may be judged on fewer than the others."""
    found: dict[str, int] = {}
    for path in (run / NAME / MODE).glob("*/predictions/predictions_split_*.csv"):
        found[path.parts[-3]] = found.get(path.parts[-3], 0) + len(pd.read_csv(path))
    return found


def main() -> int:
    """Run both halves, compare, write the result, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--python", type=Path, required=True, help="the Python of drevalpy's environment")
    arguments = parser.parse_args()
    folder = shared_folder() / "data" / "drug"
    data = read_drug_data(folder)
    compounds = dict(zip(data.pairs.drugs.tolist(), data.drugs.pubchem_cid.tolist(), strict=True))
    tissues = dict(zip(data.pairs.lines.tolist(), data.lines.gdsc_tissue.tolist(), strict=True))
    folds = list(range(FOLDS))
    # Absolute, but not resolved: the link itself is what makes an environment of a Python.
    python = Path(os.path.abspath(arguments.python))
    with tempfile.TemporaryDirectory() as made:
        place = Path(made)
        run = place / "results" / "run"
        write_dataset(place / "data", NAME, data.pairs, tissues=tissues, compounds=compounds)
        side(python, "run", str(place / "data"), str(run), NAME, MODE, folder=place)
        own = answer(data, compounds, run, folds)
        side(python, "judge", str(run), NAME, str(place / "judged.json"), folder=place)
        judged = json.loads((place / "judged.json").read_text())
        gap = drug_means_apart(run, folds)
        lengths = answered(run)
    theirs = judged["models"]
    apart = max(
        abs(own[model][fold][mine] - theirs[model][fold][name])
        for model in own for fold in own[model] for mine, name in THEIRS.items()
    )  # fmt: skip
    table = {
        model: {
            "folds": len(found),
            **{name: round(float(np.mean([scores[name] for scores in found.values()])), 4) for name in THEIRS.values()},
            **({"Pearson within a drug, median (ours)": round(
                float(np.mean([scores["pearson_within_drug"] for scores in own[model].values()])), 4
            )} if model in own else {}),
        }
        for model, found in sorted(theirs.items())
    }  # fmt: skip
    naive = max(v["Pearson"] for k, v in table.items() if k.startswith("Naive"))
    bars = {
        "its figures for our predictions, and ours: apart at most": below(apart, 1e-6),
        "its drug mean and ours: apart at most, ln uM": below(gap, 1e-9),
        "pairs that every predictor answered": at_least(min(lengths.values()), len(data.pairs)),
        "the field's Pearson, above its best naive predictor": at_least(table["cellingua_field"]["Pearson"], naive),
    }
    figures = {"drevalpy": judged["drevalpy"], "split": "LCO, 5 folds, its seed 42", "predictors": table}
    return write_result("drug_referee", figures, bars, seeds={"drevalpy's folds": 42},
                        data=[folder / "tgsa" / "pairs.parquet"])  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
