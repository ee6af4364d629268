"""Smoothing over neighbours equals the solved system, keeps what is even, and mends what stands alone."""

from __future__ import annotations

import numpy as np
import pytest

from cellingua.calibration.smoothing import affinity, smooth_logits, smooth_logits_plainly


def ring(m: int, k: int) -> np.ndarray:
    """Return the neighbours of cells that lie on a ring."""
    steps = np.r_[np.arange(1, k // 2 + 1), -np.arange(1, k // 2 + 1)]
    return (np.arange(m)[:, None] + steps) % m


@pytest.mark.parametrize("strength", [0.0, 0.5, 4.0])
def test_equal_to_the_solved_system(strength: float) -> None:
    rng = np.random.default_rng(0)
    index = np.array([rng.choice(np.delete(np.arange(40), cell), 5, replace=False) for cell in range(40)])
    logits = rng.normal(size=(40, 3)).astype(np.float32)
    joined = affinity(index)
    assert (joined != joined.T).nnz == 0
    fast, plain = smooth_logits(logits, joined, strength), smooth_logits_plainly(logits, joined, strength)
    assert fast == pytest.approx(plain, abs=2e-3)
    if strength == 0:
        assert np.array_equal(fast, logits)


def test_one_cell_among_others_joins_them() -> None:
    logits = np.tile(np.array([2.0, 0.0], np.float32), (30, 1))
    logits[7] = [0.0, 1.0]
    found = smooth_logits(logits, affinity(ring(30, 6)))
    assert found[7].argmax() == 0
    assert (found.argmax(axis=1) == 0).all()


def test_even_logits_stay_on_a_regular_graph_and_order_is_free() -> None:
    joined = affinity(ring(20, 4))
    even = np.tile(np.array([1.0, -2.0, 0.5], np.float32), (20, 1))
    assert smooth_logits(even, joined) == pytest.approx(even, abs=1e-4)
    logits = np.random.default_rng(1).normal(size=(20, 3)).astype(np.float32)
    order = np.random.default_rng(2).permutation(20)
    moved = smooth_logits(logits[order], joined[order][:, order])
    assert moved == pytest.approx(smooth_logits(logits, joined)[order], abs=1e-5)
