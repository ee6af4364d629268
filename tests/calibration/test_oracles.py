"""Ranges and thresholds against two public packages of conformal prediction: mapie and crepes."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from cellingua.calibration.conformal import first_kept, fit_error_rates, upper_bound
from cellingua.calibration.ranges import LEVELS, Ranges

Floats = NDArray[np.float64]


def pairs(n: int, seed: int) -> tuple[Floats, Floats, Floats]:
    """Return truth, prediction and deviation of pairs that are each a line of its own."""
    rng = np.random.default_rng(seed)
    prediction, sd = rng.normal(size=n), rng.uniform(0.5, 2, n)
    return prediction + sd * rng.standard_t(4, n), prediction, sd


def raw_losses(n: int, seed: int, grid: Floats) -> NDArray[np.bool_]:
    """Return whether each of `n` cells is left uncovered at each threshold: bool (n, G), not monotone."""
    rng = np.random.default_rng(seed)
    return (rng.beta(3, 1, n)[:, None] > grid) ^ (rng.random((n, len(grid))) < 0.02)


@pytest.mark.parametrize("n", [30, 99, 158, 251])
def test_ranges_are_those_of_mapie_where_every_pair_is_a_line(n: int) -> None:
    pytest.importorskip("mapie")
    from mapie.regression import SplitConformalRegressor
    from sklearn.linear_model import LinearRegression

    truth, prediction, _ = pairs(n, n)
    # A regression that returns its one feature, so that mapie sees our predictions as they are.
    same = LinearRegression(fit_intercept=False).fit(np.eye(1), [1.0])
    theirs = SplitConformalRegressor(same, confidence_level=list(LEVELS), prefit=True)
    theirs.conformalize(prediction[:, None], truth)
    new = np.linspace(-3, 3, 11)
    _, held = theirs.predict_interval(new[:, None])
    ours = Ranges.fit(truth, prediction, np.ones(n), np.arange(n))
    for place, level in enumerate(LEVELS):
        low, high = ours.around(new, np.ones(11), level)
        np.testing.assert_allclose(held[:, 0, place], low, atol=1e-9)
        np.testing.assert_allclose(held[:, 1, place], high, atol=1e-9)


# Not 99: where (n + 1) times the level is a whole number, crepes takes one place more by rounding; mapie does not.
@pytest.mark.parametrize("n", [30, 98, 158, 251])
def test_ranges_in_units_of_a_deviation_are_those_of_crepes(n: int) -> None:
    crepes = pytest.importorskip("crepes")
    truth, prediction, sd = pairs(n, n)
    theirs = crepes.ConformalRegressor()
    theirs.fit(truth - prediction, sigmas=sd)
    ours = Ranges.fit(truth, prediction, sd, np.arange(n))
    _, new, new_sd = pairs(11, 1)
    for level in LEVELS:
        held = theirs.predict_int(new, sigmas=new_sd, confidence=level)
        np.testing.assert_allclose(np.array(held), np.stack(ours.around(new, new_sd, level), axis=1), atol=1e-9)


@pytest.mark.parametrize("seed", range(8))
def test_thresholds_of_error_rates_are_those_of_mapies_risk_control(seed: int) -> None:
    methods = pytest.importorskip("mapie.risk_control.methods")
    grid = np.linspace(0.2, 1.1, 61)
    losses = raw_losses(150 + seed, seed, grid)
    risk, bound = methods.get_r_hat_plus(losses.astype(float), grid, "crc", None, None, None)
    # Rates between the values that a risk of so many cells can have: mapie refuses a risk that equals the rate.
    rates = (np.array([12, 20, 33, 60]) + 0.5) / (len(losses) + 1)
    found = methods.find_best_predict_param(grid, bound, rates)
    np.testing.assert_allclose(upper_bound(risk, len(losses)), np.maximum.accumulate(bound[::-1])[::-1])
    assert [grid[first_kept(upper_bound(risk, len(losses)), rate)] for rate in rates] == found.tolist()
    fitted = fit_error_rates([losses], 0.5, grid, tuple(rates))
    kept = bound.min() <= rates
    assert kept.any()
    assert [t for t, k in zip(fitted.thresholds, kept, strict=True) if k] == [
        t for t, k in zip(found, kept, strict=True) if k
    ]
