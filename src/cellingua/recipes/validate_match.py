"""Choose, on cells that a model has not seen, how much its match classifier counts, and say what it is worth there.

The files are those of `cellingua.recipes.validate`. With each file's own labels as candidates all of them are matched;
in the whole ontology the likeliest few of each cell, as in use.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from cellingua.calibration.combination import SIMILARITY_ALONE, Combination, Judged, fit_combination, released
from cellingua.models.inputs import Counts
from cellingua.models.matching import TOP, Opinions, ask, prepare_match
from cellingua.models.model import LangCellModel
from cellingua.words.candidates import Candidates, whole_ontology

CELLS = 120  # of a file, at most: every cell is read beside a dozen texts


@dataclass(frozen=True)
class HeldOut:
    """Cells of one file with the terms they are.

    Attributes
    ----------
    file
        Its name.
    block
        Counts and totals of n cells.
    own
        The terms of the file.
    truth
        int64 (n,): place in `own`.
    right
        bool (n, terms of the whole ontology): the cell's term, and the kinds of it.
    """

    file: str
    block: Counts
    own: list[str]
    truth: NDArray[np.int64]
    right: NDArray[np.bool_]


@dataclass(frozen=True)
class MatchValidation:
    """How similarity and classifier are combined, and on what grounds.

    Attributes
    ----------
    user, ontology
        For candidates that a user names, and for the whole ontology.
    accuracy
        file -> way of naming -> accuracy with the file's labels as candidates: ``similarity``, ``ours``, ``compat``,
        and ``ontology, similarity`` and ``ontology, ours``, where a kind of the cell's term is right too.
    loss
        file -> way -> mean of minus the log of the probability of the right answer.
    """

    user: Combination
    ontology: Combination
    accuracy: dict[str, dict[str, float]]
    loss: dict[str, dict[str, float]]

    def calibration(self) -> dict[str, dict[str, float]]:
        """Return what is stored with the model, under ``match``."""
        return {"user": asdict(self.user), "ontology": asdict(self.ontology)}

    def mean(self, way: str) -> float:
        """Return the mean accuracy of a way of naming over the files."""
        return float(np.mean([row[way] for row in self.accuracy.values()]))

    def summary(self) -> str:
        """Return one line for people."""
        ways = ", ".join(f"{way} {self.mean(way):.3f}" for way in next(iter(self.accuracy.values())))
        return (
            f"Match weight {self.user.weight:.2f} (ontology {self.ontology.weight:.2f}), temperature "
            f"{self.user.temperature:.2f} ({self.ontology.temperature:.2f}); mean accuracy on held-out files: {ways}."
        )


def validate_match(model: LangCellModel, held: list[HeldOut]) -> MatchValidation:
    """Fit both combinations on cells that `model`, calibrated without matching, has not seen; files weigh alike."""
    every = whole_ontology()
    own, wide, scores = [], [], []
    for part in held:
        candidates = Candidates(list(part.own), list(part.own), [""] * len(part.own), "user")
        said = _ask(model, part.block, candidates, top=0)
        truth = part.truth[:, None] == np.arange(len(part.own))
        own.append(said.judged(truth))
        cosine = said.embedding @ model.candidate_vectors(candidates).T
        scores.append(released(cosine / np.float32(model.config.temperature), said.log_odds))
        wide.append(_ask(model, part.block, every, top=TOP).judged(part.right))
    user, ontology = fit_combination(own), fit_combination(wide)
    accuracy, loss = {}, {}
    for part, narrow, broad, score in zip(held, own, wide, scores, strict=True):
        accuracy[part.file] = {
            "similarity": _share(narrow, SIMILARITY_ALONE),
            "ours": _share(narrow, user),
            "compat": round(float((score.argmax(axis=1) == part.truth).mean()), 4),
            "ontology, similarity": _share(broad, SIMILARITY_ALONE),
            "ontology, ours": _share(broad, ontology),
        }
        loss[part.file] = {
            "similarity": round(narrow.loss(SIMILARITY_ALONE), 4),
            "ours": round(narrow.loss(user), 4),
            "ontology, similarity": round(broad.loss(SIMILARITY_ALONE), 4),
            "ontology, ours": round(broad.loss(ontology), 4),
        }
    return MatchValidation(user, ontology, accuracy, loss)


def _ask(model: LangCellModel, block: Counts, candidates: Candidates, *, top: int) -> Opinions:
    return ask(model, block, model.tokenise(block), prepare_match(model, candidates, "ours", top))


def _share(judged: Judged, combination: Combination) -> float:
    return round(judged.accuracy(combination), 4)
