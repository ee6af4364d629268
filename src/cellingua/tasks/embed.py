"""Embeddings of cells: LangCell's joint space with texts, its tower's own state, or a CellLM's or Geneformer's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from anndata import AnnData

from cellingua.cells.binned import crowding
from cellingua.cells.counts import CountBlocks
from cellingua.cells.diagnosis import Diagnosis
from cellingua.cells.doctor import examine
from cellingua.cells.reading import CellFile, open_cells
from cellingua.core.errors import InputError
from cellingua.core.progress import Progress, Silent
from cellingua.core.runtime import pick_device, versions
from cellingua.models.cellm import CellLMModel
from cellingua.models.geneformer import GeneformerModel
from cellingua.models.model import LangCellModel
from cellingua.models.shelf import load_any
from cellingua.nn.precision import Precision, choose
from cellingua.tasks.options import MODEL
from cellingua.tasks.scoring import ROWS, embed_blocks

KEYS = {"joint": "X_langcell", "cls": "X_langcell_cls"}
CELLM_KEY, GENEFORMER_KEY = "X_cellm", "X_geneformer"

Model = LangCellModel | CellLMModel | GeneformerModel


def embed(
    cells: AnnData | CellFile | str | Path,
    *,
    model: str | Path | Model = MODEL,
    state: str = "joint",
    layer: str | None = None,
    overwrite: bool = False,
    device: str = "auto",
    precision: str = "auto",
    progress: Progress | None = None,
) -> np.ndarray:
    """Return the embedding of every cell, float32 (n, d).

    Parameters
    ----------
    cells
        An AnnData (the embedding is written to ``obsm["X_langcell"]`` or ``obsm["X_langcell_cls"]``; with a CellLM,
        to ``obsm["X_cellm"]``, with a Geneformer, to ``obsm["X_geneformer"]``; what made it, to ``uns`` under the
        same key), or a path.
    model
        Name of a bundled model, a model folder, or a loaded model.
    state
        ``joint``: unit length, comparable with texts. ``cls``: the tower's pooled state before projection. A CellLM
        has one state, that of CLS, whatever is asked for, and a Geneformer the one that its folder says.
    layer
        Layer that holds the counts; by default they are looked for.
    overwrite
        Replace the key if it is there.
    device
        ``auto``, ``cpu``, ``cuda`` or ``mps``, for a model that isn't loaded yet.
    precision
        ``auto`` (bfloat16 for a BERT tower where the device has it), ``float32``, ``bfloat16`` or ``int8``, for a model
        that isn't loaded yet. What was chosen, and why, stands in ``uns``.
    progress
        Where to report.

    Raises
    ------
    InputError
        The cells can't be used, `state` is neither, the key exists and `overwrite` is False, or there is no such
        precision.
    """
    loaded = model
    if isinstance(loaded, str | Path):
        loaded = load_any(loaded, device=pick_device(device).name, precision=precision)
    key = embedding_key(state, loaded)
    if isinstance(cells, AnnData) and key in cells.obsm and not overwrite:
        raise InputError(f"obsm has a key {key!r} already.", "a key that is free", "overwrite=True to replace it")
    source = cells if isinstance(cells, CellFile) else open_cells(cells)
    diagnosis = examine(source, layer=layer)
    values = embed_cells(source, diagnosis, loaded, state, progress or Silent())
    if isinstance(cells, AnnData):
        cells.obsm[key] = values
        cells.uns[key] = embedding_provenance(loaded, diagnosis)
    return values


def embedding_provenance(model: Model, diagnosis: Diagnosis) -> dict[str, Any]:
    """Return what an embedding was made of and by, as it stands in ``uns`` under the key of the embedding."""
    read_in = precision_of(model)
    return {
        "model": model.name,
        "hash": model.hash,
        "counts": diagnosis.place,
        "precision": read_in.name,
        "precision_reason": read_in.reason,
        "versions": versions(),
    }


def precision_of(model: Model) -> Precision:
    """Return the precision that a model reads cells in, and why."""
    if isinstance(model, CellLMModel):
        return Precision("float32", "a CellLM is always read in float32")
    return choose(model.precision, model.device) if isinstance(model, GeneformerModel) else model.reading


def embedding_key(state: str, model: Model) -> str:
    """Return the key of ``obsm`` for a state of a model, or refuse a state that does not exist."""
    if state not in KEYS:
        raise InputError(f"There is no state {state!r}.", " or ".join(KEYS))
    if isinstance(model, GeneformerModel):
        return GENEFORMER_KEY
    return CELLM_KEY if isinstance(model, CellLMModel) else KEYS[state]


def embed_cells(cells: CellFile, diagnosis: Diagnosis, model: Model, state: str, progress: Progress) -> np.ndarray:
    """Return the embedding of an opened file in row blocks, float32 (n, d); 0 for a cell without a single token."""
    diagnosis.raise_if_refused()
    progress.step("Embedding cells", cells.n_cells)
    blocks = CountBlocks(cells, diagnosis)
    if isinstance(model, CellLMModel):
        return _embed_binned(blocks, model, progress)
    parts = []
    for block, embedding, _ in embed_blocks(blocks, model, state):
        parts.append(embedding)
        progress.advance(block.stop - block.start)
    return np.concatenate(parts)


def _embed_binned(blocks: CountBlocks, model: CellLMModel, progress: Progress) -> np.ndarray:
    """Return CellLM's embeddings, and tell what its tokens leave out or crowd together."""
    top = model.config.bins.bins
    parts, histogram, truncated = [], np.zeros(top + 1, np.int64), 0
    for block in blocks.blocks(ROWS):
        binned = model.bin(block)
        embedding = model.encode_cells(binned)
        embedding[binned.lengths == 0] = 0.0
        parts.append(embedding)
        histogram += binned.histogram(top)
        truncated += int(binned.truncated.sum())
        progress.advance(block.stop - block.start)
    if truncated:
        progress.say(
            f"{truncated:,} cells hold more than {model.config.bins.length:,} tokens; the genes beyond that were left "
            f"out (policy: {model.config.bins.beyond})."
        )
    warning = crowding(histogram)
    if warning is not None:
        progress.say(warning)
    return np.concatenate(parts)
