"""How cells are answered: the threshold, the error rate that the user states, and the score of "none of these"."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from cellingua.calibration.answers import Answers
from cellingua.calibration.conformal import Rule
from cellingua.calibration.hierarchy import says_nothing
from cellingua.calibration.unknown import OpenSet, known_terms, open_features, surroundings
from cellingua.core.errors import InputError
from cellingua.models.model import LangCellModel
from cellingua.words.candidates import TUNED, Candidates
from cellingua.words.ontology import load_ontology

if TYPE_CHECKING:
    from cellingua.cells.counts import CountBlock
    from cellingua.models.model import Prepared
    from cellingua.models.tuned import Model

THRESHOLD = 0.5  # smallest probability of an answer, where the model's calibration names none


def threshold_of(model: Model) -> float:
    """Return the smallest probability of an answer without an error rate, from the model's calibration."""
    return float(getattr(model, "calibration", {}).get("threshold", THRESHOLD))


@dataclass(frozen=True)
class OpenScore:
    """The score of "none of the candidates", ready for the candidates at hand.

    Attributes
    ----------
    open_set
        The combination that is stored with the model.
    prepared
        The candidates and, after them, the known types that are no candidates.
    related
        bool (W,): which of these types are related to a candidate (`cellingua.calibration.unknown.Surroundings`).
    """

    open_set: OpenSet
    prepared: Prepared
    related: np.ndarray

    def of(self, model: LangCellModel, block: CountBlock, embedding: np.ndarray) -> np.ndarray:
        """Return the score of each cell, float32 (n,), from that cell alone."""
        logits = model.logits(block, embedding, self.prepared)
        return self.open_set.score(open_features(logits, logits.shape[1] - len(self.related), self.related))


@dataclass(frozen=True)
class Answering:
    """How the cells of a run are answered.

    Attributes
    ----------
    rule
        Threshold and floor.
    error_rate
        As the user stated it; None: one threshold, and no cell is unknown by its open-set score.
    attainable
        Share of the calibration's cells that the rate left uncovered; above the rate where the model can't keep it.
    open_score
        None where the model has none, or the candidates are not a user's.
    empty
        bool (K,): candidates so wide that they say nothing.
    """

    rule: Rule
    error_rate: float | None
    attainable: float | None
    open_score: OpenScore | None
    empty: np.ndarray

    def named(self) -> dict[str, Any]:
        """Return the parameters for the provenance."""
        cutoff = None if self.open_score is None or self.error_rate is None else self.open_score.open_set.cutoff
        return {
            "threshold": self.rule.threshold,
            "error_rate": self.error_rate,
            "floor": self.rule.floor,
            "attainable": self.attainable,
            "unknown_cutoff": cutoff,
            "notes": self.warnings(),
        }

    def warnings(self) -> list[str]:
        """Return what a reader should know: that the rate can't be kept."""
        if self.error_rate is None or self.attainable is None or self.attainable <= self.error_rate:
            return []
        return [
            f"Note: no threshold keeps an error rate of {self.error_rate:g} for such candidates: on data sets that the "
            f"model had not seen, {self.attainable:.1%} of the cells were left without a right answer. The "
            "rate is kept among the mistakes that a wider answer mends."
        ]


def answering_of(
    model: Model, candidates: Candidates, error_rate: float | None = None, match: str | None = None
) -> Answering:
    """Return how the cells are to be answered.

    Raises
    ------
    InputError
        An error rate is stated that is no share, or the model (or the way of naming) is not calibrated for any.
    """
    answers = Answers.from_calibration(getattr(model, "calibration", {}))
    if candidates.origin == TUNED or not isinstance(model, LangCellModel) or model.head is not None:
        answers = None  # tuning moves what the thresholds were fitted on
    empty = np.zeros(len(candidates), bool)
    if error_rate is None:
        return Answering(Rule(threshold_of(model)), None, None, _open_score(model, candidates, answers), empty)
    if not 0 < error_rate < 1:
        raise InputError(f"The error rate is {error_rate:g}.", "a share between 0 and 1, such as 0.05")
    if answers is None or match is not None:
        what = "a tuned model's own classes" if candidates.origin == TUNED else f"the model {model.name}"
        what = "names by matching" if match is not None else what
        raise InputError(
            f"An error rate is stated, and {what} is not calibrated for one.",
            "a model whose calibration holds error rates, and names by similarity",
            "no --error-rate: answers need a probability of "
            f"{threshold_of(model):g} then, or a model that `cellingua models` lists",
        )
    rates = answers.of(candidates.origin)
    ontology = load_ontology("CL")
    empty = np.array([term is not None and says_nothing(term, ontology) for term in candidates.term_ids], bool)
    return Answering(
        rates.rule(error_rate),
        error_rate,
        rates.attainable(error_rate),
        _open_score(model, candidates, answers),
        empty,
    )


def _open_score(model: Any, candidates: Candidates, answers: Answers | None) -> OpenScore | None:
    """Return the open-set score for a user's own candidates, None for others or where the model has none."""
    if answers is None or candidates.origin != "user":
        return None
    ontology = load_ontology("CL")
    pairs = zip(candidates.labels, candidates.term_ids, strict=True)
    written = [label for label, term in pairs if term is None or term not in ontology]
    around = surroundings(candidates.term_ids, known_terms(model.supported, ontology), ontology, written)
    return OpenScore(answers.open_set, model.prepare(_joined(candidates, around.term_ids)), around.related)


def _joined(candidates: Candidates, terms: Sequence[str]) -> Candidates:
    """Return the candidates with known types behind them, on one scale: that of a user's candidates."""
    return Candidates(
        [*candidates.labels, *terms],
        [*candidates.term_ids, *terms],
        [*candidates.texts, *([""] * len(terms))],
        "user",
    )
