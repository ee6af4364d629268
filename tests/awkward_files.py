"""Files of cells as people bring them: each function here writes one and returns its path.

Genes are real human symbols, counts are random (gamma-Poisson) with the depth of a droplet experiment.
`AWKWARD` lists them by name for tests of whatever reads files.
"""

from __future__ import annotations

import gzip
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata
import h5py
import numpy as np
import pandas as pd
import scipy.io
from scipy.sparse import csc_matrix, csr_matrix

from cellingua.cells.doctor import HOUSEKEEPING
from cellingua.cells.genes import load_vocabulary


def human_genes(n: int, seed: int = 0) -> tuple[list[str], list[str]]:
    """Return (symbols, Ensembl ids) of `n` coding genes, housekeeping genes among them if `n` allows."""
    vocabulary = load_vocabulary()
    named = np.flatnonzero((vocabulary.biotypes == "protein_coding") & ~np.char.startswith(vocabulary.symbols, "ENSG"))
    _, first = np.unique(vocabulary.symbols[named], return_index=True)
    named = named[np.sort(first)]
    common = np.isin(vocabulary.symbols[named], list(HOUSEKEEPING))
    others = np.random.default_rng(seed).permutation(named[~common])
    rows = np.concatenate([named[common], others])[:n]
    return vocabulary.symbols[rows].tolist(), vocabulary.ensembl_ids[rows].tolist()


def human_counts(n_cells: int = 60, n_genes: int = 1200, seed: int = 0) -> anndata.AnnData:
    """Return cells with whole-number counts (float32 CSR), symbols as names, and `gene_ids`."""
    generator = np.random.default_rng(seed)
    symbols, ids = human_genes(n_genes, seed)
    level = generator.gamma(0.35, 2.0, n_genes) + 0.02
    level[: min(24, n_genes)] = 8
    depth = generator.lognormal(0, 0.3, (n_cells, 1))
    counts = generator.poisson(level * depth).astype(np.float32)
    counts[:, 0] += 1  # no cell is empty, and most have a count of one
    obs = pd.DataFrame(index=[f"cell{i}" for i in range(n_cells)])
    return anndata.AnnData(csr_matrix(counts), obs, pd.DataFrame({"gene_ids": ids}, index=symbols))


def log_normalised(counts: csr_matrix, target: float = 1e4) -> csr_matrix:
    """Return log1p of counts scaled to `target` a cell, float32, as scanpy's tutorial does."""
    totals = np.asarray(counts.sum(axis=1), np.float64).ravel()
    scaled = csr_matrix(counts.multiply((target / np.maximum(totals, 1))[:, None])).astype(np.float32)
    return csr_matrix(scaled.log1p())


def z_scores(values: csr_matrix) -> np.ndarray:
    """Return columns scaled to mean 0 and spread 1, cut at 10, as ``sc.pp.scale`` does."""
    dense = values.toarray()
    spread = dense.std(axis=0)
    return np.minimum((dense - dense.mean(axis=0)) / np.where(spread > 0, spread, 1), 10).astype(np.float32)


def write(adata: anndata.AnnData, path: Path) -> Path:
    """Write without the warnings that awkward contents deserve."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        adata.write_h5ad(path)
    return path


def lognorm_only(folder: Path) -> Path:
    """``X`` is log1p of counts per 10,000; counts are nowhere."""
    adata = human_counts()
    adata.X = log_normalised(adata.X)
    return write(adata, folder / "lognorm_only.h5ad")


def rounded_lognorm(folder: Path) -> Path:
    """``X`` is log-normalised and rounded to three decimals: counts can't be proved."""
    adata = human_counts()
    values = log_normalised(adata.X)
    values.data = np.round(values.data, 3)
    adata.X = values
    return write(adata, folder / "rounded_lognorm.h5ad")


def scaled_with_raw(folder: Path) -> Path:
    """``X`` is scaled and cut to 300 genes, ``raw`` is log-normalised: scanpy's pbmc3k_processed."""
    adata = human_counts()
    adata.X = log_normalised(adata.X)
    cut = adata[:, 200:500].copy()
    cut.raw = adata
    cut.X = z_scores(csr_matrix(cut.X))
    return write(cut, folder / "scaled_with_raw.h5ad")


def scaled_only(folder: Path) -> Path:
    """``X`` is scaled and nothing else is there."""
    adata = human_counts()
    adata.X = z_scores(log_normalised(adata.X))
    return write(adata, folder / "scaled_only.h5ad")


