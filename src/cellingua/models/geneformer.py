"""Geneformer: a BERT over ranked genes, without words (Theodoris et al., Nature 2023). It embeds cells.

V1 reads genes alone, 2,048 at most; V2 puts ``<cls>`` before and ``<eos>`` behind them, 4,096 tokens at most. Its
authors take a cell's embedding from the second-last layer: the mean over its genes in V1, the state of ``<cls>`` in V2
(`EmbExtractor` in their code). In a folder::

    config.json           format_version, kind "geneformer", name, description, architecture and pooling
    weights.safetensors   the encoder
    genes.tsv.gz          ensembl_id, symbol, token, median
    card.md
    manifest.json         size and SHA-256 of each file
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cellingua.cells.ranked import RankedCells
from cellingua.core.errors import ConfigError, ModelError
from cellingua.models.folder import CONFIG, GENEFORMER, GENES, WEIGHTS, load_weights, open_folder, write_folder
from cellingua.models.gene_table import GeneTable, read_gene_table
from cellingua.models.inputs import Counts
from cellingua.models.model import TOKEN_BUDGET
from cellingua.models.seen import Seen
from cellingua.models.tuned import ClassHead, read_head
from cellingua.nn.packing import Pack, PackedTower
from cellingua.nn.precision import resolve
from cellingua.nn.transformer import CellTower, CellTowerConfig

REQUIRED = (CONFIG, WEIGHTS, GENES)
POOLINGS = ("cls", "mean")
CLS, EOS = 2, 3


@dataclass(frozen=True)
class GeneformerConfig:
    """What a Geneformer is made of, and how a cell's embedding is taken.

    Parameters
    ----------
    bert
        The encoder. Its `cls_token` is put before a cell where `framed`.
    framed
        Whether a cell stands between ``<cls>`` and ``<eos>`` (V2), or alone (V1).
    pooling
        ``mean``: over the genes of the cell. ``cls``: the state of ``<cls>``, where there is one.
    last_layer
        Take the states of the last layer instead of the second-last.
    gene_table
        Where the genes come from, for people.
    """

    bert: CellTowerConfig
    framed: bool
    pooling: str
    last_layer: bool = False
    gene_table: str = ""

    def __post_init__(self) -> None:
        allowed = POOLINGS if self.framed else ("mean",)
        if self.pooling not in allowed:
            reason = "" if self.framed else " This Geneformer has no <cls>."
            raise ConfigError(f"pooling is {self.pooling!r}.{reason}", " or ".join(map(repr, allowed)))
        if self.token_limit < 1:
            raise ConfigError(f"An encoder of {self.bert.positions} positions has no room for a gene.", "more of them")

    @property
    def token_limit(self) -> int:
        """Most genes of a cell that are read."""
        return self.bert.positions - 2 * self.framed

    @property
    def layers_read(self) -> int:
        """Layers that a cell passes."""
        return self.bert.layers if self.last_layer else self.bert.layers - 1


@dataclass(frozen=True)
class GeneformerParts:
    """What a Geneformer's folder is made of: see `GeneformerModel`; `card` is Markdown, `seen` what is known of it."""

    name: str
    description: str
    config: GeneformerConfig
    tower: CellTower
    genes: GeneTable
    card: str = ""
    seen: Seen | None = None


