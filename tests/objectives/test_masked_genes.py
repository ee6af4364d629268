"""Masked genes: 15 %, of which 80 % are masked, 10 % replaced and 10 % left; the head is the token table."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cellingua.core.errors import ConfigError
from cellingua.nn.heads import MaskedGeneHead
from cellingua.objectives.masked import masked_loss
from cellingua.objectives.masked_genes import GeneMaskConfig, hide_genes

GENES, CLS = 50, 52


def cells(lengths: list[int], width: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """``<cls>``, genes and padding, and which of them are genes."""
    tokens = torch.zeros((len(lengths), width), dtype=torch.long)
    tokens[:, 0] = CLS
    generator = torch.Generator().manual_seed(seed)
    for row, n in enumerate(lengths):
        tokens[row, 1 : n + 1] = 2 + torch.randint(0, GENES, (n,), generator=generator)
    return tokens, (tokens >= 2) & (tokens != CLS)


def one_each(seeds: list[int]) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in seeds]


@given(st.lists(st.integers(0, 30), min_size=1, max_size=5), st.integers(0, 4))
def test_a_share_of_the_genes_is_hidden_and_nothing_else(lengths: list[int], extra: int) -> None:
    tokens, genes = cells(lengths, 32)
    before, seeds = tokens.clone(), list(range(len(lengths)))
    hidden = hide_genes(tokens, genes, GENES, GeneMaskConfig(), one_each(seeds))
    assert torch.equal(tokens, before)
    assert torch.equal(hidden.levels, before)
    assert hidden.chosen.sum(1).tolist() == [math.ceil(round(0.15 * n, 9)) for n in lengths]
    assert torch.equal(hidden.tokens[~hidden.chosen], before[~hidden.chosen])
    shown = hidden.tokens[hidden.chosen]
    assert ((shown == 1) | ((shown >= 2) & (shown < 2 + GENES))).all()
    # A cell's mask is its own: padding and company change nothing.
    wide, wide_genes = cells(lengths, 32 + extra)
    again = hide_genes(wide, wide_genes, GENES, GeneMaskConfig(), one_each(seeds))
    assert torch.equal(again.tokens[:, :32], hidden.tokens)
    last = hide_genes(tokens[-1:], genes[-1:], GENES, GeneMaskConfig(), one_each(seeds[-1:]))
    assert torch.equal(last.tokens[0], hidden.tokens[-1])


def test_of_the_chosen_80_percent_are_masked_10_replaced_10_left() -> None:
    tokens, genes = cells([40] * 3000, 41)
    hidden = hide_genes(tokens, genes, GENES, GeneMaskConfig(), torch.Generator().manual_seed(1))
    shown, was = hidden.tokens[hidden.chosen], hidden.levels[hidden.chosen]
    # 18,000 draws; a random gene is the same one in a fiftieth of its draws.
    assert float((shown == 1).double().mean()) == pytest.approx(0.8, abs=0.012)
    assert float((shown == was).double().mean()) == pytest.approx(0.1 + 0.1 / GENES, abs=0.009)
    other = shown[(shown != 1) & (shown != was)]
    assert set(other.tolist()) == set(range(2, 2 + GENES))


def test_all_kept_all_masked_all_random() -> None:
    tokens, genes = cells([30], 31)
    for masked, random in ((1.0, 0.0), (0.0, 0.0), (0.0, 1.0)):
        config = GeneMaskConfig(1.0, masked, random)
        hidden = hide_genes(tokens, genes, GENES, config, torch.Generator().manual_seed(2))
        shown = hidden.tokens[0, 1:]
        assert bool((shown == 1).all()) == (masked == 1.0)
        assert torch.equal(shown, tokens[0, 1:]) == (masked == random == 0.0)
        assert int(hidden.tokens[0, 0]) == CLS


@pytest.mark.parametrize("wrong", [{"ratio": 0.0}, {"ratio": 1.1}, {"masked": -0.1}, {"masked": 0.8, "random": 0.3}])
def test_wrong_configurations_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError):
        GeneMaskConfig(**wrong)


def test_the_head_is_dense_relu_norm_and_the_table() -> None:
    torch.manual_seed(0)
    head, table = MaskedGeneHead(6, 4, 9).double(), torch.randn(9, 4, dtype=torch.float64, requires_grad=True)
    for parameter in head.parameters():
        torch.nn.init.normal_(parameter)
    states, truth = torch.randn(3, 6, dtype=torch.float64), torch.tensor([2, 8, 5])
    x = (states @ head.dense.weight.T + head.dense.bias).clamp(min=0)
    x = (x - x.mean(1, keepdim=True)) / (x.var(1, unbiased=False, keepdim=True) + 1e-12).sqrt()
    logits = (x * head.norm.weight + head.norm.bias) @ table.T + head.bias
    torch.testing.assert_close(head(states, table), logits)
    total, count = masked_loss(head(states, table), truth)
    expected = sum(logits[i].exp().sum().log() - logits[i, truth[i]] for i in range(3))
    torch.testing.assert_close(total, expected)
    assert count == 3
    total.backward()
    assert table.grad is not None
    assert bool(table.grad.any())
