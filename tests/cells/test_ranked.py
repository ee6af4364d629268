"""Rank-value tokens: plain twin, invariances, parity with released code."""

from __future__ import annotations

import gzip
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_matrix

from cellingua.cells.ranked import RankedCells, rank_tokens, rank_tokens_plain


def assert_same(a: RankedCells, b: RankedCells) -> None:
    np.testing.assert_array_equal(a.indptr, b.indptr)
    np.testing.assert_array_equal(a.tokens, b.tokens)
    np.testing.assert_allclose(a.values, b.values, rtol=1e-6)


def table(rng: np.random.Generator, columns: int) -> tuple[np.ndarray, np.ndarray]:
    tokens = np.where(rng.random(columns) < 0.8, np.arange(columns) + 2, -1)
    return tokens, rng.choice([0.5, 1.0, 1.7, 3.1], columns) * rng.choice([1.0, 1.0 + 1e-14], columns)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    kind=st.sampled_from([np.float32, np.float64, np.int64, np.uint8]),
    limit=st.sampled_from([None, 1, 5, 2048]),
)
def test_equals_plain_twin(seed: int, kind: type, limit: int | None) -> None:
    rng = np.random.default_rng(seed)
    columns = int(rng.integers(1, 400))
    dense = rng.poisson(0.5, (int(rng.integers(1, 40)), columns)) * (rng.random(columns) < 0.7)
    tokens, medians = table(rng, columns)
    totals = dense.sum(1) + rng.integers(0, 2, len(dense))
    counts = csr_matrix(dense.astype(kind))
    assert_same(
        rank_tokens(counts, tokens, medians, totals, limit),
        rank_tokens_plain(counts, tokens, medians, totals, limit),
    )


def test_values_that_differ_in_their_last_bits_keep_their_order() -> None:
    medians = np.array([1.0, 1.0 - 2**-50, 1.0, 1.0 + 2**-50])
    ranked = rank_tokens(csr_matrix(np.ones((1, 4))), np.arange(2, 6), medians)
    assert ranked.tokens.tolist() == [3, 2, 4, 5]


@pytest.fixture
def some() -> tuple[csr_matrix, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    matrix = csr_matrix(rng.poisson(3, (700, 300)) * (rng.random((700, 300)) < 0.2))
    tokens, _ = table(rng, 300)
    return matrix.astype(np.float32), tokens, rng.uniform(0.1, 9, 300)


def test_a_cell_does_not_depend_on_its_company(some: tuple) -> None:
    counts, tokens, medians = some
    whole = rank_tokens(counts, tokens, medians)
    order = np.random.default_rng(1).permutation(counts.shape[0])
    assert_same(rank_tokens(csr_matrix(counts[order]), tokens, medians), whole.take(order))
    assert_same(rank_tokens(csr_matrix(counts[3:4]), tokens, medians), whole.take(np.array([3])))


def test_the_order_of_columns_and_stored_zeros_change_nothing(some: tuple) -> None:
    counts, tokens, medians = some
    whole = rank_tokens(counts, tokens, medians)
    order = np.random.default_rng(2).permutation(counts.shape[1])
    assert_same(rank_tokens(csr_matrix(counts[:, order]), tokens[order], medians[order]), whole)
    with_zeros = counts.copy()
    with_zeros.data[::7] = 0
    clean = with_zeros.copy()
    clean.eliminate_zeros()
    assert_same(rank_tokens(with_zeros, tokens, medians), rank_tokens(clean, tokens, medians))


def test_depth_does_not_change_ranks(some: tuple) -> None:
    counts, tokens, medians = some
    seven = rank_tokens(csr_matrix(counts.astype(np.float64) * 8), tokens, medians)
    assert_same(seven, rank_tokens(counts.astype(np.float64), tokens, medians))


def test_empty_cells_have_no_token_and_totals_may_be_larger(some: tuple) -> None:
    counts, tokens, medians = some
    empty = csr_matrix((3, counts.shape[1]), dtype=np.float32)
    assert len(rank_tokens(empty, tokens, medians).tokens) == 0
    assert len(rank_tokens(csr_matrix((0, 300)), tokens, medians)) == 0
    sums = np.asarray(counts.sum(1)).ravel()
    double = rank_tokens(counts, tokens, medians, totals=2 * sums)
    np.testing.assert_allclose(double.values * 2, rank_tokens(counts, tokens, medians).values, rtol=1e-5)


def test_wrong_lengths_are_refused(some: tuple) -> None:
    counts, tokens, medians = some
    with pytest.raises(ValueError, match="299 tokens"):
        rank_tokens(counts, tokens[:-1], medians)
    with pytest.raises(ValueError, match="median is not positive"):
        rank_tokens(counts, tokens, np.zeros(300))
    with pytest.raises(ValueError, match="2 totals"):
        rank_tokens(counts, tokens, medians, totals=np.ones(2))


def test_parity_with_released_code(shared) -> None:
    """Tokens of 22 awkward cells, from released code (PharMolix/LangCell 69e41ef, stable sort), exactly."""
    folder = shared / "data/parity/langcell_tiny"
    official = {}
    with gzip.open(shared / "data/official/langcell_genes.tsv.gz", "rt") as handle:
        next(handle)
        for line in handle:
            gene, _, token, median = line.rstrip("\n").split("\t")
            if token:
                official[gene] = (int(token), float(median))
    names = json.loads((folder / "input/names.json").read_text())
    tokens = np.array([official.get(gene, (-1, 1.0))[0] for gene in names["feature_id"]])
    medians = np.array([official.get(gene, (-1, 1.0))[1] for gene in names["feature_id"]])
    raw = np.load(folder / "input/counts.npz")
    counts = csr_matrix((raw["data"], raw["indices"], raw["indptr"]), shape=tuple(raw["shape"]))
    expected = np.load(folder / "expected/tokens.npz")
    cells = json.loads((folder / "expected/index.json").read_text())["cells"]
    rows = [names["cells"].index(name) for name in cells]
    ranked = rank_tokens(counts, tokens, medians).take(np.array(rows))
    np.testing.assert_array_equal(ranked.tokens, expected["ranked"])
    np.testing.assert_array_equal(ranked.indptr, expected["ranked_indptr"])
    cut = rank_tokens(counts, tokens, medians, limit=2047).take(np.array(rows))
    start, stop = expected["model_input_indptr"][:-1], expected["model_input_indptr"][1:]
    for i, (a, b) in enumerate(zip(start, stop, strict=True)):
        assert [25_426, *cut.cell(i).tolist()] == expected["model_input"][a:b].tolist()
    empty = names["cells"].index("no_counts")
    assert len(rank_tokens(counts, tokens, medians).cell(empty)) == 0
