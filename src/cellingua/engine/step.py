"""What a step is, before any encoding: checked arguments, chunks of the global batch, and the result's form.

`direct` and `divide_conquer` share all of this and differ in how they come to the gradients.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from cellingua.core.errors import EngineError
from cellingua.engine.chunks import Chunk, Split, divide, rows_of, take, tensors_in
from cellingua.engine.processes import Processes, reduce_gradients
from cellingua.engine.replay import chunk_seed, set_random_state
from cellingua.engine.towers import Encoded, Tower, encode, modules_of, refuse_modules, roots_of, trainable

#: Representations of the global batch, one tensor a tower -> the loss, a scalar.
Objective = Callable[..., Tensor]

_OBJECTIVE = -1  # the "tower" whose random state an objective has


@dataclass(frozen=True)
class StepResult:
    """What a step found; gradients are in ``.grad``.

    Parameters
    ----------
    loss
        Of the global batch: the objective, and the separable losses times their weights.
    parts
        ``objective`` and each separable loss, without weights.
    representations
        One tensor a tower, (global rows, ...), detached.
    chunks
        Passes with a graph that this process did.
    kept
        How many of them needed no second encoding.
    kept_bytes
        What their graphs held, as measured; 0 where the budget was unlimited and nothing was measured.
    """

    loss: float
    parts: dict[str, float]
    representations: tuple[Tensor, ...]
    chunks: int
    kept: int
    kept_bytes: int


@dataclass
class Step:
    """A step with everything checked. Built by `prepare`."""

    towers: Sequence[Tower]
    batches: Sequence[Any]
    objective: Objective | None
    chunks: list[Chunk]
    counts: list[list[int]]  # rows of each tower in each process
    modules: list[nn.Module]
    parameters: list[nn.Parameter]
    weights: Mapping[str, float]
    scale: float
    seed: int
    autocast: torch.dtype | None
    split: Split
    processes: Processes
    device: torch.device

    def encode(self, chunk: Chunk, *, graph: bool) -> Encoded:
        """Encode a chunk in the random state that belongs to it."""
        data = self.split(self.batches[chunk.tower], chunk.start, chunk.stop)
        set_random_state(chunk_seed(self.seed, chunk.tower, chunk.number), self.device)
        return encode(
            self.towers[chunk.tower],
            data,
            len(chunk),
            self.weights,
            graph=graph,
            device=self.device,
            autocast=self.autocast,
        )

    def local(self, tower: int) -> slice:
        """Return which rows of the global representations of `tower` are this process's."""
        start = sum(self.counts[tower][: self.processes.rank])
        return slice(start, start + self.counts[tower][self.processes.rank])

    def gather(self, tower: int, rows: Tensor) -> Tensor:
        """Return the representations of `tower` of all processes, without a graph."""
        return self.processes.gather_rows(rows, self.counts[tower])

    def value_of(self, representations: Sequence[Tensor]) -> Tensor | None:
        """Return the objective, in its own random state, which is the same in every process; None without one."""
        if self.objective is None:
            return None
        set_random_state(chunk_seed(self.seed, _OBJECTIVE, 0), self.device)
        with torch.enable_grad():
            loss = self.objective(*representations)
        if not isinstance(loss, Tensor) or loss.numel() != 1:
            raise EngineError("The objective returned something else than one number.", "a scalar tensor")
        return loss.reshape(())

    def totals(self, local: Mapping[str, Tensor | float]) -> dict[str, float]:
        """Return named numbers summed over processes, in float64."""
        names = list(self.weights)
        # MPS has no float64; losses are reported, and counts are below 2^24 there.
        dtype = torch.float32 if self.device.type == "mps" else torch.float64
        values = torch.tensor([float(local.get(name, 0.0)) for name in names], dtype=dtype, device=self.device)
        return dict(zip(names, self.processes.sum(values).tolist(), strict=True))

    def result(
        self,
        objective: Tensor | None,
        sums: Mapping[str, float],
        counts: Mapping[str, float],
        representations: Sequence[Tensor],
        kept: int,
        kept_bytes: int = 0,
        chunks: int | None = None,
    ) -> StepResult:
        """Put the result together from sums and counts of the global batch."""
        parts = {} if objective is None else {"objective": float(objective.detach())}
        loss = sum(parts.values())
        for name, weight in self.weights.items():
            parts[name] = sums[name] / counts[name] if counts[name] else 0.0
            loss += weight * parts[name]
        states = tuple(rows.detach() for rows in representations)
        return StepResult(loss, parts, states, len(self.chunks) if chunks is None else chunks, kept, kept_bytes)


