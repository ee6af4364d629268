"""Hidden factors of expression: principal axes of training lines, with a noise of each gene's own.

Axes by singular value decomposition of the standardised table; the loading of an axis is what its variance has above
the mean variance of the axes left out (probabilistic principal components, Tipping and Bishop 1999, equation 7), and a
gene's noise is what its loadings leave of its variance (factor analysis). The largest axes of expression are states
shared by many genes, so that a sample without some of the genes still shows them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cellingua.core.errors import InputError

Floats = NDArray[np.float64]
LEAST_NOISE = 0.05
#: Of what shared factors leave of a gene, the part that is its own; the rest is noise.
OWN = 0.8


@dataclass(frozen=True)
class Factors:
    """Axes of expression.

    Attributes
    ----------
    loadings
        float64 (G, K).
    noise
        float64 (G,), above 0.
    length
        float64 (K,): deviation of the lines along each axis, over that of all axes together.
    """

    loadings: Floats
    noise: Floats
    length: Floats


def fit_factors(z: Floats, most: int) -> Factors:
    """Find factors.

    Parameters
    ----------
    z
        float (n, G), standardised, 0 where absent.
    most
        Factors; fewer where there are too few lines.
    """
    if len(z) < 3:
        raise InputError(f"{len(z)} lines were given to learn from.", "three or more; some hundred, to be of use")
    # The sides of the table are of very different length: the small square one is decomposed.
    size, rows = np.linalg.eigh(z @ z.T)
    order = np.argsort(size)[::-1][: min(most, len(z) - 2)]
    size, rows = size[order], rows[:, order]
    kept = size > 1e-9 * size[0]
    size, rows = size[kept], rows[:, kept]
    axes = z.T @ rows / np.sqrt(size)
    variance = size / len(z)
    rest = max(float((z**2).sum()) / len(z) - float(variance.sum()), 0.0) / max(z.shape[1] - len(size), 1)
    loadings = axes * np.sqrt(np.maximum(variance - rest, 1e-3 * variance))
    noise = np.maximum((z**2).mean(axis=0) - (loadings**2).sum(axis=1), LEAST_NOISE)
    return Factors(loadings, noise, np.sqrt(variance / variance.sum()))


def with_own(found: Factors, genes: NDArray[np.int64], share: float) -> Factors:
    """Return factors with one more for each of some genes: what of the gene is its own, and not noise.

    Parameters
    ----------
    genes
        Their places.
    share
        Of the variance of all factors' scores that these have together.
    """
    if not len(genes):
        return found
    more = np.zeros((len(found.noise), len(genes)))
    more[genes, np.arange(len(genes))] = np.sqrt(OWN * found.noise[genes])
    noise = found.noise.copy()
    noise[genes] *= 1 - OWN
    length = np.full(len(genes), np.sqrt(share / (1 - share) / len(genes)))
    return Factors(np.concatenate([found.loadings, more], axis=1), noise, np.concatenate([found.length, length]))
