"""Marker scoring: the type whose known marker genes are most up in a cell. Learns from no cell."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from cellingua.baselines.form import Floats, Labels, softmax
from cellingua.core.errors import InputError


class Scorer(Protocol):
    """What scores the markers of terms in cells, such as the evidence channel of a model."""

    def score(self, block: Any, term_ids: Sequence[str | None]) -> NDArray[np.float32]:
        """Return standardised scores of a block (`counts`, `totals`), float32 (cells, terms)."""


class MarkerScore:
    """The likeliest class by markers alone.

    Parameters
    ----------
    scorer
        Has the markers, and what a cell scores by chance; a term without markers scores 0, which is chance.
    classes, term_ids
        Labels, and the ontology id of each or None.
    """

    def __init__(self, scorer: Scorer, classes: Sequence[str], term_ids: Sequence[str | None]) -> None:
        if len(classes) != len(term_ids) or not classes:
            raise InputError(f"{len(classes)} classes have {len(term_ids)} terms.", "a term, or None, for each class")
        self._scorer, self._terms = scorer, tuple(term_ids)
        self.classes: NDArray[np.str_] = np.array(list(classes), dtype=np.str_)

    def fit(self, counts: csr_matrix, labels: Labels, totals: Floats | None = None) -> MarkerScore:
        """Learn nothing, and return itself."""
        return self

    def predict_proba(self, counts: csr_matrix, totals: Floats | None = None) -> Floats:
        """Return the softmax of the scores, float64 (n, K)."""
        total = np.asarray(counts.sum(axis=1)).ravel() if totals is None else totals
        block = SimpleNamespace(counts=counts, totals=total)
        return softmax(self._scorer.score(block, self._terms).astype(np.float64))
