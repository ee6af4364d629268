"""The one pass over the cells: row blocks of counts in, embeddings and answers out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from cellingua.calibration.rollup import NAMED, UNKNOWN, Decisions, Hierarchy, decide, softmax, top
from cellingua.cells.counts import CountBlock, CountBlocks
from cellingua.core.progress import Progress
from cellingua.models.geneformer import GeneformerModel
from cellingua.models.matching import CandidateMatch, match_cells
from cellingua.models.model import LangCellModel
from cellingua.tasks.answering import Answering, answering_of
from cellingua.words.candidates import TUNED, Candidates

if TYPE_CHECKING:
    from cellingua.models.tuned import Model

KEPT = 20  # probabilities kept per cell: what clusters and the report need, without n x K in memory
ROWS = 2048
MIN_TOKENS = 20  # below this a cell shows too little to be named


@dataclass(frozen=True)
class Scores:
    """What the model says of n cells.

    Attributes
    ----------
    embedding
        float32 (n, d), unit length; rows of cells without a single token are zero.
    decisions
        The answer of each cell.
    top_index, top_probability
        int32 and float32 (n, c): the likeliest candidates of each cell, largest first.
    totals
        float64 (n,): counts over all kept columns.
    n_genes
        int32 (n,): vocabulary genes with a count.
    unknown
        float32 (n,): how likely a cell is of none of the candidates; None where the model can't tell.
    """

    embedding: np.ndarray
    decisions: Decisions
    top_index: np.ndarray
    top_probability: np.ndarray
    totals: np.ndarray
    n_genes: np.ndarray
    unknown: np.ndarray | None = None


def embed_blocks(
    blocks: CountBlocks, model: LangCellModel | GeneformerModel, state: str = "joint"
) -> Iterator[tuple[CountBlock, np.ndarray, np.ndarray]]:
    """Yield each block, its embedding float32 (cells, d) and the tokens of each cell, int64 (cells,)."""
    for block in blocks.blocks(ROWS):
        ranked = model.tokenise(block)
        n_tokens = np.diff(ranked.indptr).astype(np.int64)
        embedding = np.asarray(model.encode_cells(ranked, state=state), dtype=np.float32)
        embedding[n_tokens == 0] = 0.0
        yield block, embedding, n_tokens


def answers(
    blocks: CountBlocks, model: Model, candidates: Candidates, match: CandidateMatch | None = None
) -> Iterator[tuple[CountBlock, np.ndarray, np.ndarray, np.ndarray]]:
    """Yield each block, its embedding, its logits float32 (cells, K), and the tokens of each cell, int64 (cells,).

    A tuned model names its own classes by its head; all other candidates are compared in the joint space, and with
    `match` the likeliest of them are read beside the cell, too.
    """
    if candidates.origin == TUNED:
        assert model.head is not None  # by own_classes
        for block in blocks.blocks(ROWS):
            yield block, *model.head.answer(model, block)
        return
    assert isinstance(model, LangCellModel)  # by own_classes
    if match is not None:
        for block in blocks.blocks(ROWS):
            ranked = model.tokenise(block)
            yield block, *match_cells(model, block, ranked, match), np.diff(ranked.indptr).astype(np.int64)
        return
    prepared = model.prepare(candidates)
    for block, embedding, n_tokens in embed_blocks(blocks, model):
        yield block, embedding, model.logits(block, embedding, prepared), n_tokens


def score_cells(
    blocks: CountBlocks,
    model: Model,
    candidates: Candidates,
    hierarchy: Hierarchy,
    progress: Progress,
    match: CandidateMatch | None = None,
    answering: Answering | None = None,
) -> Scores:
    """Name every cell on its own.

    The answer of a cell is a function of that cell's counts, the model and the candidates; which other cells
    lie in the block changes nothing.
    """
    answering = answering or answering_of(model, candidates)
    parts: list[tuple[np.ndarray, ...]] = []
    for block, embedding, logits, n_tokens in answers(blocks, model, candidates, match):
        probability = softmax(logits)
        enough, unknown = n_tokens >= MIN_TOKENS, np.full(len(logits), np.nan, np.float32)
        if answering.open_score is not None:
            assert isinstance(model, LangCellModel)  # by answering_of
            unknown = answering.open_score.of(model, block, embedding)
            if answering.error_rate is not None:
                enough &= unknown <= answering.open_score.open_set.cutoff
        answer = decide(probability, enough, answering.rule.threshold, hierarchy, answering.rule.floor)
        answer.status[(answer.status == NAMED) & answering.empty[answer.best]] = UNKNOWN
        answer.probability[n_tokens == 0] = 0.0
        parts.append((
            embedding, answer.status, answer.best, answer.second, answer.ancestor, answer.probability,
            *top(probability, KEPT), np.asarray(block.totals, dtype=np.float64),
            np.asarray(block.n_genes, dtype=np.int32), unknown,
        ))  # fmt: skip
        progress.advance(block.stop - block.start)
    joined = [np.concatenate(column) for column in zip(*parts, strict=True)]
    scored = None if answering.open_score is None else joined[10]
    return Scores(joined[0], Decisions(*joined[1:6]), joined[6], joined[7], joined[8], joined[9], scored)
