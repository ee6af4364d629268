"""How near numbers are to measured ones: correlation and error, over all, and within each drug or line.

Arguments come as (truth, prediction), as in scikit-learn, whose values these are; tests compare. A correlation with a
prediction that is constant says nothing: it is 0 here, by the convention under which a guess that knows nothing but
the mean of a drug scores 0 within that drug. Where the truth is constant, it is not defined: NaN.

Over all pairs of lines and drugs a correlation is mostly the difference between drugs. `within` gives it inside each
group, and `Within.median` is the figure to compare encoders by.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cellingua.core.errors import InputError

Measure = Callable[[ArrayLike, ArrayLike], float]


def pearson(truth: ArrayLike, prediction: ArrayLike) -> float:
    """Return the correlation; 0 for a constant prediction, NaN for a constant truth."""
    true, said = _pair(truth, prediction)
    return _correlation(true, said)


def spearman(truth: ArrayLike, prediction: ArrayLike) -> float:
    """Return the correlation of ranks, ties sharing their mean rank."""
    true, said = _pair(truth, prediction)
    return _correlation(mean_ranks(true), mean_ranks(said))


def r2(truth: ArrayLike, prediction: ArrayLike) -> float:
    """Return 1 - squared errors over squared distances from the mean; NaN where all truths are equal."""
    true, said = _pair(truth, prediction)
    total = float(((true - true.mean()) ** 2).sum())
    return float(1 - ((true - said) ** 2).sum() / total) if total > 0 else float("nan")


def rmse(truth: ArrayLike, prediction: ArrayLike) -> float:
    """Return the root of the mean squared error."""
    true, said = _pair(truth, prediction)
    return float(np.sqrt(np.mean((true - said) ** 2)))


def mae(truth: ArrayLike, prediction: ArrayLike) -> float:
    """Return the mean absolute error."""
    true, said = _pair(truth, prediction)
    return float(np.mean(np.abs(true - said)))


MEASURES: dict[str, Measure] = {"pearson": pearson, "spearman": spearman, "r2": r2, "rmse": rmse, "mae": mae}


@dataclass(frozen=True)
class Within:
    """A measure inside each group.

    Attributes
    ----------
    groups
        (G,): the groups with enough pairs and a defined value, sorted.
    values
        float64 (G,).
    pairs
        int64 (G,): of each group.
    left_out
        Groups with too few pairs, or where the measure is not defined.
    """

    groups: NDArray[Any]
    values: NDArray[np.float64]
    pairs: NDArray[np.int64]
    left_out: int

    @property
    def median(self) -> float:
        """The median over groups, NaN where there is none."""
        return float(np.median(self.values)) if len(self.values) else float("nan")

    @property
    def mean(self) -> float:
        """The mean over groups, NaN where there is none."""
        return float(self.values.mean()) if len(self.values) else float("nan")


def within(
    truth: ArrayLike, prediction: ArrayLike, groups: ArrayLike, *, measure: Measure = pearson, least: int = 10
) -> Within:
    """Return a measure inside each group of at least `least` pairs.

    Parameters
    ----------
    groups
        (n,): the drug, or the line, of each pair.
    """
    true, said = _pair(truth, prediction)
    names = np.asarray(groups)
    if names.shape != true.shape:
        raise InputError(f"Groups have the shape {names.shape}.", f"one group a pair: {true.shape}")
    kinds, codes = np.unique(names, return_inverse=True)
    order = np.argsort(codes, kind="stable")
    parts = np.split(order, np.cumsum(np.bincount(codes, minlength=len(kinds)))[:-1])
    found = [
        (k, measure(true[rows], said[rows]), len(rows)) for k, rows in enumerate(parts) if len(rows) >= max(least, 1)
    ]
    kept = [entry for entry in found if np.isfinite(entry[1])]
    return Within(
        kinds[[k for k, _, _ in kept]],
        np.array([value for _, value, _ in kept], dtype=np.float64),
        np.array([n for _, _, n in kept], dtype=np.int64),
        len(kinds) - len(kept),
    )


@dataclass(frozen=True)
class Interval:
    """A figure with the range in which a resample of the units leaves it."""

    value: float
    low: float
    high: float


def bootstrap(
    truth: ArrayLike,
    prediction: ArrayLike,
    measure: Measure = pearson,
    *,
    units: ArrayLike | None = None,
    draws: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Return a measure with its percentile bootstrap interval.

    Parameters
    ----------
    units
        (n,): what is drawn with replacement, whole: pairs of one line are not independent, so a claim about new lines
        draws lines, one about new drugs drugs. By default each pair by itself.
    draws, level, seed
        How many resamples, which share of them the interval holds, and what draws them.
    """
    true, said = _pair(truth, prediction)
    codes = np.arange(len(true)) if units is None else np.unique(np.asarray(units), return_inverse=True)[1]
    if codes.shape != true.shape or not 0 < level < 1 or draws < 1:
        raise InputError(f"Units of the shape {codes.shape}, {draws} draws, level {level}.", "one unit a pair")
    order = np.argsort(codes, kind="stable")
    parts = np.split(order, np.cumsum(np.bincount(codes))[:-1])
    rng = np.random.default_rng(seed)
    values = np.empty(draws)
    for draw in range(draws):
        rows = np.concatenate([parts[k] for k in rng.integers(0, len(parts), len(parts))])
        values[draw] = measure(true[rows], said[rows])
    low, high = np.nanquantile(values, [(1 - level) / 2, (1 + level) / 2])
    return Interval(measure(true, said), float(low), float(high))


def mean_ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return ranks from 1, equal values sharing the mean of theirs."""
    _, codes, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return ((2 * last - counts + 1) / 2)[codes]


def _correlation(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    x, y = a - a.mean(), b - b.mean()
    length_x, length_y = float(np.sqrt(x @ x)), float(np.sqrt(y @ y))
    # A constant is never exactly its computed mean: compare with the rounding of the values themselves.
    if length_x <= 1e-12 * max(np.abs(a).max(), 1e-300) * np.sqrt(len(a)):
        return float("nan")
    if length_y <= 1e-12 * max(np.abs(b).max(), 1e-300) * np.sqrt(len(b)):
        return 0.0
    return float(np.clip((x / length_x) @ (y / length_y), -1.0, 1.0))


def _pair(truth: ArrayLike, prediction: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    true, said = np.asarray(truth, dtype=np.float64), np.asarray(prediction, dtype=np.float64)
    if true.ndim != 1 or true.shape != said.shape or not len(true):
        raise InputError(f"Truth has the shape {true.shape} and prediction {said.shape}.", "one number a pair in each")
    if not (np.isfinite(true).all() and np.isfinite(said).all()):
        raise InputError("A truth or a prediction is not a finite number.", "finite numbers", "leaving these pairs out")
    return true, said
