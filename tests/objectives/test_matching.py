"""Matching: hard negatives by similarity, never a text or cell that is right or related."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cellingua.objectives.matching import NONE, Pairs, choose_pairs, draw_hard, matching_loss


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_draws_follow_the_softmax_over_what_is_allowed() -> None:
    logits = torch.tensor([0.3, -1.0, 2.0, 0.9])
    allowed = torch.tensor([True, False, True, True])
    n = 20_000
    found = draw_hard(logits.expand(n, -1), allowed.expand(n, -1), generator(1))
    weights = [math.exp(x) if ok else 0.0 for x, ok in zip(logits.tolist(), allowed.tolist(), strict=True)]
    for column, weight in enumerate(weights):
        share = weight / sum(weights)
        # Standard deviation of a share over 20,000 draws: at most 0.0035.
        assert float((found == column).double().mean()) == pytest.approx(share, abs=0.015)
    assert not (found == 1).any()


@given(st.integers(1, 6), st.integers(1, 7), st.integers(0, 1000))
def test_what_is_not_allowed_is_never_drawn(rows: int, columns: int, seed: int) -> None:
    rng = generator(seed)
    logits = 60 * torch.randn(rows, columns, generator=rng)
    allowed = torch.rand(rows, columns, generator=rng) < 0.5
    found = draw_hard(logits, allowed, generator(seed))
    for row in range(rows):
        if allowed[row].any():
            assert allowed[row, found[row]]
        else:
            assert found[row] == NONE
    # A row's draw is its own: other rows' logits don't matter.
    other = draw_hard(torch.cat([logits[:1], -logits[1:]]), allowed, generator(seed))
    assert other[0] == found[0]


def test_pairs_are_own_hard_text_and_hard_cell() -> None:
    # Cells 0 and 1 share text 0; cell 2's text 1 is an ancestor of text 2; cell 4 has no text.
    text_of = torch.tensor([0, 0, 1, 3, -1])
    right = torch.zeros(5, 4, dtype=torch.bool)
    right[[0, 1, 2, 3], [0, 0, 1, 3]] = True
    unclear = torch.zeros_like(right)
    unclear[2, 2] = True
    unclear[4] = True
    negative = ~(right | unclear)
    chosen = torch.tensor([0, 2, 3])
    drawn: set[tuple[int, int, int]] = set()
    for seed in range(60):
        pairs = choose_pairs(torch.zeros(5, 4), text_of, negative, chosen, 0.05, generator(seed))
        assert len(pairs) == 9
        assert pairs.match.tolist() == [1, 1, 1, 0, 0, 0, 0, 0, 0]
        assert pairs.cells[:6].tolist() == [0, 2, 3, 0, 2, 3]
        assert pairs.texts[[0, 1, 2, 6, 7, 8]].tolist() == [0, 1, 3, 0, 1, 3]
        drawn |= set(zip(pairs.cells.tolist(), pairs.texts.tolist(), pairs.match.tolist(), strict=True))
    wrong = {(cell, text) for cell, text, match in drawn if not match}
    assert all(negative[cell, text] for cell, text in wrong)
    # In 60 draws every allowed pair of a chosen cell or of its text has come.
    assert wrong >= {(0, 1), (0, 2), (0, 3), (2, 0), (2, 3), (3, 0), (3, 1), (3, 2), (1, 1), (1, 3)}


def test_the_nearest_wrong_text_is_the_hard_one() -> None:
    similarity = torch.tensor([[0.9, 0.8, -0.5], [0.2, 0.9, 0.3], [0.1, 0.7, 0.9]])
    own = torch.arange(3)
    negative = ~torch.eye(3, dtype=torch.bool)
    pairs = choose_pairs(similarity, own, negative, own, 0.01, generator())
    assert pairs.texts[3:6].tolist() == [1, 2, 1]
    assert pairs.cells[6:9].tolist() == [1, 0, 1]


def test_pairs_without_a_negative_are_left_out() -> None:
    alone = choose_pairs(
        torch.zeros(2, 1), torch.zeros(2, dtype=torch.long), torch.zeros(2, 1).bool(), torch.arange(2), 1.0, generator()
    )
    assert alone.match.tolist() == [1, 1]
    no_cell = torch.arange(0)
    none = choose_pairs(torch.zeros(2, 1), torch.full((2,), -1), torch.ones(2, 1).bool(), no_cell, 1.0, generator())
    assert len(none) == 0


def test_the_loss_is_a_sum_that_chunks_add_up_to() -> None:
    logits, match = torch.randn(7, 2, generator=generator(), dtype=torch.float64), torch.tensor([1, 0, 0, 1, 1, 0, 1])
    total, count = matching_loss(logits, match)
    expected = -sum(math.log(float(row.softmax(0)[kind])) for row, kind in zip(logits, match.tolist(), strict=True))
    assert float(total) == pytest.approx(expected, rel=1e-12)
    assert count == 7
    parts = [matching_loss(logits[a:b], match[a:b]) for a, b in ((0, 2), (2, 7))]
    assert float(sum(part for part, _ in parts)) == pytest.approx(expected, rel=1e-12)
    assert sum(n for _, n in parts) == 7
    half = matching_loss(logits.to(torch.bfloat16), match)[0]
    assert half.dtype == torch.float32


def test_pairs_can_be_taken() -> None:
    pairs = Pairs(torch.tensor([3, 4]), torch.tensor([5, 6]), torch.tensor([0, 1]))
    assert pairs.take(torch.tensor([1])).cells.tolist() == [4]
