"""The field of responses: every line against every drug, whatever of the two was seen before.

One way through for all questions. Holes in the learned table are filled by the line's other responses
(`drug_fill`), the filled table is regressed on what is known of the lines (`drug_ridge`), and once more with each
line's own prediction as the mean of its row. What is then asked decides what answers:

===================  ==================================================================================================
line, drug learned   the line's other responses around its prediction
new line             its features, through the regression; its own responses, where some are given, refine it
new drug             its molecule: the completed table, turned, is regressed on how alike molecules are
both new             the one after the other
===================  ==================================================================================================

Each prediction comes with a standard deviation from errors that were made on left-out lines, drugs or pairs, never
from residuals of a fit. `calibration/ranges.py` makes ranges of them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cellingua.baselines.drug_form import Known
from cellingua.baselines.factorisation import Factorisation
from cellingua.calibration.ranges import Ranges
from cellingua.core.errors import InputError
from cellingua.models.drug_fill import Filled, conditional, fill
from cellingua.models.drug_ridge import ComponentRidge, fit_components
from cellingua.models.drug_views import LineKernel, Tables, View

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Band:
    """Components of the table of responses that are regressed on the same views.

    The first component is how sensitive a line is to everything, and the next ones the large classes of drugs; fine
    differences follow other features. Each band has its own weights of views.

    Parameters
    ----------
    views
        What is known of the lines.
    start, stop
        Components from `start` up to `stop` (None: all the rest).
    """

    views: tuple[View, ...]
    start: int = 0
    stop: int | None = None


@dataclass(frozen=True)
class FieldConfig:
    """What can vary; chosen on lines, drugs and pairs of TGSA's table that are not in its test splits.

    Parameters
    ----------
    bands
        Together all components, each once.
    shrink
        Of the covariance of drugs around a line's prediction.
    rounds
        Of filling.
    beside
        Weight of drugs of other screens that lend their responses, where there are some.
    drug_penalties
        Tried where molecules are rows.
    """

    bands: tuple[Band, ...]
    shrink: float = 0.2
    rounds: int = 6
    beside: float = 0.8
    drug_penalties: tuple[float, ...] = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0)


@dataclass(frozen=True)
class Completed:
    """A prediction for every pair.

    Attributes
    ----------
    values
        float64 (L, D): ln(IC50 / µM).
    sd
        float64 (L, D): standard deviation of a new measurement around it.
    new_lines
        How many deviations a range around a new line's prediction must reach, from lines that were left out.
    """

    values: Floats
    sd: Floats
    new_lines: Ranges | None = None


class ResponseField:
    """The field, fitted on a table with holes.

    Parameters
    ----------
    config
        With at least one band.
    """

    def __init__(self, config: FieldConfig) -> None:
        self.config = config
        self.kernels = [LineKernel(band.views) for band in config.bands]
        self._filled: Filled
        self._ridges: list[ComponentRidge] = []
        self._line_sd: Floats
        self._grid: Floats

    def fit(self, grid: Floats, tables: Tables, beside: Floats | None = None) -> ResponseField:
        """Learn from a table.

        Parameters
        ----------
        grid
            float (n, D), NaN where nothing is known: each line has a value, each drug two.
        tables
            Name -> features of these lines, NaN where absent.
        beside
            float (n, E): responses to further drugs, NaN where there are none. They are not predicted; they say what
            kind of line each one is.
        """
        if not np.isfinite(grid).any(axis=1).all():
            raise InputError("A line without any response was given to learn from.", "a value for each line")
        inner = [kernel.fit(tables).to_learned(tables) for kernel in self.kernels]
        self._grid = grid
        self._filled = fill(grid, shrink=self.config.shrink, rounds=self.config.rounds)
        self._regress(inner, beside)
        self._filled = fill(grid, mean=self.left_out, shrink=self.config.shrink, rounds=self.config.rounds)
        self._regress(inner, beside)
        self._line_sd = np.sqrt(np.nanmean((grid - self.left_out) ** 2, axis=0))
        return self

    def _regress(self, inner: list[Floats], beside: Floats | None) -> None:
        """Regress each band of the filled table on its kernel."""
        table, drugs = self._filled.values, self._grid.shape[1]
        columns = np.ones(drugs)
        if beside is not None and beside.shape[1]:
            joint = np.concatenate([table, beside], axis=1)
            guess = Factorisation(rank=24, penalty=7.0, rounds=12).complete(joint, Known())
            table = np.where(np.isfinite(joint), joint, guess)
            columns = np.concatenate([columns, np.full(beside.shape[1], self.config.beside)])
        self._ridges = [
            fit_components(kernel, table, columns=columns, part=slice(band.start, band.stop)).first(drugs)
            for kernel, band in zip(inner, self.config.bands, strict=True)
        ]

    @property
    def left_out(self) -> Floats:
        """What each learned line would have been predicted as from its features alone, had it been left out (n, D)."""
        return self._ridges[0].centre + sum(ridge.left_out - ridge.centre for ridge in self._ridges)

    def primal(self) -> tuple[dict[str, Floats], Floats]:
        """Return the weights (F, D) of each table's features and an offset (D,) that answer as `predict` does.

        For views that are linear in their features; the lines that were learned from are then no longer needed.
        """
        weights: dict[str, Floats] = {}
        offset = self._ridges[0].centre.copy()
        for kernel, ridge in zip(self.kernels, self._ridges, strict=True):
            for view in kernel.views:
                part, shift = kernel.primal(view.name, ridge.weights)
                weights[view.name] = weights.get(view.name, 0.0) + part
                offset = offset + shift
        return weights, offset

    def ranges(self) -> Ranges:
        """Return how far ranges around new lines must reach, each learned line left out once."""
        line, drug = np.nonzero(np.isfinite(self._grid))
        left_out = self.left_out[line, drug]
        return Ranges.fit(self._grid[line, drug], left_out, self._line_sd[drug], line)

    def learned(self) -> Completed:
        """Return the learned table, completed; where it was measured, the measurement with deviation 0."""
        sd = np.zeros(self._grid.shape)
        for row in range(len(sd)):
            _, sd[row] = conditional(self._grid[row], self._filled.mean[row], self._filled.covariance)
        return Completed(self._filled.values, sd)

    def predict(self, tables: Tables, measured: Floats | None = None) -> Completed:
        """Predict new lines.

        Parameters
        ----------
        tables
            Name -> features (m, F) of the new lines.
        measured
            float (m, D): what was measured on them already, NaN elsewhere; it refines the rest.
        """
        values = self._ridges[0].centre + sum(
            ridge.predict(kernel.to_learned(tables)) - ridge.centre
            for kernel, ridge in zip(self.kernels, self._ridges, strict=True)
        )
        sd = np.repeat(self._line_sd[None, :], len(values), axis=0)
        if measured is not None:
            for row in np.flatnonzero(np.isfinite(measured).any(axis=1)):
                values[row], sd[row] = conditional(measured[row], values[row], self._filled.covariance)
        return Completed(values, sd, self.ranges())


def complete(
    grid: Floats,
    tables: Tables,
    config: FieldConfig,
    *,
    molecules: Floats | None = None,
    beside: Floats | None = None,
) -> Completed:
    """Predict every pair of a table from those that are known: any split, in one call.

    Parameters
    ----------
    grid
        float (L, D): responses to learn from, NaN elsewhere; whole rows and columns may be empty.
    tables
        Name -> features of all L lines. Rows of lines without a response are not looked at while fitting.
    config
        Of the field.
    molecules
        float (D, D): how alike the drugs are; needed where a drug has no response.
    beside
        float (L, E): responses of the lines to further drugs; rows of lines that are not learned from are not read.

    Returns
    -------
    Completed
        (L, D); known pairs as they were measured.
    """
    there = np.isfinite(grid)
    lines, drugs = there.any(axis=1), there.sum(axis=0) >= 2
    fitted = ResponseField(config).fit(
        grid[np.ix_(lines, drugs)],
        {name: table[lines] for name, table in tables.items()},
        None if beside is None else beside[lines],
    )
    values, sd = np.empty((len(grid), int(drugs.sum()))), np.empty((len(grid), int(drugs.sum())))
    known = fitted.learned()
    values[lines], sd[lines] = known.values, known.sd
    if not lines.all():
        new = fitted.predict({k: v[~lines] for k, v in tables.items()})
        values[~lines], sd[~lines] = new.values, new.sd
    if drugs.all():
        return Completed(values, sd, fitted.ranges())
    if molecules is None:
        raise InputError(f"{int((~drugs).sum())} drugs have fewer than two responses.", "how alike molecules are")
    return _with_new_drugs(Completed(values, sd), drugs, molecules, config.drug_penalties)


def _with_new_drugs(known: Completed, drugs: Mask, molecules: Floats, penalties: tuple[float, ...]) -> Completed:
    """Return known columns beside those of drugs without responses."""
    inner = molecules[np.ix_(drugs, drugs)]
    ridge = fit_components(inner, known.values.T, penalties=penalties)
    shape = (len(known.values), len(drugs))
    values, sd = np.empty(shape), np.empty(shape)
    values[:, drugs], sd[:, drugs] = known.values, known.sd
    values[:, ~drugs] = ridge.predict(molecules[np.ix_(~drugs, drugs)]).T
    # What a new drug costs, and what a predicted line costs on top.
    wrong = known.values.T - ridge.left_out
    variance = np.mean(wrong**2, axis=0) + np.mean(known.sd**2, axis=1)
    sd[:, ~drugs] = np.sqrt(variance)[:, None]
    return Completed(values, sd)
