"""Configurations that ship: JSON files in ``data/recipes``, named after their recipe."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Any, TypeVar

from cellingua.core.config import from_dict
from cellingua.core.errors import ConfigError

Config = TypeVar("Config")


def read_preset(kind: type[Config], recipe: str, name: str) -> Config:
    """Return the preset `name` of a recipe (``langcell``: ``langcell_mini``, ...) as a `kind`; see `shipped`."""
    return from_dict(kind, shipped(recipe, name))


def shipped(recipe: str, name: str) -> dict[str, Any]:
    """Return what the package ships under `name` for a recipe.

    Raises
    ------
    ConfigError
        There is none of that name; those that there are, are named.
    """
    folder = files("cellingua") / "data" / "recipes"
    known = {path.name.removesuffix(".json"): path for path in folder.iterdir() if path.name.endswith(".json")}
    own = sorted(preset for preset in known if preset.startswith(f"{recipe}_"))
    if name not in own:
        raise ConfigError(f"There is no preset {name!r}.", "; ".join(own))
    held: dict[str, Any] = json.loads(known[name].read_text(encoding="utf-8"))
    return held
