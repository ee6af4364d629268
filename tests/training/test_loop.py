"""The one training loop: it learns, and a run that was stopped anywhere does what an unbroken run does."""

from __future__ import annotations

import json
import math
import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from cellingua.core.errors import CellinguaError, ConfigError, ModelError
from cellingua.training.loop import TrainConfig, train
from cellingua.training.optimise import OptimiseConfig, make_optimiser, rate_at

STEPS = 24
CONFIG = TrainConfig(STEPS, seed=3, checkpoint_every=5, optimise=OptimiseConfig(learning_rate=0.02))


class Task:
    """A regression with dropout, so that a step draws from torch's generator as well as from its own."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.module = nn.Sequential(nn.Linear(6, 16), nn.Dropout(0.2), nn.Tanh(), nn.Linear(16, 1))
        self.seen: list[int] = []
        self.losses: list[float] = []
        self.stop_at: int | None = None

    def losses_of(self, step: int) -> Mapping[str, Tensor]:
        if step == self.stop_at:
            raise KeyboardInterrupt
        inputs = torch.randn(32, 6, generator=torch.Generator().manual_seed(step))
        found = self.module(inputs)
        loss = functional.mse_loss(found, inputs[:, :1] - inputs[:, 1:2])
        self.seen.append(step)
        self.losses.append(float(loss.detach()))
        return {"error": loss, "size": 1e-3 * found.square().mean()}

    def train(self, config: TrainConfig = CONFIG, folder: Path | None = None, **run: object) -> Task:
        train(self.module, self.losses_of, config, folder=folder, run=run)
        return self


def assert_same(one: nn.Module, two: nn.Module) -> None:
    """Every weight equals the other's bit for bit."""
    for (name, left), right in zip(one.state_dict().items(), two.state_dict().values(), strict=True):
        assert torch.equal(left, right), name


def test_loss_falls() -> None:
    task = Task().train(replace(CONFIG, steps=120))
    assert sum(task.losses[-10:]) < 0.3 * sum(task.losses[:10])
    assert not task.module.training


def test_the_seed_matters_and_the_folder_does_not(tmp_path: Path) -> None:
    plain = Task().train()
    assert_same(plain.module, Task().train(folder=tmp_path).module)
    other = Task().train(replace(CONFIG, seed=4))
    assert not torch.equal(plain.module[0].weight, other.module[0].weight)