@dataclass
class GeneformerModel:
    """A Geneformer with its genes: counts in, embeddings out.

    Parameters
    ----------
    name, hash
        Name for people, and the first 16 hexadecimal digits of the manifest's SHA-256.
    config
        Architecture and pooling.
    tower
        The weights, in evaluation mode.
    genes
        Genes, tokens and medians.
    precision
        ``auto``, ``float32``, ``bfloat16`` or ``int8``: see `cellingua.nn.precision`.
    folder
        Where it was loaded from.
    head
        Classes of its own, in a tuned model.
    """

    name: str
    hash: str
    config: GeneformerConfig
    tower: CellTower
    genes: GeneTable
    device: str = "cpu"
    precision: str = "auto"
    folder: Path | None = None
    head: ClassHead | None = None

    def __post_init__(self) -> None:
        top = int(self.genes.tokens.max())
        if top != self.config.bert.vocabulary - 1:
            raise ModelError(
                f"The gene table of {self.name} ends at token {top}, and the encoder has {self.config.bert.vocabulary} "
                "rows.",
                "the gene table that this encoder was trained with",
            )

    @property
    def width(self) -> int:
        """Width of an embedding."""
        return self.config.bert.width

    @cached_property
    def _reader(self) -> PackedTower:
        """The encoder without padded positions, in the precision that is asked for."""
        return PackedTower(self.tower, resolve(self.precision, self.device))

    def tokenise(self, block: Counts) -> RankedCells:
        """Return the ranked genes of a block of counts over the vocabulary's genes, without ``<cls>`` and ``<eos>``."""
        return self.genes.rank(block.counts, block.totals, self.config.token_limit)

    @torch.inference_mode()
    def encode_cells(self, ranked: RankedCells, *, state: str = "", batch_size: int = 256) -> NDArray[np.float32]:
        """Return one vector a cell.

        Parameters
        ----------
        ranked
            Cells as `tokenise` returns them.
        state
            Not used: a Geneformer has one embedding, that of its configuration.
        batch_size
            Most cells at a time. On a processor each cell is read alone.

        Returns
        -------
        ndarray
            float32 (cells, width). A row depends on that cell alone; a cell without genes is 0.
        """
        out = np.zeros((len(ranked), self.width), dtype=np.float32)
        lengths = np.diff(ranked.indptr)
        for rows in self._groups(lengths, batch_size):
            cells = [self._framed(ranked.cell(row)) for row in rows]
            sizes = tuple(len(cell) for cell in cells)
            places = torch.cat([torch.arange(size) for size in sizes])
            packed = Pack(torch.cat(cells).to(self.device), places.to(self.device), sizes)
            states = self._reader.read(packed, self.config.layers_read)
            for row, cell in zip(rows, states.split(sizes), strict=True):
                out[row] = self._pooled(cell).float().cpu().numpy()
        return out

    def _framed(self, tokens: NDArray[np.int32]) -> Tensor:
        """Return a cell's genes as the encoder reads them."""
        genes = torch.from_numpy(tokens[: self.config.token_limit].astype(np.int64))
        if not self.config.framed:
            return genes
        return torch.cat([torch.tensor([self.config.bert.cls_token]), genes, torch.tensor([EOS])])

    def _pooled(self, states: Tensor) -> Tensor:
        """Return the embedding of one cell (width,) from the states of its tokens."""
        if self.config.pooling == "cls":
            return states[0]
        return (states[1:-1] if self.config.framed else states).float().mean(dim=0)

    def _groups(self, lengths: NDArray[np.integer], batch_size: int) -> Iterator[list[int]]:
        """Yield the rows of cells that have genes, the longest first; alone on a processor, in groups elsewhere."""
        budget = 0 if torch.device(self.device).type == "cpu" else TOKEN_BUDGET
        rows: list[int] = []
        held = 0
        for row in np.argsort(-lengths, kind="stable")[: int((lengths > 0).sum())].tolist():
            if rows and (len(rows) == batch_size or held + lengths[row] > budget):
                yield rows
                rows, held = [], 0
            rows.append(row)
            held += int(lengths[row])
        if rows:
            yield rows


def save_geneformer(folder: Path, parts: GeneformerParts, *, storage: str = "float32") -> None:
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
    write_folder(folder, GENEFORMER, parts, parts.config, parts.tower.state_dict(), storage)


def load_geneformer(folder: Path, device: str = "cpu", precision: str = "auto") -> GeneformerModel:
    """Load a model folder.

    Raises
    ------
    ModelError
        A file is missing, damaged, or does not fit the others; the first one is named.
    """
    folder = Path(folder)
    manifest, held, config = open_folder(folder, GENEFORMER, REQUIRED, GeneformerConfig)
    model = GeneformerModel(
        name=held["name"],
        hash=manifest.hash,
        config=config,
        tower=load_weights(folder, lambda: CellTower(config.bert), device),
        genes=read_gene_table(folder / GENES),
        device=device,
        precision=precision,
        folder=folder,
    )
    model.head = read_head(manifest, model)
    return model
