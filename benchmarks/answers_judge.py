"""Judges answers on data sets that neither the model nor the calibration has seen; shared by two benchmarks."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.common import shared_folder
from benchmarks.left_out import SETS, cells_of, load_left_out
from cellingua.calibration.answers import Answers
from cellingua.calibration.hierarchy import hierarchy_of, is_kind_of
from cellingua.calibration.rollup import ROLLED_UP, UNKNOWN, decide, softmax
from cellingua.calibration.temperature import Temperature
from cellingua.cells.collections import CellSet, read_cell_file
from cellingua.measures.calibration import covered, expected_calibration_error
from cellingua.models.evidence import MarkerEvidence
from cellingua.models.model import LangCellModel
from cellingua.models.shelf import load_model
from cellingua.recipes.answers import KEPT, Prediction, fit_answers, known_features, predict
from cellingua.words.ontology import Ontology, load_ontology

EVALUATION = ("pbmc3k", "baron_donor1", "zheng_facs_sorted", "zheng68k_scanpy700")
SHIPPED = "langcell_mini"
RATES = (0.05, 0.1, 0.2)
WIDE_CELLS = 400  # of a set, over the whole ontology


@dataclass(frozen=True)
class Judged:
    """The answers of one set at one error rate.

    Attributes
    ----------
    covered
        bool (n,): the answer is the truth or an ancestor of it by the arcs of the Cell Ontology alone, or, in the whole
        ontology, a kind of it.
    defined
        bool (n,): the same with the arcs that definitions say too, as answers are rolled up
        (`cellingua.calibration.hierarchy.BY_DEFINITION`).
    finer
        bool (n,): the answer is a kind of the truth.
    status
        int8 (n,): see `cellingua.calibration.rollup`.
    depth
        float64 (n,): ancestors of the answer in the ontology; nan where there is no answer.
    probability
        float32 (n,): of the answer.
    """

    covered: NDArray[np.bool_]
    defined: NDArray[np.bool_]
    finer: NDArray[np.bool_]
    status: NDArray[np.int8]
    depth: NDArray[np.float64]
    probability: NDArray[np.float32]

    def figures(self) -> dict[str, float]:
        """Return the figures of a table."""
        answered = self.status != UNKNOWN
        return {
            "cells": len(self.covered),
            "covered": round(float(self.covered.mean()), 4),
            "covered, definitions too": round(float(self.defined.mean()), 4),
            "wrong": round(float((answered & ~self.covered).mean()), 4),
            "unknown": round(float((~answered).mean()), 4),
            "finer than the label": round(float(self.finer.mean()), 4),
            "rolled up": round(float((self.status == ROLLED_UP).mean()), 4),
            "mean depth": round(float(np.nanmean(self.depth)), 2) if answered.any() else float("nan"),
        }


@dataclass(frozen=True)
class Judgement:
    """What both benchmarks of answers judge.

    Attributes
    ----------
    parts, fitted
        The left-out sets, and for each what was fitted on the others.
    judged, shipped
        The evaluation sets by the shipped model, and its calibration (`benchmarks.calibrate_mini`).
    files
        The files of cells.
    """

    parts: list[Prediction]
    fitted: list[dict[str, Any]]
    judged: list[Prediction]
    shipped: dict[str, Any]
    files: list[Path]

    @property
    def same(self) -> list[dict[str, Any]]:
        """`shipped`, once for each evaluation set."""
        return [self.shipped] * len(self.judged)


def from_command_line(description: str | None) -> Judgement:
    """Read the command line of a benchmark of answers, and ask the models."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", nargs="+", default=SETS, choices=SETS, help="for a first look")
    sets = parser.parse_args().sets
    data = shared_folder() / "data" / "cells"
    files = [data / "corpus" / f"{name}.h5ad" for name in sets]
    files += [data / "evaluation" / f"{name}.h5ad" for name in EVALUATION]
    parts = left_out_predictions(data, sets)
    held = dict(shipped_model().calibration)
    return Judgement(parts, fitted_on_others(parts), evaluation_predictions(data), held, files)


def shipped_model() -> LangCellModel:
    """Return the bundled model."""
    model = load_model(SHIPPED)
    assert isinstance(model, LangCellModel)
    return model


