"""The divide-and-conquer step: gradients of a whole contrastive batch, in the memory of a few chunks.

CellLM (Zhao, Zhang, Nie 2023, arXiv 2306.04371) divides a large contrastive batch; the decomposition that is exact is
GradCache's (Gao et al. 2021, arXiv 2101.06983): with representations ``Z = f(x)`` and ``G = dL/dZ``, the gradient of
the parameters is the sum over chunks of ``(dZ_k / dtheta)^T G_k``. So every chunk is encoded without a graph, the
loss is differentiated with respect to Z once, and every chunk is encoded again, with a graph and the same random
state, to pass its rows of G on. Chunks whose graph fits into a memory budget are encoded only once; so is the last,
whose graph needs no more room than that of any chunk that is encoded again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from cellingua.core.errors import EngineError
from cellingua.engine.budget import GraphBudget
from cellingua.engine.chunks import Chunk, Split, tensors_in
from cellingua.engine.processes import Processes
from cellingua.engine.replay import random_state_kept
from cellingua.engine.step import Objective, Reduction, Step, StepResult, leaves_of, prepare
from cellingua.engine.towers import BufferWatch, Encoded, Tower, refuse_graph


def divide_conquer(
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
    """Add the gradients of a whole batch to ``.grad``, a chunk at a time.

    Parameters
    ----------
    towers
        Each takes a chunk of its batch and returns representations (b, ...), or ``(representations, {name: (sum,
        count)})`` with losses that are separable: `sum` a scalar with a graph, `count` what it is over. Two dropout
        views of one tower are that tower twice.
    batches
        For each tower its batch, or this process's part of it: tensors, lists, or tuples, mappings and dataclasses of
        them, with one row an item; anything else with `split`.
    objective
        Takes the representations of the global batch, one tensor a tower, float32 or float64, and returns the loss.
        `InfoNCE`, `NTXent` and `MultiPositive` never hold the matrix of all pairs; any other callable may.
    chunk
        Items encoded at a time: a number, or one for each tower.
    budget
        Bytes of graph that may be kept between the passes, beside the graph of one chunk: 0 encodes all chunks but
        the last twice, ``math.inf`` none.
    seed
        Of the step's random state; each chunk of the global batch has its own. None draws one from torch's generator.
    weights
        Name -> weight of each separable loss that the towers return. Each is averaged over the global batch.
    scale
        Gradients are multiplied by it: ``1 / steps`` for accumulation, or the factor of a gradient scaler.
    autocast
        torch.bfloat16 or float16: every pass of a tower has its own autocast block; the loss is in float32.
    split
        ``(batch, start, stop)`` -> a chunk as the tower takes it; the batch then needs a length.
    parameters
        Everything that is trained, where several processes can't see it in the towers.
    processes
        See `Processes`. By default all processes of ``torch.distributed``, and gradients are summed at the end.

    Returns
    -------
    StepResult
        The loss of the global batch, its parts, and the representations.

    Raises
    ------
    EngineError
        A second pass did not give the first's representations bit for bit, or a tower is such that it can't. What
        ``.grad`` then holds is unfinished.
    """
    step = prepare(towers, batches, objective, chunk, seed, weights, scale, autocast, split, parameters, processes)
    with Reduction(step) as reduction, random_state_kept(step.device):
        first = _FirstPass(step, budget)
        representations = [step.gather(tower, rows) for tower, rows in enumerate(first.rows)]
        value, gradients = _differentiate(step, representations, reduction)
        counts = step.totals(first.counts)
        problem = None
        chunks = 0
        try:
            chunks = _conquer(step, first, gradients, counts)
        except EngineError as error:
            problem = error
        reduction.finish(problem)
    sums = step.totals(first.sums)
    return step.result(value, sums, counts, representations, first.number_kept, first.kept_bytes, chunks)


@dataclass
class _FirstPass:
    """Every chunk encoded once: representations of this process, sums of separable losses, and the graphs kept."""

    step: Step
    budget: float
    rows: list[Tensor] = field(default_factory=list)
    sums: dict[str, Tensor | float] = field(default_factory=dict)
    counts: dict[str, Tensor | float] = field(default_factory=dict)
    kept: dict[int, Encoded] = field(default_factory=dict)

    def __post_init__(self) -> None:
        step = self.step
        lasting = [t for m in step.modules for t in (*m.parameters(), *m.buffers())]
        self.last = max((i for i, chunk in enumerate(step.chunks) if not _is_frozen(step, chunk.tower)), default=-1)
        room = GraphBudget(self.budget, [*lasting, *step.parameters, *tensors_in(tuple(step.batches))])
        for index, chunk in enumerate(step.chunks):
            watch = BufferWatch(step.modules) if chunk.start == 0 else None
            encoded = self._encode(index, chunk, room)
            if watch is not None:
                watch.refuse_changes()
            self._store(chunk, encoded)
        self.number_kept, self.kept_bytes = len(self.kept), room.used

    def _encode(self, index: int, chunk: Chunk, room: GraphBudget) -> Encoded:
        """Encode a chunk, with its graph where the budget has room for that."""
        if index == self.last:
            self.kept[index] = self.step.encode(chunk, graph=True)
            return self.kept[index]
        if _is_frozen(self.step, chunk.tower) or not room.allows(chunk):
            return self.step.encode(chunk, graph=False)
        with room.measuring() as total:
            encoded = self.step.encode(chunk, graph=True)
        if room.keeps(chunk, total[0]):
            self.kept[index] = encoded
            return encoded
        return Encoded(encoded.rows.detach(), {n: s.detach() for n, s in encoded.sums.items()}, encoded.counts)

    def _store(self, chunk: Chunk, encoded: Encoded) -> None:
        """Copy the rows into one tensor a tower: small tensors left among large ones would keep memory from reuse."""
        rows = encoded.rows.detach()
        if chunk.start == 0:
            total = self.step.counts[chunk.tower][self.step.processes.rank]
            self.rows.append(rows.new_empty((total, *rows.shape[1:])))
        self.rows[chunk.tower][chunk.start : chunk.stop] = rows
        for name, value in encoded.sums.items():
            self.sums[name] = self.sums.get(name, 0.0) + value.detach()
            self.counts[name] = self.counts.get(name, 0.0) + encoded.counts[name]


def _differentiate(
    step: Step, representations: Sequence[Tensor], reduction: Reduction
) -> tuple[Tensor | None, list[Tensor | None]]:
    """Return the objective's value, and its gradient with respect to this process's rows of each tower."""
    leaves = [rows.detach().requires_grad_() for rows in representations]
    value = step.value_of(leaves)
    if value is None or not value.requires_grad:
        return value, [None] * len(leaves)
    own = leaves_of(value, but=leaves)
    reduction.include(own)
    found = torch.autograd.grad(value, [*leaves, *own], torch.full_like(value, step.scale), allow_unused=True)
    for leaf, gradient in zip(own, found[len(leaves) :], strict=True):
        if gradient is not None:
            # Every process differentiates the whole objective; summed, its own parameters count once.
            gradient = gradient / step.processes.size
            leaf.grad = gradient if leaf.grad is None else leaf.grad + gradient
    mine: list[Tensor | None] = []
    for tower, gradient in enumerate(found[: len(leaves)]):
        mine.append(None if gradient is None else gradient[step.local(tower)])
    return value.detach(), mine


def _conquer(step: Step, first: _FirstPass, gradients: Sequence[Tensor | None], counts: Mapping[str, float]) -> int:
    """Pass the gradients of representations on to the parameters, chunk by chunk; return how many chunks it took.

    The last comes first, then all others in their order: what was kept goes before anything is encoded again, and
    sums are rounded alike whatever the budget.
    """
    idle = {t for t, g in enumerate(gradients) if _is_frozen(step, t) or (g is None and not step.weights)}
    looked_at: set[int] = set()
    done = 0
    for index in sorted(range(len(step.chunks)), key=lambda i: (i != first.last, i)):
        chunk, kept = step.chunks[index], first.kept.pop(index, None)
        if chunk.tower in idle:
            continue
        encoded = step.encode(chunk, graph=True) if kept is None else kept
        if kept is None:
            _check(encoded.rows, first.rows[chunk.tower][chunk.start : chunk.stop], chunk)
        if chunk.tower not in looked_at:
            refuse_graph(encoded, step.parameters if step.processes.size > 1 and step.processes.reduce else None)
            looked_at.add(chunk.tower)
        roots, upstream = _roots(step, chunk, encoded, gradients[chunk.tower], counts)
        if roots:
            torch.autograd.backward(roots, upstream)
            done += 1
        elif not step.weights:
            idle.add(chunk.tower)
        del kept, encoded, roots
    return done


def _is_frozen(step: Step, tower: int) -> bool:
    """Is a tower a module that holds nothing to train?"""
    module = step.towers[tower]
    return isinstance(module, nn.Module) and not any(p.requires_grad for p in module.parameters())


def _roots(
    step: Step, chunk: Chunk, encoded: Encoded, gradient: Tensor | None, counts: Mapping[str, float]
) -> tuple[list[Tensor], list[Tensor]]:
    """Return where the backward pass of a chunk begins, and the gradients it begins with."""
    roots, upstream = [], []
    if gradient is not None and encoded.rows.requires_grad:
        roots.append(encoded.rows)
        upstream.append(gradient[chunk.start : chunk.stop])
    for name, total in encoded.sums.items():
        share = step.scale * step.weights[name] / max(counts[name], 1e-300)
        if total.requires_grad and share:
            roots.append(total)
            upstream.append(torch.full_like(total, share))
    return roots, upstream


def _check(again: Tensor, before: Tensor, chunk: Chunk) -> None:
    """Raise where the second pass differs from the first in a bit."""
    bits = {2: torch.int16, 4: torch.int32, 8: torch.int64}[before.element_size()]
    again = again.detach()
    if again.dtype == before.dtype and torch.equal(again.contiguous().view(bits), before.view(bits)):
        return
    gap = float((again - before).abs().max())
    raise EngineError(
        f"Tower {chunk.tower} encoded items {chunk.start} to {chunk.stop - 1} differently the second time (by up to "
        f"{gap:.2g}), so the gradients would be those of another batch. Likely causes: random numbers from numpy, "
        "Python or a generator of the tower's own; a layer that changes in a forward pass (BatchNorm, a redraw of "
        "random features); a kernel that is not deterministic, or that torch chooses only where there is no graph; "
        "torch.compile specialising again.",
        "the same representations, bit for bit, from the same chunk and torch's random state",
        "draw masks before the step and put them into the batch; torch.use_deterministic_algorithms(True); "
        "torch.backends.mha.set_fastpath_enabled(False); or budget=math.inf, which encodes once",
    )
