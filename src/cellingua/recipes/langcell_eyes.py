"""How texts come to look at cells: fresh cross-attention in a text tower that was trained to read alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import nn

from cellingua.core.errors import ModelError
from cellingua.models.langcell import LangCellModule
from cellingua.nn.language import TextTower


def with_cross_attention(tower: TextTower, width: int, *, dropout: float | None = None) -> TextTower:
    """Return the same text tower with fresh cross-attention to states of `width` in every layer.

    Its output layers start at zero and its norms as copies of the norms before them, so that at first a text beside a
    cell is read nearly as a text alone.

    Parameters
    ----------
    tower
        With or without cross-attention; what it has is kept.
    width
        Of the token states of cells.
    dropout
        In place of the tower's own, if given.

    Raises
    ------
    ModelError
        The tower looks at states of another width already.
    """
    held = tower.config.encoder_width
    if held not in (None, width):
        raise ModelError(f"The text tower looks at states of width {held}.", f"width {width}, or no cross-attention")
    config = replace(tower.config, encoder_width=width)
    if dropout is not None:
        config = replace(config, dropout=dropout, attention_dropout=dropout)
    opened = TextTower(config)
    weights = opened.state_dict() | tower.state_dict()
    opened.load_state_dict(weights)
    if held is None:
        start_cross_attention(opened)
    return opened


@torch.no_grad()
def start_cross_attention(tower: TextTower) -> None:
    """Zero the output layers of all cross-attention, and copy the norms before it."""
    for layer in tower.layers:
        nn.init.zeros_(layer.cross.output.weight)  # type: ignore[union-attr, arg-type]
        nn.init.zeros_(layer.cross.output.bias)  # type: ignore[union-attr, arg-type]
        layer.cross_norm.load_state_dict(layer.attention_norm.state_dict())  # type: ignore[union-attr]


def looking_parts(module: LangCellModule, *, last_alone: bool = False) -> Iterator[nn.Module]:
    """Yield what looks at cells: cross-attention and its norms (of the last layer alone, if asked), the match head."""
    layers = list(module.text_tower.layers)
    for layer in layers[-1:] if last_alone else layers:
        if layer.cross is not None:
            yield layer.cross  # type: ignore[misc]
            yield layer.cross_norm  # type: ignore[misc]
    if module.match_head is not None:
        yield module.match_head


def train_parts(module: LangCellModule, *parts: nn.Module) -> None:
    """Train these parts of a model and no other."""
    module.requires_grad_(False)
    for part in parts:
        part.requires_grad_(True)
