"""Normal or cancer (CellLM's cell type discrimination): cross-entropy with classes in balance.

Cells whose label is not known carry -1 and take no part. Beware of what is measured: where one laboratory gave the
normal cells and another the tumours, this objective is solved by telling the laboratories apart.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

UNLABELLED = -1


def class_weights(labels: Tensor, classes: int = 2) -> Tensor:
    """Return float64 (classes,) weights under which every class that occurs counts the same: ``n / (k n_c)``.

    Parameters
    ----------
    labels
        int64 (B,) of the whole batch or corpus, -1 where not known.
    classes
        Number of classes.

    Returns
    -------
    Tensor
        k is the number of classes that occur; one that doesn't has weight 0. The mean over labelled cells is 1.
    """
    counts = torch.bincount(labels[labels != UNLABELLED], minlength=classes).double()
    present = counts > 0
    share = counts.sum() / present.sum().clamp(min=1)
    return torch.where(present, share / counts.clamp(min=1), 0.0)


def discrimination_loss(logits: Tensor, labels: Tensor, weights: Tensor | None = None) -> tuple[Tensor, float]:
    """Return the weighted sum of losses over labelled cells, and the sum of their weights.

    Parameters
    ----------
    logits
        (B,) or (B, 1) for two classes (above 0 means class 1), else (B, classes).
    labels
        int64 (B,), -1 where not known.
    weights
        (classes,), as `class_weights` gives for the whole batch; None counts every cell once.

    Notes
    -----
    Divide by the sum of weights over the *whole* batch, never over a chunk.
    """
    known = labels != UNLABELLED
    picked, truth = logits[known], labels[known]
    if picked.dtype in (torch.bfloat16, torch.float16):
        picked = picked.float()
    if not len(truth):
        return logits.sum() * 0.0, 0.0
    if picked.dim() == 1 or picked.shape[1] == 1:
        loss = functional.binary_cross_entropy_with_logits(picked.reshape(-1), truth.to(picked.dtype), reduction="none")
    else:
        loss = functional.cross_entropy(picked, truth, reduction="none")
    if weights is None:
        return loss.sum(), float(len(truth))
    each = weights.to(device=loss.device, dtype=loss.dtype)[truth]
    return (loss * each).sum(), float(each.sum())


def discrimination_right(logits: Tensor, labels: Tensor) -> tuple[int, int]:
    """Return how many labelled cells are named right, and how many there are."""
    known = labels != UNLABELLED
    picked = logits[known]
    guess = (picked.reshape(-1) > 0).long() if picked.dim() == 1 or picked.shape[1] == 1 else picked.argmax(dim=1)
    return int((guess == labels[known]).sum()), int(known.sum())
