"""The geometry of embeddings against its definitions, and at shapes whose answer is known."""

from __future__ import annotations

import math

import numpy as np
import pytest

from cellingua.measures.geometry import (
    alignment,
    effective_rank,
    mean_cosine,
    participation_ratio,
    spectrum,
    uniformity,
    unit_rows,
)


def cloud(n: int = 12, d: int = 5, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, d))


def test_equal_loops_over_pairs() -> None:
    x, y = unit_rows(cloud()), unit_rows(cloud(seed=1))
    pairs = [(i, j) for i in range(12) for j in range(12) if i != j]
    square = [sum((x[i, k] - x[j, k]) ** 2 for k in range(5)) for i, j in pairs]
    assert uniformity(x, 2.0) == pytest.approx(math.log(np.mean([math.exp(-2 * s) for s in square])), rel=1e-10)
    assert uniformity(x, 0.7) == pytest.approx(math.log(np.mean([math.exp(-0.7 * s) for s in square])), rel=1e-10)
    assert mean_cosine(x * 3.0) == pytest.approx(np.mean([x[i] @ x[j] for i, j in pairs]), rel=1e-10)
    assert alignment(x, y) == pytest.approx(np.mean([((a - b) ** 2).sum() for a, b in zip(x, y, strict=True)]))
    assert alignment(x, y, 1.0) == pytest.approx(np.mean([np.linalg.norm(a - b) for a, b in zip(x, y, strict=True)]))


def test_a_point_is_as_uneven_as_can_be() -> None:
    x = np.tile([[0.6, 0.8, 0.0]], (9, 1))
    assert uniformity(x) == pytest.approx(0.0, abs=1e-12)
    assert mean_cosine(x) == pytest.approx(1.0)
    assert alignment(x, x) == 0.0
    assert spectrum(x) == pytest.approx([1.0, 0.0, 0.0], abs=1e-7)
    assert effective_rank(x) == pytest.approx(1.0, abs=1e-5)
    assert participation_ratio(np.zeros((9, 3))) == 0.0


def test_a_sphere_is_even() -> None:
    """In d dimensions the squared distance of two random unit vectors is near 2, so uniformity is near -4."""
    x = unit_rows(cloud(800, 256))
    assert uniformity(x) == pytest.approx(-4.0, abs=0.05)
    assert abs(mean_cosine(x)) < 0.01
    assert participation_ratio(x) > 150


def test_the_spectrum_counts_directions() -> None:
    x = np.concatenate([np.eye(4), -np.eye(4)])
    assert spectrum(x) == pytest.approx([0.25] * 4)
    assert effective_rank(x) == pytest.approx(4.0)
    assert participation_ratio(x) == pytest.approx(4.0)
    uneven = x * np.array([3.0, 1.0, 0.0, 0.0])
    assert spectrum(uneven) == pytest.approx([0.75, 0.25, 0, 0])
    assert effective_rank(uneven) == pytest.approx(math.exp(-0.75 * math.log(0.75) - 0.25 * math.log(0.25)))
    assert participation_ratio(uneven) == pytest.approx((9 + 1) ** 2 / (81 + 1))


def test_a_common_direction_shows_unless_it_is_taken_off() -> None:
    x = cloud(60, 6) + 20.0
    assert spectrum(x)[0] > 0.9
    assert spectrum(x, centred=True)[0] < 0.4
    assert effective_rank(x) < effective_rank(x, centred=True)
    assert mean_cosine(x) > 0.9


def test_order_and_rotation_change_nothing() -> None:
    x = unit_rows(cloud())
    turn = np.linalg.qr(cloud(5, 5, 3))[0]
    for other in (x[::-1], x @ turn):
        for measure in (uniformity, mean_cosine, effective_rank, participation_ratio):
            assert measure(other) == pytest.approx(measure(x), rel=1e-9)


def test_rows_of_zeros_stay() -> None:
    assert unit_rows(np.array([[0.0, 0.0], [3.0, 4.0]])).tolist() == [[0.0, 0.0], [0.6, 0.8]]
