"""Probabilities corrected for how often each type occurs in the sample, which the sample itself tells.

A classifier states probabilities for the shares of types that it was made with. Where a sample has others, expectation
maximisation finds them from the probabilities alone (Saerens, Latinne and Decaestecker, 2002, section 2.2): weigh each
probability by the share of its type, share by share of the cells, until nothing moves. A cell's answer then depends on
the other cells of its sample, which is why it goes into a column of its own.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
ROUNDS = 500
STILL = 1e-6
SPREAD = 1.0  # cells that are spread evenly over all types, so that no share becomes 0


def correct_for_composition(
    probability: NDArray[np.floating],
    made_with: NDArray[np.floating] | None = None,
    *,
    spread: float = SPREAD,
    rounds: int = ROUNDS,
) -> tuple[Floats, Floats]:
    """Return the corrected probabilities of the cells of one sample, and the shares that were found.

    Parameters
    ----------
    probability
        float (n, K), rows sum to 1 (or to less, where small ones were dropped).
    made_with
        float (K,): shares that the probabilities were made for; None: every type alike.
    spread
        See `SPREAD`.
    rounds
        Most rounds; it ends before where no share moves by more than `STILL`.

    Returns
    -------
    tuple
        float64 (n, K), rows sum to 1; float64 (K,), sums to 1.
    """
    given = np.asarray(probability, np.float64)
    n, k = given.shape
    start = np.full(k, 1 / max(k, 1)) if made_with is None else np.asarray(made_with, np.float64)
    shares = start
    if not n or not k:
        return given, shares
    for _ in range(rounds):
        summed = _weighed(given, shares / start).sum(axis=0)
        following = (summed + spread / k) / (n + spread)
        moved = np.abs(following - shares).max()
        shares = following
        if moved < STILL:
            break
    return _weighed(given, shares / start), shares


def _weighed(probability: Floats, weight: Floats) -> Floats:
    weighed = probability * weight
    return np.asarray(weighed / np.maximum(weighed.sum(axis=1, keepdims=True), 1e-300))
