"""Which genes a small model has, and vectors that they start from: both from cells of the training side alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from cellingua.cells.sources import FILE, CellSource
from cellingua.core.errors import CountsError

SCALE = 1e4
BLOCK = 16  # neighbours that are read together
VALUES = 100_000_000  # of the dense matrix that vectors are made from, at most
_ROUNDS = 6  # of subspace iteration


@dataclass(frozen=True)
class Sample:
    """Some cells of a source.

    Attributes
    ----------
    values
        CSR float32 (cells, genes): ``log(1 + count / total * 10,000)``.
    files
        int32 (cells,): code of the file.
    """

    values: csr_matrix
    files: NDArray[np.int32]


def sample_cells(source: CellSource, rows: NDArray[np.int64], limit: int = 20_000, seed: int = 0) -> Sample:
    """Return up to `limit` of the cells `rows`, in random blocks of neighbours."""
    starts = np.arange(0, len(rows), BLOCK)
    chosen = np.random.default_rng([seed, 21]).permutation(starts)[: max(1, limit // BLOCK)]
    picked = np.concatenate([rows[start : start + BLOCK] for start in np.sort(chosen)])
    cells = source.read(picked)
    counts = csr_matrix(cells.counts, copy=True)
    share = SCALE / np.maximum(np.asarray(counts.sum(axis=1)).ravel(), 1.0)
    counts.data = np.log1p(counts.data * np.repeat(share, np.diff(counts.indptr))).astype(np.float32)
    return Sample(counts, cells.labels[FILE])


def informative_genes(sample: Sample, n: int, least_cells: int = 30) -> NDArray[np.int64]:
    """Return the columns of the `n` genes that vary most within files, ascending.

    A gene's score is its variance within a file, averaged over the files that measure it with weight ``sqrt(cells)``:
    differences between laboratories count for nothing, and no file has the say alone. A gene that few files measure
    is held back in proportion.

    Parameters
    ----------
    least_cells
        Files of fewer sampled cells say nothing.

    Raises
    ------
    CountsError
        Fewer than `n` genes are expressed.
    """
    total, weight = np.zeros(sample.values.shape[1]), np.zeros(sample.values.shape[1])
    for file in np.unique(sample.files):
        part = sample.values[sample.files == file]
        if part.shape[0] < least_cells:
            continue
        mean = np.asarray(part.mean(axis=0), np.float64).ravel()
        variance = np.asarray(part.multiply(part).mean(axis=0), np.float64).ravel() - mean**2
        root = np.sqrt(part.shape[0])
        total += np.where(mean > 0, root * variance, 0.0)
        weight += np.where(mean > 0, root, 0.0)
    seen = np.flatnonzero(np.asarray(sample.values.sum(axis=0)).ravel() > 0)
    if len(seen) < n:
        raise CountsError(f"{len(seen):,} genes are expressed in the corpus.", f"{n:,}, as the configuration has it")
    score = total / np.maximum(weight, 0.2 * max(float(weight.max()), 1e-12))
    best = seen[np.argsort(-score[seen], kind="stable")[:n]]
    return np.sort(best)


def start_vectors(
    sample: Sample, genes: NDArray[np.int64], width: int, deviation: float, seed: int = 0
) -> torch.Tensor:
    """Return float32 (genes, width): genes that go together in cells start alike.

    The leading right singular vectors of the cells' log values, centred within each file, by subspace iteration;
    scaled to a standard deviation of `deviation` over all entries. Where there are fewer cells than `width`, the rest
    is noise a hundred times smaller.
    """
    most = max(width + 10, VALUES // len(genes))
    values, files = sample.values[:, genes], sample.files
    if values.shape[0] > most:
        kept = np.sort(np.random.default_rng([seed, 22]).permutation(values.shape[0])[:most])
        values, files = values[kept], files[kept]
    dense = torch.from_numpy(values.toarray())
    for file in np.unique(files):
        inside = torch.from_numpy(files == file)
        dense[inside] -= dense[inside].mean(dim=0)
    rank = min(width, *dense.shape)
    generator = torch.Generator().manual_seed(seed)
    basis = torch.randn(dense.shape[1], min(rank + 10, *dense.shape), generator=generator)
    for _ in range(_ROUNDS):
        basis = torch.linalg.qr(dense.T @ (dense @ torch.linalg.qr(basis).Q)).Q
    _, _, rotation = torch.linalg.svd(dense @ basis, full_matrices=False)
    vectors = torch.randn(len(genes), width, generator=generator) * 0.01
    vectors[:, :rank] = (basis @ rotation.T)[:, :rank] * len(genes) ** 0.5
    return vectors * (deviation / float(vectors.std()))
