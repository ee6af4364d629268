"""The divide-and-conquer engine: gradients, memory, time, and GradCache's way as sentence-transformers has it.

    python -m benchmarks.bench_engine [--packages FOLDER]

Every measurement is a process of its own on one thread. Times are processor's seconds, which on one thread are
wall-clock seconds where nothing else runs; the wall clock's ratios stand beside them. ``--packages`` is where
sentence-transformers is, if it is not installed beside cellingua.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from benchmarks.common import write_result
from benchmarks.engine_tower import LEAN, WARM, child

GRADIENTS, MEASURES = "benchmarks.engine_gradients", "benchmarks.engine_measures"
AGAINST_ROWS, REPEATS = 1_024, 3


def at_most(value: float, bar: float) -> dict[str, Any]:
    """Return a bar that holds where `value` <= `bar`."""
    return {"value": value, "bar": f"<= {bar:g}", "ok": bool(value <= bar)}


def least_peak(what: str, rows: int, packages: Path | None) -> int:
    """Return the least of a few peaks: whatever else a process does can only add."""
    return min(child(MEASURES, what, rows, path=packages, **LEAN)["peak_bytes"] for _ in range(REPEATS))


def main() -> int:
    """Measure; exit 0 where all bars hold."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--packages", type=Path, help="folder that holds sentence-transformers")
    packages = parser.parse_args().packages
    grid, mistakes = child(GRADIENTS, "grid"), child(GRADIENTS, "mistakes")
    memory = {rows: child(MEASURES, "memory", rows, **LEAN) for rows in (64, 512, 4_096)}  # type: ignore[arg-type]
    times = child(MEASURES, "time", **WARM)  # type: ignore[arg-type]
    against = child(MEASURES, "time-st", path=packages, **WARM)
    peaks = {what: least_peak(what, AGAINST_ROWS, packages) for what in ("memory-ours", "memory-st")}
    growth = memory[4_096]["less_these_bytes"] / memory[64]["less_these_bytes"]
    bars = {
        "gradients, float64": at_most(grid["float64"], 1e-9),
        "gradients, two processes": at_most(grid["two_processes"], 1e-9),
        "gradients, float32": at_most(grid["float32"], 1e-4),
        "a mean over processes is seen": {
            "value": grid["mean_over_processes"],
            "bar": "> 1e-9",
            "ok": grid["mean_over_processes"] > 1e-9,
        },
        "mistakes caught": {
            "value": sum(planted["caught"] for planted in mistakes.values()),
            "bar": len(mistakes),
            "ok": all(planted["caught"] for planted in mistakes.values()),
        },
        "memory, 4,096 / 64": at_most(round(growth, 4), 1.15),
        "time, budget 0 / accumulation": at_most(times["budget_0_cpu_ratio"], 1.40),
        "time, budget for all / accumulation": at_most(times["budget_all_cpu_ratio"], 1.05),
        "time, budget 0 / sentence-transformers": at_most(against["budget_0_cpu_ratio"], 1.05),
        "time, half budget / sentence-transformers": at_most(against["budget_half_cpu_ratio"], 0.9),
        "memory / sentence-transformers": at_most(round(peaks["memory-ours"] / peaks["memory-st"], 4), 1.05),
        "same gradients as sentence-transformers": at_most(against["gradient_difference"], 1e-4),
    }
    figures = {
        **{f"gradients_{name}": value for name, value in grid.items()},
        **{f"memory_{rows}_{name}": value for rows, found in memory.items() for name, value in found.items()},
        **{f"time_{name}": value for name, value in times.items()},
        **{f"st_{name}": value for name, value in against.items()},
        "st_memory_rows": AGAINST_ROWS,
        "st_memory_ours_bytes": peaks["memory-ours"],
        "st_memory_theirs_bytes": peaks["memory-st"],
        "mistakes": mistakes,
    }
    return write_result("engine", figures, bars, seeds={"weights": 0, "tokens": 0})


if __name__ == "__main__":
    sys.exit(main())
