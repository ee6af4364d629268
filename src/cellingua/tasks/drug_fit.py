"""A drug model from a user's own tables, and how good a model is on them: ``cl.tl.drug_fit``, ``cl.tl.drug_evaluate``.

Two tables, or three: expression (lines x genes), responses (a row a measurement: line, drug, IC50), and the SMILES of
the drugs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cellingua.calibration.ranges import covered
from cellingua.core.files import refuse_overwrite
from cellingua.core.progress import Progress, Silent
from cellingua.measures.regression import MEASURES, bootstrap, pearson, within
from cellingua.models.drug_bundle import DEFAULT, load_drug_model, save_drug_model
from cellingua.models.drug_model import DrugModel
from cellingua.molecules.response import Responses
from cellingua.recipes.drug_mini import fit
from cellingua.tasks.drug_answer import Source
from cellingua.tasks.drug_pairs import Paired, ResponseOptions, pair, read_lines, read_smiles

Floats = NDArray[np.float64]
LEVELS = (0.5, 0.8, 0.9)
LEAST_WITHIN = 10  # pairs of a drug, or line, from which on a correlation inside it is told


@dataclass(frozen=True)
class DrugEvaluation:
    """How near a model's predictions are to measured responses.

    Attributes
    ----------
    table
        A row a predictor (``model``, ``drug mean`` of the model's training lines, ``own drug mean`` of this very table:
        no guess by the drug alone can do better), with the measures over all pairs, and the median and mean of Pearson
        within drugs and lines.
    per_drug
        A row a drug: pairs, Pearson and RMSE within it, the shift of predictions, and how many ranges hold.
    interval
        Measure -> (low, high) at 95 % for the model, whole lines drawn again.
    coverage
        Level -> share of ranges that hold the truth.
    pairs
        A row a pair: line, drug, truth, prediction, low, high, drug_mean.
    notes
        What a user should know.
    """

    table: pd.DataFrame
    per_drug: pd.DataFrame
    interval: Mapping[str, tuple[float, float]]
    coverage: Mapping[float, float]
    pairs: pd.DataFrame
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the figures as JSON values; None where a measure is not defined."""
        return {
            "predictors": _plain(self.table),
            "interval_95": {name: list(span) for name, span in self.interval.items()},
            "coverage": {f"{level:g}": share for level, share in self.coverage.items()},
            "drugs": _plain(self.per_drug),
            "notes": list(self.notes),
        }


