"""How right answers are, with everything that the tables show: one function for every task and every method."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellingua.baselines.form import softmax
from cellingua.baselines.normalise import Components, log_normalised
from cellingua.bench.suites import BenchSet
from cellingua.calibration.smoothing import affinity, smooth_logits
from cellingua.measures.bootstrap import intervals, share_interval
from cellingua.measures.classification import accuracy, class_scores, macro_f1, weighted_f1
from cellingua.measures.lineage import lineage_right, mean_distance
from cellingua.tasks.clusters import Graph, neighbour_graph
from cellingua.words.ontology import load_ontology

COMPONENTS = 50
LEAST, FLOOR = 1e-3, 1e-6  # of a probability
SHARE = 50  # a neighbour for so many cells, up to those of the graph: of 100 cells 2, from 750 on 15
Floats = NDArray[Any]
Text = NDArray[np.str_]


def coordinates(cells: BenchSet) -> NDArray[np.float32]:
    """Return principal components of the log-normalised counts, float32 (n, k), rows of unit length.

    The graph of neighbours is the same for all methods, and no model takes part in it.
    """
    values = log_normalised(cells.counts, cells.totals)
    found = Components(COMPONENTS).fit(values).transform(values)
    length = np.linalg.norm(found, axis=1, keepdims=True)
    return np.asarray(found / np.where(length > 0, length, 1.0), np.float32)


def smoothed(probabilities: Floats, graph: Graph | None) -> Floats:
    """Return answers after smoothing over neighbours, (n, K); a cell outside the graph keeps its own.

    The answer of a cell then depends on the cells beside it, so it is always shown beside the answer without.
    Candidates that no cell gives a share worth naming are left as they are, which keeps thousands of them cheap.
    """
    if graph is None:
        return probabilities
    columns = np.flatnonzero(probabilities.max(axis=0) > LEAST)
    logits = np.log(np.maximum(probabilities[:, columns], FLOOR)).astype(np.float32)
    joined = affinity(graph.index[:, : max(1, len(graph.rows) // SHARE)])
    logits[graph.rows] = smooth_logits(logits[graph.rows], joined)
    out = np.zeros(probabilities.shape)
    out[:, columns] = softmax(logits.astype(np.float64))
    return out


def judge(
    names: Text,
    term_of: Mapping[str, str],
    truth: Text,
    truth_terms: Text,
    probabilities: Floats,
    near: NDArray[np.float32] | None,
    *,
    seed: int = 0,
) -> dict[str, Any]:
    """Return every measure of some answers, as JSON values.

    Parameters
    ----------
    names
        str (K,): what the columns of `probabilities` are called.
    term_of
        Name -> ontology id, ``""`` or nothing where it has none.
    truth, truth_terms
        str (n,): the right name of each cell, and its ontology id.
    probabilities
        (n, K); the largest is the answer, the first of equals.
    near
        `coordinates` of these cells, for the smoothed answers; None leaves those out.
    seed
        Of the intervals.
    """
    said = names[probabilities.argmax(axis=1)]
    found = _measures(said, term_of, truth, truth_terms)
    bounds = intervals(truth, said, seed=seed)
    right = _right_by_lineage(said, term_of, truth_terms)
    if right is not None:
        bounds["lineage_accuracy"] = share_interval(right, seed=seed)
    scores = class_scores(truth, said)
    rows = zip(scores.classes, scores.support, scores.precision, scores.recall, scores.f1, strict=True)
    result: dict[str, Any] = {
        "cells": len(truth),
        "candidates": len(names),
        **found,
        "intervals": {name: [round(value, 4) for value in pair] for name, pair in bounds.items()},
        "per_class": {
            str(name): {"cells": int(n), "precision": round(p, 4), "recall": round(r, 4), "f1": round(f, 4)}
            for name, n, p, r, f in rows
        },
    }
    if near is not None:
        calm = smoothed(probabilities, neighbour_graph(near, seed))
        result["smoothed"] = _measures(names[calm.argmax(axis=1)], term_of, truth, truth_terms)
    return result


def _measures(said: Text, term_of: Mapping[str, str], truth: Text, truth_terms: Text) -> dict[str, float | None]:
    right = _right_by_lineage(said, term_of, truth_terms)
    terms = np.array([term_of.get(name, "") for name in said.tolist()], dtype=np.str_)
    far = mean_distance(truth_terms, terms, load_ontology("CL").distance)
    return {
        "accuracy": round(accuracy(truth, said), 4),
        "macro_f1": round(macro_f1(truth, said), 4),
        "weighted_f1": round(weighted_f1(truth, said), 4),
        "lineage_accuracy": None if right is None else round(float(right.mean()), 4),
        "error_distance": None if far is None else round(far, 2),
    }


def _right_by_lineage(said: Text, term_of: Mapping[str, str], truth_terms: Text) -> NDArray[np.bool_] | None:
    """Return which answers are right by lineage, of the cells whose label has a term; None where none has."""
    known = truth_terms != ""
    if not known.any():
        return None
    terms = [term_of.get(name, "") for name in said[known].tolist()]
    return lineage_right(truth_terms[known], terms, load_ontology("CL").parents)
