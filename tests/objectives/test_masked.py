"""Masked expression: what is chosen, what it costs, and the sums that chunks add up to."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cellingua.core.errors import ConfigError
from cellingua.objectives.masked import (
    MaskConfig,
    choose_positions,
    hide,
    majority_share,
    masked_loss,
    masked_right,
)

CLS, PAD = 6, 7


def batch(lengths: list[int], width: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """CLS, levels and padding, and which positions are genes."""
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.full((len(lengths), width), PAD)
    for row, n in enumerate(lengths):
        tokens[row, 0] = CLS
        tokens[row, 1 : n + 1] = torch.randint(0, 6, (n,), generator=generator)
    return tokens, tokens < CLS


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@given(
    st.lists(st.integers(0, 30), min_size=1, max_size=6),
    st.sampled_from([0.05, 0.15, 0.4, 1.0]),
    st.integers(0, 9),
    st.integers(0, 5),
)
def test_a_rounded_up_share_of_each_cell_is_chosen(lengths: list[int], ratio: float, seed: int, extra: int) -> None:
    _, maskable = batch(lengths, 32)
    chosen = choose_positions(maskable, ratio, generator(seed))
    assert chosen.sum(1).tolist() == [math.ceil(round(ratio * n, 9)) for n in lengths]
    assert not (chosen & ~maskable).any()
    # Padding changes no choice.
    _, wider = batch(lengths, 32 + extra)
    assert torch.equal(choose_positions(wider, ratio, generator(seed))[:, :32], chosen)


def test_every_position_is_as_likely_as_any_other() -> None:
    _, maskable = batch([10] * 4000, 11)
    share = choose_positions(maskable, 0.3, generator(1)).double().mean(0)
    assert share[0] == 0
    # 4,000 draws of 0.3: standard deviation 0.0072.
    assert (share[1:] - 0.3).abs().max() < 0.036


def test_hidden_tokens_are_the_mask_or_left_and_the_rest_is_untouched() -> None:
    tokens, _ = batch([40] * 200, 45)
    before = tokens.clone()
    view = hide(tokens, tokens < CLS, MaskConfig(), generator(3))
    assert torch.equal(tokens, before)
    assert torch.equal(view.levels, before)
    assert torch.equal(view.tokens[~view.chosen], before[~view.chosen])
    at = view.tokens[view.chosen]
    left = at == before[view.chosen]
    assert ((at == 7) | left).all()
    assert not (view.chosen & (before >= CLS)).any()
    assert 0.06 < left.double().mean() < 0.14  # 1,200 draws of 0.1: standard deviation 0.009


def test_two_views_have_masks_of_their_own_and_a_seed_gives_one_mask() -> None:
    tokens, maskable = batch([30] * 5, 31)
    source = generator(4)
    first, second = (hide(tokens, maskable, MaskConfig(), source) for _ in range(2))
    assert not torch.equal(first.chosen, second.chosen)
    assert torch.equal(hide(tokens, maskable, MaskConfig(), generator(4)).tokens, first.tokens)


def test_with_a_generator_for_each_cell_its_mask_depends_on_that_cell_alone() -> None:
    tokens, maskable = batch([30, 12, 0, 25], 31)
    whole = hide(tokens, maskable, MaskConfig(ratio=0.4), [generator(10 + i) for i in range(4)])
    for i in range(4):
        alone = hide(tokens[i : i + 1], maskable[i : i + 1], MaskConfig(ratio=0.4), [generator(10 + i)])
        assert torch.equal(alone.tokens[0], whole.tokens[i])
        assert torch.equal(alone.chosen[0], whole.chosen[i])
    assert whole.chosen.sum(1).tolist() == [12, 5, 0, 10]


def test_always_and_never_replaced() -> None:
    tokens, maskable = batch([30] * 5, 31)
    always = hide(tokens, maskable, MaskConfig(replaced=1.0), generator(5))
    assert (always.tokens[always.chosen] == 7).all()
    never = hide(tokens, maskable, MaskConfig(replaced=0.0), generator(5))
    assert torch.equal(never.tokens, tokens)
    assert never.chosen.any()


def test_the_loss_equals_a_loop_and_chunks_add_up() -> None:
    tokens, maskable = batch([12, 3, 0, 25], 26)
    view = hide(tokens, maskable, MaskConfig(ratio=0.5), generator(6))
    logits = torch.randn(4, 26, 8, dtype=torch.float64, generator=generator(7))
    total, count = masked_loss(logits[view.chosen], view.levels[view.chosen])
    plain, n = 0.0, 0
    for i, j in view.chosen.nonzero().tolist():
        plain -= float(logits[i, j, tokens[i, j]] - logits[i, j].exp().sum().log())
        n += 1
    assert count == n == 6 + 2 + 13
    assert float(total) == pytest.approx(plain, rel=1e-12)
    parts = []
    for a, b in [(0, 1), (1, 3), (3, 4)]:
        part = view.rows(a, b)
        assert len(part) == b - a
        parts.append(masked_loss(logits[a:b][part.chosen], part.levels[part.chosen]))
    assert sum(n for _, n in parts) == count
    assert sum(float(loss) for loss, _ in parts) == pytest.approx(float(total), rel=1e-12)


def test_a_batch_without_a_gene_costs_nothing_and_has_a_gradient() -> None:
    logits = torch.zeros(0, 8, requires_grad=True)
    total, count = masked_loss(logits, torch.zeros(0, dtype=torch.long))
    total.backward()
    assert (float(total.detach()), count) == (0.0, 0)
    assert math.isnan(majority_share(torch.zeros(0, dtype=torch.long)))


def test_half_precision_is_summed_in_single() -> None:
    logits = torch.randn(9, 8, generator=generator(8)).bfloat16()
    total, _ = masked_loss(logits, torch.arange(9) % 6)
    assert total.dtype == torch.float32


def test_only_levels_may_be_answered_and_the_majority_is_the_bar() -> None:
    targets = torch.tensor([2, 2, 2, 5])
    logits = torch.zeros(4, 8)
    logits[:, 2] = 1.0
    logits[:, 7] = 9.0  # the mask itself is no answer
    assert masked_right(logits, targets) == 3
    assert majority_share(targets) == 0.75


@pytest.mark.parametrize("bad", [{"ratio": 0.0}, {"ratio": 1.2}, {"ratio": float("nan")}, {"replaced": -0.1}])
def test_a_share_that_is_none_is_refused(bad: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="Expected"):
        MaskConfig(**bad)  # type: ignore[arg-type]
