"""Thresholds that keep an error rate, from predictions for cells that a model has not seen.

The answers form a family with one parameter: a cell gets the narrowest term whose probability reaches a threshold, so
the higher the threshold, the wider the answer and the rarer the mistake. A cell is *covered* where the answer is the
truth or an ancestor of it, and a cell without an answer is not. The threshold of an error rate is the lowest one from
which on no more than that rate of the calibration cells is left uncovered, with one cell more counted as a mistake:
conformal risk control (Angelopoulos et al., 2022, theorem 1; the running maximum of the risk stands for the risk where
it is not monotone). Sets count alike, whatever their size, because what comes next is another set (Dunn, Wasserman and
Ramdas, 2022). It holds on average for sets like those of the calibration, and for one of another kind as far as these
are like it.

Some cells no threshold covers: the model is wrong about the whole lineage, or nothing above the truth says anything.
Where they alone are more than the rate, it can't be kept, and what is attained is stored beside it. In any case the
threshold keeps the rate among the mistakes that a wider answer mends, in every set.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellingua.core.errors import InputError

#: From which thresholds are chosen: dense where it matters, near 1. Above 1, every answer is as wide as may be.
_BELOW, _NEAR = np.round(np.arange(0.30, 0.90, 0.02), 3), np.round(1 - np.geomspace(0.1, 1e-5, 40), 7)
GRID = (*_BELOW.tolist(), *_NEAR.tolist(), 1.01)
RATES = (0.005, 0.01, 0.015, 0.02, 0.03, 0.04, 0.05, 0.06, 0.07, 0.08, 0.09, 0.1, 0.12, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5)


@dataclass(frozen=True)
class Rule:
    """How answers are given.

    Attributes
    ----------
    threshold
        Least probability of an answer.
    floor
        Least probability of the widest answer, where nothing reaches the threshold; None: there is no such answer.
    """

    threshold: float
    floor: float | None = None


@dataclass(frozen=True)
class ErrorRates:
    """The thresholds of a model.

    Attributes
    ----------
    rates
        Rising error rates.
    thresholds
        One a rate.
    attained
        The risk on the calibration cells; above the rate where no threshold keeps it.
    floor
        See `Rule`.
    """

    rates: tuple[float, ...]
    thresholds: tuple[float, ...]
    attained: tuple[float, ...]
    floor: float

    def rule(self, rate: float) -> Rule:
        """Return the rule for an error rate: that of the next smaller rate that was fitted.

        Raises
        ------
        InputError
            The rate is not above 0 and below 1, or below the smallest that was fitted.
        """
        if not 0 < rate < 1:
            raise InputError(f"The error rate is {rate:g}.", "a share between 0 and 1, such as 0.05")
        if rate < self.rates[0] - 1e-9:
            raise InputError(
                f"The error rate is {rate:g}, and the smallest that the model was calibrated for is {self.rates[0]:g}."
            )
        place = int(np.searchsorted(self.rates, rate + 1e-9, side="right")) - 1
        return Rule(self.thresholds[place], self.floor)

    def attainable(self, rate: float) -> float:
        """Return the share of calibration cells that this rate left uncovered."""
        return self.attained[int(np.searchsorted(self.rates, rate + 1e-9, side="right")) - 1]

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {
            "rates": list(self.rates),
            "thresholds": list(self.thresholds),
            "attained": list(self.attained),
            "floor": self.floor,
        }

    @classmethod
    def from_dict(cls, held: Mapping[str, Any]) -> ErrorRates:
        """Return what `to_dict` gave."""
        rates, thresholds, attained = (tuple(map(float, held[key])) for key in ("rates", "thresholds", "attained"))
        return cls(rates, thresholds, attained, float(held["floor"]))


def fit_error_rates(
    losses: Sequence[NDArray[np.bool_]], floor: float, grid: Sequence[float] = GRID, rates: Sequence[float] = RATES
) -> ErrorRates:
    """Return the thresholds that keep each rate on calibration cells.

    Parameters
    ----------
    losses
        A set each: bool (n, G), whether a cell is not covered at each threshold of `grid`. Sets count alike.
    floor
        Goes into the rules.
    """
    risks = np.array([np.asarray(part, np.float64).mean(axis=0) for part in losses])
    n = sum(len(part) for part in losses)
    risk = risks.mean(axis=0)
    worst = (risks - risks.min(axis=1, keepdims=True)).max(axis=0)
    whole, mended = upper_bound(risk, n), upper_bound(worst, n)
    kept = [first_kept(whole, rate) if whole.min() <= rate else 0 for rate in rates]
    found = [max(place, first_kept(mended, rate)) for place, rate in zip(kept, rates, strict=True)]
    # A lower rate never has a lower threshold, whichever way it was found.
    places = np.maximum.accumulate(found[::-1])[::-1]
    thresholds = tuple(float(grid[place]) for place in places)
    return ErrorRates(tuple(rates), thresholds, tuple(round(float(risk[place]), 5) for place in places), floor)


def upper_bound(risk: NDArray[np.float64], n: int) -> NDArray[np.float64]:
    """Return the risk with one more cell that is a mistake, and never below that of a later threshold, (G,)."""
    more = (n * np.asarray(risk) + 1) / (n + 1)
    return np.maximum.accumulate(more[::-1])[::-1]


def first_kept(bounded: NDArray[np.float64], rate: float) -> int:
    """Return the place of the first threshold that keeps a rate; where none does, that of the least risk."""
    kept = np.flatnonzero(bounded <= rate)
    return int(kept[0]) if len(kept) else int(np.flatnonzero(bounded <= bounded.min() + 1e-12)[0])


def conformal_level(scores: Sequence[float], rate: float) -> float:
    """Return the (1 - rate) conformal quantile of scores: the ceil((n + 1)(1 - rate))-th smallest; inf beyond the last.

    The plain split-conformal threshold (Vovk et al., 2005), which `fit_error_rates` gives where the loss of a cell is 1
    up to its score and 0 from there on.
    """
    ordered = sorted(scores)
    place = math.ceil((len(ordered) + 1) * (1 - rate) - 1e-9)
    return math.inf if place > len(ordered) else float(ordered[max(place, 1) - 1])
