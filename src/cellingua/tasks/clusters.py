"""Clusters of cells in the joint space, and the label that a cluster agrees on."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from scipy import sparse

from cellingua.calibration.rollup import ROLLED_UP, STATUS, UNKNOWN, Hierarchy, decide

LANDMARKS = 20_000
NEIGHBOURS = 15
RESOLUTION = 1.0


@dataclass(frozen=True)
class Graph:
    """Exact nearest neighbours among drawn cells.

    Attributes
    ----------
    rows
        int64 (m,), ascending: which cells were drawn (all with an embedding, up to `LANDMARKS`).
    index, distance
        int64 and float32 (m, k): neighbours by position in `rows`, nearest first and without the cell itself, and
        their cosine distances.
    """

    rows: np.ndarray
    index: np.ndarray
    distance: np.ndarray


@dataclass(frozen=True)
class ClusterRow:
    """One cluster.

    Attributes
    ----------
    name
        As in the cluster key, or its number by size.
    n
        Number of cells.
    label, term_id, status
        The label of highest mean probability, rolled up or unknown by the same rule as a cell.
    probability
        The mean probability of the label over the cluster's cells.
    alternatives
        The next two candidates with their mean probabilities.
    share
        Share of the cluster's cells whose own label is the cluster's.
    markers
        Gene symbols that speak for the cluster, strongest first.
    """

    name: str
    n: int
    label: str
    term_id: str
    status: str
    probability: float
    alternatives: tuple[tuple[str, float], ...]
    share: float
    markers: tuple[str, ...] = field(default=())


def draw(n_cells: int, limit: int, seed: int) -> np.ndarray:
    """Return int64 row numbers, ascending: all of them, or `limit` drawn without replacement."""
    if n_cells <= limit:
        return np.arange(n_cells, dtype=np.int64)
    return np.sort(np.random.default_rng(seed).choice(n_cells, size=limit, replace=False)).astype(np.int64)


def neighbour_graph(embedding: np.ndarray, seed: int, *, limit: int = LANDMARKS) -> Graph | None:
    """Return exact cosine neighbours among at most `limit` cells; None for fewer than four cells.

    Cells without an embedding (a zero row: no token at all) have no neighbours and are not drawn.
    """
    usable = np.flatnonzero(np.any(embedding != 0, axis=1))
    rows = usable[draw(len(usable), limit, seed)]
    if len(rows) < 4:
        return None
    index, distance = nearest(embedding[rows], embedding[rows], min(NEIGHBOURS, len(rows) - 1) + 1)
    # A cell need not be its own nearest neighbour where others are equal to it: take it out wherever it stands.
    itself = index == np.arange(len(rows))[:, None]
    itself[~itself.any(axis=1), -1] = True
    keep = ~itself
    shape = (len(rows), index.shape[1] - 1)
    return Graph(rows, index[keep].reshape(shape), distance[keep].reshape(shape))


def cluster_cells(embedding: np.ndarray, graph: Graph | None, seed: int) -> np.ndarray:
    """Return int64 (n,) cluster numbers by size, 0 the largest.

    Leiden over shared neighbours of the drawn cells; the other cells join the cluster of their nearest drawn cell.
    Cells without an embedding are a cluster of their own.
    """
    everyone = np.zeros(len(embedding), dtype=np.int64)
    if graph is not None:
        found = _leiden(graph, seed)
        everyone[graph.rows] = found
        others = np.setdiff1d(np.arange(len(embedding)), graph.rows, assume_unique=True)
        if len(others):
            landmark, _ = nearest(embedding[graph.rows], embedding[others], 1)
            everyone[others] = found[landmark[:, 0]]
        everyone[~np.any(embedding != 0, axis=1)] = found.max() + 1
    _, first, codes, sizes = np.unique(everyone, return_index=True, return_inverse=True, return_counts=True)
    order = np.lexsort((first, -sizes))
    rank = np.empty(len(sizes), dtype=np.int64)
    rank[order] = np.arange(len(sizes))
    return rank[codes]


def mean_probabilities(
    codes: np.ndarray, n_groups: int, n_candidates: int, top_index: np.ndarray, top_probability: np.ndarray
) -> np.ndarray:
    """Return float32 (groups, K): the mean probability of each candidate over the cells of each group.

    Parameters
    ----------
    codes
        int (n,): group of each cell.
    top_index, top_probability
        (n, c): the likeliest candidates of each cell; what was not kept counts as zero.
    """
    _n, width = top_index.shape
    rows = np.repeat(codes, width)
    summed = sparse.coo_matrix(
        (top_probability.ravel().astype(np.float64), (rows, top_index.ravel())), shape=(n_groups, n_candidates)
    ).toarray()
    sizes = np.bincount(codes, minlength=n_groups)
    return (summed / np.maximum(sizes, 1)[:, None]).astype(np.float32)


def consensus(
    means: np.ndarray,
    hierarchy: Hierarchy,
    terms: list[tuple[str, str]],
    names: list[tuple[str, str]],
    threshold: float,
    floor: float | None = None,
) -> list[tuple[str, str, str, float, tuple[tuple[str, float], ...]]]:
    """Return (label, term id, status, probability, alternatives) of each row of `means` (groups, K).

    Parameters
    ----------
    terms
        (label, id) of each row of the hierarchy.
    names
        (label, id) of each candidate.
    threshold, floor
        See `decide`.
    """
    answer = decide(means, np.ones(len(means), dtype=bool), threshold, hierarchy, floor)
    found = []
    for group, status in enumerate(answer.status):
        best = int(answer.best[group])
        label, term = names[best]
        if status == ROLLED_UP:
            label, term = terms[int(answer.ancestor[group])]
        elif status == UNKNOWN:
            label, term = "unknown", ""
        order = np.argsort(-means[group], kind="stable")
        others = [int(k) for k in order[:3] if names[int(k)][0] != label and means[group, k] > 0][:2]
        alternatives = tuple((names[k][0], float(means[group, k])) for k in others)
        found.append((label, term, STATUS[status], float(answer.probability[group]), alternatives))
    return found


def nearest(points: np.ndarray, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the k nearest points of each query by cosine distance: index int64 (q, k), distance float32 (q, k).

    Exact, in blocks of queries; ties go to the earlier point.
    """
    index = np.empty((len(queries), k), dtype=np.int64)
    distance = np.empty((len(queries), k), dtype=np.float32)
    step = max(1, 10_000_000 // max(len(points), 1))
    for start in range(0, len(queries), step):
        far = 1.0 - queries[start : start + step] @ points.T
        if k == 1:
            part = far.argmin(axis=1)[:, None]
        elif k < far.shape[1]:
            part = np.argpartition(far, k - 1, axis=1)[:, :k]
        else:
            part = np.tile(np.arange(k), (len(far), 1))
        part.sort(axis=1)
        values = np.take_along_axis(far, part, axis=1)
        order = np.argsort(values, axis=1, kind="stable")
        index[start : start + step] = np.take_along_axis(part, order, axis=1)
        distance[start : start + step] = np.maximum(np.take_along_axis(values, order, axis=1), 0.0)
    return index, distance


def _leiden(graph: Graph, seed: int) -> np.ndarray:
    """Return int64 (m,) communities of the drawn cells; an edge weighs the share of common neighbours."""
    import graspologic_native

    m, k = graph.index.shape
    rows = np.repeat(np.arange(m), k)
    near = sparse.csr_matrix((np.ones(m * k, dtype=np.float32), (rows, graph.index.ravel())), shape=(m, m))
    near = near + sparse.identity(m, dtype=np.float32, format="csr")
    linked = ((near + near.T) > 0).astype(np.float32)
    common = linked.multiply(near @ near.T).tocoo()
    upper = common.row < common.col
    weight = common.data[upper] / (2.0 * (k + 1) - common.data[upper])
    # The native function names nodes by strings and walks them in the order in which edges bring them.
    edges = [
        (str(a), str(b), float(w))
        for a, b, w in zip(common.row[upper].tolist(), common.col[upper].tolist(), weight.tolist(), strict=True)
    ]
    _, found = graspologic_native.leiden(edges=edges, resolution=RESOLUTION, iterations=2, seed=seed)
    alone = max(found.values(), default=-1) + 1
    communities = np.empty(m, dtype=np.int64)
    for node in range(m):
        number = found.get(str(node))
        communities[node] = alone if number is None else number
        alone += number is None
    return communities
