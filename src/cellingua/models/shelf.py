"""Models by name: those that the package ships, and any folder."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import Path

from cellingua.core.errors import InputError, ModelError
from cellingua.models.bundle import load_bundle
from cellingua.models.cellm import CellLMModel
from cellingua.models.cellm_bundle import load_cellm
from cellingua.models.folder import CELLM, CONFIG, DRUG, GENEFORMER, read_config
from cellingua.models.geneformer import GeneformerModel, load_geneformer
from cellingua.models.manifest import read_manifest
from cellingua.models.model import LangCellModel
from cellingua.nn.precision import choose

BUNDLED = Path(__file__).resolve().parents[1] / "data" / "models"
DEFAULT = "langcell_mini"
Model = LangCellModel | CellLMModel | GeneformerModel


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


def load_model(
    name_or_folder: str | Path = DEFAULT, device: str = "cpu", shelf: Path = BUNDLED, *, precision: str = "auto"
) -> LangCellModel:
    """Load a LangCell model by name or folder; every file is checked before it's read.

    Parameters
    ----------
    name_or_folder
        As `find_model` takes it.
    device
        Where it computes.
    shelf
        Where the named models lie.
    precision
        Of a BERT cell tower: see `cellingua.nn.precision`.

    Raises
    ------
    ModelError
        There is no such model (`find_model`), it is damaged (`load_bundle`), or it is a CellLM, which has no words.
    InputError
        There is no such precision.
    """
    return _with_words(load_any(name_or_folder, device, shelf, precision=precision), name_or_folder)


def _with_words(model: Model, name_or_folder: str | Path) -> LangCellModel:
    if not isinstance(model, LangCellModel):
        kind = "CellLM" if isinstance(model, CellLMModel) else "Geneformer"
        raise ModelError(
            f"{name_or_folder} is a {kind}, which embeds cells and knows no words.",
            "a LangCell model, or a model that was tuned to classes of its own",
            f"{DEFAULT}, or cellingua embed with this one, or cellingua finetune to give it classes",
        )
    return model


def load_annotator(
    name_or_folder: str | Path = DEFAULT, device: str = "cpu", shelf: Path = BUNDLED, *, precision: str = "auto"
) -> Model:
    """Load a model that can name cells: a LangCell, or any model that was tuned to classes of its own.

    Raises
    ------
    ModelError
        As `load_model`.
    """
    model = load_any(name_or_folder, device, shelf, precision=precision)
    return model if model.head is not None else _with_words(model, name_or_folder)


def load_any(
    name_or_folder: str | Path = DEFAULT, device: str = "cpu", shelf: Path = BUNDLED, *, precision: str = "auto"
) -> Model:
    """Load a model of any kind by name or folder; every file is checked before it's read.

    Raises
    ------
    ModelError
        There is no such model (`find_model`), or it is damaged.
    InputError
        There is no such precision, or this kind of model does not have it: a CellLM computes in float32.
    """
    choose(precision, device)
    folder = find_model(name_or_folder, shelf)
    read_manifest(folder)  # says best what is wrong with a folder that is no model
    kind = read_config(folder)["kind"]
    if kind == DRUG:
        raise ModelError(
            f"{name_or_folder} predicts drug responses, and neither names nor embeds cells.",
            "a model of cells",
            f"{DEFAULT}, or cellingua drug with this one",
        )
    if kind == GENEFORMER:
        return load_geneformer(folder, device, precision)
    if kind != CELLM:
        return load_bundle(folder, device, precision)
    if precision not in ("auto", "float32"):
        raise InputError(f"{name_or_folder} is a CellLM, and can't be read in {precision}.", "auto or float32")
    return load_cellm(folder, device)
