"""How good an order is: area under the ROC curve, average precision, and what stands at the top of a list.

Arguments come as (truth, score), as in scikit-learn, whose values these are; tests compare. A score says "more of it":
for sensitivity that is *minus* the predicted ln IC50.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cellingua.core.errors import InputError
from cellingua.measures.regression import mean_ranks


def auroc(truth: ArrayLike, score: ArrayLike) -> float:
    """Return the chance that a positive scores above a negative, ties counting half; NaN where there is one class."""
    true, said = _pair(truth, score)
    positive, negative = int(true.sum()), int((~true).sum())
    if not positive or not negative:
        return float("nan")
    ranks = mean_ranks(said)[true].sum()
    return float((ranks - positive * (positive + 1) / 2) / (positive * negative))


def average_precision(truth: ArrayLike, score: ArrayLike) -> float:
    """Return the area under precision over recall, as a sum of steps; NaN where nothing is positive."""
    true, said = _pair(truth, score)
    if not true.any():
        return float("nan")
    order = np.argsort(-said, kind="stable")
    hits = np.cumsum(true[order])
    # Equal scores are one step: only the last of each run counts.
    last = np.append(np.diff(said[order]) != 0, True)
    recall, precision = hits[last] / hits[-1], hits[last] / (np.flatnonzero(last) + 1)
    return float(np.sum(np.diff(recall, prepend=0.0) * precision))


def top_overlap(truth: ArrayLike, score: ArrayLike, k: int) -> float:
    """Return which share of the `k` largest truths stands among the `k` largest scores.

    Parameters
    ----------
    truth, score
        float (n,), more = better; equal values are taken in the order given.
    k
        1 to n.
    """
    true, said = np.asarray(truth, dtype=np.float64), np.asarray(score, dtype=np.float64)
    if true.ndim != 1 or true.shape != said.shape or not 1 <= k <= len(true):
        raise InputError(
            f"The top {k} of shapes {true.shape} and {said.shape}.", "one score a truth, k between 1 and n"
        )
    best = set(np.argsort(-true, kind="stable")[:k].tolist())
    return len(best & set(np.argsort(-said, kind="stable")[:k].tolist())) / k


def _pair(truth: ArrayLike, score: ArrayLike) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    true, said = np.asarray(truth), np.asarray(score, dtype=np.float64)
    if true.ndim != 1 or true.shape != said.shape or not len(true):
        raise InputError(f"Truth has the shape {true.shape} and score {said.shape}.", "one number each")
    if not np.isin(true, (0, 1)).all() or not np.isfinite(said).all():
        raise InputError("A truth is neither 0 nor 1, or a score is not finite.", "0 or 1 (or booleans), finite scores")
    return true.astype(bool), said
