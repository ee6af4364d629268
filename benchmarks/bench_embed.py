"""Cells through LangCell's BERT tower at the paper's size, against a Hugging Face BertModel with the same weights.

    python -m benchmarks.bench_embed [--packages FOLDER] [--cells N] [--repeats N]

The weights are random (BERT's start, 0.02); the cells are the first of pbmc3k, in file order, as Geneformer V1's
tokens. The other side is `BertModel` in float32 with its default attention, in minibatches of 32 cells padded to
their longest, with an attention mask. Both use all threads, and take turns within one run; ratios are of neighbours.

Bars: bfloat16 at least 5 times the cells a second at a cosine of 0.999, float32 at least 1.5 times at 0.99999. A
processor without bfloat16 emulates it, which says nothing about speed: there the cosine is taken on a few cells and
the bar is missed. ``--packages`` is where transformers is.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from benchmarks.common import at_least, shared_folder, write_result
from cellingua.cells.counts import CountBlocks
from cellingua.cells.doctor import examine
from cellingua.cells.genes import load_vocabulary
from cellingua.cells.ranked import RankedCells, rank_tokens
from cellingua.cells.reading import open_cells
from cellingua.core.runtime import set_threads
from cellingua.models.convert import their_name
from cellingua.models.gene_dictionaries import V1_TABLE
from cellingua.models.gene_table import read_gene_table
from cellingua.nn.batch import CellBatch
from cellingua.nn.packing import PackedTower
from cellingua.nn.precision import choose
from cellingua.nn.transformer import CellTower, CellTowerConfig

SEED = 0
MINIBATCH = 32
SOME = 16  # cells for what is measured once and has no bar
FEW = 8  # the shortest of them, for a cosine in emulated arithmetic
SHORT = 100  # tokens of a cell of a small panel
TOGETHER = 4_096

Reader = Callable[[RankedCells], torch.Tensor]


def cells_of(path: Path, count: int) -> RankedCells:
    """Return the ranked tokens of the first `count` cells of a file, 2,047 each at most."""
    table = read_gene_table(V1_TABLE)
    tokens, medians = table.columns(load_vocabulary().ensembl_ids)
    with open_cells(path) as cells:
        block = next(iter(CountBlocks(cells, examine(cells)).blocks(count)))
        return rank_tokens(block.counts, tokens, medians, totals=block.totals, limit=2047)


def paper_tower() -> CellTower:
    """Return the cell tower at the paper's size with random weights."""
    torch.manual_seed(SEED)
    return CellTower(CellTowerConfig.paper()).eval().requires_grad_(False)


def their_tower(tower: CellTower) -> Any:
    """Return transformers' `BertModel` with the same weights."""
    from transformers import BertConfig, BertModel

    config = tower.config
    made = BertModel(
        BertConfig(
            vocab_size=config.vocabulary,
            hidden_size=config.width,
            num_hidden_layers=config.layers,
            num_attention_heads=config.heads,
            intermediate_size=config.feedforward,
            hidden_act=config.activation,
            max_position_embeddings=config.positions,
            type_vocab_size=config.segments,
            layer_norm_eps=config.eps,
            pad_token_id=0,
        ),
        add_pooling_layer=False,
    )
    made.load_state_dict({their_name(name): tensor for name, tensor in tower.state_dict().items()}, strict=True)
    return made.eval()


def what_they_are(model: Any) -> str:
    """Return the version and the attention of the other side."""
    import transformers

    return f"transformers {transformers.__version__}, {model.config._attn_implementation}"


def padded(model: Any) -> Reader:
    """Return what reads cells with `BertModel` in minibatches padded to their longest."""

    def read(ranked: RankedCells) -> torch.Tensor:
        out = []
        for start in range(0, len(ranked), MINIBATCH):
            part = ranked.take(np.arange(start, min(start + MINIBATCH, len(ranked))))
            tokens, mask = CellBatch.from_arrays(part.indptr, part.tokens).padded(2048, first=25_426)
            out.append(model(input_ids=tokens, attention_mask=mask.long()).last_hidden_state[:, 0].clone())
        return torch.cat(out)

    return read


def packed(tower: PackedTower, device: str = "cpu") -> Reader:
    """Return what reads cells without padding."""
    return lambda ranked: tower(CellBatch.from_arrays(ranked.indptr, ranked.tokens, device=device)).pooled.float()


