"""Small layers on top of the towers: projections into the joint space, the match head."""

from __future__ import annotations

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


def unit(vectors: Tensor) -> Tensor:
    """Return the vectors at unit length (a zero vector stays zero)."""
    return functional.normalize(vectors, dim=-1)
