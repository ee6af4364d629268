"""Random-block reading from disk: our shards, the same h5ad by anndata in backed mode, and by scDataset, in one run.

All three draw minibatches of 256 cells in random blocks of 16 neighbours on one thread, and the page cache is emptied
of the file before each round (where the system lets us). anndata and scDataset return rows of the file's own columns;
ours return counts on the vocabulary, with totals and labels. Bars: at least 10 times anndata's backed mode, not below
scDataset, and at least 5 times what the CellLM mini encoder takes.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import torch

from benchmarks.common import at_least, write_result
from benchmarks.synthetic import write_file
from cellingua.cells.corpus import Corpus
from cellingua.cells.loader import Loader, LoaderConfig
from cellingua.cells.prepare import CorpusConfig, prepare_corpus

CELLS, BATCH, BLOCK, ROUNDS = 40_000, 256, 16, 5
DRAWN = 8192  # cells of a round and way: two fetches of scDataset at its own fetch factor of 16


def forget(paths: list[Path]) -> bool:
    """Drop files from the page cache; return whether that can be asked for here."""
    if not hasattr(os, "posix_fadvise"):
        return False
    for path in paths:
        with open(path, "rb") as handle:
            os.fsync(handle.fileno())
            os.posix_fadvise(handle.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return True


def rate(batches: Iterator[int], cells: int) -> float:
    """Return the cells a second of an iterator over minibatch sizes, until `cells` are drawn."""
    start, drawn = time.perf_counter(), 0
    while drawn < cells:
        drawn += next(batches)
    return drawn / (time.perf_counter() - start)


def by_shards(corpus: Corpus, seed: int) -> Iterator[int]:
    """Draw from shards, without the thread that reads ahead."""
    loader: Loader[int] = Loader(
        corpus, LoaderConfig(BATCH, BLOCK, seed), lambda step, rows: rows.counts.shape[0], ahead=0
    )
    yield from (loader.draw(step) for step in range(10**9))


def by_anndata(path: Path, seed: int) -> Iterator[int]:
    """Draw from the file in backed mode: the rows of a minibatch sorted, as it wants them."""
    rng = np.random.default_rng(seed)
    adata = anndata.read_h5ad(path, backed="r")
    try:
        while True:
            starts = rng.choice(adata.n_obs // BLOCK, BATCH // BLOCK, replace=False) * BLOCK
            rows = np.sort((starts[:, None] + np.arange(BLOCK)).ravel())
            yield adata[rows].X[:].shape[0]
    finally:
        adata.file.close()


def by_scdataset(path: Path, seed: int) -> Iterator[int]:
    """Draw by scDataset over the file in backed mode, at its own fetch factor."""
    from scdataset import BlockShuffling, scDataset

    adata = anndata.read_h5ad(path, backed="r")
    drawn = scDataset(
        adata,
        BlockShuffling(block_size=BLOCK),
        batch_size=BATCH,
        fetch_callback=lambda held, rows: held[np.asarray(rows)].X[:],
        rank=0,
        world_size=1,
        seed=seed,
    )
    try:
        while True:
            yield from (batch.shape[0] for batch in drawn)
    finally:
        adata.file.close()


def encoder_rate(corpus: Corpus) -> dict[str, float] | None:
    """Return cells a second of the CellLM mini encoder, without graph and in training; None where there is none."""
    try:
        from cellingua.cells.binned import bin_cells
        from cellingua.core.config import from_dict
        from cellingua.models.cellm import CellLMModule
        from cellingua.nn.batch import BinnedBatch
        from cellingua.recipes.cellm import CellLMRecipeConfig
    except ImportError:
        return None
    preset = files("cellingua") / "data" / "recipes" / "cellm_mini.json"
    config = from_dict(CellLMRecipeConfig, json.loads(preset.read_text(encoding="utf-8")))
    torch.manual_seed(0)
    module = CellLMModule(config.model()).eval()
    rows = corpus.read(np.arange(32))
    genes = np.argsort(-np.asarray(rows.counts.sum(axis=0)).ravel())[: config.encoder.genes]
    counts = rows.counts[:, np.sort(genes)]
    batch = BinnedBatch.from_cells(
        bin_cells(counts, rows.totals, config.bins), config.encoder.genes, torch.device("cpu")
    )

    def forward() -> Iterator[int]:
        with torch.inference_mode():
            while True:
                module.performer(batch)
                yield 32

    def both() -> Iterator[int]:
        while True:
            module.performer(batch).cls.square().sum().backward()
            yield 32

    return {"forward": rate(forward(), 1024), "forward_and_backward": rate(both(), 512)}


def measure(folder: Path, cells: int, drawn: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Write, prepare, and measure in interleaved rounds; return figures and bars."""
    path = folder / "cells.h5ad"
    write_file(path, cells, seed=0)
    start = time.perf_counter()
    corpus = prepare_corpus([path], folder / "corpus", CorpusConfig(("cancer=disease",)))
    prepared = time.perf_counter() - start
    shards = sorted((folder / "corpus" / "shards").glob("*.bin"))
    ways: dict[str, tuple[Callable[[int], Iterator[int]], list[Path]]] = {
        "shards": (lambda seed: by_shards(corpus, seed), shards),
        "anndata_backed": (lambda seed: by_anndata(path, seed), [path]),
    }
    try:
        import scdataset  # noqa: F401

        ways["scdataset"] = (lambda seed: by_scdataset(path, seed), [path])
    except ImportError:
        print("scDataset is not installed: not compared.", file=sys.stderr)
    rates: dict[str, list[float]] = {name: [] for name in ways}
    cold = True
    for number in range(ROUNDS):
        for name, (way, paths) in ways.items():
            cold = forget(paths) and cold
            rates[name].append(rate(way(number), drawn))
    size = sum(shard.stat().st_size for shard in shards)
    figures: dict[str, Any] = {
        "cells": cells,
        "genes_per_cell": round(corpus.index["values"] / cells, 1),
        "page_cache_emptied": cold,
        "h5ad_bytes_per_cell": round(path.stat().st_size / cells, 1),
        "shard_bytes_per_cell": round(size / cells, 1),
        "prepare_cells_per_second": round(cells / prepared),
        "cells_per_round": drawn,
        "rounds": ROUNDS,
    }
    figures |= {f"{name}_cells_per_second": round(statistics.median(found)) for name, found in rates.items()}
    bars = {}
    for name, bar in (("anndata_backed", 10.0), ("scdataset", 1.0)):
        if name in rates:
            ratios = [ours / theirs for ours, theirs in zip(rates["shards"], rates[name], strict=True)]
            figures |= {f"ratio_to_{name}_min": round(min(ratios), 2), f"ratio_to_{name}_max": round(max(ratios), 2)}
            bars[f"ratio_to_{name}"] = at_least(round(statistics.median(ratios), 2), bar)
    encoder = encoder_rate(corpus)
    if encoder is not None:
        figures |= {f"encoder_{name}_cells_per_second": round(value) for name, value in encoder.items()}
        bars["ratio_to_encoder"] = at_least(round(statistics.median(rates["shards"]) / encoder["forward"], 2), 5.0)
    figures["scale"] = {f"{millions} million cells": scale(millions * 1_000_000, figures) for millions in (2, 27)}
    return figures, bars


