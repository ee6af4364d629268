"""Correction for the sample's composition: shares that are known come out, and nothing else changes."""

from __future__ import annotations

import numpy as np
import pytest

from cellingua.calibration.composition import correct_for_composition


def world(shares: np.ndarray, n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return probabilities of an exact classifier made for equal shares, and the truth."""
    rng = np.random.default_rng(seed)
    k = len(shares)
    truth = rng.choice(k, n, p=shares)
    centres = np.eye(k) * 1.5
    seen = centres[truth] + rng.normal(size=(n, k))
    logits = seen @ centres.T - 0.5 * (centres**2).sum(axis=1)
    held = np.exp(logits - logits.max(axis=1, keepdims=True))
    return held / held.sum(axis=1, keepdims=True), truth


def test_the_shares_of_the_sample_are_found_and_answers_get_better() -> None:
    shares = np.array([0.75, 0.2, 0.05])
    probability, truth = world(shares, 4000)
    corrected, found = correct_for_composition(probability)
    assert np.abs(found - shares).max() < 0.03
    assert (corrected.argmax(axis=1) == truth).mean() > (probability.argmax(axis=1) == truth).mean() + 0.02
    assert corrected.sum(axis=1) == pytest.approx(1)


def test_likelihood_never_falls() -> None:
    probability, _ = world(np.array([0.6, 0.3, 0.1]), 500, 1)
    values = []
    for rounds in (1, 2, 5, 20, 100):
        _, shares = correct_for_composition(probability, spread=0.0, rounds=rounds)
        values.append(np.log(probability @ (shares * len(shares))).sum())
    assert (np.diff(values) >= -1e-9).all()


def test_order_of_cells_and_of_types_changes_nothing() -> None:
    probability, _ = world(np.array([0.6, 0.3, 0.1]), 200, 2)
    corrected, shares = correct_for_composition(probability)
    cells, types = np.random.default_rng(3).permutation(200), np.array([2, 0, 1])
    again, others = correct_for_composition(probability[cells][:, types])
    assert again == pytest.approx(corrected[cells][:, types])
    assert others == pytest.approx(shares[types])


def test_a_sample_as_the_classifier_was_made_for_stays_as_it_is() -> None:
    probability, _ = world(np.array([0.5, 0.3, 0.2]), 3000, 4)
    made_with = probability.mean(axis=0)
    corrected, shares = correct_for_composition(probability, made_with, spread=0.0)
    assert shares == pytest.approx(made_with)
    assert corrected == pytest.approx(probability)


def test_no_cells_no_types() -> None:
    assert correct_for_composition(np.zeros((0, 3)))[0].shape == (0, 3)
    assert correct_for_composition(np.zeros((3, 0)))[0].shape == (3, 0)
