"""The direction of imports: a file imports from lower levels or its own room, and never from a room beside it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[1] / "src" / "cellingua"
ROOMS = {
    "core": 0,
    **dict.fromkeys(("cells", "words", "molecules", "nn", "objectives", "engine", "measures"), 1),
    **dict.fromkeys(("calibration", "baselines", "training"), 2),
    "models": 3,
    "recipes": 4,
    "tasks": 5,
    "report": 6,
    "bench": 7,
    **dict.fromkeys(("cli", "explore", "tl", "pp", "pl", "datasets", "__main__"), 8),
}
#: Below the tasks this file alone knows AnnData.
KNOWS_ANNDATA = "cells/reading.py"


def room_of(path: Path) -> str:
    """Return the room of a file: the folder or, on the top floor, the file itself."""
    return path.relative_to(SOURCE).with_suffix("").parts[0]


def imported(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield (line, dotted name) of everything that is imported, anywhere in a file."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            yield from ((node.lineno, f"{module}.{alias.name}") for alias in node.names)


def offences(where: str, room: str, text: str) -> list[str]:
    """Return what a file of `room` imports against the arrows."""
    found = []
    for line, name in imported(ast.parse(text)):
        parts = name.split(".")
        if name.startswith("."):
            found.append(f"{where}:{line} imports {name!r}, a relative name")
        elif parts[0] == "anndata" and ROOMS[room] < ROOMS["tasks"] and where != KNOWS_ANNDATA:
            found.append(f"{where}:{line} knows AnnData")
        elif parts[0] == "cellingua" and parts[1:] != ["__version__"]:
            other = parts[1] if len(parts) > 1 else "cellingua"
            if other not in ROOMS:
                found.append(f"{where}:{line} imports {name!r}, which is in no room of the map")
            elif other != room and ROOMS[other] >= ROOMS[room]:
                found.append(f"{where}:{line} ({room}, level {ROOMS[room]}) imports {name} (level {ROOMS[other]})")
    return found


def files() -> list[Path]:
    """Return every file that stands in a room."""
    return sorted(path for path in SOURCE.rglob("*.py") if path.parent != SOURCE or path.stem != "__init__")


def test_every_file_stands_in_a_room_of_the_map() -> None:
    assert len(files()) > 50
    assert sorted({room_of(path) for path in files()} - set(ROOMS)) == []


def test_imports_point_downwards() -> None:
    found = [
        offence
        for path in files()
        for offence in offences(path.relative_to(SOURCE).as_posix(), room_of(path), path.read_text(encoding="utf-8"))
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("room", "text", "says"),
    [
        ("core", "from cellingua.cells import genes", "level 1"),
        ("cells", "import cellingua.words.ontology", "level 1"),
        ("models", "def f():\n    from cellingua.tasks.annotate import annotate", ":2"),
        ("tl", "from cellingua.cli import main", "level 8"),
        ("nn", "import cellingua.attic", "no room"),
        ("nn", "import cellingua as cl", "no room"),
        ("nn", "from . import heads", "relative"),
        ("recipes", "import anndata as ad", "AnnData"),
    ],
)
def test_an_arrow_the_wrong_way_is_seen(room: str, text: str, says: str) -> None:
    (offence,) = offences("x.py", room, text)
    assert says in offence


@pytest.mark.parametrize(
    ("room", "text"),
    [
        ("cells", "from cellingua.core.errors import FileError\nfrom cellingua.cells import genes\nimport torch"),
        ("tasks", "from anndata import AnnData\nfrom cellingua import __version__"),
        ("cli", "from cellingua.cli.options import add"),
    ],
)
def test_an_arrow_the_right_way_passes(room: str, text: str) -> None:
    assert offences("x.py", room, text) == []
