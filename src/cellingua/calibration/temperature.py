"""Temperature and bias: how sure probabilities are, fitted by likelihood on cells that the model has not seen.

The temperature divides all logits and changes no answer (Guo et al., 2017). The bias is added to the logits of labels
that the model knows from words alone, which look as good as others and are right less often.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from cellingua.calibration.rollup import softmax

Floats = NDArray[np.float32]
WIDEST = 4.0  # of the logarithm of the temperature, both ways
#: Most that a label known from words alone is held back: the cells of the calibration are mostly of types that are
#: known from more, and can't tell how rarely the others occur.
MOST_BIAS = 6.0


@dataclass(frozen=True)
class Labelled:
    """Logits of cells whose label is known.

    Attributes
    ----------
    logits
        float32 (n, K).
    right
        bool (n, K): the labels that are right for each cell; several, where labels contain one another.
    words_only
        bool (K,): labels known from words alone.
    """

    logits: Floats
    right: NDArray[np.bool_]
    words_only: NDArray[np.bool_]


@dataclass(frozen=True)
class Temperature:
    """Divides logits, after the bias was added to those of labels known from words alone."""

    temperature: float = 1.0
    bias: float = 0.0

    def apply(self, logits: Floats, words_only: NDArray[np.bool_]) -> Floats:
        """Return calibrated logits, float32 (n, K)."""
        held = np.asarray(logits, np.float32) + np.float32(self.bias) * words_only.astype(np.float32)
        return np.asarray(held / np.float32(self.temperature), np.float32)

    def loss(self, part: Labelled) -> float:
        """Return the mean of minus the log of the probability of what is right."""
        probability = softmax(self.apply(part.logits, part.words_only))
        return float(-np.log(np.where(part.right, probability, 0.0).sum(axis=1) + 1e-9).mean())


def fit_temperature(parts: Sequence[Labelled]) -> Temperature:
    """Return temperature and bias of the largest likelihood, every part counting the same.

    Without a label known from words alone, or with nothing else, the bias is 0.
    """
    held = [part for part in parts if len(part.right)]
    if not held:
        return Temperature()
    biased = any(part.words_only.any() and not part.words_only.all() for part in held)

    def of(x: NDArray[np.float64]) -> Temperature:
        bias = float(np.clip(x[1], -MOST_BIAS, 0.0)) if biased else 0.0
        return Temperature(float(np.exp(np.clip(x[0], -WIDEST, WIDEST))), bias)

    def loss(x: NDArray[np.float64]) -> float:
        # Beyond the bounds nothing changes but this, so that the search turns round.
        beyond = max(abs(x[0]) - WIDEST, 0.0) + (max(x[1], 0.0) + max(-MOST_BIAS - x[1], 0.0) if biased else 0.0)
        return float(np.mean([of(x).loss(part) for part in held])) + beyond

    start = np.array([0.5, -1.0]) if biased else np.array([0.5])
    found = minimize(
        loss,
        x0=start,
        method="Nelder-Mead",
        options={"xatol": 1e-3, "fatol": 1e-6, "maxiter": 120},  # type: ignore[call-overload, unused-ignore]
    )
    best = of(found.x)
    return Temperature(round(best.temperature, 4), round(best.bias, 4))
