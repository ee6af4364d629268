"""Multinomial logistic regression with an offset."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from cellingua.baselines.softmax_regression import fit_softmax


def problem(cells: int, features: int, classes: int = 3, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    truth = np.arange(cells) % classes
    return rng.normal(size=(cells, features)) + 0.8 * truth[:, None] * rng.normal(size=features), truth


@pytest.mark.parametrize(("cells", "features"), [(90, 6), (12, 40)], ids=["many cells", "many features"])
def test_it_is_scikit_learns(cells: int, features: int) -> None:
    x, y = problem(cells, features)
    ours = fit_softmax(x, y, 3, penalty=0.5, bias_penalty=0.0)  # theirs has none
    theirs = LogisticRegression(C=2.0, tol=1e-8, max_iter=5000).fit(x, y)
    np.testing.assert_allclose(ours.weights, theirs.coef_.T, atol=1e-3)
    difference = ours.logits(x) - theirs.decision_function(x)
    np.testing.assert_allclose(difference - difference.mean(axis=1, keepdims=True), 0, atol=5e-3)


def test_the_span_of_the_cells_changes_no_optimum() -> None:
    x, y = problem(12, 40)
    padded = np.concatenate([x, np.zeros((40, 40))])
    # Cells of no weight make it a problem of more cells than features, which is solved on the features themselves.
    weight = np.concatenate([np.ones(12), np.zeros(40)])
    spanned = fit_softmax(x, y, 3)
    plain = fit_softmax(padded, np.concatenate([y, np.zeros(40, np.int64)]), 3, weight=weight)
    np.testing.assert_allclose(spanned.weights, plain.weights, atol=2e-3)


def test_with_much_penalty_the_offset_is_the_answer() -> None:
    x, y = problem(30, 5)
    offset = np.random.default_rng(1).normal(size=(30, 3)) * 3
    fitted = fit_softmax(x, y, 3, offset=offset, penalty=1e7)
    assert (fitted.logits(x, offset).argmax(axis=1) == offset.argmax(axis=1)).all()
    free = fit_softmax(x, y, 3, offset=offset, penalty=1e-3)
    assert (free.logits(x, offset).argmax(axis=1) == y).mean() > (offset.argmax(axis=1) == y).mean()


def test_a_weight_of_two_is_the_cell_twice() -> None:
    x, y = problem(30, 4)
    weight = np.where(np.arange(30) < 10, 2.0, 1.0)
    twice = np.concatenate([np.arange(30), np.arange(10)])
    by_weight = fit_softmax(x, y, 3, weight=weight)
    by_copy = fit_softmax(x[twice], y[twice], 3)
    np.testing.assert_allclose(by_weight.weights, by_copy.weights, atol=2e-3)


def test_a_class_without_cells_keeps_its_offset() -> None:
    x, y = problem(20, 3, classes=2)
    offset = np.zeros((20, 3))
    offset[:, 2] = 5.0
    fitted = fit_softmax(x, y, 3, offset=offset, penalty=1.0)
    assert np.abs(fitted.weights).max() < 10
    assert np.isfinite(fitted.logits(x, offset)).all()
