"""Wider targets: now and then a cell's text is that of a wider term, so that lineages, too, lie where their cells lie.

Without it a cell learns to find one text among a thousand, and nothing tells that a naive T cell is nearer to the text
of T cells than to that of B cells. Terms that say what a cell does rather than where it belongs are left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cellingua.core.errors import ConfigError
from cellingua.words.ontology import load_ontology


@dataclass(frozen=True)
class WiderConfig:
    """How often a target is widened.

    Parameters
    ----------
    share
        Of the cells of a minibatch; 0 for never.
    decay
        Chance of a term by how far up it lies: ``decay ** steps``.
    without
        Terms that are never a target for their kinds' cells.
    """

    share: float = 0.0
    decay: float = 0.6
    without: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not (0 <= self.share <= 1 and 0 < self.decay <= 1):
            raise ConfigError(f"Targets are widened in a share of {self.share:g}, by {self.decay:g} a step.", "0 to 1")


def steps_up(term: str) -> dict[str, int]:
    """Return each wider term and how many is-a steps away it is, by the shortest way."""
    ontology = load_ontology("CL")
    found: dict[str, int] = {}
    front, steps = {term}, 0
    while front:
        steps += 1
        front = {parent for one in front for parent in ontology.parents(one)} - found.keys()
        found |= dict.fromkeys(front, steps)
    return found


def with_wider(terms: Sequence[str], config: WiderConfig) -> list[str]:
    """Return some terms and the wider ones that may be their targets, sorted."""
    if not config.share:
        return sorted(terms)
    return sorted({*terms}.union(*(steps_up(term).keys() - set(config.without) for term in terms)))


class Wider:
    """Draws wider targets.

    Parameters
    ----------
    terms
        As `with_wider` returns them: a target is the number of a term.
    config
        See `WiderConfig`.
    """

    def __init__(self, terms: Sequence[str], config: WiderConfig) -> None:
        self.share = config.share
        self._terms, self._config = terms, config
        self._row_of = {term: row for row, term in enumerate(terms)}
        self._found: dict[int, tuple[NDArray[np.int64], NDArray[np.float64]]] = {}

    def __call__(self, targets: Tensor, rng: np.random.Generator) -> Tensor:
        """Return targets int64 (B,), some of them widened; one without wider terms stays."""
        out = targets.numpy().copy()
        for cell in np.flatnonzero(rng.random(len(out)) < self.share):
            rows, chance = self._above(int(out[cell]))
            if len(rows):
                out[cell] = rng.choice(rows, p=chance)
        return torch.from_numpy(out)

    def _above(self, row: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        if row not in self._found:
            up = steps_up(self._terms[row])
            kept = sorted(term for term in up if term in self._row_of and term not in self._config.without)
            weight = np.array([self._config.decay ** up[term] for term in kept])
            rows = np.array([self._row_of[term] for term in kept], np.int64)
            self._found[row] = rows, weight / weight.sum() if len(kept) else weight
        return self._found[row]
