"""Correlation with mean profiles of cell types, as SingleR does it (Aran et al. 2019, Nat Immunol 20:163).

For every ordered pair of labels, the genes that are most up in the one against the other are found among the
profiles. A cell is correlated (Spearman) with each profile over the union of these genes; a label's score is the 0.8
quantile over its profiles. Then the labels near the best are compared again over the genes that tell those apart,
until one is left or none drops out. Learns from no cell.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from cellingua.baselines.form import Floats, Labels, softmax
from cellingua.core.errors import InputError
from cellingua.measures.rank_correlation import unit_ranks

QUANTILE = 0.8  # over the profiles of a label
NEAR = 0.05  # labels that are this near the best are compared again
MOST_GENES = 500  # of a pair of labels, times (2/3)^log2(labels)
TUNED = 32  # labels, at most, where those near the best are compared again: of thousands most are near
KEPT = 200  # sets of labels whose ranked profiles are kept
SHARPNESS = 50.0
FEWEST = 20  # genes that a correlation takes
BLOCK = 512  # cells that are dense at once


def pair_genes(typical: NDArray[np.floating], most: int) -> list[list[NDArray[np.int64]]]:
    """Return the genes most up in label i against label j, at most `most`, largest difference first.

    Parameters
    ----------
    typical
        (labels, genes): the median logarithm of each label's profiles.
    """
    found: list[list[NDArray[np.int64]]] = []
    for row in typical:
        difference = row[None, :] - typical
        order = np.argsort(-difference, axis=1, kind="stable")[:, :most]
        up = np.take_along_axis(difference, order, axis=1) > 0
        found.append([genes[keep] for genes, keep in zip(order, up, strict=True)])
    return found


class ProfileCorrelation:
    """The label whose profiles a cell is most alike.

    Parameters
    ----------
    expression
        float (profiles, genes): shares of the molecules; only their order within a profile and the difference of
        their logarithms between labels count.
    measured
        bool (profiles, genes).
    labels
        Label of each profile.
    genes
        bool (genes,): what the cells' file measures; None for all. Genes that some profile does not measure are left
        out, so that all are compared over the same ones.
    fine_tune
        Whether the labels near the best are compared again (among at most `TUNED` labels; of more, never).

    quantile
        Of the correlations with a label's profiles; 1 takes the nearest profile.
    variable
        So many genes, those that vary most between the labels, instead of those of pairs.

    Raises
    ------
    InputError
        No profile, or too few genes that all have measured.
    """

    def __init__(
        self,
        expression: NDArray[np.floating],
        measured: NDArray[np.bool_],
        labels: Sequence[str] | NDArray[np.str_],
        genes: NDArray[np.bool_] | None = None,
        *,
        fine_tune: bool = True,
        quantile: float = QUANTILE,
        variable: int | None = None,
    ) -> None:
        if not len(labels):
            raise InputError("No candidate has a profile.", "mean profiles of some of the candidates")
        self.classes, self._codes = np.unique(np.asarray(labels, dtype=np.str_), return_inverse=True)
        both = measured.all(axis=0) & (np.ones(measured.shape[1], bool) if genes is None else genes)
        self._columns = np.flatnonzero(both)
        if len(self._columns) < FEWEST:
            raise InputError(
                f"{len(self._columns)} genes are measured by the cells and by all profiles.", f"at least {FEWEST}"
            )
        k = len(self.classes)
        self.fine_tune = fine_tune and k <= TUNED
        self._profiles = np.log1p(1e6 * np.asarray(expression[:, self._columns], np.float64))
        self.quantile, self.variable = quantile, variable
        self._typical = np.stack([np.median(self._profiles[self._codes == code], axis=0) for code in range(k)])
        most = max(round(MOST_GENES * (2 / 3) ** np.log2(k)), 1)
        self._pairs = pair_genes(self._typical, most) if variable is None else []
        self._ranked: dict[bytes, tuple[NDArray[np.int64], Floats, NDArray[np.int64]]] = {}

    def fit(self, counts: csr_matrix, labels: Labels, totals: Floats | None = None) -> ProfileCorrelation:
        """Learn nothing, and return itself."""
        return self

    def scores(self, counts: csr_matrix) -> tuple[Floats, NDArray[np.int64]]:
        """Return the correlation with each label, float64 (n, K), and the label that fine-tuning settles on, (n,)."""
        everything = np.arange(len(self.classes))
        first, chosen = np.zeros((counts.shape[0], len(everything))), np.zeros(counts.shape[0], np.int64)
        narrow = csr_matrix(csr_matrix(counts)[:, self._columns])
        for start in range(0, counts.shape[0], BLOCK):
            cells = narrow[start : start + BLOCK].toarray()
            first[start : start + len(cells)] = self._correlate(cells, everything)
        chosen[:] = first.argmax(axis=1)
        if self.fine_tune:
            for row in np.flatnonzero((first >= first.max(axis=1, keepdims=True) - NEAR).sum(axis=1) > 1):
                chosen[row] = self._settle(narrow[[int(row)]].toarray(), first[row])
        return first, chosen

    def predict_proba(self, counts: csr_matrix, totals: Floats | None = None) -> Floats:
        """Return a softmax of the correlations, float64 (n, K), whose largest is the label that was settled on.

        `SHARPNESS` shapes the probabilities and changes no answer; ranks need no totals.
        """
        first, chosen = self.scores(counts)
        rows = np.arange(len(first))
        first[rows, chosen] = first.max(axis=1) + 1e-3
        return softmax(SHARPNESS * first)

    def _settle(self, cell: Floats, score: Floats) -> int:
        """Return the label that is left when those far from the best drop out, round after round."""
        left = np.arange(len(score))
        while True:
            kept = left[score >= score.max() - NEAR]
            if len(kept) in (1, len(left)):
                return int(left[score.argmax()])
            left, score = kept, self._correlate(cell, kept)[0]

    def _correlate(self, cells: Floats, labels: NDArray[np.integer]) -> Floats:
        """Return the score of each of some labels over the genes that tell them apart, float64 (n, labels)."""
        genes, profiles, stops = self._reference(labels)
        found = unit_ranks(cells[:, genes]) @ profiles.T
        parts = np.split(found, stops, axis=1)
        return np.stack([np.quantile(part, self.quantile, axis=1) for part in parts], axis=1)

    def _reference(self, labels: NDArray[np.integer]) -> tuple[NDArray[np.int64], Floats, NDArray[np.int64]]:
        """Return genes, ranked profiles (profiles, genes) and where each label's begin; kept, as cells share them."""
        key = labels.tobytes()
        if key not in self._ranked:
            if len(self._ranked) >= KEPT:
                self._ranked.clear()
            genes = self._genes(labels)
            members = [np.flatnonzero(self._codes == label) for label in labels]
            profiles = unit_ranks(self._profiles[np.ix_(np.concatenate(members), genes)])
            self._ranked[key] = genes, profiles, np.cumsum([len(part) for part in members])[:-1]
        return self._ranked[key]

    def _genes(self, labels: NDArray[np.integer]) -> NDArray[np.int64]:
        """Return the genes that tell some labels apart; all of them where there is nothing to tell."""
        if len(labels) < 2:
            return np.arange(len(self._columns))
        if self.variable is not None:
            spread = self._typical[labels].var(axis=0)
            return np.sort(np.argsort(-spread, kind="stable")[: self.variable])
        found = np.unique(np.concatenate([self._pairs[i][j] for i in labels for j in labels if i != j]))
        return found if len(found) >= 2 else np.arange(len(self._columns))
