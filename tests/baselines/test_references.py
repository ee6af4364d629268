"""Baselines that learn from no cell: marker scoring and profile correlation; and CellTypist's method beside sklearn."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from scipy.sparse import csr_matrix
from scipy.stats import spearmanr
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from cellingua.baselines.celltypist_method import CUT, CellTypistMethod
from cellingua.baselines.form import predicted
from cellingua.baselines.marker_score import MarkerScore
from cellingua.baselines.normalise import log_normalised
from cellingua.baselines.profile_correlation import NEAR, QUANTILE, ProfileCorrelation, pair_genes
from cellingua.core.errors import InputError

GENES = 200
NAMES = ["a", "b", "c", "d"]


def profiles(seed: int = 0, each: int = 2) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Return shares, what is measured and labels: `each` noisy profiles of four types, two of which are alike."""
    rng = np.random.default_rng(seed)
    means = rng.gamma(0.5, 2.0, (len(NAMES), GENES))
    means[1, 30:] = means[0, 30:]
    shares = np.repeat(means, each, axis=0) * rng.lognormal(0, 0.1, (each * len(NAMES), GENES))
    return shares / shares.sum(axis=1, keepdims=True), np.ones(shares.shape, bool), list(np.repeat(NAMES, each))


def cells(n: int = 80, depth: float = 1500.0) -> tuple[csr_matrix, np.ndarray]:
    """Return counts drawn from the profiles, and the type of each."""
    shares, _, labels = profiles()
    rng = np.random.default_rng(9)
    rows = rng.integers(0, len(labels), n)
    return csr_matrix(rng.poisson(shares[rows] * depth).astype(np.float32)), np.array(labels)[rows]


def test_correlation_names_cells_and_tuning_tells_the_alike_apart() -> None:
    shares, measured, labels = profiles()
    counts, truth = cells()
    tuned = ProfileCorrelation(shares, measured, labels)
    plain = ProfileCorrelation(shares, measured, labels, fine_tune=False)
    assert tuned.classes.tolist() == NAMES
    right = [np.mean(predicted(made, counts) == truth) for made in (tuned, plain)]
    assert right[0] > 0.9
    assert right[0] >= right[1]


def test_a_correlation_is_spearmans_quantile() -> None:
    shares, measured, labels = profiles(each=3)
    counts, _ = cells(12)
    made = ProfileCorrelation(shares, measured, labels, fine_tune=False)
    logs = np.log1p(1e6 * shares)
    typical = np.stack([np.median(logs[[label == name for label in labels]], axis=0) for name in NAMES])
    most = round(500 * (2 / 3) ** 2)
    used = sorted({
        int(gene)
        for i in range(4)
        for j in range(4)
        if i != j
        for gene in sorted(range(GENES), key=lambda g: -(typical[i] - typical[j])[g])[:most]
        if (typical[i] - typical[j])[gene] > 0
    })  # fmt: skip
    dense = counts.toarray()[:, used]
    found = made.scores(counts)[0]
    for row in range(12):
        each = [spearmanr(dense[row], logs[p, used]).statistic for p in range(len(labels))]
        wanted = [
            np.quantile([r for r, label in zip(each, labels, strict=True) if label == n], QUANTILE) for n in NAMES
        ]
        assert found[row] == pytest.approx(wanted)


def test_the_nearest_profile_over_variable_genes_is_the_most_correlated_one() -> None:
    shares, measured, labels = profiles(each=3)
    counts, _ = cells(12)
    made = ProfileCorrelation(shares, measured, labels, fine_tune=False, quantile=1.0, variable=60)
    logs = np.log1p(1e6 * shares)
    typical = np.stack([np.median(logs[[label == name for label in labels]], axis=0) for name in NAMES])
    used = np.argsort(-typical.var(axis=0))[:60]
    for row, found in enumerate(made.predict_proba(counts)):
        each = [spearmanr(counts.toarray()[row, used], profile[used]).statistic for profile in logs]
        assert NAMES[found.argmax()] == labels[int(np.argmax(each))]


def test_tuning_is_rounds_of_the_same_among_those_near_the_best() -> None:
    shares, measured, labels = profiles()
    counts, _ = cells(40, depth=60)
    made = ProfileCorrelation(shares, measured, labels)
    first, chosen = made.scores(counts)
    several = 0
    for row in range(40):
        left = np.arange(4)
        score = first[row]
        while True:
            kept = left[score >= score.max() - NEAR]
            if len(kept) == 1 or len(kept) == len(left):
                break
            several += 1
            names = [NAMES[k] for k in kept]
            part = np.array([label in names for label in labels])
            # The same genes of pairs, so that a model of these labels alone would choose more of each pair.
            again = ProfileCorrelation(shares[part], measured[part], np.array(labels)[part], fine_tune=False)
            again._pairs = [[made._pairs[i][j] for j in kept] for i in kept]
            again._ranked.clear()
            left, score = kept, again.scores(counts[row])[0][0]
        assert chosen[row] == left[score.argmax()]
    assert several


