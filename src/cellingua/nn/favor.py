"""FAVOR+: softmax attention in linear time, by random features (Choromanski et al., Performer, ICLR 2021).

With features ``phi_q = exp(A_q - |q|^2/2 - max A_q) + eps`` and the like for keys, where ``A = x P'`` for a random
matrix P and x is scaled by d^(-1/4), attention is ``phi_q (phi_k' V) / phi_q (phi_k' 1)``. The factor m^(-1/2) of the
features cancels and is left out. Because of eps, the maximum that is taken off the keys does matter:

`attend_favor` takes it per cell and leaves padding out, so that a cell depends on itself alone. CellLM's released
code takes one maximum over the minibatch and leaves padding rows in the denominator; `weight` and `together`
give that too, with one padding row that counts for all of them. `attend_padded` is the released formula written out.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from cellingua.nn.attention import Attention

EPS = 1e-4


def draw_features(count: int, width: int, generator: torch.Generator | None = None) -> Tensor:
    """Return a random feature matrix, float32 (count, width).

    Blocks of `width` rows are orthogonal, the last block is cut, and each row has the length of an independent
    vector of standard normals. Drawn on the CPU, so that a seed means the same everywhere.
    """
    blocks = []
    for _ in range(math.ceil(count / width)):
        normal = torch.randn(width, width, generator=generator, device="cpu")
        blocks.append(torch.linalg.qr(normal).Q.T)
    rows = torch.cat(blocks)[:count]
    lengths = torch.randn(count, width, generator=generator, device="cpu").norm(dim=1)
    return rows * lengths[:, None]


def attend_favor(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    features: Tensor,
    weight: Tensor | None = None,
    together: bool = False,
) -> Tensor:
    """Return the approximate softmax attention, (B, H, Q, d).

    Parameters
    ----------
    query
        (B, H, Q, d).
    key, value
        (B, H, K, d).
    mask
        bool (B, K), True for a key that may be seen, or None for all.
    features
        (m, d), see `draw_features`.
    weight
        (B, K): how often a key counts in the denominator, 0 for not at all; by default `mask`. A key outside `mask`
        with a weight is a padding row as in CellLM's released code: it has no value and takes part in the maximum.
    together
        Take the maximum over all cells of the minibatch, as the released code does, instead of for each cell.
    """
    if weight is None and mask is not None:
        weight = mask.to(value.dtype)
    if mask is not None:
        value = value * mask[:, None, :, None]
    counted = None if weight is None else weight > 0
    ones = value.new_ones(value.shape[:-1]) if weight is None else weight[:, None, :].expand(value.shape[:-1])
    value = torch.cat([value, ones.to(value.dtype)[..., None]], dim=-1)  # the denominator is one column more

    phi_query = _features(query, features, None, "row")
    phi_key = _features(key, features, counted, "all" if together else "cell")
    # (phi + eps) X = phi X + eps (sum of the rows of X): eps costs no pass over the features.
    memory = phi_key @ value + EPS * value.sum(dim=-2, keepdim=True)
    mixed = phi_query.transpose(-2, -1) @ memory + EPS * memory.sum(dim=-2, keepdim=True)
    return mixed[..., :-1] / mixed[..., -1:]


def attend_padded(query: Tensor, key: Tensor, value: Tensor, mask: Tensor, features: Tensor) -> Tensor:
    """Return what CellLM's released kernel does, written out: padding rows stay, one maximum for the minibatch."""
    scale, ratio = query.shape[-1] ** -0.25, features.shape[0] ** -0.5
    value = value * mask[:, None, :, None]
    dash_query, dash_key = (scale * query) @ features.T, (scale * key) @ features.T
    half_query, half_key = ((x**2).sum(dim=-1, keepdim=True) * scale**2 / 2 for x in (query, key))
    phi_query = ratio * ((dash_query - half_query - dash_query.amax(dim=-1, keepdim=True)).exp() + EPS)
    phi_key = ratio * ((dash_key - half_key - dash_key.max()).exp() + EPS)
    memory = phi_key.transpose(-2, -1) @ value
    return (phi_query @ memory) / (phi_query @ phi_key.sum(dim=-2)[..., None])


def _features(states: Tensor, features: Tensor, counted: Tensor | None, over: str) -> Tensor:
    """Return ``exp(A - D - maximum of A)``, (B, H, m, L), without eps.

    `counted` is bool (B, L): rows outside it take no part in the maximum and give 0. The maximum is taken over the
    features of each ``row``, over each ``cell``, or over ``all``. Features lie before rows because products of that
    shape are faster on a CPU.
    """
    cells, heads = states.shape[:2]
    states = states * states.shape[-1] ** -0.25
    diagonal = (states**2).sum(dim=-1)[:, :, None] / 2
    batched = features.expand(cells * heads, -1, -1)
    dash = torch.bmm(batched, states.flatten(0, 1).transpose(1, 2)).unflatten(0, (cells, heads))
    return _StableExp.apply(dash, diagonal, counted, over)


