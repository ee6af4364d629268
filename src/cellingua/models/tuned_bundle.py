"""A tuned model as a folder of its own: the files of its base, and what tuning changed or added.

Nothing in it points at the base: it can be moved, and the base can be removed.
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from cellingua.core.errors import ModelError
from cellingua.core.files import atomic_folder, write_text
from cellingua.models.bundle import TERMS, TEXT, TEXT_SIDE, pack_terms
from cellingua.models.folder import CARD, WEIGHTS, read_config, write_config
from cellingua.models.manifest import read_manifest, write_manifest
from cellingua.models.model import LangCellModel
from cellingua.models.seen import read_seen
from cellingua.models.storage import pack

if TYPE_CHECKING:
    from cellingua.models.tuned import Model


def save_tuned(
    folder: Path,
    model: Model,
    *,
    name: str,
    description: str,
    card: str,
    cells_changed: bool = False,
    texts_changed: bool = False,
) -> None:
    """Write the folder of a model with a head; it appears complete or not at all, and replaces one that is there.

    Parameters
    ----------
    folder
        Where.
    model
        With its head, and the folder of its base: what was not tuned is copied from there byte by byte. What it saw
        is ``model.head.seen``.
    name, description, card
        For people.
    cells_changed, texts_changed
        Which towers were tuned: their weights are written anew, exactly (float32), and with a tuned text tower the
        vectors of the terms.

    Raises
    ------
    ModelError
        The model was not loaded from a folder, or a file there is damaged by now.
    """
    if model.folder is None or model.head is None:
        raise ModelError(f"{model.name} has no folder, or no head.", "a model that was loaded from one, and tuned")
    manifest = read_manifest(model.folder)
    with atomic_folder(Path(folder)) as partial:
        for file, entry in manifest.files.items():
            if entry.optional and not (model.folder / file).is_file():
                continue
            (partial / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(manifest.verified(file), partial / file)
        write_config(partial, str(read_config(model.folder)["kind"]), name, description, model.config)
        write_text(partial / CARD, card)
        if cells_changed:
            (partial / WEIGHTS).write_bytes(pack(_side(model, text=False), "float32"))
        if texts_changed and isinstance(model, LangCellModel):
            (partial / TEXT).write_bytes(pack(_side(model, text=True), "float32"))
            (partial / TERMS).write_bytes(pack_terms(model.term_ids, model.term_vectors, model.supported))
        model.head.save(partial)
        seen = model.head.seen or read_seen(model.folder)
        if seen is not None:
            # Cells that it was tuned on and that nobody wrote down are missing in what its base saw.
            (seen if model.head.seen else replace(seen, complete=False)).save(partial)
        write_manifest(partial, optional=manifest.optional)


def _side(model: Model, *, text: bool) -> dict[str, Tensor]:
    """Return the weights of the text side or of all else."""
    module = getattr(model, "module", None) or model.tower  # type: ignore[union-attr]
    weights = module.state_dict()
    return {name: tensor for name, tensor in weights.items() if name.startswith(TEXT_SIDE) == text}
