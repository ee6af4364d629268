"""One measurement a process, for `bench_engine`: prints a line of JSON.

python -m benchmarks.engine_measures memory ROWS | memory-st ROWS | memory-ours ROWS | time | time-st
"""

from __future__ import annotations

import json
import math
import statistics
import sys
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.engine_tower import Tower, interleaved, make, peak_above_rest, sentences
from cellingua.engine import InfoNCE, StepResult, direct, divide_conquer, gradient_error

WIDTH, LENGTH, CHUNK = 128, 64, 64  # of the memory measurements
TIMED = {"width": 256, "rows": 128, "length": 64, "chunk": 16}
AGAINST = {"width": 256, "rows": 128, "length": 64, "chunk": 16}
AGAINST_LENGTH = 64


def memory(rows: int) -> dict[str, Any]:
    """Peak of one step at budget 0, two dropout views."""
    tower, batch = make(width=WIDTH), sentences(rows, LENGTH)

    def step(part: Tensor) -> None:
        divide_conquer([tower] * 2, [part] * 2, InfoNCE(), chunk=CHUNK, seed=0)

    small = batch[:CHUNK].clone()
    peak = peak_above_rest(lambda: step(small[:8]), lambda: step(batch))
    states = 2 * rows * WIDTH * 4
    return {
        "peak_bytes": peak,
        "representations_bytes": states,
        "their_gradients_bytes": states,
        "inputs_bytes": batch.nbytes,  # made before rest, so not in the peak
        "less_these_bytes": peak - 2 * states,
    }


def timing() -> dict[str, Any]:
    """Two dropout views: the engine against plain accumulation and against one graph."""
    rows, size = TIMED["rows"], TIMED["chunk"]
    tower, batch = make(width=TIMED["width"]), sentences(rows, TIMED["length"])

    def accumulation() -> None:
        for _ in range(2):
            for start in range(0, rows, size):
                states = tower(batch[start : start + size])
                (states * states.detach()).sum().backward()

    def engine(budget: float) -> Any:
        return divide_conquer([tower] * 2, [batch] * 2, InfoNCE(), chunk=size, seed=0, budget=budget)

    half = half_budget(engine(1e15))
    steps = {
        "accumulation": accumulation,
        "budget_0": lambda: engine(0),
        "budget_half": lambda: engine(half),
        "budget_all": lambda: engine(math.inf),
        "one_graph": lambda: direct([tower] * 2, [batch] * 2, InfoNCE(), chunk=size, seed=0),
    }
    taken = interleaved(steps, list(tower.parameters()), 9)
    return {"half_budget_bytes": half, **ratios(taken, "accumulation", rows), **TIMED}


def half_budget(found: StepResult) -> int:
    """Return the bytes that hold half the chunks, from a step that kept and measured all but the last."""
    return math.ceil(found.kept_bytes / (found.kept - 1) * found.chunks / 2)


def ratios(taken: dict[str, dict[str, list[float]]], base: str, rows: int) -> dict[str, Any]:
    """Return the median of each round's ratio to `base`, in processor's and wall-clock seconds, and ms a cell."""
    found: dict[str, Any] = {}
    for kind, times in taken.items():
        for name, seconds in times.items():
            if name != base:
                pairs = [a / b for a, b in zip(seconds, times[base], strict=True)]
                found[f"{name}_{kind}_ratio"] = round(statistics.median(pairs), 4)
            if kind == "cpu":
                found[f"{name}_ms_per_cell"] = round(1000 * statistics.median(seconds) / rows, 3)
    return {**found, "pairs": len(taken["cpu"][base])}


class Sentence(nn.Module):
    """The tower as sentence-transformers calls it."""

    def __init__(self, tower: Tower) -> None:
        super().__init__()
        self.tower = tower

    def forward(self, features: dict[str, Tensor], **_: Any) -> dict[str, Tensor]:
        """Encode."""
        return {**features, "sentence_embedding": self.tower(features["input_ids"])}


def cached_loss(tower: Tower, batch: Tensor, size: int) -> Any:
    """Return a step of CachedMultipleNegativesRankingLoss on two dropout views of a batch."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.losses import CachedMultipleNegativesRankingLoss

    model = SentenceTransformer(modules=[Sentence(tower)], device="cpu")
    model.train()
    loss = CachedMultipleNegativesRankingLoss(model, scale=20.0, mini_batch_size=size)
    return lambda: loss([{"input_ids": batch}, {"input_ids": batch}], None).backward()


def timing_st() -> dict[str, Any]:
    """The engine against CachedMultipleNegativesRankingLoss, which is asymmetric: anchors to positives."""
    rows, size = AGAINST["rows"], AGAINST["chunk"]
    tower, batch = make(width=AGAINST["width"]), sentences(rows, AGAINST["length"])
    theirs = cached_loss(tower, batch, size)

    def ours(budget: float) -> Any:
        objective = InfoNCE(0.05, symmetric=False)
        return divide_conquer([tower] * 2, [batch] * 2, objective, chunk=size, seed=0, budget=budget)

    tower.eval()  # without dropout both must find the same gradients
    found = []
    for step in (lambda: ours(0), theirs):
        tower.zero_grad()
        step()
        found.append([p.grad.clone() for p in tower.parameters() if p.grad is not None])
    tower.train()
    half = half_budget(ours(1e15))
    steps = {"theirs": theirs, "budget_0": lambda: ours(0), "budget_half": lambda: ours(half)}
    taken = interleaved(steps, list(tower.parameters()), 9)
    return {
        "gradient_difference": gradient_error(*found),
        "half_budget_bytes": half,
        "chunks": 2 * rows // size,
        "kept_at_half": ours(half).kept,
        **ratios(taken, "theirs", rows),
        **AGAINST,
    }


def memory_against(rows: int, theirs: bool) -> dict[str, Any]:
    """Peak of one step of theirs, or of ours at budget 0."""
    tower, batch = make(width=WIDTH), sentences(rows, AGAINST_LENGTH)

    def step(part: Tensor) -> None:
        if theirs:
            cached_loss(tower, part, CHUNK)()
        else:
            objective = InfoNCE(0.05, symmetric=False)
            divide_conquer([tower] * 2, [part] * 2, objective, chunk=CHUNK, seed=0)

    return {"peak_bytes": peak_above_rest(lambda: step(batch[:8].clone()), lambda: step(batch))}


def main(arguments: list[str]) -> int:
    """Do the one measurement that is asked for."""
    torch.set_num_threads(1)
    what, *rest = arguments
    if what == "memory":
        found = memory(int(rest[0]))
    elif what in ("memory-st", "memory-ours"):
        found = memory_against(int(rest[0]), what == "memory-st")
    else:
        found = {"time": timing, "time-st": timing_st}[what]()
    print(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
