"""Device and threads, each chosen once and with its reason; versions and hardware for provenance."""

from __future__ import annotations

import os
import platform
import sys
from dataclasses import dataclass
from importlib import metadata
from typing import Any

from cellingua.core.errors import InputError


@dataclass(frozen=True)
class Device:
    """A torch device by name, and why it was chosen."""

    name: str
    reason: str


def pick_device(wanted: str = "auto") -> Device:
    """Return the device to compute on.

    Parameters
    ----------
    wanted
        ``auto`` (CUDA if there is one, else the CPU), ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.

    Raises
    ------
    InputError
        The device does not exist on this machine.
    """
    import torch

    if wanted == "auto":
        if torch.cuda.is_available():
            return Device("cuda", "a CUDA device is present")
        return Device("cpu", "no CUDA device is present")
    try:
        device = torch.device(wanted)
        usable = {
            "cpu": True,
            "cuda": torch.cuda.is_available() and (device.index or 0) < torch.cuda.device_count(),
            "mps": torch.backends.mps.is_available(),
        }.get(device.type, False)
    except RuntimeError:
        usable = False
    if not usable:
        raise InputError(
            f"The device {wanted!r} is not usable here.",
            "cpu, or an accelerator that torch sees",
            "--device cpu",
        )
    return Device(wanted, "asked for")


def set_threads(threads: int | None) -> int:
    """Limit torch to `threads` (None: what this process may use) and return the number in use."""
    import torch

    if threads is not None and threads < 1:
        raise InputError(f"{threads} threads were asked for.", "1 or more")
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
    count = threads if threads is not None else available
    torch.set_num_threads(count)
    return count


def versions(packages: tuple[str, ...] = ("anndata", "numpy", "scipy", "torch")) -> dict[str, str]:
    """Return the versions of Python, cellingua and `packages`, for provenance."""
    found = {"python": platform.python_version()}
    for name in ("cellingua", *packages):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def hardware() -> dict[str, Any]:
    """Return what a reader needs to judge a timing: processor, cores, memory in GiB, platform."""
    memory = None
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        memory = round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1)
    processor = platform.processor() or platform.machine()
    if sys.platform == "linux":
        with open("/proc/cpuinfo", encoding="utf-8") as handle:
            names = [line.split(":", 1)[1].strip() for line in handle if line.startswith("model name")]
        processor = names[0] if names else processor
    return {
        "processor": processor,
        "cores": os.cpu_count(),
        "memory_gib": memory,
        "system": platform.system(),
    }


def memory_in_use() -> int:
    """Return the resident memory of this process that no file backs, in bytes (all resident memory off Linux)."""
    try:
        with open("/proc/self/status", encoding="ascii") as handle:
            return next(int(line.split()[1]) * 1024 for line in handle if line.startswith("RssAnon"))
    except (OSError, StopIteration):
        pass
    try:
        import resource
    except ImportError:  # Windows
        return 0
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024
