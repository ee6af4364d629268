"""CellLM: an encoder of binned expression, with its heads (Zhao, Zhang, Nie, arXiv 2306.04371); scBERT is one too."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from torch import Tensor, nn

from cellingua.cells.binned import BinConfig, BinnedCells, bin_cells
from cellingua.core.errors import ConfigError, InputError, ModelError
from cellingua.models.gene_table import GeneTable
from cellingua.models.inputs import Counts
from cellingua.models.model import TOKEN_BUDGET
from cellingua.nn.batch import BinnedBatch
from cellingua.nn.performer import Performer, PerformerConfig, PerformerStates

if TYPE_CHECKING:
    from cellingua.models.tuned import ClassHead

POOLINGS = ("cls", "mean")
#: ``exact`` attention: squared length times cells, at most.
PAIR_BUDGET = 1 << 25
#: On a processor: numbers in the widest intermediate result, at most (32 MB, the largest block that is kept for reuse).
WIDEST_BUDGET = 1 << 23


@dataclass(frozen=True)
class CellLMConfig:
    """What a CellLM model is made of.

    Parameters
    ----------
    performer
        The encoder.
    bins
        How counts become tokens.
    discrimination
        Whether there is a head that tells tumour from normal cells.
    gene_table
        Where the gene embeddings come from, for people.
    """

    performer: PerformerConfig
    bins: BinConfig = field(default_factory=BinConfig)
    discrimination: bool = True
    gene_table: str = ""

    def __post_init__(self) -> None:
        special = 1 if self.performer.every_gene else 2
        if self.bins.bins != self.performer.tokens - special - 1:
            raise ConfigError(
                f"The highest bin is {self.bins.bins} and there are {self.performer.tokens} tokens.",
                f"{self.bins.bins + 1 + special} tokens",
            )
        padded = self.performer.padded_length
        if padded is not None and (self.bins.length is None or self.bins.length > padded):
            raise ConfigError(f"Cells of {self.bins.length} tokens, padded to {padded}.", "no more tokens than that")

    @classmethod
    def paper(cls, genes: int = 19_379, *, attention: str = "favor") -> CellLMConfig:
        """CellLM at its own size; the encoder has 51,926,536 parameters at 19,379 genes."""
        padded = 6000 if attention == "compat" else None
        return cls(PerformerConfig(genes, attention=attention, padded_length=padded))

    @classmethod
    def mini(cls, genes: int, *, width: int = 128, layers: int = 2, dropout: float = 0.1) -> CellLMConfig:
        """A size that trains on two cores."""
        return cls(PerformerConfig(genes, width=width, layers=layers, heads=4, head_width=32, features=110,
                                   ff_mult=2, dropout=dropout), BinConfig(length=2048))  # fmt: skip


class CellLMModule(nn.Module):
    """The encoder and, where configured, the head for normal and tumour cells: linear on CLS, one logit."""

    def __init__(self, config: CellLMConfig) -> None:
        super().__init__()
        self.config = config
        self.performer = Performer(config.performer)
        self.discriminator = nn.Linear(config.performer.width, 1) if config.discrimination else None

    @classmethod
    def paper(cls, genes: int = 19_379) -> CellLMModule:
        """Return CellLM at its own size with random weights."""
        return cls(CellLMConfig.paper(genes))

    def forward(self, batch: BinnedBatch) -> PerformerStates:
        """Return the encoder's states."""
        return self.performer(batch)

    def logits(self, hidden: Tensor) -> Tensor:
        """Return the logits of the expression tokens, (..., tokens)."""
        return self.performer.logits(hidden)

    def discrimination(self, cls: Tensor) -> Tensor:
        """Return the logit of "tumour" of each cell, (B,), from the state of CLS."""
        if self.discriminator is None:
            raise ValueError("this model has no head for normal and tumour cells")
        return self.discriminator(cls).squeeze(-1)


