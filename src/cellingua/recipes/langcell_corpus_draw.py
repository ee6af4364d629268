"""The minibatches of the LangCell recipe on a corpus: cells by the loader, texts by the rows of the cells."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cellingua.cells.loader import Loader, LoaderConfig
from cellingua.cells.sources import CellRows, CellSource
from cellingua.models.gene_table import GeneTable
from cellingua.models.langcell import LangCellModule
from cellingua.nn.batch import CellBatch
from cellingua.recipes.cell_texts import CorpusTexts
from cellingua.recipes.langcell_config import SECOND
from cellingua.recipes.langcell_corpus_config import CorpusRecipeConfig
from cellingua.recipes.langcell_step import Minibatch
from cellingua.training.place import Place
from cellingua.words.wordpiece import WordPiece


@dataclass(frozen=True)
class Prepared:
    """What a run needs besides its configuration.

    Attributes
    ----------
    rows
        int64: the cells that are trained on.
    genes
        The model's genes.
    module
        Untrained, but for what the text tower came with.
    pieces
        Its tokeniser.
    texts
        Of the cells.
    fresh_text
        Whether the text tower is untrained.
    """

    rows: NDArray[np.int64]
    genes: GeneTable
    module: LangCellModule
    pieces: WordPiece
    texts: CorpusTexts
    fresh_text: bool


def make_loader(config: CorpusRecipeConfig, source: CellSource, prepared: Prepared, place: Place) -> Loader[CellBatch]:
    """Return what reads the cells of a step and makes their tokens."""
    limit = config.cell.positions - 1

    def make(step: int, cells: CellRows) -> CellBatch:
        ranked = prepared.genes.rank(cells.counts, cells.totals, limit)
        return CellBatch.from_arrays(ranked.indptr, ranked.tokens)

    drawn = LoaderConfig(config.batch, config.block, config.train.seed)
    return Loader(source, drawn, make, rows=prepared.rows, rank=place.rank, world=place.world)


class Draw:
    """Minibatch of a step number: cells by the loader, texts by their rows; the same in any number of processes."""

    def __init__(
        self, config: CorpusRecipeConfig, prepared: Prepared, loader: Loader[CellBatch], stage: str, shift: int
    ) -> None:
        self.config, self.prepared, self.loader, self.shift = config, prepared, loader, shift
        self.wants_texts = stage == SECOND

    def __call__(self, step: int) -> Minibatch:
        """Return the minibatch; two views of a cell are two draws of the tower's own dropout."""
        step += self.shift
        texts, loader, limit = self.prepared.texts, self.loader, self.config.texts.limit
        rows = loader.rows(step)
        written = texts.draw(rows, [self.config.train.seed, 41, step])
        distinct = list(dict.fromkeys(text for text in written if text)) or ["unknown"]
        place = {text: number for number, text in enumerate(distinct)}
        text_of = np.array([place.get(text, -1) if text else -1 for text in written], np.int64)
        type_of = texts.type_of[rows]
        types = np.full(len(distinct), -1, np.int64)
        types[text_of[text_of >= 0]] = type_of[text_of >= 0]

        def read(wanted: Tensor) -> tuple[Tensor, Tensor]:
            ids, mask = self.prepared.pieces.encode([distinct[i] for i in wanted.tolist()], max_length=limit)
            return torch.from_numpy(ids), torch.from_numpy(mask)

        # Fewer texts than processes: those without one of their own read the last again, and it counts once.
        own = np.array_split(np.arange(max(len(distinct), loader.world)), loader.world)[loader.rank]
        cells = loader.draw(step)
        offset = sum(len(part) for part in np.array_split(rows, loader.world)[: loader.rank])
        return Minibatch(
            cells,
            cells,
            offset,
            torch.from_numpy(text_of),
            torch.from_numpy(type_of),
            read(torch.from_numpy(own.clip(max=len(distinct) - 1))) if self.wants_texts else None,
            torch.from_numpy(types),
            read,
        )
