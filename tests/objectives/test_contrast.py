"""The contrastive objective against a loop over pairs, and its invariances."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn.functional import normalize

from cellingua.objectives.contrast import cell_text_contrast


def example(seed: int, b: int = 6, t: int = 5) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(seed)
    cells = normalize(torch.randn(b, 8, generator=generator, dtype=torch.float64), dim=1)
    texts = normalize(torch.randn(t, 8, generator=generator, dtype=torch.float64), dim=1)
    positive = torch.rand(b, t, generator=generator) < 0.3
    positive[torch.arange(b), torch.randint(t, (b,), generator=generator)] = True
    ignored = (torch.rand(b, t, generator=generator) < 0.2) & ~positive
    return cells, texts, positive, ignored


def plain(cells, texts, positive, ignored, temperature: float) -> float:
    """One direction, pair by pair."""
    total = 0.0
    for i, cell in enumerate(cells):
        seen = [j for j in range(len(texts)) if not ignored[i, j]]
        score = {j: math.exp(float(cell @ texts[j]) / temperature) for j in seen}
        right = [j for j in seen if positive[i, j]]
        total -= sum(math.log(score[j] / sum(score.values())) for j in right) / len(right)
    return total / len(cells)


@pytest.mark.parametrize("seed", range(5))
def test_equals_a_loop_over_pairs(seed: int) -> None:
    cells, texts, positive, ignored = example(seed)
    one = cell_text_contrast(cells, texts, positive, ignored, temperature=0.3, symmetric=False)
    assert float(one) == pytest.approx(plain(cells, texts, positive, ignored, 0.3), rel=1e-10)
    both = cell_text_contrast(cells, texts, positive, ignored, temperature=0.3)
    held = positive.any(0)
    other = plain(texts[held], cells, positive.T[held], ignored.T[held], 0.3)
    assert float(both) == pytest.approx((float(one) + other) / 2, rel=1e-10)


def test_with_one_positive_it_is_infonce() -> None:
    cells, texts, _, _ = example(1, 5, 5)
    loss = cell_text_contrast(cells, texts, torch.eye(5, dtype=torch.bool), temperature=0.05)
    logits = cells @ texts.T / 0.05
    target = torch.arange(5)
    cross = torch.nn.functional.cross_entropy
    assert float(loss) == pytest.approx(float(cross(logits, target) + cross(logits.T, target)) / 2, rel=1e-12)


def test_order_changes_nothing_and_gradients_are_finite() -> None:
    cells, texts, positive, ignored = example(2)
    order = torch.randperm(6, generator=torch.Generator().manual_seed(0))
    cells.requires_grad_(True)
    loss = cell_text_contrast(cells, texts, positive, ignored)
    again = cell_text_contrast(cells[order], texts, positive[order], ignored[order])
    assert loss.item() == pytest.approx(again.item(), rel=1e-12)
    (gradient,) = torch.autograd.grad(loss, cells)
    assert torch.isfinite(gradient).all()
    assert gradient.abs().sum() > 0
