"""A tiny CellLM over real genes, and released-format checkpoints of it, for tests."""

from __future__ import annotations

import numpy as np
import torch
from scipy.sparse import csr_matrix

from cellingua.cells.binned import BinConfig
from cellingua.cells.counts import CountBlock
from cellingua.cells.genes import load_vocabulary
from cellingua.models.cellm import CellLMConfig, CellLMModel, CellLMModule
from cellingua.models.cellm_bundle import CellLMParts, numbered_genes
from cellingua.models.convert_cellm import COUNTER, their_name
from cellingua.nn.performer import PerformerConfig

GENES, LENGTH = 80, 40


def vocabulary_rows() -> np.ndarray:
    """Return the vocabulary's rows of the model's genes, in the model's order (not the vocabulary's)."""
    return np.random.default_rng(0).permutation(2000)[:GENES]


def module(attention: str = "favor", *, every_gene: bool = False, discrimination: bool = True) -> CellLMModule:
    """Return a model with weights that differ from their start."""
    torch.manual_seed(0)
    padded = LENGTH if attention == "compat" and not every_gene else None
    performer = PerformerConfig(
        GENES, 7 if every_gene else 8, 16, 2, 2, 8, 20, attention=attention, padded_length=padded, every_gene=every_gene
    )  # fmt: skip
    bins = BinConfig(length=None if every_gene else LENGTH)
    made = CellLMModule(CellLMConfig(performer, bins, discrimination=discrimination))
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    made.performer.set_gene_table(torch.randn(GENES, 16))
    return made.requires_grad_(False).eval()


def parts(attention: str = "favor", rows: np.ndarray | None = None) -> CellLMParts:
    """Return a whole folder, of the genes in `rows` of the vocabulary where given."""
    vocabulary, rows = load_vocabulary(), vocabulary_rows() if rows is None else rows[:GENES]
    genes = numbered_genes(vocabulary.ensembl_ids[rows], vocabulary.symbols[rows])
    return CellLMParts("tiny_cellm", "random weights", module(attention), genes, "# Tiny\n")


def model(attention: str = "favor", rows: np.ndarray | None = None) -> CellLMModel:
    """Return the model of that folder."""
    held = parts(attention, rows)
    return CellLMModel(held.name, "0" * 16, held.module.config, held.module, held.genes)


def checkpoint(made: CellLMModule) -> dict[str, torch.Tensor]:
    """Return the encoder's weights under their released names."""
    held = {their_name(name): tensor.clone() for name, tensor in made.performer.state_dict().items()}
    return {**held, COUNTER: torch.tensor(17)}


def block(cells: int = 9, seed: int = 0) -> CountBlock:
    """Return counts over the vocabulary; the model knows some of the genes."""
    vocabulary, rng = load_vocabulary(), np.random.default_rng(seed)
    dense = np.zeros((cells, len(vocabulary)), np.float32)
    dense[:, :2000] = rng.poisson(1.5, (cells, 2000)) * (rng.random((cells, 2000)) < np.linspace(0, 1, cells)[:, None])
    counts = csr_matrix(dense)
    return CountBlock(
        0, cells, counts, dense.sum(axis=1, dtype=np.float64) + 5, np.diff(counts.indptr).astype(np.int64)
    )
