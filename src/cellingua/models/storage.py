"""Weights as small files: float32, float16, or int8 with one scale a row."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from cellingua.core.errors import ModelError

STORAGES = ("float32", "float16", "int8")
SCALE = ".scale"
#: Rows shorter than this are stored as float16 even in an int8 file: they'd save nothing.
SHORTEST_ROW = 32


def quantise(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Return int8 (rows, columns) and float16 (rows,) such that ``int8 x scale`` is close to `matrix`.

    The error of an entry is at most half a step; a step is a 127th of the largest entry of its row, rounded up to
    the next float16 so that no entry is clipped.
    """
    largest = matrix.abs().amax(dim=1)
    scale = (largest / 127).to(torch.float16)
    short = scale.to(torch.float32) * 127 < largest
    # The next float16 above a positive one has the next bit pattern.
    scale = torch.where(short, (scale.view(torch.int16) + 1).view(torch.float16), scale)
    scale = torch.where(largest == 0, torch.ones_like(scale), scale)
    steps = (matrix / scale.to(torch.float32)[:, None]).round()
    return steps.to(torch.int8), scale


def pack(tensors: Mapping[str, Tensor], storage: str) -> bytes:
    """Return the bytes of a safetensors file that holds float `tensors` in the given precision.

    Raises
    ------
    ValueError
        The storage is unknown, or a weight is not finite or does not fit the precision.
    """
    if storage not in STORAGES:
        raise ValueError(f"storage is {storage!r}, expected one of {STORAGES}")
    out: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        plain = tensor.detach().to("cpu", torch.float32)
        if storage == "int8" and plain.ndim == 2 and plain.shape[1] >= SHORTEST_ROW:
            out[name], out[name + SCALE] = quantise(plain)
        else:
            out[name] = plain if storage == "float32" else plain.to(torch.float16)
        checked = out.get(name + SCALE, out[name])
        if not bool(torch.isfinite(plain).all()) or not bool(torch.isfinite(checked).all()):
            raise ValueError(f"the weight {name!r} is not finite in {storage}")
    return save({name: tensor.contiguous() for name, tensor in out.items()})


def unpack(path: Path) -> dict[str, Tensor]:
    """Read a file that `pack` made, as float32.

    Raises
    ------
    ModelError
        The file is missing or damaged, or an int8 weight has no fitting scale.
    """
    try:
        held = load_file(path)
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path} can't be read: {error}.", "an undamaged file of weights") from error
    out = {}
    for name, tensor in held.items():
        if name.endswith(SCALE):
            continue
        if tensor.dtype == torch.int8:
            scale = held.get(name + SCALE)
            if scale is None or tensor.ndim != 2 or scale.shape != tensor.shape[:1]:
                raise ModelError(f"{path}: the int8 weight {name!r} has no scale for each row.", "int8 and scales")
            out[name] = tensor.to(torch.float32) * scale.to(torch.float32)[:, None]
        elif tensor.dtype in (torch.float16, torch.float32):
            out[name] = tensor.to(torch.float32)
        else:
            raise ModelError(f"{path}: {name!r} is {tensor.dtype}.", "float32, float16, or int8 with scales")
    return out


def assign(module: nn.Module, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Make `tensors` the weights of `module` (which may be on the meta device); each one must fit.

    Raises
    ------
    ModelError
        The first weight that is missing, unknown, of another shape, or not finite.
    """
    wanted = module.state_dict()
    for name, tensor in wanted.items():
        if name not in tensors:
            raise ModelError(f"{path} lacks the weight {name!r}.", "the weights that config.json describes")
        if tensors[name].shape != tensor.shape:
            raise ModelError(
                f"{path}: {name!r} has the shape {tuple(tensors[name].shape)}.",
                f"{tuple(tensor.shape)}, as config.json describes",
            )
        if not bool(torch.isfinite(tensors[name]).all()):
            raise ModelError(f"{path}: {name!r} holds values that are not finite.", "finite weights")
    unknown = sorted(set(tensors) - set(wanted))
    if unknown:
        raise ModelError(f"{path} holds the unknown weight {unknown[0]!r}.", "the weights that config.json describes")
    module.load_state_dict(dict(tensors), assign=True)


class _NoDraws(TorchFunctionMode):
    """Skips the drawing of random starting weights."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(func, "__name__", "") in ("normal_", "uniform_"):
            return args[0] if args else kwargs["tensor"]
        return func(*args, **(kwargs or {}))


@contextmanager
def shapes_only() -> Iterator[None]:
    """Build modules without weights, on the meta device, to be filled by `assign`.

    Drawing starting weights there would import torch's compiler, which takes longer than all else: it is skipped.
    """
    with torch.device("meta"), _NoDraws():
        yield
