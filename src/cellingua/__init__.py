"""cellingua gives cells a language: it names single cells from plain words, offline, on a laptop.

``import cellingua as cl`` costs nothing: the parts are loaded when they are first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cellingua import bench, tl

__version__ = "0.1.0"
__all__ = ["__version__", "bench", "tl"]

_PARTS = ("bench", "tl")


def __getattr__(name: str) -> Any:
    if name in _PARTS:
        return importlib.import_module(f"cellingua.{name}")
    raise AttributeError(f"module 'cellingua' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
