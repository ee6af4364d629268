"""LangCell's towers as the engine takes them: a chunk in; unit vectors, and the losses that are separable, out.

Everything random about a chunk is in it before any forward pass, except dropout, whose random state the engine keeps.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from cellingua.engine.chunks import take
from cellingua.models.langcell import LangCellModule
from cellingua.nn.batch import CellBatch, CellStates
from cellingua.nn.heads import MaskedGeneHead, unit
from cellingua.nn.language import TextTower
from cellingua.objectives.masked import masked_loss
from cellingua.objectives.masked_genes import GeneMaskConfig, hide_genes
from cellingua.objectives.matching import matching_loss


class TrainingModule(nn.Module):
    """A model with what is needed in pre-training alone: the head for masked genes."""

    def __init__(self, model: LangCellModule, *, masked: bool) -> None:
        super().__init__()
        self.model = model
        self.masked_head: MaskedGeneHead | None = None
        width = model.config.memory_width
        if masked and width is not None:
            table = model.cell_tower.token.weight
            self.masked_head = MaskedGeneHead(width, table.shape[1], len(table))
            # Logits start small whatever the scale of the table, so that the first loss is that of knowing nothing.
            size = float(table.detach().norm(dim=1).square().mean().sqrt())
            nn.init.constant_(self.masked_head.norm.weight, min(1.0, 0.5 / max(size, 1e-6)))


def split(batch: Any, start: int, stop: int) -> Any:
    """Return a part of a batch of this module, or of tensors."""
    return batch.rows(start, stop) if hasattr(batch, "rows") else take(batch, start, stop)


@dataclass(frozen=True)
class MaskedCells:
    """Cells with some genes hidden.

    Attributes
    ----------
    cells
        What the tower is given.
    chosen
        bool (total,): tokens that are predicted.
    genes
        int64 (total,): the tokens before.
    """

    cells: CellBatch
    chosen: Tensor
    genes: Tensor

    def __len__(self) -> int:
        return len(self.cells)

    def rows(self, start: int, stop: int) -> MaskedCells:
        """Return some of the cells."""
        first, last = int(self.cells.offsets[start]), int(self.cells.offsets[stop])
        return MaskedCells(self.cells.rows(start, stop), self.chosen[first:last], self.genes[first:last])


def mask_cells(
    batch: CellBatch, limit: int, n_genes: int, config: GeneMaskConfig, seeds: list[list[int]]
) -> MaskedCells:
    """Return the first `limit` tokens of each cell with some hidden; each cell has a seed, and so a mask, of its own.

    A hidden gene's value is set to 0, which no expressed gene has: beside the total it would give the gene away.
    """
    index, there = batch.rectangle(limit)
    tokens = torch.where(there, batch.tokens[index], 0) if len(batch.tokens) else index
    generators = [torch.Generator().manual_seed(number_of(seed)) for seed in seeds]
    hidden = hide_genes(tokens, there, n_genes, config, generators)
    values = None
    if batch.values is not None:
        values = batch.values[index][there].masked_fill((hidden.tokens == config.mask_token)[there], 0.0)
    offsets = torch.cat([batch.offsets[:1] * 0, there.sum(dim=1).cumsum(0)])
    return MaskedCells(CellBatch(hidden.tokens[there], offsets, values), hidden.chosen[there], tokens[there])


def number_of(seed: list[int]) -> int:
    """Return a number below 2^62 that stands for a list of them."""
    return int(np.random.SeedSequence(seed).generate_state(1, np.uint64)[0] >> np.uint64(2))


@dataclass(frozen=True)
class PairBatch:
    """Cells, and the texts that each of them is matched with.

    Attributes
    ----------
    cells
        (C,) cells.
    offsets
        int64 (C + 1,): cell i meets texts ``offsets[i]`` to ``offsets[i + 1]``.
    ids, mask
        int64 and bool (P, L): the texts, right-padded.
    match
        int64 (P,): 1 where the text describes the cell.
    """

    cells: CellBatch
    offsets: Tensor
    ids: Tensor
    mask: Tensor
    match: Tensor

    def __len__(self) -> int:
        return len(self.cells)

    def rows(self, start: int, stop: int) -> PairBatch:
        """Return some of the cells with their texts."""
        first, last = int(self.offsets[start]), int(self.offsets[stop])
        offsets = self.offsets[start : stop + 1] - first
        pairs = slice(first, last)
        return PairBatch(self.cells.rows(start, stop), offsets, self.ids[pairs], self.mask[pairs], self.match[pairs])


class CellView(nn.Module):
    """Cells to unit vectors (b, joint)."""

    def __init__(self, model: LangCellModule) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: CellBatch) -> Tensor:
        """Return the cells in the joint space."""
        return self.model.cells(batch.to(_device(self)), with_hidden=False)[0]


class TextView(nn.Module):
    """Texts, as (ids, mask), to unit vectors (t, joint); padding beyond the longest is cut."""

    def __init__(self, model: LangCellModule) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        """Return the texts in the joint space."""
        ids, mask = _trimmed(*batch, _device(self))
        return self.model.texts(ids, mask)


class FeatureView(nn.Module):
    """Features of a text tower that stays as it is (t, width) to unit vectors (t, joint)."""

    def __init__(self, model: LangCellModule) -> None:
        super().__init__()
        self.projection = model.text_projection

    def forward(self, features: Tensor) -> Tensor:
        """Return the texts in the joint space."""
        return unit(self.projection(features.to(_device(self))))


class MaskedView(nn.Module):
    """Cells with hidden genes to the loss of naming these; there are no representations to contrast."""

    def __init__(self, trained: TrainingModule) -> None:
        super().__init__()
        assert trained.masked_head is not None
        self.tower, self.head = trained.model.cell_tower, trained.masked_head

    def forward(self, batch: MaskedCells) -> tuple[Tensor, dict[str, tuple[Tensor, float]]]:
        """Return zeros (b, 1), and the loss "masked" as a sum and a count."""
        device = _device(self)
        cells = batch.cells.to(device)
        states = self.tower(cells)
        # Before the genes there may be <cls>; `shown` tells the places of genes, in the order of the flat tokens.
        longest = int(cells.lengths.max()) if len(cells) else 0
        hidden = states.hidden[:, states.hidden.shape[1] - longest :]
        shown = torch.arange(longest, device=device)[None, :] < cells.lengths[:, None]
        chosen = batch.chosen.to(device)
        logits = self.head(hidden[shown][chosen], self.tower.token.weight)
        total, count = masked_loss(logits, batch.genes.to(device)[chosen])
        return logits.new_zeros((len(batch), 1)), {"masked": (total, float(count))}


class PairView(nn.Module):
    """Cells with texts to the loss of telling the pairs that match; there are no representations to contrast."""

    at_a_time = 12  # texts of like length that look at their cells together

    def __init__(self, model: LangCellModule) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: PairBatch) -> tuple[Tensor, dict[str, tuple[Tensor, float]]]:
        """Return zeros (b, 1), and the loss "matching" as a sum and a count."""
        device = _device(self)
        states = self.model.cell_tower(batch.cells.to(device))
        lengths = batch.offsets[1:] - batch.offsets[:-1]
        cell_of = torch.repeat_interleave(torch.arange(len(lengths)), lengths)
        total, count = states.pooled.new_zeros(()), 0.0
        # Texts of like length go together.
        order = batch.mask.sum(dim=1).argsort(stable=True)
        for rows in order.split(self.at_a_time) if len(order) else ():
            logits = self.logits(states, cell_of[rows].to(device), batch.ids[rows], batch.mask[rows])
            loss, n = matching_loss(logits, batch.match[rows].to(device))
            total, count = total + loss, count + n
        return states.pooled.new_zeros((len(batch), 1)), {"matching": (total, count)}

    def logits(self, states: CellStates, cell_of: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
        """Return (n, 2): texts (n, L) beside the cells `cell_of`, int64 (n,)."""
        assert self.model.match_head is not None
        ids, mask = _trimmed(ids, mask, cell_of.device)
        return self.model.match_head(self.model.text_tower(ids, mask, _seen(states, cell_of)).hidden[:, 0])


class LastLayerView(PairView):
    """`PairView` where texts look at cells in the text tower's last layer alone, and come as what they are before it.

    A text's state there does not depend on the cell, so that it is read once for a whole run (`before_last`), and the
    match head needs that of ``[CLS]`` alone: hundreds of pairs cost what a few cost in full.
    """

    at_a_time = 1 << 20

    def logits(self, states: CellStates, cell_of: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
        """Return (n, 2); `ids` are states (n, width) as `before_last` returns them."""
        assert self.model.match_head is not None
        layer, seen = self.model.text_tower.layers[-1], _seen(states, cell_of)
        looked = layer.look(ids.to(cell_of.device)[:, None], seen.hidden, seen.mask)  # type: ignore[operator]
        return self.model.match_head(looked[:, 0])


def _seen(states: CellStates, cell_of: Tensor) -> CellStates:
    """Return the token states of the cells `cell_of`."""
    assert states.hidden is not None
    assert states.mask is not None
    shown = states.mask[cell_of]
    return CellStates(states.pooled[cell_of], states.hidden[cell_of], None if bool(shown.all()) else shown)


@torch.no_grad()
def before_last(tower: TextTower, ids: Tensor, mask: Tensor) -> Tensor:
    """Return the state of ``[CLS]`` (B, width) after the last layer's self-attention, before it looks at a cell.

    The layers below look at nothing (their cross-attention's output layers must be zero, as they start).
    """
    nothing = tower.word.weight.new_zeros((1, 1, tower.config.encoder_width or 0))
    states = tower.enter(ids)
    for layer in list(tower.layers)[:-1]:
        states = layer(states, mask, nothing)
    return tower.layers[-1].read(states, mask)[:, 0]  # type: ignore[operator]


def _trimmed(ids: Tensor, mask: Tensor, device: torch.device) -> tuple[Tensor, Tensor]:
    longest = int(mask.sum(dim=1).max())
    return ids[:, :longest].to(device), mask[:, :longest].to(device)


def _device(module: nn.Module) -> torch.device:
    return next(module.parameters()).device
