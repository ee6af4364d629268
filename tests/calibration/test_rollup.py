"""From probabilities to answers: against a plain loop, and the properties that make it trustworthy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from cellingua.calibration.rollup import NAMED, ROLLED_UP, UNKNOWN, Hierarchy, decide, softmax, top

# Candidates: 0 T cell, 1 CD4 T, 2 CD8 T, 3 B cell.  Terms: lymphocyte, T cell, CD4 T, CD8 T, B cell.
MEMBERS = np.array([[1, 1, 1, 1], [1, 1, 1, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]], dtype=np.float32)
LYMPHOCYTE, T_CELL = 0, 1
TREE = Hierarchy(sparse.csr_matrix(MEMBERS), np.array([300, 170, 36, 40, 97]), np.array([1, 2, 3, 4]))


def one(probability: list[float], threshold: float = 0.5, enough: bool = True) -> tuple[int, int, int, float]:
    answer = decide(np.array([probability]), np.array([enough]), threshold, TREE)
    return int(answer.status[0]), int(answer.best[0]), int(answer.ancestor[0]), float(answer.probability[0])


def plain(row: np.ndarray, enough: bool, threshold: float, tree: Hierarchy) -> tuple[int, int, float]:
    """The rule, written as a person would say it."""
    best = int(row.argmax())
    if not enough:
        return UNKNOWN, -1, float(row[best])
    if row[best] >= threshold:
        return NAMED, -1, float(row[best])
    passing = []
    for term, members in enumerate(tree.members.toarray()):
        mass = float((members * row.astype(np.float32)).sum())
        if mass >= threshold:
            passing.append((tree.breadth[term], -mass, term))
    if not passing:
        return UNKNOWN, -1, float(row[best])
    _, mass, term = min(passing)
    itself = tree.own[best] == term
    return (NAMED if itself else ROLLED_UP), (-1 if itself else term), min(-mass, 1.0)


def test_a_likely_candidate_is_named() -> None:
    assert one([0.1, 0.7, 0.1, 0.1]) == (NAMED, 1, -1, pytest.approx(0.7))


def test_siblings_roll_up_to_the_narrowest_common_ancestor() -> None:
    assert one([0.1, 0.4, 0.4, 0.1]) == (ROLLED_UP, 1, T_CELL, pytest.approx(0.9))
    assert one([0.0, 0.4, 0.05, 0.45], 0.6) == (ROLLED_UP, 3, LYMPHOCYTE, pytest.approx(0.9))


def test_a_candidate_with_what_lies_below_it_is_named_not_rolled_up() -> None:
    assert one([0.4, 0.35, 0.05, 0.2]) == (NAMED, 0, -1, pytest.approx(0.8))


def test_without_enough_evidence_it_is_unknown_whatever_the_probability() -> None:
    assert one([0.0, 1.0, 0.0, 0.0], enough=False)[0] == UNKNOWN


def test_without_terms_nothing_is_rolled_up() -> None:
    answer = decide(np.array([[0.4, 0.3, 0.3]]), np.array([True]), 0.5, Hierarchy.none(3))
    assert answer.status.tolist() == [UNKNOWN]
    assert answer.ancestor.tolist() == [-1]


def test_one_candidate_has_no_runner_up() -> None:
    answer = decide(np.ones((2, 1)), np.ones(2, dtype=bool), 0.5, Hierarchy.none(1))
    assert answer.second.tolist() == [-1, -1]


@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, 10_000), threshold=st.sampled_from([0.3, 0.5, 0.8]), sharp=st.floats(0.1, 4.0))
def test_equals_the_plain_rule(seed: int, threshold: float, sharp: float) -> None:
    rng = np.random.default_rng(seed)
    k, m = int(rng.integers(1, 9)), int(rng.integers(1, 12))
    members = (rng.random((m, k)) < 0.5).astype(np.float32)
    tree = Hierarchy(sparse.csr_matrix(members), rng.integers(1, 6, m), rng.integers(-1, m, k))
    probability = softmax(rng.normal(scale=sharp, size=(7, k)))
    enough = rng.random(7) < 0.9
    answer = decide(probability, enough, threshold, tree)
    for row in range(7):
        status, ancestor, value = plain(probability[row], bool(enough[row]), threshold, tree)
        assert (answer.status[row], answer.ancestor[row]) == (status, ancestor)
        assert answer.probability[row] == pytest.approx(value, abs=1e-6)


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_a_row_answers_alone(seed: int) -> None:
    rng = np.random.default_rng(seed)
    probability = softmax(rng.normal(scale=1.5, size=(9, 4)))
    enough = rng.random(9) < 0.8
    together = decide(probability, enough, 0.5, TREE)
    order = rng.permutation(9)
    moved = decide(probability[order], enough[order], 0.5, TREE)
    for row in range(9):
        alone = decide(probability[row : row + 1], enough[row : row + 1], 0.5, TREE)
        for name in ("status", "best", "second", "ancestor", "probability"):
            assert getattr(alone, name)[0] == getattr(together, name)[row]
            assert getattr(moved, name)[row] == getattr(together, name)[order[row]]


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 10_000), count=st.integers(1, 12))
def test_top_is_a_stable_sort(seed: int, count: int) -> None:
    probability = np.random.default_rng(seed).integers(0, 1000, (5, 8)) / 1000
    index, value = top(probability, count)
    order = np.argsort(-probability, axis=1, kind="stable")[:, : min(count, 8)]
    np.testing.assert_allclose(value, np.take_along_axis(probability, order, axis=1), rtol=1e-6)
    np.testing.assert_allclose(np.take_along_axis(probability, index, axis=1), value, rtol=1e-6)


def test_softmax_survives_large_numbers() -> None:
    value = softmax(np.array([[1e4, 0.0], [-1e9, -1e9]]))
    np.testing.assert_allclose(value, [[1, 0], [0.5, 0.5]])
