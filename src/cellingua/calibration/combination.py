"""Two opinions on a cell and a label made one: the similarity of their vectors, and the match classifier's.

The released code adds a softmax over similarities to a softmax over match probabilities. A probability lies within 0
and 1, so the second softmax is flat, and the flatter the more labels there are: what the classifier counts for depends
on the number of labels. Ours adds log-odds to logits, with a weight and a temperature that are fitted by likelihood;
what a label gets then depends on that label alone.

Where there are many labels, the classifier is asked about the likeliest few ("chosen"), the others are "pruned".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from cellingua.calibration.rollup import softmax

Floats = NDArray[np.float32]
ALPHA = 0.1  # the similarity's share in the released code
#: A classifier that has become certain says no more than this: odds of 22,000 to 1.
CERTAIN = 10.0
WIDEST = 4.0  # of the logarithm of the temperature, both ways
HEAVIEST = 10.0


@dataclass(frozen=True)
class Combination:
    """How much the match classifier counts.

    Attributes
    ----------
    weight
        What log-odds of 1 add to a logit, 0 or more.
    temperature
        Divides the sum.
    """

    weight: float
    temperature: float

    def logits(self, similarity: Floats, log_odds: Floats, chosen: NDArray[np.integer] | None = None) -> Floats:
        """Return the logits of each cell for each label, float32 (n, K).

        Parameters
        ----------
        similarity
            float (n, K): logits without the classifier.
        log_odds
            float (n, k): the classifier's, of the chosen labels.
        chosen
            int (n, k): their columns, each once in a row; None means all columns in order.

        Notes
        -----
        A pruned label counts as fitting as badly as the worst of the chosen. So no pruned label that was less similar
        passes a chosen one, and how chosen labels stand to one another is the same with and without pruning.
        """
        held = np.clip(np.asarray(log_odds, np.float32), -CERTAIN, CERTAIN)
        if chosen is not None:
            full = np.repeat(held.min(axis=1, keepdims=True), similarity.shape[1], axis=1)
            np.put_along_axis(full, np.asarray(chosen, np.int64), held, axis=1)
            held = full
        summed = np.asarray(similarity, np.float32) + np.float32(self.weight) * held
        return np.asarray(summed / np.float32(self.temperature), np.float32)


#: The classifier counts for nothing.
SIMILARITY_ALONE = Combination(0.0, 1.0)


@dataclass(frozen=True)
class Judged:
    """Cells with known answers, to fit on: as `Combination.logits` takes them, and what is right.

    Attributes
    ----------
    similarity, log_odds, chosen
        See `Combination.logits`.
    right
        bool (n, K): the labels that are right for each cell (several, where labels contain one another).
    """

    similarity: Floats
    log_odds: Floats
    chosen: NDArray[np.integer] | None
    right: NDArray[np.bool_]

    def loss(self, combination: Combination) -> float:
        """Return the mean of minus the log of the probability that the answer is right, over the cells."""
        probability = softmax(combination.logits(self.similarity, self.log_odds, self.chosen))
        return float(-np.log(np.where(self.right, probability, 0.0).sum(axis=1) + 1e-9).mean())

    def accuracy(self, combination: Combination) -> float:
        """Return the share of cells whose likeliest label is right."""
        best = combination.logits(self.similarity, self.log_odds, self.chosen).argmax(axis=1)
        return float(self.right[np.arange(len(best)), best].mean())


def fit_combination(files: Sequence[Judged]) -> Combination:
    """Return weight and temperature of the largest likelihood, every file counting the same.

    The weight is kept between 0 and `HEAVIEST`: a classifier that speaks against itself is not believed the other way
    round.
    """
    held = [file for file in files if len(file.right)]
    if not held:
        return SIMILARITY_ALONE

    def loss(x: NDArray[np.float64]) -> float:
        combination = _of(x)
        # Beyond the bounds nothing changes but this, so that the search turns round.
        beyond = abs(float(x[0]) - combination.weight) + max(abs(float(x[1])) - WIDEST, 0.0)
        return float(np.mean([file.loss(combination) for file in held])) + beyond

    found = [
        minimize(
            loss,
            x0=np.array([weight, 0.0]),
            method="Nelder-Mead",
            options={"xatol": 1e-3, "fatol": 1e-6, "maxiter": 200},  # type: ignore[call-overload, unused-ignore]
        )
        for weight in (0.05, 1.0)
    ]
    best = _of(min(found, key=lambda result: float(result.fun)).x)
    return Combination(round(best.weight, 4), round(best.temperature, 4))


def _of(x: NDArray[np.float64]) -> Combination:
    return Combination(float(np.clip(x[0], 0.0, HEAVIEST)), float(np.exp(np.clip(x[1], -WIDEST, WIDEST))))


def released(
    similarity: Floats, log_odds: Floats, chosen: NDArray[np.integer] | None = None, *, alpha: float = ALPHA
) -> Floats:
    """Return the scores of the released code, float32 (n, K), rows sum to 1.

    ``alpha softmax(similarity) + (1 - alpha) softmax(p)`` with p the probability of a match (Zhao et al., 2024; the
    second softmax runs over probabilities, as in the code). These scores are no calibrated probabilities.

    Parameters
    ----------
    similarity
        float (n, K): cosine over the temperature, 0.05.
    log_odds
        float (n, k): of the chosen labels; p is their logistic function.
    chosen
        int (n, k), or None for all. The released code chooses all. A pruned label gets nothing from the second term,
        which then runs over the chosen.
    alpha
        The similarity's share.
    """
    match = softmax(_logistic(np.asarray(log_odds, np.float32)))
    if chosen is not None:
        few, match = match, np.zeros(similarity.shape, np.float32)
        np.put_along_axis(match, np.asarray(chosen, np.int64), few, axis=1)
    return np.asarray(alpha * softmax(similarity) + (1 - alpha) * match, np.float32)


def _logistic(x: Floats) -> Floats:
    return np.asarray(0.5 * (1 + np.tanh(0.5 * x)), np.float32)
