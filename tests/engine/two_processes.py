"""What each of two processes does, and how they are started: gloo on this machine, results through files."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from small_towers import gradients, make_tower, numbers
from torch import Tensor, nn

from cellingua.core.errors import EngineError
from cellingua.engine import (
    InfoNCE,
    MultiPositive,
    Processes,
    direct,
    divide_conquer,
    gather_rows,
    reduce_gradients,
)

ROWS, TEXTS, CHUNK = 19, 9, 3
#: Rows and texts of the first process: whole chunks, so that one process divides the same batch alike.
FIRST_ROWS, FIRST_TEXTS = 12, 6
WEIGHTS = {"masked": 0.5, "size": 0.01}


class World:
    """Two towers, a temperature, and a global batch; `part` is what a process holds of it."""

    def __init__(self) -> None:
        self.cells, self.texts = make_tower(1, words=True), make_tower(2, width=4)
        self.texts.narrow.bias.requires_grad_(False)
        self.temperature = nn.Parameter(torch.tensor(0.3, dtype=torch.float64))
        self.kinds, self.names = torch.arange(ROWS) % (TEXTS - 1), torch.arange(TEXTS)
        labels = torch.full((ROWS,), -1)
        labels[[0, 4, 5, 13]] = torch.tensor([0, 2, 1, 1])
        self.batches = [(numbers(ROWS, 6), labels), numbers(TEXTS, 4, seed=1)]
        self.parameters = [*self.cells.parameters(), *self.texts.parameters(), self.temperature]

    def part(self, rank: int, size: int) -> list[Any]:
        """Return the batches of a process."""
        rows = slice(None) if size == 1 else (slice(0, FIRST_ROWS), slice(FIRST_ROWS, ROWS))[rank]
        texts = slice(None) if size == 1 else (slice(0, FIRST_TEXTS), slice(FIRST_TEXTS, TEXTS))[rank]
        values, labels = self.batches[0]
        return [(values[rows], labels[rows]), self.batches[1][texts]]

    def steps(self, rank: int, size: int) -> dict[str, Any]:
        """Return the gradients of every kind of step, and its loss."""
        values, labels = self.part(rank, size)[0]
        mine = slice(None) if size == 1 else (slice(0, FIRST_ROWS), slice(FIRST_ROWS, ROWS))[rank]
        kinds = gather_rows(self.kinds[mine])

        def right(i: slice, j: slice) -> Tensor:
            return kinds[i, None] == self.names[None, j]

        objective = MultiPositive(right, temperature=self.temperature, tile=4)
        views = {
            "towers": [self.cells] * 2,
            "batches": [(values, labels)] * 2,
            "objective": InfoNCE(self.temperature, tile=4),
        }
        pair = {"towers": [self.cells, self.texts], "batches": self.part(rank, size), "objective": objective}
        found = {}
        for name, call in (("views", views), ("pair", pair)):
            for run in (direct, divide_conquer):
                for budget in (0, math.inf):
                    result, taken = gradients(
                        run, self.parameters, **call, chunk=CHUNK, seed=4, weights=WEIGHTS, budget=budget
                    )
                    found[f"{name} {run.__name__} {budget}"] = [taken, torch.tensor(result.loss)]
        return found

    def accumulated(self, rank: int, size: int, how: str) -> list[Tensor | None]:
        """Return the gradients of two accumulated steps, reduced at each or once at the end."""
        for p in self.parameters:
            p.grad = None
        values = self.part(rank, size)[0][0]
        for seed in (1, 2):
            divide_conquer(
                [self.cells] * 2,
                [(values, None)] * 2,
                InfoNCE(self.temperature),
                chunk=CHUNK,
                seed=seed,
                scale=0.5,
                processes=Processes(reduce=how == "each"),
            )
        if how == "once":
            reduce_gradients(self.parameters)
        return [None if p.grad is None else p.grad.clone() for p in self.parameters]


def worker(rank: int, size: int, folder: str) -> None:
    """Do everything that is compared, and save it."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=size)
    try:
        world = World()
        found: dict[str, Any] = world.steps(rank, size)
        for how in ("each", "once"):
            found[f"accumulated {how}"] = [world.accumulated(rank, size, how)]
        found["errors"] = [_message(world, rank, kind) for kind in ("one fails", "unknown", "unknown but named")]
        found["seed"] = divide_conquer(
            [world.cells] * 2, [world.part(rank, size)[0]] * 2, InfoNCE(), chunk=CHUNK, weights=WEIGHTS
        ).loss
        torch.save(found, Path(folder) / f"{rank}.pt")
    finally:
        dist.destroy_process_group()


def _message(world: World, rank: int, kind: str) -> str:
    """Return what a step says that one process, or both, can't do."""
    values = world.part(rank, 2)[0][0]
    held = {"tower": world.cells}
    for p in world.parameters:
        p.grad = torch.full_like(p, 7.0)

    def tower(x: Tensor) -> Tensor:
        noise = 1.0 + 0.1 * (kind == "one fails" and rank == 1 and torch.is_grad_enabled())
        return held["tower"](x * noise)

    named = None if kind == "unknown" else world.parameters
    try:
        divide_conquer([tower] * 2, [values] * 2, InfoNCE(), chunk=CHUNK, seed=0, parameters=named)
    except EngineError as error:
        kept = named is None or all(bool((p.grad == 7.0).all()) for p in world.parameters if p.grad is not None)
        return f"{error} kept: {kept}"
    return "fine"


def run(folder: Path) -> list[dict[str, Any]]:
    """Start two processes and return what each found."""
    mp.spawn(worker, args=(2, str(folder)), nprocs=2, join=True)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]
