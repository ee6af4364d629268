"""A tower on a chunk: its own autocast, what it returns, and what would make a step wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from cellingua.core.errors import EngineError

#: A chunk -> its representations (b, ...), alone or with ``{name: (sum, count)}``, the losses that are separable.
Tower = Callable[[Any], Any]


@dataclass
class Encoded:
    """What a tower made of a chunk: float32 or float64 rows; sums of separable losses, and what they are over."""

    rows: Tensor
    sums: dict[str, Tensor] = field(default_factory=dict)
    counts: dict[str, Tensor | float] = field(default_factory=dict)


def encode(
    tower: Tower,
    data: Any,
    rows: int,
    weights: Mapping[str, float],
    *,
    graph: bool,
    device: torch.device,
    autocast: torch.dtype | None,
) -> Encoded:
    """Run a tower on a chunk.

    The autocast context is opened for this one pass: within a longer one, torch keeps the rounded weights of the
    pass without graph, and the pass with graph would find them without one.

    Raises
    ------
    EngineError
        The tower returned something else than one row an item and named losses.
    """
    context: AbstractContextManager[Any] = nullcontext() if autocast is None else torch.autocast(device.type, autocast)
    with torch.set_grad_enabled(graph):
        with context:
            out = tower(data)
        states, losses = out if isinstance(out, tuple) and len(out) == 2 else (out, {})
        if not isinstance(states, Tensor) or states.ndim == 0 or len(states) != rows:
            shape = tuple(states.shape) if isinstance(states, Tensor) else type(states).__name__
            raise EngineError(
                f"A tower returned {shape} for a chunk of {rows} items.",
                f"a tensor of {rows} rows, alone or with {{name: (sum, count)}}",
            )
        encoded = Encoded(_wide(states))
        for name, (total, count) in losses.items():
            if name not in weights:
                raise EngineError(f"A tower returned the loss {name!r}.", f"names in `weights`: {sorted(weights)}")
            encoded.sums[name] = _wide(total)
            encoded.counts[name] = count.detach() if isinstance(count, Tensor) else count
    return encoded


def _wide(values: Tensor) -> Tensor:
    """Return half-precision values in float32, within the graph."""
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values


def modules_of(tower: Any) -> list[nn.Module]:
    """Return the modules in a tower: itself, a method's owner, what a closure or a partial holds."""
    if isinstance(tower, nn.Module):
        return [tower]
    if isinstance(tower, partial):
        held = [tower.func, *tower.args, *tower.keywords.values()]
        return [module for part in held for module in modules_of(part)]
    held = [getattr(tower, "__self__", None)]
    held += [cell.cell_contents for cell in getattr(tower, "__closure__", None) or () if _is_filled(cell)]
    return [part for part in held if isinstance(part, nn.Module)]


def _is_filled(cell: Any) -> bool:
    try:
        return cell.cell_contents is not None
    except ValueError:
        return False


def refuse_modules(modules: Sequence[nn.Module]) -> None:
    """Raise where a module ties the items of a chunk together, or would sum gradients by itself."""
    for outer in modules:
        if hasattr(outer, "no_sync") and hasattr(outer, "module"):
            raise EngineError(
                f"A tower is wrapped in {type(outer).__name__}, which would average gradients chunk by chunk.",
                "the module itself; the engine sums gradients over processes once, at the end",
                "tower=wrapped.module",
            )
        for name, module in outer.named_modules():
            normalises = isinstance(module, nn.modules.batchnorm._BatchNorm)
            tracks = isinstance(module, nn.modules.batchnorm._NormBase) and module.running_mean is not None
            if (normalises and (module.training or not tracks)) or (tracks and module.training):
                raise _batch_norm(f"{type(module).__name__} {name!r} in training mode")


def _batch_norm(found: str) -> EngineError:
    return EngineError(
        f"A tower holds {found}: its output depends on how the batch is divided, and its running statistics would be "
        "updated twice a step.",
        "a tower in which an item's representation depends on that item alone",
        "LayerNorm or GroupNorm, or .eval() on that module",
    )


class BufferWatch:
    """Sees whether a forward pass writes into a buffer: statistics, a redraw of features, a counter."""

    def __init__(self, modules: Sequence[nn.Module]) -> None:
        self._buffers = [(name, b, b._version) for module in modules for name, b in module.named_buffers()]

    def refuse_changes(self) -> None:
        """Raise where a buffer was written since this watch began."""
        changed = sorted({name for name, buffer, version in self._buffers if buffer._version != version})
        if changed:
            raise EngineError(
                f"A forward pass changes {', '.join(changed)}: running statistics, a redraw of random features, or a "
                "counter of passes, which would count double.",
                "towers that stay as they are within a step",
                "freeze it during the step, and redraw or count between steps",
            )


@dataclass
class Roots:
    """What a graph grows from: trainable leaves, in the order of a walk, and whether a BatchNorm lies in it."""

    leaves: list[Tensor] = field(default_factory=list)
    batch_norm: str | None = None


def roots_of(tensors: Sequence[Tensor]) -> Roots:
    """Walk the graph behind `tensors`."""
    roots = Roots()
    seen: set[Any] = set()
    stack = [t.grad_fn for t in tensors if t.grad_fn is not None]
    while stack:
        node = stack.pop()
        if node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            roots.leaves.append(node.variable)
        if "BatchNorm" in node.name() and getattr(node, "_saved_training", True):
            roots.batch_norm = node.name()
        stack.extend(after for after, _ in node.next_functions if after is not None)
    return roots


def refuse_graph(encoded: Encoded, parameters: Sequence[Tensor] | None) -> None:
    """Raise where the graph of a chunk holds a BatchNorm, or leads to a parameter that nobody named.

    Parameters
    ----------
    parameters
        All that will be summed over processes; None where there is one process, and nothing needs to be known.
    """
    roots = roots_of([encoded.rows, *encoded.sums.values()])
    if roots.batch_norm is not None:
        raise _batch_norm(f"a normalisation over the batch ({roots.batch_norm})")
    known = None if parameters is None else {id(p) for p in parameters}
    unknown = 0 if known is None else sum(id(leaf) not in known for leaf in roots.leaves)
    if unknown:
        raise EngineError(
            f"{unknown} trainable tensors of a tower are not known, so their gradients would not be summed over "
            "processes.",
            "towers that are modules, or `parameters=` with everything that is trained",
        )


def trainable(modules: Sequence[nn.Module]) -> Iterator[nn.Parameter]:
    """Yield the parameters that are trained, each once, in the modules' order."""
    seen = set()
    for module in modules:
        for parameter in module.parameters():
            if parameter.requires_grad and parameter not in seen:
                seen.add(parameter)
                yield parameter
