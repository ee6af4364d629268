"""Contrastive objectives over whole batches of representations, from tiles; callables for `divide_conquer`.

Each is the loss that its formula says, for any batch, and works wherever a loss does; none knows a tower.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from cellingua.core.errors import EngineError
from cellingua.engine.tiles import TILE, tiled_contrast

#: (rows, columns) of all pairs, or a function of a tile's rows and columns that returns that part of it: bool, or for
#: what is right also weights of 0 or more.
Relation = Tensor | Callable[[slice, slice], Tensor]


def _scale(temperature: float | Tensor) -> float | Tensor:
    if not isinstance(temperature, Tensor) and not temperature > 0:
        raise EngineError(f"The temperature is {temperature}.", "a number above 0")
    return 1.0 / temperature


class _Diagonal:
    """Row i and column i + shift belong together; a row is never compared with itself where `self_left_out`."""

    def __init__(self, like: Tensor, weights: Tensor, shifts: tuple[int, ...], self_left_out: bool = False) -> None:
        self._like, self._weights, self._shifts, self._self = like, weights, shifts, self_left_out

    def weights(self, rows: slice, columns: slice) -> Tensor | None:
        tile = None
        for shift in self._shifts:
            start, stop = max(rows.start, columns.start - shift), min(rows.stop, columns.stop - shift)
            if start < stop:
                if tile is None:
                    tile = self._like.new_zeros((rows.stop - rows.start, columns.stop - columns.start))
                at = torch.arange(start, stop, device=tile.device)
                tile[at - rows.start, at + shift - columns.start] = self._weights[start:stop]
        return tile

    def left_out(self, rows: slice, columns: slice) -> Tensor | None:
        start, stop = max(rows.start, columns.start), min(rows.stop, columns.stop)
        if not self._self or start >= stop:
            return None
        i = torch.arange(rows.start, rows.stop, device=self._like.device)
        j = torch.arange(columns.start, columns.stop, device=self._like.device)
        return i[:, None] == j[None, :]


@dataclass(frozen=True)
class InfoNCE:
    """Row i of `a` belongs to row i of `b`: ``-log exp(s_ii) / sum_j exp(s_ij)``, the mean over i.

    Parameters
    ----------
    temperature
        Similarities (inner products) are divided by it; a tensor may be trained.
    symmetric
        Average in the same with the two exchanged.
    tile
        See `tiled_contrast`.

    Notes
    -----
    `b` may have more rows than `a`: the others are negatives only, and belong to no row when the loss is symmetric.
    Normalise rows in the tower where cosines are wanted.
    """

    temperature: float | Tensor = 0.05
    symmetric: bool = True
    tile: int = TILE

    def __call__(self, a: Tensor, b: Tensor) -> Tensor:
        """Return the loss of `a` (N, d) and `b` (M >= N, d), a scalar."""
        n = len(a)
        if len(b) < n:
            raise EngineError(f"{n} rows are to be matched with {len(b)}.", "as many rows in the second, or more")
        shares = a.new_full((n,), (0.5 if self.symmetric else 1.0) / n)
        columns = None
        if self.symmetric:
            columns = torch.cat([shares, shares.new_zeros(len(b) - n)])
        pairing = _Diagonal(a, a.new_full((n,), 1.0 / n), (0,))
        return tiled_contrast(a, b, _scale(self.temperature), pairing, shares, columns, tile=self.tile)


@dataclass(frozen=True)
class NTXent:
    """Of 2N rows, `a` and `b` one below the other, each is matched with its partner among all others (SimCLR).

    Parameters are those of `InfoNCE`.
    """

    temperature: float | Tensor = 0.05
    tile: int = TILE

    def __call__(self, a: Tensor, b: Tensor) -> Tensor:
        """Return the loss of two views `a` and `b`, (N, d) each: the mean over 2N rows against 2N - 1."""
        if len(a) != len(b):
            raise EngineError(f"The views have {len(a)} and {len(b)} rows.", "the same items in the same order")
        z = torch.cat([a, b])
        shares = z.new_full((len(z),), 1.0 / len(z))
        pairing = _Diagonal(z, shares, (len(a), -len(a)), self_left_out=True)
        return tiled_contrast(z, z, _scale(self.temperature), pairing, shares, tile=self.tile)


class _Related:
    """Several right columns a row, each row's weight spread evenly over them; other pairs may be left out."""

    def __init__(self, positive: Relation, ignored: Relation | None, like: Tensor) -> None:
        self._positive, self._ignored, self._like = positive, ignored, like
        self.row_weights = like.new_zeros(0)
        self.column_weights: Tensor | None = None

    def positive(self, rows: slice, columns: slice) -> Tensor:
        """Return (rows, columns) of a tile: the right pairs, bool or as weights."""
        return self._positive[rows, columns] if isinstance(self._positive, Tensor) else self._positive(rows, columns)

    def weights(self, rows: slice, columns: slice) -> Tensor | None:
        each = self.row_weights[rows, None]
        if self.column_weights is not None:
            each = each + self.column_weights[None, columns]
        return self.positive(rows, columns) * each

    def left_out(self, rows: slice, columns: slice) -> Tensor | None:
        if self._ignored is None:
            return None
        ignored = self._ignored[rows, columns] if isinstance(self._ignored, Tensor) else self._ignored(rows, columns)
        return ignored & (self.positive(rows, columns) == 0)


@dataclass(frozen=True)
class MultiPositive:
    """Several rows of `b` are right for a row of `a`, and some pairs are neither right nor wrong.

    The target of a row is even over its right columns, or as they are weighed; with one each and nothing ignored this
    is `InfoNCE`.

    Parameters
    ----------
    positive
        bool (N, M), at least one a row; as a function of two slices it is never whole in memory, such as
        ``lambda i, j: cell_label[i, None] == text_label[None, j]``. Numbers of 0 or more weigh the right columns of a
        row against each other (a soft target, such as one by closeness in an ontology).
    ignored
        bool (N, M) likewise: pairs that leave the denominator (a wider term, say). Right pairs are never ignored.
    temperature, tile
        As for `InfoNCE`.
    symmetric
        Average in the loss from `b` to `a`, over the rows of `b` that are right for something.
    """

    positive: Relation
    ignored: Relation | None = None
    temperature: float | Tensor = 0.05
    symmetric: bool = True
    tile: int = TILE

    def __call__(self, a: Tensor, b: Tensor) -> Tensor:
        """Return the loss of `a` (N, d) and `b` (M, d), a scalar."""
        pairing = _Related(self.positive, self.ignored, a)
        per_row, per_column = a.new_zeros(len(a)), a.new_zeros(len(b))
        for i in range(0, len(a), self.tile):
            for j in range(0, len(b), self.tile):
                rows, columns = slice(i, min(i + self.tile, len(a))), slice(j, min(j + self.tile, len(b)))
                right = pairing.positive(rows, columns)
                per_row[rows] += right.sum(1)
                per_column[columns] += right.sum(0)
        if not bool((per_row > 0).all()):
            raise EngineError(f"{int((per_row == 0).sum())} rows have no right column.", "at least one a row")
        half = 0.5 if self.symmetric else 1.0
        shares = a.new_full((len(a),), half / len(a))
        pairing.row_weights = shares / per_row
        columns_shares = None
        if self.symmetric:
            described = per_column > 0
            columns_shares = described.to(a.dtype) * half / described.sum()
            pairing.column_weights = columns_shares / torch.where(described, per_column, 1.0)
        scale = _scale(self.temperature)
        return tiled_contrast(a, b, scale, pairing, shares, columns_shares, tile=self.tile)
