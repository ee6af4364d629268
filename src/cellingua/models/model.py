"""What a model is to the tasks, and the wrapper that makes one of LangCell's towers."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from cellingua.cells.ranked import RankedCells
from cellingua.core.errors import InputError, LabelError, ModelError
from cellingua.models.decoding import ExpressionDecoder
from cellingua.models.gene_table import GeneTable
from cellingua.models.inputs import CandidateTexts, Counts, Evidence, Floats, Prepared
from cellingua.models.langcell import LangCellConfig, LangCellModule
from cellingua.nn.batch import CellBatch, CellStates
from cellingua.nn.heads import unit
from cellingua.nn.packing import PackedTower, packable
from cellingua.nn.precision import Precision, choose
from cellingua.nn.transformer import CellTower
from cellingua.words.wordpiece import WordPiece

if TYPE_CHECKING:
    from cellingua.models.tuned import ClassHead

#: Tokens of a rectangle of states, at most: what keeps long cells within a few hundred MB.
TOKEN_BUDGET = 32_768


@dataclass
class LangCellModel:
    """LangCell with its genes, its terms and its words: counts in, embeddings and logits out.

    Parameters
    ----------
    name, hash
        Name for people, and the first 16 hexadecimal digits of the manifest's SHA-256.
    config
        Architecture.
    module
        The weights, in evaluation mode.
    genes
        Genes, tokens and medians.
    term_ids, term_vectors
        Terms with a stored vector, and those vectors, float32 (n, joint), unit length.
    calibration
        ``temperature`` divides the logits (default 1), ``ontology_temperature`` where the user named no candidates;
        there ``words_only`` is the handicap of terms known from words alone, ``unprofiled`` that of terms of which it
        saw neither a profile nor cells, ``wider_term`` that of terms of which it saw a kind, and ``ontology_markers``
        what marker scores are multiplied by. ``unmarked`` is what a user's candidate without markers gets instead of
        a marker score; ``threshold`` is the least probability of an answer.
    load_text
        Fills the module's text side and returns the tokeniser; called once, when a text is first encoded.
    evidence
        Second channel, or None.
    decoder
        Third channel: what a text says that a cell expresses; or None. Its weights in the calibration: ``agreement``
        of a cell with each of a user's candidates; ``decoded`` where it arbitrates between like ones, and
        ``ontology_decoded`` where the user named no candidates.
    supported
        Terms of which the model saw a profile, markers or cells.
    folder
        Where it was loaded from.
    head
        Classes of its own, in a tuned model.
    precision
        ``auto``, ``float32``, ``bfloat16`` or ``int8``, of a BERT cell tower; `reading` says what came of it.
    """

    name: str
    hash: str
    config: LangCellConfig
    module: LangCellModule
    genes: GeneTable
    term_ids: list[str]
    term_vectors: Floats
    load_text: Callable[[], WordPiece]
    calibration: dict[str, Any] = field(default_factory=dict)
    device: str = "cpu"
    evidence: Evidence | None = None
    decoder: ExpressionDecoder | None = None
    supported: frozenset[str] = frozenset()
    folder: Path | None = None
    head: ClassHead | None = None
    precision: str = "auto"

    def __post_init__(self) -> None:
        choose(self.precision, self.device)  # refuses one that does not exist
        self._read_by: tuple[list[torch.Tensor], list[int], PackedTower] | None = None
        top = int(self.genes.tokens.max())
        if top >= self.config.vocabulary:
            raise ModelError(
                f"The gene table of {self.name} holds token {top}, and the tower {self.config.vocabulary} rows.",
                "a gene table and a tower that were made together",
            )
        bert = self.config.bert
        # Tokens of Geneformer V2 and their kin fit into the table and mean other genes: the size gives them away.
        if bert is not None and top != bert.cls_token - 1:
            raise ModelError(
                f"The gene table of {self.name} ends at token {top}, and <cls> is {bert.cls_token}.",
                "the gene table that this cell tower was trained with",
            )

    @property
    def threshold(self) -> float:
        """Least probability of an answer."""
        return float(self.calibration.get("threshold", 0.5))

    @property
    def reading(self) -> Precision:
        """The precision that cells are read in, and why."""
        if self.config.cell_kind == "bag":
            return Precision("float32", "a bag tower is always read in float32")
        return choose(self.precision, self.device)

    @property
    def joint_width(self) -> int:
        """Width of the joint space."""
        return self.config.joint_width

    @cached_property
    def _wordpiece(self) -> WordPiece:
        with torch.inference_mode(False):  # weights that are made in inference mode could never be trained
            return self.load_text()

    @cached_property
    def _row_of_term(self) -> dict[str, int]:
        return {term: row for row, term in enumerate(self.term_ids)}

    def tokenise(self, block: Counts) -> RankedCells:
        """Return the ranked tokens of a block of counts over the vocabulary's genes."""
        return self.genes.rank(block.counts, block.totals, self.config.token_limit)

    @torch.inference_mode()
    def encode_cells(self, ranked: RankedCells, *, state: str = "joint", batch_size: int = 256) -> Floats:
        """Return one vector a cell.

        Parameters
        ----------
        ranked
            Cells as `tokenise` returns them.
        state
            ``joint``: unit length, in the space of the texts. ``cls``: the tower's pooled state.
        batch_size
            Most cells at a time; long cells are taken in smaller groups by a BERT tower, which takes much memory.

        Returns
        -------
        ndarray
            float32 (cells, joint width or tower width). A row depends on that cell alone; of a BERT tower on a
            processor, bit for bit.
        """
        if state not in ("joint", "cls"):
            raise InputError(f"state is {state!r}.", "'joint' or 'cls'")
        width = self.joint_width if state == "joint" else self.config.cell_width
        out = np.empty((len(ranked), width), dtype=np.float32)
        for rows in self._groups(np.diff(ranked.indptr), batch_size):
            joint, states = self._read(ranked.take(rows), hidden=False)
            out[rows] = (joint if state == "joint" else states.pooled).float().cpu().numpy()
        return out

    @torch.inference_mode()
    def cell_states(
        self, ranked: RankedCells, *, batch_size: int = 256
    ) -> Iterator[tuple[NDArray[np.int64], Floats, CellStates]]:
        """Yield groups of cells: their rows, their vectors float32 (g, joint), and the states of their tokens.

        The states of one group are in memory at a time, in the precision of `reading`; a tower without token states
        yields none.
        """
        for rows in self._groups(np.diff(ranked.indptr), batch_size):
            joint, states = self._read(ranked.take(rows), hidden=True)
            yield rows, joint.float().cpu().numpy(), states

    def _read(self, part: RankedCells, *, hidden: bool) -> tuple[torch.Tensor, CellStates]:
        """Return the cells in the joint space and the tower's states: the one place where cells meet the tower."""
        batch = CellBatch.from_arrays(part.indptr, part.tokens, part.values, self.device)
        reader = self._reader()
        if reader is None:
            return self.module.cells(batch, with_hidden=hidden)
        states = reader(batch, hidden=hidden)
        pooled = states.pooled.float()
        # Row by row where the tower reads cells one by one: see `PackedTower`.
        rows = pooled.split(1 if reader.reads_alone(pooled.device) else max(1, len(pooled)))
        return unit(torch.cat([self.module.cell_projection(row) for row in rows])), states

    def _reader(self) -> PackedTower | None:
        """Return the BERT tower without padding, made anew where its weights have changed; None for other towers."""
        tower = self.module.cell_tower
        if not isinstance(tower, CellTower) or not packable(tower):
            return None
        weights = [*tower.parameters(), *tower.buffers()]
        # Training changes weights in place, which counts their versions up.
        versions = [0 if weight.is_inference() else weight._version for weight in weights]
        held = self._read_by
        if held is not None and held[1] == versions and all(map(operator.is_, held[0], weights)):
            return held[2]
        with torch.inference_mode(False):
            self._read_by = (weights, versions, PackedTower(tower, self.reading.name))
        return self._read_by[2]

    def _groups(self, lengths: NDArray[np.integer], batch_size: int) -> Iterator[NDArray[np.int64]]:
        """Yield rows in groups: in order for a bag; by length and within the budget for a BERT tower."""
        if self.config.cell_kind == "bag":
            for start in range(0, len(lengths), batch_size):
                yield np.arange(start, min(start + batch_size, len(lengths)))
            return
        order = np.argsort(lengths, kind="stable")
        stop = len(order)
        while stop > 0:
            longest = int(lengths[order[stop - 1]]) + 1
            size = max(1, min(batch_size, TOKEN_BUDGET // longest))
            yield order[max(0, stop - size) : stop]
            stop -= size

    def pieces(self, texts: Sequence[str], *, matched: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
        """Return texts as the text tower reads them, alone or `matched` with cells: ids int64 and mask bool (K, L).

        Loads the tower if need be.
        """
        limit = min(self.config.text_limit, self.config.text.positions)
        if matched and self.config.match_limit is not None:
            limit = min(limit, self.config.match_limit)
        ids, mask = self._wordpiece.encode(texts, max_length=limit)
        return torch.from_numpy(ids).to(self.device), torch.from_numpy(mask).to(self.device)

    @torch.inference_mode()
    def encode_texts(self, texts: Sequence[str], *, batch_size: int = 32) -> Floats:
        """Return texts in the joint space, float32 (K, joint), unit length; loads the text tower if need be."""
        out = np.empty((len(texts), self.joint_width), dtype=np.float32)
        order = sorted(range(len(texts)), key=lambda place: len(texts[place]))
        for start in range(0, len(order), batch_size):
            rows = order[start : start + batch_size]
            out[rows] = self.module.texts(*self.pieces([texts[row] for row in rows])).float().cpu().numpy()
        return out

    def candidate_vectors(self, candidates: CandidateTexts) -> Floats:
        """Return the vectors of candidates, float32 (K, joint).

        A candidate with an empty text is looked up by its term; the others are read by the text tower, and so is the
        text of a term that has no stored vector.
        """
        out = np.empty((len(candidates.texts), self.joint_width), dtype=np.float32)
        unread: dict[int, str] = {}
        for place, (term, text) in enumerate(zip(candidates.term_ids, candidates.texts, strict=True)):
            row = None if text else self._row_of_term.get(term or "")
            if row is None:
                unread[place] = text or self._described(term)
            else:
                out[place] = self.term_vectors[row]
        if unread:
            out[list(unread)] = self.encode_texts(list(unread.values()))
        return out

    def _described(self, term: str | None) -> str:
        """Return the text of a term that has no stored vector."""
        from cellingua.words.describing import describe_term  # brings pandas, which no model that is whole needs

        try:
            return describe_term(term or "")
        except LabelError as error:
            raise ModelError(
                f"The model {self.name} has no vector for {term!r}, and the ontology no such term.",
                f"a term of the ontology ({len(self.term_ids):,} of them have a vector), or a text for it",
            ) from error

    def prepare(self, candidates: CandidateTexts) -> Prepared:
        """Return candidates as `logits` takes them."""
        ids = tuple(candidates.term_ids)
        vectors = self.candidate_vectors(candidates)
        temperature = float(self.calibration.get("temperature", 1.0))
        prior = np.zeros(len(ids), dtype=np.float32)
        user = candidates.origin == "user"
        if not user:
            handicap = float(self.calibration.get("words_only", 0.0))
            prior[[term not in self.supported for term in ids]] = handicap
            if self.decoder is not None:
                unprofiled, wider = (float(self.calibration.get(key, 0.0)) for key in ("unprofiled", "wider_term"))
                prior += np.array([0.0 if term in self.decoder.terms else unprofiled for term in ids], np.float32)
                prior += np.array([wider if term in self.decoder.wider else 0.0 for term in ids], np.float32)
            temperature = float(self.calibration.get("ontology_temperature", temperature))
        weight = float(self.calibration.get("decoded" if user else "ontology_decoded", 0.0))
        agreement, unmarked = (float(self.calibration.get(k, 0.0)) if user else 0.0 for k in ("agreement", "unmarked"))
        decoded = self.decoder.prepare(vectors, ids) if self.decoder is not None and (weight or agreement) else None
        markers = 1.0 if user else float(self.calibration.get("ontology_markers", 1.0))
        return Prepared(ids, vectors, prior, temperature, decoded, weight, agreement, unmarked, markers)

    def logits(self, block: Counts, embeddings: Floats, candidates: Prepared) -> Floats:
        """Return the calibrated logits of each cell for each candidate, float32 (cells, K).

        Parameters
        ----------
        block
            The counts, which the evidence channel reads.
        embeddings
            float32 (cells, joint) of the same cells, from `encode_cells`.
        candidates
            From `prepare`.
        """
        scores = embeddings @ candidates.vectors.T / np.float32(self.config.temperature)
        if self.evidence is not None:
            markers = self.evidence.score(block, candidates.term_ids, candidates.unmarked)
            scores = scores + np.float32(candidates.evidence_weight) * markers
        if candidates.decoded is not None and candidates.agreement_weight:
            scores = scores + np.float32(candidates.agreement_weight) * candidates.decoded.agreement(block.counts)
        if candidates.decoded is not None and candidates.decoded_weight:
            added = candidates.decoded.arbitration(block.counts, scores)
            scores = scores + np.float32(candidates.decoded_weight) * added
        return np.asarray((scores + candidates.prior) / np.float32(candidates.temperature), dtype=np.float32)
