"""Contrast between cells (CellLM's CL): two dropout views of a cell are a pair, the other cells are not.

The recipe takes it from `cellingua.engine` (``InfoNCE``, ``NTXent``), which makes it in tiles; this is the same written
out, by which a whole step of the recipe is tested.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def cell_cell_contrast(
    first: Tensor,
    second: Tensor,
    *,
    temperature: float = 0.05,
    symmetric: bool = True,
    within_views: bool = False,
) -> Tensor:
    """Return the contrastive loss between two views of the same cells, a scalar: a mean over cells.

    Parameters
    ----------
    first, second
        (N, d), unit length; row i of both is cell i.
    temperature
        Similarities are divided by it.
    symmetric
        Whether the loss from the second view to the first is averaged in.
    within_views
        Whether the other cells of a cell's *own* view are negatives too: 2N - 2 negatives instead of N - 1 (NT-Xent;
        Chen et al. 2020).

    Notes
    -----
    ``L_i = -log exp(z_i.z'_i / t) / sum_j exp(z_i.z'_j / t)`` (specification §4.3; SimCSE). The N x N logits are
    stored; for batches at which that matters, an engine computes the same loss in tiles.
    """
    between = first @ second.T / temperature
    loss = _one_way(between, first if within_views else None, temperature)
    if not symmetric:
        return loss
    return 0.5 * (loss + _one_way(between.T, second if within_views else None, temperature))


def _one_way(between: Tensor, own: Tensor | None, temperature: float) -> Tensor:
    """Mean cross-entropy of the diagonal, with the cells of the own view (less the cell itself) as more columns."""
    target = torch.arange(len(between), device=between.device)
    if own is None:
        return functional.cross_entropy(between, target)
    within = (own @ own.T / temperature).masked_fill(
        torch.eye(len(own), dtype=torch.bool, device=own.device), -torch.inf
    )
    return functional.cross_entropy(torch.cat([between, within], dim=1), target)