@dataclass
class CellLMModel:
    """CellLM with its genes: counts in, embeddings out.

    Parameters
    ----------
    name, hash
        Name for people, and the first 16 hexadecimal digits of the manifest's SHA-256.
    config
        Architecture and tokens.
    module
        The weights, in evaluation mode.
    genes
        The model's genes; a gene's token is its number in the model. Genes that no list names are not in it.
    folder
        Where it was loaded from.
    head
        Classes of its own, in a tuned model.
    """

    name: str
    hash: str
    config: CellLMConfig
    module: CellLMModule
    genes: GeneTable
    device: str = "cpu"
    folder: Path | None = None
    head: ClassHead | None = None

    def __post_init__(self) -> None:
        top, genes = int(self.genes.tokens.max()), self.config.performer.genes
        if top >= genes:
            raise ModelError(
                f"The gene table of {self.name} holds the gene number {top}, and the encoder {genes} genes.",
                "a gene table and an encoder that were made together",
            )

    @property
    def width(self) -> int:
        """Width of an embedding."""
        return self.config.performer.width

    @cached_property
    def _gene_of_column(self) -> NDArray[np.int32]:
        """int32 (vocabulary,): the model's gene of each column of the vocabulary, -1 for none."""
        return self.genes.on_vocabulary[0]

    def select(self, counts: csr_matrix) -> csr_matrix:
        """Return counts over the vocabulary (cells, vocabulary) as counts over the model's genes, in its order."""
        gene = self._gene_of_column[counts.indices]
        kept = gene >= 0
        indptr = np.concatenate([[0], np.cumsum(kept)])[counts.indptr]
        shape = (counts.shape[0], self.config.performer.genes)
        return csr_matrix((counts.data[kept], gene[kept], indptr), shape=shape)

    def bin(self, block: Counts) -> BinnedCells:
        """Return the binned tokens of a block of counts over the vocabulary's genes."""
        return bin_cells(self.select(block.counts), block.totals, self.config.bins)

    @torch.inference_mode()
    def encode_cells(self, binned: BinnedCells, batch_size: int = 256, *, pooling: str = "cls") -> NDArray[np.float32]:
        """Return one vector a cell.

        Parameters
        ----------
        binned
            Cells as `bin` returns them.
        batch_size
            Most cells at a time; cells of like length are taken together, long ones in smaller groups.
        pooling
            ``cls``: the state of CLS. ``mean``: the mean over the genes of the cell.

        Returns
        -------
        ndarray
            float32 (cells, width). A row depends on that cell alone; a model in ``compat`` mode gives each cell what
            the released code gives it alone in its minibatch.
        """
        if pooling not in POOLINGS:
            raise InputError(f"pooling is {pooling!r}.", " or ".join(repr(name) for name in POOLINGS))
        out = np.empty((len(binned), self.width), dtype=np.float32)
        for rows in self.groups(binned.lengths, batch_size):
            states = self.module.performer(self.module.performer.batch(binned.take(rows)), together=False)
            out[rows] = (states.cls if pooling == "cls" else states.mean).float().cpu().numpy()
        return out

    def groups(self, lengths: NDArray[np.integer], batch_size: int) -> Iterator[NDArray[np.int64]]:
        """Yield rows in groups of like length, the longest first, within the budgets."""
        performer = self.config.performer
        if performer.every_gene:
            lengths = np.full(len(lengths), performer.genes)
        widest = max(performer.heads * performer.features, performer.ff_mult * performer.width)
        tokens = TOKEN_BUDGET if self.device != "cpu" else min(TOKEN_BUDGET, WIDEST_BUDGET // widest)
        order = np.argsort(lengths, kind="stable")
        stop = len(order)
        while stop > 0:
            longest = int(lengths[order[stop - 1]]) + 2
            budget = tokens // longest
            if performer.attention == "exact":
                budget = min(budget, PAIR_BUDGET // longest**2)
            size = max(1, min(batch_size, budget))
            yield order[max(0, stop - size) : stop]
            stop -= size
