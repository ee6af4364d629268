"""CellLM's encoder: a released model through one weighted padding row against really padded cells.

Both sides read one cell of 1,500 expressed genes at a time, at the paper's width, on one core, interleaved; the cell
counts as padded to 6,000 tokens. The padded side is the released formula written out (`use_plain`); padded rows
through our own kernel stand beside it. Bars: at least 4 times its cells per second, states equal, the paper's
parameters. Cells per second of the modes in which a cell depends on itself alone are told, too.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch

from benchmarks.common import at_least, below, write_result
from cellingua.cells.binned import BinnedCells
from cellingua.nn.batch import BinnedBatch
from cellingua.nn.performer import Performer, PerformerConfig

GENES, EXPRESSED, LENGTH, PARAMETERS = 19_379, 1_500, 6_000, 51_926_536


def simulate(cells: int, seed: int) -> BinnedCells:
    """Return cells of 1,500 random genes in random bins."""
    rng = np.random.default_rng(seed)
    genes = np.concatenate([np.sort(rng.permutation(GENES)[:EXPRESSED]) for _ in range(cells)]).astype(np.int32)
    tokens = rng.integers(0, 6, cells * EXPRESSED).astype(np.int8)
    indptr = np.arange(cells + 1, dtype=np.int64) * EXPRESSED
    return BinnedCells(indptr, tokens, genes, np.zeros(cells, np.bool_))


def encoder(config: PerformerConfig) -> Performer:
    """Return an encoder with random weights."""
    torch.manual_seed(0)
    return Performer(config).requires_grad_(False).eval()


def timed(call: Callable[[], object]) -> float:
    """Return the seconds of one call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def padded_batch(batch: BinnedBatch, performer: Performer) -> BinnedBatch:
    """Return the batch with every padding row as a row of its own."""
    more = LENGTH - batch.tokens.shape[1]
    pad = torch.nn.functional.pad
    return BinnedBatch(
        pad(batch.tokens, (0, more), value=performer.config.mask_token),
        pad(batch.genes, (0, more), value=performer.config.genes + 1),
        pad(batch.mask, (0, more), value=False),
    )


def measure_compat(layers: int, pairs: int) -> dict[str, float]:
    """Return seconds a cell of the shortcut, of padded cells both ways, and how far the states are apart."""
    performer = encoder(PerformerConfig(GENES, layers=layers, attention="compat", padded_length=LENGTH))
    seconds: dict[str, list[float]] = {"shortcut": [], "padded": [], "padded_own_kernel": []}
    apart = 0.0
    for number in range(pairs + 1):
        batch = performer.batch(simulate(1, number))
        long = padded_batch(batch, performer)
        states: dict[str, torch.Tensor] = {}

        def run(kind: str, held: BinnedBatch, into: dict[str, torch.Tensor] = states) -> None:
            into[kind] = performer.use_plain(kind == "padded")(held).hidden

        for kind, held in (("shortcut", batch), ("padded", batch), ("padded_own_kernel", long)):
            spent = timed(lambda kind=kind, held=held, run=run: run(kind, held))  # type: ignore[misc]
            if number:  # the first pair warms up
                seconds[kind].append(spent)
        apart = max(apart, float((states["shortcut"] - states["padded"]).abs().max()))
    ratios = [b / a for a, b in zip(seconds["shortcut"], seconds["padded"], strict=True)]
    own = [b / a for a, b in zip(seconds["shortcut"], seconds["padded_own_kernel"], strict=True)]
    return {
        **{f"seconds_{kind}": statistics.median(spent) for kind, spent in seconds.items()},
        "ratio_median": statistics.median(ratios),
        "ratio_min": min(ratios),
        "ratio_max": max(ratios),
        "ratio_own_kernel": statistics.median(own),
        "apart": apart,
    }


def cells_per_second(config: PerformerConfig, cells: int, batch_size: int) -> float:
    """Return cells per second of inference in minibatches."""
    performer, binned = encoder(config), simulate(cells, 99)
    batches = [
        performer.batch(binned.take(np.arange(start, min(start + batch_size, cells))))
        for start in range(0, cells, batch_size)
    ]
    performer(batches[0])
    return cells / timed(lambda: [performer(batch) for batch in batches])


def main() -> int:
    """Measure; exit 0 where the bars hold."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--layers", type=int, default=10, help="layers of both sides (default: the paper's 10)")
    parser.add_argument("--pairs", type=int, default=5, help="interleaved pairs (default: 5)")
    args = parser.parse_args()
    torch.set_num_threads(1)
    with torch.device("meta"):
        parameters = sum(p.numel() for p in Performer(PerformerConfig.paper()).parameters())
    with torch.inference_mode():
        compat = measure_compat(args.layers, args.pairs)
        paper = PerformerConfig(GENES, layers=args.layers)
        mini = PerformerConfig(GENES, width=128, layers=2, heads=4, head_width=32, features=110, ff_mult=2)
        speed = {
            "favor_cells_per_second": cells_per_second(paper, 4, 1),
            "exact_cells_per_second": cells_per_second(replace(paper, attention="exact"), 4, 1),
            "mini_favor_cells_per_second": cells_per_second(mini, 64, 8),
        }
    figures = {
        "width": 512,
        "layers": args.layers,
        "genes_per_cell": EXPRESSED,
        "padded_length": LENGTH,
        "threads": 1,
        "parameters": parameters,
        "pairs": args.pairs,
        "shortcut_cells_per_second": round(1 / compat["seconds_shortcut"], 3),
        "padded_cells_per_second": round(1 / compat["seconds_padded"], 3),
        "padded_own_kernel_cells_per_second": round(1 / compat["seconds_padded_own_kernel"], 3),
        **{key: round(compat[key], 2) for key in ("ratio_median", "ratio_min", "ratio_max", "ratio_own_kernel")},
        "largest_difference_of_states": compat["apart"],
        **{key: round(value, 3) for key, value in speed.items()},
    }
    bars = {
        "shortcut against padded": at_least(figures["ratio_median"], 4.0),
        "states apart": below(compat["apart"], 1e-4),
        "parameters": {"value": parameters, "bar": PARAMETERS, "ok": parameters == PARAMETERS},
    }
    return write_result("cellm", figures, bars, seeds={"weights": 0, "cells": 0})


if __name__ == "__main__":
    sys.exit(main())
