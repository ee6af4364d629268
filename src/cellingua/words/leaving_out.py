"""Aspects left out at random: the first that is known, the cell type, is always said."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import numpy as np

from cellingua.core.errors import ConfigError
from cellingua.words.aspects import Reading
from cellingua.words.metadata import NAMES

#: Aspect -> what it says, in the fixed order.
Said = dict[str, Reading]


def check_chance(name: str, chance: float) -> None:
    """Raise `ConfigError` for a chance outside 0 to 1."""
    if not 0 <= chance <= 1:
        raise ConfigError(f"{name} is {chance}.", "a chance from 0 to 1")


def keep(said: Said, drop: float, seed: int) -> Said:
    """Return the aspects that aren't dropped, drawn from the seed and what the metadata say alone."""
    if drop == 0:
        return said
    facts = "\x1f".join(f"{aspect}={reading.name.lower()}" for aspect, reading in said.items())
    # 64 bytes: a draw of 8 bytes for each of the eight aspects.
    draws = np.frombuffer(hashlib.blake2b(f"{seed}\x1f{facts}".encode()).digest(), dtype="<u8") / 2.0**64
    return kept(said, dict(zip(NAMES, draws, strict=True)), drop)


def kept(said: Said, draws: Mapping[str, float], drop: float) -> Said:
    """Return the first aspect, and those of the others whose draw isn't below `drop`."""
    return {a: part for place, (a, part) in enumerate(said.items()) if place == 0 or draws[a] >= drop}
