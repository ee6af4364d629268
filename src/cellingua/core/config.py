"""Frozen dataclasses to and from JSON; unknown keys are refused and the nearest known key is named."""

from __future__ import annotations

import dataclasses
import difflib
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar, get_args, get_origin

from cellingua.core.errors import ConfigError

T = TypeVar("T")


def to_dict(config: Any) -> dict[str, Any]:
    """Return a dataclass instance as plain JSON values (tuples become lists)."""
    return dataclasses.asdict(config)


def from_dict(cls: type[T], values: Mapping[str, Any]) -> T:
    """Build dataclass `cls` from a mapping.

    Parameters
    ----------
    cls
        A dataclass; nested dataclasses and tuples are built from mappings and lists.
    values
        The fields. Missing fields take their default.

    Raises
    ------
    ConfigError
        A key is unknown (the nearest is named), is missing and has no default, or has the wrong type.
    """
    fields = {field.name: field for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    for key in values:
        if key not in fields:
            near = difflib.get_close_matches(key, fields, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"one of: {', '.join(fields)}"
            raise ConfigError(f"{cls.__name__} has no key {key!r}.", "a known key", hint)
    hints = typing.get_type_hints(cls)
    built = {key: _build(hints[key], value, f"{cls.__name__}.{key}") for key, value in values.items()}
    missing = [
        name
        for name, field in fields.items()
        if name not in built and field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise ConfigError(f"{cls.__name__} lacks {', '.join(missing)}.", "every key without a default")
    return cls(**built)


def _build(hint: Any, value: Any, where: str) -> Any:
    """Return `value` as type `hint`, or raise `ConfigError` that names `where`."""
    origin = get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        options = get_args(hint)
        if value is None and type(None) in options:
            return None
        rest = [option for option in options if option is not type(None)]
        return _build(rest[0], value, where) if len(rest) == 1 else value
    if dataclasses.is_dataclass(hint):
        if not isinstance(value, Mapping):
            raise ConfigError(f"{where} is {value!r}.", "a mapping of keys to values")
        return from_dict(typing.cast(type, hint), value)
    if origin is tuple:
        inner = get_args(hint)
        kinds = [inner[0]] * len(value) if len(inner) == 2 and inner[1] is Ellipsis else list(inner)
        return tuple(_build(kind, item, where) for kind, item in zip(kinds, value, strict=True))
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(hint, type) and (not isinstance(value, hint) or (hint is int and isinstance(value, bool))):
        raise ConfigError(f"{where} is {value!r}.", f"a value of type {hint.__name__}")
    return value