def prepare(
    towers: Sequence[Tower],
    batches: Sequence[Any],
    objective: Objective | None,
    chunk: int | Sequence[int],
    seed: int | None,
    weights: Mapping[str, float] | None,
    scale: float,
    autocast: torch.dtype | None,
    split: Split | None,
    parameters: Iterable[nn.Parameter] | None,
    processes: Processes | None,
) -> Step:
    """Check the arguments of a step, and divide its batch.

    Raises
    ------
    EngineError
        What is asked for can't be exact, or can't be done; the message says what to change.
    """
    sizes = [chunk] * len(towers) if isinstance(chunk, int) else list(chunk)
    if not towers or not len(towers) == len(batches) == len(sizes):
        raise EngineError(
            f"{len(towers)} towers, {len(batches)} batches and {len(sizes)} chunk sizes.",
            "one batch (and one chunk size, where they differ) for each tower",
            "for two dropout views, give the same tower and the same batch twice",
        )
    if min(sizes) < 1:
        raise EngineError(f"A chunk of {min(sizes)} items.", "1 or more")
    if weights and "objective" in weights:
        raise EngineError("A separable loss is called 'objective'.", "another name")
    if objective is None and not weights:
        raise EngineError("There is neither an objective nor a separable loss.", "at least one")
    processes = processes or Processes()
    modules = list(dict.fromkeys(module for tower in towers for module in modules_of(tower)))
    refuse_modules(modules)
    trained = list(trainable(modules)) if parameters is None else list(dict.fromkeys(parameters))
    device = _device_of(modules, trained, batches)
    _refuse_outer_autocast(device)
    counts, chunks = _divide(batches, sizes, split, processes, device)
    if seed is None:
        seed = int(torch.randint(1 << 62, ()).item())
        seed = processes.from_first(seed, device) if processes.size > 1 else seed
    return Step(
        towers=towers,
        batches=batches,
        objective=objective,
        chunks=chunks,
        counts=counts,
        modules=modules,
        parameters=trained,
        weights=dict(weights or {}),
        scale=scale,
        seed=seed,
        autocast=autocast,
        split=split or take,
        processes=processes,
        device=device,
    )


def _device_of(modules: Sequence[nn.Module], parameters: Sequence[Tensor], batches: Sequence[Any]) -> torch.device:
    """Return where the work is done: where the weights are, or the batch, or the CPU."""
    tensors = [*parameters, *(p for module in modules for p in module.parameters()), *tensors_in(tuple(batches))]
    return tensors[0].device if tensors else torch.device("cpu")


def _refuse_outer_autocast(device: torch.device) -> None:
    """Raise within an autocast block: the loss and the gradients of representations must be float32."""
    try:
        on = torch.is_autocast_enabled(device.type)
    except TypeError:  # before torch 2.4 the function knows CUDA alone
        on = torch.is_autocast_cpu_enabled() if device.type == "cpu" else torch.is_autocast_enabled()
    if on:
        raise EngineError(
            "A step was called within an autocast block, which would round the loss, and would keep rounded weights "
            "of the pass without graph for the pass with one.",
            "no autocast around the step",
            "autocast=torch.bfloat16, which gives every pass its own block",
        )


def _divide(
    batches: Sequence[Any], sizes: Sequence[int], split: Split | None, processes: Processes, device: torch.device
) -> tuple[list[list[int]], list[Chunk]]:
    """Return the rows of each tower in each process, and this process's chunks, tower by tower."""
    local = [rows_of(batch) if split is None else _length(batch) for batch in batches]
    everywhere = processes.gather(torch.tensor(local, device=device))  # (processes, towers)
    if int(everywhere.min()) < 1:
        raise EngineError("A process has an empty batch for a tower.", "at least one item in every process")
    counts = everywhere.T.tolist()
    chunks: list[Chunk] = []
    for tower, (rows, size) in enumerate(zip(counts, sizes, strict=True)):
        before = sum(-(-count // size) for count in rows[: processes.rank])
        chunks += divide(tower, rows[processes.rank], size, before)
    return counts, chunks


def _length(batch: Any) -> int:
    """Return the rows of a batch that the caller's own function splits."""
    return len(batch) if hasattr(batch, "__len__") and not isinstance(batch, tuple | dict) else rows_of(batch)


class Reduction:
    """Keeps gradients of earlier steps apart, so that this step's alone are summed over processes, once."""

    def __init__(self, step: Step) -> None:
        self._step = step
        self._on = step.processes.size > 1 and step.processes.reduce
        self._earlier: list[tuple[nn.Parameter, Tensor | None]] = []
        self._hold(step.parameters)

    def __enter__(self) -> Reduction:
        return self

    def __exit__(self, *failure: object) -> None:
        """Leave ``.grad`` as it was where the step failed."""
        for parameter, earlier in self._earlier:
            parameter.grad = earlier

    def _hold(self, parameters: Iterable[nn.Parameter]) -> None:
        for parameter in parameters if self._on else ():
            self._earlier.append((parameter, parameter.grad))
            parameter.grad = None

    def include(self, leaves: Iterable[Tensor]) -> None:
        """Take in what the objective alone trains (a temperature)."""
        known = {id(parameter) for parameter, _ in self._earlier}
        self._hold(leaf for leaf in leaves if id(leaf) not in known)  # type: ignore[misc]

    def finish(self, problem: EngineError | None = None) -> None:
        """Sum over processes, unless one of them has a problem; then add what was there before."""
        if not self._on:
            if problem is not None:
                raise problem
            return
        self._step.processes.agree(problem, self._step.device)
        reduce_gradients((parameter for parameter, _ in self._earlier), self._step.processes.group)
        for parameter, earlier in self._earlier:
            if earlier is not None:
                parameter.grad = earlier if parameter.grad is None else earlier.add_(parameter.grad)
        self._earlier.clear()


def leaves_of(loss: Tensor, but: Sequence[Tensor] = ()) -> list[Tensor]:
    """Return the trainable leaves that a loss depends on, except those given."""
    known = {id(tensor) for tensor in but}
    return [leaf for leaf in roots_of([loss]).leaves if id(leaf) not in known]