def test_neither_company_nor_depth_nor_unmeasured_genes_change_an_answer() -> None:
    shares, measured, labels = profiles()
    counts, _ = cells(20)
    made = ProfileCorrelation(shares, measured, labels)
    whole = made.predict_proba(counts)
    assert np.allclose(np.concatenate([made.predict_proba(counts[row]) for row in range(20)]), whole)
    assert np.allclose(made.predict_proba(3 * counts), whole)  # ranks
    assert np.allclose(whole.sum(axis=1), 1)
    assert (whole.argmax(axis=1) == made.scores(counts)[1]).all()
    unseen = np.ones(GENES, bool)
    unseen[150:] = False
    narrow = ProfileCorrelation(shares, measured, labels, unseen)
    changed = counts.toarray()
    changed[:, 150:] = 7
    assert np.array_equal(narrow.predict_proba(csr_matrix(changed)), narrow.predict_proba(counts))
    assert narrow.fit(counts, ["a"] * 20) is narrow


def test_pairs_of_genes_are_those_most_up() -> None:
    found = pair_genes(np.array([[1.0, 5.0, 0.0], [1.0, 2.0, 3.0]]), 2)
    assert [[part.tolist() for part in row] for row in found] == [[[], [1]], [[2], []]]


def test_a_cell_without_counts_is_named_by_nobody() -> None:
    shares, measured, labels = profiles()
    found = ProfileCorrelation(shares, measured, labels).scores(csr_matrix((1, GENES), dtype=np.float32))[0]
    assert not found.any()


def test_profiles_that_share_no_genes_are_refused() -> None:
    shares, measured, labels = profiles()
    measured[0, :185] = False
    with pytest.raises(InputError, match="15 genes"):
        ProfileCorrelation(shares, measured, labels)
    with pytest.raises(InputError, match="No candidate has a profile"):
        ProfileCorrelation(shares[:0], measured[:0], [])


class Fixed:
    """Scores gene 0 for a term that ends in 0, gene 1 for one in 1; the others by chance."""

    def score(self, block: SimpleNamespace, term_ids: list[str | None]) -> np.ndarray:
        share = block.counts.toarray() / block.totals[:, None]
        return np.stack(
            [share[:, int(term[-1])] if term else np.zeros(len(share)) for term in term_ids], axis=1
        ).astype(np.float32)


def test_markers_name_the_type_whose_genes_are_up() -> None:
    made = MarkerScore(Fixed(), ["x", "y", "z"], ["CL:0", "CL:1", None])
    counts = csr_matrix(np.array([[8, 1], [1, 8]], np.float32))
    assert predicted(made.fit(counts, ["x", "y"]), counts).tolist() == ["x", "y"]
    found = made.predict_proba(counts)
    assert np.allclose(found.sum(axis=1), 1)
    assert np.allclose(made.predict_proba(counts, np.array([90.0, 90.0])).max(axis=1), 1 / 3, atol=0.05)
    with pytest.raises(InputError, match="classes"):
        MarkerScore(Fixed(), ["x"], [])


def test_celltypists_method_is_one_against_the_rest_on_scaled_genes() -> None:
    counts, truth = cells(90, depth=800)
    made = CellTypistMethod().fit(counts, truth)
    values = log_normalised(counts).toarray().astype(np.float64)
    used = values.any(axis=0)
    scaler = StandardScaler().fit(values[:, used])
    scaled = np.minimum(scaler.transform(values[:, used]), CUT)
    for place, name in enumerate(made.classes):
        theirs = LogisticRegression(C=1.0, tol=1e-6, max_iter=5000).fit(scaled, truth == name)
        assert made.decision(counts)[:, place] == pytest.approx(theirs.decision_function(scaled), abs=5e-3)
        assert made.weights[:, place] == pytest.approx(theirs.coef_[0], abs=2e-3)


def test_celltypists_method_cuts_high_values_and_knows_no_gene_that_it_did_not_see() -> None:
    counts, truth = cells(60)
    dense = counts.toarray()
    dense[:, 0] = 0
    dense[3, 0] = 40  # one cell in sixty is at sqrt(59), below the cut
    made = CellTypistMethod().fit(csr_matrix(dense), truth)
    assert np.array_equal(made._columns, np.flatnonzero(dense.any(axis=0)))
    more = dense.copy()
    more[:, 0] = 10_000
    totals = dense.sum(axis=1)
    at_cut = CUT * made._spread[0] + made._mean[0]
    wanted = (
        made.decision(csr_matrix(dense), totals)
        + (
            (np.minimum(np.log1p(1e4 * more[:, 0] / totals), at_cut) - np.log1p(1e4 * dense[:, 0] / totals))
            / made._spread[0]
        )[:, None]
        * made.weights[0]
    )
    assert made.decision(csr_matrix(more), totals) == pytest.approx(wanted)
