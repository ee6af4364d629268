"""Thresholds that keep an error rate: the plain conformal quantile, an oracle package, and rates that can't be kept."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellingua.calibration.answers import Answers
from cellingua.calibration.conformal import (
    GRID,
    RATES,
    ErrorRates,
    conformal_level,
    first_kept,
    fit_error_rates,
    upper_bound,
)
from cellingua.calibration.unknown import OpenSet
from cellingua.core.errors import InputError, ModelError

SCORES = st.lists(st.floats(0, 1, allow_nan=False), min_size=20, max_size=60)


def losses(scores: np.ndarray, grid: np.ndarray) -> np.ndarray:
    """Return the losses of cells that are covered from a threshold on: bool (n, G)."""
    return scores[:, None] > grid[None, :]


@given(SCORES, st.sampled_from([0.05, 0.1, 0.2, 0.5]))
def test_with_one_threshold_a_cell_it_is_split_conformal_prediction(scores: list[float], rate: float) -> None:
    level = conformal_level(scores, rate)
    grid = np.array(sorted({*scores, 1.5}))
    bounded = upper_bound(losses(np.array(scores), grid).mean(axis=0), len(scores))
    if not np.isinf(level) and bounded.min() <= rate + 1e-12:
        assert grid[first_kept(bounded, rate + 1e-12)] == level


def test_crepes_regions_have_the_width_of_the_level() -> None:
    crepes = pytest.importorskip("crepes")
    residuals = np.random.default_rng(1).normal(size=198)
    regressor = crepes.ConformalRegressor()
    regressor.fit(residuals)
    low, high = regressor.predict_int(np.array([0.0]), confidence=0.9)[0]
    assert (high - low) / 2 == pytest.approx(conformal_level(np.abs(residuals).tolist(), 0.1))


def test_new_cells_are_covered_as_often_as_was_stated() -> None:
    rng = np.random.default_rng(3)
    missed = []
    for _ in range(300):
        calibration, new = rng.beta(2, 1, 99), rng.beta(2, 1, 50)
        rates = fit_error_rates([losses(calibration, np.array(GRID))], 0.5)
        missed.append((new > rates.rule(0.2).threshold).mean())
    assert np.mean(missed) <= 0.2 + 0.01  # three standard errors of the mean are 0.009
    assert np.mean(missed) >= 0.15  # and no wider than it must be on this grid


def test_rules_grow_with_the_rate_and_come_back_from_json() -> None:
    scores = np.random.default_rng(4).beta(3, 1, 400)
    rates = fit_error_rates([losses(scores[:200], np.array(GRID)), losses(scores[200:], np.array(GRID))], 0.5)
    assert rates.rates == RATES
    thresholds = [rates.rule(rate).threshold for rate in RATES]
    assert thresholds == sorted(thresholds, reverse=True)
    assert rates.rule(0.055) == rates.rule(0.05)
    assert ErrorRates.from_dict(rates.to_dict()) == rates
    answers = Answers({"user": rates, "ontology": rates}, OpenSet((1.0, 0.0, 0.0, 0.5), -1.0, 0.9), ("one", "two"))
    assert Answers.from_calibration({"answers": answers.to_dict()}) == answers
    assert Answers.from_calibration({"temperature": 1.0}) is None
    with pytest.raises(ModelError, match="calibration of answers"):
        Answers.from_calibration({"answers": {"error_rates": {}}})


def test_a_rate_that_cannot_be_kept_is_kept_among_what_a_wider_answer_mends() -> None:
    scores = np.random.default_rng(5).beta(3, 1, 2000)
    hopeless = np.ones((2000, len(GRID)), bool)
    both = np.concatenate([losses(scores, np.array(GRID)), hopeless])
    rates = fit_error_rates([both], 0.5)
    assert rates.attainable(0.1) > 0.5
    kept = fit_error_rates([losses(scores, np.array(GRID))], 0.5)
    assert rates.rule(0.1).threshold == pytest.approx(kept.rule(0.2).threshold, abs=0.03)


def test_sets_count_alike_whatever_their_size() -> None:
    rng = np.random.default_rng(6)
    easy, hard = losses(rng.beta(1, 5, 500), np.array(GRID)), losses(rng.beta(8, 1, 500), np.array(GRID))
    once = fit_error_rates([easy, hard], 0.5)
    often = fit_error_rates([np.repeat(easy, 20, axis=0), hard], 0.5)
    assert once.rule(0.2).threshold == pytest.approx(often.rule(0.2).threshold, abs=0.02)


@pytest.mark.parametrize("rate", [0.0, 1.0, -0.1, 0.0001])
def test_what_is_no_rate_is_refused(rate: float) -> None:
    rates = ErrorRates((0.01, 0.1), (0.9, 0.5), (0.01, 0.1), 0.5)
    with pytest.raises(InputError, match="error rate"):
        rates.rule(rate)
