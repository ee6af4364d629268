"""The one solver of multinomial logistic regression: the baseline's, and with an offset that of fine-tuned heads.

The prior of the weights is Gaussian and centred on zero, so what is known beforehand (zero-shot logits) goes into the
offset: with no evidence from the cells, the answer is that of the offset.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

Floats = NDArray[np.floating]
#: Of the penalty on the weights that is put on the biases too: they must be finite even for classes that are split off.
BIAS_PENALTY = 1e-3
FLAT = 64 * np.finfo(float).eps  # a smaller relative gain ends the search, as in scikit-learn


@dataclass(frozen=True)
class Fitted:
    """Weights (features, classes) and biases (classes,), float64."""

    weights: NDArray[np.float64]
    bias: NDArray[np.float64]

    def logits(self, features: Floats, offset: Floats | None = None) -> NDArray[np.float64]:
        """Return float64 (cells, classes)."""
        out = np.asarray(features, np.float64) @ self.weights + self.bias
        return out if offset is None else out + offset


def fit_softmax(
    features: Floats,
    truth: NDArray[np.integer],
    classes: int,
    *,
    offset: Floats | None = None,
    weight: Floats | None = None,
    penalty: float = 1.0,
    bias_penalty: float = BIAS_PENALTY,
    tolerance: float = 1e-5,
    steps: int = 500,
) -> Fitted:
    """Return the weights at the maximum of the posterior.

    Minimised is ``sum_i w_i CE_i + penalty / 2 (|W|^2 + bias_penalty |b|^2)``.

    Parameters
    ----------
    features
        (cells, features), dense.
    truth
        int (cells,): class of each cell.
    classes
        Number of classes; one without a cell keeps its offset.
    offset
        (cells, classes): added to the logits.
    weight
        (cells,): of each cell; 1 by default.
    penalty
        Precision of the prior, above 0.
    bias_penalty
        Share of it that holds the biases; 0 leaves them free, as scikit-learn does.
    tolerance, steps
        L-BFGS stops where no entry of the gradient is larger, or after so many steps.

    Notes
    -----
    With more features than cells the weights lie in the span of the cells, so they are found there: an orthonormal
    basis of that span (from the singular value decomposition) changes no distance and no penalty.
    """
    given = np.asarray(features, np.float64)
    basis = None
    if given.shape[1] > given.shape[0]:
        left, size, right = np.linalg.svd(given, full_matrices=False)
        given, basis = left * size, right
    cells = np.arange(len(given))
    share = np.ones(len(given)) if weight is None else np.asarray(weight, np.float64)
    known = np.zeros((len(given), classes)) if offset is None else np.asarray(offset, np.float64)
    inner = given.shape[1]

    def loss(flat: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        table = flat.reshape(inner + 1, classes)
        logits = given @ table[:inner] + table[inner] + known
        logits -= logits.max(axis=1, keepdims=True)
        odds = np.exp(logits)
        total = odds.sum(axis=1, keepdims=True)
        value = float(share @ (np.log(total[:, 0]) - logits[cells, truth]))
        error = odds / total
        error[cells, truth] -= 1
        error *= share[:, None]
        slope = np.empty_like(table)
        slope[:inner] = given.T @ error + penalty * table[:inner]
        slope[inner] = error.sum(axis=0) + bias_penalty * penalty * table[inner]
        size = float((table[:inner] ** 2).sum()) + bias_penalty * float((table[inner] ** 2).sum())
        value += 0.5 * penalty * size
        return value, slope.ravel()

    start = np.zeros((inner + 1) * classes)
    options: dict[str, Any] = {"maxiter": steps, "gtol": tolerance, "ftol": FLAT, "maxls": 50}
    found = minimize(loss, start, jac=True, method="L-BFGS-B", options=options).x  # type: ignore[call-overload]
    table = found.reshape(inner + 1, classes)
    weights = table[:inner] if basis is None else basis.T @ table[:inner]
    return Fitted(weights, table[inner])
