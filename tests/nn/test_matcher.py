"""Matching many texts with many cells at once, against the text tower's own pass over every pair."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from cellingua.nn import matching
from cellingua.nn.batch import CellStates
from cellingua.nn.heads import MatchHead
from cellingua.nn.language import TextTower, TextTowerConfig
from cellingua.nn.matching import Matcher, match_plain

WIDTH, MEMORY, WORDS = 24, 20, 30


def tower(layers: int = 3) -> tuple[TextTower, MatchHead]:
    """Return a text tower that looks at cells, and a match head, with weights far from their start."""
    torch.manual_seed(layers)
    made = TextTower(TextTowerConfig(WORDS, layers, WIDTH, 3, 40, 16, encoder_width=MEMORY))
    head = MatchHead(WIDTH)
    for parameter in (*made.parameters(), *head.parameters()):
        nn.init.normal_(parameter, std=0.3)
    return made.eval(), head.eval()


def texts(lengths: list[int], longest: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Return ids and mask of texts of these many pieces."""
    width = max(*lengths, longest) if len(lengths) > 1 else max(lengths[0], longest)
    mask = torch.arange(width) < torch.tensor(lengths)[:, None]
    ids = torch.randint(5, WORDS, mask.shape, generator=torch.Generator().manual_seed(5))
    return ids * mask, mask


def cells(lengths: list[int], longest: int = 0) -> CellStates:
    """Return states of cells of these many tokens; padded places hold numbers that must not matter."""
    made = torch.Generator().manual_seed(6)
    width = max(max(lengths), longest, 1)
    hidden = torch.randn(len(lengths), width, MEMORY, generator=made)
    mask = torch.arange(width) < torch.tensor(lengths)[:, None]
    return CellStates(torch.randn(len(lengths), MEMORY, generator=made), hidden, mask)


def rows_of(states: CellStates, rows: list[int]) -> CellStates:
    assert states.hidden is not None
    assert states.mask is not None
    return CellStates(states.pooled[rows], states.hidden[rows], states.mask[rows])


CASES = [
    ([4, 7, 1], [5, 9]),
    ([6], [1]),
    ([1], [3, 3, 3]),
    ([2, 16, 2, 7, 7, 3], [1, 40, 2, 0, 17, 17]),
    ([5, 5], [0, 0]),
]


@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize(("pieces", "tokens"), CASES)
@torch.no_grad()
def test_equals_the_tower_over_every_pair(layers: int, pieces: list[int], tokens: list[int]) -> None:
    text_tower, head = tower(layers)
    ids, mask = texts(pieces, longest=16)
    states = cells(tokens, longest=45)
    expected = match_plain(text_tower, head, states, ids, mask)
    found = Matcher(text_tower, head, ids, mask).logits(states)
    assert found.shape == (len(tokens), len(pieces), 2)
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=0)


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.integers(1, 16), min_size=1, max_size=6),
    st.lists(st.integers(0, 30), min_size=1, max_size=5),
    st.data(),
)
@torch.no_grad()
def test_chosen_pairs(pieces: list[int], tokens: list[int], data: st.DataObject) -> None:
    text_tower, head = tower(2)
    ids, mask = texts(pieces)
    count = data.draw(st.integers(1, 4))
    number = st.integers(0, len(pieces) - 1)
    chosen = torch.tensor([data.draw(st.lists(number, min_size=count, max_size=count)) for _ in tokens])
    expected = match_plain(text_tower, head, cells(tokens), ids, mask)
    found = Matcher(text_tower, head, ids, mask).pairs(cells(tokens), chosen)
    wanted = expected.gather(1, chosen[:, :, None].expand(-1, -1, 2))
    torch.testing.assert_close(found, wanted, atol=2e-5, rtol=0)


@torch.no_grad()
def test_company_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    text_tower, head = tower()
    pieces, tokens = [4, 9, 9, 2, 16], [8, 0, 31, 8, 3]
    ids, mask = texts(pieces)
    together = Matcher(text_tower, head, ids, mask).logits(cells(tokens))
    backwards = Matcher(text_tower, head, ids.flip(0), mask.flip(0)).logits(rows_of(cells(tokens), [4, 3, 2, 1, 0]))
    torch.testing.assert_close(backwards.flip(0, 1), together, atol=1e-5, rtol=0)
    monkeypatch.setattr(matching, "PIECES", 50)
    monkeypatch.setattr(matching, "TOKENS", 9)
    small = Matcher(text_tower, head, ids, mask)
    torch.testing.assert_close(small.logits(cells(tokens)), together, atol=1e-5, rtol=0)
    for row in range(len(tokens)):
        alone = small.logits(rows_of(cells(tokens), [row]))
        torch.testing.assert_close(alone[0], together[row], atol=1e-5, rtol=0)
    one = Matcher(text_tower, head, ids[1:2, :9], mask[1:2, :9]).logits(cells(tokens))
    torch.testing.assert_close(one[:, 0], together[:, 1], atol=1e-5, rtol=0)


@torch.no_grad()
def test_states_without_a_mask_are_all_real() -> None:
    text_tower, head = tower()
    ids, mask = texts([3, 8])
    full = cells([6, 6])
    matcher = Matcher(text_tower, head, ids, mask)
    torch.testing.assert_close(matcher.logits(CellStates(full.pooled, full.hidden)), matcher.logits(full))


@torch.no_grad()
def test_an_empty_cell_speaks_neither_for_nor_against() -> None:
    text_tower, head = tower()
    ids, mask = texts([3, 8])
    found = Matcher(text_tower, head, ids, mask).logits(cells([0, 4]))
    assert not found[0].any()
    assert found[1].abs().min() > 0


@pytest.mark.parametrize(("precision", "apart"), [("bfloat16", 0.15), ("int8", 0.15)])
@torch.no_grad()
def test_lower_precision_stays_near(precision: str, apart: float) -> None:
    text_tower, head = tower()
    ids, mask = texts([3, 8, 12])
    states = cells([5, 20, 0])
    exact = Matcher(text_tower, head, ids, mask).logits(states)
    found = Matcher(text_tower, head, ids, mask, precision).logits(states)
    assert found.dtype == torch.float32
    assert 0 < float((found - exact).abs().max()) < apart * float(exact.abs().max())


def test_gradients_are_those_of_the_tower() -> None:
    text_tower, head = tower()
    ids, mask = texts([3, 8])
    states = cells([5, 9])
    weight = text_tower.layers[1].cross.key.weight  # type: ignore[union-attr]
    (plain,) = torch.autograd.grad(match_plain(text_tower, head, states, ids, mask)[:, :, 1].sum(), weight)
    (ours,) = torch.autograd.grad(Matcher(text_tower, head, ids, mask).logits(states)[:, :, 1].sum(), weight)
    torch.testing.assert_close(ours, plain, atol=1e-4, rtol=1e-4)


def test_what_cannot_match_is_refused() -> None:
    ids, mask = texts([3])
    reader = TextTower(TextTowerConfig(WORDS, 1, WIDTH, 3, 40, 16))
    with pytest.raises(ValueError, match="cross-attention"):
        Matcher(reader, MatchHead(WIDTH), ids, mask)
    text_tower, head = tower(1)
    with pytest.raises(ValueError, match="at least one piece"):
        Matcher(text_tower, head, ids, torch.zeros_like(mask))
    with pytest.raises(ValueError, match="no token states"):
        Matcher(text_tower, head, ids, mask).logits(CellStates(torch.zeros(1, MEMORY)))