def scale(cells: int, figures: dict[str, Any]) -> dict[str, float]:
    """Return what a corpus of so many cells needs at the rates measured here, on one thread."""
    hours = {
        "prepare_hours": figures["prepare_cells_per_second"],
        "epoch_hours_reading_alone": figures["shards_cells_per_second"],
        "epoch_hours_of_cellm_mini": figures.get("encoder_forward_and_backward_cells_per_second"),
    }
    found = {
        "shards_gb": round(cells * figures["shard_bytes_per_cell"] / 1e9, 1),
        "gb_while_preparing": round(2 * cells * figures["shard_bytes_per_cell"] / 1e9, 1),
    }
    return found | {name: round(cells / rate / 3600, 2) for name, rate in hours.items() if rate}


def main() -> int:
    """Measure; exit 0 where the bars hold."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--cells", type=int, default=CELLS)
    parser.add_argument("--drawn", type=int, default=DRAWN, help="cells of a round and way")
    parser.add_argument("--folder", type=Path, help="for the files (default: a temporary one)")
    args = parser.parse_args()
    torch.set_num_threads(1)
    folder = Path(tempfile.mkdtemp(dir=args.folder, prefix="bench-loader-"))
    try:
        figures, bars = measure(folder, args.cells, args.drawn)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return write_result("loader", figures, bars, seeds={"cells": 0})


if __name__ == "__main__":
    sys.exit(main())
