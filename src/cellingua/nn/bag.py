"""The small cell tower: a gated mean of gene embeddings, and a transformer that may add to it.

A mean over a few thousand genes costs a microscopic part of attention over them and needs no cut, so it is
what a laptop runs. The transformer, where there is one, reads the highest tokens alone. It gives them the states that
texts look at, and may add to the bag's pooled state; what it adds starts at zero, so that the bag trains as if it were
not there.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from cellingua.nn.batch import CellBatch, CellStates
from cellingua.nn.transformer import EncoderLayer, LayerConfig, initialise

N_FEATURES = 3
#: Scale of a cell's state as a whole at the start, so that attention that knows nothing yet doesn't drown it.
WHOLE = 3.0


@dataclass(frozen=True)
class GatedBagConfig:
    """The bag tower.

    Parameters
    ----------
    vocabulary
        Rows of the gene table; token t is row t.
    width
        Width of a gene's embedding.
    hidden
        Width of the hidden layer of the head.
    pooled
        Width of the pooled state.
    gate_hidden
        Hidden units of the function from value and rank to the gate.
    dropout
        On the hidden layer of the head.
    layers
        Transformer layers over the first `top` tokens; 0 for none. Their width, heads and feed-forward follow.
    top_pooled
        Whether the transformer adds to the pooled state. Where it doesn't, naming cells by similarity needs the bag
        alone, and the transformer runs only for who asks for token states.
    """

    vocabulary: int
    width: int = 256
    hidden: int = 512
    pooled: int = 256
    gate_hidden: int = 16
    dropout: float = 0.1
    layers: int = 0
    top: int = 128
    layer_width: int = 128
    heads: int = 4
    feedforward: int = 512
    top_pooled: bool = True

    def layer(self) -> LayerConfig:
        """The configuration of each transformer layer: pre-norm, no dropout inside (it only costs time)."""
        return LayerConfig(self.layer_width, self.heads, self.feedforward, "gelu", 1e-5, 0.0, 0.0, None, True)


def features(batch: CellBatch) -> Tensor:
    """Return float32 (total, 3): log1p(value), log1p(rank), rank as a fraction of the cell's tokens.

    Each depends on the token's own cell alone.
    """
    if batch.values is None:
        raise ValueError("the bag tower needs values beside the tokens")
    ranks = batch.ranks.to(torch.float32)
    lengths = torch.repeat_interleave(batch.lengths, batch.lengths, output_size=len(batch.tokens))
    # Scaled so that all three lie roughly within 0 to 2.
    return torch.stack([torch.log1p(batch.values), torch.log1p(ranks) / 4.0, ranks / lengths], dim=1)


class GatedBag(nn.Module):
    """Sum over a cell's genes of gate x embedding, LayerNorm, two-layer head.

    The gate is ``softplus(a_g + b_g log1p(v) + f(value, rank))`` with `a` and `b` learned for each gene and `f` a
    small network. It's positive and not normalised: the LayerNorm behind it takes the scale out. A cell
    without tokens is the zero vector, whose output is defined and finite.
    """

    def __init__(self, config: GatedBagConfig) -> None:
        super().__init__()
        self.config = config
        self.width = config.pooled
        self.token = nn.Embedding(config.vocabulary, config.width)
        self.gene_gate = nn.Embedding(config.vocabulary, 2)
        self.gate = nn.Sequential(
            nn.Linear(N_FEATURES, config.gate_hidden), nn.GELU(), nn.Linear(config.gate_hidden, 1)
        )
        self.norm = nn.LayerNorm(config.width)
        self.head = nn.Sequential(
            nn.Linear(config.width, config.hidden),
            nn.GELU(),
            nn.Dropout(config.dropout),
            nn.Linear(config.hidden, config.pooled),
        )
        nn.init.normal_(self.token.weight, std=1.0 / config.width**0.5)
        # The gate starts near softplus(log1p(v)): the weights of a mean of log values.
        nn.init.zeros_(self.gene_gate.weight)
        with torch.no_grad():
            self.gene_gate.weight[:, 1] = 1.0
        self.top = TopTokens(config) if config.layers else None

    def forward(self, batch: CellBatch, *, with_hidden: bool = True) -> CellStates:
        """Return the pooled states (B, pooled) and, where there are layers, the states of each cell's top tokens.

        Parameters
        ----------
        batch
            Cells with values.
        with_hidden
            Whether token states are wanted: ``hidden`` (B, 1 + L, layer_width), L at most `top`, and ``mask``. The
            first is the cell as a whole, made from the bag's pooled state, as ``<cls>`` is in a BERT.
        """
        level = features(batch)
        weights = self.gates(batch.tokens, level)
        total = functional.embedding_bag(
            batch.tokens,
            self.token.weight,
            batch.offsets,
            mode="sum",
            per_sample_weights=weights,
            include_last_offset=True,
        )
        # Brought to the scale of a mean, so that the LayerNorm's epsilon means the same for every cell.
        pooled = self.head(self.norm(total / _sums(weights, batch)[:, None].clamp(min=1e-6)))
        if self.top is None or not (with_hidden or self.config.top_pooled):
            return CellStates(pooled)
        hidden, mask = self.top(batch, level, self.token)
        whole = self.top.whole(pooled)[:, None]
        if self.config.top_pooled:
            pooled = pooled + self.top.added(hidden, mask)
        seen = torch.cat([mask.new_ones((len(batch), 1)), mask], dim=1)
        return CellStates(pooled, torch.cat([whole, hidden], dim=1), seen)

    def gates(self, tokens: Tensor, level: Tensor) -> Tensor:
        """Return the gate of each token, float32 (total,), above zero."""
        gene = functional.embedding(tokens, self.gene_gate.weight)
        return functional.softplus(gene[:, 0] + gene[:, 1] * level[:, 0] + self.gate(level)[:, 0])


def _sums(weights: Tensor, batch: CellBatch) -> Tensor:
    """Return the sum of `weights` (total,) within each cell, (B,)."""
    cell = torch.repeat_interleave(batch.lengths, output_size=len(weights))
    return weights.new_zeros(len(batch)).index_add(0, cell, weights)


class TopTokens(nn.Module):
    """Pre-norm transformer over a cell's highest tokens; what it adds to the pooled state starts at zero."""

    def __init__(self, config: GatedBagConfig) -> None:
        super().__init__()
        self.limit = config.top
        self.enter = nn.Linear(config.width, config.layer_width)
        self.level = nn.Linear(N_FEATURES, config.layer_width)
        self.position = nn.Embedding(config.top, config.layer_width)
        self.layers = nn.ModuleList(EncoderLayer(config.layer()) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.layer_width)
        scaled = nn.LayerNorm(config.layer_width)
        nn.init.constant_(scaled.weight, WHOLE)
        self.whole = nn.Sequential(nn.Linear(config.pooled, config.layer_width), scaled)
        self.leave = nn.Linear(config.layer_width, config.pooled) if config.top_pooled else None
        initialise(self)
        if self.leave is not None:
            nn.init.zeros_(self.leave.weight)

    def forward(self, batch: CellBatch, level: Tensor, table: nn.Embedding) -> tuple[Tensor, Tensor]:
        """Return the states of the first tokens (B, L, layer_width), and bool (B, L): where there is one."""
        index, mask = batch.rectangle(self.limit)
        if index.shape[1] == 0:
            return level.new_zeros((len(batch), 0, self.norm.normalized_shape[0])), mask
        tokens, level = _or_zero(batch.tokens, index, mask), _or_zero(level, index, mask)
        place = torch.arange(index.shape[1], device=index.device)
        states = self.enter(table(tokens)) + self.level(level) + self.position(place)
        seen = mask.clone()
        seen[:, 0] = True  # a cell without tokens attends to padding, so that no softmax runs over nothing
        # Most cells have more genes than are read here, and attention without a mask takes a faster kernel.
        seen_or_all = None if bool(seen.all()) else seen
        for layer in self.layers:
            states = layer(states, seen_or_all)
        return self.norm(states), mask

    def added(self, hidden: Tensor, mask: Tensor) -> Tensor:
        """Return what is added to the bag's pooled state, (B, pooled); zero for a cell without tokens."""
        assert self.leave is not None  # by `top_pooled`
        weight = mask.to(hidden.dtype)[:, :, None]
        mean = (hidden * weight).sum(dim=1) / weight.sum(dim=1).clamp(min=1)
        return self.leave(mean) * mask.any(dim=1)[:, None]


def _or_zero(values: Tensor, index: Tensor, mask: Tensor) -> Tensor:
    """Return ``values[index]``, and zeros where `mask` is False: padding is the same whatever cells lie beside."""
    source = values if len(values) else values.new_zeros((1, *values.shape[1:]))
    shown = mask.reshape(*mask.shape, *[1] * (values.dim() - 1))
    return torch.where(shown, source[index], source.new_zeros(()))
