"""Regression and ranking scores against scikit-learn and scipy; within groups; bootstrap."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from cellingua.core.errors import InputError
from cellingua.measures.ranking import auroc, average_precision, top_overlap
from cellingua.measures.regression import MEASURES, bootstrap, mae, pearson, r2, rmse, spearman, within

metrics = pytest.importorskip("sklearn.metrics")

NUMBERS = st.lists(st.tuples(st.integers(-8, 8), st.integers(-8, 8)), min_size=3, max_size=40)


@given(NUMBERS)
def test_equal_to_scikit_learn_and_scipy(rows: list[tuple[int, int]]) -> None:
    truth, said = (np.array(side, dtype=float) for side in zip(*rows, strict=True))
    assert rmse(truth, said) == pytest.approx(metrics.root_mean_squared_error(truth, said))
    assert mae(truth, said) == pytest.approx(metrics.mean_absolute_error(truth, said))
    if np.ptp(truth) == 0:
        assert np.isnan(pearson(truth, said))
        assert np.isnan(r2(truth, said))
        return
    assert r2(truth, said) == pytest.approx(metrics.r2_score(truth, said))
    if np.ptp(said) == 0:
        assert pearson(truth, said) == spearman(truth, said) == 0
        return
    assert pearson(truth, said) == pytest.approx(stats.pearsonr(truth, said).statistic, abs=1e-9)
    assert spearman(truth, said) == pytest.approx(stats.spearmanr(truth, said).statistic, abs=1e-9)
    assert pearson(truth, 3 * said + 1) == pytest.approx(pearson(truth, said))
    assert spearman(truth, np.exp(said)) == pytest.approx(spearman(truth, said))


@given(st.lists(st.tuples(st.booleans(), st.integers(-4, 4)), min_size=2, max_size=40))
def test_ranking_is_scikit_learns(rows: list[tuple[bool, int]]) -> None:
    truth, score = (np.array(side) for side in zip(*rows, strict=True))
    if truth.all() or not truth.any():
        assert np.isnan(auroc(truth, score))
        return
    assert auroc(truth, score) == pytest.approx(metrics.roc_auc_score(truth, score))
    assert auroc(truth, -score) == pytest.approx(1 - auroc(truth, score))
    assert average_precision(truth, score) == pytest.approx(metrics.average_precision_score(truth, score))


def test_the_guess_of_a_group_scores_nothing_within_it() -> None:
    rng = np.random.default_rng(0)
    groups = np.repeat(["a", "b", "few", "flat"], [30, 20, 5, 12])
    truth = rng.normal(size=67) + np.repeat([0, 10, 20, 30], [30, 20, 5, 12])
    truth[55:] = 7.0
    means = np.array([truth[groups == g].mean() for g in groups])
    inside = within(truth, means, groups)
    assert pearson(truth, means) > 0.9
    assert inside.groups.tolist() == ["a", "b"]
    assert inside.values.tolist() == [0, 0]
    assert inside.pairs.tolist() == [30, 20]
    assert inside.left_out == 2
    assert inside.median == inside.mean == 0
    order = rng.permutation(67)
    again = within(truth[order], (truth + rng.normal(size=67))[order], groups[order], measure=spearman, least=5)
    assert again.groups.tolist() == ["a", "b", "few"]
    assert np.isnan(within(truth, means, groups, least=100).median)


def test_bootstrap_holds_the_figure_and_grows_with_dependence() -> None:
    rng = np.random.default_rng(1)
    units = np.repeat(np.arange(40), 25)
    effect = rng.normal(size=40)[units]
    truth, said = effect + rng.normal(size=1000), effect + rng.normal(size=1000)
    alone = bootstrap(truth, said, draws=200)
    whole = bootstrap(truth, said, units=units, draws=200)
    assert alone.value == whole.value == pearson(truth, said)
    assert whole.low < whole.value < whole.high
    assert whole.high - whole.low > alone.high - alone.low
    assert bootstrap(truth, said, draws=200) == alone
    assert bootstrap(truth, truth, MEASURES["rmse"], draws=10).high == 0


def test_top_of_a_list() -> None:
    assert top_overlap([3, 2, 1, 0], [9, 0, 8, 7], 2) == 0.5
    assert top_overlap([3, 2, 1, 0], [1, 1, 1, 1], 4) == 1.0


@pytest.mark.parametrize(
    "call",
    [
        lambda: pearson([1.0], [1.0, 2.0]),
        lambda: rmse([], []),
        lambda: rmse([1.0], [np.nan]),
        lambda: within([1.0, 2.0], [1.0, 2.0], ["a"]),
        lambda: bootstrap([1.0, 2.0], [1.0, 2.0], level=1.0),
        lambda: auroc([0, 2], [0.0, 1.0]),
        lambda: auroc([0, 1], [0.0]),
        lambda: top_overlap([1.0], [1.0], 2),
    ],
)
def test_bad_input_is_refused(call: object) -> None:
    with pytest.raises(InputError):
        call()  # type: ignore[operator]
