"""The figure of the CellLM paper, measured: batch size against the longest sequence that fits into a memory budget.

    python -m benchmarks.bench_figure [--size mini|paper] [--device cpu|cuda] [--budget-mib 128]

End to end is one graph over the batch (`engine.direct`), divide-and-conquer is `engine.divide_conquer` in chunks of 8,
budget 0; two dropout views, InfoNCE, one step. Every probe is a process of its own; on the CPU its peak is resident
memory above rest, on CUDA what torch allocated above rest. Lengths are multiples of 8, up to the longest that fits.
Writes benchmarks/results/figure.json and docs/batch_and_length.png.
"""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from benchmarks.common import ROOT, write_result
from benchmarks.engine_tower import LEAN, child, peak_above_rest

GENES, STEP, CHUNK = 4_096, 8, 8
SIZES: dict[str, dict[str, int]] = {
    "mini": {"genes": GENES, "width": 64, "layers": 2, "heads": 2, "head_width": 32, "features": 64, "ff_mult": 2},
    "paper": {"genes": 19_379},
}
BATCHES = {"mini": (8, 32, 128), "paper": (8, 32, 128, 512)}
HIGHEST = 65_536


def probe(size: str, device: str, method: str, rows: int, length: int) -> dict[str, Any]:
    """Return the peak of one step, in this process."""
    import torch
    from torch.nn import functional

    from cellingua.engine import InfoNCE, direct, divide_conquer
    from cellingua.nn.batch import BinnedBatch
    from cellingua.nn.performer import Performer, PerformerConfig

    torch.set_num_threads(1)
    torch.manual_seed(0)
    settings: dict[str, Any] = dict(SIZES[size])
    tower = Performer(PerformerConfig(**settings, dropout=0.1, logits=False)).to(device).train()
    tower.gene.requires_grad_(False)
    genes = torch.randint(0, settings["genes"], (rows, length), device=device)
    batch = BinnedBatch(torch.randint(0, 6, (rows, length), device=device), genes, genes >= 0)

    def encode(part: BinnedBatch) -> torch.Tensor:
        return functional.normalize(tower(part).cls, dim=-1)

    def step(part: BinnedBatch) -> None:
        run = direct if method == "direct" else divide_conquer
        run([encode] * 2, [part] * 2, InfoNCE(), chunk=CHUNK, seed=0)

    small = BinnedBatch(batch.tokens[:8, :8].clone(), genes[:8, :8].clone(), batch.mask[:8, :8].clone())
    if device == "cpu":
        return {"peak_bytes": peak_above_rest(lambda: step(small), lambda: step(batch))}
    step(small)
    rest = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    step(batch)
    return {"peak_bytes": torch.cuda.max_memory_allocated() - rest}


def longest(ask: Any, budget: int, guess: int | None) -> tuple[int, int]:
    """Return the longest length whose peak is within the budget, and that peak; 0 where none is.

    From two probes a line is drawn (memory is linear in length with random features), and its crossing is tried:
    downwards until it fits, upwards while it fits.
    """
    known: dict[int, int] = {}

    def peak(length: int) -> int:
        if length not in known:
            known[length] = ask(length)
        return known[length]

    if guess is None:
        low, high = STEP, 2 * STEP
        if peak(low) > budget:
            return 0, peak(low)
        while peak(high) < budget / 4 and high < HIGHEST:
            high *= 2
        slope = max(1.0, (peak(high) - peak(low)) / (high - low))
        guess = int((budget - peak(low)) / slope) + low
    length = max(STEP, min(HIGHEST, guess // STEP * STEP))
    while length > STEP and peak(length) > budget:
        length -= max(STEP, length // 40 // STEP * STEP)
    if peak(length) > budget:
        return 0, peak(length)
    while length < HIGHEST and length + max(STEP, length // 40 // STEP * STEP) not in known:
        if peak(length + max(STEP, length // 40 // STEP * STEP)) > budget:
            break
        length += max(STEP, length // 40 // STEP * STEP)
    return length, peak(length)


def draw(points: dict[str, dict[str, Any]], title: str) -> None:
    """Draw both curves into docs/."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6, 4), layout="constrained")
    for method, label, style in (("direct", "end to end", "o--"), ("divide_conquer", "divide and conquer", "s-")):
        found = [(p["batch"], p["longest"]) for p in points.values() if p["method"] == method and p["longest"]]
        axes.plot([b for b, _ in found], [length for _, length in found], style, label=label)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log", base=2)
    axes.set_xlabel("batch (cells, two views each)")
    axes.set_ylabel("longest sequence (tokens)")
    axes.set_title(title, fontsize=9)
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    figure.savefig(ROOT / "docs" / "batch_and_length.png", dpi=120)
    pyplot.close(figure)


def main() -> int:
    """Search every point, write the result and the figure; exit 0 where divide-and-conquer is never the shorter."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", choices=sorted(SIZES), default="mini")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--budget-mib", type=int, default=128)
    parser.add_argument("--probe", nargs=3, metavar=("METHOD", "BATCH", "LENGTH"), help="one measurement, as JSON")
    given = parser.parse_args()
    if given.probe:
        method, rows, length = given.probe
        print(json.dumps(probe(given.size, given.device, method, int(rows), int(length))))
        return 0
    budget = given.budget_mib << 20
    points: dict[str, dict[str, Any]] = {}
    for method in ("direct", "divide_conquer"):
        guess = None
        for rows in BATCHES[given.size]:

            def ask(length: int, method: str = method, rows: int = rows) -> int:
                settings = ("--size", given.size, "--device", given.device, "--probe", method, rows, length)
                found: int = child("benchmarks.bench_figure", *settings, **LEAN)["peak_bytes"]  # type: ignore[arg-type]
                return found

            length, peak = longest(ask, budget, guess)
            points[f"{method}, {rows}"] = {"method": method, "batch": rows, "longest": length, "peak_bytes": peak}
            print(f"{method}, batch {rows}: {length} tokens, {peak / 2**20:.0f} MiB", file=sys.stderr, flush=True)
            guess = length // 2 if method == "direct" else length
    draw(points, f"CellLM {given.size}, {given.budget_mib} MiB above rest, chunks of {CHUNK}, {given.device}")
    largest = BATCHES[given.size][-1]
    gain = points[f"divide_conquer, {largest}"]["longest"] / max(1, points[f"direct, {largest}"]["longest"])
    bars = {f"longer at batch {largest}": {"value": round(gain, 2), "bar": "> 1", "ok": gain > 1}}
    figures = {"size": given.size, "device": given.device, "budget_mib": given.budget_mib, "chunk": CHUNK}
    return write_result("figure", {**figures, "points": points}, bars, seeds={"weights": 0})


if __name__ == "__main__":
    sys.exit(main())
