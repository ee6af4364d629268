"""Gradients of the engine against one graph, over a grid, and every known mistake planted once: for `bench_engine`.

python -m benchmarks.engine_gradients grid | mistakes
"""

from __future__ import annotations

import itertools
import json
import math
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.engine_tower import Tower, make, sentences
from cellingua.core.errors import EngineError
from cellingua.engine import InfoNCE, MultiPositive, NTXent, direct, divide_conquer, gradient_error

LENGTH, SMALL = 7, {"width": 16, "layers": 2, "heads": 2}


def plain_info_nce(a: Tensor, b: Tensor, symmetric: bool = True) -> Tensor:
    """InfoNCE from the whole matrix of pairs."""
    s, right = a @ b.T / 0.05, torch.arange(len(a))
    loss = functional.cross_entropy(s, right)
    return 0.5 * (loss + functional.cross_entropy(s.T, right)) if symmetric else loss


def plain_nt_xent(a: Tensor, b: Tensor) -> Tensor:
    """NT-Xent from the whole matrix of pairs."""
    z = torch.cat([a, b])
    s = (z @ z.T / 0.05).masked_fill(torch.eye(len(z), dtype=torch.bool), -math.inf)
    return functional.cross_entropy(s, (torch.arange(len(z)) + len(a)) % len(z))


def kinds(rows: int) -> tuple[Tensor, Tensor]:
    """Return `positive` and `ignored` of rows with three kinds; neighbouring kinds are neither right nor wrong."""
    kind = torch.arange(rows) % 3
    return kind[:, None] == kind[None, :], (kind[:, None] - kind[None, :]) == 1


def plain_multi_positive(a: Tensor, b: Tensor) -> Tensor:
    """Several positives, from the whole matrix of pairs."""
    positive, ignored = kinds(len(a))
    total = torch.zeros((), dtype=a.dtype)
    for s, right, out in ((a @ b.T / 0.05, positive, ignored), (b @ a.T / 0.05, positive.T, ignored.T)):
        chance = s.masked_fill(out & ~right, -math.inf).log_softmax(1)
        total = total - (torch.where(right, chance, 0.0).sum(1) / right.sum(1)).mean() / 2
    return total


def alignment(a: Tensor, b: Tensor) -> Tensor:
    """An objective without tiles: alignment and uniformity (Wang, Isola 2020)."""
    spread = torch.cdist(a, b.roll(1, 0)).square().mul(-2).exp().mean().log()
    return (a - b).square().sum(1).mean() + spread


def objectives(rows: int) -> dict[str, tuple[Any, Any]]:
    """Return name -> (as the engine takes it, as one graph takes it)."""
    return {
        "InfoNCE": (InfoNCE(0.05, tile=5), plain_info_nce),
        "InfoNCE, one way": (InfoNCE(0.05, False, tile=5), lambda a, b: plain_info_nce(a, b, False)),
        "NT-Xent": (NTXent(0.05, tile=5), plain_nt_xent),
        "several positives": (MultiPositive(*kinds(rows), temperature=0.05, tile=5), plain_multi_positive),
        "alignment and uniformity": (alignment, alignment),
    }


class WithWords(nn.Module):
    """A tower that also predicts the first token of its sentence, as a separable loss over half of the rows."""

    def __init__(self, tower: Tower) -> None:
        super().__init__()
        self.tower = tower
        self.head = nn.Linear(tower.norm.weight.numel(), 5, dtype=tower.norm.weight.dtype)

    def forward(self, tokens: Tensor) -> Any:
        """Encode and predict."""
        states = self.tower(tokens)
        chosen = tokens[:, 0] % 2 == 0
        loss = functional.cross_entropy(self.head(states[chosen]), tokens[chosen, 0] % 5, reduction="sum")
        return states, {"masked": (loss, chosen.sum())}


Case = tuple[str, int, int, float, int | None, float]


def cases() -> Iterator[Case]:
    """Yield objective, rows, chunk, dropout, frozen tower, budget."""
    for name in objectives(1):
        for rows, chunk in ((6, 1), (6, 4), (6, 6), (17, 5), (17, 8), (17, 16)):
            for dropout, frozen in itertools.product((0.0, 0.1), (None, 0, 1)):
                yield name, rows, chunk, dropout, frozen, 0.0 if chunk % 2 else 40_000.0


