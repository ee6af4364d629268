"""The same cells in many forms: matrices, types, files, orders and names of genes."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import small_world
from awkward_files import write_10x_folder, write_10x_h5
from scipy.sparse import csc_matrix, csr_matrix

from cellingua.cells.genes import load_vocabulary

N = 17
Source = anndata.AnnData | Path


@cache
def base() -> anndata.AnnData:
    """Return the cells, by symbol and id, with genes that no model knows and no cell shows; one shows few genes."""
    cells = small_world.cells(N, seed=31)
    dense = cells.X.toarray()
    dense[4, 30:] = 0
    dense[:, 400:430] = 0
    return anndata.AnnData(csr_matrix(dense), cells.obs[["batch"]], cells.var)


def of(values: Any, obs: pd.DataFrame | None = None, var: pd.DataFrame | None = None) -> anndata.AnnData:
    """Return the cells with other values, or another table beside them."""
    held = base()
    return anndata.AnnData(values, held.obs.copy() if obs is None else obs, held.var.copy() if var is None else var)


def as_type(dtype: Any) -> anndata.AnnData:
    """Return the cells with values of another type."""
    return of(csr_matrix(base().X.toarray().astype(dtype)))


def written(adata: anndata.AnnData, path: Path, **how: Any) -> Path:
    """Return the path of an h5ad."""
    adata.write_h5ad(path, **how)
    return path


def explicit_zeros() -> anndata.AnnData:
    """Return the cells with zeros that are stored, columns of a row in any order."""
    dense = base().X.toarray()
    rng, rows = np.random.default_rng(0), []
    for row in dense:
        stored = np.flatnonzero((row > 0) | (rng.random(len(row)) < 0.2))
        rows.append(rng.permutation(stored))
    indptr = np.concatenate([[0], np.cumsum([len(row) for row in rows])])
    data = np.concatenate([dense[i, row] for i, row in enumerate(rows)])
    return of(csr_matrix((data, np.concatenate(rows), indptr), shape=dense.shape))


def reordered(seed: int) -> anndata.AnnData:
    """Return the cells with their genes in another order."""
    return base()[:, np.random.default_rng(seed).permutation(base().n_vars)].copy()


def without_absent_genes() -> anndata.AnnData:
    """Return the cells without the genes that none of them shows."""
    shown = np.asarray(base().X.sum(axis=0)).ravel() > 0
    assert (~shown).sum() > 0
    return base()[:, shown].copy()


def with_more_genes(known: bool) -> anndata.AnnData:
    """Return the cells with further genes that no cell shows: of the vocabulary, or of no vocabulary."""
    vocabulary = load_vocabulary()
    others = np.setdiff1d(np.flatnonzero(vocabulary.biotypes == "protein_coding"), small_world.rows_of_genes())[:60]
    ids = vocabulary.ensembl_ids[others] if known else [f"ENSG0000099{i:04d}" for i in range(60)]
    names = vocabulary.symbols[others] if known else [f"NOVEL{i}" for i in range(60)]
    var = pd.concat([base().var, pd.DataFrame({"gene_ids": ids}, index=names)])
    values = np.hstack([base().X.toarray(), np.zeros((N, 60), np.float32)])
    return of(csr_matrix(values), var=var)


def by_id() -> anndata.AnnData:
    """Return the cells with versioned Ensembl ids as the only names."""
    return of(base().X.copy(), var=pd.DataFrame(index=[f"{i}.7" for i in base().var["gene_ids"]]))


def split_columns() -> anndata.AnnData:
    """Return the cells with the counts of some genes in two columns each."""
    dense = base().X.toarray()
    half = np.floor(dense[:, :50] / 2)
    dense[:, :50] -= half
    var = pd.concat([base().var, pd.DataFrame({"gene_ids": base().var["gene_ids"][:50].tolist()},
                                              index=[f"{name}-1" for name in base().var_names[:50]])])  # fmt: skip
    return of(csr_matrix(np.hstack([dense, half])), var=var)


def in_layer() -> anndata.AnnData:
    """Return the cells with their counts in a layer, beside log-normalised values."""
    adata = of(base().X.copy())
    adata.layers["counts"] = adata.X.copy()
    totals = np.asarray(adata.X.sum(axis=1)).ravel()
    adata.X = csr_matrix(adata.X.multiply(1e4 / totals[:, None])).log1p().astype(np.float32)
    return adata


# Form -> the same cells in that form.
FORMS: dict[str, Callable[[Path], Source]] = {
    "csc": lambda folder: of(csc_matrix(base().X)),
    "dense": lambda folder: of(base().X.toarray()),
    "dense by columns": lambda folder: of(np.asfortranarray(base().X.toarray())),
    "uint8": lambda folder: as_type(np.uint8),
    "int16": lambda folder: as_type(np.int16),
    "int64": lambda folder: as_type(np.int64),
    "float64": lambda folder: as_type(np.float64),
    "zeros that are stored": lambda folder: explicit_zeros(),
    "a view": lambda folder: anndata.concat([base(), base()], merge="same", index_unique="-")[:N],
    "counts in a layer": lambda folder: in_layer(),
    "genes in another order": lambda folder: reordered(1),
    "genes backwards": lambda folder: base()[:, ::-1].copy(),
    "absent genes left out": lambda folder: without_absent_genes(),
    "more genes without counts": lambda folder: with_more_genes(known=True),
    "unknown genes without counts": lambda folder: with_more_genes(known=False),
    "genes by id": lambda folder: by_id(),
    "genes by symbol": lambda folder: of(base().X.copy(), var=base().var[[]]),
    "a gene in two columns": lambda folder: split_columns(),
    "h5ad": lambda folder: written(of(base().X.copy()), folder / "a.h5ad"),
    "h5ad csc": lambda folder: written(of(csc_matrix(base().X)), folder / "c.h5ad"),
    "h5ad dense": lambda folder: written(of(base().X.toarray()), folder / "d.h5ad"),
    "h5ad gzip": lambda folder: written(of(base().X.copy()), folder / "z.h5ad", compression="gzip"),
    "h5ad integers": lambda folder: written(as_type(np.uint16), folder / "i.h5ad"),
    "h5ad backed": lambda folder: anndata.read_h5ad(written(of(base().X.copy()), folder / "b.h5ad"), backed="r"),
    "zarr": lambda folder: small_world.write_zarr(of(base().X.copy()), folder / "a.zarr"),
    "zarr dense": lambda folder: small_world.write_zarr(of(base().X.toarray()), folder / "d.zarr"),
    "10x h5": lambda folder: write_10x_h5(folder / "x.h5", base()),
    "10x mtx": lambda folder: write_10x_folder(folder / "plain", base(), packed=False),
    "10x mtx gzip": lambda folder: write_10x_folder(folder / "packed", base()),
}
