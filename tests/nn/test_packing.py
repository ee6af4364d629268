"""The tower without padding says what its plain twin says, whatever the lengths, the company and the order."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from cell_lists import from_lists
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from cellingua.nn.packing import PackedTower
from cellingua.nn.precision import converted
from cellingua.nn.transformer import CellTower, CellTowerConfig

VOCABULARY, LIMIT = 60, 20
# Empty cells, one token, several of one length, the limit with <cls> counted, one below it, beyond it.
SIZES = [5, 1, 0, 30, 12, 19, 18, 5, 0, 40, 3, 19]
BUDGETS = [0, 7, 64, 10_000]


def tower(layers: int = 3, activation: str = "relu") -> CellTower:
    torch.manual_seed(1)
    made = CellTower(CellTowerConfig(VOCABULARY, VOCABULARY - 1, layers, 16, 4, 32, LIMIT, activation=activation))
    for parameter in made.parameters():
        nn.init.normal_(parameter, std=0.3)
    return made.eval()


def some_cells(sizes: list[int], seed: int = 0) -> list[list[int]]:
    rng = np.random.default_rng(seed)
    return [rng.permutation(np.arange(2, VOCABULARY - 1))[:size].tolist() for size in sizes]


def at_home(states: Tensor, mask: Tensor) -> Tensor:
    """Return `states` with 0 where there is no token."""
    return states * mask[:, :, None]


@pytest.mark.parametrize("activation", ["relu", "gelu"])
@pytest.mark.parametrize("budget", BUDGETS)
@pytest.mark.parametrize("layers", [0, 1, 3])
@torch.no_grad()
def test_it_is_the_plain_tower(layers: int, budget: int, activation: str) -> None:
    made, batch = tower(layers, activation), from_lists(some_cells(SIZES))
    plain, packed = made(batch), PackedTower(made, budget=budget)
    torch.testing.assert_close(packed(batch).pooled, plain.pooled, atol=1e-5, rtol=1e-5)
    whole = packed(batch, hidden=True)
    assert torch.equal(whole.mask, plain.mask)
    torch.testing.assert_close(whole.hidden, at_home(plain.hidden, plain.mask), atol=1e-5, rtol=1e-5)
    assert torch.equal(whole.pooled, whole.hidden[:, 0])
    assert packed(batch).hidden is None


@given(st.lists(st.integers(0, 2 * LIMIT), max_size=6), st.integers(0, 80), st.integers(0, 9))
def test_it_is_the_plain_tower_for_any_lengths(sizes: list[int], budget: int, seed: int) -> None:
    batch = from_lists(some_cells(sizes, seed))
    with torch.no_grad():
        plain = MADE(batch)
    packed = PackedTower(MADE, budget=budget)(batch, hidden=True)
    torch.testing.assert_close(packed.pooled, plain.pooled, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(packed.hidden, at_home(plain.hidden, plain.mask), atol=1e-5, rtol=1e-5)


MADE = tower()


@pytest.mark.parametrize("hidden", [False, True])
@pytest.mark.parametrize("precision", ["float32", "bfloat16", "int8"])
def test_a_cell_is_bit_for_bit_the_same_in_any_company(precision: str, hidden: bool) -> None:
    packed, cells = PackedTower(tower(), precision, budget=0), some_cells(SIZES)
    together = packed(from_lists(cells), hidden=hidden)
    order = np.random.default_rng(3).permutation(len(cells))
    shuffled = packed(from_lists([cells[i] for i in order]), hidden=hidden)
    assert torch.equal(shuffled.pooled, together.pooled[order])
    for place, cell in enumerate(cells):
        alone = packed(from_lists([cell]), hidden=hidden)
        assert torch.equal(alone.pooled[0], together.pooled[place])
        if hidden:
            assert torch.equal(alone.hidden[0], together.hidden[place, : alone.hidden.shape[1]])


@pytest.mark.parametrize("budget", BUDGETS[1:])
def test_read_together_a_cell_is_the_same_within_rounding(budget: int) -> None:
    packed, cells = PackedTower(tower(), budget=budget), some_cells(SIZES)
    together = packed(from_lists(cells)).pooled
    for place, cell in enumerate(cells):
        torch.testing.assert_close(packed(from_lists([cell])).pooled[0], together[place], atol=2e-6, rtol=2e-6)


def test_by_itself_it_reads_cells_alone_on_a_processor() -> None:
    packed = PackedTower(tower())
    packs = list(packed._packs([3, 9, 1, 9], torch.device("cpu")))
    assert packs == [[1], [3], [0], [2]]
    assert list(packed._packs([3, 9, 1, 9], torch.device("meta"))) == [[1, 3, 0, 2]]
    together = PackedTower(tower(), budget=10)
    assert list(together._packs([3, 30, 1, 9, 4], torch.device("cpu"))) == [[1], [3], [4, 0, 2]]


@pytest.mark.parametrize(("precision", "least"), [("bfloat16", 0.999), ("int8", 0.999)])
@torch.no_grad()
def test_lower_precision_is_close_and_matches_its_own_twin(precision: str, least: float) -> None:
    made, batch = tower(), from_lists(some_cells(SIZES))
    exact = made(batch).pooled
    packed = PackedTower(made, precision)
    answer = packed(batch).pooled
    assert answer.dtype == (torch.bfloat16 if precision == "bfloat16" else torch.float32)
    assert float(functional.cosine_similarity(answer.float(), exact).min()) > least
    twin = converted(made, precision)(batch).pooled
    tight = 1e-5 if precision == "int8" else 0.1  # sums in another order round to other bfloat16s
    torch.testing.assert_close(answer, twin, atol=tight, rtol=tight)
    # A tower whose weights are in 8 bits already stays so, and says the same.
    if precision == "int8":
        again = PackedTower(converted(made, "int8"), "int8")(batch).pooled
        torch.testing.assert_close(again, answer, atol=1e-5, rtol=1e-5)


def test_it_does_not_depend_on_the_number_of_threads() -> None:
    packed, batch = PackedTower(tower()), from_lists(some_cells(SIZES))
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = packed(batch).pooled
        torch.set_num_threads(3)
        three = packed(batch).pooled
    finally:
        torch.set_num_threads(before)
    torch.testing.assert_close(one, three, atol=1e-6, rtol=1e-6)


def test_no_padded_position_is_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []

    class Counting(nn.Linear):
        def forward(self, states: Tensor) -> Tensor:
            seen.append(states[..., 0].numel())
            return super().forward(states)

    made = tower(layers=2)
    for layer in made.layers:
        layer.widen = Counting(16, 32)
    cells = some_cells(SIZES)
    PackedTower(made, budget=10_000)(from_lists(cells))
    real = sum(min(len(cell) + 1, LIMIT) for cell in cells)
    assert seen == [real, len(cells)]  # all tokens in the first layer, <cls> alone in the last


def test_float32_shares_the_weights_and_takes_no_gradient() -> None:
    made = tower()
    packed = PackedTower(made)
    assert packed.inner.layers[0].widen is made.layers[0].widen
    out = packed(from_lists([[3, 4]])).pooled
    assert not out.requires_grad
    assert made.layers[0].widen.weight.requires_grad


def test_no_cells_are_no_rows() -> None:
    out = PackedTower(tower())(from_lists([]), hidden=True)
    assert out.pooled.shape == (0, 16)
    assert out.hidden.shape[0] == 0
