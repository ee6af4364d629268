"""Models by name: those that the package ships, and any folder."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import Path

from cellingua.core.errors import ModelError
from cellingua.models.bundle import load_bundle
from cellingua.models.cellm import CellLMModel
from cellingua.models.cellm_bundle import load_cellm
from cellingua.models.folder import CELLM, CONFIG, read_config
from cellingua.models.manifest import read_manifest
from cellingua.models.model import LangCellModel

BUNDLED = Path(__file__).resolve().parents[1] / "data" / "models"
DEFAULT = "langcell_mini"


@dataclass(frozen=True)
class ModelInfo:
    """What `list_models` tells of a model: `size` is in bytes, `description` one line."""

    name: str
    size: int
    description: str
    folder: Path


def list_models(shelf: Path = BUNDLED) -> list[ModelInfo]:
    """Return the models on the shelf, by name; their weights are not read."""
    folders = sorted(path.parent for path in shelf.glob(f"*/{CONFIG}"))
    return [
        ModelInfo(path.name, read_manifest(path).size, str(read_config(path)["description"]), path) for path in folders
    ]


def find_model(name_or_folder: str | Path, shelf: Path = BUNDLED) -> Path:
    """Return the folder of a model.

    Parameters
    ----------
    name_or_folder
        A name on the shelf, or the path of a model folder.
    shelf
        Where the named models lie.

    Raises
    ------
    ModelError
        Neither exists; the known names are listed, the nearest first.
    """
    known = sorted(path.parent.name for path in shelf.glob(f"*/{CONFIG}"))
    if str(name_or_folder) in known:
        return shelf / str(name_or_folder)
    folder = Path(name_or_folder)
    if folder.is_dir():
        return folder
    near = difflib.get_close_matches(str(name_or_folder), known, n=len(known) or 1)
    names = ", ".join([*near, *(name for name in known if name not in near)]) or "none is installed"
    raise ModelError(
        f"There is no model {str(name_or_folder)!r}.", "the path of a model folder, or a known name", names
    )


def load_model(name_or_folder: str | Path = DEFAULT, device: str = "cpu", shelf: Path = BUNDLED) -> LangCellModel:
    """Load a LangCell model by name or folder; every file is checked before it's read.

    Raises
    ------
    ModelError
        There is no such model (`find_model`), it is damaged (`load_bundle`), or it is a CellLM, which has no words.
    """
    model = load_any(name_or_folder, device, shelf)
    if not isinstance(model, LangCellModel):
        raise ModelError(
            f"{name_or_folder} is a CellLM, which embeds cells and knows no words.",
            "a LangCell model",
            f"{DEFAULT}, or cellingua embed with this one",
        )
    return model


def load_any(
    name_or_folder: str | Path = DEFAULT, device: str = "cpu", shelf: Path = BUNDLED
) -> LangCellModel | CellLMModel:
    """Load a model of either kind by name or folder; every file is checked before it's read."""
    folder = find_model(name_or_folder, shelf)
    read_manifest(folder)  # says best what is wrong with a folder that is no model
    kind = read_config(folder)["kind"]
    return load_cellm(folder, device) if kind == CELLM else load_bundle(folder, device)
