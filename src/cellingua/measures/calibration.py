"""How far stated probabilities and error rates hold: pure functions of (confidence, right) or of an answer's outcome.

A probability is *calibrated* where, of all answers that were given with 0.8, eight in ten are right. An error rate is
*kept* where the share of cells that are not covered stays below it: *covered* means that the answer is the truth or an
ancestor of it in the ontology, and a cell without an answer is not covered.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cellingua.core.errors import InputError

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Reliability:
    """What was stated and what came of it, by bin of confidence.

    Attributes
    ----------
    edges
        float64 (B + 1,): bins of equal width over 0 to 1; the last one contains 1.
    confidence, accuracy
        float64 (B,): mean confidence and share of right answers in each bin; nan where a bin is empty.
    count
        int64 (B,): answers in each bin.
    """

    edges: Floats
    confidence: Floats
    accuracy: Floats
    count: NDArray[np.int64]

    @property
    def error(self) -> float:
        """The expected calibration error: mean of |accuracy - confidence| over answers; nan without any."""
        total = self.count.sum()
        if not total:
            return float("nan")
        gap = np.abs(np.where(self.count > 0, self.accuracy - self.confidence, 0.0))
        return float((gap * self.count).sum() / total)


def reliability(confidence: ArrayLike, right: ArrayLike, bins: int = 15) -> Reliability:
    """Return the reliability diagram of answers (Guo et al., 2017, section 2).

    Parameters
    ----------
    confidence
        float (n,), within 0 and 1.
    right
        bool (n,).
    bins
        Bins of equal width.

    Raises
    ------
    InputError
        The lengths differ, a confidence lies outside 0 to 1, or there is no bin.
    """
    stated, came = _pair(confidence, right)
    if bins < 1:
        raise InputError(f"There are {bins} bins.", "one or more")
    if stated.size and not (np.isfinite(stated).all() and stated.min() >= 0 and stated.max() <= 1):
        raise InputError("A confidence lies outside 0 to 1.", "probabilities")
    edges = np.linspace(0, 1, bins + 1)
    place = np.minimum((stated * bins).astype(np.int64), bins - 1)
    count = np.bincount(place, minlength=bins)
    with np.errstate(invalid="ignore"):
        mean = np.bincount(place, stated, minlength=bins) / count
        share = np.bincount(place, came, minlength=bins) / count
    return Reliability(edges, mean, share, count.astype(np.int64))


def expected_calibration_error(confidence: ArrayLike, right: ArrayLike, bins: int = 15) -> float:
    """Return the expected calibration error; see `reliability`."""
    return reliability(confidence, right, bins).error


def covered(
    answers: Sequence[str],
    truth: Sequence[str],
    is_a: Callable[[str, str], bool],
    unknown: str = "",
    *,
    finer: bool = False,
) -> NDArray[np.bool_]:
    """Return whether each answer covers the truth, bool (n,).

    Parameters
    ----------
    answers, truth
        Term ids, n each; `unknown` stands for no answer, which covers nothing.
    is_a
        ``is_a(term, wider)``: whether `term` is `wider` or lies below it.
    finer
        Whether an answer below the truth covers it, too: where the answers may be finer than the truths were told.
    """
    if len(answers) != len(truth):
        raise InputError(f"There are {len(answers)} answers and {len(truth)} truths.", "one truth an answer")
    held: dict[tuple[str, str], bool] = {}
    found = np.zeros(len(answers), bool)
    for cell, pair in enumerate(zip(answers, truth, strict=True)):
        if pair not in held:
            said, true = pair
            held[pair] = said != unknown and (is_a(true, said) or (finer and is_a(said, true)))
        found[cell] = held[pair]
    return found


@dataclass(frozen=True)
class RiskCoverage:
    """What error is left where only the surest share of cells is answered.

    Attributes
    ----------
    share
        float64 (m,), rising to 1: the share of cells that is answered, the surest first.
    risk
        float64 (m,): the share of these answers that is wrong.
    """

    share: Floats
    risk: Floats

    @property
    def area(self) -> float:
        """Mean risk over all shares; nan without cells. The smaller, the better doubt is told from certainty."""
        if not len(self.share):
            return float("nan")
        return float((np.diff(self.share, prepend=0.0) * self.risk).sum())


def risk_coverage(confidence: ArrayLike, right: ArrayLike) -> RiskCoverage:
    """Return the risk-coverage curve (El-Yaniv and Wiener, 2010): one point for each distinct confidence.

    Cells of one confidence are answered together, so that the order of the cells changes nothing.
    """
    stated, came = _pair(confidence, right)
    if not stated.size:
        return RiskCoverage(np.empty(0), np.empty(0))
    order = np.argsort(-stated, kind="stable")
    last = np.flatnonzero(np.diff(stated[order], append=-np.inf) != 0)
    answered = last + 1
    wrong = np.cumsum(1.0 - came[order])[last]
    return RiskCoverage(answered / stated.size, wrong / answered)


def separation(score: ArrayLike, positive: ArrayLike) -> float:
    """Return the area under the ROC curve: how often a positive scores above a negative, ties counting half.

    nan where there are no positives or no negatives.
    """
    value, is_positive = _pair(score, positive)
    chosen = is_positive > 0
    n, m = int(chosen.sum()), int((~chosen).sum())
    if not n or not m:
        return float("nan")
    _, inverse, counts = np.unique(value, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    return float((ranks[chosen].sum() - n * (n + 1) / 2) / (n * m))


def _pair(first: ArrayLike, second: ArrayLike) -> tuple[Floats, Floats]:
    one, other = (np.asarray(values, np.float64).ravel() for values in (first, second))
    if one.shape != other.shape:
        raise InputError(f"There are {one.size} values and {other.size} outcomes.", "one outcome a value")
    return one, other