@pytest.mark.parametrize("stop", [0, 1, 5, 7, 20, 23])
def test_stopped_and_resumed_is_an_unbroken_run(tmp_path: Path, stop: int) -> None:
    broken = Task()
    broken.stop_at = stop
    with pytest.raises(KeyboardInterrupt):
        broken.train(folder=tmp_path)
    assert not broken.module.training
    resumed = Task().train(folder=tmp_path)
    assert resumed.seen == list(range(stop // 5 * 5, STEPS))
    assert_same(resumed.module, Task().train().module)


def test_a_finished_run_is_not_trained_again(tmp_path: Path) -> None:
    done = Task().train(folder=tmp_path)
    again = Task().train(folder=tmp_path)
    assert again.seen == []
    assert_same(again.module, done.module)


#: Waits for a line, lets a copy of itself train, says its number and how it ended. Copies are made before torch has
#: computed anything, and importing torch takes longer than all the training.
KILLED = """
    import os, sys
    from pathlib import Path
    from dataclasses import replace
    sys.path.insert(0, sys.argv[1])
    import torch, test_loop
    torch.set_num_threads(1)
    torch.optim.AdamW(torch.nn.Linear(1, 1).parameters())  # torch imports much when it makes its first optimiser
    for line in sys.stdin:
        copy = os.fork()
        if copy == 0:
            config = replace(test_loop.CONFIG, steps=int(sys.argv[3]), checkpoint_every=1)
            test_loop.Task().train(config, folder=Path(sys.argv[2]))
            os._exit(0)
        print(copy, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(copy, 0)[1]), flush=True)
"""


def start_and_kill(process: subprocess.Popen[str], folder: Path) -> int:
    """Start the run in another process, kill it at a random instant, and return the steps that are kept."""
    assert process.stdin is not None
    assert process.stdout is not None
    run = folder / "checkpoint" / "run.json"
    before = run.stat().st_mtime_ns if run.is_file() else 0
    process.stdin.write("go\n")
    process.stdin.flush()
    trains = int(process.stdout.readline())
    while not run.is_file() or run.stat().st_mtime_ns == before:
        os.kill(trains, 0)  # raises where it is gone
        time.sleep(0.002)
    time.sleep(random.SystemRandom().uniform(0, 0.1))
    os.kill(trains, signal.SIGKILL)
    assert int(process.stdout.readline()) == -signal.SIGKILL
    return int(json.loads(run.read_text())["step"])


def test_killed_at_any_instants_and_resumed_is_an_unbroken_run(tmp_path: Path) -> None:
    # Each step writes a checkpoint, so nearly every instant lies inside of one being written.
    steps = 5000
    command = [sys.executable, "-c", textwrap.dedent(KILLED), str(Path(__file__).parent), str(tmp_path), str(steps)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, env=environment, **pipes) as process:
        reached = [start_and_kill(process, tmp_path) for _ in range(3)]
        process.stdin.close()
    assert 0 < reached[0] < reached[1] < reached[2] < steps
    config = replace(CONFIG, steps=steps, checkpoint_every=1)
    resumed, unbroken = Task(), Task()
    resumed.stop_at = unbroken.stop_at = reached[2] + 3
    for task, folder in ((resumed, tmp_path), (unbroken, None)):
        with pytest.raises(KeyboardInterrupt):
            task.train(config, folder=folder)
    assert resumed.seen == [reached[2], reached[2] + 1, reached[2] + 2]
    assert_same(resumed.module, unbroken.module)
    assert sorted(path.suffix for path in (tmp_path / "checkpoint").iterdir()) == [".json", ".safetensors"]
    logged = [json.loads(line)["step"] for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert logged == list(range(0, reached[2] + 3, 10))


def test_a_kill_before_the_new_checkpoint_takes_over_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        """Stands for the process ending here."""

    def die(path: Path, value: Mapping[str, object]) -> None:
        raise Killed

    broken = Task()
    broken.stop_at = 7
    with pytest.raises(KeyboardInterrupt):
        broken.train(folder=tmp_path)
    monkeypatch.setattr("cellingua.training.checkpoint.write_json", die)
    with pytest.raises(Killed):
        Task().train(folder=tmp_path)
    monkeypatch.undo()
    resumed = Task().train(folder=tmp_path)
    assert resumed.seen[0] == 5
    assert_same(resumed.module, Task().train().module)


@pytest.mark.parametrize(
    ("config", "run", "key"),
    [
        (replace(CONFIG, seed=4), {"cells": 5}, "train.seed = 3"),
        (replace(CONFIG, optimise=OptimiseConfig(learning_rate=0.5)), {"cells": 5}, "learning_rate = 0.02"),
        (CONFIG, {"cells": 6}, "cells = 5"),
        (CONFIG, {}, "cells = 5"),
        (CONFIG, {"cells": 5, "genes": 7}, "genes = None"),
    ],
)
def test_another_configuration_is_refused(tmp_path: Path, config: TrainConfig, run: dict, key: str) -> None:
    Task().train(replace(CONFIG, steps=STEPS), tmp_path, cells=5)
    task = Task()
    with pytest.raises(ConfigError, match=key):
        task.train(config, tmp_path, **run)
    assert task.seen == []
    assert_same(task.module, Task().module)


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("damage", ["flipped", "cut", "lost", "json", "keys", "list", "module"])
def test_a_damaged_checkpoint_is_refused(tmp_path: Path, damage: str) -> None:
    Task().train(folder=tmp_path)
    state, run = tmp_path / "checkpoint" / f"step-{STEPS}.safetensors", tmp_path / "checkpoint" / "run.json"
    again = Task()
    if damage == "flipped":
        _flip(state)
    elif damage == "cut":
        state.write_bytes(state.read_bytes()[:-10])
    elif damage == "lost":
        state.unlink()
    elif damage == "json":
        run.write_text("{")
    elif damage == "keys":
        run.write_text('{"step": 24}')
    elif damage == "list":
        run.write_text("[]")
    else:
        again.module = nn.Sequential(nn.Linear(6, 1))
    with pytest.raises(ModelError, match="checkpoint"):
        again.train(folder=tmp_path)
    assert again.seen == []


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_stops_the_run(tmp_path: Path, bad: float) -> None:
    task = Task()
    good = task.losses_of

    def losses_of(step: int) -> Mapping[str, Tensor]:
        losses = good(step)
        return {**losses, "error": losses["error"] * bad} if step == 12 else losses

    with pytest.raises(CellinguaError, match="loss of step 12 is not finite"):
        train(task.module, losses_of, CONFIG, folder=tmp_path)
    assert json.loads((tmp_path / "checkpoint" / "run.json").read_text())["step"] == 10
    assert_same(Task().train(folder=tmp_path).module, Task().train().module)


def test_a_gradient_that_is_not_finite_moves_nothing() -> None:
    # The square root has a finite value at 0 and an infinite slope there.
    module = nn.Linear(2, 1)
    before = [weight.detach().clone() for weight in module.parameters()]

    def losses_of(step: int) -> Mapping[str, Tensor]:
        return {"root": (module(torch.ones(1, 2)) * 0).sqrt().sum()}

    with pytest.raises(CellinguaError, match="gradient of step 0 is not finite"):
        train(module, losses_of, CONFIG)
    assert all(torch.equal(was, now) for was, now in zip(before, module.parameters(), strict=True))


def test_the_log_names_every_loss(tmp_path: Path) -> None:
    Task().train(folder=tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [0, 10, 20]
    assert all({"error", "size", "gradient_norm", "learning_rate"} <= set(line) for line in lines)
    assert [line["learning_rate"] for line in lines] == [rate_at(s, STEPS, CONFIG.optimise) for s in (0, 10, 20)]


def test_matrices_decay_and_vectors_do_not() -> None:
    module = nn.Linear(3, 2)
    frozen = nn.Linear(3, 2).requires_grad_(False)
    optimiser = make_optimiser([*module.parameters(), *frozen.parameters()], OptimiseConfig(weight_decay=0.1))
    decays = {id(p): group["weight_decay"] for group in optimiser.param_groups for p in group["params"]}
    assert decays == {id(module.weight): 0.1, id(module.bias): 0.0}


@given(steps=st.integers(1, 500), warmup=st.floats(0, 1), peak=st.floats(1e-6, 1))
def test_the_rate_rises_then_falls_to_zero(steps: int, warmup: float, peak: float) -> None:
    config = OptimiseConfig(learning_rate=peak, warmup=warmup)
    rates = [rate_at(step, steps, config) for step in range(steps + 1)]
    rising = max(1, round(warmup * steps))
    assert all(0 < rate <= peak * (1 + 1e-12) for rate in rates[:steps])
    assert rates[rising - 1] == pytest.approx(peak)
    assert all(before < after for before, after in pairwise(rates[:rising]))
    assert all(before >= after for before, after in pairwise(rates[rising:]))
    if rising < steps:
        assert rates[steps] == pytest.approx(0, abs=1e-9)


def test_the_rate_at_known_steps() -> None:
    config = OptimiseConfig(learning_rate=1.0, warmup=0.2)
    assert [rate_at(step, 10, config) for step in (0, 1, 2, 6, 10)] == pytest.approx([0.5, 1, 1, 0.5, 0])
