"""Rank correlation by rows against scipy; rows without differences; the genes that tell two profiles apart."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import spearmanr

from cellingua.measures.rank_correlation import telling_genes, unit_ranks, unit_rows


def test_products_are_spearmans_correlation() -> None:
    rng = np.random.default_rng(0)
    cells, profiles = rng.poisson(1.0, (5, 40)), rng.normal(size=(3, 40))
    found = unit_ranks(cells) @ unit_ranks(profiles).T
    for i, cell in enumerate(cells):
        for j, profile in enumerate(profiles):
            assert found[i, j] == pytest.approx(spearmanr(cell, profile).statistic, abs=1e-12)


def test_a_row_without_differences_is_zero() -> None:
    assert not unit_rows(np.full((2, 7), 0.1)).any()
    assert not unit_ranks(np.zeros((2, 7))).any()


def test_genes_that_tell_two_profiles_apart() -> None:
    first, second = np.array([0.0, 5.0, 1.0, 0.0, 9.0]), np.array([3.0, 5.0, 1.0, 1.0, 0.0])
    assert telling_genes(first, second, 1).tolist() == [0, 4]
    assert sorted(telling_genes(first, second, 3).tolist()) == [0, 1, 2, 3, 4]
