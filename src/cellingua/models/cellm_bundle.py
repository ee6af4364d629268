"""A CellLM model as one folder, and back: the same kind of folder as LangCell's, without words.

::

    config.json           format_version, kind "cellm", name, description, architecture and bins
    weights.safetensors   encoder with gene embeddings and random features, heads
    genes.tsv.gz          ensembl_id, symbol, token (the gene's number in the model), median (1: not used)
    card.md
    seen.json, seen.filter   what it was trained on (optional: see `cellingua.models.seen`)
    head.json, head.safetensors   classes of its own, in a tuned model (see `cellingua.models.tuned`)
    manifest.json         size and SHA-256 of each file
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cellingua.models.cellm import CellLMConfig, CellLMModel, CellLMModule
from cellingua.models.folder import CELLM, CONFIG, GENES, WEIGHTS, load_weights, open_folder, write_folder
from cellingua.models.gene_table import GeneTable, read_gene_table
from cellingua.models.seen import Seen
from cellingua.models.tuned import read_head

REQUIRED = (CONFIG, WEIGHTS, GENES)


@dataclass(frozen=True)
class CellLMParts:
    """What a CellLM folder is made of.

    Parameters
    ----------
    name, description
        For people; the description is one line.
    module
        The weights.
    genes
        The model's genes: see `numbered_genes`.
    card
        The model card, in Markdown.
    seen
        What it was trained on, None where that is not known.
    """

    name: str
    description: str
    module: CellLMModule
    genes: GeneTable
    card: str = ""
    seen: Seen | None = None


def numbered_genes(ensembl_ids: np.ndarray, symbols: np.ndarray, numbers: np.ndarray | None = None) -> GeneTable:
    """Return the table of genes that are numbered 0, 1, 2, …, or by `numbers`."""
    numbers = np.arange(len(ensembl_ids)) if numbers is None else numbers
    ids, names = np.asarray(ensembl_ids, dtype=np.str_), np.asarray(symbols, dtype=np.str_)
    return GeneTable(ids, names, numbers.astype(np.int32), np.ones(len(ids)))


def save_cellm(folder: Path, parts: CellLMParts, *, storage: str = "float16") -> None:
    """Write a model folder; it appears complete or not at all, and replaces one that is there.

    Parameters
    ----------
    folder
        Where.
    parts
        What.
    storage
        ``float32``, ``float16`` or ``int8``.
    """
    write_folder(folder, CELLM, parts, parts.module.config, parts.module.state_dict(), storage)


def load_cellm(folder: Path, device: str = "cpu") -> CellLMModel:
    """Load a model folder.

    Raises
    ------
    ModelError
        A file is missing, damaged, or does not fit the others; the first one is named.
    """
    folder = Path(folder)
    manifest, held, config = open_folder(folder, CELLM, REQUIRED, CellLMConfig)
    model = CellLMModel(
        name=held["name"],
        hash=manifest.hash,
        config=config,
        module=load_weights(folder, lambda: CellLMModule(config), device),
        genes=read_gene_table(folder / GENES),
        device=device,
        folder=folder,
    )
    model.head = read_head(manifest, model)
    return model
