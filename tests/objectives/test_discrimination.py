"""Normal or cancer: balance, unlabelled cells, and the sums that chunks add up to."""

from __future__ import annotations

import math

import pytest
import torch

from cellingua.objectives.discrimination import (
    UNLABELLED,
    class_weights,
    discrimination_loss,
    discrimination_right,
)


def example(seed: int = 0, n: int = 24) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(-1, 2, (n,), generator=generator)
    return torch.randn(n, dtype=torch.float64, generator=generator), labels


@pytest.mark.parametrize("shape", ["(B,)", "(B, 1)", "(B, 2)"])
def test_equals_a_loop_over_cells(shape: str) -> None:
    scores, labels = example()
    logits = {
        "(B,)": scores,
        "(B, 1)": scores[:, None],
        "(B, 2)": torch.stack([torch.zeros_like(scores), scores], dim=1),
    }[shape]
    weights = class_weights(labels)
    plain, weight = 0.0, 0.0
    for score, label in zip(scores.tolist(), labels.tolist(), strict=True):
        if label == UNLABELLED:
            continue
        chance = 1 / (1 + math.exp(-score))
        plain -= float(weights[label]) * math.log(chance if label else 1 - chance)
        weight += float(weights[label])
    total, count = discrimination_loss(logits, labels, weights)
    assert float(total) == pytest.approx(plain, rel=1e-12)
    assert count == pytest.approx(weight)
    right, n = discrimination_right(logits, labels)
    known = labels != UNLABELLED
    assert (right, n) == (int(((scores > 0).long() == labels)[known].sum()), int(known.sum()))


def test_classes_weigh_the_same_and_cells_count_once_on_average() -> None:
    labels = torch.tensor([0] * 9 + [1] * 3 + [UNLABELLED] * 5)
    weights = class_weights(labels)
    assert float(weights[0] * 9) == pytest.approx(float(weights[1] * 3))
    assert float(weights[0] * 9 + weights[1] * 3) == pytest.approx(12)
    assert class_weights(torch.tensor([1, 1])).tolist() == [0.0, 1.0]
    assert class_weights(torch.tensor([-1])).tolist() == [0.0, 0.0]


def test_chunks_add_up_to_the_batch_and_order_changes_nothing() -> None:
    logits, labels = example(1)
    weights = class_weights(labels)
    total, count = discrimination_loss(logits, labels, weights)
    parts = [discrimination_loss(logits[a : a + 7], labels[a : a + 7], weights) for a in range(0, 24, 7)]
    assert sum(float(loss) for loss, _ in parts) == pytest.approx(float(total), rel=1e-12)
    assert sum(n for _, n in parts) == pytest.approx(count)
    order = torch.randperm(24, generator=torch.Generator().manual_seed(2))
    again, _ = discrimination_loss(logits[order], labels[order], weights)
    assert float(again) == pytest.approx(float(total), rel=1e-12)


def test_an_unlabelled_cell_gets_no_gradient() -> None:
    logits, labels = example(3)
    logits.requires_grad_(True)
    total, _ = discrimination_loss(logits, labels)
    total.backward()
    assert logits.grad is not None
    assert (logits.grad[labels == UNLABELLED] == 0).all()
    assert (logits.grad[labels != UNLABELLED] != 0).all()


def test_no_label_at_all_costs_nothing_and_has_a_gradient() -> None:
    logits = torch.randn(4, requires_grad=True)
    total, count = discrimination_loss(logits, torch.full((4,), UNLABELLED))
    total.backward()
    assert (float(total.detach()), count) == (0.0, 0.0)
    assert discrimination_right(logits, torch.full((4,), UNLABELLED)) == (0, 0)
