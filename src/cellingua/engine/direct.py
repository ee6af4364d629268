"""The plain step: one graph over everything, and one backward pass. `divide_conquer` is proved equal to it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from cellingua.engine.chunks import Split
from cellingua.engine.processes import Processes
from cellingua.engine.replay import random_state_kept
from cellingua.engine.step import Objective, Reduction, StepResult, leaves_of, prepare
from cellingua.engine.towers import Encoded, Tower


def direct(
    towers: Sequence[Tower],
    batches: Sequence[Any],
    objective: Objective | None,
    *,
    chunk: int | Sequence[int],
    budget: float = 0,
    seed: int | None = None,
    weights: Mapping[str, float] | None = None,
    scale: float = 1.0,
    autocast: torch.dtype | None = None,
    split: Split | None = None,
    parameters: Iterable[nn.Parameter] | None = None,
    processes: Processes | None = None,
) -> StepResult:
    """Do what `divide_conquer` does, with the graph of the whole batch in memory.

    Parameters are those of `divide_conquer`. The batch is encoded in the same chunks, because a chunk owns its random
    state; `budget` is ignored, since every graph is kept.
    """
    step = prepare(towers, batches, objective, chunk, seed, weights, scale, autocast, split, parameters, processes)
    with Reduction(step) as reduction, random_state_kept(step.device):
        encoded = [step.encode(part, graph=True) for part in step.chunks]
        representations = []
        for tower in range(len(towers)):
            own = torch.cat([e.rows for e, part in zip(encoded, step.chunks, strict=True) if part.tower == tower])
            everyone, mine = step.gather(tower, own), step.local(tower)
            representations.append(torch.cat([everyone[: mine.start], own, everyone[mine.stop :]]))
        value = step.value_of(representations)
        counts = step.totals(_added(encoded, "counts"))
        total = torch.zeros((), device=step.device) if value is None else value
        for one in encoded:
            for name, loss in one.sums.items():
                total = total + step.weights[name] * loss / max(counts[name], 1e-300)
        hooks = []
        if value is not None and step.processes.size > 1:
            # Every process differentiates the whole objective; summed, its own parameters count once.
            own_parameters = [leaf for leaf in leaves_of(value) if not _is_in(leaf, step.parameters)]
            reduction.include(own_parameters)
            hooks = [leaf.register_hook(lambda g: g / step.processes.size) for leaf in own_parameters]
        if total.requires_grad:
            (total * scale).backward()
        for hook in hooks:
            hook.remove()
        reduction.finish()
    sums = step.totals(_added(encoded, "sums"))
    return step.result(value, sums, counts, representations, kept=len(step.chunks))


def _added(encoded: Sequence[Encoded], what: str) -> dict[str, Tensor | float]:
    """Return the named sums, or counts, of all chunks."""
    added: dict[str, Tensor | float] = {}
    for one in encoded:
        for name, value in getattr(one, what).items():
            added[name] = added.get(name, 0.0) + (value.detach() if isinstance(value, Tensor) else value)
    return added


def _is_in(tensor: Tensor, tensors: Iterable[Tensor]) -> bool:
    return any(tensor is other for other in tensors)
