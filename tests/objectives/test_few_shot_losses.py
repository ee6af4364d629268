"""LangCell's few-shot loss, written out."""

from __future__ import annotations

import math

import pytest
import torch

from cellingua.objectives.fewshot import few_shot_losses


def test_losses_written_out() -> None:
    torch.manual_seed(0)
    similarity, probability = torch.randn(5, 4, dtype=torch.float64) * 3, torch.rand(5, 4, dtype=torch.float64)
    labels = torch.tensor([0, 3, 1, 1, 2])
    found = few_shot_losses(similarity, probability, labels)
    for name, scores in (("similarity", similarity), ("match", probability)):
        plain = -sum(
            row[label] - math.log(sum(math.exp(x) for x in row.tolist()))
            for row, label in zip(scores, labels.tolist(), strict=True)
        )
        assert float(found[name]) == pytest.approx(float(plain) / 5, abs=1e-12)


@pytest.mark.parametrize("classes", [2, 8])
def test_the_match_term_has_a_floor(classes: int) -> None:
    sure = torch.eye(classes)
    found = few_shot_losses(sure, sure, torch.arange(classes))["match"]
    assert float(found) == pytest.approx(math.log(1 + (classes - 1) / math.e), abs=1e-6)


def test_both_terms_teach() -> None:
    similarity, logits = torch.zeros(3, 4, requires_grad=True), torch.zeros(3, 4, 2, requires_grad=True)
    labels = torch.tensor([1, 2, 3])
    sum(few_shot_losses(similarity, logits.softmax(dim=-1)[..., 1], labels).values()).backward()  # type: ignore[union-attr]
    for gradient in (similarity.grad, logits.grad[..., 1]):
        assert gradient is not None
        assert bool((gradient.gather(1, labels[:, None]) < 0).all())


def test_shapes_are_compared() -> None:
    with pytest.raises(ValueError, match="labels"):
        few_shot_losses(torch.zeros(3, 4), torch.zeros(3, 4), torch.zeros(2, dtype=torch.int64))
    with pytest.raises(ValueError, match="probabilities"):
        few_shot_losses(torch.zeros(3, 4), torch.zeros(3, 4, 2), torch.zeros(3, dtype=torch.int64))
