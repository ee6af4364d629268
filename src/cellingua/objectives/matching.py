"""Cell-text matching (LangCell's CTM): does this text describe this cell? With negatives that are hard to tell.

For each cell a text is drawn that its similarity takes for near, and for each text a cell; with the true pairs these
are 3B pairs (BLIP's recipe; specification of LangCell, section 4.3). A pair that is right, or neither right nor wrong,
is never drawn as a negative.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

NONE = -1  # where there is nothing to draw


@dataclass(frozen=True)
class Pairs:
    """Cells and texts to be matched.

    Attributes
    ----------
    cells, texts
        int64 (P,): rows of the minibatch's cells and texts.
    match
        int64 (P,): 1 where the text describes the cell, 0 where it doesn't.
    """

    cells: Tensor
    texts: Tensor
    match: Tensor

    def __len__(self) -> int:
        return len(self.cells)

    def take(self, rows: Tensor) -> Pairs:
        """Return some of the pairs."""
        return Pairs(self.cells[rows], self.texts[rows], self.match[rows])


def draw_hard(logits: Tensor, allowed: Tensor, generator: torch.Generator) -> Tensor:
    """Return one column for each row, int64 (N,), drawn from the softmax of `logits` over the allowed ones.

    Parameters
    ----------
    logits
        (N, M): similarities over the temperature.
    allowed
        bool (N, M): negatives.
    generator
        On the CPU; it belongs to the step, so that all processes draw the same.

    Returns
    -------
    Tensor
        -1 for a row in which nothing is allowed. A row's draw takes one number, whatever the others are.
    """
    number = torch.rand(len(logits), generator=generator, dtype=torch.float64)
    open_rows = allowed.any(dim=1)
    held = logits.detach().double().cpu().masked_fill(~allowed.cpu(), -torch.inf)
    chance = torch.where(open_rows[:, None].cpu(), held, 0.0).softmax(dim=1)
    running = chance.cumsum(dim=1)
    # The first column at which the running sum passes the number; rounding may leave the last sum below 1.
    found = (running <= number[:, None] * running[:, -1:]).sum(dim=1)
    last = chance.shape[1] - 1 - (chance.flip(1) > 0).int().argmax(dim=1)
    return torch.where(open_rows.cpu(), found.minimum(last), NONE)


def choose_pairs(
    similarity: Tensor,
    text_of: Tensor,
    negative: Tensor,
    chosen: Tensor,
    temperature: float,
    generator: torch.Generator,
) -> Pairs:
    """Return the pairs of a step: each chosen cell with its own text, with a hard one, and its text with a hard cell.

    Parameters
    ----------
    similarity
        (B, T): of all cells with all texts, from the representations of the step.
    text_of
        int64 (B,): each cell's own text; -1 for a cell without one.
    negative
        bool (B, T): pairs that are wrong for sure.
    chosen
        int64 (M,): cells with a text, whose own pairs are matched.
    temperature
        Similarities are divided by it before the softmax.
    generator
        See `draw_hard`.

    Returns
    -------
    Pairs
        At most 3M: those for which there is no negative are left out.
    """
    own = text_of[chosen]
    texts = draw_hard(similarity[chosen] / temperature, negative[chosen], generator)
    cells = draw_hard(similarity.T[own] / temperature, negative.T[own], generator)
    pairs = torch.stack(
        [
            torch.cat([chosen, chosen, cells]),
            torch.cat([own, texts, own]),
            torch.cat([torch.ones_like(own), torch.zeros_like(own), torch.zeros_like(own)]),
        ]
    )
    kept = pairs[:, (pairs[0] != NONE) & (pairs[1] != NONE)]
    return Pairs(kept[0], kept[1], kept[2])


def matching_loss(logits: Tensor, match: Tensor) -> tuple[Tensor, int]:
    """Return the sum of cross-entropies over pairs, and their number.

    Parameters
    ----------
    logits
        (P, 2): class 1 means a match.
    match
        int64 (P,).

    Notes
    -----
    Divide by the number over the *whole* minibatch, never over a chunk.
    """
    wide = logits.float() if logits.dtype in (torch.bfloat16, torch.float16) else logits
    return functional.cross_entropy(wide, match, reduction="sum"), len(match)
