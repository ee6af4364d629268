"""Towers small enough to differentiate a thousand times, plain losses, and how gradients are taken and compared."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from cellingua.engine import StepResult


class Tower(nn.Module):
    """Two layers with dropout, unit length; with `words` also a separable loss over a part of the rows."""

    def __init__(self, width: int = 6, dropout: float = 0.1, words: bool = False, dtype: Any = torch.float64) -> None:
        super().__init__()
        self.widen = nn.Linear(width, 16, dtype=dtype)
        self.narrow = nn.Linear(16, 5, dtype=dtype)
        self.words = nn.Linear(16, 3, dtype=dtype) if words else None
        self.dropout = nn.Dropout(dropout)

    def forward(self, batch: Any) -> Any:
        values, labels = batch if isinstance(batch, tuple) else (batch, None)
        hidden = self.dropout(torch.tanh(self.widen(values)))
        states = functional.normalize(self.narrow(hidden), dim=-1)
        if self.words is None or labels is None:
            return states
        chosen = labels >= 0
        loss = functional.cross_entropy(self.words(hidden[chosen]), labels[chosen], reduction="sum")
        return states, {"masked": (loss, chosen.sum()), "size": (self.widen(values).square().sum(), len(values))}


def make_tower(seed: int = 0, **settings: Any) -> Tower:
    """Return a tower with weights of their own seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Tower(**settings)


def numbers(*shape: int, seed: int = 0, dtype: Any = torch.float64) -> Tensor:
    """Return normal numbers."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def plain_info_nce(a: Tensor, b: Tensor, temperature: Any = 0.05, symmetric: bool = True) -> Tensor:
    """InfoNCE over the whole matrix."""
    s = a @ b.T / temperature
    loss = functional.cross_entropy(s, torch.arange(len(a)))
    return 0.5 * (loss + functional.cross_entropy(s.T[: len(a)], torch.arange(len(a)))) if symmetric else loss


def plain_nt_xent(a: Tensor, b: Tensor, temperature: float = 0.05) -> Tensor:
    """NT-Xent, written as a loop over rows."""
    z = torch.cat([a, b])
    total = torch.zeros((), dtype=z.dtype)
    for i in range(len(z)):
        others = torch.tensor([j for j in range(len(z)) if j != i])
        s = z[others] @ z[i] / temperature
        partner = (others == (i + len(a)) % len(z)).nonzero()[0, 0]
        total = total + torch.logsumexp(s, 0) - s[partner]
    return total / len(z)


def plain_multi_positive(
    a: Tensor, b: Tensor, positive: Tensor, ignored: Tensor | None, temperature: float = 0.05, symmetric: bool = True
) -> Tensor:
    """Several positives, written as a loop over rows and columns."""

    def one_way(s: Tensor, right: Tensor, out: Tensor) -> Tensor:
        losses = []
        for i in range(len(s)):
            if right[i].any():
                kept = ~out[i] | right[i]
                losses.append(torch.logsumexp(s[i][kept], 0) - s[i][right[i]].mean())
        return torch.stack(losses).mean()

    s = a @ b.T / temperature
    out = torch.zeros_like(positive) if ignored is None else ignored
    loss = one_way(s, positive, out)
    return 0.5 * (loss + one_way(s.T, positive.T, out.T)) if symmetric else loss


def gradients(run: Any, parameters: Sequence[nn.Parameter], *args: Any, **kwargs: Any) -> tuple[StepResult, list[Any]]:
    """Return what `run` returns, and the gradients it left in `parameters`, which began with none."""
    for parameter in parameters:
        parameter.grad = None
    result = run(*args, **kwargs)
    return result, [None if p.grad is None else p.grad.clone() for p in parameters]


@contextmanager
def patched(module: nn.Module, name: str, function: Any) -> Iterator[None]:
    """Give a module another forward for a while."""
    setattr(module, name, function)
    try:
        yield
    finally:
        delattr(module, name)


def relation(rows: int, columns: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Return `positive` with at least one a row (and a column without any), and `ignored`, both bool."""
    generator = torch.Generator().manual_seed(seed)
    kinds = torch.randint(0, max(2, columns - 1), (rows,), generator=generator)
    positive = kinds[:, None] == torch.arange(columns)[None, :] % max(2, columns - 1)
    positive[:, -1] = False
    positive[positive.sum(1) == 0, 0] = True
    ignored = torch.rand(rows, columns, generator=generator) < 0.2
    return positive, ignored


BUDGETS = (0.0, 2_000.0, 9_000.0, math.inf)
