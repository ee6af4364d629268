"""Ragged and rectangular forms of a minibatch."""

from __future__ import annotations

import numpy as np
import torch
from cell_lists import from_lists
from hypothesis import given, settings
from hypothesis import strategies as st

from cellingua.nn.batch import CellBatch

cells = st.lists(st.lists(st.integers(1, 50), max_size=9), min_size=1, max_size=6)


@settings(deadline=None)
@given(cells, st.integers(1, 10), st.none() | st.just(99))
def test_padded_holds_each_cell(cells: list[list[int]], limit: int, first: int | None) -> None:
    tokens, mask = from_lists(cells).padded(limit, first)
    for row, seen, cell in zip(tokens, mask, cells, strict=True):
        expected = (cell if first is None else [first, *cell])[:limit]
        assert row[seen].tolist() == expected
        assert not row[~seen].any()
        assert seen.tolist() == [True] * len(expected) + [False] * (len(seen) - len(expected))
    assert mask.shape[1] == max(int(seen.sum()) for seen in mask)


@settings(deadline=None)
@given(cells)
def test_ranks_count_within_each_cell(cells: list[list[int]]) -> None:
    expected = [place for cell in cells for place in range(len(cell))]
    assert from_lists(cells).ranks.tolist() == expected


def test_from_arrays_takes_a_slice_of_a_larger_table() -> None:
    indptr, tokens = np.array([0, 2, 5, 6]), np.arange(10, 16, dtype=np.int32)
    batch = CellBatch.from_arrays(indptr[1:], tokens, np.arange(6.0))
    assert batch.offsets.tolist() == [0, 3, 4]
    assert batch.tokens.tolist() == [12, 13, 14, 15]
    assert batch.values is not None
    assert batch.values.tolist() == [2, 3, 4, 5]
    assert batch.values.dtype == torch.float32
