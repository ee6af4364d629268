"""From probabilities over candidates to an answer: named, rolled up to a common ancestor, or unknown.

The candidates of a hierarchy overlap: a cell that is a CD4 T cell is a T cell too. So the probability that a cell
*is a* T cell is the sum over the candidate "T cell" and all candidates below it. An answer is given at the
narrowest term whose sum reaches the threshold; where none does, the honest answer is "unknown".
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import sparse

NAMED, ROLLED_UP, UNKNOWN = 0, 1, 2
STATUS = ("named", "rolled_up", "unknown")


@dataclass(frozen=True)
class Hierarchy:
    """The terms that an answer may be rolled up to.

    Attributes
    ----------
    members
        CSR float32 (m, K): 1 where candidate k is the term or lies below it.
    breadth
        int64 (m,): how general the term is (the number of terms below it in the whole ontology).
    own
        int64 (K,): the row of `members` that is candidate k itself, -1 where it has none.
    """

    members: sparse.csr_matrix
    breadth: np.ndarray
    own: np.ndarray

    def mass(self, probability: np.ndarray) -> np.ndarray:
        """Return the probability of each term with all below it, float32 (n, m), from that of the candidates (n, K)."""
        return np.asarray(self.members @ probability.astype(np.float32).T).T

    @classmethod
    def none(cls, n_candidates: int) -> Hierarchy:
        """Return a hierarchy without terms: nothing is ever rolled up."""
        empty = sparse.csr_matrix(np.zeros((0, n_candidates), dtype=np.float32))
        return cls(empty, np.zeros(0, dtype=np.int64), np.full(n_candidates, -1, dtype=np.int64))


@dataclass(frozen=True)
class Decisions:
    """An answer a row.

    Attributes
    ----------
    status
        int8 (n,): `NAMED`, `ROLLED_UP` or `UNKNOWN`.
    best, second
        int64 (n,): the two likeliest candidates (`second` is -1 where there is one candidate only).
    ancestor
        int64 (n,): row of the hierarchy that answers, where the status is `ROLLED_UP`; else -1.
    probability
        float32 (n,): the probability of the answer: of the term with all that lies below it. For an unknown
        cell, that of the best candidate.
    """

    status: np.ndarray
    best: np.ndarray
    second: np.ndarray
    ancestor: np.ndarray
    probability: np.ndarray


def softmax(logits: np.ndarray) -> np.ndarray:
    """Return float32 (n, K) probabilities over the last axis of `logits` (n, K)."""
    shifted = np.asarray(logits, dtype=np.float32)
    shifted = shifted - shifted.max(axis=1, keepdims=True)
    np.exp(shifted, out=shifted)
    shifted /= shifted.sum(axis=1, keepdims=True)
    return shifted


def decide(
    probability: np.ndarray,
    enough: np.ndarray,
    threshold: float,
    hierarchy: Hierarchy,
    floor: float | None = None,
    mass: np.ndarray | None = None,
) -> Decisions:
    """Answer each row on its own.

    Parameters
    ----------
    probability
        float (n, K), rows sum to 1 (or less, where small ones were dropped).
    enough
        bool (n,): False where a cell shows too little to be named at all.
    threshold
        Smallest probability of an answer.
    hierarchy
        Terms that an answer may be rolled up to, over the same K candidates.
    floor
        Where nothing reaches the threshold, the term (or candidate) of the largest sum answers if it reaches the
        floor. None: nothing does.
    mass
        ``hierarchy.mass(probability)``, where it is known already.

    Notes
    -----
    A row is named where its best candidate reaches the threshold, alone or with the candidates below it. Otherwise
    the term with the least breadth among those whose sum reaches the threshold answers; ties go to the larger sum,
    then to the earlier row.
    """
    n, k = probability.shape
    best = probability.argmax(axis=1) if k else np.zeros(n, dtype=np.int64)
    value = probability[np.arange(n), best].astype(np.float32)
    second = _second(probability, best)
    ancestor = np.full(n, -1, dtype=np.int64)
    status = np.where(value >= threshold, NAMED, UNKNOWN).astype(np.int8)
    status[~enough] = UNKNOWN
    doubtful = np.flatnonzero(enough & (status == UNKNOWN))
    if len(doubtful) and hierarchy.members.shape[0]:
        mass = hierarchy.mass(probability[doubtful]) if mass is None else mass[doubtful]
        passes = mass >= (threshold if floor is None else _reach(mass, value[doubtful], threshold, floor))
        cost = np.where(passes, hierarchy.breadth[None, :], np.iinfo(np.int64).max)
        narrowest = cost.min(axis=1, keepdims=True)
        chosen = np.where(passes & (cost == narrowest), mass, -1.0).argmax(axis=1)
        found = passes.any(axis=1)
        rows, terms = doubtful[found], chosen[found]
        value[rows] = np.minimum(mass[found, terms], 1.0)
        itself = hierarchy.own[best[rows]] == terms
        status[rows] = np.where(itself, NAMED, ROLLED_UP)
        ancestor[rows] = np.where(itself, -1, terms)
    if floor is not None:
        # No term says more than the best candidate alone: free text, or a term that stands by itself.
        alone = enough & (status == UNKNOWN) & (value >= floor)
        status[alone] = NAMED
    return Decisions(status, best.astype(np.int64), second, ancestor, value)


def _reach(mass: np.ndarray, best: np.ndarray, threshold: float, floor: float) -> np.ndarray:
    """Return what a term's sum has to reach in each row, (n, 1): the threshold, or else the largest sum of all.

    Sums that differ by less than rounding are one, so that the narrowest of them answers.
    """
    largest = mass.max(axis=1, keepdims=True)
    lower = np.where(largest >= np.maximum(best[:, None], floor), largest - 1e-6, np.inf)
    return np.where(largest >= threshold, np.minimum(threshold, largest), lower)


def top(probability: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the `count` largest of each row, largest first: columns int32 (n, c) and values float32 (n, c).

    Rows with fewer candidates give fewer columns (c = min(count, K)). Ties go to the earlier candidate.
    """
    width = min(count, probability.shape[1])
    if width < probability.shape[1]:
        part = np.argpartition(-probability, width - 1, axis=1)[:, :width]
        part.sort(axis=1)
    else:
        part = np.broadcast_to(np.arange(width), probability.shape).copy()
    values = np.take_along_axis(probability, part, axis=1)
    order = np.argsort(-values, axis=1, kind="stable")
    return (
        np.take_along_axis(part, order, axis=1).astype(np.int32),
        np.take_along_axis(values, order, axis=1).astype(np.float32),
    )


def _second(probability: np.ndarray, best: np.ndarray) -> np.ndarray:
    """Return the likeliest candidate beside `best`, -1 where there is none."""
    n, k = probability.shape
    if k < 2:
        return np.full(n, -1, dtype=np.int64)
    rest = probability.copy()
    rest[np.arange(n), best] = -1.0
    return rest.argmax(axis=1).astype(np.int64)