def batch_corrected(folder: Path) -> Path:
    """``X`` has a batch's mean taken off: values below zero that are no z-scores."""
    adata = human_counts()
    dense = log_normalised(adata.X).toarray()
    dense[::2] -= 0.3 * dense[::2].mean(axis=0)
    adata.X = dense
    return write(adata, folder / "batch_corrected.h5ad")


def counts_in_layer(folder: Path) -> Path:
    """``layers["counts"]`` holds counts, ``X`` log-normalised values, ``layers["scaled"]`` z-scores."""
    adata = human_counts()
    adata.layers["counts"] = adata.X.copy()
    adata.X = log_normalised(adata.X)
    adata.layers["scaled"] = z_scores(adata.X)
    return write(adata, folder / "counts_in_layer.h5ad")


def variable_genes(folder: Path) -> Path:
    """2,000 variable genes without the housekeeping genes."""
    adata = human_counts(n_genes=2024)[:, 24:].copy()
    return write(adata, folder / "variable_genes.h5ad")


def already_ranked(folder: Path) -> Path:
    """Each cell's values are the ranks of its genes."""
    adata = human_counts()
    ranked = [pd.Series(row).rank().to_numpy() for row in adata.X.toarray()]
    adata.X = np.array(ranked, np.float32)
    return write(adata, folder / "already_ranked.h5ad")


def mouse(folder: Path) -> Path:
    """Mouse symbols."""
    adata = human_counts()
    adata.var_names = [name.capitalize() for name in adata.var_names]
    del adata.var["gene_ids"]
    return write(adata, folder / "mouse.h5ad")


def numbered_genes(folder: Path) -> Path:
    """Genes were lost: the index of var is 0, 1, 2, …"""
    adata = human_counts()
    adata.var = pd.DataFrame(index=[str(i) for i in range(adata.n_vars)])
    return write(adata, folder / "numbered_genes.h5ad")


def not_numbers(folder: Path) -> Path:
    """One cell has NaN."""
    adata = human_counts()
    adata.X[7, 0] = np.nan
    return write(adata, folder / "not_numbers.h5ad")


def repeated_names(folder: Path) -> Path:
    """Cell names repeat, gene names repeat, three cells are empty and two are shallow."""
    adata = human_counts()
    values = adata.X.toarray()
    values[:3] = 0
    values[3:5, 20:] = 0
    values[3:5, :20] = 1
    adata = anndata.AnnData(csr_matrix(values), adata.obs, adata.var[[]])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        adata.obs_names = [f"cell{i % 50}" for i in range(adata.n_obs)]
        adata.var_names = [*adata.var_names[:-2], adata.var_names[30], adata.var_names[31]]
    return write(adata, folder / "repeated_names.h5ad")


def narrow_integers(folder: Path) -> Path:
    """uint8 counts stored by columns, with two columns of 200 that fall on one gene (200 + 200 > 255)."""
    adata = human_counts()
    values = np.minimum(adata.X.toarray(), 200).astype(np.uint8)
    values[:, 0] = values[:, 1] = 200
    names = [*adata.var_names]
    names[1] = f"{names[0]}-1"
    adata = anndata.AnnData(csc_matrix(values), adata.obs, pd.DataFrame(index=names))
    return write(adata, folder / "narrow_integers.h5ad")


def log2_tpm(folder: Path) -> Path:
    """log2(TPM + 1) of a full-length protocol."""
    adata = human_counts()
    lengths = np.random.default_rng(1).lognormal(0.5, 0.8, adata.n_vars)
    rates = adata.X.toarray() / lengths
    adata.X = np.log2(1 + 1e6 * rates / rates.sum(axis=1, keepdims=True)).astype(np.float32)
    return write(adata, folder / "log2_tpm.h5ad")


def no_values(folder: Path) -> Path:
    """Only annotation: ``X`` is not there."""
    adata = human_counts()
    adata.X = None
    return write(adata, folder / "no_values.h5ad")


def truncated(folder: Path) -> Path:
    """The download stopped half way."""
    path = write(human_counts(), folder / "truncated.h5ad")
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    return path


def _flipped(group: h5py.Group, counts: csr_matrix, barcodes: Any) -> None:
    group["data"] = counts.data.astype(np.int32)
    group["indices"] = counts.indices.astype(np.int64)
    group["indptr"] = counts.indptr.astype(np.int64)
    group["shape"] = np.array(counts.shape[::-1], np.int32)
    group["barcodes"] = np.array(list(barcodes), "S")


