"""The shape of a cloud of embeddings: how close pairs are, how evenly the rest is spread, how many directions count.

Alignment and uniformity are those of Wang & Isola 2020 (ICML). Anisotropy, which CellLM sets out to cure, shows as a
mean cosine near 1, a uniformity near 0, and a spectrum that one direction carries.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Embedding = NDArray[np.floating]


def unit_rows(x: Embedding) -> NDArray[np.float64]:
    """Return the rows of `x` (n, d) at unit length, float64; a row of zeros stays."""
    rows = np.asarray(x, np.float64)
    norm = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / np.where(norm > 0, norm, 1.0))


def alignment(x: Embedding, y: Embedding, power: float = 2.0) -> float:
    """Return the mean distance of positive pairs, ``mean |x_i - y_i| ** power``; 0 is best.

    Parameters
    ----------
    x, y
        (n, d), unit length: the two views of each cell.
    power
        Wang & Isola's alpha.
    """
    distance = np.linalg.norm(np.asarray(x, np.float64) - np.asarray(y, np.float64), axis=1)
    return float(np.mean(distance**power))


def uniformity(x: Embedding, t: float = 2.0) -> float:
    """Return ``log mean exp(-t |x_i - x_j|^2)`` over pairs of different rows; lower is more even.

    Parameters
    ----------
    x
        (n, d), unit length, n at least 2.
    t
        Width of the Gaussian.

    Returns
    -------
    float
        0 where all rows are one point; about -4 (t = 2) where they fill a sphere of many dimensions.
    """
    rows = np.asarray(x, np.float64)
    square = (rows * rows).sum(axis=1)
    distance = np.maximum(square[:, None] + square[None, :] - 2 * rows @ rows.T, 0.0)
    kernel = np.exp(-t * distance)
    np.fill_diagonal(kernel, 0.0)
    n = len(rows)
    return float(np.log(kernel.sum() / (n * (n - 1))))


def mean_cosine(x: Embedding) -> float:
    """Return the mean cosine between different rows of `x` (n, d): 1 for a single direction, about 0 for none.

    Computed from the sum of all unit rows, without an n x n matrix.
    """
    rows = unit_rows(x)
    n = len(rows)
    total = rows.sum(axis=0)
    return float((total @ total - (rows * rows).sum()) / (n * (n - 1)))


def spectrum(x: Embedding, *, centred: bool = False) -> NDArray[np.float64]:
    """Return the singular values of `x` (n, d), largest first, as shares that sum to 1.

    Parameters
    ----------
    x
        Embeddings; all zeros give a spectrum of zeros.
    centred
        Whether the mean row is taken off first. Left in, a common direction shows as a large first value.
    """
    rows = np.asarray(x, np.float64)
    if centred:
        rows = rows - rows.mean(axis=0)
    values = np.asarray(np.linalg.svd(rows, compute_uv=False), np.float64)
    total = float(values.sum())
    return values / total if total > 0 else values


def effective_rank(x: Embedding, *, centred: bool = False) -> float:
    """Return exp of the entropy of the spectrum (Roy & Vetterli 2007): between 1 and min(n, d)."""
    shares = spectrum(x, centred=centred)
    shares = shares[shares > 0]
    return float(np.exp(-(shares * np.log(shares)).sum()))


def participation_ratio(x: Embedding, *, centred: bool = True) -> float:
    """Return ``(sum v)^2 / sum v^2`` over variances v along the principal axes: how many axes carry the spread."""
    variance = spectrum(x, centred=centred) ** 2
    total = float((variance**2).sum())
    return float(variance.sum() ** 2 / total) if total > 0 else 0.0
