"""Holes in a table of responses, filled by what else is known of the same line.

The rows of a table (lines) are taken as draws of one Gaussian around a mean: what a line did with the drugs that were
tried says what it would have done with the others, through the covariance of drugs. Mean and covariance are found by
expectation maximisation (Dempster, Laird and Rubin 1977); the covariance is shrunk to its diagonal, as there are few
lines for so many drugs. The mean of a row may come from elsewhere (a prediction from its expression), or from a kernel
between lines: then it is the smooth part of the filled table itself.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cellingua.core.errors import InputError

Floats = NDArray[np.float64]
LEAST = 1e-6  # variance of a drug, in units of the spread of its values


@dataclass(frozen=True)
class Filled:
    """A table without holes.

    Attributes
    ----------
    values
        float64 (n, D): as measured, and the conditional mean elsewhere.
    mean
        float64 (n, D): what a row is expected to be before any of its own values is seen.
    covariance
        float64 (D, D): of a row around its mean, in squared units of the values.
    """

    values: Floats
    mean: Floats
    covariance: Floats


def fill(
    grid: Floats,
    *,
    mean: Floats | None = None,
    kernel: Floats | None = None,
    strength: float = 3.0,
    shrink: float = 0.2,
    rounds: int = 8,
) -> Filled:
    """Fill the holes of a table.

    Parameters
    ----------
    grid
        float (n, D), NaN where nothing was measured; each drug needs two values.
    mean
        float (n, D): the mean of each row, given; without it the drugs' means, or the kernel's.
    kernel
        float (n, n) between the lines, mean diagonal 1: the mean is then the table smoothed with it.
    strength
        Of that smoothing (more = smoother).
    shrink
        0 (covariance as found) to 1 (drugs are independent).
    rounds
        Of expectation and maximisation.
    """
    there = np.isfinite(grid)
    if grid.ndim != 2 or (there.sum(axis=0) < 2).any() or not 0 <= shrink <= 1:
        raise InputError("A drug of the table has fewer than two values.", "two lines or more for each drug")
    centre = np.where(there, grid, 0.0).sum(axis=0) / there.sum(axis=0)
    spread = np.sqrt(np.where(there, (grid - centre) ** 2, 0.0).sum(axis=0) / there.sum(axis=0))
    spread = np.where(spread > 1e-9, spread, 1.0)
    known = np.where(there, (grid - centre) / spread, 0.0)
    given = None if mean is None else (mean - centre) / spread
    smooth = None if kernel is None else _smoother(kernel, strength)
    # A line's own level is the first guess of what was not tried on it.
    expected = np.zeros(grid.shape) if given is None else given
    level = np.where(there, known - expected, 0.0).sum(axis=1) / (there.sum(axis=1) + 2.0)
    values = np.where(there, known, expected + level[:, None])
    spare = np.zeros((grid.shape[1], grid.shape[1]))
    covariance = np.eye(grid.shape[1])
    for _ in range(rounds):
        expected = _expected(values, given, smooth)
        covariance = _covariance(values - expected, spare, shrink)
        values, spare = conditional_rows(known, there, expected, covariance)
    # An outer product gives the covariance its units back.
    return Filled(
        np.where(there, grid, centre + values * spread),
        centre + expected * spread,
        covariance * np.outer(spread, spread),
    )


def conditional(row: Floats, mean: Floats, covariance: Floats, noise: float = 0.0) -> tuple[Floats, Floats]:
    """Return a line's expected values and their standard deviations, given those that were measured on it.

    Parameters
    ----------
    row
        float (D,), NaN where nothing was measured.
    mean, covariance
        (D,) and (D, D): before anything is measured.
    noise
        Variance of a new measurement, beside what the covariance holds.
    """
    there = np.isfinite(row)
    spread = np.sqrt(np.maximum(np.diag(covariance), 0.0))
    if not there.any():
        return mean.copy(), spread
    inner = covariance[np.ix_(there, there)] + noise * np.eye(int(there.sum()))
    weights = np.linalg.solve(inner, covariance[np.ix_(there, ~there)])
    values, sd = row.astype(np.float64).copy(), np.zeros(len(row))
    values[~there] = mean[~there] + (row[there] - mean[there]) @ weights
    left = np.diag(covariance)[~there] - np.einsum("ij,ij->j", covariance[np.ix_(there, ~there)], weights)
    sd[~there] = np.sqrt(np.maximum(left, 0.0))
    return values, sd


def _expected(values: Floats, given: Floats | None, smooth: Floats | None) -> Floats:
    if given is not None:
        return given
    centre = values.mean(axis=0)
    if smooth is None:
        return np.repeat(centre[None, :], len(values), axis=0)
    return centre + smooth @ (values - centre)


def _smoother(kernel: Floats, strength: float) -> Floats:
    size, axes = np.linalg.eigh(kernel)
    size = np.maximum(size, 0.0)
    return (axes * (size / (size + strength))) @ axes.T


def _covariance(rest: Floats, spare: Floats, shrink: float) -> Floats:
    found = (rest.T @ rest + spare) / len(rest)
    own = np.diag(found)
    # A drug whose values are all one (a dose that no line survived) would leave nothing to be inverted.
    return (1 - shrink) * found + np.diag(shrink * own + np.where(own > LEAST, 0.0, LEAST))


def conditional_rows(
    known: Floats, there: NDArray[np.bool_], expected: Floats, covariance: Floats
) -> tuple[Floats, Floats]:
    """Return each row with its holes at their conditional mean, and the summed covariance that is left in them.

    Each row is what `conditional` says of it. Few holes are solved for by the precision, whose part of the holes is the
    inverse of the covariance that is left in them; many holes by the covariance of what was seen.
    """
    values, spare = np.where(there, known, 0.0), np.zeros(covariance.shape)
    precision = np.linalg.inv(covariance)
    for row in range(len(values)):
        seen, hole = np.flatnonzero(there[row]), np.flatnonzero(~there[row])
        if not len(hole):
            continue
        rest = known[row, seen] - expected[row, seen]
        if len(hole) <= len(seen):
            left = np.linalg.inv(precision[np.ix_(hole, hole)])
            change = -left @ (precision[np.ix_(hole, seen)] @ rest)
        else:
            across = covariance[np.ix_(seen, hole)]
            weights = np.linalg.solve(covariance[np.ix_(seen, seen)], across)
            left, change = covariance[np.ix_(hole, hole)] - across.T @ weights, rest @ weights
        values[row, hole] = expected[row, hole] + change
        spare[np.ix_(hole, hole)] += left
    return values, spare
