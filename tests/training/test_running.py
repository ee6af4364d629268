"""What a run does besides learning: signals, a full disk, validation, logs, precision, its own backward pass."""

from __future__ import annotations

import json
import math
import os
import resource
import shutil
import signal
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from test_loop import CONFIG, STEPS, Task, assert_same
from torch import nn

from cellingua.core.errors import CellinguaError, ConfigError, OutputError
from cellingua.core.progress import Console
from cellingua.training.loop import TrainConfig, Watch, train
from cellingua.training.place import OneProcess, PlaceConfig, make_place


def signalled(task: Task, number: int, at: int, times: int = 1) -> Task:
    """Let the process get a signal in the middle of step `at`."""
    good = task.losses_of

    def losses_of(step: int) -> Mapping[str, torch.Tensor]:
        if step == at:
            for _ in range(times):
                os.kill(os.getpid(), number)
        return good(step)

    task.losses_of = losses_of  # type: ignore[method-assign]
    return task


@pytest.mark.parametrize(
    ("number", "kind", "code"), [(signal.SIGTERM, SystemExit, 143), (signal.SIGINT, KeyboardInterrupt, None)]
)
def test_a_signal_finishes_the_step_saves_and_ends(tmp_path: Path, number: int, kind: type, code: int | None) -> None:
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    with pytest.raises(kind) as stop:
        signalled(Task(), number, at=7).train(folder=tmp_path)
    assert getattr(stop.value, "code", None) == code
    assert json.loads((tmp_path / "checkpoint" / "run.json").read_text())["step"] == 8
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before
    resumed = Task().train(folder=tmp_path)
    assert resumed.seen[0] == 8
    assert_same(resumed.module, Task().train().module)


def test_a_second_ctrl_c_stops_at_once(tmp_path: Path) -> None:
    task = signalled(Task(), signal.SIGINT, at=7, times=2)
    with pytest.raises(KeyboardInterrupt):
        task.train(folder=tmp_path)
    assert 7 not in task.seen
    assert json.loads((tmp_path / "checkpoint" / "run.json").read_text())["step"] == 5


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own with 12 kB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = shutil.which("mount")
    if mount is None or subprocess.run([mount, "-t", "tmpfs", "-o", "size=12k", "tmpfs", disk], check=False).returncode:
        pytest.skip("no right to mount a small file system here")
    yield disk
    subprocess.run(["umount", "-l", disk], check=True)


def test_a_full_disk_keeps_the_last_good_checkpoint(small_disk: Path) -> None:
    with pytest.raises(OutputError, match="disk is full") as told:
        # Two checkpoints don't fit; one does.
        Task().train(folder=small_disk)
    assert told.value.exit_code == 1
    assert "last good checkpoint" in str(told.value)
    kept = sorted(path.name for path in (small_disk / "checkpoint").iterdir())
    step = json.loads((small_disk / "checkpoint" / "run.json").read_text())["step"]
    assert kept == ["run.json", f"step-{step}.safetensors"]
    subprocess.run(["mount", "-o", "remount,size=1m", small_disk], check=True)
    resumed = Task().train(folder=small_disk)
    assert 0 < resumed.seen[0] < STEPS
    assert_same(resumed.module, Task().train().module)


