"""Synthetic cells for benchmarks of reading: a few thousand are simulated, any number is made of them by thinning."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
from scipy.sparse import csr_matrix, vstack

from cellingua.cells.genes import load_vocabulary

BASE = 512
KEPT = 0.9  # of the counts of a cell, when it is drawn again


def base_cells(seed: int, cells: int = BASE) -> csr_matrix:
    """Return float32 counts (cells, vocabulary) with about 2,500 expressed genes a cell."""
    rng = np.random.default_rng(seed)
    genes = len(load_vocabulary())
    mean = rng.lognormal(-3.2, 2.0, genes)
    mean *= 8_000 / mean.sum()
    rows = [
        csr_matrix(rng.poisson(rng.gamma(0.5, 2.0, genes) * mean * rng.lognormal(0, 0.4)).astype(np.float32))
        for _ in range(cells)
    ]
    return csr_matrix(vstack(rows))


def write_file(path: Path, cells: int, seed: int) -> None:
    """Write an h5ad of `cells` cells: counts in ``X`` (CSR float32, not compressed), a label and a donor in obs.

    Written block by block with h5py, so that a file may be larger than memory.
    """
    rng = np.random.default_rng([seed, 1])
    base = base_cells(seed)
    vocabulary = load_vocabulary()
    with h5py.File(path, "w") as file:
        file.attrs.update({"encoding-type": "anndata", "encoding-version": "0.1.0"})
        group = file.create_group("X")
        group.attrs.update({"encoding-type": "csr_matrix", "encoding-version": "0.1.0"})
        group.attrs["shape"] = np.array([cells, base.shape[1]])
        data = group.create_dataset("data", (0,), np.float32, maxshape=(None,), chunks=(1 << 16,))
        indices = group.create_dataset("indices", (0,), np.int32, maxshape=(None,), chunks=(1 << 16,))
        lengths = []
        for start in range(0, cells, BASE):
            part = base[rng.permutation(BASE)[: min(BASE, cells - start)]]
            part.data = rng.binomial(part.data.astype(np.int64), KEPT).astype(np.float32)
            part.eliminate_zeros()
            for dataset, values in ((data, part.data), (indices, part.indices)):
                dataset.resize(len(dataset) + len(values), axis=0)
                dataset[-len(values) :] = values
            lengths.append(np.diff(part.indptr))
        group["indptr"] = np.concatenate([[0], np.cumsum(np.concatenate(lengths))]).astype(np.int64)
        disease = np.array(["normal", "glioma"])[np.arange(cells) % 2]
        donor = np.array([f"donor{number}" for number in np.arange(cells) // 1000 % 50])
        _frame(file, "obs", [f"cell{number}" for number in range(cells)], {"disease": disease, "donor_id": donor})
        _frame(file, "var", vocabulary.ensembl_ids.tolist(), {"symbol": vocabulary.symbols})


def _frame(file: h5py.File, name: str, index: list[str], columns: dict[str, np.ndarray]) -> None:
    """Write a data frame as AnnData does."""
    group = file.create_group(name)
    group.attrs.update({"encoding-type": "dataframe", "encoding-version": "0.2.0", "_index": "_index"})
    group.attrs["column-order"] = np.array(list(columns), dtype=h5py.string_dtype())
    for key, values in {"_index": np.array(index), **columns}.items():
        held = group.create_dataset(key, data=values.astype(object), dtype=h5py.string_dtype())
        held.attrs.update({"encoding-type": "string-array", "encoding-version": "0.2.0"})
