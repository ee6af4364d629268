"""One global batch over several processes: rows are gathered, gradients are summed once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from cellingua.core.errors import EngineError

_BUCKET = 1 << 25  # elements that are reduced in one call at most, a copy of which is held meanwhile


@dataclass(frozen=True)
class Processes:
    """Who takes part in a step.

    Parameters
    ----------
    group
        A ``torch.distributed`` process group; None is all processes where ``torch.distributed`` is initialised,
        else this process alone.
    reduce
        Whether the step ends with the sum of gradients over processes. Without it ``.grad`` holds this process's
        share, and `reduce_gradients` is called once after the last of several accumulated steps.
    """

    group: Any = None
    reduce: bool = True

    @property
    def size(self) -> int:
        """How many processes there are."""
        return dist.get_world_size(self.group) if dist.is_available() and dist.is_initialized() else 1

    @property
    def rank(self) -> int:
        """Which one this is, from 0."""
        return dist.get_rank(self.group) if self.size > 1 else 0

    def sum(self, values: Tensor) -> Tensor:
        """Return the sum of `values` over processes, in place."""
        if self.size > 1:
            dist.all_reduce(values, group=self.group)
        return values

    def gather(self, values: Tensor) -> Tensor:
        """Return (processes, ...) the `values` of every process, which are of one shape; without a graph."""
        if self.size == 1:
            return values.detach().unsqueeze(0)
        parts = [torch.empty_like(values) for _ in range(self.size)]
        dist.all_gather(parts, values.detach().contiguous(), group=self.group)
        return torch.stack(parts)

    def gather_rows(self, local: Tensor, counts: Sequence[int]) -> Tensor:
        """Return the rows of all processes one after the other, without a graph.

        Parameters
        ----------
        local
            (counts[rank], ...): this process's rows.
        counts
            Rows of each process.
        """
        if self.size == 1:
            return local.detach()
        padded = local.new_zeros((max(counts), *local.shape[1:]))
        padded[: len(local)] = local.detach()
        parts = self.gather(padded)
        return torch.cat([parts[rank, :count] for rank, count in enumerate(counts)])

    def from_first(self, value: int, device: torch.device) -> int:
        """Return the `value` of the first process."""
        return int(self.gather(torch.tensor([value], dtype=torch.int64, device=device))[0, 0])

    def agree(self, problem: EngineError | None, device: torch.device) -> None:
        """Raise `problem`; where another process has one, raise too, instead of waiting for it for ever."""
        failed = self.sum(torch.tensor([0.0 if problem is None else 1.0], device=device))
        if problem is not None:
            raise problem
        if failed.item():
            raise EngineError("Another process stopped this step.", "", "its message says why")


def gather_rows(local: Tensor, group: Any = None) -> Tensor:
    """Return the rows of all processes one after the other, without a graph: labels for an objective, for example.

    Processes may hold different numbers of rows. Without ``torch.distributed`` the rows are returned as they are.
    """
    processes = Processes(group)
    counts = processes.gather(torch.tensor([len(local)], device=local.device))[:, 0].tolist()
    return processes.gather_rows(local, counts)


def reduce_gradients(parameters: Iterable[torch.nn.Parameter], group: Any = None) -> None:
    """Sum ``.grad`` over processes, in place and without a factor; one process alone does nothing.

    A parameter that has a gradient in one process and none in another counts as zero there.
    """
    processes = Processes(group)
    unique = list(dict.fromkeys(p for p in parameters if p.requires_grad))
    if processes.size == 1 or not unique:
        return
    present = torch.tensor([float(p.grad is not None) for p in unique], device=unique[0].device)
    used = [p for p, count in zip(unique, processes.sum(present).tolist(), strict=True) if count]
    for p in used:
        if p.grad is None:
            p.grad = torch.zeros_like(p)
    for bucket in _buckets([p.grad for p in used if p.grad is not None]):
        flat = processes.sum(torch.cat([gradient.reshape(-1) for gradient in bucket]))
        for gradient, part in zip(bucket, flat.split([g.numel() for g in bucket]), strict=True):
            gradient.copy_(part.view_as(gradient))


def _buckets(gradients: Sequence[Tensor]) -> list[list[Tensor]]:
    """Group neighbours of one dtype and device up to a size, in order."""
    buckets: list[list[Tensor]] = []
    size = 0
    for gradient in gradients:
        last = buckets[-1][-1] if buckets else None
        fits = last is not None and (last.dtype, last.device) == (gradient.dtype, gradient.device)
        if fits and size + gradient.numel() <= _BUCKET:
            buckets[-1].append(gradient)
            size += gradient.numel()
        else:
            buckets.append([gradient])
            size = gradient.numel()
    return buckets
