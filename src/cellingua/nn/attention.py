"""Exact multi-head attention, and its plain twin. `cellingua.nn.favor` has the approximation of linear cost."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional


def attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, dropout: float = 0.0) -> Tensor:
    """Return softmax(query key' / sqrt(d)) value, by torch's fused kernels.

    Parameters
    ----------
    query
        (B, H, Q, d).
    key, value
        (B, H, K, d).
    mask
        bool (B, K), True for a key that may be seen, or None for all. Every row needs one True: a softmax over
        nothing has no value.
    dropout
        Share of attention weights dropped (0 outside training).
    """
    seen = None if mask is None else mask[:, None, None, :]
    return functional.scaled_dot_product_attention(query, key, value, attn_mask=seen, dropout_p=dropout)


def attend_plain(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, dropout: float = 0.0) -> Tensor:
    """Return what `attend` returns, written out: the truth that the fused kernels are tested against.

    On some CPUs its backward pass is faster than that of the fused kernels, for short sequences.
    """
    scores = query @ key.transpose(-2, -1) / math.sqrt(query.shape[-1])
    if mask is not None:
        scores = scores.masked_fill(~mask[:, None, None, :], -torch.inf)
    weights = functional.dropout(scores.softmax(dim=-1), dropout, training=dropout > 0)
    return weights @ value


class Attention(nn.Module):
    """Multi-head attention with its output layer, without residual and norm.

    Parameters
    ----------
    width
        Width of the queries and of the output.
    heads
        Number of heads; divides `width` unless `head_width` is given.
    memory_width
        Width of what the keys and values are made of; None for self-attention.
    dropout
        Share of attention weights dropped in training.
    head_width
        Width of a head; None divides `width` among the heads.
    bias
        Whether queries, keys and values have a bias (the output layer always has).
    """

    #: Set on a module (or on the class) to use the plain twin.
    plain = False

    def __init__(
        self,
        width: int,
        heads: int,
        memory_width: int | None = None,
        dropout: float = 0.0,
        head_width: int | None = None,
        bias: bool = True,
    ) -> None:
        super().__init__()
        if head_width is None and width % heads:
            raise ValueError(f"{heads} heads do not divide a width of {width}")
        self.heads, self.dropout = heads, dropout
        source = width if memory_width is None else memory_width
        inner = width if head_width is None else heads * head_width
        self.query = nn.Linear(width, inner, bias=bias)
        self.key = nn.Linear(source, inner, bias=bias)
        self.value = nn.Linear(source, inner, bias=bias)
        self.output = nn.Linear(inner, width)

    def forward(self, states: Tensor, mask: Tensor | None = None, memory: Tensor | None = None) -> Tensor:
        """Return (B, Q, width).

        Parameters
        ----------
        states
            (B, Q, width): what asks.
        mask
            bool (B or 1, K): the keys that may be seen.
        memory
            (B or 1, K, memory_width): what is looked at; None means `states` itself. A memory of one row is
            shared by all queries, and its keys and values are computed once: that is how many texts meet one cell.
        """
        source = states if memory is None else memory
        query, key, value = (
            self._split(layer(x)) for layer, x in ((self.query, states), (self.key, source), (self.value, source))
        )
        rows = len(query)
        if len(key) != rows:
            key, value = key.expand(rows, -1, -1, -1), value.expand(rows, -1, -1, -1)
            mask = None if mask is None else mask.expand(rows, -1)
        kernel = attend_plain if self.plain else attend
        mixed = kernel(query, key, value, mask, self.dropout if self.training else 0.0)
        return self.output(mixed.transpose(1, 2).flatten(2))

    def _split(self, states: Tensor) -> Tensor:
        """Return (B, L, inner width) as (B, heads, L, width of a head)."""
        return states.unflatten(-1, (self.heads, -1)).transpose(1, 2)
