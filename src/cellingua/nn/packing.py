"""The BERT cell tower for inference: what `CellTower` says, without one padded position.

Linear layers, norms and embeddings run over the tokens of all cells, one after the other; attention runs within each
cell. Where only the pooled state is wanted, the last layer computes that of ``<cls>`` alone. The plain twin is
`CellTower.forward`, which is also what trains.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import torch
from torch import Tensor, nn
from torch.nn import functional

from cellingua.nn.attention import attend
from cellingua.nn.batch import CellBatch, CellStates
from cellingua.nn.precision import Int8Linear, converted
from cellingua.nn.transformer import CellTower, EncoderLayer

#: Tokens that are read together on an accelerator, at most; a longer cell is read alone.
ACCELERATOR_BUDGET = 65_536


@dataclass(frozen=True)
class Pack:
    """Cells as flat tokens.

    Parameters
    ----------
    tokens
        int64 (T,): ``<cls>`` and the tokens of each cell, cell after cell.
    places
        int64 (T,): the place of each token within its cell, 0 for ``<cls>``.
    sizes
        Tokens of each cell, ``<cls>`` included: above 0.
    """

    tokens: Tensor
    places: Tensor
    sizes: tuple[int, ...]

    @classmethod
    def of(cls, batch: CellBatch, rows: Sequence[int], sizes: Sequence[int], first: int) -> Pack:
        """Return the cells `rows` of a batch, each cut to ``sizes[row]`` tokens with `first` (``<cls>``) before it."""
        head = batch.tokens.new_tensor([first])
        starts = batch.offsets.tolist()
        cells = [(head, batch.tokens[starts[row] : starts[row] + sizes[row] - 1]) for row in rows]
        device = batch.tokens.device
        return cls(
            torch.cat([piece for cell in cells for piece in cell]),
            torch.cat([torch.arange(sizes[row], device=device) for row in rows]),
            tuple(sizes[row] for row in rows),
        )

    @property
    def starts(self) -> list[int]:
        """Where each cell's ``<cls>`` lies."""
        ends = [0]
        for size in self.sizes:
            ends.append(ends[-1] + size)
        return ends[:-1]


class PackedTower(nn.Module):
    """A `CellTower` for inference, in one precision.

    In float32 it shares the weights of the tower (queries, keys and values are copied into one matrix a layer); a
    tower that trains on needs a new one. Weights that `converted` made int8 stay int8.

    Parameters
    ----------
    tower
        The weights, in float32 or with int8 layers.
    precision
        ``float32``, ``bfloat16`` or ``int8``.
    budget
        Most tokens read together; a cell that is longer is read alone. 0 reads every cell alone, so that its states
        are bit for bit the same in any company: a matrix product may add up in another order when it has other rows
        beside it. None is 0 on a processor, where one cell fills the cores, and `ACCELERATOR_BUDGET` elsewhere.
    """

    def __init__(self, tower: CellTower, precision: str = "float32", budget: int | None = None) -> None:
        super().__init__()
        self.limit, self.first, self.width = tower.config.positions, tower.config.cls_token, tower.config.width
        self.budget = budget
        inner = _Weights(tower)
        held = any(isinstance(part, Int8Linear) for part in tower.modules())
        self.inner = (inner if held else converted(inner, precision)).eval()

    @torch.inference_mode()
    def forward(self, batch: CellBatch, *, hidden: bool = False) -> CellStates:
        """Return what the tower says about a batch, in the precision of the weights.

        Parameters
        ----------
        batch
            Cells of any length; tokens beyond the tower's limit are cut off.
        hidden
            Whether to return the states of every token too, as a rectangle that holds 0 beside the shorter cells.
        """
        sizes = [size + 1 for size in batch.lengths.clamp(max=self.limit - 1).tolist()]
        dtype = self.inner.norm.weight.dtype
        pooled = torch.empty((len(sizes), self.width), dtype=dtype, device=batch.tokens.device)
        states = mask = None
        if hidden:
            states = pooled.new_zeros((len(sizes), max(sizes, default=1), self.width))
            length = torch.tensor(sizes, device=pooled.device)
            mask = torch.arange(states.shape[1], device=pooled.device) < length[:, None]
        for rows in self._packs(sizes, pooled.device):
            pack = Pack.of(batch, rows, sizes, self.first)
            out = self._read(pack, hidden)
            if states is None:
                pooled[rows] = out
                continue
            for row, cell in zip(rows, out.split(pack.sizes), strict=True):
                states[row, : len(cell)] = cell
                pooled[row] = cell[0]
        return CellStates(pooled, states, mask)

    def reads_alone(self, device: torch.device) -> bool:
        """Whether every cell is read by itself on `device`."""
        return self.budget == 0 if self.budget is not None else device.type == "cpu"

    def _packs(self, sizes: list[int], device: torch.device) -> Iterator[list[int]]:
        """Yield rows that are read together, by length, the longest first."""
        budget = 0 if self.reads_alone(device) else self.budget or ACCELERATOR_BUDGET
        rows: list[int] = []
        held = 0
        for row in sorted(range(len(sizes)), key=lambda row: -sizes[row]):
            if rows and held + sizes[row] > budget:
                yield rows
                rows, held = [], 0
            rows.append(row)
            held += sizes[row]
        if rows:
            yield rows

    @torch.inference_mode()
    def read(self, pack: Pack, layers: int | None = None) -> Tensor:
        """Return the states of every token of a pack after the first `layers` layers (None: all), (T, width).

        For cells that are framed in another way than by the tower's own first token.
        """
        states = self._embedded(pack)
        for layer in self.inner.layers[:layers]:
            states = layer(states, pack)
        return states

    def _embedded(self, pack: Pack) -> Tensor:
        """Return what the first layer is given, (T, width)."""
        inner = self.inner
        states: Tensor = inner.norm(inner.token(pack.tokens) + inner.position(pack.places) + inner.segment.weight[0])
        return states

    def _read(self, pack: Pack, hidden: bool) -> Tensor:
        """Return the states of all tokens (T, width) with `hidden`, else of each ``<cls>``, (cells, width)."""
        states = self._embedded(pack)
        last = len(self.inner.layers) - 1
        for number, layer in enumerate(self.inner.layers):
            assert isinstance(layer, PackedLayer)  # for the type checker
            states = layer(states, pack) if hidden or number < last else layer.first(states, pack)
        return states if hidden or last >= 0 else states[pack.starts]


