"""Choose, on cells that a model has not seen, how much its second channel counts and how sure it may be.

Three things are fitted, on held-out files of the training side: the strength of the marker evidence (accuracy with
each file's own labels as candidates), the temperature for candidates that a user names, and for the whole ontology a
temperature and the handicap of terms that the model knows from words alone. Where the model has a match head, how much
it counts is fitted afterwards (`cellingua.recipes.validate_match`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize, minimize_scalar

from cellingua.cells.collections import CellSet
from cellingua.models.evidence import MarkerEvidence
from cellingua.models.inputs import Rows
from cellingua.models.model import LangCellModel
from cellingua.recipes.validate_match import CELLS as MATCHED
from cellingua.recipes.validate_match import HeldOut, MatchValidation, validate_match
from cellingua.words.candidates import whole_ontology
from cellingua.words.ontology import load_ontology

STRENGTHS = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0)
CELLS = 500  # of a file, at most: every file counts the same
SEED = 7
#: Most that a term known from words alone may be held back. The held-out files can't say: all of their types are known
#: from more than words, so the fit alone would rule the others out.
MOST_HANDICAP = 6.0


@dataclass(frozen=True)
class Validation:
    """What was chosen, and on what grounds.

    Attributes
    ----------
    strength
        Of the marker evidence.
    temperature
        For candidates that a user names.
    ontology_temperature, words_only
        For the whole ontology: the temperature, and what is added to the logit of a term that the model knows from
        words alone.
    accuracy
        file -> strength -> accuracy with the file's labels as candidates.
    cells
        file -> cells used.
    match
        How the match classifier counts, for a model that has one.
    """

    strength: float
    temperature: float
    ontology_temperature: float
    words_only: float
    accuracy: dict[str, dict[str, float]]
    cells: dict[str, int]
    match: MatchValidation | None = None

    def calibration(self) -> dict[str, Any]:
        """Return what is stored with the model."""
        held: dict[str, Any] = {
            "temperature": self.temperature,
            "ontology_temperature": self.ontology_temperature,
            "words_only": self.words_only,
            "threshold": 0.5,
        }
        return held if self.match is None else held | {"match": self.match.calibration()}

    def summary(self) -> str:
        """Return one line for people."""
        key = f"{self.strength:g}"
        files = ", ".join(f"{file} {row[key]:.3f}" for file, row in self.accuracy.items())
        said = f"Marker strength {key}; temperature {self.temperature:.2f}; accuracy on held-out files: {files}."
        return said if self.match is None else f"{said} {self.match.summary()}"


@dataclass(frozen=True)
class _Held:
    """One held-out file: logits of both channels over its own labels and over the ontology."""

    file: str
    similarity: NDArray[np.float32]
    evidence: NDArray[np.float32]
    truth: NDArray[np.int64]
    wide_similarity: NDArray[np.float32]
    wide_evidence: NDArray[np.float32]
    right: NDArray[np.bool_]


def validate(model: LangCellModel, cells: CellSet) -> Validation:
    """Fit strength and temperatures on `cells`, which `model` must not have seen.

    Every file weighs the same. In the whole ontology an answer is right where it is the cell's term or a kind of it.
    """
    held = [_score(model, cells, str(file)) for file in np.unique(cells.files)]
    accuracy = {part.file: {f"{s:g}": _accuracy(part, s) for s in STRENGTHS} for part in held}
    strength = max(STRENGTHS, key=lambda s: np.mean([row[f"{s:g}"] for row in accuracy.values()]))
    temperature = minimize_scalar(
        lambda t: np.mean([_loss(p.similarity + strength * p.evidence, p.truth, np.exp(t)) for p in held]),
        bounds=(-2, 3),
        method="bounded",
    ).x
    supported = np.array([term in model.supported for term in whole_ontology().term_ids])
    wide = minimize(
        lambda x: float(np.mean([_wide_loss(part, strength, np.exp(x[0]), x[1], supported) for part in held])),
        x0=np.array([0.5, -1.0]),
        method="Nelder-Mead",
        options={"xatol": 0.02, "fatol": 1e-3, "maxiter": 80},  # type: ignore[call-overload, unused-ignore]
    ).x
    sizes = {part.file: len(part.truth) for part in held}
    checked = Validation(
        strength,
        float(np.exp(temperature)),
        float(np.exp(wide[0])),
        float(np.clip(wide[1], -MOST_HANDICAP, 0.0)),
        accuracy,
        sizes,
    )
    if not model.config.match_head:
        return checked
    assert isinstance(model.evidence, MarkerEvidence)  # the recipe made it
    calibrated = replace(
        model, calibration=checked.calibration(), evidence=replace(model.evidence, strength=checked.strength)
    )
    return replace(checked, match=validate_match(calibrated, [_to_match(cells, part.file) for part in held]))


def _rows(cells: CellSet, file: str, most: int) -> CellSet:
    """Return the cells of a file that are used, at most so many: the same whatever else is asked of them."""
    rows = np.flatnonzero((cells.files == file) & (cells.terms != ""))
    return cells.take(np.random.default_rng(SEED).permutation(rows)[:most])


def _kinds(own: list[str]) -> NDArray[np.bool_]:
    """Return bool (own, terms of the whole ontology): the term itself and the kinds of it."""
    ontology = load_ontology("CL")
    kinds = {term: ontology.descendants(term) | {term} for term in own}
    return np.array([[other in kinds[term] for other in whole_ontology().term_ids] for term in own])


def _to_match(cells: CellSet, file: str) -> HeldOut:
    part = _rows(cells, file, MATCHED)
    own = sorted(set(part.terms.tolist()))
    truth = np.array([own.index(term) for term in part.terms.tolist()])
    return HeldOut(file, Rows(part.counts, part.totals), own, truth, _kinds(own)[truth])


def _score(model: LangCellModel, cells: CellSet, file: str) -> _Held:
    part = _rows(cells, file, CELLS)
    block = Rows(part.counts, part.totals)
    embedding = model.encode_cells(model.tokenise(block))
    plain = replace(model, evidence=None, calibration={"temperature": 1.0})
    evidence = model.evidence
    assert isinstance(evidence, MarkerEvidence)  # the recipe made it
    own = sorted(set(part.terms.tolist()))
    every = whole_ontology().term_ids
    truth = np.array([own.index(term) for term in part.terms.tolist()])
    return _Held(
        file,
        _similarity(plain, embedding, own),
        evidence.score(block, own),
        truth,
        _similarity(plain, embedding, every),
        evidence.score(block, every),
        _kinds(own)[truth],
    )


def _similarity(model: LangCellModel, embedding: NDArray[np.float32], terms: list[str | None]) -> NDArray[np.float32]:
    place = {term: row for row, term in enumerate(model.term_ids)}
    vectors = model.term_vectors[[place[str(term)] for term in terms]]
    return np.asarray(embedding @ vectors.T / model.config.temperature)


def _accuracy(part: _Held, strength: float) -> float:
    guess = (part.similarity + strength * part.evidence).argmax(axis=1)
    return round(float((guess == part.truth).mean()), 4)


def _log_softmax(logits: NDArray[np.floating]) -> NDArray[np.floating]:
    shifted = logits - logits.max(axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))


def _loss(logits: NDArray[np.floating], truth: NDArray[np.int64], temperature: float) -> float:
    return float(-_log_softmax(logits / temperature)[np.arange(len(truth)), truth].mean())


def _wide_loss(
    part: _Held, strength: float, temperature: float, words_only: float, supported: NDArray[np.bool_]
) -> float:
    """Mean of minus the log of the probability that the answer is the cell's term or a kind of it."""
    logits = (
        part.wide_similarity
        + strength * part.wide_evidence
        + np.where(supported, 0.0, np.clip(words_only, -MOST_HANDICAP, 0.0))
    )
    mass = np.where(part.right, np.exp(_log_softmax(logits / temperature)), 0).sum(axis=1)
    return float(-np.log(mass + 1e-9).mean())
