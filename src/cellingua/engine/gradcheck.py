"""How far two sets of gradients are apart, and a check of one's own towers against the plain step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from cellingua.core.errors import EngineError
from cellingua.engine.direct import direct
from cellingua.engine.divide_conquer import divide_conquer
from cellingua.engine.step import Objective
from cellingua.engine.towers import Tower, modules_of, trainable

_SMALL = 1e-10


def gradient_error(found: Sequence[Tensor | None], true: Sequence[Tensor | None]) -> float:
    """Return the norm of the error over all tensors, relative to the norm of all true gradients together.

    Where a true tensor is under 1e-10 of that norm its error counts by itself and absolutely: a relative error of
    nothing but rounding would say nothing. A missing gradient is zero. Without any true gradient all errors are
    absolute.
    """
    pairs = [_pair(f, t) for f, t in zip(found, true, strict=True) if f is not None or t is not None]
    norm = float(sum(float(t.norm()) ** 2 for _, t in pairs)) ** 0.5
    together, alone = 0.0, 0.0
    for f, t in pairs:
        gap, size = float((f - t).norm()), float(t.norm())
        if norm == 0 or size < _SMALL * norm:
            alone = max(alone, gap)
        else:
            together += (gap / norm) ** 2
    return float(max(together**0.5, alone))


def _pair(found: Tensor | None, true: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return both in float64, zeros for the one that is missing."""
    there = found if found is not None else true
    assert there is not None
    zero = torch.zeros_like(there, dtype=torch.float64)
    return (zero if found is None else found.detach().double()), (zero if true is None else true.detach().double())


def gradcheck(
    towers: Sequence[Tower],
    batches: Sequence[Any],
    objective: Objective | None,
    *,
    chunk: int | Sequence[int],
    limit: float | None = None,
    **settings: Any,
) -> float:
    """Compare `divide_conquer` with `direct` on one small batch, and return the `gradient_error`.

    ``.grad`` is left as it was. For a sharp answer give towers and batches in float64.

    Parameters
    ----------
    towers, batches, objective, chunk
        As for `divide_conquer`.
    limit
        The largest error that passes; None stands for 1e-9 in float64 and 1e-4 otherwise.
    settings
        Further arguments of `divide_conquer`.

    Raises
    ------
    EngineError
        The error is above the limit.
    """
    named = settings.get("parameters")
    modules = [module for tower in towers for module in modules_of(tower)]
    modules += [objective] if isinstance(objective, nn.Module) else []
    parameters = list(trainable(modules)) if named is None else list(named)
    settings = {"seed": 0, **settings, "parameters": None if named is None else parameters}
    kept = [p.grad for p in parameters]
    results = []
    try:
        for run in (divide_conquer, direct):
            for p in parameters:
                p.grad = None
            run(towers, batches, objective, chunk=chunk, **settings)
            results.append([p.grad for p in parameters])
    finally:
        for p, gradient in zip(parameters, kept, strict=True):
            p.grad = gradient
    error = gradient_error(*results)
    if limit is None:
        limit = 1e-9 if all(p.dtype == torch.float64 for p in parameters) else 1e-4
    if not error <= limit:
        raise EngineError(f"The gradients differ from those of one graph by {error:.2g}.", f"{limit:g} at most")
    return error
