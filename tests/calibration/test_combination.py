"""Similarity and match made one: the released arithmetic, and properties of ours."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cellingua.calibration.combination import (
    CERTAIN,
    HEAVIEST,
    SIMILARITY_ALONE,
    Combination,
    Judged,
    fit_combination,
    released,
)
from cellingua.calibration.rollup import softmax, top

SEEDS = st.integers(0, 2**16)


def draw(seed: int, n: int = 6, k: int = 9) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.normal(0, 3, (n, k)).astype(np.float32), rng.normal(0, 4, (n, k)).astype(np.float32)


def some(log_odds: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    return np.take_along_axis(log_odds, chosen.astype(np.int64), axis=1)


def test_the_released_scores(shared: Path) -> None:
    with np.load(shared / "data" / "parity" / "langcell_tiny" / "expected" / "zeroshot.npz") as held:
        logits = held["match_logits"]
        found = released(held["sim_over_temperature"], logits[:, :, 1] - logits[:, :, 0])
        np.testing.assert_allclose(found, held["combined_alpha01"], atol=1e-6, rtol=0)
        np.testing.assert_array_equal(found.argmax(axis=1), held["pred_alpha01"])


@settings(max_examples=30)
@given(SEEDS)
def test_released_scores_written_out(seed: int) -> None:
    similarity, log_odds = draw(seed)
    similarity, log_odds = similarity.astype(np.float64), log_odds.astype(np.float64)
    p = 1 / (1 + np.exp(-log_odds))
    s = np.exp(similarity) / np.exp(similarity).sum(axis=1, keepdims=True)
    m = np.exp(p) / np.exp(p).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(released(similarity, log_odds), 0.1 * s + 0.9 * m, atol=1e-6)
    np.testing.assert_allclose(released(similarity, log_odds, alpha=0.5), 0.5 * s + 0.5 * m, atol=1e-6)
    chosen = top(softmax(similarity), 4)[0]
    pruned = released(similarity, some(log_odds, chosen), chosen)
    np.testing.assert_allclose(pruned.sum(axis=1), 1, atol=1e-5)
    rest = np.ones_like(similarity, dtype=bool)
    np.put_along_axis(rest, chosen.astype(np.int64), False, axis=1)
    np.testing.assert_allclose(pruned[rest], 0.1 * s[rest], atol=1e-6)


@settings(max_examples=60)
@given(SEEDS, st.floats(0, 3), st.floats(0.3, 3), st.integers(1, 9))
def test_pruning_changes_nothing_among_the_chosen(seed: int, weight: float, temperature: float, k: int) -> None:
    similarity, log_odds = draw(seed)
    ours = Combination(weight, temperature)
    whole = ours.logits(similarity, log_odds)
    chosen = top(similarity, k)[0]
    pruned = ours.logits(similarity, some(log_odds, chosen), chosen)
    np.testing.assert_allclose(some(pruned, chosen), some(whole, chosen), atol=1e-4)
    for row, columns in enumerate(chosen):
        others = np.setdiff1d(np.arange(similarity.shape[1]), columns)
        if len(others):
            assert pruned[row, others].max() <= pruned[row, columns].min() + 1e-5
            order = np.argsort(similarity[row, others], kind="stable")
            assert (np.diff(pruned[row, others][order]) >= 0).all()


@settings(max_examples=30)
@given(SEEDS, st.permutations(range(9)))
def test_no_label_depends_on_the_others(seed: int, order: list[int]) -> None:
    similarity, log_odds = draw(seed)
    ours = Combination(0.7, 1.3)
    whole = ours.logits(similarity, log_odds)
    np.testing.assert_array_equal(ours.logits(similarity[:, order], log_odds[:, order]), whole[:, order])
    np.testing.assert_array_equal(ours.logits(similarity[:, :2], log_odds[:, :2]), whole[:, :2])
    np.testing.assert_array_equal(ours.logits(similarity[2:3], log_odds[2:3]), whole[2:3])


def test_without_weight_it_is_the_similarity() -> None:
    similarity, log_odds = draw(3)
    np.testing.assert_array_equal(SIMILARITY_ALONE.logits(similarity, log_odds), similarity)


def test_certainty_has_a_limit() -> None:
    similarity = np.zeros((1, 3), np.float32)
    extreme = np.array([[1e6, -np.inf, CERTAIN]], np.float32)
    found = Combination(1.0, 1.0).logits(similarity, extreme)
    np.testing.assert_array_equal(found, [[CERTAIN, -CERTAIN, CERTAIN]])
    assert np.isfinite(released(similarity, extreme)).all()


def judged(weight: float, temperature: float, seed: int, n: int = 4000, k: int = 6) -> Judged:
    """Return cells whose answers are drawn from a combination, so that it is the likeliest one."""
    rng = np.random.default_rng(seed)
    similarity, log_odds = (rng.normal(0, 2, (n, k)).astype(np.float32) for _ in range(2))
    probability = softmax(Combination(weight, temperature).logits(similarity, log_odds))
    answer = (probability.cumsum(axis=1) > rng.random((n, 1))).argmax(axis=1)
    return Judged(similarity, log_odds, None, np.arange(k) == answer[:, None])


@pytest.mark.parametrize(("weight", "temperature"), [(0.5, 1.0), (1.5, 2.5), (0.1, 0.6)])
def test_the_fit_finds_what_made_the_answers(weight: float, temperature: float) -> None:
    files = [judged(weight, temperature, seed) for seed in (1, 2)]
    found = fit_combination(files)
    assert found.weight == pytest.approx(weight, abs=0.12)
    assert found.temperature == pytest.approx(temperature, rel=0.12)
    for other in (Combination(found.weight + 0.3, found.temperature), Combination(found.weight, found.temperature * 2)):
        assert np.mean([file.loss(found) for file in files]) < np.mean([file.loss(other) for file in files])


def test_noise_gets_no_weight() -> None:
    file = judged(0.0, 1.0, 5)
    assert fit_combination([file]).weight < 0.06
    against = judged(-1.0, 1.0, 6)  # a classifier that speaks against itself
    assert fit_combination([against]).weight == 0.0


def test_the_fit_stays_within_bounds_and_accepts_nothing() -> None:
    easy = judged(1.0, 0.01, 7, n=300)  # answers without any doubt: the likeliest temperature would be 0
    found = fit_combination([easy])
    assert 0 <= found.weight <= HEAVIEST
    assert found.temperature > 0.01
    assert fit_combination([]) == SIMILARITY_ALONE
    nothing = np.empty((0, 3), np.float32)
    assert fit_combination([Judged(nothing, nothing, None, nothing.astype(bool))]) == SIMILARITY_ALONE


def test_loss_and_accuracy_with_answers_that_contain_one_another() -> None:
    similarity = np.log(np.array([[0.5, 0.3, 0.2], [0.1, 0.2, 0.7]], np.float32))
    right = np.array([[True, True, False], [True, False, False]])
    file = Judged(similarity, np.zeros((2, 3), np.float32), None, right)
    assert file.loss(SIMILARITY_ALONE) == pytest.approx(-(np.log(0.8) + np.log(0.1)) / 2, abs=1e-5)
    assert file.accuracy(SIMILARITY_ALONE) == 0.5
