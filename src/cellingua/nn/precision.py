"""The precision that a model answers in: chosen once with its reason, and copies of a module made for it.

``float32`` is exact: the module itself. ``bfloat16`` keeps weights and states in 16 bits; torch's kernels sum matrix
products, LayerNorm's statistics and softmax in float32 all the same. ``int8`` keeps weights in 8 bits with a
float32 scale for each row and computes in float32: a quarter of the memory, not more speed.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from cellingua.core.errors import InputError

PRECISIONS = ("auto", "float32", "bfloat16", "int8")
#: What a processor may be called that multiplies bfloat16 itself, and not by way of float32.
PROCESSORS = (("_is_amx_tile_supported", "AMX"), ("_is_avx512_bf16_supported", "AVX-512 BF16"))

Module = TypeVar("Module", bound=nn.Module)


@dataclass(frozen=True)
class Precision:
    """A precision by name (never ``auto``), and why it was chosen."""

    name: str
    reason: str


def choose(precision: str = "auto", device: torch.device | str = "cpu") -> Precision:
    """Return the precision to compute in on `device`, with the reason.

    Parameters
    ----------
    precision
        One of `PRECISIONS`. ``auto`` is bfloat16 where the device multiplies it in hardware, else float32.
    device
        Where it will be computed.

    Raises
    ------
    InputError
        There is no such precision.
    """
    if precision not in PRECISIONS:
        raise InputError(f"There is no precision {precision!r}.", " or ".join(PRECISIONS))
    if precision != "auto":
        return Precision(precision, "asked for")
    fast, reason = _bfloat16_on(torch.device(device))
    return Precision("bfloat16" if fast else "float32", reason)


def resolve(precision: str = "auto", device: torch.device | str = "cpu") -> str:
    """Return the name of the precision that `choose` chooses."""
    return choose(precision, device).name


def _bfloat16_on(device: torch.device) -> tuple[bool, str]:
    """Return whether `device` multiplies bfloat16 in hardware, and what says so."""
    if device.type == "cuda":
        # Compute capability 8.0 is the first; below, torch emulates it.
        fast = torch.cuda.get_device_capability(device) >= (8, 0)
        return fast, f"this GPU {'has' if fast else 'lacks'} bfloat16"
    if device.type == "cpu":
        for asked, name in PROCESSORS:
            # Private names, and newer than the oldest torch that is supported: where one is missing, float32 it is.
            if getattr(torch.cpu, asked, lambda: False)():
                return True, f"this processor has {name}"
        return False, "this processor has neither AMX nor AVX-512 BF16"
    return False, f"bfloat16 is not used on {device.type}"


def converted(module: Module, precision: str) -> Module:
    """Return an inference copy of `module` in `precision`; the module itself for ``float32``.

    The copy shares no memory with the module, is in evaluation mode and asks for no gradients. Modules keep
    their classes and names, so that whatever runs the module runs the copy; with ``int8``, linear and embedding
    layers are `Int8Linear` and `Int8Embedding`.

    Parameters
    ----------
    module
        Weights in float32, on any device.
    precision
        ``float32``, ``bfloat16`` or ``int8``: what `resolve` returns.
    """
    if precision == "float32":
        return module
    if precision not in PRECISIONS or precision == "auto":
        raise ValueError(f"precision is {precision!r}, expected float32, bfloat16 or int8")
    # Copying with the weights replaced in advance never holds a second float32 copy of them.
    replaced: dict[int, object] = {}
    if precision == "int8":
        for part in module.modules():
            if isinstance(part, nn.Linear):
                replaced[id(part)] = Int8Linear(part)
            elif isinstance(part, nn.Embedding):
                replaced[id(part)] = Int8Embedding(part)
        if id(module) in replaced:
            raise ValueError("a module that holds layers is converted to int8, not a single layer")
    else:
        for tensor in (*module.parameters(), *module.buffers()):
            low = tensor.detach()
            low = low.to(torch.bfloat16) if low.is_floating_point() else low.clone()
            replaced[id(tensor)] = nn.Parameter(low, False) if isinstance(tensor, nn.Parameter) else low
    return copy.deepcopy(module, replaced).requires_grad_(False).eval()


def quantise_rows(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Return int8 rows and the float32 scale of each, ``weight ~ rows * scale``; a row of zeros has the scale 0.

    Parameters
    ----------
    weight
        (n, d), floating.

    Returns
    -------
    rows
        int8 (n, d), within -127 to 127, rounded to nearest: off by at most half a scale.
    scale
        float32 (n, 1): the largest magnitude of the row / 127.
    """
    scale = weight.detach().float().abs().amax(dim=1, keepdim=True) / 127
    rows = torch.round(weight.detach().float() / scale.clamp(min=torch.finfo(torch.float32).tiny))
    return rows.to(torch.int8), scale


class _Int8Rows(nn.Module):
    """A table in 8 bits with a scale a row; `weight` is what it stands for."""

    rows: Tensor
    scale: Tensor

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        rows, scale = quantise_rows(weight)
        self.register_buffer("rows", rows)
        self.register_buffer("scale", scale)

    @property
    def weight(self) -> Tensor:
        """The float32 table, made anew at each look: a layer's worth of memory, given back at once."""
        return self.rows * self.scale


class Int8Linear(_Int8Rows):
    """`torch.nn.Linear` with its weight in 8 bits; a row is an output."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__(layer.weight)
        self.in_features, self.out_features = layer.in_features, layer.out_features
        self.bias = None if layer.bias is None else nn.Parameter(layer.bias.detach().clone(), requires_grad=False)

    def forward(self, states: Tensor) -> Tensor:
        """Return (..., out_features)."""
        return functional.linear(states, self.weight, self.bias)


class Int8Embedding(_Int8Rows):
    """`torch.nn.Embedding` with its table in 8 bits; only the rows that are asked for are made float32."""

    def __init__(self, layer: nn.Embedding) -> None:
        super().__init__(layer.weight)
        self.num_embeddings, self.embedding_dim = layer.num_embeddings, layer.embedding_dim

    def forward(self, ids: Tensor) -> Tensor:
        """Return (..., embedding_dim)."""
        return self.rows[ids] * self.scale[ids]
