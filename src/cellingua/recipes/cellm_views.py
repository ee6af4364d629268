"""CellLM's minibatch: the same cells in two views, each with a mask of its own, and the tower that reads a view.

Masks are drawn here, before any forward pass, and belong to the cell's place in the global minibatch: an engine may
encode a view twice, and several processes may share a minibatch, without anything else being learned.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from torch import Tensor, nn
from torch.nn import functional

from cellingua.cells.binned import BinConfig, bin_cells
from cellingua.cells.sources import FILE, CellRows
from cellingua.models.cellm import CellLMModule
from cellingua.nn.batch import BinnedBatch
from cellingua.nn.performer import PerformerConfig
from cellingua.objectives.discrimination import UNLABELLED, discrimination_loss
from cellingua.objectives.masked import Hidden, MaskConfig, hide, masked_loss

VIEWS = 2


@dataclass(frozen=True)
class View:
    """Cells as one view shows them; every tensor has a row a cell.

    Attributes
    ----------
    tokens, genes
        int64 (B, L): what the encoder is given, the mask in place.
    mask, chosen
        bool (B, L): CLS and genes; where the level is predicted.
    levels
        int64 (B, L): the tokens before.
    labels
        int64 (B,): 0 normal, 1 cancer, -1 not known.
    """

    tokens: Tensor
    genes: Tensor
    mask: Tensor
    chosen: Tensor
    levels: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.tokens)

    def trimmed(self, device: torch.device) -> View:
        """Return the view on `device`, without columns in which every cell is padded."""
        longest = int(self.mask.sum(dim=1).max())
        tokens, genes, mask, chosen, levels = (
            part[:, :longest].to(device) for part in (self.tokens, self.genes, self.mask, self.chosen, self.levels)
        )
        return View(tokens, genes, mask, chosen, levels, self.labels.to(device))


class Labels:
    """Normal or cancer of each cell, from the codes of a label column.

    Parameters
    ----------
    column
        Its name; None where nothing is labelled.
    classes
        int8: class of each code, the last entry for code -1 (see `normal_or_cancer`).
    withheld
        Codes of files whose labels are not used.
    """

    def __init__(self, column: str | None, classes: NDArray[np.int8], withheld: tuple[int, ...] = ()) -> None:
        self.column, self.classes, self.withheld = column, classes, withheld

    def of(self, labels: Mapping[str, NDArray[np.int32]]) -> NDArray[np.int64]:
        """Return int64 (cells,): 0, 1, or -1."""
        if self.column is None:
            return np.full(len(labels[FILE]), UNLABELLED, np.int64)
        found = self.classes[labels[self.column]].astype(np.int64)
        found[np.isin(labels[FILE], self.withheld)] = UNLABELLED
        return found


class ViewMaker:
    """Makes the two views of a minibatch: what a `Loader` calls.

    Parameters
    ----------
    genes
        int64 (n,): column of each gene of the model in the source.
    bins, mask
        How counts become tokens, and what is hidden.
    encoder
        The tokens' numbering.
    labels
        See `Labels`.
    seed
        Of the masks.
    offset
        Place of this process's first cell in the global minibatch.
    down_sample
        A view keeps a random share of each cell's counts, between ``1 - down_sample`` and 1, another in each view:
        then depth of sequencing does not tell a cell from the others.
    """

    def __init__(
        self,
        genes: NDArray[np.int64],
        bins: BinConfig,
        mask: MaskConfig,
        encoder: PerformerConfig,
        labels: Labels,
        seed: int,
        offset: int = 0,
        down_sample: float = 0.0,
    ) -> None:
        self.genes, self.bins, self.mask, self.encoder = genes, bins, mask, encoder
        self.labels, self.seed, self.offset, self.down_sample = labels, seed, offset, down_sample

    def __call__(self, step: int, cells: CellRows) -> tuple[View, View]:
        """Return both views of the cells of a step; a function of (seed, step, place) and the cells."""
        counts = csr_matrix(cells.counts[:, self.genes])
        labels = torch.from_numpy(self.labels.of(cells.labels))
        first, second = (self._view(counts, cells.totals, labels, step, view) for view in range(VIEWS))
        return first, second

    def _view(self, counts: csr_matrix, totals: NDArray[np.float64], labels: Tensor, step: int, view: int) -> View:
        if self.down_sample:
            counts, totals = self._thinned(counts, totals, step, view)
        # Not of the view: genes beyond the length are the same in both.
        rng = np.random.default_rng([self.seed, 32, step, self.offset])
        binned = bin_cells(counts, totals, self.bins, rng)
        batch = BinnedBatch.from_cells(binned, len(self.genes), n_tokens=self.encoder.tokens)
        seeds = [[self.seed, 33, step, view, self.offset + row] for row in range(len(batch))]
        generators = [torch.Generator().manual_seed(_number(seed)) for seed in seeds]
        hidden: Hidden = hide(batch.tokens, batch.tokens < self.encoder.cls_token, self.mask, generators)
        return View(hidden.tokens, batch.genes, batch.mask, hidden.chosen, hidden.levels, labels)

    def _thinned(
        self, counts: csr_matrix, totals: NDArray[np.float64], step: int, view: int
    ) -> tuple[csr_matrix, NDArray[np.float64]]:
        """Return counts of which each molecule stayed with the chance of its cell in this view."""
        whole, stays = np.rint(counts.data).astype(np.int64), np.empty(counts.shape[0])
        for row in range(counts.shape[0]):
            rng = np.random.default_rng([self.seed, 35, step, view, self.offset + row])
            stays[row] = 1 - self.down_sample * rng.random()
            inside = slice(counts.indptr[row], counts.indptr[row + 1])
            whole[inside] = rng.binomial(whole[inside], stays[row])
        thinned = csr_matrix((whole.astype(np.float32), counts.indices, counts.indptr), counts.shape)
        return thinned, totals * stays


def _number(seed: list[int]) -> int:
    """Return a number below 2^62 that stands for a list of them."""
    return int(np.random.SeedSequence(seed).generate_state(1, np.uint64)[0] >> np.uint64(2))


class ViewTower(nn.Module):
    """Reads a chunk of a view: unit states of CLS, and the losses that are separable by cells.

    Parameters
    ----------
    module
        The model; it is shared by both views.
    masked, discriminated
        Whether those losses are wanted.
    class_weights
        (2,): weight of normal and of cancer cells.
    """

    def __init__(
        self, module: CellLMModule, *, masked: bool, discriminated: bool, class_weights: Tensor | None = None
    ) -> None:
        super().__init__()
        self.module, self.masked, self.discriminated = module, masked, discriminated
        self.class_weights = class_weights

    def forward(self, view: View) -> tuple[Tensor, dict[str, tuple[Tensor, float]]]:
        """Return (b, width), unit length, and ``{name: (sum, count)}``."""
        view = view.trimmed(self.module.performer.norm.weight.device)
        states = self.module(BinnedBatch(view.tokens, view.genes, view.mask))
        losses: dict[str, tuple[Tensor, float]] = {}
        if self.masked:
            total, count = masked_loss(self.module.logits(states.hidden[view.chosen]), view.levels[view.chosen])
            losses["masked"] = total, float(count)
        if self.discriminated:
            logits = self.module.discrimination(states.cls)
            losses["discrimination"] = discrimination_loss(logits, view.labels, self.class_weights)
        cls = states.cls.float() if states.cls.dtype in (torch.bfloat16, torch.float16) else states.cls
        return functional.normalize(cls, dim=-1), losses
