"""All drugs at once from one kernel between lines: ridge regressions on the components of the table of responses.

Drugs share their targets, so their responses do, too. The table (lines x drugs, filled) is turned onto its principal
axes, each component is regressed on the kernel with a penalty of its own, and the answer is turned back. A component
that features of lines say something about is kept nearly whole; one that is noise gets a large penalty, or is left
out where even the mean predicts it better. The penalties are chosen by leave-one-out error, in closed form, on the
learned lines alone. With the two sides exchanged (drugs as rows, a kernel between molecules) the same regression
predicts drugs that were never tried.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cellingua.core.errors import InputError

Floats = NDArray[np.float64]
PENALTIES = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0)


@dataclass(frozen=True)
class ComponentRidge:
    """A fitted regression of a whole table.

    Attributes
    ----------
    centre
        float64 (D,): the mean row.
    weights
        float64 (n, D): a new row is ``centre + k @ weights``, where k (n,) is its kernel with the learned rows.
    left_out
        float64 (n, D): what each learned row would have been predicted as, had it been left out.
    penalties
        float64 (C,): of each component; infinite where it is left out.
    """

    centre: Floats
    weights: Floats
    left_out: Floats
    penalties: Floats

    def predict(self, kernel: Floats) -> Floats:
        """Return float64 (m, D) for rows whose kernel (m, n) with the learned rows is given."""
        return self.centre + kernel @ self.weights

    def first(self, drugs: int) -> ComponentRidge:
        """Return the same regression of the first `drugs` columns alone."""
        return ComponentRidge(self.centre[:drugs], self.weights[:, :drugs], self.left_out[:, :drugs], self.penalties)


def fit_components(
    kernel: Floats,
    table: Floats,
    *,
    penalties: tuple[float, ...] = PENALTIES,
    columns: Floats | None = None,
    part: slice = slice(None),
) -> ComponentRidge:
    """Fit a table of responses on a kernel.

    Parameters
    ----------
    kernel
        float (n, n), mean diagonal about 1 a view.
    table
        float (n, D) without holes.
    penalties
        Tried for each component.
    columns
        float (D,): weight of each drug when components are looked for; by default all alike.
    part
        Which components are regressed, from the largest; the others stay at their mean.
    """
    if kernel.shape != (len(table), len(table)) or not np.isfinite(table).all():
        raise InputError(f"A kernel of {kernel.shape} and a table of {table.shape}.", "one row and column a line")
    scale = np.ones(table.shape[1]) if columns is None else columns
    centre = table.mean(axis=0)
    _, _, axes = np.linalg.svd((table - centre) * scale, full_matrices=False)
    axes = axes[part]
    scores = ((table - centre) * scale) @ axes.T
    size, basis = np.linalg.eigh((kernel + kernel.T) / 2)
    size = np.maximum(size, 0.0)
    turned = basis.T @ scores
    # A component must do better than its mean, which stays that of all lines, here as below.
    best = np.mean(scores**2, axis=0)
    chosen = np.full(len(axes), np.inf)
    guess = np.zeros(scores.shape)
    for penalty in penalties:
        kept = size / (size + penalty)
        error = (scores - basis @ (kept[:, None] * turned)) / (1 - (basis**2) @ kept)[:, None]
        loss = np.mean(error**2, axis=0)
        better = loss < best * (1 - 1e-9)  # not by rounding
        best, chosen = np.where(better, loss, best), np.where(better, penalty, chosen)
        guess[:, better] = (scores - error)[:, better]
    inside = turned / (size[:, None] + chosen[None, :])
    back = axes / scale
    return ComponentRidge(centre, (basis @ inside) @ back, centre + guess @ back, chosen)
