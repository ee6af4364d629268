"""Binned tokens: against the reference tokeniser written out, and the rules at the edges."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from binned_values import bin_normalised
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_matrix

from cellingua.cells.binned import BinConfig, BinnedCells, bin_cells, crowding
from cellingua.core.config import from_dict, to_dict
from cellingua.core.errors import ConfigError

WHOLE = BinConfig(length=None)


def plain_cell(x: np.ndarray, config: BinConfig) -> tuple[list[int], list[int], bool]:
    """Return bins, genes and whether genes were lost, of one dense cell of float32 values: the specification's words.

    The specification's own tokeniser adds CLS, which is why one gene less fits.
    """
    genes = [i for i in range(len(x)) if x[i] > 0]
    room = len(genes) if config.length is None else config.length - 1
    kept = genes[:room]
    if config.beyond == "top":
        kept = sorted(sorted(genes, key=lambda i: (-x[i], i))[:room])
    return [int(min(x[i], np.float32(config.bins))) for i in kept], kept, len(kept) < len(genes)


def plain(values: np.ndarray, config: BinConfig) -> list[tuple[list[int], list[int], bool]]:
    return [plain_cell(row.astype(np.float32), config) for row in values]


def normalise(counts: np.ndarray, config: BinConfig, totals: np.ndarray | None = None) -> np.ndarray:
    """Return log(1 + counts scaled to the target), float64 then float32, 0 where a cell is empty."""
    totals = counts.sum(axis=1, dtype=np.float64) if totals is None else totals
    with np.errstate(invalid="ignore", divide="ignore"):
        x = np.log1p(counts.astype(np.float64) * config.target / totals[:, None])
    return np.nan_to_num(x / math.log({"2": 2, "e": math.e}[config.base]), posinf=0).astype(np.float32)


def listed(cells: BinnedCells) -> list[tuple[list[int], list[int], bool]]:
    out = []
    for i in range(len(cells)):
        row = slice(cells.indptr[i], cells.indptr[i + 1])
        out.append((cells.tokens[row].tolist(), cells.genes[row].tolist(), bool(cells.truncated[i])))
    return out


def counts_of(seed: int, cells: int = 30, genes: int = 50) -> np.ndarray:
    rng = np.random.default_rng(seed)
    dense = rng.poisson(rng.lognormal(-1, 2, (cells, genes))).astype(np.float32)
    dense[rng.random((cells, genes)) < rng.random((cells, 1))] = 0
    dense[rng.integers(cells)] = 0
    return dense


@settings(max_examples=60)
@given(
    st.integers(0, 10_000),
    st.sampled_from(["2", "e"]),
    st.sampled_from([None, 2, 7, 20]),
    st.sampled_from(["vocabulary", "top"]),
    st.sampled_from([(5, 1e4), (9, 1e4), (1, 100.0)]),
)
def test_counts_equal_the_plain_twin(seed: int, base: str, length: int | None, beyond: str, scale: tuple) -> None:
    config = BinConfig(base, scale[1], scale[0], length, beyond)
    dense = counts_of(seed)
    found = bin_cells(csr_matrix(dense), None, config)
    assert listed(found) == plain(normalise(dense, config), config)
    assert (found.indptr.dtype, found.tokens.dtype, found.genes.dtype) == (np.int64, np.int8, np.int32)


def test_the_total_over_all_genes_is_another_choice() -> None:
    dense = counts_of(3)
    totals = dense.sum(axis=1, dtype=np.float64) * 3 + 1
    every = BinConfig(length=None, total="all")
    assert listed(bin_cells(csr_matrix(dense), totals, every)) == plain(normalise(dense, every, totals), every)
    assert listed(bin_cells(csr_matrix(dense), totals, WHOLE)) == plain(normalise(dense, WHOLE), WHOLE)
    with pytest.raises(ValueError, match="no totals"):
        bin_cells(csr_matrix(dense), None, every)
    with pytest.raises(ValueError, match="2 totals for 30 cells"):
        bin_cells(csr_matrix(dense), np.ones(2), every)


def test_depth_is_normalised_away_and_cells_do_not_meet() -> None:
    dense = counts_of(5)
    whole = listed(bin_cells(csr_matrix(dense), None, WHOLE))
    assert listed(bin_cells(csr_matrix(dense * 2), None, WHOLE)) == whole
    alone = [listed(bin_cells(csr_matrix(dense[i : i + 1]), None, WHOLE))[0] for i in range(len(dense))]
    assert alone == whole


def test_values_at_the_edges() -> None:
    below = [np.nextafter(np.float32(k), np.float32(0)) for k in range(1, 6)]
    above = [np.nextafter(np.float32(k), np.float32(9)) for k in range(1, 6)]
    values = np.array([[*below, 1, 2, 3, 4, 5, *above, 1e-30, 1e6]], np.float32)
    expected = [0, 1, 2, 3, 4, 1, 2, 3, 4, 5, 1, 2, 3, 4, 5, 0, 5]
    assert bin_normalised(csr_matrix(values), WHOLE).tokens.tolist() == expected
    assert listed(bin_normalised(csr_matrix(values), WHOLE)) == plain(values, WHOLE)


def test_negative_nan_and_zero_vanish_and_infinity_is_the_top_bin() -> None:
    stored = csr_matrix(
        (np.array([-1, np.nan, np.inf, 0, 2.5], np.float32), np.array([0, 2, 3, 4, 6]), np.array([0, 5])), shape=(1, 8)
    )
    assert listed(bin_normalised(stored, WHOLE)) == [([5, 2], [3, 6], False)]


@pytest.mark.parametrize("k", [1, 2, 3, 4, 5])
def test_counts_exactly_at_an_edge(k: int) -> None:
    # The first gene's share times the target is 2^k - 1 to the last digit.
    config = BinConfig(length=None, target=1000.0)
    counts = csr_matrix(np.array([[2**k - 1, 1000 - (2**k - 1)]], np.float32))
    assert bin_cells(counts, None, config).tokens[0] == k
    less = csr_matrix(np.array([[2**k - 1, 1001 - (2**k - 1)]], np.float32))
    assert bin_cells(less, None, config).tokens[0] == k - 1


def test_unsorted_columns_come_in_order() -> None:
    dense = counts_of(8)
    shuffled = csr_matrix(dense)
    for i in range(len(dense)):
        row = slice(shuffled.indptr[i], shuffled.indptr[i + 1])
        shuffled.indices[row], shuffled.data[row] = shuffled.indices[row][::-1].copy(), shuffled.data[row][::-1].copy()
    shuffled.has_sorted_indices = False
    before = shuffled.copy()
    for beyond in ("vocabulary", "top"):
        config = BinConfig(length=9, beyond=beyond)
        assert listed(bin_cells(shuffled, None, config)) == plain(normalise(dense, config), config)
    np.testing.assert_array_equal(shuffled.indices, before.indices)  # the caller's matrix is as it was


def test_sampling_needs_a_generator_and_keeps_a_subset() -> None:
    dense = counts_of(2, cells=12)
    config = BinConfig(length=8, beyond="sample")
    whole = bin_cells(csr_matrix(dense), None, config)
    assert listed(whole) == plain(normalise(dense, WHOLE), WHOLE)
    drawn = bin_cells(csr_matrix(dense), None, config, np.random.default_rng(0))
    again = whole.sample(8, np.random.default_rng(0))
    assert listed(drawn) == listed(again)
    assert listed(drawn) != listed(whole.sample(8, np.random.default_rng(1)))
    for (bins, genes, lost), (all_bins, all_genes, _) in zip(listed(drawn), listed(whole), strict=True):
        assert len(genes) == min(len(all_genes), 7)
        assert lost == (len(all_genes) > 7)
        known = dict(zip(all_genes, all_bins, strict=True))
        assert genes == sorted(genes)
        assert bins == [known[gene] for gene in genes]
    assert drawn.truncated.mean() == np.mean([len(genes) > 7 for _, genes, _ in listed(whole)])


def test_sampling_draws_every_gene_alike() -> None:
    whole = bin_cells(csr_matrix(np.ones((2000, 12), np.float32)), None, WHOLE)
    seen = np.bincount(whole.sample(4, np.random.default_rng(0)).genes, minlength=12)
    assert np.abs(seen - 500).max() < 100  # 3 of 12 in 2,000 cells: 500 each, standard deviation 19


def test_take() -> None:
    cells = bin_cells(csr_matrix(counts_of(1)), None, BinConfig(length=9))
    rows = np.array([4, 0, 4, 29])
    assert listed(cells.take(rows)) == [listed(cells)[row] for row in rows]
    assert len(cells.take(np.array([], np.int64))) == 0


def test_no_cell_and_no_gene() -> None:
    empty = bin_cells(csr_matrix((0, 5), dtype=np.float32), None, BinConfig())
    assert len(empty) == len(empty.truncated) == 0
    silent = bin_cells(csr_matrix((3, 5), dtype=np.float32), None, BinConfig())
    assert silent.lengths.tolist() == [0, 0, 0]
    assert crowding(silent.histogram()) is None


def test_one_crowded_bin_is_told() -> None:
    cells = bin_cells(csr_matrix(np.ones((3, 7), np.float32)), None, BinConfig())
    assert cells.histogram().tolist() == [0, 0, 0, 0, 0, 21]
    assert "100% of the expression tokens lie in bin 5 of 5" in (crowding(cells.histogram()) or "")
    assert crowding(np.array([5, 5, 0])) is None
    assert crowding(np.array([5, 6, 0])) is not None


def test_the_configuration_is_checked_and_kept() -> None:
    config = BinConfig("e", 5000.0, 7, None, "top", "all")
    assert from_dict(BinConfig, to_dict(config)) == config
    for wrong in ({"base": "10"}, {"beyond": "last"}, {"total": "some"}, {"target": 0.0}, {"bins": 0}, {"length": 1}):
        with pytest.raises(ConfigError):
            from_dict(BinConfig, wrong)


def test_released_tokens_from_counts_and_from_normalised_values(shared: Path) -> None:
    folder = shared / "data" / "parity" / "cellm_tiny"
    inputs, expected = np.load(folder / "inputs.npz"), np.load(folder / "tokens.npz")
    config = BinConfig(length=64)
    for part in ("counts", "norm"):
        arrays = (inputs[f"{part}_data"], inputs[f"{part}_indices"], inputs[f"{part}_indptr"])
        matrix = csr_matrix(arrays, shape=tuple(inputs["shape"]))
        found = bin_cells(matrix, None, config) if part == "counts" else bin_normalised(matrix, config)
        np.testing.assert_array_equal(found.lengths + 1, expected["length"])
        for i, (bins, genes, _) in enumerate(listed(found)):
            np.testing.assert_array_equal(expected["tokens"][i, 1 : len(bins) + 1], bins)
            np.testing.assert_array_equal(expected["gene_pos"][i, 1 : len(bins) + 1], genes)
    edge = bin_normalised(csr_matrix(inputs["edge_values"]), config)
    for i, (bins, _, _) in enumerate(listed(edge)):
        np.testing.assert_array_equal(expected["edge_tokens"][i, 1 : len(bins) + 1], bins)
        assert not expected["edge_mask"][i, len(bins) + 1 :].any()
