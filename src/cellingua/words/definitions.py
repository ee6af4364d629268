"""A user's own definitions, from JSON or from a table."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from cellingua.core.errors import FileError, InputError

_FORM = 'JSON {"CL:0000236": "a definition", ...}, or lines of id or name, a tab, and a definition, in UTF-8'


def definition_key(text: str) -> str:
    """Return an id or a name as it is compared: any case, single blanks."""
    return " ".join(text.split()).lower()


def own_definitions(definitions: Mapping[str, str]) -> dict[str, str]:
    """Return definitions by their compared keys.

    Raises
    ------
    InputError
        Two keys that differ in case or blanks alone, or an empty one.
    """
    return _collect(definitions.items(), "The definitions")


def read_definitions(path: Path | str) -> dict[str, str]:
    """Return definitions of a file: key (an ontology id, or a name in any case) -> definition, ``""`` for none.

    A file that ends in ``.json`` is an object of texts, or of ``{"name": ..., "def": ...}`` as in LangCell's
    ``obo.json`` (where ``[]`` means none); any other is lines of key, tab and definition, with blank lines and
    lines that start with ``#`` skipped.

    Raises
    ------
    FileError
        The file can't be read, or isn't of that form.
    InputError
        A key is repeated (in any case) or empty.
    """
    path = Path(path)
    try:
        text = path.read_bytes().removeprefix(codecs.BOM_UTF8).decode("utf-8")
    except OSError as error:
        raise FileError(f"{path} can't be read ({error.strerror or error}).", _FORM) from error
    except UnicodeDecodeError as error:
        raise FileError(f"{path} is not UTF-8 text (byte {error.start}).", _FORM, "saving it as UTF-8") from error
    pairs = _from_json(path, text) if path.suffix.lower() == ".json" else _from_lines(path, text)
    found = _collect(pairs, str(path))
    if not found:
        raise FileError(f"{path} holds no definition.", _FORM)
    return found


def _collect(pairs: Iterable[tuple[str, str]], where: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for key, definition in pairs:
        compared = definition_key(key)
        if not compared:
            raise InputError(f"{where}: a definition has an empty key.", "an ontology id or a name")
        if compared in found:
            raise InputError(
                f"{where}: {key[:80]!r} is defined twice.", "one definition a key", "removing all but one of them"
            )
        found[compared] = " ".join(definition.split())
    return found


def _from_json(path: Path, text: str) -> list[tuple[str, str]]:
    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        _collect(((key, "") for key, _ in pairs), str(path))
        return dict(pairs)

    try:
        held = json.loads(text, object_pairs_hook=once)
    except (ValueError, RecursionError) as error:
        raise FileError(f"{path} is not JSON ({str(error)[:100]}).", _FORM) from error
    if not isinstance(held, dict):
        raise FileError(f"{path} holds no JSON object at its top.", _FORM)
    pairs = []
    for key, value in held.items():
        if isinstance(value, dict) and {"def", "definition"} <= set(value):
            raise FileError(f"{path}: {key[:80]!r} has both 'def' and 'definition'.", _FORM, "one of them")
        definition = value.get("def", value.get("definition")) if isinstance(value, dict) else value
        if definition == []:
            definition = ""
        if not isinstance(definition, str):
            raise FileError(f"{path}: the definition of {key[:80]!r} is no text.", _FORM)
        pairs.append((key, definition))
    return pairs


def _from_lines(path: Path, text: str) -> list[tuple[str, str]]:
    if "\0" in text:
        raise FileError(f"{path} is not a text file.", _FORM)
    pairs = []
    for number, line in enumerate(re.split(r"\r\n|\r|\n", text), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        key, tab, definition = line.partition("\t")
        if not tab or "\t" in definition.rstrip("\t"):
            raise FileError(f"Line {number} of {path} has {line.count(chr(9))} tabs.", _FORM, "one tab a line")
        pairs.append((key, definition))
    return pairs
