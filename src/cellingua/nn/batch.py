"""What goes into a cell tower and what comes out.

Cells hold very different numbers of genes, so a minibatch is ragged: the tokens of all cells one after the
other, and where each cell begins. A tower that needs a rectangle asks for one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class CellBatch:
    """A minibatch of cells as ranked gene tokens.

    Parameters
    ----------
    tokens
        int64 (total,): the tokens of all cells, each cell's by falling value.
    offsets
        int64 (B + 1,): cell i is ``tokens[offsets[i]:offsets[i + 1]]``; a cell may be empty.
    values
        float32 (total,) or None: counts / total x 10,000 / gene median, in the order of `tokens`.
    """

    tokens: Tensor
    offsets: Tensor
    values: Tensor | None = None

    @classmethod
    def from_arrays(
        cls,
        indptr: np.ndarray,
        tokens: np.ndarray,
        values: np.ndarray | None = None,
        device: torch.device | str = "cpu",
    ) -> CellBatch:
        """Build a batch from the arrays of ranked cells; `indptr` may begin above 0 and is shifted."""
        start = np.asarray(indptr, dtype=np.int64)
        first, last = int(start[0]), int(start[-1])
        return cls(
            torch.as_tensor(np.asarray(tokens[first:last], dtype=np.int64), device=device),
            torch.as_tensor(start - first, device=device),
            None
            if values is None
            else torch.as_tensor(np.asarray(values[first:last], dtype=np.float32), device=device),
        )

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> Tensor:
        """int64 (B,): tokens of each cell."""
        return self.offsets[1:] - self.offsets[:-1]

    @property
    def ranks(self) -> Tensor:
        """int64 (total,): the place of each token within its cell, 0 for the highest value."""
        starts = torch.repeat_interleave(self.offsets[:-1], self.lengths, output_size=len(self.tokens))
        return torch.arange(len(self.tokens), device=self.tokens.device) - starts

    def rows(self, start: int, stop: int) -> CellBatch:
        """Return the cells `start` to `stop`."""
        first, last = int(self.offsets[start]), int(self.offsets[stop])
        values = None if self.values is None else self.values[first:last]
        return CellBatch(self.tokens[first:last], self.offsets[start : stop + 1] - first, values)

    def take(self, rows: Tensor) -> CellBatch:
        """Return some cells (int64), in that order."""
        lengths = self.lengths[rows]
        offsets = torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])
        shift = torch.repeat_interleave(self.offsets[:-1][rows] - offsets[:-1], lengths)
        index = torch.arange(len(shift), device=shift.device) + shift
        return CellBatch(self.tokens[index], offsets, None if self.values is None else self.values[index])

    def to(self, device: torch.device | str) -> CellBatch:
        """Return the batch on `device`."""
        values = None if self.values is None else self.values.to(device)
        return CellBatch(self.tokens.to(device), self.offsets.to(device), values)

    def rectangle(self, limit: int | None = None) -> tuple[Tensor, Tensor]:
        """Return where the first `limit` tokens of each cell lie in the flat arrays.

        Returns
        -------
        index
            int64 (B, L), L the longest cell after the cut; 0 where there is no token.
        mask
            bool (B, L), True where there is a token. Right-padded.
        """
        lengths = self.lengths if limit is None else self.lengths.clamp(max=limit)
        longest = int(lengths.max()) if len(self) else 0
        place = torch.arange(longest, device=self.tokens.device)
        mask = place[None, :] < lengths[:, None]
        index = torch.where(mask, self.offsets[:-1, None] + place[None, :], 0)
        return index, mask

    def padded(self, limit: int | None = None, first: int | None = None) -> tuple[Tensor, Tensor]:
        """Return the cells as a rectangle, padded on the right with 0.

        Parameters
        ----------
        limit
            Most tokens a cell, the one of `first` included.
        first
            A token put before every cell (``<cls>``), or None.

        Returns
        -------
        tokens
            int64 (B, L).
        mask
            bool (B, L), True for a real token.
        """
        room = limit if limit is None or first is None else limit - 1
        index, mask = self.rectangle(room)
        source = self.tokens if len(self.tokens) else self.tokens.new_zeros(1)
        tokens = torch.where(mask, source[index], 0)
        if first is not None:
            column = tokens.new_full((len(self), 1), first)
            tokens = torch.cat([column, tokens], dim=1)
            mask = torch.cat([mask.new_ones((len(self), 1)), mask], dim=1)
        return tokens, mask


@dataclass(frozen=True)
class CellStates:
    """What a cell tower says about a minibatch.

    Parameters
    ----------
    pooled
        (B, D): one vector a cell, before any projection.
    hidden
        (B, L, D) or None: the state of every token (a tower that has them).
    mask
        bool (B, L) or None: True where `hidden` belongs to a real token.
    """

    pooled: Tensor
    hidden: Tensor | None = None
    mask: Tensor | None = None


class Binned(Protocol):
    """Cells as binned tokens: see `cellingua.cells.binned`."""

    @property
    def indptr(self) -> np.ndarray:
        """int64 (n + 1,): where each cell begins."""

    @property
    def tokens(self) -> np.ndarray:
        """int8 (total,): the bins."""

    @property
    def genes(self) -> np.ndarray:
        """int32 (total,): the genes, in the model's order."""


