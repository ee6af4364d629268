"""Masked expression (CellLM's MLM): hide the level of some expressed genes, and predict it from the others.

Positions are chosen once per view, before any forward pass, so that an engine that encodes a batch twice sees the
same input twice. The loss comes as a sum and a count: only the whole batch knows what to divide by.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from cellingua.core.errors import ConfigError

#: One generator for the batch, or one for each cell, by which a cell's mask does not depend on its company.
Generators = torch.Generator | Sequence[torch.Generator]


@dataclass(frozen=True)
class MaskConfig:
    """Which tokens are hidden, and how (specification §4.1; scBERT's figures).

    Parameters
    ----------
    ratio
        Share of a cell's maskable tokens that are chosen, rounded up.
    replaced
        Chance that a chosen token is replaced by the mask token; otherwise it is left, and predicted all the same.
    mask_token
        Id that stands for a hidden level. CellLM has no id of its own for it: 7 is also the padding's.
    bins
        Number of expression levels, ids ``0 .. bins - 1``.
    """

    ratio: float = 0.15
    replaced: float = 0.9
    mask_token: int = 7
    bins: int = 6

    def __post_init__(self) -> None:
        if not 0 < self.ratio <= 1:
            raise ConfigError(f"The mask ratio is {self.ratio:g}.", "above 0, at most 1", "0.15")
        if not 0 <= self.replaced <= 1:
            raise ConfigError(f"The share of replaced tokens is {self.replaced:g}.", "from 0 to 1", "0.9")


@dataclass(frozen=True)
class Hidden:
    """One view's choice.

    Attributes
    ----------
    tokens
        int64 (B, L): what the encoder is given.
    chosen
        bool (B, L): where the level is predicted.
    levels
        int64 (B, L): the tokens before; ``levels[chosen]`` is to be predicted from ``hidden[chosen]``.
    """

    tokens: Tensor
    chosen: Tensor
    levels: Tensor

    def __len__(self) -> int:
        return len(self.tokens)

    def rows(self, start: int, stop: int) -> Hidden:
        """Return the view of some cells, such as a chunk of the batch."""
        return Hidden(self.tokens[start:stop], self.chosen[start:stop], self.levels[start:stop])


def choose_positions(maskable: Tensor, ratio: float, generator: Generators) -> Tensor:
    """Return bool (B, L): ``ceil(ratio * n)`` of the n maskable positions of each row, uniformly, none twice.

    Parameters
    ----------
    maskable
        bool (B, L), on the CPU: expressed genes, never CLS and never padding.
    generator
        Drawn from once per maskable position, so padding changes no choice.
    """
    drawn = torch.full(maskable.shape, 2.0, dtype=torch.float64)
    drawn[maskable] = uniform(maskable, generator)
    rank = drawn.argsort(dim=1).argsort(dim=1)
    # The tolerance keeps 0.15 x 20, which is 3.0000000000000004 in binary, from becoming 4.
    wanted = torch.ceil(maskable.sum(dim=1, keepdim=True).double() * ratio - 1e-9)
    return (rank < wanted) & maskable


def uniform(where: Tensor, generator: Generators) -> Tensor:
    """Return a number from 0 to 1 for each True of `where`, row by row, float64 (n,)."""
    if isinstance(generator, torch.Generator):
        return torch.rand(int(where.sum()), generator=generator, dtype=torch.float64)
    sizes = where.sum(dim=1).tolist()
    rows = [torch.rand(n, generator=own, dtype=torch.float64) for n, own in zip(sizes, generator, strict=True)]
    return torch.cat(rows) if rows else torch.empty(0, dtype=torch.float64)


def hide(tokens: Tensor, maskable: Tensor, config: MaskConfig, generator: Generators) -> Hidden:
    """Return one view of `tokens` with its own random mask; `tokens` stays as it is.

    Parameters
    ----------
    tokens
        int64 (B, L): CLS, levels, padding.
    maskable
        bool (B, L).
    config
        See `MaskConfig`.
    generator
        A generator on the CPU that belongs to this view and this step, or one for each cell.
    """
    chosen = choose_positions(maskable.cpu(), config.ratio, generator)
    replaced = chosen.clone()
    replaced[chosen] = uniform(chosen, generator) < config.replaced
    chosen, replaced = chosen.to(tokens.device), replaced.to(tokens.device)
    return Hidden(tokens.masked_fill(replaced, config.mask_token), chosen, tokens)


def masked_loss(logits: Tensor, targets: Tensor) -> tuple[Tensor, int]:
    """Return the sum of cross-entropies over chosen positions, and their number.

    Parameters
    ----------
    logits
        (M, token ids) at the chosen positions.
    targets
        int64 (M,).

    Notes
    -----
    Divide by the number over the *whole* batch and both views; a mean of chunk means is another loss (§5.2).
    """
    if not len(targets):
        return logits.sum() * 0.0, 0
    return functional.cross_entropy(logits.float() if _half(logits) else logits, targets, reduction="sum"), len(targets)


def _half(values: Tensor) -> bool:
    return values.dtype in (torch.bfloat16, torch.float16)


def masked_right(logits: Tensor, targets: Tensor, bins: int = 6) -> int:
    """Return how many levels are right where only levels may be answered (CLS and mask are no answers)."""
    return int((logits[:, :bins].argmax(dim=1) == targets).sum())


def majority_share(targets: Tensor, bins: int = 6) -> float:
    """Return the accuracy of always answering the commonest level: what `masked_right` must beat. NaN for nothing."""
    if not len(targets):
        return float("nan")
    return float(torch.bincount(targets, minlength=bins).max()) / len(targets)