def packable(tower: CellTower) -> bool:
    """Whether queries, keys and values of every layer are plain linear layers: adapters may have replaced them."""
    plain = (nn.Linear, Int8Linear)
    return all(
        type(part) in plain
        for layer in tower.layers
        if isinstance(layer, EncoderLayer)
        for part in (layer.attention.query, layer.attention.key, layer.attention.value)
    )


class _Weights(nn.Module):
    """The weights of a tower as they are read here."""

    def __init__(self, tower: CellTower) -> None:
        super().__init__()
        self.token, self.position, self.segment, self.norm = tower.token, tower.position, tower.segment, tower.norm
        self.layers = nn.ModuleList()
        for layer in tower.layers:
            assert isinstance(layer, EncoderLayer)  # for the type checker
            self.layers.append(PackedLayer(layer))


class PackedLayer(nn.Module):
    """One post-norm `EncoderLayer` over flat tokens, with queries, keys and values in one matrix."""

    def __init__(self, layer: EncoderLayer) -> None:
        super().__init__()
        attention = layer.attention
        self.heads = attention.heads
        self.mixing = joined([attention.query, attention.key, attention.value])
        self.output, self.attention_norm = attention.output, layer.attention_norm
        self.widen, self.narrow, self.feedforward_norm = layer.widen, layer.narrow, layer.feedforward_norm
        self.activation = layer.activation

    def forward(self, states: Tensor, pack: Pack) -> Tensor:
        """Return the new states of all tokens, (T, width)."""
        width = states.shape[1]
        mixed = self.mixing(states)
        seen = torch.empty_like(states)
        start = 0
        # Neighbours of one length are attended to in one call: cells at the tower's limit are many.
        for size, cells in groupby(pack.sizes):
            stop = start + size * len(list(cells))
            query, key, value = mixed[start:stop].view(-1, size, 3, self.heads, width // self.heads).unbind(2)
            found = attend(query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2), None)
            seen[start:stop] = found.transpose(1, 2).reshape(-1, width)
            start = stop
        return self._after(states, seen)

    def first(self, states: Tensor, pack: Pack) -> Tensor:
        """Return the new state of each cell's first token, (cells, width): the others are keys and values only."""
        width = states.shape[1]
        weight, bias = self.mixing.weight, self.mixing.bias
        asking = states[pack.starts]
        query = functional.linear(asking, weight[:width], bias[:width])
        mixed = functional.linear(states, weight[width:], bias[width:])
        shape = (-1, self.heads, width // self.heads)
        seen = torch.empty_like(asking)
        for cell, (one, part) in enumerate(zip(query, mixed.split(pack.sizes), strict=True)):
            key, value = (side.view(shape).transpose(0, 1)[None] for side in part.split(width, dim=1))
            seen[cell] = attend(one.view(1, self.heads, 1, -1), key, value, None).flatten()
        return self._after(asking, seen)

    def _after(self, states: Tensor, seen: Tensor) -> Tensor:
        """Return what follows attention: output, residual, norm, feed-forward, residual, norm."""
        states = self.attention_norm(self.output(seen).add_(states))
        return self.feedforward_norm(self.narrow(self.activation(self.widen(states))).add_(states))


def joined(layers: Sequence[nn.Linear | Int8Linear]) -> nn.Linear | Int8Linear:
    """Return one linear layer whose output is that of `layers` side by side; in int8 where they are."""
    weight = torch.cat([layer.weight.detach() for layer in layers])
    made = nn.Linear(weight.shape[1], len(weight), device="meta")
    made.weight = nn.Parameter(weight, requires_grad=False)
    bias = torch.cat([layer.bias.detach() for layer in layers if layer.bias is not None])
    made.bias = nn.Parameter(bias, requires_grad=False)
    # Rows that were rounded to 8 bits before are rounded to the same steps again.
    return Int8Linear(made) if isinstance(layers[0], Int8Linear) else made
