"""The transformer layer, and the BERT cell tower of LangCell and Geneformer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from cellingua.nn.attention import Attention
from cellingua.nn.batch import CellBatch, CellStates


def _activation(name: str) -> Callable[[Tensor], Tensor]:
    """Return relu, or the exact (erf) gelu."""
    known: dict[str, Callable[[Tensor], Tensor]] = {"relu": functional.relu, "gelu": functional.gelu}
    return known[name]


@dataclass(frozen=True)
class LayerConfig:
    """One transformer layer; `memory_width` adds cross-attention, `norm_first` makes it pre-norm."""

    width: int
    heads: int
    feedforward: int
    activation: str = "gelu"
    eps: float = 1e-12
    dropout: float = 0.1
    attention_dropout: float = 0.1
    memory_width: int | None = None
    norm_first: bool = False


class EncoderLayer(nn.Module):
    """Self-attention, cross-attention if configured, feed-forward; each with a residual and a LayerNorm.

    Post-norm is BERT's ``x = LN(x + f(x))``; pre-norm is ``x = x + f(LN(x))``. ``gelu`` is the exact (erf) one.
    """

    def __init__(self, config: LayerConfig) -> None:
        super().__init__()
        self.norm_first = config.norm_first
        self.activation = _activation(config.activation)
        self.attention = Attention(config.width, config.heads, dropout=config.attention_dropout)
        self.attention_norm = nn.LayerNorm(config.width, eps=config.eps)
        self.cross: Attention | None = None
        if config.memory_width is not None:
            self.cross = Attention(config.width, config.heads, config.memory_width, config.attention_dropout)
            self.cross_norm = nn.LayerNorm(config.width, eps=config.eps)
        self.widen = nn.Linear(config.width, config.feedforward)
        self.narrow = nn.Linear(config.feedforward, config.width)
        self.feedforward_norm = nn.LayerNorm(config.width, eps=config.eps)
        self.dropout = nn.Dropout(config.dropout)

    def forward(
        self,
        states: Tensor,
        mask: Tensor | None,
        memory: Tensor | None = None,
        memory_mask: Tensor | None = None,
    ) -> Tensor:
        """Return the new states (B, L, width); without `memory`, cross-attention is skipped entirely."""
        return self.look(self.read(states, mask), memory, memory_mask)

    def read(self, states: Tensor, mask: Tensor | None) -> Tensor:
        """Return the states (B, L, width) after self-attention, which know nothing of a memory yet."""
        return self._around(states, self.attention_norm, lambda x: self.attention(x, mask))

    def look(self, states: Tensor, memory: Tensor | None, memory_mask: Tensor | None = None) -> Tensor:
        """Return what `read` has returned after cross-attention, if there is a memory, and the feed-forward layer."""
        if memory is not None:
            if self.cross is None:
                raise ValueError("this layer has no cross-attention, so it can't look at a memory")
            cross = self.cross
            states = self._around(states, self.cross_norm, lambda x: cross(x, memory_mask, memory))
        return self._around(states, self.feedforward_norm, lambda x: self.narrow(self.activation(self.widen(x))))

    def _around(self, states: Tensor, norm: nn.Module, inner: Callable[[Tensor], Tensor]) -> Tensor:
        """Put residual, dropout and norm around `inner`."""
        if self.norm_first:
            return states + self.dropout(inner(norm(states)))
        return norm(states + self.dropout(inner(states)))


def initialise(module: nn.Module, std: float = 0.02) -> None:
    """Give every linear and embedding layer BERT's start: normal weights, zero biases."""
    for part in module.modules():
        if isinstance(part, nn.Linear | nn.Embedding):
            nn.init.normal_(part.weight, std=std)
        if isinstance(part, nn.Linear) and part.bias is not None:
            nn.init.zeros_(part.bias)


@dataclass(frozen=True)
class CellTowerConfig:
    """The BERT cell tower.

    Parameters
    ----------
    vocabulary
        Rows of the token table, ``<pad>``, ``<mask>`` and ``<cls>`` included.
    cls_token
        The token put before every cell; its last state is the pooled state.
    positions
        Most tokens a cell, ``<cls>`` included.
    segments
        Rows of the token-type table. Row 0 is always added and the others are never used, but the files have them.
    """

    vocabulary: int
    cls_token: int
    layers: int = 12
    width: int = 512
    heads: int = 8
    feedforward: int = 1024
    positions: int = 2048
    segments: int = 2
    activation: str = "relu"
    eps: float = 1e-12
    dropout: float = 0.02
    attention_dropout: float = 0.02

    @classmethod
    def paper(cls) -> CellTowerConfig:
        """LangCell's own size: 39,302,656 parameters."""
        return cls(vocabulary=25_427, cls_token=25_426)

    def layer(self) -> LayerConfig:
        """The configuration of each layer."""
        return LayerConfig(
            self.width,
            self.heads,
            self.feedforward,
            self.activation,
            self.eps,
            self.dropout,
            self.attention_dropout,
        )


class CellTower(nn.Module):
    """LangCell's cell encoder: a post-norm BERT over ``<cls>`` and the ranked genes (values are not used)."""

    def __init__(self, config: CellTowerConfig) -> None:
        super().__init__()
        self.config = config
        self.width = config.width
        self.token = nn.Embedding(config.vocabulary, config.width)
        self.position = nn.Embedding(config.positions, config.width)
        self.segment = nn.Embedding(config.segments, config.width)
        self.norm = nn.LayerNorm(config.width, eps=config.eps)
        self.dropout = nn.Dropout(config.dropout)
        self.layers = nn.ModuleList(EncoderLayer(config.layer()) for _ in range(config.layers))
        initialise(self)

    def forward(self, batch: CellBatch) -> CellStates:
        """Return the states of ``<cls>`` and of each gene; `pooled` is that of ``<cls>``."""
        tokens, mask = batch.padded(self.config.positions, first=self.config.cls_token)
        return self.read(tokens, mask)

    def read(self, tokens: Tensor, mask: Tensor) -> CellStates:
        """Return the states of a rectangle of tokens (B, L) that holds ``<cls>`` already."""
        place = torch.arange(tokens.shape[1], device=tokens.device)
        states = self.token(tokens) + self.position(place) + self.segment.weight[0]
        states = self.dropout(self.norm(states))
        seen = None if bool(mask.all()) else mask
        for layer in self.layers:
            states = layer(states, seen)
        return CellStates(states[:, 0], states, mask)