@pytest.mark.parametrize("what", ["checkpoint", "log"])
def test_a_file_that_may_not_grow_keeps_the_last_good_checkpoint(tmp_path: Path, what: str) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    task = Task()
    good = task.losses_of

    def losses_of(step: int) -> Mapping[str, torch.Tensor]:
        if step == 7:
            limit = 2000 if what == "checkpoint" else (tmp_path / "log.jsonl").stat().st_size
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
        return good(step)

    task.losses_of = losses_of  # type: ignore[method-assign]
    config = CONFIG if what == "checkpoint" else replace(CONFIG, log_every=4)
    try:
        with pytest.raises(OutputError):
            task.train(config, folder=tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert sorted(path.name for path in (tmp_path / "checkpoint").iterdir()) == ["run.json", "step-5.safetensors"]
    assert_same(Task().train(config, folder=tmp_path).module, Task().train(config).module)
    steps = [json.loads(line)["step"] for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert steps == list(range(0, STEPS, config.log_every))


def test_a_loss_that_is_not_finite_names_its_cells(tmp_path: Path) -> None:
    task = Task()
    good = task.losses_of

    def losses_of(step: int) -> Mapping[str, torch.Tensor]:
        losses = good(step)
        return {"error": losses["error"] * math.nan} if step == 6 else losses

    names = [f"pbmc.h5ad row {step}" for step in range(20)]
    watch = Watch(cells_of=lambda step: [f"{name}-{step}" for name in names])
    with pytest.raises(CellinguaError, match=r"loss of step 6 .* pbmc\.h5ad row 0-6, .* and 12 more"):
        train(task.module, losses_of, CONFIG, folder=tmp_path, watch=watch)
    told = json.loads((tmp_path / "not_finite.json").read_text())
    assert told["step"] == 6
    assert told["cells"] == [f"{name}-6" for name in names]
    assert told["losses"] == {"error": "nan"}


def test_validation_sees_the_model_at_rest_and_changes_nothing(tmp_path: Path) -> None:
    config = replace(CONFIG, validate_every=10, checkpoint_every=10)
    task, seen = Task(), []

    def validate(done: int) -> Mapping[str, float]:
        seen.append(done)
        assert not task.module.training
        assert not torch.is_grad_enabled()
        torch.rand(7)
        return {"held out": float(done)}

    train(task.module, task.losses_of, config, folder=tmp_path, watch=Watch(validate=validate))
    assert seen == [0, 10, 20, STEPS]
    assert_same(task.module, Task().train().module)
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "validation" in line] == seen
    assert [line["validation"]["held out"] for line in lines if "validation" in line] == seen


def test_the_log_of_a_resumed_run_is_that_of_an_unbroken_one(tmp_path: Path) -> None:
    config = replace(CONFIG, validate_every=5, log_every=2)

    def lines(stop: int | None, folder: Path) -> list[dict]:
        task = Task()
        task.stop_at = stop
        train(task.module, task.losses_of, config, folder=folder, watch=Watch(validate=lambda done: {"x": done}))
        return [
            {key: value for key, value in json.loads(line).items() if key not in ("seconds", "memory_gb")}
            for line in (folder / "log.jsonl").read_text().splitlines()
        ]

    with pytest.raises(KeyboardInterrupt):
        lines(13, tmp_path / "broken")
    with open(tmp_path / "broken" / "log.jsonl", "a") as handle:
        handle.write('{"step": 14, "err')  # as a kill leaves it
    assert lines(None, tmp_path / "broken") == lines(None, tmp_path / "unbroken")


def test_a_backward_pass_of_its_own_is_the_same_training(tmp_path: Path) -> None:
    task = Task()

    def backward_of(step: int) -> Mapping[str, float]:
        losses = task.losses_of(step)
        assert all(p.grad is None for p in task.module.parameters())
        torch.stack(list(losses.values())).sum().backward()
        return {name: float(loss.detach()) for name, loss in losses.items()}

    train(task.module, None, CONFIG, backward_of=backward_of, folder=tmp_path)
    assert_same(task.module, Task().train().module)
    with pytest.raises(CellinguaError, match="loss of step 0"):
        train(nn.Linear(1, 1), None, CONFIG, backward_of=lambda step: {"x": math.inf})
    for both in ({}, {"backward_of": backward_of}):
        with pytest.raises(ConfigError, match="losses_of or backward_of"):
            train(task.module, task.losses_of if both else None, CONFIG, **both)


def test_precisions() -> None:
    plain, types = Task().train(replace(CONFIG, steps=60)), []
    task = Task()
    task.module.register_forward_hook(lambda module, inputs, output: types.append(output.dtype))
    task.train(replace(CONFIG, steps=60, precision="bf16"))
    assert set(types) == {torch.bfloat16}
    assert task.module[0].weight.dtype == torch.float32
    assert not torch.equal(task.module[0].weight, plain.module[0].weight)
    torch.testing.assert_close(task.module[0].weight, plain.module[0].weight, atol=0.15, rtol=0)
    double = nn.Linear(2, 1)
    train(double, lambda step: {"x": double(torch.ones(1, 2).double()).sum()}, TrainConfig(2, precision="float64"))
    assert double.weight.dtype == torch.float64
    with pytest.raises(ConfigError, match="precision 'half'"):
        train(double, lambda step: {"x": double.weight.sum()}, TrainConfig(2, precision="half"))


@pytest.mark.parametrize("change", [{"steps": 0}, {"log_every": 0}, {"checkpoint_every": 0}, {"validate_every": -1}])
def test_impossible_numbers_are_refused(change: Mapping[str, int]) -> None:
    with pytest.raises(ConfigError, match=next(iter(change))):
        TrainConfig(**change)


def test_one_process_needs_no_fabric(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "lightning_fabric", None)
    assert isinstance(make_place(PlaceConfig("cpu")), OneProcess)
    with pytest.raises(ConfigError, match="lightning_fabric is not installed"):
        make_place(PlaceConfig("cpu", devices=2))


@pytest.mark.parametrize(
    "config", [PlaceConfig("cpu", strategy="deepspeed"), PlaceConfig("cpu", devices=0), PlaceConfig("cpu", nodes=0)]
)
def test_places_that_do_not_exist_are_refused(config: PlaceConfig) -> None:
    with pytest.raises(ConfigError):
        make_place(config)


def test_weights_that_two_names_share_are_kept(tmp_path: Path) -> None:
    def tied() -> nn.Module:
        torch.manual_seed(0)
        module = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
        module[1].weight = module[0].weight
        return module

    def run(module: nn.Module, steps: int) -> nn.Module:
        train(
            module,
            lambda step: {"x": module(torch.ones(2, 3) * step).square().sum()},
            TrainConfig(20, checkpoint_every=5),
            folder=tmp_path if steps else None,
        )
        return module

    assert_same(run(tied(), 20), run(tied(), 0))
    again = run(tied(), 20)
    assert again[1].weight is again[0].weight
    assert_same(again, run(tied(), 0))


def test_tensorboard_is_written_where_it_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task = Task()
    train(task.module, task.losses_of, CONFIG, folder=tmp_path / "plain")
    assert not (tmp_path / "plain" / "tensorboard").exists()
    with monkeypatch.context() as patch:
        patch.setitem(__import__("sys").modules, "torch.utils.tensorboard", None)
        with pytest.raises(ConfigError, match="not installed"):
            train(Task().module, task.losses_of, CONFIG, folder=tmp_path / "none", watch=Watch(tensorboard=True))
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    task = Task()
    train(task.module, task.losses_of, CONFIG, folder=tmp_path / "run", watch=Watch(tensorboard=True))
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard")).Reload()
    lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert [(e.step, e.value) for e in events.Scalars("error")] == [
        (line["step"], pytest.approx(line["error"])) for line in lines
    ]


def test_the_bar_shows_loss_memory_speed_and_time_left() -> None:
    written: list[str] = []
    task = Task()
    console = Console(written.append, live=True)
    train(task.module, task.losses_of, CONFIG, progress=console, watch=Watch(batch=32))
    bars = [text for text in written if "loss" in text]
    for sign in ("/24 (", " left", "loss ", " GB", " cells/s"):
        assert sign in bars[0]
