"""Losses from tiles equal losses from the whole matrix, in value and gradient, for every size of tile."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_towers import numbers, plain_info_nce, plain_multi_positive, plain_nt_xent, relation
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from cellingua.core.errors import EngineError
from cellingua.engine import InfoNCE, MultiPositive, NTXent


def assert_both_agree(tiled: object, plain: object, *inputs: Tensor) -> None:
    """Compare value and gradients of two losses."""
    found = []
    for loss in (tiled, plain):
        leaves = [x.clone().requires_grad_() for x in inputs]
        value = 3.0 * loss(*leaves)  # type: ignore[operator]
        found.append((value.detach(), *torch.autograd.grad(value, leaves)))
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-11, atol=1e-12)


@given(st.integers(1, 9), st.integers(0, 4), st.integers(1, 12), st.booleans(), st.integers(0, 99))
@settings(max_examples=40)
def test_info_nce(n: int, more: int, tile: int, symmetric: bool, seed: int) -> None:
    a, b = numbers(n, 4, seed=seed), numbers(n + more, 4, seed=seed + 100)
    temperature = torch.tensor(0.3, dtype=torch.float64)
    assert_both_agree(
        lambda x, y, t: InfoNCE(t, symmetric, tile)(x, y),
        lambda x, y, t: plain_info_nce(x, y, t, symmetric),
        a,
        b,
        temperature,
    )


@given(st.integers(2, 8), st.integers(1, 17), st.integers(0, 99))
@settings(max_examples=25)
def test_nt_xent(n: int, tile: int, seed: int) -> None:
    assert_both_agree(
        NTXent(0.3, tile), lambda x, y: plain_nt_xent(x, y, 0.3), numbers(n, 4, seed=seed), numbers(n, 4, seed=seed + 9)
    )


@given(st.integers(1, 9), st.integers(2, 9), st.integers(1, 12), st.booleans(), st.booleans(), st.integers(0, 99))
@settings(max_examples=40)
def test_multi_positive(n: int, m: int, tile: int, symmetric: bool, as_function: bool, seed: int) -> None:
    positive, ignored = relation(n, m, seed)
    told = (lambda i, j: positive[i, j], lambda i, j: ignored[i, j]) if as_function else (positive, ignored)
    assert_both_agree(
        MultiPositive(*told, temperature=0.3, symmetric=symmetric, tile=tile),
        lambda x, y: plain_multi_positive(x, y, positive, ignored, 0.3, symmetric),
        numbers(n, 4, seed=seed),
        numbers(m, 4, seed=seed + 9),
    )


@given(st.integers(1, 8), st.integers(2, 8), st.integers(1, 9), st.booleans(), st.integers(0, 99))
@settings(max_examples=25)
def test_positives_with_weights(n: int, m: int, tile: int, symmetric: bool, seed: int) -> None:
    positive, ignored = relation(n, m, seed)
    weights = torch.where(positive, numbers(n, m, seed=seed + 3).abs() + 0.1, 0.0)
    ignored = ignored & ~positive

    def plain(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        logits = (a @ b.T / 0.3).masked_fill(ignored, -torch.inf)
        total = a.new_zeros(())
        for row in range(n):
            for column in range(m):
                if weights[row, column]:
                    chance = logits[row, column] - logits[row].logsumexp(0)
                    total = total - weights[row, column] / weights[row].sum() * chance / n
        if not symmetric:
            return total
        described = [column for column in range(m) if weights[:, column].any()]
        back = a.new_zeros(())
        for column in described:
            for row in range(n):
                if weights[row, column]:
                    chance = logits[row, column] - logits[:, column].logsumexp(0)
                    back = back - weights[row, column] / weights[:, column].sum() * chance / len(described)
        return 0.5 * (total + back)

    loss = MultiPositive(weights, ignored, temperature=0.3, symmetric=symmetric, tile=tile)
    assert_both_agree(loss, plain, numbers(n, 4, seed=seed), numbers(m, 4, seed=seed + 9))


def test_one_positive_each_is_info_nce() -> None:
    a, b = numbers(7, 4, seed=1), numbers(7, 4, seed=2)
    assert float(MultiPositive(torch.eye(7, dtype=torch.bool))(a, b)) == pytest.approx(
        float(InfoNCE()(a, b)), rel=1e-12
    )


def test_a_sharp_temperature_does_not_overflow() -> None:
    a = torch.nn.functional.normalize(numbers(40, 4).float(), dim=-1).requires_grad_()
    loss = InfoNCE(1e-3, tile=7)(a, a.detach())
    (gradient,) = torch.autograd.grad(loss, a)
    assert torch.isfinite(loss)
    assert torch.isfinite(gradient).all()


class Largest(TorchDispatchMode):
    """Notes the largest tensor that any operation makes."""

    elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple | list) else [out]:
            if isinstance(tensor, Tensor):
                self.elements = max(self.elements, tensor.numel())
        return out


@pytest.mark.parametrize("loss", ["info", "nt", "multi", "plain"])
def test_no_matrix_of_all_pairs_is_ever_made(loss: str) -> None:
    n, tile = 300, 32
    kind = torch.arange(n) % 9
    chosen = {
        "info": InfoNCE(tile=tile),
        "nt": NTXent(tile=tile),
        "multi": MultiPositive(lambda i, j: kind[i, None] == kind[None, j], tile=tile),
        "plain": plain_info_nce,
    }[loss]
    a, b = numbers(n, 3, seed=1).requires_grad_(), numbers(n, 3, seed=2).requires_grad_()
    with Largest() as seen:
        chosen(a, b).backward()
    assert (seen.elements < n * n / 10) == (loss != "plain")


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: InfoNCE(0.0)(numbers(2, 2), numbers(2, 2)), "temperature"),
        (lambda: InfoNCE()(numbers(3, 2), numbers(2, 2)), "3 rows are to be matched with 2"),
        (lambda: NTXent()(numbers(3, 2), numbers(2, 2)), "3 and 2 rows"),
        (lambda: MultiPositive(torch.eye(3, 2, dtype=torch.bool))(numbers(3, 2), numbers(2, 2)), "no right column"),
    ],
)
def test_what_has_no_loss_is_told(call, says: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(EngineError, match=says):
        call()
