"""One classifier a drug: shares that are called sensitive, scikit-learn's optima, and which way is up."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression

from cellingua.baselines.drug_binary import LEAST, DrugForest, DrugLogistic, binarised
from cellingua.baselines.drug_form import Known, scaled
from cellingua.core.errors import InputError


def planted(lines: int = 60, unseen: int = 20) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return responses with holes (the last lines are unseen), features, and the true responses."""
    rng = np.random.default_rng(4)
    features = rng.normal(size=(lines + unseen, 8))
    truth = features[:, :2] @ np.array([[2.0, 0.0], [0.0, -2.0]]) + rng.normal(0, 0.2, (lines + unseen, 2)) + [0, 5]
    grid = truth.copy()
    grid[lines:] = np.nan
    grid[rng.random(grid.shape) < 0.1] = np.nan
    return grid, features, truth


def test_the_most_sensitive_share_is_called_sensitive() -> None:
    grid = np.array([[1.0, 5.0], [2.0, np.nan], [3.0, 5.0], [4.0, 5.0], [5.0, np.nan]])
    found = binarised(grid, 0.5)
    assert np.array_equal(found[:, 0], [0, 0, 0, 1, 1])
    assert np.isnan(found[:, 1]).all()  # all equal: nothing can be called
    assert np.array_equal(binarised(grid, 0.1)[:, 0], [0, 1, 1, 1, 1])
    with pytest.raises(InputError):
        binarised(grid, 1.0)


@given(
    values=arrays(np.float64, st.integers(2, 30), elements=st.integers(-3, 3).map(float)), share=st.floats(0.05, 0.95)
)
def test_both_labels_occur_and_keep_the_order(values: np.ndarray, share: float) -> None:
    found = binarised(values[:, None], share)[:, 0]
    if np.ptp(values) == 0:
        assert np.isnan(found).all()
        return
    assert set(found) == {0.0, 1.0}
    assert values[found == 0].max() < values[found == 1].min()


def test_the_logistic_regression_is_that_of_scikit_learn() -> None:
    grid, features, _ = planted()
    found = DrugLogistic(0.5, 0.3).complete(grid, Known(features))
    z = scaled(features, np.isfinite(grid).any(axis=1))
    for drug in range(2):
        rows = np.isfinite(grid[:, drug])
        unit = (z[rows] ** 2).sum(axis=1).mean()
        # Two weight vectors that are each other's negative: their penalty is half that of scikit-learn's one.
        theirs = LogisticRegression(C=2 / (0.3 * unit), tol=1e-8, max_iter=1000)
        theirs.fit(z[rows], binarised(grid)[rows, drug])
        assert np.abs(found[:, drug] - theirs.predict_proba(z)[:, 1]).max() < 2e-4


def test_the_forest_is_that_of_scikit_learn() -> None:
    grid, features, _ = planted()
    found = DrugForest(trees=10, seed=3).complete(grid, Known(features))
    z, table = scaled(features, np.isfinite(grid).any(axis=1)), binarised(grid)
    rows = np.isfinite(table[:, 1])
    theirs = RandomForestClassifier(10, min_samples_leaf=3, random_state=3).fit(z[rows], table[rows, 1].astype(int))
    assert np.array_equal(found[:, 1], theirs.predict_proba(z)[:, 1])


@pytest.mark.parametrize("method", [DrugLogistic(), DrugForest(trees=30)])
def test_low_is_sensitive_for_lines_that_were_never_seen(method: DrugLogistic | DrugForest) -> None:
    grid, features, truth = planted()
    found = method.complete(grid, Known(features))
    assert not np.isnan(found).any()
    for drug in range(2):
        assert np.corrcoef(found[60:, drug], truth[60:, drug])[0, 1] > 0.6


def test_a_drug_with_few_lines_says_nothing_and_features_are_needed() -> None:
    grid, features, _ = planted()
    grid[LEAST - 1 :, 0] = np.nan
    found = DrugLogistic(0.5).complete(grid, Known(features))
    assert (found[:, 0] == 0.5).all()
    assert np.ptp(found[:, 1]) > 0
    for known in (Known(), Known(features[:-1])):
        with pytest.raises(InputError, match="needs features"):
            DrugLogistic().complete(grid, known)
