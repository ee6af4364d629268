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
from residuals of a fit. `Intervals` (calibration) makes ranges of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from cellingua.core.errors import InputError
from cellingua.models.drug_fill import Filled, conditional, fill
from cellingua.models.drug_ridge import ComponentRidge, fit_components
from cellingua.models.drug_views import LineKernel, Tables, View

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class FieldConfig:
    """What can vary; chosen on the validation lines, drugs and pairs of TGSA's table.

    Parameters
    ----------
    views
        What is known of the lines.
    shrink
        Of the covariance of drugs around a line's prediction.
    rounds
        Of filling.
    drug_penalties
        Tried where molecules are rows.
    """

    views: Sequence[View] = field(default_factory=tuple)
    shrink: float = 0.2
    rounds: int = 6
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
    """

    values: Floats
    sd: Floats


class ResponseField:
    """The field, fitted on a table with holes.

    Parameters
    ----------
    config
        With at least one view.
    """

    def __init__(self, config: FieldConfig) -> None:
        self.config = config
        self.kernel = LineKernel(config.views)
        self._filled: Filled
        self._ridge: ComponentRidge
        self._line_sd: Floats

    def fit(self, grid: Floats, tables: Tables) -> ResponseField:
        """Learn from a table.

        Parameters
        ----------
        grid
            float (n, D), NaN where nothing is known: each line has a value, each drug two.
        tables
            Name -> features of these lines, NaN where absent.
        """
        if not np.isfinite(grid).any(axis=1).all():
            raise InputError("A line without any response was given to learn from.", "a value for each line")
        inner = self.kernel.fit(tables).to_learned(tables)
        options = {"shrink": self.config.shrink, "rounds": self.config.rounds}
        first = fit_components(inner, fill(grid, **options).values)  # type: ignore[arg-type]
        self._filled = fill(grid, mean=first.left_out, **options)  # type: ignore[arg-type]
        self._ridge = fit_components(inner, self._filled.values)
        wrong = grid - self._ridge.left_out
        self._line_sd = np.sqrt(np.nanmean(wrong**2, axis=0))
        self._grid = grid
        return self

    @property
    def left_out(self) -> Floats:
        """What each learned line would have been predicted as from its features alone, had it been left out (n, D)."""
        return self._ridge.left_out

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
        values = self._ridge.predict(self.kernel.to_learned(tables))
        sd = np.repeat(self._line_sd[None, :], len(values), axis=0)
        if measured is not None:
            for row in np.flatnonzero(np.isfinite(measured).any(axis=1)):
                values[row], sd[row] = conditional(measured[row], values[row], self._filled.covariance)
        return Completed(values, sd)


def complete(grid: Floats, tables: Tables, config: FieldConfig, *, molecules: Floats | None = None) -> Completed:
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

    Returns
    -------
    Completed
        (L, D); known pairs as they were measured.
    """
    there = np.isfinite(grid)
    lines, drugs = there.any(axis=1), there.sum(axis=0) >= 2
    fitted = ResponseField(config).fit(grid[np.ix_(lines, drugs)], {k: v[lines] for k, v in tables.items()})
    values, sd = np.empty((len(grid), int(drugs.sum()))), np.empty((len(grid), int(drugs.sum())))
    known = fitted.learned()
    values[lines], sd[lines] = known.values, known.sd
    if not lines.all():
        new = fitted.predict({k: v[~lines] for k, v in tables.items()})
        values[~lines], sd[~lines] = new.values, new.sd
    if drugs.all():
        return Completed(values, sd)
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