def left_out_predictions(data: Path, sets: Sequence[str] = SETS) -> list[Prediction]:
    """Return what the left-out models say of the sets that they have not seen.

    What the channels count is as in the shipped model: a few numbers, which were chosen over several sets.
    """
    shipped = shipped_model()
    strength, counted = _evidence(shipped).strength, {key: shipped.calibration[key] for key in KEPT}
    found = []
    for name in sets:
        model = load_left_out(name, data)
        evidence = replace(_evidence(model), strength=strength)
        model = replace(model, evidence=evidence, calibration=model.calibration | counted)
        cells = read_cell_file(data / "corpus" / f"{name}.h5ad")
        found.append(predict(model, cells_of(name, cells), name))
    return found


def evaluation_predictions(data: Path, sets: Sequence[str] = EVALUATION) -> list[Prediction]:
    """Return what the shipped model says of the evaluation sets."""
    model = shipped_model()
    found = []
    for name in sets:
        cells = read_cell_file(data / "evaluation" / f"{name}.h5ad")
        found.append(predict(model, _labelled(cells), name))
    return found


def _labelled(cells: CellSet) -> CellSet:
    return cells.take(np.flatnonzero((cells.terms != "") & cells.curated))


def _evidence(model: Any) -> MarkerEvidence:
    assert isinstance(model.evidence, MarkerEvidence)
    return model.evidence


def fitted_on_others(predictions: Sequence[Prediction]) -> list[dict[str, Any]]:
    """Return for each set what `fit_answers` makes of all others."""
    return [fit_answers([other for other in predictions if other is not part]) for part in predictions]


def judge(part: Prediction, fitted: Mapping[str, Any], rate: float, origin: str = "user") -> Judged:
    """Return the answers to a set at an error rate.

    Parameters
    ----------
    fitted
        From `fit_answers`, on other sets.
    origin
        ``user``: the set's own types are the candidates. ``ontology``: the whole Cell Ontology.
    """
    ontology = load_ontology("CL")
    answers = Answers.from_calibration(fitted)
    assert answers is not None
    rule = answers.of(origin).rule(rate)
    some = slice(None) if origin == "user" else slice(None, None, max(1, len(part.truth) // WIDE_CELLS))
    truth = part.truth[some].tolist()
    probability = probabilities(part, fitted, origin)[some]
    enough = np.ones(len(probability), bool)
    if origin == "user":
        scores = answers.open_set.score(known_features(part, float(fitted["temperature"])))
        enough = scores <= answers.open_set.cutoff
    term_ids = part.term_ids if origin == "user" else part.wide_ids
    hierarchy, terms = hierarchy_of(term_ids, ontology)
    found = decide(probability, enough, rule.threshold, hierarchy, rule.floor)
    said = [
        "" if status == UNKNOWN else terms[wider] if wider >= 0 else term_ids[best]
        for status, wider, best in zip(found.status, found.ancestor, found.best, strict=True)
    ]
    wider, either = (covered(said, truth, ontology.is_a, finer=finer) for finer in (False, True))
    right = either if origin == "ontology" else wider
    defined = covered(said, truth, partial(is_kind_of, ontology=ontology), finer=origin == "ontology")
    return Judged(right, defined, either & ~wider, found.status, _depths(said, ontology), found.probability)


def probabilities(part: Prediction, fitted: Mapping[str, Any], origin: str = "user") -> NDArray[np.float32]:
    """Return calibrated probabilities over the candidates, float32 (n, K)."""
    if origin == "user":
        return softmax(part.logits / np.float32(fitted["temperature"]))
    wide = Temperature(float(fitted["ontology_temperature"]), float(fitted["words_only"]))
    return softmax(wide.apply(part.wide_logits, part.words_only))


def stated_and_right(part: Prediction, fitted: Mapping[str, Any]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Return the probability of the likeliest candidate in each cell, and whether it is the truth."""
    probability = probabilities(part, fitted)
    best = probability.argmax(axis=1)
    return probability.max(axis=1), np.array(part.term_ids)[best] == part.truth


def pooled(parts: Sequence[Judged]) -> Judged:
    """Return the answers of several sets as one."""
    columns = ("covered", "defined", "finer", "status", "depth", "probability")
    return Judged(*(np.concatenate([getattr(part, column) for part in parts]) for column in columns))


def error_of(pairs: Sequence[tuple[NDArray[np.float32], NDArray[np.bool_]]]) -> float:
    """Return the expected calibration error over all cells."""
    stated, right = (np.concatenate(column) for column in zip(*pairs, strict=True))
    return round(expected_calibration_error(stated, right), 4)


def _depths(terms: Sequence[str], ontology: Ontology) -> NDArray[np.float64]:
    return np.array([len(ontology.ancestors(term)) if term in ontology else np.nan for term in terms])
