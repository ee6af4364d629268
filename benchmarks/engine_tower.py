"""The tower that the engine is measured with, and how time and memory of a step are taken."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

VOCABULARY = 1_000


class Layer(nn.Module):
    """A pre-norm transformer layer with dropout after attention and feed-forward."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.widen, self.narrow = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, states: Tensor) -> Tensor:
        """Return the new states (B, L, width)."""
        b, length, width = states.shape
        parts = self.qkv(self.norms[0](states)).view(b, length, 3, self.heads, width // self.heads)
        q, k, v = parts.permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, length, width)
        states = states + self.dropout(self.out(mixed))
        return states + self.dropout(self.narrow(functional.gelu(self.widen(self.norms[1](states)))))


class Tower(nn.Module):
    """Tokens (B, L) -> unit vectors (B, width)."""

    def __init__(self, width: int = 128, layers: int = 2, dropout: float = 0.1, heads: int = 4) -> None:
        super().__init__()
        self.tokens = nn.Embedding(VOCABULARY, width)
        self.layers = nn.ModuleList(Layer(width, heads, dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(width)

    def forward(self, tokens: Tensor) -> Tensor:
        """Encode."""
        states = self.tokens(tokens)
        for layer in self.layers:
            states = layer(states)
        return functional.normalize(self.norm(states).mean(1), dim=-1)


def make(seed: int = 0, dtype: torch.dtype = torch.float32, **settings: Any) -> Tower:
    """Return a tower with weights of their own seed."""
    torch.manual_seed(seed)
    return Tower(**settings).to(dtype)


def sentences(rows: int, length: int, seed: int = 0) -> Tensor:
    """Return tokens (rows, length)."""
    return torch.randint(0, VOCABULARY, (rows, length), generator=torch.Generator().manual_seed(seed))


def clear(parameters: Iterable[nn.Parameter]) -> None:
    """Set gradients to zero where there are any, in place, as memory that stays."""
    for parameter in parameters:
        if parameter.grad is not None:
            parameter.grad.zero_()


def interleaved(
    steps: Mapping[str, Callable[[], Any]], parameters: list[nn.Parameter], rounds: int
) -> dict[str, dict[str, list[float]]]:
    """Run every step once a round, in turn, after one round that is not counted.

    Returns
    -------
    dict
        ``cpu`` and ``wall`` -> name -> seconds of each round. On one thread both are the same on an idle machine;
        the processor's seconds leave out what other processes take on a busy one.
    """
    taken: dict[str, dict[str, list[float]]] = {kind: {name: [] for name in steps} for kind in ("cpu", "wall")}
    for number in range(rounds + 1):
        for name, step in steps.items():
            clear(parameters)
            cpu, wall = time.process_time(), time.perf_counter()
            step()
            if number:
                taken["cpu"][name].append(time.process_time() - cpu)
                taken["wall"][name].append(time.perf_counter() - wall)
    return taken


def status(key: str) -> int:
    """Return a line of /proc/self/status in bytes."""
    with open("/proc/self/status", encoding="ascii") as handle:
        (line,) = [line for line in handle if line.startswith(f"{key}:")]
    return int(line.split()[1]) * 1024


def peak_above_rest(warm: Callable[[], Any], step: Callable[[], Any]) -> int:
    """Return the bytes by which resident memory rises above rest while `step` runs; `warm` ran before rest."""
    warm()
    gc.collect()
    with open("/proc/self/clear_refs", "w", encoding="ascii") as handle:
        handle.write("5")  # the peak begins again at what is resident now
    rest = status("VmRSS")
    step()
    return status("VmHWM") - rest


#: Memory that is freed goes back at once, so that what is resident is what is in use.
LEAN = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "131072", "MALLOC_ARENA_MAX": "1"}
#: Memory that is freed stays, so that no step pays for pages that an earlier one had.
WARM = {"MALLOC_MMAP_THRESHOLD_": str(1 << 25), "MALLOC_TRIM_THRESHOLD_": str(1 << 40), "MALLOC_TOP_PAD_": str(1 << 28)}


def child(module: str, *arguments: object, path: Path | None = None, **environment: str) -> dict[str, Any]:
    """Run a module in a fresh process on one thread, and return the JSON of its last line."""
    command = [sys.executable, "-m", module, *map(str, arguments)]
    search = os.pathsep.join(filter(None, [str(path) if path else "", os.environ.get("PYTHONPATH", "")]))
    settings = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "PYTHONPATH": search, **environment}
    done = subprocess.run(command, env=settings, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr[-3000:]}")
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found