def write_10x_h5(path: Path, adata: anndata.AnnData, feature_types: list[str] | None = None) -> Path:
    """Write Cell Ranger's layout 3."""
    counts = csr_matrix(adata.X)
    counts.sort_indices()
    with h5py.File(path, "w") as handle:
        group = handle.create_group("matrix")
        _flipped(group, counts, adata.obs_names)
        features = group.create_group("features")
        features["id"] = np.array(adata.var["gene_ids"].tolist(), "S")
        features["name"] = np.array(adata.var_names.tolist(), "S")
        features["feature_type"] = np.array(feature_types or ["Gene Expression"] * adata.n_vars, "S")
        features["genome"] = np.array(["GRCh38"] * adata.n_vars, "S")
    return path


def antibodies(folder: Path) -> Path:
    """CITE-seq: a 10x file with 15 antibodies that hold most of the counts."""
    adata = human_counts()
    tags = np.full((adata.n_obs, 15), 900, np.float32)
    names = [f"CD{i}" for i in range(3, 18)]
    joined = anndata.AnnData(
        csr_matrix(np.hstack([adata.X.toarray(), tags])),
        adata.obs,
        pd.DataFrame({"gene_ids": [*adata.var["gene_ids"], *names]}, index=[*adata.var_names, *names]),
    )
    types = ["Gene Expression"] * adata.n_vars + ["Antibody Capture"] * 15
    return write_10x_h5(folder / "antibodies.h5", joined, types)


def two_genomes(folder: Path) -> Path:
    """A barnyard of human and mouse cells: Cell Ranger's layout 2 with two genomes and prefixed names."""
    adata = human_counts()
    counts = adata.X.toarray()
    mouse_counts = counts * (np.arange(adata.n_obs) % 4 == 0)[:, None] * 2
    path = folder / "two_genomes.h5"
    with h5py.File(path, "w") as handle:
        for genome, values in (("GRCh38", counts), ("mm10", mouse_counts)):
            group = handle.create_group(genome)
            _flipped(group, csr_matrix(values), adata.obs_names)
            names = adata.var_names if genome == "GRCh38" else [name.capitalize() for name in adata.var_names]
            ids = [i if genome == "GRCh38" else i.replace("ENSG", "ENSMUSG") for i in adata.var["gene_ids"]]
            group["gene_names"] = np.array([f"{genome}_{name}" for name in names], "S")
            group["genes"] = np.array([f"{genome}_{i}" for i in ids], "S")
    return path


def write_10x_folder(folder: Path, adata: anndata.AnnData, *, packed: bool = True, prefix: str = "") -> Path:
    """Write matrix.mtx, features.tsv (genes.tsv if not `packed`) and barcodes.tsv."""
    folder.mkdir(parents=True, exist_ok=True)
    matrix = folder / f"{prefix}matrix.mtx"
    scipy.io.mmwrite(matrix, csc_matrix(adata.X.T.astype(np.int32)))
    rows = zip(adata.var["gene_ids"], adata.var_names, strict=True)
    features = "".join(f"{i}\t{name}" + ("\tGene Expression\n" if packed else "\n") for i, name in rows)
    barcodes = "".join(f"{name}\n" for name in adata.obs_names)
    if not packed:
        (folder / f"{prefix}genes.tsv").write_text(features)
        (folder / f"{prefix}barcodes.tsv").write_text(barcodes)
        return folder
    for name, text in (("features.tsv.gz", features), ("barcodes.tsv.gz", barcodes)):
        (folder / f"{prefix}{name}").write_bytes(gzip.compress(text.encode()))
    (folder / f"{prefix}matrix.mtx.gz").write_bytes(gzip.compress(matrix.read_bytes()))
    matrix.unlink()
    return folder


AWKWARD: dict[str, Callable[[Path], Path]] = {
    function.__name__: function
    for function in (
        lognorm_only,
        rounded_lognorm,
        scaled_with_raw,
        scaled_only,
        batch_corrected,
        counts_in_layer,
        variable_genes,
        already_ranked,
        mouse,
        numbered_genes,
        not_numbers,
        repeated_names,
        narrow_integers,
        log2_tpm,
        no_values,
        truncated,
        antibodies,
        two_genomes,
    )
}
