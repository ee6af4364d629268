"""The measures of bench-embed: the work that cells need, padding, and whether nearest cells stay."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from cell_lists import from_lists
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.bench_embed import MINIBATCH, SHORT, padding, same_nearest, short_cells, work
from cellingua.cells.ranked import RankedCells
from cellingua.nn import packing
from cellingua.nn.attention import attend_plain
from cellingua.nn.packing import PackedTower
from cellingua.nn.transformer import CellTower, CellTowerConfig


def test_work_is_what_the_matrix_products_need(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "attend", attend_plain)  # whose two products are counted
    config = CellTowerConfig(60, 59, 3, 16, 2, 24, 40)
    tower, cells = PackedTower(CellTower(config).eval()), [list(range(2, 2 + size)) for size in (5, 1, 30, 12)]
    with FlopCounterMode(display=False) as counter:
        tower(from_lists(cells))
    assert counter.get_total_flops() == work(np.array([len(cell) + 1 for cell in cells]), config)


def test_padding_is_to_the_longest_of_a_minibatch() -> None:
    lengths = np.full(MINIBATCH + 2, 10)
    assert padding(lengths) == 1
    lengths[0], lengths[-1] = 40, 30
    assert padding(lengths) == (MINIBATCH * 40 + 2 * 30) / lengths.sum()


def test_same_nearest_counts_cells() -> None:
    states = torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [0.1, 0.9]])
    assert same_nearest(states, states) == 1
    moved = states.clone()
    moved[1] = torch.tensor([0.05, 0.95])  # now nearest to the last; the first and the last have others too
    assert same_nearest(moved, states) < 1


def test_short_cells_keep_the_highest_tokens() -> None:
    ranked = RankedCells(np.array([0, 300, 305]), np.arange(305, dtype=np.int32), np.zeros(305, np.float32))
    cut = short_cells(ranked)
    assert np.diff(cut.indptr).tolist() == [SHORT - 1, 5]
    np.testing.assert_array_equal(cut.cell(0), np.arange(SHORT - 1))
    np.testing.assert_array_equal(cut.cell(1), ranked.cell(1))