def drug_fit(
    cells: Source,
    responses: str | Path | pd.DataFrame,
    output: str | Path | None = None,
    *,
    smiles: str | Path | pd.DataFrame | None = None,
    salts: str = "keep",
    options: ResponseOptions | None = None,
    layer: str | None = None,
    genes_in_rows: bool = False,
    seed: int = 0,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> DrugModel:
    """Fit a drug model to expression and responses of cell lines.

    Parameters
    ----------
    cells
        Expression: a table, lines x genes, or a file or AnnData with a row a line.
    responses
        A row a measurement: line, drug and IC50.
    output
        Folder of the model, which every other function takes as ``model``; None keeps it in memory.
    smiles
        Columns ``drug`` and ``smiles``: names of one compound are then one drug, and the model can predict new drugs
        (needs RDKit).
    salts
        ``keep`` or ``strip``, see `cellingua.molecules.smiles.read_molecules`.
    options
        How the responses are read: columns, unit, what happens to repeats that disagree and rows that don't fit.
    layer, genes_in_rows
        Where the expression is.
    seed
        Of everything random.
    overwrite
        Replace `output` if it is there.
    progress
        Where to report.

    Raises
    ------
    InputError
        A table is wrong (row and column are named), too few lines have both, or `output` exists.
    """
    options, progress = options or ResponseOptions(), progress or Silent()
    if output is not None:
        refuse_overwrite(Path(output), force=overwrite)
    lines = read_lines(cells, layer=layer, genes_in_rows=genes_in_rows)
    molecules = None if smiles is None else read_smiles(smiles, salts=salts)
    paired = pair(lines, responses, options, molecules=molecules)
    for line in paired.told():
        progress.say(line)
    name = Path(output).name if output is not None else "drug model"
    model = fit(lines.samples, paired.responses, molecules, seed=seed, progress=progress, name=name)
    if output is not None:
        save_drug_model(Path(output), model)
        return load_drug_model(output)
    return model


def drug_evaluate(
    cells: Source,
    responses: str | Path | pd.DataFrame,
    *,
    model: str | Path | DrugModel = DEFAULT,
    options: ResponseOptions | None = None,
    layer: str | None = None,
    genes_in_rows: bool = False,
    seed: int = 0,
    progress: Progress | None = None,
) -> DrugEvaluation:
    """Measure a model on lines whose responses are known, beside what the drug means alone would say.

    Parameters
    ----------
    cells, responses, options, layer, genes_in_rows
        As `drug_fit` takes them.
    model
        Name or folder of a drug model, or a loaded one.
    seed
        Of the intervals.
    progress
        Where to report.

    Raises
    ------
    InputError
        A table is wrong, or a drug is not known to the model (row and column are named).
    """
    options, progress = options or ResponseOptions(), progress or Silent()
    loaded = model if isinstance(model, DrugModel) else load_drug_model(model)
    lines = read_lines(cells, layer=layer, genes_in_rows=genes_in_rows)
    paired = pair(lines, responses, options, model=loaded)
    progress.step("Predicting drug responses")
    return evaluated(paired, loaded, seed)


def evaluated(paired: Paired, model: DrugModel, seed: int = 0) -> DrugEvaluation:
    """Predict the pairs and measure: the part of `drug_evaluate` that comes after reading."""
    pairs, samples = paired.responses, paired.lines.samples
    place = {name: row for row, name in enumerate(samples.names)}
    rows = np.array([place[str(line)] for line in pairs.lines], dtype=np.int64)
    drugs = [str(drug) for drug in pairs.drugs]
    where = (pairs.line, pairs.drug)
    said = model.predict(samples.take(rows), drugs, level=0.9)
    line, drug, truth = pairs.lines[pairs.line], pairs.drugs[pairs.drug], pairs.value
    predictors = {
        "model": said.value[where],
        "drug mean": said.drug_mean[pairs.drug],
        "own drug mean": _own_mean(pairs),
    }
    table = pd.DataFrame([_measured(name, truth, guess, line, drug) for name, guess in predictors.items()])
    interval = {}
    for measure in ("pearson", "rmse"):
        found = bootstrap(truth, predictors["model"], MEASURES[measure], units=line, draws=500, seed=seed)
        interval[measure] = (found.low, found.high)
    coverage = {}
    for level in LEVELS:
        low, high = model.left_out.ranges.around(said.value, said.sd, level)
        coverage[level] = covered(truth, low[where], high[where])
    frame = pd.DataFrame({
        "line": line, "drug": drug, "truth": truth, "prediction": predictors["model"], "low": said.low[where],
        "high": said.high[where], "drug_mean": predictors["drug mean"],
    })  # fmt: skip
    notes = [*paired.told()]
    notes += [
        "If these lines were among those that the model learned from, the figures flatter it."
        if not model.facts.get("lines")
        else f"The model learned from {model.facts['lines']} lines; figures flatter it where these are among them."
    ]
    return DrugEvaluation(table, _per_drug(frame), interval, coverage, frame, tuple(notes))


def _measured(name: str, truth: Floats, guess: Floats, line: NDArray[Any], drug: NDArray[Any]) -> dict[str, Any]:
    """Return a row of measures: over all pairs, then inside drugs and lines."""
    row: dict[str, Any] = {"predictor": name, "pairs": len(truth)}
    row |= {key: measure(truth, guess) for key, measure in MEASURES.items()}
    for what, groups in (("drug", drug), ("line", line)):
        inside = within(truth, guess, groups, least=LEAST_WITHIN)
        row |= {f"within_{what}_median": inside.median, f"within_{what}_mean": inside.mean}
    return row


def _own_mean(pairs: Responses) -> Floats:
    """Return for each pair the mean of its drug in this very table: the best that a guess by drug alone could be."""
    count = np.bincount(pairs.drug, minlength=len(pairs.drugs))
    total = np.bincount(pairs.drug, weights=pairs.value, minlength=len(pairs.drugs))
    return np.asarray((total / np.maximum(count, 1))[pairs.drug])


def _per_drug(frame: pd.DataFrame) -> pd.DataFrame:
    rows = []
    for drug, part in frame.groupby("drug", sort=True):
        truth, guess = part["truth"].to_numpy(), part["prediction"].to_numpy()
        rows.append({
            "drug": drug, "pairs": len(part),
            "pearson": pearson(truth, guess) if len(part) >= LEAST_WITHIN else np.nan,
            "rmse": MEASURES["rmse"](truth, guess),
            "shift": float((guess - truth).mean()),
            "rmse_drug_mean": MEASURES["rmse"](truth, part["drug_mean"].to_numpy()),
            "coverage": covered(truth, part["low"].to_numpy(), part["high"].to_numpy()),
        })  # fmt: skip
    return pd.DataFrame(rows)


def _plain(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the rows of a table as JSON values."""
    return [
        {
            str(name): None if isinstance(value, float) and not np.isfinite(value) else value
            for name, value in row.items()
        }
        for row in frame.to_dict("records")
    ]
