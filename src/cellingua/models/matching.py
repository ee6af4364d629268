"""The match classifier as a part of naming cells: each cell beside the texts of its likeliest candidates.

The similarity ranks all candidates; the classifier reads the cell together with the text of the first few of them,
or of all, and both opinions are made one. A cell's tokens are kept for a group of cells, never for a file.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cellingua.calibration.combination import ALPHA, Combination, Judged, released
from cellingua.calibration.rollup import top
from cellingua.cells.ranked import RankedCells
from cellingua.core.errors import InputError, ModelError
from cellingua.models.inputs import CandidateTexts, Counts, Floats, Prepared, Rows
from cellingua.models.model import LangCellModel
from cellingua.nn.batch import CellStates
from cellingua.nn.matching import Matcher
from cellingua.words.describing import describe_term

MODES = ("ours", "compat")
TOP = 8
#: Of a model whose calibration says nothing of matching: log-odds are added as they are.
UNFITTED = Combination(1.0, 1.0)
BATCH = 256  # cells at a time, at most


def check_match(model: LangCellModel, mode: str = "ours") -> None:
    """Raise `ModelError` for a model without a match head, `InputError` for a mode that doesn't exist."""
    if mode not in MODES:
        raise InputError(f"match is {mode!r}.", " or ".join(MODES))
    if not model.config.match_head:
        raise ModelError(
            f"The model {model.name} has no match head, so it can't match cells with texts.",
            "a model that was trained with the matching objective, or a converted LangCell checkpoint",
            "annotate without matching: names are then found by similarity",
        )


def combination_of(model: LangCellModel, origin: str) -> Combination:
    """Return how the two opinions are combined, as fitted for candidates of this origin; `UNFITTED` where none was."""
    fitted = model.calibration.get("match", {})
    found = fitted.get("user" if origin == "user" else "ontology")
    return Combination(float(found["weight"]), float(found["temperature"])) if found else UNFITTED


@dataclass(frozen=True)
class CandidateMatch:
    """Candidates ready to be matched with cells, by `prepare_match`.

    Attributes
    ----------
    prepared
        The same candidates as the similarity takes them.
    matcher
        Their texts.
    mode
        ``ours`` or ``compat``.
    top
        How many of a cell's likeliest candidates are matched; 0 for all.
    combination
        How ours makes one opinion of two.
    """

    prepared: Prepared
    matcher: Matcher
    mode: str
    top: int
    combination: Combination

    def to_dict(self) -> dict[str, Any]:
        """Return what provenance says of it, as JSON values."""
        count = min(self.top or len(self.matcher), len(self.matcher))
        said: dict[str, Any] = {"mode": self.mode, "top": self.top, "matched_a_cell": count}
        if self.mode == "compat":
            return said | {"alpha": ALPHA}
        return said | {"weight": self.combination.weight, "temperature": self.combination.temperature}


def prepare_match(
    model: LangCellModel, candidates: CandidateTexts, mode: str = "ours", top: int = TOP
) -> CandidateMatch:
    """Return candidates as `match_cells` takes them; loads the text tower.

    A candidate whose vector is stored with the model has no text: it gets that of its term. Texts are read in the
    precision that the model reads cells in.
    """
    check_match(model, mode)
    pairs = zip(candidates.texts, candidates.term_ids, strict=True)
    ids, mask = model.pieces([text or describe_term(term or "") for text, term in pairs], matched=True)
    head = model.module.match_head
    assert head is not None  # by check_match
    matcher = Matcher(model.module.text_tower, head, ids, mask, model.reading.name)
    combination = combination_of(model, candidates.origin)
    return CandidateMatch(model.prepare(candidates), matcher, mode, top, combination)


@dataclass(frozen=True)
class Opinions:
    """What similarity and classifier say of n cells, before the two are made one.

    Attributes
    ----------
    embedding
        float32 (n, joint), unit length; zeros for a cell without a token.
    similarity
        float32 (n, K): in the mode ``ours`` the model's calibrated logits, its second channel included; in ``compat``
        the cosine over the temperature, as in the released code.
    log_odds
        float32 (n, k): of a match with each of the chosen candidates.
    chosen
        int64 (n, k): their columns in `similarity`, likeliest first; None means all, in order.
    """

    embedding: Floats
    similarity: Floats
    log_odds: Floats
    chosen: NDArray[np.int64] | None

    def judged(self, right: NDArray[np.bool_]) -> Judged:
        """Return the same beside what is right, bool (n, K), to fit a combination on."""
        return Judged(self.similarity, self.log_odds, self.chosen, right)


@torch.inference_mode()
def ask(model: LangCellModel, block: Counts, ranked: RankedCells, match: CandidateMatch) -> Opinions:
    """Return what both say of the cells of a block, of which `ranked` are the tokens.

    A cell's row depends on that cell alone.
    """
    n, count = len(ranked), len(match.matcher)
    pruned = 0 < match.top < count
    embedding = np.empty((n, model.joint_width), np.float32)
    similarity = np.empty((n, count), np.float32)
    chosen = np.empty((n, match.top), np.int64) if pruned else None
    log_odds = np.empty((n, match.top if pruned else count), np.float32)
    empty = np.diff(ranked.indptr) == 0
    for rows, joint, states in model.cell_states(ranked, batch_size=BATCH):
        embedding[rows] = np.where(empty[rows, None], 0, joint)
        similarity[rows] = _similarity(model, Rows.of(block, rows), embedding[rows], match)
        if chosen is not None:
            chosen[rows] = top(similarity[rows], match.top)[0]
        log_odds[rows] = _log_odds(match.matcher, states, None if chosen is None else chosen[rows])
    return Opinions(embedding, similarity, log_odds, chosen)


def match_cells(
    model: LangCellModel, block: Counts, ranked: RankedCells, match: CandidateMatch
) -> tuple[Floats, Floats]:
    """Return the embedding of each cell and its logits for the candidates.

    Parameters
    ----------
    block
        Counts of n cells.
    ranked
        The same cells as the model's tokens.

    Returns
    -------
    embedding
        float32 (n, joint), unit length; zeros for a cell without a token.
    logits
        float32 (n, K), whose softmax is the probability. In the mode ``compat`` that softmax is the released code's
        score, which is no calibrated probability.
    """
    said = ask(model, block, ranked, match)
    if match.mode == "ours":
        return said.embedding, match.combination.logits(said.similarity, said.log_odds, said.chosen)
    scores = released(said.similarity, said.log_odds, said.chosen)
    return said.embedding, np.log(scores + np.finfo(np.float32).tiny)


def _log_odds(matcher: Matcher, states: CellStates, chosen: NDArray[np.int64] | None) -> Floats:
    """Return the log-odds of a match, float32 (cells, chosen or all texts)."""
    if chosen is None:
        logits = matcher.logits(states)
    else:
        logits = matcher.pairs(states, torch.from_numpy(chosen).to(states.pooled.device))
    return np.asarray((logits[:, :, 1] - logits[:, :, 0]).float().cpu().numpy(), np.float32)


def _similarity(model: LangCellModel, block: Counts, embedding: Floats, match: CandidateMatch) -> Floats:
    """Return what ranks the candidates: our calibrated logits, or the released code's similarities."""
    if match.mode == "ours":
        return model.logits(block, embedding, match.prepared)
    return np.asarray(embedding @ match.prepared.vectors.T / np.float32(model.config.temperature), np.float32)
