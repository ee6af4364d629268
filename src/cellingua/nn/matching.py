"""Does a text fit a cell? The text tower beside the cell, for many texts at once, and the plain twin.

What a pair costs is mostly work that other pairs share. Here a cell's keys and values are made once a layer for all
its texts; what the first layer does before it looks at a cell is done once a text; the last layer asks for ``[CLS]``
alone; and texts and cells lie one after the other, so that no padding is computed.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

import torch
from torch import Tensor, nn

from cellingua.nn.attention import Attention, attend
from cellingua.nn.batch import CellStates
from cellingua.nn.language import TextTower
from cellingua.nn.precision import converted
from cellingua.nn.transformer import EncoderLayer

#: Word pieces and cell tokens that an accelerator takes at a time, at most (one cell is never divided). A processor
#: takes cell after cell: one with its texts fills the cores, and is then the same to the bit in any company.
PIECES, TOKENS = 16_384, 32_768
TEXTS = 128  # prepared at a time


class Matcher:
    """The match classifier for a set of texts, each prepared once, when it's first chosen. For inference: no dropout.

    Parameters
    ----------
    text_tower
        With cross-attention and post-norm layers, as LangCell's.
    match_head
        From the state of ``[CLS]`` to two logits.
    ids, mask
        int64 and bool (K, L): the texts, right-padded, as the tokeniser gives them.
    precision
        Of the tower's layers: see `cellingua.nn.precision`. The head is always float32.

    Raises
    ------
    ValueError
        A tower without cross-attention, or a text without a piece.
    """

    def __init__(
        self, text_tower: TextTower, match_head: nn.Module, ids: Tensor, mask: Tensor, precision: str = "float32"
    ) -> None:
        self.tower, self.head = converted(text_tower, precision), match_head
        self.layers = [cast(EncoderLayer, layer) for layer in self.tower.layers]
        if not self.layers or any(layer.cross is None or layer.norm_first for layer in self.layers):
            raise ValueError("matching needs post-norm layers with cross-attention, each")
        if not bool(mask.any(dim=1).all()):
            raise ValueError("every text needs at least one piece")
        self.ids, self.mask, self.lengths = ids, mask, mask.sum(dim=1)
        self._states: dict[int, Tensor] = {}

    def __len__(self) -> int:
        """Number of texts."""
        return len(self.lengths)

    def logits(self, states: CellStates) -> Tensor:
        """Return the logits of every cell with every text, float32 (B, K, 2); class 1 is a match."""
        return self.pairs(states, torch.arange(len(self), device=self.lengths.device).expand(len(states.pooled), -1))

    def pairs(self, states: CellStates, chosen: Tensor) -> Tensor:
        """Return the logits of each cell with the texts chosen for it.

        Parameters
        ----------
        states
            What a cell tower that has token states says of B cells.
        chosen
            int64 (B, k): numbers of texts.

        Returns
        -------
        Tensor
            float32 (B, k, 2); class 1 is a match. Zeros for a cell without a single token: nothing speaks for or
            against any text. A row depends on that cell and those texts alone.
        """
        self._prepare(chosen)
        hidden, sizes = _tokens_of(states)
        hidden = hidden.to(self.tower.norm.weight.dtype)
        out = hidden.new_zeros((*chosen.shape, 2), dtype=torch.float32)
        pieces = self.lengths[chosen].sum(dim=1).tolist()
        begin = sizes.cumsum(0) - sizes
        chunks = _chunks(pieces, sizes.tolist(), together=out.device.type != "cpu")
        for rows in chunks:
            first, last = int(begin[rows[0]]), int(begin[rows[-1]] + sizes[rows[-1]])
            out[rows] = self._chunk(hidden[first:last], sizes[rows].tolist(), chosen[rows])
        return out

    def _prepare(self, chosen: Tensor) -> None:
        """Compute what the first layer does before it looks at a cell: once a text, the same beside every cell."""
        missing = [text for text in chosen.unique().tolist() if text not in self._states]
        for start in range(0, len(missing), TEXTS):
            rows = torch.tensor(missing[start : start + TEXTS], device=self.ids.device)
            seen, texts = self.mask[rows], _Texts(self.lengths[rows])
            place = torch.arange(seen.shape[1], device=seen.device).expand_as(seen)[seen]
            states = self.tower.norm(self.tower.word(self.ids[rows][seen]) + self.tower.position(place))
            states = _self_attention(self.layers[0], states, texts, last=False)
            self._states |= zip(missing[start : start + TEXTS], states.split(texts.lengths.tolist()), strict=True)

    def _chunk(self, memory: Tensor, sizes: list[int], chosen: Tensor) -> Tensor:
        """Return the logits (b, k, 2) of cells that lie one after the other in `memory`, none empty."""
        pairs = chosen.flatten()
        texts = _Texts(self.lengths[pairs])
        states = torch.cat([self._states[text] for text in pairs.tolist()])
        queries = self.lengths[chosen].sum(dim=1).tolist()
        for number, layer in enumerate(self.layers):
            last = number == len(self.layers) - 1
            if number:
                states = _self_attention(layer, states, texts, last=last)
            elif last:
                states = states[texts.starts]
            if last:
                queries = [chosen.shape[1]] * len(sizes)
            states = _cross_attention(layer, states, queries, memory, sizes)
            states = _feedforward(layer, states)
        logits: Tensor = self.head(states.float())
        return logits.unflatten(0, chosen.shape)


class _Texts:
    """Texts one after the other: how long each is, and where it begins, int64 (pairs,)."""

    def __init__(self, lengths: Tensor) -> None:
        self.lengths, self.starts = lengths, lengths.cumsum(0) - lengths
        self.groups = list(self._groups())

    def _groups(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield texts of equal length: their numbers (g,), and the rows of their pieces (g, length)."""
        for length in self.lengths.unique().tolist():
            members = (self.lengths == length).nonzero()[:, 0]
            yield members, self.starts[members, None] + torch.arange(length, device=members.device)


