"""Logits smoothed over a graph of neighbours: cells that lie side by side are mostly of one type.

The smoothed logits F are the ones that stay near a cell's own Z and change little along the edges of the graph:
they minimise ``|F - Z|^2 + strength tr(F' L F)`` with L the normalised Laplacian, as GRIT does for zero-shot names of
cells, and label spreading before it (Zhou et al., 2004, section 2). A cell's answer then depends on its neighbours,
which is why it goes into a column of its own.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.linalg import spsolve

Floats = NDArray[np.float32]
STRENGTH = 4.0
ROUNDS = 60
STILL = 1e-4  # of a logit


def affinity(index: NDArray[np.integer]) -> sparse.csr_matrix:
    """Return the normalised affinity of cells from their neighbours, CSR float32 (m, m), symmetric.

    Parameters
    ----------
    index
        int (m, k): the neighbours of each cell, without itself. Two cells are joined where one is a neighbour of the
        other; an edge weighs 1, divided by the root of the product of both degrees.
    """
    m, k = index.shape
    rows = np.repeat(np.arange(m), k)
    near = sparse.csr_matrix((np.ones(m * k, np.float32), (rows, index.ravel())), shape=(m, m))
    joined = ((near + near.T) > 0).astype(np.float32)
    scale = 1 / np.sqrt(np.maximum(np.asarray(joined.sum(axis=1)).ravel(), 1))
    diagonal = sparse.diags(scale.astype(np.float32))
    return sparse.csr_matrix(diagonal @ joined @ diagonal)


def smooth_logits(logits: Floats, joined: sparse.csr_matrix, strength: float = STRENGTH) -> Floats:
    """Return smoothed logits, float32 (m, K), by repeating ``F = (Z + strength S F) / (1 + strength)``.

    Parameters
    ----------
    logits
        float32 (m, K): each row's own.
    joined
        From `affinity`.
    strength
        0 leaves the logits as they are.
    """
    share = np.float32(strength / (1 + strength))
    own = np.asarray(logits, np.float32) * (1 - share)
    found = np.asarray(logits, np.float32)
    for _ in range(ROUNDS):
        following = own + share * np.asarray(joined @ found, np.float32)
        moved = float(np.abs(following - found).max(initial=0.0))
        found = following
        if moved < STILL:
            break
    return found


def smooth_logits_plainly(logits: Floats, joined: sparse.csr_matrix, strength: float = STRENGTH) -> Floats:
    """Return the same by solving ``((1 + strength) I - strength S) F = Z``: the plain twin."""
    system = (1 + strength) * sparse.identity(joined.shape[0], format="csc") - strength * joined.tocsc()
    return np.asarray(spsolve(system, np.asarray(logits, np.float64)).reshape(logits.shape), np.float32)
