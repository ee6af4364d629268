"""A training run on disk: weights, optimiser state and step, in safetensors and JSON, written atomically.

``checkpoint/run.json`` says which step is held, and ``checkpoint/step-<n>.safetensors`` holds it. Replacing
``run.json`` is the one moment at which the new checkpoint takes over, so a run may be killed at any instant.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from cellingua.core.errors import ConfigError, ModelError, OutputError
from cellingua.core.files import atomic_path, sha256_file, write_json
from cellingua.training.place import like, whole

NAME = "checkpoint"
_FULL = ("os error 28", "os error 27", "os error 122")  # how safetensors says that there is no space


def _at_once(work: Callable[[], None]) -> None:
    work()


def save_checkpoint(
    folder: Path,
    module: nn.Module,
    optimiser: torch.optim.Optimizer,
    step: int,
    config: dict[str, Any],
    *,
    first: Callable[[Callable[[], None]], None] = _at_once,
) -> None:
    """Write ``folder/checkpoint``; the last good one stays until this one is complete.

    Parameters
    ----------
    step
        Steps done.
    config
        What the run was started with; a resume with another one is refused.
    first
        Does what it is given in the first of several processes; all of them must call this function.

    Raises
    ------
    OutputError
        The disk is full: the last good checkpoint is kept.
    """
    tensors = dict(_tensors(module, optimiser))

    def write() -> None:
        path = folder / NAME
        path.mkdir(parents=True, exist_ok=True)
        state = _state(path, step)
        try:
            with atomic_path(state) as partial:
                save_file(tensors, partial)
            write_json(path / "run.json", {"step": step, "config": config, "sha256": sha256_file(state)})
        except (OutputError, SafetensorError) as error:
            _clear(path)
            if isinstance(error, SafetensorError) and not any(sign in str(error) for sign in _FULL):
                raise
            size = sum(tensor.nbytes for tensor in tensors.values())
            raise OutputError(
                f"{state} could not be written: the disk is full (a checkpoint has {size / 1e6:,.0f} MB; the last "
                "good one is kept until the next is whole).",
                "",
                "free some space; the same call goes on from the last good checkpoint",
            ) from error
        _clear(path)

    first(write)


def _clear(path: Path) -> None:
    """Remove all but the checkpoint that ``run.json`` names: the one before it, and what a killed run left."""
    held = path / "run.json"
    named = json.loads(held.read_text(encoding="utf-8"))["step"] if held.is_file() else None
    for other in path.iterdir():
        if other.name != "run.json" and other != _state(path, named):
            other.unlink()


def _tensors(module: nn.Module, optimiser: torch.optim.Optimizer) -> Iterator[tuple[str, Tensor]]:
    """Yield all tensors by name; two names of one tensor are stored as two."""
    seen: set[int] = set()
    for name, tensor in module.state_dict().items():
        held = whole(tensor).detach().contiguous()
        yield f"weights.{name}", held.clone() if held.data_ptr() in seen else held
        seen.add(held.data_ptr())
    for index, state in optimiser.state_dict()["state"].items():
        for key, value in state.items():
            yield f"state.{index}.{key}", whole(torch.as_tensor(value)).contiguous()


def _state(path: Path, step: int | None) -> Path:
    return path / f"step-{step}.safetensors"


def load_checkpoint(folder: Path, module: nn.Module, optimiser: torch.optim.Optimizer, config: dict[str, Any]) -> int:
    """Fill `module` and `optimiser` from ``folder/checkpoint`` and return the steps done; 0 if there is none.

    Raises
    ------
    ConfigError
        The run was started with another configuration; the first difference is shown.
    ModelError
        The checkpoint is damaged, or the module is another one.
    """
    path = folder / NAME
    if not (path / "run.json").is_file():
        return 0
    held, tensors = _read(path)
    made, wanted = dict(_flat(held["config"])), dict(_flat(json.loads(json.dumps(config))))
    for key in sorted(set(made) | set(wanted)):
        was, now = made.get(key), wanted.get(key)
        if was != now:
            raise ConfigError(
                f"{path} was made with {key} = {was!r}, and this run has {now!r}.",
                "the same configuration",
                "another output folder, or remove the checkpoint",
            )
    weights: dict[str, Tensor] = {}
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        kind, rest = name.split(".", 1)
        if kind == "weights":
            weights[rest] = tensor
        else:
            index, key = rest.split(".", 1)
            state.setdefault(int(index), {})[key] = tensor
    try:
        held_now = module.state_dict()
        weights = {name: like(tensor, held_now.get(name, tensor)) for name, tensor in weights.items()}
        trained = [p for group in optimiser.param_groups for p in group["params"]]
        for number, values in state.items():
            if number >= len(trained):
                raise ValueError(f"there are {len(trained)} trained weights, and it holds number {number}")
            state[number] = {key: like(value, trained[number]) for key, value in values.items()}
        module.load_state_dict(weights)
        optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})
    except (RuntimeError, ValueError) as error:
        raise ModelError(
            f"{path} does not fit this module: {error}.", "the module it was made with", "remove it to start anew"
        ) from error
    return int(held["step"])


def _flat(config: dict[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the leaves of nested mappings with dotted keys."""
    for key, value in config.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", value


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return ``run.json`` and the tensors of the step that it names."""
    try:
        held = json.loads((path / "run.json").read_text(encoding="utf-8"))
        state = _state(path, int(held["step"]))
        if sha256_file(state) != held["sha256"]:
            raise ValueError(f"{state.name} is not the file that was written")
        if not isinstance(held["config"], dict):
            raise ValueError("its config is not a mapping")
        return held, load_file(state)
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise ModelError(f"{path} can't be read: {error}.", "a whole checkpoint", "remove it to start anew") from error
