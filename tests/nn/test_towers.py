"""What holds for every tower: a cell's or a text's answer depends on it alone; and each one's plain twin."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from cell_lists import from_lists
from torch import nn
from torch.nn import functional

from cellingua.nn.bag import GatedBag, GatedBagConfig, features
from cellingua.nn.batch import CellStates
from cellingua.nn.heads import Projection, unit
from cellingua.nn.language import TextTower, TextTowerConfig
from cellingua.nn.transformer import CellTower, CellTowerConfig

VOCABULARY = 60


def tower(kind: str) -> nn.Module:
    torch.manual_seed(1)
    if kind == "bert":
        made: nn.Module = CellTower(CellTowerConfig(VOCABULARY, VOCABULARY - 1, 2, 16, 4, 32, 20))
    else:
        layers = 2 if kind == "bag+top" else 0
        made = GatedBag(
            GatedBagConfig(VOCABULARY, 16, 24, 12, 4, layers=layers, top=6, layer_width=8, heads=2, feedforward=16)
        )
    # Larger weights than at the start of training, and nothing at zero, so that mistakes show.
    for parameter in made.parameters():
        nn.init.normal_(parameter, std=0.3)
    return made.eval()


def some_cells(seed: int = 0) -> tuple[list[list[int]], list[list[float]]]:
    rng = np.random.default_rng(seed)
    sizes = [5, 1, 0, 30, 12, 3, 19, 0]
    cells = [rng.permutation(np.arange(2, VOCABULARY - 1))[:size].tolist() for size in sizes]
    values = [np.sort(rng.exponential(3.0, size))[::-1].tolist() for size in sizes]
    return cells, values


KINDS = ("bert", "bag", "bag+top")


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_a_cell_depends_on_itself_alone(kind: str) -> None:
    made, (cells, values) = tower(kind), some_cells()
    together = made(from_lists(cells, values)).pooled
    assert bool(torch.isfinite(together).all())
    for place, (cell, level) in enumerate(zip(cells, values, strict=True)):
        alone = made(from_lists([cell], [level])).pooled[0]
        torch.testing.assert_close(alone, together[place], atol=1e-6, rtol=1e-6)
    order = np.random.default_rng(3).permutation(len(cells))
    shuffled = from_lists([cells[i] for i in order], [values[i] for i in order])
    torch.testing.assert_close(made(shuffled).pooled, together[order], atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_different_cells_differ(kind: str) -> None:
    cells, values = some_cells()
    pooled = tower(kind)(from_lists(cells, values)).pooled
    assert torch.dist(pooled[0], pooled[4]) > 1e-2
    torch.testing.assert_close(pooled[2], pooled[7], atol=1e-6, rtol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_reach_every_weight_that_is_used(kind: str) -> None:
    made, (cells, values) = tower(kind), some_cells()
    states = made(from_lists(cells, values))
    total = states.pooled.square().sum()
    if states.hidden is not None:
        total = total + states.hidden.square().sum()
    total.backward()
    for name, parameter in made.named_parameters():
        assert parameter.grad is not None, name
        assert bool(torch.isfinite(parameter.grad).all()), name
        # The last softmax is blind to a constant added to all keys: their bias has no gradient but rounding.
        if not name.endswith("key.bias"):
            assert bool(parameter.grad.any()), name


@torch.no_grad()
def test_bag_equals_plain_sums() -> None:
    made, (cells, values) = tower("bag"), some_cells()
    assert isinstance(made, GatedBag)
    batch = from_lists(cells, values)
    pooled = made(batch).pooled
    for place, (cell, level) in enumerate(zip(cells, values, strict=True)):
        total, weight = torch.zeros(16), 1e-6
        for rank, (token, value) in enumerate(zip(cell, level, strict=True)):
            level_features = torch.tensor([np.log1p(value), np.log1p(rank) / 4, rank / len(cell)]).float()
            a, b = made.gene_gate.weight[token]
            gate = functional.softplus(a + b * level_features[0] + made.gate(level_features)[0])
            total, weight = total + gate * made.token.weight[token], weight + float(gate)
        expected = made.head(made.norm(total / weight))
        torch.testing.assert_close(pooled[place], expected, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_top_tokens_start_as_nothing() -> None:
    torch.manual_seed(0)
    made = GatedBag(GatedBagConfig(VOCABULARY, 16, layers=1, top=6, layer_width=8, heads=2, feedforward=16)).eval()
    cells, values = some_cells()
    batch = from_lists(cells, values)
    with_top = made(batch).pooled
    made.top = None
    torch.testing.assert_close(made(batch).pooled, with_top, atol=0, rtol=0)


@torch.no_grad()
def test_top_tokens_read_the_highest_alone() -> None:
    made, (cells, values) = tower("bag+top"), some_cells()
    assert isinstance(made, GatedBag)
    assert made.top is not None
    batch = from_lists([cells[3]], [values[3]])
    changed = from_lists([[*cells[3][:6], *reversed(cells[3][6:])]], [values[3]])
    level = features(batch)
    after, before = (made.top(cell, level, made.token)[0] for cell in (changed, batch))
    torch.testing.assert_close(after, before, atol=0, rtol=0)


@torch.no_grad()
def test_token_states_belong_to_their_cell_and_cost_nothing_where_unwanted() -> None:
    made, (cells, values) = tower("bag+top"), some_cells()
    together = made(from_lists(cells, values))
    assert together.hidden is not None
    assert together.mask is not None
    assert together.hidden.shape == (len(cells), 1 + 6, 8)
    # The first is the cell as a whole, so that whoever looks at an empty cell sees something.
    assert together.mask.sum(1).tolist() == [1 + min(6, len(cell)) for cell in cells]
    assert bool(together.mask[:, 0].all())
    for place, (cell, level) in enumerate(zip(cells, values, strict=True)):
        alone = made(from_lists([cell], [level]))
        seen = together.hidden[place][together.mask[place]]
        torch.testing.assert_close(alone.hidden[0][alone.mask[0]], seen, atol=1e-6, rtol=1e-6)
    # A bag without a transformer has none; one whose transformer adds nothing runs it for who asks alone.
    assert tower("bag")(from_lists(cells, values)).hidden is None
    assert isinstance(made, GatedBag)
    aside = GatedBag(replace(made.config, top_pooled=False)).eval()
    batch = from_lists(cells, values)
    both, alone = aside(batch), aside(batch, with_hidden=False)
    assert torch.equal(both.pooled, alone.pooled)
    assert alone.hidden is None
    assert both.hidden is not None
    pooled = both.pooled
    aside.top = None
    assert torch.equal(aside(batch).pooled, pooled)
    assert made(batch, with_hidden=False).pooled.equal(together.pooled)


def test_some_cells_of_a_batch() -> None:
    cells, values = some_cells()
    batch = from_lists(cells, values)
    for part, wanted in ((batch.rows(2, 5), [2, 3, 4]), (batch.take(torch.tensor([6, 0, 2, 6])), [6, 0, 2, 6])):
        expected = from_lists([cells[i] for i in wanted], [values[i] for i in wanted])
        assert torch.equal(part.tokens, expected.tokens)
        assert torch.equal(part.offsets, expected.offsets)
        assert part.values is not None
        assert part.values.equal(expected.values)
    without = from_lists(cells)
    assert without.rows(0, 2).values is None
    assert without.take(torch.tensor([1])).values is None


def test_bag_needs_values() -> None:
    with pytest.raises(ValueError, match="values"):
        tower("bag")(from_lists([[3, 4]]))


@torch.no_grad()
def test_all_empty_cells_are_finite() -> None:
    for kind in KINDS:
        pooled = tower(kind)(from_lists([[], []], [[], []])).pooled
        assert bool(torch.isfinite(pooled).all()), kind


def text_tower(pooling: str = "cls", unit_length: bool = False, encoder_width: int | None = 6) -> TextTower:
    torch.manual_seed(2)
    made = TextTower(
        TextTowerConfig(40, 2, 16, 4, 32, 24, encoder_width=encoder_width, pooling=pooling, unit_length=unit_length)
    )
    for parameter in made.parameters():
        nn.init.normal_(parameter, std=0.3)
    return made.eval()


def some_texts() -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(4)
    mask = torch.arange(9)[None, :] < torch.tensor([9, 2, 5])[:, None]
    return torch.randint(1, 40, (3, 9)) * mask, mask


@pytest.mark.parametrize("pooling", ["cls", "mean"])
@torch.no_grad()
def test_a_text_does_not_feel_padding_or_company(pooling: str) -> None:
    made, (ids, mask) = text_tower(pooling), some_texts()
    together = made(ids, mask).pooled
    for place in range(len(ids)):
        seen = mask[place]
        alone = made(ids[place, None, seen], mask[place, None, seen]).pooled[0]
        torch.testing.assert_close(alone, together[place], atol=1e-6, rtol=1e-6)
    other = torch.where(mask, ids, 17)
    torch.testing.assert_close(made(other, mask).pooled, together, atol=1e-6, rtol=1e-6)


@torch.no_grad()
def test_cross_attention_sees_the_cell_and_not_its_padding() -> None:
    made, (ids, mask) = text_tower(), some_texts()
    hidden, seen = torch.randn(3, 4, 6), torch.tensor([[True] * 4, [True] * 2 + [False] * 2, [True] * 4])
    fused = made(ids, mask, CellStates(hidden[:, 0], hidden, seen)).pooled
    assert torch.dist(fused, made(ids, mask).pooled) > 1e-2
    noisy = torch.where(seen[:, :, None], hidden, 100.0)
    torch.testing.assert_close(
        made(ids, mask, CellStates(hidden[:, 0], noisy, seen)).pooled, fused, atol=1e-6, rtol=1e-6
    )
    with pytest.raises(ValueError, match="no token states"):
        made(ids, mask, CellStates(hidden[:, 0]))


@torch.no_grad()
def test_mean_pooling_and_unit_length_follow_sentence_encoders() -> None:
    made, (ids, mask) = text_tower("mean", True), some_texts()
    states = made(ids, mask)
    for place in range(len(ids)):
        mean = states.hidden[place][mask[place]].mean(dim=0)
        torch.testing.assert_close(states.pooled[place], mean / mean.norm(), atol=1e-6, rtol=0)


def test_unknown_pooling_is_refused() -> None:
    with pytest.raises(ValueError, match="pooling"):
        text_tower("max")


@torch.no_grad()
def test_projection_correction_starts_at_zero_and_unit_is_unit() -> None:
    torch.manual_seed(0)
    head, states = Projection(6, 4, hidden=5), torch.randn(3, 6)
    torch.testing.assert_close(head(states), head.linear(states), atol=0, rtol=0)
    torch.testing.assert_close(unit(head(states)).norm(dim=-1), torch.ones(3))
    assert not unit(torch.zeros(1, 4)).any()
