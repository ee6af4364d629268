"""Contrast over all pairs of rows, from tiles of the logits: the whole matrix never exists.

With similarities ``s_ij = scale a_i . b_j`` over the pairs that are not left out, every contrastive loss of this room
is ::

    sum_i r_i log sum_j exp(s_ij)  +  sum_j c_j log sum_i exp(s_ij)  -  sum_ij w_ij s_ij

with shares r of rows and c of columns, and weights w of the right pairs. The forward pass streams the two sums of
exponentials, as FlashAttention does within a row; the backward pass makes each tile again, and from it
``ds_ij = r_i softmax_row + c_j softmax_column - w_ij``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

TILE = 512


class Pairing(Protocol):
    """Which pairs are right and which are left out, told tile by tile."""

    def weights(self, rows: slice, columns: slice) -> Tensor | None:
        """Return w (rows, columns) of a tile; None where it holds no right pair."""

    def left_out(self, rows: slice, columns: slice) -> Tensor | None:
        """Return bool (rows, columns), True where a pair is in no sum; None where all are in. Never a right pair."""


def tiled_contrast(
    a: Tensor,
    b: Tensor,
    scale: Tensor | float,
    pairing: Pairing,
    row_shares: Tensor,
    column_shares: Tensor | None = None,
    *,
    tile: int = TILE,
) -> Tensor:
    """Return the loss in the module's heading, a scalar, differentiable once in `a`, `b` and `scale`.

    Parameters
    ----------
    a, b
        (N, d) and (M, d), float32 or float64.
    scale
        Similarities are multiplied by it: 1 / temperature.
    pairing
        See `Pairing`.
    row_shares, column_shares
        r (N,) and c (M,); without c there is no sum over columns.
    tile
        Rows and columns of a tile; memory is a few tile x tile matrices, whatever N and M.
    """
    factor = torch.as_tensor(scale, dtype=a.dtype, device=a.device)
    return _TiledContrast.apply(a, b, factor, pairing, row_shares, column_shares, tile)  # type: ignore[no-any-return]


def _slices(length: int, tile: int) -> list[slice]:
    return [slice(start, min(start + tile, length)) for start in range(0, length, tile)]


def _tiles(a: Tensor, b: Tensor, tile: int) -> Iterator[tuple[slice, slice]]:
    for rows in _slices(len(a), tile):
        for columns in _slices(len(b), tile):
            yield rows, columns


def _dot(shares: Tensor, values: Tensor) -> Tensor:
    """Sum shares x values, where a share of zero silences even an infinite value."""
    return torch.where(shares != 0, shares * values, torch.zeros_like(values)).sum()


class _TiledContrast(torch.autograd.Function):
    """See `tiled_contrast`."""

    @staticmethod
    def forward(
        ctx: Any, a: Tensor, b: Tensor, scale: Tensor, pairing: Pairing, r: Tensor, c: Tensor | None, tile: int
    ) -> Tensor:
        row_lse = a.new_full((len(a),), -torch.inf)
        column_lse = a.new_full((len(b),), -torch.inf)
        right = a.new_zeros(())
        for rows, columns in _tiles(a, b, tile):
            s = (a[rows] @ b[columns].T).mul_(scale)
            weights = pairing.weights(rows, columns)
            if weights is not None:
                right += (weights * s).sum()
            left_out = pairing.left_out(rows, columns)
            if left_out is not None:
                s.masked_fill_(left_out, -torch.inf)
            row_lse[rows] = torch.logaddexp(row_lse[rows], s.logsumexp(1))
            if c is not None:
                column_lse[columns] = torch.logaddexp(column_lse[columns], s.logsumexp(0))
        ctx.save_for_backward(a, b, scale, r, c, row_lse, column_lse)
        ctx.pairing, ctx.tile = pairing, tile
        loss = _dot(r, row_lse) - right
        return loss if c is None else loss + _dot(c, column_lse)

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        a, b, scale, r, c, row_lse, column_lse = ctx.saved_tensors
        # Where everything is left out the sum is empty, log 0; any finite number gives exp(-inf) = 0 there.
        row_lse = row_lse.masked_fill(row_lse.isinf(), 0.0)
        column_lse = column_lse.masked_fill(column_lse.isinf(), 0.0)
        da, db = torch.zeros_like(a), torch.zeros_like(b)
        for rows, columns in _tiles(a, b, ctx.tile):
            s = (a[rows] @ b[columns].T).mul_(scale)
            left_out = ctx.pairing.left_out(rows, columns)
            if left_out is not None:
                s.masked_fill_(left_out, -torch.inf)
            ds = (s - row_lse[rows, None]).exp_().mul_(r[rows, None])
            if c is not None:
                ds += s.sub_(column_lse[None, columns]).exp_().mul_(c[None, columns])
            weights = ctx.pairing.weights(rows, columns)
            if weights is not None:
                ds -= weights
            da[rows].addmm_(ds, b[columns])
            db[columns].addmm_(ds.T, a[rows])
        dscale = (a * da).sum() * upstream if ctx.needs_input_grad[2] else None
        factor = scale * upstream
        return da.mul_(factor), db.mul_(factor), dscale, None, None, None, None
