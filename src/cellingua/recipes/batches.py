"""Minibatches: pseudo-cells from profiles and markers, real cells with machine-made and with curated labels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, vstack
from torch import Tensor

from cellingua.cells.collections import CellSet
from cellingua.cells.ranked import RankedCells
from cellingua.cells.simulate import Simulator, thin
from cellingua.models.gene_table import GeneTable
from cellingua.nn.batch import CellBatch


@dataclass(frozen=True)
class BatchConfig:
    """How a minibatch is made.

    Parameters
    ----------
    size
        Cells.
    markers, machine, curated
        Shares of pseudo-cells made from markers, of real cells with a machine-made label, and of real cells with a
        curated one; the rest are pseudo-cells from profiles.
    token_dropout
        Up to this share of a cell's tokens is dropped.
    token_limit
        Tokens kept of a cell.
    """

    size: int
    markers: float
    machine: float
    curated: float
    token_dropout: float
    token_limit: int


class Batches:
    """Draws minibatch `step` from a generator that is seeded with the step, so a resumed run sees the same cells.

    Parameters
    ----------
    cells
        Real cells with a term.
    simulator
        Draws pseudo-cells.
    genes
        The model's genes.
    terms
        All terms that a cell can carry: the rows of the texts that cells are compared with.
    seed
        Of the run.
    """

    def __init__(
        self,
        config: BatchConfig,
        cells: CellSet,
        simulator: Simulator,
        genes: GeneTable,
        terms: list[str],
        seed: int,
    ) -> None:
        self.config, self.simulator, self.genes, self.seed = config, simulator, genes, seed
        self.row_of = {term: row for row, term in enumerate(terms)}
        self.sources = [(cells.take(cells.curated == kind), kind) for kind in (False, True)]
        self.chances = [_chances(part) for part, _ in self.sources]

    def draw(self, step: int) -> tuple[CellBatch, CellBatch, Tensor]:
        """Return two views of the cells of a step, and the row of each one's term, int64 (B,).

        A view is a dropout of tokens of its own.
        """
        rng = np.random.default_rng([self.seed, 2, step])
        counts, totals, terms = self._cells(rng)
        ranked = self.genes.rank(counts, totals, 2 * self.config.token_limit)
        views = [self._view(ranked, own) for own in (rng, np.random.default_rng([self.seed, 31, step]))]
        return views[0], views[1], torch.tensor([self.row_of[term] for term in terms])

    def _view(self, ranked: RankedCells, rng: np.random.Generator) -> CellBatch:
        kept = drop_tokens(ranked, self.config.token_dropout, self.config.token_limit, rng)
        return CellBatch.from_arrays(kept.indptr, kept.tokens, kept.values)

    def _cells(self, rng: np.random.Generator) -> tuple[csr_matrix, NDArray[np.float64], list[str]]:
        size = self.config.size
        n_markers = int(size * self.config.markers)
        wanted = [int(size * self.config.machine), int(size * self.config.curated)]
        n_real = [n if len(part) else 0 for n, (part, _) in zip(wanted, self.sources, strict=True)]
        pseudo = [self.simulator.from_profiles(size - n_markers - sum(n_real), rng)]
        if n_markers:
            pseudo.append(self.simulator.from_markers(n_markers, rng))
        counts = [drawn for drawn, _ in pseudo]
        terms = [term for _, names in pseudo for term in names]
        for n, (part, _), chance in zip(n_real, self.sources, self.chances, strict=True):
            if n:
                rows = rng.choice(len(part), n, p=chance)
                counts.append(thin(csr_matrix(part.counts[rows]), rng))
                terms += part.terms[rows].tolist()
        # Totals over the genes that are left: silenced genes were not measured.
        totals = np.concatenate([np.asarray(part.sum(axis=1)).ravel() for part in counts])
        return csr_matrix(vstack(counts)), totals, terms


def _chances(cells: CellSet) -> NDArray[np.float64]:
    """Return the chance of each cell: types of many cells are seen more often, but not in proportion."""
    if not len(cells):
        return np.empty(0)
    keys = np.char.add(np.char.add(cells.files, "\t"), cells.terms)
    _, inverse, sizes = np.unique(keys, return_inverse=True, return_counts=True)
    weight = sizes[inverse] ** -0.6
    return np.asarray(weight / weight.sum())


def drop_tokens(ranked: RankedCells, most: float, limit: int, rng: np.random.Generator) -> RankedCells:
    """Return the cells less a random share of their tokens, another share in each (up to `most`), cut to `limit`."""
    lengths = np.diff(ranked.indptr)
    share = np.repeat(rng.random(len(ranked)) * most, lengths)
    kept = rng.random(len(ranked.tokens)) >= share
    running = np.concatenate([[0], np.cumsum(kept)])
    kept &= running[:-1] - np.repeat(running[ranked.indptr[:-1]], lengths) < limit
    indptr = np.concatenate([[0], np.cumsum(kept)])[ranked.indptr]
    return RankedCells(indptr.astype(np.int64), ranked.tokens[kept], ranked.values[kept])
