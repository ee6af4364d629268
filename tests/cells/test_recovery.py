"""Counts from normalised values: exact where it can be proved, and never claimed where it can't."""

from __future__ import annotations

import numpy as np
import pytest
from awkward_files import human_counts, log_normalised
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_matrix

from cellingua.cells.recovery import INVERSES, find_recovery, whole_numbers

COUNTS = csr_matrix(human_counts(40, 400, seed=3).X)
FORWARD = {
    "log1p": np.log1p,
    "none": lambda x: x,
    "log2(1+x)": lambda x: np.log2(1 + x),
    "log10(1+x)": lambda x: np.log10(1 + x),
    "log1p twice": lambda x: np.log1p(np.log1p(x)),
    "sqrt": np.sqrt,
}


def transformed(counts: csr_matrix, scales: np.ndarray, name: str) -> csr_matrix:
    values = csr_matrix(counts.multiply(scales[:, None])).astype(np.float64)
    values.data = FORWARD[name](values.data)
    return values.astype(np.float32)


def test_every_transform_has_its_inverse() -> None:
    assert FORWARD.keys() == INVERSES.keys()


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(sorted(FORWARD)), st.integers(0, 2**16))
def test_counts_come_back_exactly_whatever_the_scale_of_each_cell(name: str, seed: int) -> None:
    scales = np.random.default_rng(seed).lognormal(0, 1.0, COUNTS.shape[0])
    values = transformed(COUNTS, scales, name)
    recovery = find_recovery(values)
    assert recovery.exact
    assert recovery.transform == name
    assert recovery.largest_distance < 0.02
    np.testing.assert_array_equal(recovery.apply(values).toarray(), COUNTS.toarray())


@pytest.mark.parametrize("target", [1e3, 1e4, 1e6])
def test_a_usual_target_is_noticed(target: float) -> None:
    recovery = find_recovery(log_normalised(COUNTS, target))
    assert recovery.exact
    assert recovery.target == pytest.approx(target, rel=1e-3)


def test_cells_without_a_count_of_one_are_recovered_too() -> None:
    rows = COUNTS.toarray()
    rows[rows == 1] = 0
    rows[rows == 2] = 3  # smallest counts 3 and 4: the scale is a third of the smallest value
    counts = csr_matrix(rows)
    values = log_normalised(counts)
    recovery = find_recovery(values)
    assert recovery.exact
    np.testing.assert_array_equal(recovery.apply(values).toarray(), rows)


@pytest.mark.parametrize("seed", range(5))
def test_values_that_are_no_counts_are_not_made_counts(seed: int) -> None:
    generator = np.random.default_rng(seed)
    values = COUNTS.astype(np.float64)
    values.data = np.log1p(values.data * generator.lognormal(0, 0.5, values.nnz))
    recovery = find_recovery(values)
    assert not recovery.exact
    undone = recovery.apply(values)
    # Still the order of the genes in a cell.
    row, back = values[0].toarray().ravel(), undone[0].toarray().ravel()
    np.testing.assert_array_equal(np.argsort(row, kind="stable"), np.argsort(back, kind="stable"))


def test_rounded_logarithms_are_relative_expression() -> None:
    values = log_normalised(COUNTS)
    values.data = np.round(values.data, 3)
    recovery = find_recovery(values)
    assert not recovery.exact
    assert recovery.transform == "log1p"
    assert recovery.target == pytest.approx(1e4, rel=0.01)


def test_a_cell_that_fails_keeps_its_relative_values() -> None:
    values = log_normalised(COUNTS)
    recovery = find_recovery(values)
    odd = csr_matrix(np.log1p(np.array([[1.0, 2.5, 0.0, 7.77, 1.234]])))
    back = recovery.apply(odd).toarray().ravel()
    np.testing.assert_allclose(back, [1.0, 2.5, 0.0, 7.77, 1.234], rtol=1e-12)


def test_empty_rows_and_an_empty_matrix_do_no_harm() -> None:
    rows = COUNTS.toarray()
    rows[::3] = 0
    values = log_normalised(csr_matrix(rows))
    recovery = find_recovery(values)
    assert recovery.exact
    np.testing.assert_array_equal(recovery.apply(values).toarray(), rows)
    assert not find_recovery(csr_matrix((3, 4), dtype=np.float32)).exact
    assert whole_numbers(csr_matrix((3, 4), dtype=np.float64))[2].all()


def test_too_few_values_prove_nothing() -> None:
    assert not find_recovery(csr_matrix(np.log1p(np.array([[0.5, 1.0, 1.5]])))).exact
