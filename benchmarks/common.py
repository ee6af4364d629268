"""What every benchmark shares: where the data lie, hashes, a table on the screen, and one JSON of a fixed form.

Run benchmarks as modules from the repository's root: ``python -m benchmarks.bench_NAME``.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from cellingua.core.files import sha256_file, write_json
from cellingua.core.runtime import hardware, versions

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
PACKAGES = ("anndata", "numpy", "scipy", "torch", "scanpy", "scikit-learn", "scDataset")

Bars = Mapping[str, Mapping[str, Any]]


def shared_folder() -> Path:
    """Return the folder of shared data: ``$CELLINGUA_SHARED``, or ``shared`` beside the checkout.

    Exits with code 2 and says what to do where there is none.
    """
    named = os.environ.get("CELLINGUA_SHARED")
    folder = Path(named) if named else ROOT.parent / "shared"
    if not (folder / "data").is_dir():
        print(
            f"The shared data folder was not found at {folder}.\n"
            "Set CELLINGUA_SHARED to the folder that holds data/cells, or put it beside the checkout as 'shared'.",
            file=sys.stderr,
        )
        raise SystemExit(2)
    return folder


def at_least(value: float, bar: float) -> dict[str, Any]:
    """Return a bar that holds where `value` >= `bar`."""
    return {"value": value, "bar": f">= {bar:g}", "ok": bool(value >= bar)}


def below(value: float, bar: float) -> dict[str, Any]:
    """Return a bar that holds where `value` < `bar`."""
    return {"value": value, "bar": f"< {bar:g}", "ok": bool(value < bar)}


def write_result(
    name: str,
    figures: Mapping[str, Any],
    bars: Bars,
    *,
    seeds: Mapping[str, int] | None = None,
    data: Iterable[Path] = (),
) -> int:
    """Print a table, write ``benchmarks/results/NAME.json``, and return the exit code: 0 where all bars hold, else 1.

    Parameters
    ----------
    figures
        What was measured.
    bars
        Name -> ``{"value", "bar", "ok"}``, as `at_least` and `below` make.
    seeds
        Name -> seed.
    data
        Files that were read; their SHA-256 are written.
    """
    ok = all(bar["ok"] for bar in bars.values())
    result = {
        "name": name,
        "ok": ok,
        "bars": {key: dict(bar) for key, bar in bars.items()},
        "figures": dict(figures),
        "seeds": dict(seeds or {}),
        "data": {path.name: sha256_file(path) for path in data},
        "versions": versions(PACKAGES),
        "hardware": {**hardware(), "usable_cores": usable_cores()},
    }
    RESULTS.mkdir(parents=True, exist_ok=True)
    write_json(RESULTS / f"{name}.json", result)
    print_table(name, figures, bars)
    return 0 if ok else 1


def usable_cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)


def print_table(name: str, figures: Mapping[str, Any], bars: Bars) -> None:
    """Print figures, then bars with whether they hold."""
    flat = {key: value for key, value in figures.items() if not isinstance(value, (dict, list))}
    width = max((len(key) for key in [*flat, *bars]), default=0)
    print(f"\n{name}")
    for key, value in flat.items():
        print(f"  {key:<{width}}  {value}")
    print("  bars")
    for key, bar in bars.items():
        print(f"  {key:<{width}}  {bar['value']}  (bar: {bar['bar']})  {'holds' if bar['ok'] else 'MISSED'}")