def one(case: Case, dtype: torch.dtype, rank: int = 0, size: int = 1) -> tuple[list[Any], list[Any] | None]:
    """Return the engine's gradients, and in one process those of one graph."""
    name, rows, chunk, dropout, frozen, budget = case
    torch.manual_seed(0)
    towers = [WithWords(make(seed, dtype, dropout=dropout, **SMALL)) for seed in (1, 2)]
    if frozen is not None:
        towers[frozen].requires_grad_(False)
    parameters = [p for tower in towers for p in tower.parameters()]
    batches = [sentences(rows, LENGTH, seed) for seed in (3, 4)]
    if size > 1:
        first = max(1, rows // 2 // chunk) * chunk
        batches = [batch[:first] if rank == 0 else batch[first:] for batch in batches]
    ours, plain = objectives(rows)[name]

    def run(step: Any, objective: Any) -> list[Any]:
        for p in parameters:
            p.grad = None
        step(towers, batches, objective, chunk=chunk, seed=5, weights={"masked": 0.5}, budget=budget)
        return [None if p.grad is None else p.grad.clone() for p in parameters]

    found = run(divide_conquer, ours)
    return found, run(direct, plain) if size == 1 else None


def process(rank: int, folder: str) -> None:
    """Do every case that two processes can share, with the other one, and save the gradients."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    try:
        found = {json.dumps(case): one(case, torch.float64, rank, 2)[0] for case in cases() if case[2] < case[1]}
        torch.save(found, Path(folder) / f"{rank}.pt")
    finally:
        dist.destroy_process_group()


def grid() -> dict[str, Any]:
    """Return the worst error of the grid: float64 and float32, one process and two; and the factor 1/W, seen."""
    truth: dict[str, list[Any]] = {}
    worst = {"float64": 0.0, "float32": 0.0, "two_processes": 0.0, "mean_over_processes": 1.0}
    for case in cases():
        for dtype in ("float32", "float64"):
            found, plain = one(case, getattr(torch, dtype))
            assert plain is not None
            worst[dtype] = max(worst[dtype], gradient_error(found, plain))
        assert plain is not None
        truth[json.dumps(case)] = plain
    with tempfile.TemporaryDirectory() as folder:
        mp.spawn(process, args=(folder,), nprocs=2, join=True)
        shared = 0
        for rank in range(2):
            for case_name, found in torch.load(Path(folder) / f"{rank}.pt", weights_only=True).items():
                shared += rank == 0
                worst["two_processes"] = max(worst["two_processes"], gradient_error(found, truth[case_name]))
                halved = [None if g is None else g / 2 for g in found]
                worst["mean_over_processes"] = min(
                    worst["mean_over_processes"], gradient_error(halved, truth[case_name])
                )
    return {"cases": len(truth), "cases_two_processes": shared, **worst, **rounded()}


def rounded() -> dict[str, float]:
    """Return errors under bf16 without dropout: the engine's beside those of two plain runs that divide otherwise."""
    tower = make(1, dropout=0.0, width=64, layers=2)
    batch, other = sentences(48, 24, 1), sentences(48, 24, 2)
    parameters = list(tower.parameters())

    def run(step: Any, chunk: int, autocast: torch.dtype | None) -> list[Any]:
        for p in parameters:
            p.grad = None
        step([tower] * 2, [batch, other], InfoNCE(), chunk=chunk, seed=0, autocast=autocast)
        return [p.grad.clone() for p in parameters if p.grad is not None]

    half = torch.bfloat16
    plain, otherwise, single = run(direct, 8, half), run(direct, 48, half), run(direct, 8, None)
    ours = run(divide_conquer, 8, half)
    return {
        "bf16_engine_against_plain_same_chunks": gradient_error(ours, plain),
        "bf16_engine_against_plain_one_chunk": gradient_error(ours, otherwise),
        "bf16_two_plain_runs": gradient_error(plain, otherwise),
        "bf16_plain_against_float32": gradient_error(plain, single),
    }


class Changed(nn.Module):
    """A tower whose input is changed before it is encoded."""

    def __init__(self, change: Callable[[Tensor], Tensor], norm: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.change = change
        between = nn.BatchNorm1d(12) if norm else nn.Identity()
        self.layers = nn.Sequential(nn.Linear(6, 12), between, nn.Tanh(), nn.Dropout(0.1), nn.Linear(12, 5)).double()

    def forward(self, batch: Tensor) -> Tensor:
        """Encode."""
        return functional.normalize(self.layers(self.change(batch)), dim=-1)


def mistakes() -> dict[str, dict[str, Any]]:
    """Plant each mistake; return how it was caught, and the error that it would have made where that is measured."""
    batch = torch.randn(32, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    numbers, calls = np.random.default_rng(0), itertools.count()

    def redraw(x: Tensor) -> Tensor:
        generator = torch.Generator().manual_seed(next(calls) // 8)
        return x + torch.randn(6, generator=generator, dtype=x.dtype)

    def half_in_graph(x: Tensor) -> Tensor:
        return x.bfloat16().double() if torch.is_grad_enabled() else x

    plain, norm = Changed(lambda x: x), Changed(lambda x: x, norm=True)
    masked = Changed(lambda x: x * torch.from_numpy(numbers.random(x.shape) > 0.1))
    nothing = mock.patch.object(sys.modules["cellingua.engine.step"], "set_random_state", return_value=None)
    found = {
        "random state not replayed": planted(plain, batch, nothing),
        "masks from numpy": planted(masked, batch),
        "a layer changes between the passes": planted(Changed(redraw), batch),
        "autocast in one pass only": planted(Changed(half_in_graph), batch),
        "BatchNorm in training mode": planted(norm, batch),
        "BatchNorm statistics, updated twice": planted(lambda x: norm(x), batch),
        "autocast around the step": planted(plain, batch, torch.autocast("cpu", torch.bfloat16)),
    }
    found["negatives inside a chunk only"] = separate(plain, batch)
    return found


def run_on(tower: Any, module: nn.Module, batch: Tensor, step: Any, objective: Any = None) -> list[Any]:
    """Return the gradients of a step of two views in chunks of 8."""
    torch.manual_seed(0)
    module.zero_grad()
    step([tower] * 2, [batch] * 2, objective or InfoNCE(), chunk=8, seed=0)
    return [p.grad.clone() for p in module.parameters() if p.grad is not None]


def planted(tower: Any, batch: Tensor, context: Any = None) -> dict[str, Any]:
    """Return whether the engine raised; and with its check taken out, how wrong the gradients would have been."""
    import contextlib

    module = tower if isinstance(tower, nn.Module) else tower.__closure__[0].cell_contents
    caught, error = "", None
    with context or contextlib.nullcontext():
        try:
            run_on(tower, module, batch, divide_conquer)
        except EngineError as refusal:
            caught = refusal.found.split(", ")[0].split(":")[0].split(" (")[0]
        if "second time" in caught:
            with mock.patch.object(sys.modules["cellingua.engine.divide_conquer"], "_check", return_value=None):
                wrong = run_on(tower, module, batch, divide_conquer)
            context = None
    if "second time" in caught:
        error = gradient_error(wrong, run_on(tower, module, batch, direct, plain_info_nce))
    return {"caught": bool(caught), "how": caught, "error_if_not": error}


def separate(tower: nn.Module, batch: Tensor) -> dict[str, Any]:
    """Return that the comparison sees a batch whose chunks were each a batch of their own."""
    true = run_on(tower, tower, batch, direct, plain_info_nce)
    tower.zero_grad()
    for start in range(0, len(batch), 8):
        part = batch[start : start + 8]
        divide_conquer([tower] * 2, [part] * 2, InfoNCE(), chunk=8, seed=start, scale=8 / len(batch))
    error = gradient_error([p.grad for p in tower.parameters()], true)
    return {"caught": error > 1e-9, "how": "the comparison with one graph", "error_if_not": error}


def main(arguments: list[str]) -> int:
    """Do what is asked for, and print it as JSON."""
    torch.set_num_threads(1)
    print(json.dumps(grid() if arguments == ["grid"] else mistakes()))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
