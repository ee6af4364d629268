"""Configurations that ship: JSON files in ``data/recipes``, named after their recipe."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import TypeVar

from cellingua.core.config import from_dict
from cellingua.core.errors import ConfigError

Config = TypeVar("Config")


def read_preset(kind: type[Config], recipe: str, name: str) -> Config:
    """Return the preset `name` of a recipe (``langcell``: ``langcell_mini`` and the like) as a `kind`.

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
    return from_dict(kind, json.loads(known[name].read_text(encoding="utf-8")))
