"""The guard between training and evaluation cells."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.sparse import csr_matrix, vstack

from cellingua.cells.leakage import find_matches, log_normalised


@pytest.fixture
def cells() -> tuple[csr_matrix, np.ndarray]:
    """Sixty innocent cells of three types with 3,000 genes, ribosomal-like ones dominating all of them."""
    rng = np.random.default_rng(0)
    common = rng.lognormal(-2.5, 2.0, 3000)
    rows = []
    for kind in range(3):
        profile = common * np.exp(np.random.default_rng(kind).normal(0, 0.8, 3000))
        rows += [rng.poisson(rng.gamma(2, 0.5, 3000) * profile * 5000 / profile.sum()) for _ in range(20)]
    names = np.array(["".join(rng.choice(list("ACGT"), 16)) + "-1" for _ in rows])
    return csr_matrix(np.array(rows, dtype=np.float32)), names


def test_a_planted_copy_is_refused_and_innocent_cells_stay(cells: tuple) -> None:
    counts, names = cells
    evaluation, train = counts[:30], counts[30:]
    planted = csr_matrix(vstack([train, evaluation[4]]))
    found = find_matches(planted, np.append(names[30:], "x"), evaluation, names[:30])
    assert found.by_correlation.tolist() == [False] * 30 + [True]
    assert found.share() == pytest.approx(1 / 31)


def test_a_down_sampled_copy_is_refused(cells: tuple) -> None:
    counts, names = cells
    rng = np.random.default_rng(1)
    deep = counts[7].copy()
    deep.data = deep.data * 3 + rng.integers(0, 3, len(deep.data))
    thinned = deep.copy()
    thinned.data = rng.binomial(deep.data.astype(int), 0.6).astype(np.float32)
    thinned.eliminate_zeros()
    found = find_matches(csr_matrix(thinned), np.array(["y"]), csr_matrix(vstack([counts[:7], deep])), names[:8])
    assert found.refused.tolist() == [True]


def test_a_copy_with_few_genes_is_known_by_barcode_and_counts(cells: tuple) -> None:
    counts, names = cells
    few = csr_matrix(counts[:5, :100])
    same = find_matches(few[2], np.array([f"sample_{names[2].lower()}"]), few, names[:5])
    assert same.by_barcode.tolist() == [True]
    assert not same.by_correlation.any()  # fewer than 200 genes say nothing
    other = find_matches(few[3], names[2:3], few, names[:5])
    assert not other.refused.any()  # the barcode alone is chance: kits share them


def test_correlation_equals_a_plain_loop(cells: tuple) -> None:
    counts, names = cells
    left, right = log_normalised(counts[:20]).toarray(), log_normalised(counts[20:40]).toarray()
    plain = []
    for x in left:
        values = []
        for y in right:
            both = (x > 0) & (y > 0)
            values.append(np.corrcoef(x[both], y[both])[0, 1] > 0.9 and both.sum() >= 200)
        plain.append(any(values))
    found = find_matches(counts[:20], names[:20], counts[20:40], names[20:40])
    assert found.by_correlation.tolist() == plain


def test_empty_cells_match_nothing() -> None:
    empty = csr_matrix((2, 50), dtype=np.float32)
    assert not find_matches(empty, np.array(["", ""]), empty, np.array(["", ""])).refused.any()