def _self_attention(layer: EncoderLayer, states: Tensor, texts: _Texts, *, last: bool) -> Tensor:
    """Return the states behind self-attention: of all pieces (pieces, width), or of [CLS] alone if `last`."""
    attention = layer.attention
    asking = states[texts.starts] if last else states
    query, key, value = attention.query(asking), attention.key(states), attention.value(states)
    mixed = torch.empty_like(query)
    for members, rows in texts.groups:
        places = members[:, None] if last else rows
        mixed[places] = _mix(attention, query[places], key[rows], value[rows])
    return _around(layer.attention_norm, asking, attention.output(mixed))


def _cross_attention(
    layer: EncoderLayer, states: Tensor, queries: list[int], memory: Tensor, sizes: list[int]
) -> Tensor:
    """Return the states behind a layer's look at the cells; all texts of a cell look at once."""
    attention = cast(Attention, layer.cross)
    query, key, value = attention.query(states), attention.key(memory), attention.value(memory)
    mixed = [
        _mix(attention, q[None], k[None], v[None])[0]
        for q, k, v in zip(query.split(queries), key.split(sizes), value.split(sizes), strict=True)
    ]
    return _around(layer.cross_norm, states, attention.output(torch.cat(mixed)))


def _feedforward(layer: EncoderLayer, states: Tensor) -> Tensor:
    return _around(layer.feedforward_norm, states, layer.narrow(layer.activation(layer.widen(states))))


def _around(norm: nn.Module, states: Tensor, inner: Tensor) -> Tensor:
    """Return what a post-norm layer makes of its input and of what its part says."""
    return norm(states + inner)


def _mix(attention: Attention, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Return the attention of (g, Q, width) to (g, C, width), nothing masked, (g, Q, width)."""
    query, key, value = (x.unflatten(-1, (attention.heads, -1)).transpose(1, 2) for x in (query, key, value))
    return attend(query, key, value, None).transpose(1, 2).flatten(2)


def _tokens_of(states: CellStates) -> tuple[Tensor, Tensor]:
    """Return the states of all real tokens (total, width), cell after cell, and the tokens of each cell, int64 (B,)."""
    if states.hidden is None:
        raise ValueError("this cell tower has no token states, so texts can't attend to them")
    if states.mask is None:
        rows, length = states.hidden.shape[:2]
        return states.hidden.flatten(0, 1), torch.full((rows,), length, device=states.hidden.device)
    return states.hidden[states.mask], states.mask.sum(dim=1)


def _chunks(pieces: list[int], tokens: list[int], *, together: bool) -> Iterator[list[int]]:
    """Yield cells that have tokens, one by one or `together` in runs within `PIECES` and `TOKENS`."""
    rows: list[int] = []
    held_pieces = held_tokens = 0
    for row, (text, cell) in enumerate(zip(pieces, tokens, strict=True)):
        if not cell:
            continue
        if rows and (not together or held_pieces + text > PIECES or held_tokens + cell > TOKENS):
            yield rows
            rows, held_pieces, held_tokens = [], 0, 0
        rows.append(row)
        held_pieces, held_tokens = held_pieces + text, held_tokens + cell
    if rows:
        yield rows


def match_plain(text_tower: TextTower, match_head: nn.Module, states: CellStates, ids: Tensor, mask: Tensor) -> Tensor:
    """Return what `Matcher.logits` returns, the tower's forward pass over every pair: padded, masked, float32.

    This is how the released code matches: one text after the other, each with all cells of the minibatch.
    """
    if states.hidden is None or states.mask is None:
        raise ValueError("this cell tower has no token states, so texts can't attend to them")
    empty = ~states.mask.any(dim=1)
    seen = states.mask.clone()
    seen[empty, 0] = True  # no softmax runs over nothing
    cells = CellStates(states.pooled, states.hidden, seen)
    columns = []
    for text, pieces in zip(ids, mask, strict=True):
        pair = text_tower(text.expand(len(seen), -1), pieces.expand(len(seen), -1), cells)
        columns.append(match_head(pair.hidden[:, 0]) * ~empty[:, None])
    return torch.stack(columns, dim=1)
