"""Fixtures shared by all tests."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from cellingua.models.model import LangCellModel

ROOT = Path(__file__).resolve().parents[1]

# How long an example takes says more about the machine than about the code.
settings.register_profile("cellingua", deadline=None)
settings.load_profile("cellingua")


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of shared data and parity fixtures, where it is at hand (developers' machines and CI)."""
    folder = ROOT.parent / "shared"
    if not folder.is_dir():
        pytest.skip("the shared data folder is not beside this checkout")
    return folder


@pytest.fixture(scope="session")
def small_model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a small real model that knows the planted cell types of `small_world`."""
    import small_world

    return small_world.save_model(tmp_path_factory.mktemp("models") / "small_world")


@pytest.fixture(scope="session")
def matching_model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of such a model that has a match head, too (with random weights)."""
    import small_world

    return small_world.save_model(tmp_path_factory.mktemp("models") / "matching_world", match=True)


@pytest.fixture
def matching_model(matching_model_folder: Path) -> LangCellModel:
    """The same model, loaded."""
    import small_world

    return small_world.model(matching_model_folder)


@pytest.fixture
def small_model(small_model_folder: Path) -> LangCellModel:
    """The same model, loaded."""
    import small_world

    return small_world.model(small_model_folder)
