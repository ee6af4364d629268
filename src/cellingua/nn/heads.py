"""Small layers on top of the towers: projections into the joint space, the match head, the head for masked genes."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class Projection(nn.Module):
    """Linear map into the joint space; with `hidden`, a two-layer correction is added that starts at zero.

    LangCell's own projections are linear. The vectors that come out are not yet of unit length: see `unit`.
    """

    def __init__(self, width: int, joint: int, hidden: int = 0) -> None:
        super().__init__()
        self.linear = nn.Linear(width, joint)
        self.widen = nn.Linear(width, hidden) if hidden else None
        self.narrow = nn.Linear(hidden, joint) if hidden else None
        if self.narrow is not None:
            nn.init.zeros_(self.narrow.weight)
            nn.init.zeros_(self.narrow.bias)

    def forward(self, pooled: Tensor) -> Tensor:
        """Return (B, joint)."""
        out = self.linear(pooled)
        if self.widen is not None and self.narrow is not None:
            out = out + self.narrow(functional.gelu(self.widen(pooled)))
        return out


class MatchHead(nn.Linear):
    """Two logits, "another cell" and "this cell" (class 1), from the text state that has seen the cell."""

    def __init__(self, width: int) -> None:
        super().__init__(width, 2)


class MaskedGeneHead(nn.Module):
    """BERT's head for masked tokens: dense, relu, LayerNorm, and the token table itself as the decoder, with a bias.

    It is needed in pre-training alone; released models don't hold it (specification of LangCell, section 4.3).

    Parameters
    ----------
    width
        Of the states.
    table_width
        Of the token table.
    vocabulary
        Its rows.
    """

    def __init__(self, width: int, table_width: int, vocabulary: int) -> None:
        super().__init__()
        self.dense = nn.Linear(width, table_width)
        self.norm = nn.LayerNorm(table_width, eps=1e-12)
        self.bias = nn.Parameter(torch.zeros(vocabulary))
        nn.init.normal_(self.dense.weight, std=0.02)
        nn.init.zeros_(self.dense.bias)

    def forward(self, states: Tensor, table: Tensor) -> Tensor:
        """Return the logits (M, vocabulary) of states (M, width), with `table` (vocabulary, table_width) tied."""
        return functional.linear(self.norm(functional.relu(self.dense(states))), table, self.bias)


def unit(vectors: Tensor) -> Tensor:
    """Return the vectors at unit length (a zero vector stays zero)."""
    return functional.normalize(vectors, dim=-1)
