"""Parts that the cards of all models have: tables, values, and how a model was trained."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from cellingua.core.runtime import hardware, versions

MOST = 200  # characters of free text


def plain(text: str) -> str:
    """Return free text of a file as it may stand in Markdown."""
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")[:MOST]


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table in Markdown; its cells may be free text."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(plain(cell) for cell in line) + " |" for line in lines)


def values(held: Any) -> str:
    """Return JSON values as a block of code."""
    return "```json\n" + json.dumps(held, indent=1) + "\n```"


def how(config: Any, done: str = "Trained") -> list[str]:
    """Return the section that says by which configuration, with which versions and on what a model was made."""
    return ["## How", values(config), f"{done} with {json.dumps(versions())} on {json.dumps(hardware())}."]
