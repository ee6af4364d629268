"""Contrast between two views of cells, against a loop over pairs; its invariances and its minimum."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn.functional import normalize

from cellingua.objectives.cell_contrast import cell_cell_contrast


def views(seed: int, n: int = 7, d: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    first = torch.randn(n, d, generator=generator, dtype=torch.float64)
    second = first + 0.5 * torch.randn(n, d, generator=generator, dtype=torch.float64)
    return normalize(first, dim=1), normalize(second, dim=1)


def plain(first: torch.Tensor, second: torch.Tensor, temperature: float, within: bool) -> float:
    """One direction, pair by pair."""
    total = 0.0
    for i, cell in enumerate(first):
        others = [float(cell @ other) for other in second]
        below = sum(math.exp(s / temperature) for s in others)
        if within:
            below += sum(math.exp(float(cell @ first[j]) / temperature) for j in range(len(first)) if j != i)
        total -= others[i] / temperature - math.log(below)
    return total / len(first)


@pytest.mark.parametrize("within", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_equals_a_loop_over_pairs(seed: int, within: bool) -> None:
    first, second = views(seed)
    one = cell_cell_contrast(first, second, temperature=0.2, symmetric=False, within_views=within)
    assert float(one) == pytest.approx(plain(first, second, 0.2, within), rel=1e-12)
    both = cell_cell_contrast(first, second, temperature=0.2, within_views=within)
    mean = (plain(first, second, 0.2, within) + plain(second, first, 0.2, within)) / 2
    assert float(both) == pytest.approx(mean, rel=1e-12)


@pytest.mark.parametrize("within", [False, True])
def test_order_rotation_and_exchange_of_views_change_nothing(within: bool) -> None:
    first, second = views(4)
    loss = float(cell_cell_contrast(first, second, within_views=within))
    order = torch.randperm(7, generator=torch.Generator().manual_seed(0))
    turn = torch.linalg.qr(torch.randn(5, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1)))[0]
    again = [(first[order], second[order]), (second, first), (first @ turn, second @ turn)]
    for a, b in again:
        assert float(cell_cell_contrast(a, b, within_views=within)) == pytest.approx(loss, rel=1e-10)


@pytest.mark.parametrize("within", [False, True])
def test_equal_views_that_repel_are_the_minimum(within: bool) -> None:
    best = torch.cat([torch.eye(2), -torch.eye(2)]).double()
    n, t = len(best), 0.5
    loss = float(cell_cell_contrast(best, best, temperature=t, within_views=within))
    times = 2 if within else 1
    below = math.exp(1 / t) + times * (2 * math.exp(0.0) + math.exp(-1 / t))
    assert loss == pytest.approx(-1 / t + math.log(below), rel=1e-12)
    for seed in range(20):
        other = views(seed, n, 2)
        assert float(cell_cell_contrast(*other, temperature=t, within_views=within)) > loss
    collapsed = torch.ones(n, 2, dtype=torch.float64) / math.sqrt(2)
    none_apart = float(cell_cell_contrast(collapsed, collapsed, temperature=t, within_views=within))
    assert none_apart == pytest.approx(math.log(2 * n - 1 if within else n), rel=1e-12)


def test_more_negatives_cost_more_and_the_gradient_is_right() -> None:
    first, second = (view.requires_grad_(True) for view in views(5))
    assert float(cell_cell_contrast(first, second, within_views=True).detach()) > float(
        cell_cell_contrast(first, second).detach()
    )
    for within in (False, True):
        assert torch.autograd.gradcheck(
            lambda a, b, within=within: cell_cell_contrast(a, b, temperature=0.3, within_views=within), (first, second)
        )
