"""A corpus larger than the memory limit: 20 GB of shards are prepared, and CellLM mini trains 100 steps on them.

Needs 45 GB of free disk (preparing takes twice the shards); with less it is skipped, and says so. Preparation and
training run as ``cellingua pretrain`` in processes of their own; their anonymous resident memory is read from the
system every 20 ms. Bar: training at most 4 GB; preparation is held to the same.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.common import write_result
from benchmarks.synthetic import write_file

GIGABYTE = 1_000_000_000
SIZE, FREE_FACTOR, FILE_CELLS, BYTES_PER_CELL, STEPS, MOST = 20.0, 2.25, 50_000, 7_500, 100, 4.0


def run(words: list[object]) -> tuple[float, float]:
    """Run ``cellingua``; return seconds and the peak of its anonymous resident memory in GB."""
    command = [sys.executable, "-m", "cellingua.cli.main", *map(str, words)]
    start, peak = time.perf_counter(), 0
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        while process.poll() is None:
            peak = max(peak, anonymous(process.pid))
            time.sleep(0.02)
    if process.returncode:
        raise SystemExit(f"cellingua {words[0]} ended with {process.returncode}")
    return time.perf_counter() - start, peak / GIGABYTE


def anonymous(pid: int) -> int:
    """Return the anonymous resident memory of a process in bytes."""
    try:
        with open(f"/proc/{pid}/status", encoding="ascii") as handle:
            return next((int(line.split()[1]) * 1024 for line in handle if line.startswith("RssAnon")), 0)
    except OSError:
        return 0


def measure(folder: Path, size: float, steps: int, config: Path | None) -> tuple[dict[str, Any], dict[str, Any]]:
    """Prepare and train; return figures and bars."""
    cells = int(size * GIGABYTE / BYTES_PER_CELL)
    per_file = min(FILE_CELLS, cells)
    write_file(folder / "cells.h5ad", per_file, seed=0)
    (folder / "files").mkdir()
    n_files = -(-cells // per_file)
    for number in range(n_files):  # one file under many names: read as often, and written once
        os.symlink(folder / "cells.h5ad", folder / "files" / f"part-{number:04d}.h5ad")
    common: list[object] = ["pretrain", "cellm", "-o", folder / "out"]
    labels = ["--label-columns", "disease", "cancer=disease"]
    prepared = [*common, "--corpus", folder / "files", "--prepared", folder / "corpus", *labels, "--prepare-only"]
    prepare_seconds, prepare_peak = run(prepared)
    shards = sum(path.stat().st_size for path in (folder / "corpus" / "shards").glob("*.bin"))
    chosen: list[object] = ["--config", config] if config else ["--preset", "cellm_mini"]
    train_seconds, train_peak = run([*common, "--corpus", folder / "corpus", *chosen, "--steps", steps])
    figures = {
        "shards_gb": round(shards / GIGABYTE, 2),
        "cells": n_files * per_file,
        "bytes_per_cell": round(shards / (n_files * per_file)),
        "prepare_seconds": round(prepare_seconds, 1),
        "prepare_cells_per_second": round(n_files * per_file / prepare_seconds),
        "prepare_peak_gb": round(prepare_peak, 2),
        "steps": steps,
        "train_seconds": round(train_seconds, 1),
        "train_peak_gb": round(train_peak, 2),
    }
    bars = {
        "shards_gb": {"value": figures["shards_gb"], "bar": f">= {SIZE:g}", "ok": figures["shards_gb"] >= SIZE},
        "steps": {"value": steps, "bar": f">= {STEPS}", "ok": steps >= STEPS},
    }
    for name in ("train_peak_gb", "prepare_peak_gb"):
        bars[name] = {"value": figures[name], "bar": f"<= {MOST:g}", "ok": 0 < figures[name] <= MOST}
    return figures, bars


def main() -> int:
    """Measure; exit 0 where the bars hold, or where there is no room to measure."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--size", type=float, default=SIZE, help="of the shards, in GB")
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--config", type=Path, help="a configuration of cellm instead of cellm_mini")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()), help="for the files")
    args = parser.parse_args()
    needed, free = args.size * FREE_FACTOR, shutil.disk_usage(args.folder).free / GIGABYTE
    if free < needed or not Path("/proc/self/status").is_file():
        why = (
            f"{free:.0f} GB are free in {args.folder}, and {needed:.0f} GB are needed" if free < needed else "no /proc"
        )
        print(f"bench-big is skipped: {why}.")
        return 0
    folder = Path(tempfile.mkdtemp(dir=args.folder, prefix="bench-big-"))
    try:
        figures, bars = measure(folder, args.size * 1.02, args.steps, args.config)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return write_result("big", figures, bars, seeds={"cells": 0})


if __name__ == "__main__":
    sys.exit(main())
