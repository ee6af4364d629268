"""The text tower: BERT without token types, and LangCell's cross-attention to a cell where configured."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from cellingua.nn.batch import CellStates
from cellingua.nn.transformer import EncoderLayer, LayerConfig, initialise

POOLINGS = ("cls", "mean")


@dataclass(frozen=True)
class TextTowerConfig:
    """The text tower.

    Parameters
    ----------
    vocabulary
        Rows of the word table.
    positions
        Longest text in word pieces.
    encoder_width
        Width of the cell states that every layer can look at; None for a tower that only reads.
    pooling
        ``cls``: the state of ``[CLS]`` (LangCell). ``mean``: the mean over all pieces (MiniLM).
    unit_length
        Scale the pooled state to unit length, as sentence encoders do.
    pooler
        Hold the dense layer that released files contain and nothing reads.
    """

    vocabulary: int
    layers: int = 12
    width: int = 768
    heads: int = 12
    feedforward: int = 3072
    positions: int = 512
    activation: str = "gelu"
    eps: float = 1e-12
    dropout: float = 0.1
    attention_dropout: float = 0.1
    encoder_width: int | None = None
    pooling: str = "cls"
    unit_length: bool = False
    pooler: bool = False

    @classmethod
    def paper(cls) -> TextTowerConfig:
        """LangCell's own size: 133,130,496 parameters, the unused pooler included."""
        return cls(vocabulary=30_524, encoder_width=512, pooler=True)

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
            self.encoder_width,
        )


@dataclass(frozen=True)
class TextStates:
    """`pooled` (B, width) and `hidden` (B, L, width) of a minibatch of texts."""

    pooled: Tensor
    hidden: Tensor


class TextTower(nn.Module):
    """A post-norm BERT over word pieces; the same weights read a text alone or beside a cell."""

    def __init__(self, config: TextTowerConfig) -> None:
        super().__init__()
        if config.pooling not in POOLINGS:
            raise ValueError(f"pooling is {config.pooling!r}, expected one of {POOLINGS}")
        self.config = config
        self.width = config.width
        self.word = nn.Embedding(config.vocabulary, config.width)
        self.position = nn.Embedding(config.positions, config.width)
        self.norm = nn.LayerNorm(config.width, eps=config.eps)
        self.dropout = nn.Dropout(config.dropout)
        self.layers = nn.ModuleList(EncoderLayer(config.layer()) for _ in range(config.layers))
        self.pooler = nn.Linear(config.width, config.width) if config.pooler else None
        initialise(self)

    def forward(self, ids: Tensor, mask: Tensor, cells: CellStates | None = None) -> TextStates:
        """Return the states of a minibatch of texts.

        Parameters
        ----------
        ids
            int64 (B, L), right-padded.
        mask
            bool (B, L), True for a real piece.
        cells
            None: the text alone (mode "text"). Else each text also looks at its cell in every layer (mode
            "multimodal"): hidden states (B, C, encoder_width); with one row it's one cell for all texts.
        """
        memory = memory_mask = None
        if cells is not None:
            if cells.hidden is None:
                raise ValueError("this cell tower has no token states, so texts can't attend to them")
            memory, memory_mask = cells.hidden, cells.mask
        states = self.enter(ids)
        for layer in self.layers:
            states = layer(states, mask, memory, memory_mask)
        return TextStates(self._pool(states, mask), states)

    def enter(self, ids: Tensor) -> Tensor:
        """Return what the first layer reads, (B, L, width)."""
        place = torch.arange(ids.shape[1], device=ids.device)
        return self.dropout(self.norm(self.word(ids) + self.position(place)))

    def _pool(self, states: Tensor, mask: Tensor) -> Tensor:
        if self.config.pooling == "cls":
            pooled = states[:, 0]
        else:
            weight = mask.to(states.dtype)[:, :, None]
            pooled = (states * weight).sum(dim=1) / weight.sum(dim=1)
        return functional.normalize(pooled, dim=-1) if self.config.unit_length else pooled
