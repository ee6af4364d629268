"""What lies below a folder, and that a refused call left it as it was."""

from __future__ import annotations

from pathlib import Path

import pytest

from cellingua.cli.main import main


def everything(folder: Path) -> dict[str, bytes]:
    """Return every file below a folder with its contents, and folders with a mark."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else b"<folder>"
        for path in sorted(folder.rglob("*"))
    }


def refused(call: list[str], folder: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """Assert that a call exits with 2 and leaves everything below a folder as it was; return what it said."""
    before = everything(folder)
    assert main(call) == 2
    shown = capsys.readouterr().err
    assert "Traceback" not in shown
    assert "unexpected" not in shown
    assert everything(folder) == before
    return shown
