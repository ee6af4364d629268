"""From lines to cells: a planted response is found; genes, their order and their scale change nothing."""

from __future__ import annotations

import numpy as np
import pytest
from awkward_files import human_genes
from sklearn.metrics import roc_auc_score

from cellingua.core.errors import GeneError, InputError
from cellingua.recipes.drug_transfer import METHODS, make_method, share_genes, transfer

SYMBOLS, IDS = human_genes(400)


def world(cells: int = 80) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return lines (60, 400), ln IC50 (60, 2), cells (n, 300) on the last genes, and which cells are sensitive."""
    rng = np.random.default_rng(8)
    factor = rng.normal(size=60)
    lines = rng.normal(size=(60, 400))
    lines[:, 150:190] += factor[:, None]
    ic50 = np.stack([-factor, factor], axis=1) + rng.normal(0, 0.2, (60, 2))
    sensitive = np.arange(cells) % 2 == 0
    values = rng.normal(size=(cells, 300)) * rng.uniform(0.5, 3, 300) + rng.normal(0, 5, 300)
    values[:, 50:90] += 2.0 * sensitive[:, None]
    return lines, ic50, values, sensitive


@pytest.mark.parametrize("name", METHODS)
def test_cells_like_the_sensitive_lines_score_higher(name: str) -> None:
    lines, ic50, cells, sensitive = world()
    genes = share_genes(SYMBOLS, lines, IDS[100:], cells)  # symbols in one table, Ensembl ids in the other
    assert len(genes.symbols) == 300
    scores = transfer(make_method(name), ic50, genes)
    assert roc_auc_score(sensitive, scores[:, 0]) > 0.9
    assert roc_auc_score(sensitive, scores[:, 1]) < 0.1


def test_order_and_scale_of_genes_and_cells_change_nothing() -> None:
    lines, ic50, cells, _ = world()
    rng = np.random.default_rng(0)
    method = make_method("strong ridge")
    first = transfer(method, ic50, share_genes(SYMBOLS, lines, SYMBOLS[100:], cells))
    order, mixed, rows = rng.permutation(300), rng.permutation(80), rng.permutation(60)
    moved = cells * rng.uniform(0.1, 9, 300) + rng.normal(0, 9, 300)
    names = [SYMBOLS[100:][place] for place in order]
    second = transfer(method, ic50[rows], share_genes(SYMBOLS, lines[rows], names, moved[:, order][mixed]))
    assert np.abs(second - first[mixed]).max() < 1e-9


def test_lines_without_a_response_and_genes_without_a_value_are_absent() -> None:
    lines, ic50, cells, sensitive = world()
    ic50[::3, 0] = np.nan
    lines[::5, 7] = np.nan
    scores = transfer(make_method("ridge"), ic50, share_genes(SYMBOLS, lines, SYMBOLS[100:], cells))
    assert np.isfinite(scores).all()
    assert roc_auc_score(sensitive, scores[:, 0]) > 0.9


def test_scores_depend_on_the_company_as_the_docs_say() -> None:
    lines, ic50, cells, sensitive = world()
    method = make_method("strong ridge")
    whole = transfer(method, ic50, share_genes(SYMBOLS, lines, SYMBOLS[100:], cells))
    alike = transfer(method, ic50, share_genes(SYMBOLS, lines, SYMBOLS[100:], cells[sensitive]))
    assert np.abs(whole[sensitive] - alike).max() > 0.1
    assert whole[sensitive, 0].mean() - alike[:, 0].mean() > 0.1  # among their like, nobody is sensitive


def test_what_does_not_fit_is_refused() -> None:
    lines, ic50, cells, _ = world()
    with pytest.raises(GeneError, match="share 100 known human genes"):
        share_genes(SYMBOLS[:200], lines[:, :200], SYMBOLS[100:], cells)
    with pytest.raises(InputError, match="1 cells can't be standardised"):
        share_genes(SYMBOLS, lines, SYMBOLS[100:], cells[:1])
    with pytest.raises(InputError, match="59 lines for 60"):
        transfer(make_method("ridge"), ic50[:59], share_genes(SYMBOLS, lines, SYMBOLS[100:], cells))
    with pytest.raises(InputError, match="no method 'scad'"):
        make_method("scad")
