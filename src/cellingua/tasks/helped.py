"""Answers that a cell's company helps: by its neighbours, by the composition of its sample. In columns of their own."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import sparse

from cellingua.calibration.composition import correct_for_composition
from cellingua.calibration.conformal import Rule
from cellingua.calibration.rollup import Decisions, Hierarchy, decide, softmax
from cellingua.calibration.smoothing import affinity, smooth_logits
from cellingua.tasks.clusters import Graph, nearest
from cellingua.tasks.scoring import MIN_TOKENS, Scores

LIKELY = 3  # a candidate counts here where it is among so many likeliest of some cell
REST = 1e-6  # probability of a candidate that was not among those kept of a cell, at least


@dataclass(frozen=True)
class _Few:
    """The candidates that are likely in some cell: the others can't be helped to an answer.

    Attributes
    ----------
    columns
        int64 (U,), ascending.
    probability
        float32 (n, U), rows sum to 1.
    """

    columns: np.ndarray
    probability: np.ndarray


def helped_by_neighbours(scores: Scores, graph: Graph | None, rule: Rule, hierarchy: Hierarchy) -> Decisions:
    """Return the answers from logits smoothed over the neighbours of each cell.

    Cells that were not drawn for the graph take a share of what their nearest drawn cell was smoothed to; without a
    graph (a handful of cells) the answers are the cells' own.
    """
    few = _few(scores, hierarchy)
    logits = np.log(few.probability)
    if graph is not None:
        smoothed = smooth_logits(logits[graph.rows], affinity(graph.index))
        others = np.setdiff1d(np.arange(len(logits)), graph.rows, assume_unique=True)
        others = others[np.any(scores.embedding[others] != 0, axis=1)]
        if len(others):
            near, _ = nearest(scores.embedding[graph.rows], scores.embedding[others], 1)
            logits[others] = 0.2 * logits[others] + 0.8 * smoothed[near[:, 0]]
        logits[graph.rows] = smoothed
    return _decided(softmax(logits), few.columns, scores, rule, hierarchy)


def helped_by_composition(scores: Scores, samples: np.ndarray | None, rule: Rule, hierarchy: Hierarchy) -> Decisions:
    """Return the answers with probabilities corrected for how often each type occurs in the cell's sample.

    Parameters
    ----------
    samples
        object (n,): the sample of each cell; None: all cells are one sample.
    """
    few = _few(scores, hierarchy)
    corrected = np.array(few.probability, np.float64)
    groups = np.zeros(len(corrected), np.int64)
    if samples is not None:
        groups = np.unique(samples.astype(str), return_inverse=True)[1]
    for group in range(int(groups.max(initial=-1)) + 1):
        rows = np.flatnonzero(groups == group)
        corrected[rows] = correct_for_composition(corrected[rows])[0]
    return _decided(corrected.astype(np.float32), few.columns, scores, rule, hierarchy)


def _few(scores: Scores, hierarchy: Hierarchy) -> _Few:
    columns = np.unique(scores.top_index[:, :LIKELY])
    n, width = scores.top_index.shape
    place = np.full(hierarchy.members.shape[1], -1, np.int64)
    place[columns] = np.arange(len(columns))
    probability = np.full((n, len(columns)), REST, np.float32)
    rows, where = np.repeat(np.arange(n), width), place[scores.top_index.ravel()]
    held = where >= 0
    probability[rows[held], where[held]] = np.maximum(scores.top_probability.ravel()[held], REST)
    return _Few(columns, probability / probability.sum(axis=1, keepdims=True))


def _decided(
    probability: np.ndarray, columns: np.ndarray, scores: Scores, rule: Rule, hierarchy: Hierarchy
) -> Decisions:
    """Return the answers over all candidates by the rule of the run."""
    narrowed = Hierarchy(sparse.csr_matrix(hierarchy.members[:, columns]), hierarchy.breadth, hierarchy.own[columns])
    enough = np.any(scores.embedding != 0, axis=1) & (scores.n_genes >= MIN_TOKENS)
    found = decide(probability, enough, rule.threshold, narrowed, rule.floor)
    second = np.where(found.second >= 0, columns[found.second], -1)
    return Decisions(found.status, columns[found.best], second, found.ancestor, found.probability)
