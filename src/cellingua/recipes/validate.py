"""Choose, on cells that a model has not seen, how much its other channels count and how sure it may be.

Three things are fitted, on held-out files of the training side: what the other channels count (accuracy with each
file's own labels as candidates, half of it with the markers of one type after the other taken away, since many of a
user's candidates have none); the temperature for candidates that a user names; and for the whole ontology a
temperature, the weight of the decoder, and the handicaps of terms that the model knows from words alone and of those
without a profile or cells. Where the model has a match head, how much it counts is fitted
afterwards (`cellingua.recipes.validate_match`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize, minimize_scalar
from scipy.sparse import csr_matrix

from cellingua.cells.collections import CellSet
from cellingua.models.decoding import Decoded
from cellingua.models.evidence import MarkerEvidence
from cellingua.models.inputs import Rows
from cellingua.models.model import LangCellModel
from cellingua.recipes.validate_match import CELLS as MATCHED
from cellingua.recipes.validate_match import HeldOut, MatchValidation, validate_match
from cellingua.words.candidates import whole_ontology
from cellingua.words.ontology import load_ontology

STRENGTHS = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0)
AGREEMENTS = (0.0, 10.0, 20.0, 40.0)  # weight of a cell's correlation with what the decoder says
UNMARKED = (0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0)  # logits of a type without markers, instead of a marker score
WEIGHTS = (0.0, 10.0, 20.0, 40.0)  # of the decoder's arbitration between like types
CELLS = 500  # of a file, at most: every file counts the same
SEED = 7
#: Most that a term known from words alone, or from words and markers, may be held back. The held-out files can't say:
#: all of their types are known from more than that, so the fit alone would rule the others out.
MOST_HANDICAP = 6.0


@dataclass(frozen=True)
class Validation:
    """What was chosen, and on what grounds.

    Attributes
    ----------
    strength
        Of the marker evidence.
    agreement
        Of a cell's correlation with what the decoder says of each of a user's candidates.
    unmarked
        What a user's candidate without markers gets in their place.
    ontology_markers
        What marker scores are multiplied by for the whole ontology, on top of their strength.
    decoded, ontology_decoded
        Of the decoder's arbitration, for candidates that a user names and for the whole ontology.
    temperature
        For candidates that a user names.
    ontology_temperature, words_only
        For the whole ontology: the temperature, and what is added to the logit of a term that the model knows from
        words alone.
    unprofiled, wider_term
        The same for a term of which the model saw neither a profile nor cells, and for one of which it saw a kind: a
        narrower answer says more, and wider ones were targets, too.
    accuracy
        file -> strength of the markers -> accuracy with the file's labels as candidates, all else as chosen.
    by_agreement, by_decoder
        file -> weight of the agreement, of the arbitration -> the same.
    cells
        file -> cells used.
    match
        How the match classifier counts, for a model that has one.
    answers
        What `cellingua.recipes.answers.fit_answers` returned; its temperatures take the place of those above.
    """

    strength: float
    agreement: float
    unmarked: float
    ontology_markers: float
    decoded: float
    ontology_decoded: float
    temperature: float
    ontology_temperature: float
    words_only: float
    unprofiled: float
    wider_term: float
    accuracy: dict[str, dict[str, float]]
    by_agreement: dict[str, dict[str, float]]
    by_decoder: dict[str, dict[str, float]]
    cells: dict[str, int]
    match: MatchValidation | None = None
    answers: Mapping[str, Any] = field(default_factory=dict)

    def calibration(self) -> dict[str, Any]:
        """Return what is stored with the model."""
        held: dict[str, Any] = {
            "temperature": self.temperature,
            "ontology_temperature": self.ontology_temperature,
            "words_only": self.words_only,
            "unprofiled": self.unprofiled,
            "wider_term": self.wider_term,
            "agreement": self.agreement,
            "unmarked": self.unmarked,
            "ontology_markers": self.ontology_markers,
            "decoded": self.decoded,
            "ontology_decoded": self.ontology_decoded,
            "threshold": 0.5,
        }
        held |= self.answers
        if self.match is None:
            return held
        # The match classifier was fitted beside logits of the first temperatures: the same sum at the other scale.
        scale = self.temperature / held["temperature"], self.ontology_temperature / held["ontology_temperature"]
        match = self.match.calibration()
        for kind, factor in zip(("user", "ontology"), scale, strict=True):
            match[kind] = {name: round(value * factor, 4) for name, value in match[kind].items()}
        return held | {"match": match}

    def summary(self) -> str:
        """Return one line for people."""
        key = f"{self.strength:g}"
        files = ", ".join(f"{file} {row[key]:.3f}" for file, row in self.accuracy.items())
        chosen = f"Marker strength {key}, agreement {self.agreement:g}, decoder {self.decoded:g}"
        chosen = f"{chosen}; temperature {self.temperature:.2f}"
        said = f"{chosen}; accuracy on held-out files: {files}."
        return said if self.match is None else f"{said} {self.match.summary()}"


@dataclass(frozen=True)
class _Held:
    """One held-out file: logits of the channels over its own labels and over the ontology."""

    file: str
    similarity: NDArray[np.float32]
    evidence: NDArray[np.float32]
    marked: NDArray[np.bool_]
    agreement: NDArray[np.float32]
    counts: csr_matrix
    decoded: Decoded
    truth: NDArray[np.int64]
    wide_similarity: NDArray[np.float32]
    wide_evidence: NDArray[np.float32]
    wide_decoded: Decoded
    right: NDArray[np.bool_]


def validate(model: LangCellModel, cells: CellSet, channels: tuple[float, float, float] | None = None) -> Validation:
    """Fit what the channels count and temperatures on `cells`, which `model` must not have seen.

    Every file weighs the same. In the whole ontology an answer is right where it is the cell's term or a kind of it.

    Parameters
    ----------
    channels
        Strength of the markers, weight of the agreement, and what a type without markers gets, where these were chosen
        on more than the held-out files; None: they are fitted here.
    """
    held = [_score(model, cells, str(file)) for file in np.unique(cells.files)]
    strength, agreement, unmarked = channels or max(
        ((s, a, u) for s in STRENGTHS for a in AGREEMENTS for u in UNMARKED),
        key=lambda x: float(np.mean([_with_and_without_markers(p, *x) for p in held])),
    )

    def accuracy(part: _Held, strength: float, agreement: float, decoded: float) -> float:
        guess = _logits(_channels(part, strength, agreement, unmarked), decoded).argmax(axis=1)
        return round(float((guess == part.truth).mean()), 4)

    chosen = [_channels(part, strength, agreement, unmarked) for part in held]
    decoded = max(
        WEIGHTS,
        key=lambda w: np.mean([(_logits(x, w).argmax(1) == p.truth).mean() for x, p in zip(chosen, held, strict=True)]),
    )
    final = [_logits(each, decoded) for each in chosen]
    temperature = minimize_scalar(
        lambda t: np.mean([_loss(each, p.truth, np.exp(t)) for each, p in zip(final, held, strict=True)]),
        bounds=(-2, 3),
        method="bounded",
    ).x
    assert model.decoder is not None  # the recipe made it
    every = whole_ontology().term_ids
    decoder = model.decoder
    held_back = np.array([[t not in model.supported, t not in decoder.terms, t in decoder.wider] for t in every])
    factors = tuple(s / strength for s in STRENGTHS if s) if strength else (1.0,)
    (factor, ontology_decoded), (wide, words_only, unprofiled, wider) = _fit_widely(held, strength, factors, held_back)
    checked = Validation(
        strength,
        agreement,
        unmarked,
        factor,
        decoded,
        ontology_decoded,
        float(np.exp(temperature)),
        float(np.exp(wide)),
        words_only,
        unprofiled,
        wider,
        {part.file: {f"{s:g}": accuracy(part, s, agreement, decoded) for s in STRENGTHS} for part in held},
        {part.file: {f"{a:g}": accuracy(part, strength, a, decoded) for a in AGREEMENTS} for part in held},
        {part.file: {f"{w:g}": accuracy(part, strength, agreement, w) for w in WEIGHTS} for part in held},
        {part.file: len(part.truth) for part in held},
    )
    if not model.config.match_head:
        return checked
    assert isinstance(model.evidence, MarkerEvidence)  # the recipe made it
    calibrated = replace(
        model, calibration=checked.calibration(), evidence=replace(model.evidence, strength=checked.strength)
    )
    return replace(checked, match=validate_match(calibrated, [_to_match(cells, part.file) for part in held]))


def _fit_widely(
    held: list[_Held], strength: float, factors: Sequence[float], held_back: NDArray[np.bool_]
) -> tuple[tuple[float, float], tuple[float, ...]]:
    """Return what markers are multiplied by and the decoder's weight; log temperature, and the handicaps.

    The factor first, without the decoder, then the weight. `held_back`, bool (terms, 3), tells the terms known from
    words alone, those without a profile or cells, and those of which a kind has one.
    """

    def loss(factor: float, weight: float) -> tuple[float, tuple[float, ...]]:
        logits = []
        for part in held:
            plain = part.wide_similarity + np.float32(strength * factor) * part.wide_evidence
            added = part.wide_decoded.arbitration(part.counts, plain) if weight else np.zeros_like(plain)
            logits.append((_logits((plain, added), weight), part.right))
        return _fit_handicaps(logits, held_back)

    factor = min(factors, key=lambda each: loss(each, 0.0)[0])
    by_weight = {weight: loss(factor, weight) for weight in WEIGHTS}
    weight = min(by_weight, key=lambda each: by_weight[each][0])
    return (factor, weight), by_weight[weight][1]


def _fit_handicaps(
    logits: list[tuple[NDArray[np.float32], NDArray[np.bool_]]], held_back: NDArray[np.bool_]
) -> tuple[float, tuple[float, ...]]:
    """Return the least loss; and log temperature, and the handicaps, that give it."""

    def loss(x: NDArray[np.floating]) -> float:
        prior = (held_back * np.clip(x[1:], -MOST_HANDICAP, 0.0)).sum(axis=1).astype(np.float32)
        return float(np.mean([_wide_loss(each + prior, right, np.exp(x[0])) for each, right in logits]))

    found = minimize(
        loss,
        x0=np.array([1.0, *(-1.0 for _ in held_back[0])]),
        method="Nelder-Mead",
        options={"xatol": 0.05, "fatol": 1e-3, "maxiter": 120},  # type: ignore[call-overload, unused-ignore]
    )
    handicaps = (float(x) for x in np.clip(found.x[1:], -MOST_HANDICAP, 0.0))
    return float(found.fun), (float(found.x[0]), *handicaps)


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
    plain = replace(model, evidence=None, decoder=None, calibration={"temperature": 1.0})
    evidence = model.evidence
    assert isinstance(evidence, MarkerEvidence)  # the recipe made it
    assert model.decoder is not None
    own = sorted(set(part.terms.tolist()))
    every = whole_ontology().term_ids
    truth = np.array([own.index(term) for term in part.terms.tolist()])
    decoded = model.decoder.prepare(_vectors(model, own), own)
    return _Held(
        file,
        _similarity(plain, embedding, own),
        evidence.score(block, own),
        evidence.knows(own),
        decoded.agreement(part.counts),
        part.counts,
        decoded,
        truth,
        _similarity(plain, embedding, every),
        evidence.score(block, every),
        model.decoder.prepare(_vectors(model, every), every),
        _kinds(own)[truth],
    )


def _vectors(model: LangCellModel, terms: list[str | None]) -> NDArray[np.float32]:
    place = {term: row for row, term in enumerate(model.term_ids)}
    return model.term_vectors[[place[str(term)] for term in terms]]


def _similarity(model: LangCellModel, embedding: NDArray[np.float32], terms: list[str | None]) -> NDArray[np.float32]:
    return np.asarray(embedding @ _vectors(model, terms).T / model.config.temperature)


def _plain(part: _Held, strength: float, agreement: float, unmarked: float) -> NDArray[np.float32]:
    """Return the logits of all channels but the arbitration."""
    markers = np.where(part.marked, np.float32(strength) * part.evidence, np.float32(unmarked))
    return part.similarity + np.float32(agreement) * part.agreement + markers


def _channels(
    part: _Held, strength: float, agreement: float, unmarked: float
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return these logits, and what the arbitration adds for a weight of 1."""
    plain = _plain(part, strength, agreement, unmarked)
    return plain, part.decoded.arbitration(part.counts, plain)