def timed(read: Reader, ranked: RankedCells) -> tuple[float, torch.Tensor]:
    """Return wall seconds and the states."""
    start = time.perf_counter()
    out = read(ranked).cpu()
    return time.perf_counter() - start, out


def cosine(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    """Return the smallest cosine of two states of the same cell."""
    return float(functional.cosine_similarity(ours.double(), theirs.double()).min())


def same_nearest(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    """Return the share of cells whose nearest other cell is the same: with random weights, cells hardly differ."""
    nearest = []
    for states in (ours, theirs):
        unit = functional.normalize(states.double(), dim=1)
        nearest.append((unit @ unit.T).fill_diagonal_(-2).argmax(dim=1))
    return round(float((nearest[0] == nearest[1]).double().mean()), 4)


def likeness(ours: torch.Tensor, theirs: torch.Tensor) -> dict[str, Any]:
    """Return how near two readings of the same cells are."""
    return {"cosine": cosine(ours, theirs), "same_nearest": same_nearest(ours, theirs), "compared": len(ours)}


def take_turns(readers: dict[str, Reader], ranked: RankedCells, repeats: int) -> dict[str, Any]:
    """Return seconds of each turn, and the states of the last, of each reader."""
    warm = ranked.take(np.arange(min(2, len(ranked))))
    for read in readers.values():
        read(warm)
    seconds: dict[str, list[float]] = {name: [] for name in readers}
    states: dict[str, torch.Tensor] = {}
    for turn in range(repeats):
        for name, read in readers.items():
            spent, states[name] = timed(read, ranked)
            seconds[name].append(spent)
            print(f"  turn {turn + 1}: {name} {len(ranked) / spent:.2f} cells/s", flush=True)
    return {"seconds": seconds, "states": states}


def against(seconds: dict[str, list[float]], name: str, cells: int) -> dict[str, float]:
    """Return cells a second of a reader and its ratio to ``theirs``, neighbours in time."""
    ratios = [theirs / ours for ours, theirs in zip(seconds[name], seconds["theirs"], strict=True)]
    return {
        "cells_per_second": round(cells / statistics.median(seconds[name]), 3),
        "ratio": round(statistics.median(ratios), 2),
        "ratio_min": round(min(ratios), 2),
        "ratio_max": round(max(ratios), 2),
    }


def work(lengths: np.ndarray, config: CellTowerConfig) -> float:
    """Return the operations that the towers' matrix products need for cells of these lengths, padding not counted.

    The last layer needs the queries, the output and the feed-forward of ``<cls>`` alone.
    """
    width, wide = config.width, config.feedforward
    whole = 2 * lengths * (4 * width**2 + 2 * width * wide) + 4 * lengths**2 * width
    last = 2 * lengths * 2 * width**2 + 2 * (2 * width**2 + 2 * width * wide) + 4 * lengths * width
    return float((whole * (config.layers - 1) + last).sum())


def matmul_rate(device: str, dtype: torch.dtype, size: int) -> float:
    """Return operations a second of one large square matrix product: the peak that shares are given of."""
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    spent = []
    for _ in range(6):
        start = time.perf_counter()
        a @ b
        if device != "cpu":
            torch.cuda.synchronize()
        spent.append(time.perf_counter() - start)
    return 2 * size**3 / min(spent)


def once(readers: dict[str, Reader], ranked: RankedCells) -> dict[str, float]:
    """Return cells a second of each reader, the median of three turns over a few cells."""
    seconds = take_turns(readers, ranked, 3)["seconds"]
    return {name: round(len(ranked) / statistics.median(spent), 3) for name, spent in seconds.items()}


def on_gpu(tower: CellTower, ranked: RankedCells, exact: torch.Tensor) -> dict[str, Any]:
    """Return cells a second and the share of a matrix product's rate on a GPU, if there is one."""
    if not torch.cuda.is_available():
        return {"gpu": "none was there"}
    figures: dict[str, Any] = {"gpu": torch.cuda.get_device_name()}
    lengths, moved = np.diff(ranked.indptr) + 1, tower.to("cuda")
    for name, dtype in (("float32", torch.float32), ("bfloat16", torch.bfloat16)):
        read = packed(PackedTower(moved, name), "cuda")
        turns = take_turns({name: read}, ranked, 3)
        spent = statistics.median(turns["seconds"][name])
        figures[name] = {
            "cells_per_second": round(len(ranked) / spent, 1),
            "share_of_matmul": round(work(lengths, tower.config) / spent / matmul_rate("cuda", dtype, 8192), 3),
            **likeness(turns["states"][name], exact),
        }
    tower.to("cpu")
    return figures


def emulated(tower: CellTower, some: RankedCells, exact: torch.Tensor) -> dict[str, Any]:
    """Return how near bfloat16 is over the shortest of some cells, for a processor that emulates it."""
    rows = np.argsort(np.diff(some.indptr), kind="stable")[:FEW]
    return likeness(packed(PackedTower(tower, "bfloat16"))(some.take(rows)), exact[rows])


@torch.inference_mode()
def main() -> int:
    """Measure; exit 0 where the bars hold."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--packages", type=Path, help="folder that holds transformers")
    parser.add_argument("--cells", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    if args.packages is not None:
        sys.path.append(str(args.packages))
    threads = set_threads(None)
    path = shared_folder() / "data" / "cells" / "evaluation" / "pbmc3k.h5ad"
    ranked, tower = cells_of(path, args.cells), paper_tower()
    lengths = np.diff(ranked.indptr) + 1
    some = ranked.take(np.arange(min(SOME, len(ranked))))
    chosen = choose("auto", "cpu")
    hardware = chosen.name == "bfloat16"

    theirs = their_tower(tower)
    readers = {"theirs": padded(theirs), "float32": packed(PackedTower(tower))}
    if hardware:
        readers["bfloat16"] = packed(PackedTower(tower, "bfloat16"))
    turns = take_turns(readers, ranked, args.repeats)
    seconds, states = turns["seconds"], turns["states"]
    exact = states["theirs"]
    ours = {name: {**against(seconds, name, len(ranked)), **likeness(states[name], exact)} for name in readers}
    ours["theirs"] = {"cells_per_second": ours["theirs"]["cells_per_second"]}
    ours["float32"]["share_of_matmul"] = round(
        work(lengths, tower.config) / statistics.median(seconds["float32"]) / matmul_rate("cpu", torch.float32, 2048), 3
    )
    low = ours.get("bfloat16") or emulated(tower, some, exact)
    int8 = packed(PackedTower(tower, "int8"))
    cut = short_cells(some)
    plain = packed(PackedTower(tower))
    together = packed(PackedTower(tower, budget=TOGETHER))
    figures = {
        "cells": len(ranked),
        "median_tokens": float(np.median(lengths)),
        "padded_over_real": round(padding(lengths), 2),
        "threads": threads,
        "against": what_they_are(theirs),
        "bfloat16_here": chosen.reason,
        **ours,
        "bfloat16": low,
        "int8": {**likeness(int8(some), exact[: len(some)]), **once({"cells_per_second": int8}, some)},
        "alone_or_together": once({"alone": plain, "together": together}, some),
        f"alone_or_together_of_{SHORT}_tokens": once({"alone": plain, "together": together}, cut),
        "on_gpu": on_gpu(tower, ranked, exact),
    }
    bars = {
        "float32 ratio": at_least(ours["float32"]["ratio"], 1.5),
        "float32 cosine": at_least(ours["float32"]["cosine"], 0.99999),
        "bfloat16 ratio": at_least(low["ratio"], 5)
        if hardware
        else {"value": f"not measured: {chosen.reason}", "bar": ">= 5", "ok": False},
        "bfloat16 cosine": at_least(low["cosine"], 0.999),
    }
    return write_result("embed", figures, bars, seeds={"weights": SEED}, data=[path, V1_TABLE])


def padding(lengths: np.ndarray) -> float:
    """Return how many positions minibatches padded to their longest have, over how many there are."""
    parts = [lengths[start : start + MINIBATCH] for start in range(0, len(lengths), MINIBATCH)]
    return float(sum(len(part) * part.max() for part in parts) / lengths.sum())


def short_cells(ranked: RankedCells) -> RankedCells:
    """Return the cells cut to `SHORT` tokens."""
    cells = [ranked.cell(row)[: SHORT - 1] for row in range(len(ranked))]
    indptr = np.concatenate([[0], np.cumsum([len(cell) for cell in cells])]).astype(np.int64)
    return RankedCells(indptr, np.concatenate(cells), np.zeros(indptr[-1], np.float32))


if __name__ == "__main__":
    sys.exit(main())
