"""A range around a predicted number that holds as often as it says, from errors made on what was left out.

Conformal prediction (Vovk, Gammerman and Shafer 2005; Lei et al. 2018) with errors in units of each prediction's own
deviation: where predictions are exchangeable with those that the errors come from, a range at level 0.9 holds the
truth at least 9 times in 10. New lines are exchangeable with lines, not with pairs: the pairs of one line err
together. `fit` therefore takes the line (or drug) of each error, and every one of them counts the same, however many
pairs it has.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellingua.core.errors import InputError

Floats = NDArray[np.float64]
LEVELS = (0.5, 0.8, 0.9, 0.95)


@dataclass(frozen=True)
class Ranges:
    """How many deviations a range reaches to each side.

    Attributes
    ----------
    reach
        Level -> deviations.
    units
        How many lines (or drugs) it was learned from.
    """

    reach: Mapping[float, float]
    units: int

    @classmethod
    def fit(
        cls, truth: Floats, prediction: Floats, sd: Floats, units: NDArray[Any], levels: tuple[float, ...] = LEVELS
    ) -> Ranges:
        """Learn from predictions for what was left out.

        Parameters
        ----------
        truth, prediction, sd
            (n,), sd above 0.
        units
            (n,): the line, or the drug, of each.
        levels
            Between 0 and 1. A level that so few units cannot support reaches without end.
        """
        if not len(truth) == len(prediction) == len(sd) == len(units) or not len(truth) or (sd <= 0).any():
            raise InputError("Ranges need a truth, a prediction, a deviation above 0 and a unit for each pair.")
        score = np.abs(truth - prediction) / sd
        _, codes, counts = np.unique(units, return_inverse=True, return_counts=True)
        # Each unit has the weight 1, and the new one, of which nothing is known, the same.
        weight = 1.0 / counts[codes]
        order = np.argsort(score, kind="stable")
        reached = np.cumsum(weight[order]) / (len(counts) + 1)
        reach = {}
        for level in levels:
            if not 0 < level < 1:
                raise InputError(f"The level {level} was asked for.", "between 0 and 1, such as 0.9")
            place = int(np.searchsorted(reached, level - 1e-12))
            reach[level] = float(score[order[place]]) if place < len(order) else float("inf")
        return cls(reach, len(counts))

    def around(self, prediction: Floats, sd: Floats, level: float = 0.9) -> tuple[Floats, Floats]:
        """Return the lower and upper end of each range."""
        if level not in self.reach:
            raise InputError(f"No range of level {level} was learned.", f"one of {', '.join(map(str, self.reach))}")
        half = self.reach[level] * sd
        return prediction - half, prediction + half


def covered(truth: Floats, low: Floats, high: Floats) -> float:
    """Return the share of truths that lie in their range, ends included."""
    return float(np.mean((truth >= low) & (truth <= high)))