@dataclass(frozen=True)
class BinnedBatch:
    """A minibatch of cells as binned gene tokens, a rectangle padded on the right.

    Parameters
    ----------
    tokens
        int64 (B, L): bins; ``n_tokens - 2`` is CLS (first in every cell), ``n_tokens - 1`` is padding.
    genes
        int64 (B, L): genes in the model's order; `n_genes` is CLS, ``n_genes + 1`` is padding.
    mask
        bool (B, L): True for CLS and genes.
    """

    tokens: Tensor
    genes: Tensor
    mask: Tensor

    @classmethod
    def from_cells(
        cls, cells: Binned, n_genes: int, device: torch.device | str = "cpu", *, n_tokens: int = 8
    ) -> BinnedBatch:
        """Build a batch of CLS and the genes of each cell, padded to the longest of them."""
        indptr = np.asarray(cells.indptr, np.int64)
        lengths = np.diff(indptr)
        shape = (len(lengths), 1 + int(lengths.max(initial=0)))
        tokens, genes = np.full(shape, n_tokens - 1, np.int64), np.full(shape, n_genes + 1, np.int64)
        mask = np.arange(shape[1]) <= lengths[:, None]
        tokens[:, 0], genes[:, 0] = n_tokens - 2, n_genes
        real = slice(indptr[0], indptr[-1])
        tokens[:, 1:][mask[:, 1:]] = cells.tokens[real]
        genes[:, 1:][mask[:, 1:]] = cells.genes[real]
        return cls(*(torch.from_numpy(array).to(device) for array in (tokens, genes, mask)))

    @classmethod
    def every_gene(cls, cells: Binned, n_genes: int, device: torch.device | str = "cpu") -> BinnedBatch:
        """Build scBERT's batch: all genes, those without a count as token 0, and a last slot of token 0."""
        indptr = np.asarray(cells.indptr, np.int64)
        tokens = np.zeros((len(indptr) - 1, n_genes + 1), np.int64)
        real = slice(indptr[0], indptr[-1])
        tokens[np.repeat(np.arange(len(tokens)), np.diff(indptr)), cells.genes[real]] = cells.tokens[real]
        genes = np.broadcast_to(np.arange(n_genes + 1), tokens.shape).copy()
        mask = np.ones(tokens.shape, np.bool_)
        return cls(*(torch.from_numpy(array).to(device) for array in (tokens, genes, mask)))

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def lengths(self) -> Tensor:
        """int64 (B,): tokens of each cell, CLS counted."""
        return self.mask.sum(dim=1)

    def to(self, device: torch.device | str) -> BinnedBatch:
        """Return the batch on `device`."""
        return BinnedBatch(self.tokens.to(device), self.genes.to(device), self.mask.to(device))
