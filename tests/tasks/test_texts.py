"""``cl.tl.texts``: what it writes into an AnnData, and that it is what a file says."""

from __future__ import annotations

import warnings
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
import small_world

import cellingua as cl
from cellingua.core.errors import ConfigError, FileError, InputError
from cellingua.words.describing import TEMPLATES, describe_cell


@pytest.fixture
def adata() -> anndata.AnnData:
    """Cells with metadata, one of which nothing is known of, and a label that holds a slash."""
    cells = small_world.cells(6)
    cells.obs = pd.DataFrame(
        {
            "cell_type": ["B cell", "unknown", "blorb/x", "B cell", "Tregs", "monocyte"],
            "tissue": ["lung", None, "lung", "blood", "blood", "transverse colon"],
        },
        index=cells.obs_names,
    )
    return cells


@pytest.mark.parametrize("template", TEMPLATES)
def test_the_column_holds_the_text_of_each_cell(adata: anndata.AnnData, template: str, tmp_path: Path) -> None:
    before = adata.X.copy()
    found = cl.tl.texts(adata, template=template)
    expected = [describe_cell(row, template=template) for row in adata.obs[["cell_type", "tissue"]].to_dict("records")]
    assert found.each.tolist() == expected
    column = adata.obs["cellingua_text"]
    assert isinstance(column.dtype, pd.CategoricalDtype)
    assert column.astype(object).where(column.notna(), "").tolist() == expected
    assert column.isna().tolist() == [False, True, False, False, False, False]
    assert (before != adata.X).nnz == 0
    path = tmp_path / "a.h5ad"
    adata.write_h5ad(path)
    back = anndata.read_h5ad(path)
    pd.testing.assert_series_equal(back.obs["cellingua_text"], column, check_categorical=False)
    assert back.uns["cellingua_text"]["template"] == template
    assert back.uns["cellingua_text"]["in_no_ontology"].tolist() == ["cell type: blorb/x"]
    assert back.uns["cellingua_text"]["read_as"].tolist() == ["Tregs -> regulatory T cell"]
    assert back.uns["cellingua_text"]["taken_from_the_tissue"].tolist() == ["organ"]


def test_a_path_is_read_and_not_written(adata: anndata.AnnData, tmp_path: Path) -> None:
    expected = cl.tl.texts(adata.copy()).each.tolist()
    path = tmp_path / "a.h5ad"
    adata.write_h5ad(path)
    before = path.read_bytes()
    assert cl.tl.texts(path).each.tolist() == expected
    assert path.read_bytes() == before
    store = small_world.write_zarr(adata, tmp_path / "a.zarr")
    assert cl.tl.texts(store).each.tolist() == expected


def test_keys_are_kept_unless_overwrite(adata: anndata.AnnData) -> None:
    cl.tl.texts(adata)
    with pytest.raises(InputError, match=r"obs\['cellingua_text'\] exists already"):
        cl.tl.texts(adata)
    cl.tl.texts(adata, template="bare", key_added="mine")
    assert adata.uns["mine_text"]["template"] == "bare"
    cl.tl.texts(adata, template="bare", overwrite=True)
    assert adata.obs["cellingua_text"].tolist()[0] == "b cell, lung"


def test_own_columns_and_definitions(adata: anndata.AnnData, tmp_path: Path) -> None:
    adata.obs["mine"] = adata.obs.pop("cell_type")
    with pytest.raises(InputError, match="no column cell_type"):
        cl.tl.texts(adata)
    assert "cellingua_text" not in adata.obs
    path = tmp_path / "own.tsv"
    path.write_text("blorb/x\tA new type.\n", encoding="utf-8")
    columns = {"cell type": "mine"}
    for definitions in (path, str(path), {"BLORB/x": "A new type."}):
        found = cl.tl.texts(adata, columns=columns, definitions=definitions, overwrite=True)
        assert found.each[2].startswith("cell type: blorb/x. a new type.; organ: lung.")
    assert adata.uns["cellingua_text"]["own_definitions"].tolist() == ["blorb/x"]
    with pytest.raises(FileError, match="can't be read"):
        cl.tl.texts(adata, columns=columns, definitions=tmp_path / "none.json", overwrite=True)
    with pytest.raises(ConfigError, match="no aspect"):
        cl.tl.texts(adata, columns={"colour": "mine"}, overwrite=True)


def test_everything_may_be_known_and_nothing(adata: anndata.AnnData) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        adata.obs["cell_type"], adata.obs["tissue"] = "B cell", "lung"
        cl.tl.texts(adata)
        assert adata.obs["cellingua_text"].notna().all()
        adata.obs["cell_type"], adata.obs["tissue"] = np.nan, None
        cl.tl.texts(adata, overwrite=True)
    assert adata.obs["cellingua_text"].isna().all()
    assert len(adata.obs["cellingua_text"].cat.categories) == 0
