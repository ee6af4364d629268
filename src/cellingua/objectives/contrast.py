"""Contrast between cells and texts (LangCell's C-T objective), with several positives and pairs left out."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def cell_text_contrast(
    cells: Tensor,
    texts: Tensor,
    positive: Tensor,
    ignored: Tensor | None = None,
    *,
    temperature: float = 0.05,
    symmetric: bool = True,
) -> Tensor:
    """Return the contrastive loss between cells and texts, a scalar.

    Parameters
    ----------
    cells
        (B, d), unit length.
    texts
        (T, d), unit length.
    positive
        bool (B, T): the texts that describe each cell; at least one a row. A cell's target is spread evenly over
        them, so cells that share a text are never negatives of each other. Numbers of 0 or more are weights: a soft
        target, in proportion to them.
    ignored
        bool (B, T): pairs that are neither right nor wrong, such as a cell and the text of a wider or narrower
        type; they leave the denominator. Positives are never ignored.
    temperature
        Similarities are divided by it.
    symmetric
        Whether the loss from texts to cells is averaged in, over texts that have a positive.

    Notes
    -----
    With one positive a row and nothing ignored this is InfoNCE, both directions averaged, as in LangCell
    (ICML 2024): ``-log exp(s_ii) / sum_j exp(s_ij)``.
    """
    logits = cells @ texts.T / temperature
    if ignored is not None:
        logits = logits.masked_fill(ignored & (positive == 0), float("-inf"))
    loss = _one_way(logits, positive)
    if not symmetric:
        return loss
    described = (positive > 0).any(dim=0)
    return 0.5 * (loss + _one_way(logits.T[described], positive.T[described]))


def _one_way(logits: Tensor, positive: Tensor) -> Tensor:
    """Mean over rows of the cross-entropy against a target in proportion to `positive`."""
    log_chance = functional.log_softmax(logits, dim=1)
    right = positive.to(logits.dtype)
    even = right / right.sum(dim=1, keepdim=True)
    # 0 x -inf of an ignored pair would be NaN, so those are left out rather than multiplied by zero.
    return -torch.where(positive > 0, log_chance * even, 0.0).sum(dim=1).mean()
