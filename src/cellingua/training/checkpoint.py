"""A training run on disk: weights, optimiser state and step, in safetensors and JSON, written atomically."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from cellingua.core.errors import ConfigError, ModelError
from cellingua.core.files import atomic_folder, sha256_file, write_json

NAME = "checkpoint"


def save_checkpoint(
    folder: Path, module: nn.Module, optimiser: torch.optim.Optimizer, step: int, config: dict[str, Any]
) -> None:
    """Write ``folder/checkpoint``; the last good one stays until this one is complete.

    Parameters
    ----------
    step
        Steps done.
    config
        What the run was started with; a resume with another one is refused.
    """
    tensors = {f"weights.{name}": tensor.contiguous() for name, tensor in module.state_dict().items()}
    for index, state in optimiser.state_dict()["state"].items():
        tensors |= {f"state.{index}.{key}": torch.as_tensor(value) for key, value in state.items()}
    with atomic_folder(folder / NAME) as partial:
        save_file(tensors, partial / "state.safetensors")
        digest = sha256_file(partial / "state.safetensors")
        write_json(partial / "run.json", {"step": step, "config": config, "sha256": digest})


def load_checkpoint(
    folder: Path, module: nn.Module, optimiser: torch.optim.Optimizer, config: dict[str, Any]
) -> int:
    """Fill `module` and `optimiser` from ``folder/checkpoint`` and return the steps done; 0 if there is none.

    Raises
    ------
    ConfigError
        The run was started with another configuration; the first difference is shown.
    ModelError
        The checkpoint is damaged.
    """
    path = folder / NAME
    if not path.is_dir():
        return 0
    try:
        held = json.loads((path / "run.json").read_text(encoding="utf-8"))
        if sha256_file(path / "state.safetensors") != held["sha256"]:
            raise ValueError("state.safetensors is not the file that was written")
        tensors = load_file(path / "state.safetensors")
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise ModelError(
            f"{path} can't be read: {error}.", "a whole checkpoint", "remove it to start anew"
        ) from error
    wanted = json.loads(json.dumps(config))
    for key in sorted(set(held["config"]) | set(wanted)):
        was, now = held["config"].get(key), wanted.get(key)
        if was != now:
            raise ConfigError(
                f"{path} was made with {key} = {was!r}, and this run has {now!r}.",
                "the same configuration",
                "another output folder, or remove the checkpoint",
            )
    module.load_state_dict({k.removeprefix("weights."): t for k, t in tensors.items() if k.startswith("weights.")})
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        if name.startswith("state."):
            _, index, key = name.split(".", 2)
            state.setdefault(int(index), {})[key] = tensor
    optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})
    return int(held["step"])
