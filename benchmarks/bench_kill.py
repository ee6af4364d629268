"""Thirty real kills (``kill -9``) at random instants: what is left is the run that was never killed, bit for bit.

A small net with dropout is trained on a corpus on disk, with a checkpoint every third step, so that many kills fall
into one being written. After the last kill the run goes on for some steps; its weights must equal those of an unbroken
run at the same step.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from benchmarks.common import Bars, write_result
from benchmarks.synthetic import write_file

KILLS, STEPS, EVERY, LONGEST, AFTER = 30, 1_000_000, 3, 0.8, 20


def train_until(corpus_folder: Path, folder: Path | None, stop: int, weights: Path | None) -> None:
    """Train (in this process) until step `stop`, and write the weights there."""
    import numpy as np
    import torch
    from safetensors.torch import save_file
    from torch import Tensor, nn

    from cellingua.cells.corpus import open_corpus
    from cellingua.cells.loader import Loader, LoaderConfig
    from cellingua.cells.sources import CellRows
    from cellingua.training.loop import TrainConfig, train
    from cellingua.training.optimise import OptimiseConfig

    torch.set_num_threads(1)
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(300, 64), nn.Dropout(0.2), nn.GELU(), nn.Linear(64, 300))

    def make(step: int, rows: CellRows) -> Tensor:
        return torch.from_numpy(np.log1p(rows.counts[:, :300].toarray()))

    with Loader(open_corpus(corpus_folder), LoaderConfig(64, 8), make) as loader:

        def losses_of(step: int) -> Mapping[str, Tensor]:
            if step == stop:
                raise KeyboardInterrupt
            cells = loader.draw(step)
            return {"error": (net(cells) - cells).square().mean()}

        config = TrainConfig(STEPS, 1, EVERY, OptimiseConfig(learning_rate=0.01, warmup=1e-6))
        print("ready", flush=True)
        try:
            train(net, losses_of, config, folder=folder)
        except KeyboardInterrupt:
            if weights is not None:
                save_file(net.state_dict(), weights)


def start(*words: object) -> subprocess.Popen[bytes]:
    """Start `train_until` in a process of its own, and return once it trains."""
    command = [sys.executable, "-m", "benchmarks.bench_kill", "--run", *map(str, words)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert process.stdout is not None
    if process.stdout.readline() != b"ready\n":
        raise SystemExit(f"the run did not start (exit code {process.wait()})")
    return process


def kill_once(corpus: Path, folder: Path, rng: random.Random) -> tuple[int, bool]:
    """Start, kill at a random instant, and return the step that is kept and whether a write was cut."""
    run = folder / "checkpoint" / "run.json"
    before = run.stat().st_mtime_ns if run.is_file() else 0
    process = start(corpus, folder, STEPS, "-")
    while (not run.is_file() or run.stat().st_mtime_ns == before) and process.poll() is None:
        time.sleep(0.002)
    time.sleep(rng.uniform(0, LONGEST))
    process.send_signal(signal.SIGKILL)
    if process.wait() != -signal.SIGKILL:
        raise SystemExit(f"the run ended by itself (exit code {process.returncode})")
    step = int(json.loads(run.read_text(encoding="utf-8"))["step"])
    return step, len(list((folder / "checkpoint").iterdir())) > 2


def equal_weights(one: Path, other: Path) -> bool:
    """Are all weights of two files the same, bit for bit?"""
    import torch
    from safetensors.torch import load_file

    left, right = load_file(one), load_file(other)
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def measure(folder: Path, kills: int, seed: int) -> int:
    """Kill, resume, compare; return the exit code."""
    from cellingua.cells.prepare import prepare_corpus

    write_file(folder / "cells.h5ad", 2_000, seed=0)
    prepare_corpus([folder / "cells.h5ad"], folder / "corpus")
    rng = random.Random(seed)
    reached, cut = [], 0
    for number in range(kills):
        step, was_cut = kill_once(folder / "corpus", folder / "run", rng)
        reached.append(step)
        cut += was_cut
        print(f"kill {number + 1}: step {step:,} is kept{', a write was cut' if was_cut else ''}", flush=True)
    stop = reached[-1] + AFTER
    for name, run in (("resumed", folder / "run"), ("unbroken", folder / "unbroken")):
        start(folder / "corpus", run, stop, folder / f"{name}.safetensors").wait()
    same = equal_weights(folder / "resumed.safetensors", folder / "unbroken.safetensors")
    onward = all(before < after for before, after in zip([0, *reached], reached, strict=False))
    figures = {"kills": kills, "steps_at_last_kill": reached[-1], "kills_that_cut_a_write": cut}
    bars: Bars = {
        "weights equal bit for bit": {"value": same, "bar": True, "ok": same},
        "every kill left a checkpoint further on": {"value": onward, "bar": True, "ok": onward},
        "kills": {"value": kills, "bar": f">= {KILLS}", "ok": kills >= KILLS},
    }
    return write_result("kill", figures, bars, seeds={"instants": seed})


def main() -> int:
    """Run the benchmark, or (``--run``) the process that is killed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=KILLS)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**31), help="of the instants")
    parser.add_argument("--folder", type=Path, help="for the files (default: a temporary one)")
    parser.add_argument("--run", nargs=4, metavar=("CORPUS", "FOLDER", "STOP", "WEIGHTS"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.run:
        corpus, folder, stop, weights = args.run
        train_until(Path(corpus), Path(folder), int(stop), None if weights == "-" else Path(weights))
        return 0
    folder = Path(tempfile.mkdtemp(dir=args.folder, prefix="bench-kill-"))
    try:
        return measure(folder, args.kills, args.seed)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
