"""Fingerprints: nothing but ids and counts matters, the plain twin agrees, and the set of them keeps its promise."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import coo_matrix, csr_matrix

from cellingua.cells.fingerprint import (
    COMMON,
    LEAST_GENES,
    STORED,
    Fingerprints,
    fingerprints,
    fingerprints_plain,
    gene_key,
    load_lists,
    mixed,
)
from cellingua.cells.genes import load_vocabulary
from cellingua.cells.print_filter import PrintFilter, build_filter

GENES = len(load_vocabulary())
LISTED = np.flatnonzero(load_lists().list_of >= 0)


def random_cells(n: int, seed: int, *, genes: int = 300) -> csr_matrix:
    """Return n cells with counts on genes of the lists and others."""
    rng = np.random.default_rng(seed)
    columns = np.concatenate([rng.choice(LISTED, genes, replace=False), rng.choice(GENES, 50, replace=False)])
    columns = np.unique(columns)
    counts = np.zeros((n, GENES), np.float32)
    counts[:, columns] = rng.poisson(1.0, (n, len(columns)))
    return csr_matrix(counts)


cells = st.builds(random_cells, st.integers(1, 6), st.integers(0, 10_000), genes=st.sampled_from([20, 120, 400]))


@given(cells, st.randoms(use_true_random=False))
@settings(max_examples=30)
def test_order_zeros_and_types_change_nothing(counts: csr_matrix, random: object) -> None:
    expected = fingerprints(counts)
    rng = np.random.default_rng(random.randint(0, 1 << 30))  # type: ignore[attr-defined]
    coo = counts.tocoo()
    absent = np.stack([rng.integers(0, counts.shape[0], 40), rng.integers(0, GENES, 40)])
    new = np.array([counts[i, j] == 0 for i, j in absent.T])
    rows = np.concatenate([coo.row, absent[0, new]])
    columns = np.concatenate([coo.col, absent[1, new]])
    values = np.concatenate([coo.data, np.zeros(new.sum(), np.float32)])
    order = rng.permutation(len(rows))
    order = order[np.argsort(rows[order], kind="stable")]  # any order within a row
    indptr = np.searchsorted(rows[order], np.arange(counts.shape[0] + 1))
    for dtype in (np.float32, np.float64, np.int32, np.uint16):
        other = csr_matrix((values[order].astype(dtype), columns[order], indptr), counts.shape)
        found = fingerprints(other)
        assert np.array_equal(found.values, expected.values)
        assert np.array_equal(found.genes, expected.genes)


@given(cells, st.integers(0, 1000))
@settings(max_examples=20)
def test_a_cell_has_its_fingerprints_in_any_company(counts: csr_matrix, seed: int) -> None:
    together = fingerprints(counts)
    order = np.random.default_rng(seed).permutation(counts.shape[0])
    assert np.array_equal(fingerprints(csr_matrix(counts[order])).values, together.values[order])
    alone = Fingerprints.join(fingerprints(csr_matrix(counts[row])) for row in range(counts.shape[0]))
    assert np.array_equal(alone.values, together.values)


@given(cells)
@settings(max_examples=30)
def test_the_plain_twin_says_the_same(counts: csr_matrix) -> None:
    ids = load_vocabulary().ensembl_ids
    found = fingerprints(counts)
    for row in range(counts.shape[0]):
        cell = coo_matrix(counts[row])
        plain = fingerprints_plain((str(ids[gene]), int(n)) for gene, n in zip(cell.col, cell.data, strict=True))
        assert {k: int(v) for k, v in enumerate(found.values[row]) if found.there[row, k]} == plain


def test_genes_outside_the_lists_and_dropped_lists_leave_the_others_alone() -> None:
    counts = random_cells(20, 1, genes=400)
    whole = fingerprints(counts)
    listed = np.zeros(GENES, bool)
    listed[LISTED] = True
    assert np.array_equal(fingerprints(csr_matrix(counts.multiply(listed[None]))).values, whole.values)
    kept = load_lists().list_of != 3
    cut = fingerprints(csr_matrix(counts.multiply(kept[None])))
    assert not cut.there[:, 3].any()
    assert whole.there[:, 3].any()
    others = np.arange(whole.values.shape[1]) != 3
    assert np.array_equal(cut.values[:, others], whole.values[:, others])


def test_one_count_changes_one_fingerprint_and_only_that() -> None:
    counts = random_cells(1, 5, genes=400)
    before = fingerprints(counts)
    row = counts.tolil()
    gene = int(np.intersect1d(LISTED, counts.indices[counts.data > 0])[0])
    row[0, gene] += 1
    after = fingerprints(csr_matrix(row))
    changed = before.values[0] != after.values[0]
    assert changed.tolist() == [k == load_lists().list_of[gene] for k in range(load_lists().number)]


def test_recovered_counts_are_rounded() -> None:
    counts = random_cells(5, 6)
    near = counts.astype(np.float64)
    near.data = near.data + np.random.default_rng(0).uniform(-1e-3, 1e-3, len(near.data))
    assert np.array_equal(fingerprints(near).values, fingerprints(counts).values)


def test_cells_that_show_too_little_have_none() -> None:
    list_0 = np.flatnonzero(load_lists().list_of == 0)
    counts = np.zeros((3, GENES), np.float32)
    counts[0, list_0[: LEAST_GENES - 1]] = 100  # too few genes
    counts[1, list_0[:LEAST_GENES]] = 1  # enough genes, with one molecule each
    counts[2, list_0[:LEAST_GENES]] = 3
    found = fingerprints(csr_matrix(counts))
    assert found.there.any(axis=1).tolist() == [False, False, True]
    assert not found.values[:2].any()
    assert not fingerprints(csr_matrix((0, GENES))).there.any()
    assert len(Fingerprints.join([])) == 0


def test_what_is_stored_of_a_cell() -> None:
    found = fingerprints(random_cells(40, 8, genes=480))
    stored = found.stored()
    assert (stored <= found.there).all()
    assert stored.sum(axis=1).max() == STORED
    assert (stored.any(axis=1) == found.there.any(axis=1)).all()
    assert (stored[:, :COMMON].sum(axis=1) <= 1).all()
    for row in range(40):  # the lists with most genes, of those not common
        own = np.flatnonzero(stored[row, COMMON:])
        left = np.flatnonzero(found.there[row, COMMON:] & ~stored[row, COMMON:])
        if len(own) and len(left):
            assert found.genes[row, COMMON:][own].min() >= found.genes[row, COMMON:][left].max()


def test_the_lists_are_disjoint_and_hold_genes_of_one_name() -> None:
    lists = load_lists()
    sizes = np.bincount(lists.list_of[lists.list_of >= 0])
    assert lists.number == 16
    assert set(sizes.tolist()) == {32}
    assert len(LISTED) == 512
    assert len(np.unique(lists.keys[LISTED])) == 512
    symbols = load_vocabulary().symbols[LISTED]
    assert not any(symbol.startswith(("MT-", "RPL", "RPS", "HLA-")) for symbol in symbols.tolist())


def test_prints_of_stored_models_stay_valid() -> None:
    digest = hashlib.sha256(b"ENSG00000075624").hexdigest()
    assert gene_key("ENSG00000075624") == int("".join(digest[place : place + 2] for place in range(14, -1, -2)), 16)
    # Vigna's splitmix64 with the seed 0 gives this first number: its last step on the golden ratio.
    golden = np.array([0x9E3779B97F4A7C15], np.uint64)
    assert int(mixed(golden)[0]) == 0xE220A8397B1DCDAF


hashes = st.lists(st.integers(0, 2**64 - 1), max_size=300).map(lambda held: np.array(held, np.uint64))


@given(hashes, st.integers(1, 32))
@settings(max_examples=60)
def test_a_set_holds_all_that_went_in_and_comes_back_from_its_bytes(values: np.ndarray, bits: int) -> None:
    held = build_filter(values, bits)
    assert held.contains(values).all()
    content = held.to_bytes()
    assert len(content) == PrintFilter.size_of(len(held), bits)
    assert len(held) == len(np.unique(values))
    again = PrintFilter.from_bytes(content, len(held), bits)
    assert np.array_equal(again.values, held.values)
    assert again.rate == held.rate <= 2.0**-bits


@given(hashes.filter(len), st.integers(1, 32), st.data())
@settings(max_examples=60)
def test_a_cut_or_longer_set_is_refused(values: np.ndarray, bits: int, data: st.DataObject) -> None:
    held = build_filter(values, bits)
    content = held.to_bytes()
    with pytest.raises(ValueError, match="bytes"):
        PrintFilter.from_bytes(content[: data.draw(st.integers(0, len(content) - 1))], len(held), bits)
    with pytest.raises(ValueError, match="bytes"):
        PrintFilter.from_bytes(content + b"\0", len(held), bits)
    quotients = np.zeros(-(-2 * len(held) // 8), np.uint8).tobytes()
    with pytest.raises(ValueError, match="quotients"):
        PrintFilter.from_bytes(quotients + content[len(quotients) :], len(held), bits)
    with pytest.raises(ValueError, match="bits"):
        PrintFilter.from_bytes(content, len(held), 0)


def test_a_set_out_of_order_is_refused() -> None:
    # Two hashes of one quotient, the larger remainder first: bits 0 and 1 of four quotient bits, then 1 and 0.
    content = bytes([0b11000000, 0b10000000])
    with pytest.raises(ValueError, match="order"):
        PrintFilter.from_bytes(content, 2, 1)


def test_the_rate_of_mistakes_is_what_it_says() -> None:
    rng = np.random.default_rng(0)
    held = build_filter(rng.integers(0, 2**64, 20_000, dtype=np.uint64), 8)
    passed = held.contains(rng.integers(0, 2**64, 400_000, dtype=np.uint64)).mean()
    assert 0.9 * held.rate < passed < 1.1 * held.rate  # about 1,560 pass: 10 % is four standard errors
    assert 0.98 * 2**-8 < held.rate <= 2**-8