class _StableExp(torch.autograd.Function):
    """``exp(A - D - max A)``; keeps its result alone for the backward pass."""

    @staticmethod
    def forward(ctx: Any, dash: Tensor, diagonal: Tensor, counted: Tensor | None, over: str) -> Tensor:
        if counted is not None and not bool(counted.all()):
            dash = dash.masked_fill(~counted[:, None, None, :], -torch.inf)
        trained = ctx.needs_input_grad[0]
        if over == "row" and trained:
            highest, place = dash.max(dim=2, keepdim=True)
        else:
            highest = dash.amax(dim=2, keepdim=True)
            if over != "row":
                highest, place = _highest(dash, highest, together=over == "all")
        if not trained:
            return dash.sub_(diagonal + highest).exp_()
        result = (dash - (diagonal + highest)).exp_()
        ctx.over = over
        ctx.save_for_backward(result, place)
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        result, place = ctx.saved_tensors
        slope = grads[0] * result
        diagonal = -slope.sum(dim=2, keepdim=True)
        if ctx.over == "row":
            slope.scatter_add_(2, place, diagonal)
        else:
            flat = slope.view(len(place), -1)
            flat.scatter_add_(1, place, -flat.sum(dim=1, keepdim=True))
        return slope, diagonal, None, None


def _highest(dash: Tensor, of_rows: Tensor, together: bool) -> tuple[Tensor, Tensor]:
    """Return the maximum of each cell (or of all), and its place where a cell (or all) is one line.

    Found through the maxima of the rows, (B, H, 1, L): a search for a place through all of `dash` is slow.
    """
    count, length = dash.shape[2:]
    lines = of_rows.reshape(1 if together else len(dash), -1)
    highest, row = lines.max(dim=1, keepdim=True)
    outer, inner = row // length, row % length  # of cells and heads; of the row
    by_head = dash.reshape(len(lines), -1, count, length)
    within = by_head[torch.arange(len(lines), device=dash.device), outer[:, 0], :, inner[:, 0]].argmax(dim=1)
    place = (outer * count + within[:, None]) * length + inner
    return highest[:, :, None, None], place


class FavorAttention(Attention):
    """Multi-head FAVOR+ attention with its output layer; the same call as `Attention`.

    Parameters
    ----------
    width, heads, head_width, bias
        As in `Attention`.
    count
        Number of random features m; None is ``floor(d ln d)``, 266 for a head of 64.

    Notes
    -----
    `features` (m, d) is a buffer, shared by the heads, and changes by `redraw` alone. Features and sums are computed
    in float32 even under autocast.
    """

    features: Tensor

    def __init__(
        self, width: int, heads: int, head_width: int | None = None, count: int | None = None, bias: bool = False
    ) -> None:
        super().__init__(width, heads, head_width=head_width, bias=bias)
        size = self.query.out_features // heads
        self.register_buffer("features", torch.empty(count or int(size * math.log(size)), size))
        if not self.features.is_meta:
            self.redraw()

    @torch.no_grad()
    def redraw(self, generator: torch.Generator | None = None) -> None:
        """Draw new random features, in place (never while a graph that read the old ones is waiting)."""
        count, width = self.features.shape
        self.features.copy_(draw_features(count, width, generator))

    def forward(
        self,
        states: Tensor,
        mask: Tensor | None = None,
        memory: Tensor | None = None,
        weight: Tensor | None = None,
        together: bool = False,
    ) -> Tensor:
        """Return (B, Q, width); for `weight` and `together` see `attend_favor`.

        With `plain` set, padding is treated by `attend_padded`.
        """
        source = states if memory is None else memory
        query, key, value = (
            self._split(layer(x)) for layer, x in ((self.query, states), (self.key, source), (self.value, source))
        )
        kind = torch.promote_types(query.dtype, self.features.dtype)
        with torch.autocast(query.device.type, enabled=False):
            query, key, value = query.to(kind), key.to(kind), value.to(kind)
            if self.plain:
                seen = mask if mask is not None else value.new_ones(len(key), key.shape[2], dtype=torch.bool)
                mixed = attend_padded(query, key, value, seen, self.features)
            else:
                mixed = attend_favor(query, key, value, mask, self.features, weight, together)
        return self.output(mixed.transpose(1, 2).flatten(2))
