"""Embeddings of cells: the joint space of cells and texts, or the tower's own state."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from anndata import AnnData

from cellingua.cells.counts import CountBlocks
from cellingua.cells.diagnosis import Diagnosis
from cellingua.cells.doctor import examine
from cellingua.cells.reading import CellFile, open_cells
from cellingua.core.errors import InputError
from cellingua.core.progress import Progress, Silent
from cellingua.core.runtime import pick_device
from cellingua.models.model import LangCellModel
from cellingua.models.shelf import load_model
from cellingua.tasks.options import MODEL
from cellingua.tasks.scoring import embed_blocks

KEYS = {"joint": "X_langcell", "cls": "X_langcell_cls"}


def embed(
    cells: AnnData | CellFile | str | Path,
    *,
    model: str | Path | LangCellModel = MODEL,
    state: str = "joint",
    layer: str | None = None,
    overwrite: bool = False,
    device: str = "auto",
    progress: Progress | None = None,
) -> np.ndarray:
    """Return the embedding of every cell, float32 (n, d).

    Parameters
    ----------
    cells
        An AnnData (the embedding is written to ``obsm["X_langcell"]`` or ``obsm["X_langcell_cls"]``), or a path.
    model
        Name of a bundled model, a model folder, or a loaded model.
    state
        ``joint``: unit length, comparable with texts. ``cls``: the tower's pooled state before projection.
    layer
        Layer that holds the counts; by default they are looked for.
    overwrite
        Replace the key if it is there.
    device
        ``auto``, ``cpu``, ``cuda`` or ``mps``, for a model that isn't loaded yet.
    progress
        Where to report.

    Raises
    ------
    InputError
        The cells can't be used, `state` is neither, or the key exists and `overwrite` is False.
    """
    key = embedding_key(state)
    if isinstance(cells, AnnData) and key in cells.obsm and not overwrite:
        raise InputError(f"obsm has a key {key!r} already.", "a key that is free", "overwrite=True to replace it")
    loaded = model if isinstance(model, LangCellModel) else load_model(model, device=pick_device(device).name)
    source = cells if isinstance(cells, CellFile) else open_cells(cells)
    values = embed_cells(source, examine(source, layer=layer), loaded, state, progress or Silent())
    if isinstance(cells, AnnData):
        cells.obsm[key] = values
    return values


def embedding_key(state: str) -> str:
    """Return the key of ``obsm`` for a state, or refuse a state that does not exist."""
    if state not in KEYS:
        raise InputError(f"There is no state {state!r}.", " or ".join(KEYS))
    return KEYS[state]


def embed_cells(
    cells: CellFile, diagnosis: Diagnosis, model: LangCellModel, state: str, progress: Progress
) -> np.ndarray:
    """Return the embedding of an opened file in row blocks, float32 (n, d)."""
    diagnosis.raise_if_refused()
    progress.step("Embedding cells", cells.n_cells)
    parts = []
    for block, embedding, _ in embed_blocks(CountBlocks(cells, diagnosis), model, state):
        parts.append(embedding)
        progress.advance(block.stop - block.start)
    return np.concatenate(parts)
