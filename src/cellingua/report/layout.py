"""A map of cells in the plane: UMAP over exact neighbours, in vectorised numpy.

McInnes, Healy & Melville (2018), arXiv 1802.03426. The same objective and schedule as umap-learn: fuzzy simplicial
set, attraction along edges in proportion to their weight, negative sampling. All edges that are due in an epoch
move at once instead of one after another. Written out here because on a first run importing and compiling
umap-learn takes longer than everything else together (27 s to import it, measured on two cores); the maps are
equally trustworthy.
"""

from __future__ import annotations

import numpy as np
from scipy import sparse

# Curve 1 / (1 + a d^2b) fitted to min_dist 0.3, spread 1: umap-learn's find_ab_params(1.0, 0.3).
A, B = 0.9921756, 1.1122533
NEGATIVES = 5
CLIP = 4.0


def umap_layout(
    embedding: np.ndarray, index: np.ndarray, distance: np.ndarray, *, seed: int = 0, epochs: int | None = None
) -> np.ndarray:
    """Return float32 (m, 2) coordinates.

    Parameters
    ----------
    embedding
        float32 (m, d): the starting positions are its first two principal components.
    index, distance
        (m, k): exact neighbours without the point itself, nearest first.
    seed
        For the negative samples.
    """
    m = len(embedding)
    graph = fuzzy_graph(index, distance)
    epochs = epochs or (300 if m <= 5_000 else 200)
    rng = np.random.default_rng(seed)
    points = _principal_plane(embedding, rng)
    graph.data[graph.data < graph.data.max() / epochs] = 0
    graph.eliminate_zeros()
    edges = graph.tocoo()
    head, tail = edges.row.astype(np.int64), edges.col.astype(np.int64)
    rate = (edges.data / edges.data.max()).astype(np.float64)
    for epoch in range(epochs):
        step = 1.0 - epoch / epochs
        due = np.floor(rate * (epoch + 1)) > np.floor(rate * epoch)
        points += np.float32(step) * _move(points, head[due], tail[due], rng)
    return points - points.mean(axis=0)


def fuzzy_graph(index: np.ndarray, distance: np.ndarray) -> sparse.csr_matrix:
    """Return the symmetric fuzzy simplicial set, CSR float32 (m, m)."""
    m, k = index.shape
    nearest = np.where(distance > 0, distance, np.inf).min(axis=1)
    rho = np.where(np.isfinite(nearest), nearest, 0.0)[:, None]
    beyond = np.maximum(distance - rho, 0.0)
    low, high = np.zeros((m, 1)), np.full((m, 1), np.inf)
    sigma = np.ones((m, 1))
    for _ in range(64):
        total = np.exp(-beyond / sigma).sum(axis=1, keepdims=True)
        above = total > np.log2(k + 1)
        high, low = np.where(above, sigma, high), np.where(above, low, sigma)
        sigma = np.where(np.isinf(high), sigma * 2, (low + high) / 2)
    sigma = np.maximum(sigma, 1e-3 * np.maximum(distance.mean(axis=1, keepdims=True), 1e-6))
    weight = np.exp(-beyond / sigma).astype(np.float32).ravel()
    rows = np.repeat(np.arange(m), k)
    one_way = sparse.csr_matrix((weight, (rows, index.ravel())), shape=(m, m))
    both = one_way.multiply(one_way.T)
    return (one_way + one_way.T - both).tocsr()


def _principal_plane(embedding: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return the first two principal components scaled to 10, with a little noise, float32 (m, 2)."""
    centred = embedding - embedding.mean(axis=0)
    _, vectors = np.linalg.eigh((centred.T @ centred).astype(np.float64))
    axes = vectors[:, -2:][:, ::-1]
    # The sign of an eigenvector is arbitrary; the largest entry is made positive so that maps agree.
    axes = axes * np.sign(axes[np.abs(axes).argmax(axis=0), range(axes.shape[1])])
    plane = centred @ axes
    if plane.shape[1] < 2:
        plane = np.column_stack([plane, np.zeros(len(plane))])
    plane = 10.0 * plane / max(float(np.abs(plane).max()), 1e-12)
    return (plane + rng.normal(scale=1e-3, size=plane.shape)).astype(np.float32)


def _move(points: np.ndarray, head: np.ndarray, tail: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return the movement of all points, float32 (m, 2), for the edges that are due."""
    m = len(points)
    along = points[head] - points[tail]
    squared = np.maximum((along**2).sum(axis=1), 1e-9)
    pull = (-2.0 * A * B * squared ** (B - 1.0)) / (1.0 + A * squared**B)
    pulled = np.clip(pull[:, None] * along, -CLIP, CLIP)
    source = np.repeat(head, NEGATIVES)
    apart = points[source] - points[rng.integers(0, m, len(source))]
    squared = (apart**2).sum(axis=1)
    push = 2.0 * B / ((0.001 + squared) * (1.0 + A * squared**B))
    pushed = np.clip(push[:, None] * apart, -CLIP, CLIP)
    pushed = pushed.reshape(len(head), NEGATIVES, 2).sum(axis=1)
    moved = np.empty_like(points)
    for axis in (0, 1):
        moved[:, axis] = np.bincount(head, pulled[:, axis] + pushed[:, axis], m)
        moved[:, axis] -= np.bincount(tail, pulled[:, axis], m)
    return moved
