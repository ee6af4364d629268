"""``cl.tl.embed`` with a CellLM."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import small_world
import tiny_cellm as tiny
from scipy.sparse import csr_matrix

import cellingua as cl
from cellingua.core.errors import InputError
from cellingua.models.cellm import CellLMModel
from cellingua.models.cellm_bundle import load_cellm, save_cellm
from cellingua.tasks.embed import embed


@pytest.fixture
def cellm(tmp_path: Path) -> Path:
    """A tiny CellLM of the genes of the small world."""
    save_cellm(tmp_path / "cellm", tiny.parts(rows=small_world.rows_of_genes()))
    return tmp_path / "cellm"


def test_the_key_whatever_the_state(cellm: Path) -> None:
    adata = small_world.cells(15)
    before = adata.X.copy()
    values = cl.tl.embed(adata, model=cellm)
    np.testing.assert_array_equal(adata.obsm["X_cellm"], values)
    assert values.shape == (15, 16)
    assert adata.uns["X_cellm"]["hash"] == load_cellm(cellm).hash
    assert (before != adata.X).nnz == 0
    with pytest.raises(InputError, match="X_cellm"):
        cl.tl.embed(adata, model=cellm)
    np.testing.assert_array_equal(cl.tl.embed(adata, model=load_cellm(cellm), state="cls", overwrite=True), values)
    with pytest.raises(InputError, match="no state 'mean'"):
        cl.tl.embed(adata, model=cellm, state="mean", overwrite=True)


def test_a_cell_is_the_same_alone_and_in_company(cellm: Path) -> None:
    model: CellLMModel = load_cellm(cellm)
    adata = small_world.cells(12)
    values = embed(adata, model=model)
    order = np.random.default_rng(0).permutation(12)
    np.testing.assert_allclose(embed(adata[order].copy(), model=model, overwrite=True), values[order], atol=1e-5)
    for row in (0, 5):
        alone = embed(adata[[row]].copy(), model=model, overwrite=True)
        np.testing.assert_allclose(alone[0], values[row], atol=1e-5)


def test_a_cell_without_a_gene_of_the_model_is_zero(cellm: Path) -> None:
    adata = small_world.cells(6)
    dense = adata.X.toarray()
    ids = load_cellm(cellm).genes.ensembl_ids
    dense[2, np.isin(adata.var["gene_ids"], ids)] = 0
    adata.X = csr_matrix(dense)
    values = embed(adata, model=cellm)
    assert not values[2].any()
    assert values[[0, 1, 3, 4, 5]].any(axis=1).all()


class Lines:
    """Keeps what is said."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def step(self, name: str, total: int = 0) -> None:
        """Pass over."""

    def advance(self, units: int = 1) -> None:
        """Pass over."""

    def status(self, text: str) -> None:
        """Pass over."""

    def say(self, text: str) -> None:
        """Keep."""
        self.said.append(text)


def test_truncation_and_a_crowded_bin_are_told(cellm: Path) -> None:
    adata = small_world.cells(8)
    dense = adata.X.toarray()
    known = np.isin(adata.var["gene_ids"], load_cellm(cellm).genes.ensembl_ids)
    dense[:, known] = 1.0
    adata.X = csr_matrix(dense)
    lines = Lines()
    embed(adata, model=cellm, progress=lines)
    assert any("8 cells hold more than 40 tokens" in line for line in lines.said)
    assert any("lie in bin 5 of 5" in line for line in lines.said)
