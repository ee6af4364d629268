"""Fixtures of the tests of the command line."""

from __future__ import annotations

from pathlib import Path

import pytest
import small_world


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """An h5ad of 40 cells, alone in its folder."""
    path = tmp_path / "data" / "cells.h5ad"
    path.parent.mkdir()
    small_world.cells(40).write_h5ad(path)
    return path
