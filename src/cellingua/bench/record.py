"""What a result says of each run and each set: measures over draws, hashes, splits, and what the model has seen."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellingua.bench.candidates import Question
from cellingua.bench.judge import judge
from cellingua.bench.learned import FIRST_SEED, Contest
from cellingua.bench.plan import Plan
from cellingua.bench.suites import BenchSet
from cellingua.core.files import sha256_file
from cellingua.measures.classification import accuracy, macro_f1
from cellingua.models.shelf import Model
from cellingua.tasks.overlap import overlap_of_counts

TRAINED = "in the training of the shipped models"
HALF = 0.5  # of the cells in a draw of a task that learns nothing


def judged_zero_shot(
    question: Question, found: NDArray[np.floating], near: NDArray[np.float32], plan: Plan
) -> dict[str, Any]:
    """Return the measures of answers to a question, and their spread over draws of half of the cells."""
    term_of = dict(zip(question.names.tolist(), question.term_ids, strict=True))
    result = judge(question.names, term_of, question.truth, question.truth_terms, found, near, seed=plan.seed)
    said = question.names[found.argmax(axis=1)]
    values: dict[str, list[float]] = {"accuracy": [], "macro_f1": []}
    for draw in range(plan.draws):
        rows = np.random.default_rng([FIRST_SEED, draw]).permutation(len(said))[: max(1, int(HALF * len(said)))]
        values["accuracy"].append(round(accuracy(question.truth[rows], said[rows]), 4))
        values["macro_f1"].append(round(macro_f1(question.truth[rows], said[rows]), 4))
    return {**result, "draws": values}


def judged_rows(
    cells: BenchSet,
    contest: Contest,
    rows: NDArray[np.int64],
    found: NDArray[np.floating],
    near: NDArray[np.float32],
    plan: Plan,
) -> dict[str, Any]:
    """Return the measures of one draw of a task that learns."""
    terms = contest.question.truth_terms[rows]
    term_of = dict(zip(contest.names.tolist(), contest.question.term_ids, strict=True))
    return judge(contest.names, term_of, cells.labels[rows], terms, found, near[rows], seed=plan.seed)


def pooled(draws: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the mean of several draws: intervals and classes are those of the first, values of all are kept."""
    keys = ("accuracy", "macro_f1", "weighted_f1", "lineage_accuracy", "error_distance")

    def mean(of: Sequence[dict[str, Any]]) -> dict[str, float | None]:
        columns = {key: [draw[key] for draw in of if draw[key] is not None] for key in keys}
        return {key: round(float(np.mean(values)), 4) if values else None for key, values in columns.items()}

    return {
        **draws[0],
        **mean(draws),
        "smoothed": mean([draw["smoothed"] for draw in draws]),
        "draws": {key: [draw[key] for draw in draws] for key in ("accuracy", "macro_f1")},
    }


def digest(*rows: NDArray[np.integer]) -> str:
    """Return the first 16 hexadecimal digits of the SHA-256 of row numbers."""
    found = hashlib.sha256()
    for part in rows:
        found.update(np.ascontiguousarray(part, dtype="<i8").tobytes() + b"|")
    return found.hexdigest()[:16]


def about(cells: BenchSet, model: Model | None) -> dict[str, Any]:
    """Return what a set is: sizes, hashes, and whether a figure of the model on it may be called zero-shot."""
    return {
        "title": cells.title,
        "cells": len(cells),
        "types": len(set(cells.labels.tolist())),
        "genes": int(cells.measured.sum()),
        "donors": cells.donors,
        "file": cells.path.name if cells.path else "",
        "sha256": sha256_file(cells.path) if cells.path and cells.path.is_file() else "",
        "cells_digest": digest(cells.counts.indptr, cells.counts.indices, np.rint(cells.counts.data).astype(np.int64)),
        **seen_before(cells, model),
    }


def seen_before(cells: BenchSet, model: Model | None) -> dict[str, Any]:
    """Return whether the model has seen these cells (``in_training``), whether a figure may be called zero-shot, why.

    What the model's own record says decides; a model without one is taken at the word of where the set lies.
    """
    if model is None:
        return {"in_training": False, "zero_shot": True, "why": ""}
    told = overlap_of_counts(model, cells.counts, path=cells.path, donors=set(cells.groups.tolist()) - {""})
    by_place = cells.trained and not told.recorded
    why = TRAINED if by_place else "" if told.zero_shot else told.sentence()
    return {"in_training": bool(told.known or by_place), "zero_shot": told.zero_shot and not by_place, "why": why}
