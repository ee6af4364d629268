"""Log-normalised counts and principal components, against their definitions."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.sparse import csr_matrix

from cellingua.baselines.normalise import Components, inner_products, log_normalised
from cellingua.core.errors import InputError


def counts(n: int = 20, genes: int = 1500, seed: int = 0) -> csr_matrix:
    return csr_matrix(np.random.default_rng(seed).poisson(0.4, (n, genes)).astype(np.uint16))


def test_equal_the_formula_and_leave_the_counts_alone() -> None:
    x = counts()
    before = x.toarray()
    values = log_normalised(x)
    expected = np.log1p(before / before.sum(axis=1, keepdims=True) * 1e4)
    assert values.dtype == np.float32
    assert np.allclose(values.toarray(), expected, rtol=1e-5)
    assert (x.toarray() == before).all()
    assert np.allclose(log_normalised(x, np.full(20, 5000.0), 100).toarray(), np.log1p(before / 50), rtol=1e-5)


def test_an_empty_cell_stays_empty() -> None:
    x = csr_matrix(np.array([[0, 0], [1, 3]], np.float32))
    assert log_normalised(x).toarray()[0].tolist() == [0, 0]
    with pytest.raises(InputError, match="one total a cell"):
        log_normalised(x, np.ones(3))


def test_inner_products_equal_the_sparse_product() -> None:
    values = log_normalised(counts(genes=2500)).astype(np.float64)
    assert np.allclose(inner_products(values), (values @ values.T).toarray(), rtol=1e-10)


def test_components_are_those_of_a_singular_value_decomposition() -> None:
    values = log_normalised(counts())
    dense = values.toarray().astype(np.float64)
    fitted = Components(6).fit(values)
    _, size, right = np.linalg.svd(dense - dense.mean(axis=0), full_matrices=False)
    assert np.allclose(fitted.axes.T @ fitted.axes, np.eye(6), atol=1e-8)
    assert np.allclose(np.abs((fitted.axes * right[:6].T).sum(axis=0)), 1, atol=1e-6)
    scores = fitted.transform(values)
    assert np.allclose(np.linalg.norm(scores, axis=0), size[:6], rtol=1e-5)
    assert np.allclose(scores, (dense - dense.mean(axis=0)) @ fitted.axes, atol=1e-6)
    other = log_normalised(counts(seed=1))
    assert np.allclose(fitted.transform(other), (other.toarray() - dense.mean(axis=0)) @ fitted.axes, atol=1e-5)


def test_there_are_never_more_components_than_cells_less_one() -> None:
    assert Components(50).fit(log_normalised(counts(8))).axes.shape == (1500, 7)
    same = csr_matrix(np.ones((5, 3), np.float32))
    assert Components(2).fit(log_normalised(same)).transform(same).shape == (5, 0)