def _with_and_without_markers(part: _Held, strength: float, agreement: float, unmarked: float) -> float:
    """Return the mean of the accuracy, and of that with the markers of each type taken away in turn."""
    logits = _plain(part, strength, agreement, unmarked)
    without = _plain(replace(part, marked=np.zeros_like(part.marked)), strength, agreement, unmarked)
    accuracy = []
    for column in np.flatnonzero(part.marked):
        taken = logits.copy()
        taken[:, column] = without[:, column]
        accuracy.append((taken.argmax(axis=1) == part.truth).mean())
    whole = float((logits.argmax(axis=1) == part.truth).mean())
    return (whole + float(np.mean(accuracy))) / 2 if accuracy else whole


def _logits(channels: tuple[NDArray[np.float32], NDArray[np.float32]], decoded: float) -> NDArray[np.float32]:
    plain, added = channels
    return plain + np.float32(decoded) * added


def _log_softmax(logits: NDArray[np.floating]) -> NDArray[np.floating]:
    shifted = logits - logits.max(axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))


def _loss(logits: NDArray[np.floating], truth: NDArray[np.int64], temperature: float) -> float:
    return float(-_log_softmax(logits / temperature)[np.arange(len(truth)), truth].mean())


def _wide_loss(logits: NDArray[np.float32], right: NDArray[np.bool_], temperature: float) -> float:
    """Mean of minus the log of the probability that the answer is the cell's term or a kind of it."""
    mass = np.where(right, np.exp(_log_softmax(logits / temperature)), 0).sum(axis=1)
    return float(-np.log(mass + 1e-9).mean())
