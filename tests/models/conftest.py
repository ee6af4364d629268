"""Fixtures of the tests of models."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny_model as tiny

from cellingua.models.bundle import save_bundle


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A folder with a tiny bag model, float32."""
    save_bundle(tmp_path / "shelf" / "tiny", tiny.parts(), storage="float32")
    return tmp_path / "shelf" / "tiny"
