"""Random state that belongs to a chunk of the global batch, so that any pass, in any process, can have it again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

_MASK = (1 << 64) - 1


def chunk_seed(seed: int, tower: int, number: int) -> int:
    """Return the seed of chunk `number` of tower `tower` in the step of seed `seed`, a 64-bit integer.

    It is a function of the three alone (SplitMix64 over them): nothing is drawn from a stream, so the order in
    which chunks are encoded does not matter, nor which process encodes them.
    """
    state = seed & _MASK
    for part in (tower, number):
        state = _mix(state ^ _mix((part & _MASK) + 0x9E3779B97F4A7C15 & _MASK))
    return state


def _mix(value: int) -> int:
    """Finalise as SplitMix64 does (Steele, Lea, Flood 2014)."""
    value = (value ^ (value >> 30)) * 0xBF58476D1CE4E5B9 & _MASK
    value = (value ^ (value >> 27)) * 0x94D049BB133111EB & _MASK
    return value ^ (value >> 31)


def set_random_state(seed: int, device: torch.device) -> None:
    """Seed torch's generators of the CPU and of `device`.

    ``torch.manual_seed`` would do the same for every kind of device there is, at two hundred times the cost.
    """
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed(seed)
    elif device.type == "mps":
        torch.mps.manual_seed(seed)


@contextmanager
def random_state_kept(device: torch.device) -> Iterator[None]:
    """Give torch's random state of the CPU and of `device` back as it was."""
    devices = [torch.cuda.current_device() if device.index is None else device.index] if device.type == "cuda" else []
    other = torch.mps.get_rng_state() if device.type == "mps" else None
    with torch.random.fork_rng(devices=devices):
        try:
            yield
        finally:
            if other is not None:
                torch.mps.set_rng_state(other)
