"""One step of the LangCell recipe: all its objectives through the divide-and-conquer engine, for both towers at once.

The engine is called twice. The first call has the two views of the cells, the texts, and the cells with hidden genes:
both contrasts and the loss of hidden genes. What it finds as representations decides which pairs are hard; the second
call has these pairs, as cells with their texts, whose loss is separable. Gradients of both add up in ``.grad``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from cellingua.engine.divide_conquer import divide_conquer
from cellingua.engine.processes import Processes
from cellingua.nn.batch import CellBatch
from cellingua.objectives.matching import Pairs, choose_pairs
from cellingua.recipes.langcell_config import ObjectivesConfig, ObjectiveWeights
from cellingua.recipes.langcell_towers import (
    CellView,
    MaskedCells,
    MaskedView,
    PairBatch,
    PairView,
    TrainingModule,
    mask_cells,
    number_of,
    split,
)
from cellingua.recipes.relations import Kinds, Related, contrast

_MATCH_SEED = 1 << 40  # the second call's random states lie apart from the first's


@dataclass(frozen=True)
class Minibatch:
    """What a step needs. Cells and texts to be encoded are this process's; what tells of them is global.

    Attributes
    ----------
    first, second
        Two views of the same cells; None where no second is wanted.
    offset
        Place of this process's first cell in the minibatch.
    text_of, type_of
        int64 (B,): each cell's text and type; -1 where not known.
    texts
        Texts as the text tower takes them; None where no text is wanted.
    type_of_text
        int64 (T,).
    read
        Rows of texts -> word pieces int64 (n, L) and mask, for texts that look at cells.
    """

    first: CellBatch
    second: CellBatch | None
    offset: int
    text_of: Tensor
    type_of: Tensor
    texts: Any
    type_of_text: Tensor
    read: Callable[[Tensor], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class StepConfig:
    """The settings of the steps of a stage.

    Parameters
    ----------
    objectives
        See `ObjectivesConfig`.
    weights
        Of the stage.
    n_genes, limit
        Genes of the model, and most tokens of a cell among which some are hidden.
    seed
        Of masks, dropout and draws.
    autocast
        See `divide_conquer`.
    """

    objectives: ObjectivesConfig
    weights: ObjectiveWeights
    n_genes: int
    limit: int
    seed: int
    autocast: torch.dtype | None = None


class Step:
    """Leaves the gradients of a step in ``.grad``.

    Parameters
    ----------
    trained
        The model and its head for masked genes.
    draw
        Step number -> `Minibatch`.
    config
        See `StepConfig`.
    kinds
        Relations of the types.
    text_view
        Reads ``Minibatch.texts``.
    processes
        Who takes part; None is every process there is.
    pair_view
        Reads pairs in another way than `PairView`.
    """

    def __init__(
        self,
        trained: TrainingModule,
        draw: Callable[[int], Minibatch],
        config: StepConfig,
        kinds: Kinds,
        text_view: nn.Module,
        *,
        processes: Processes | None = None,
        pair_view: PairView | None = None,
    ) -> None:
        weights, keep = config.weights, config.objectives.keep
        self.draw, self.config, self.weights, self.kinds = draw, config.objectives, weights, kinds
        self.n_genes, self.limit, self.seed = config.n_genes, config.limit, config.seed
        self.cell_view, self.text_view = CellView(trained.model), text_view
        self.masked_view = MaskedView(trained) if weights.masked else None
        self.pair_view = (pair_view or PairView(trained.model)) if weights.matching else None
        self.engine: dict[str, Any] = {
            "budget": math.inf if keep is None else keep,
            "autocast": config.autocast,
            "processes": processes,
            "split": split,
        }

    def __call__(self, step: int) -> dict[str, float]:
        """Return the weighted losses of step `step`, by name."""
        batch = self.draw(step)
        towers, batches, chunks = self._towers(step, batch)
        told: dict[str, float] = {}
        result = divide_conquer(
            list(towers.values()),
            batches,
            self._objective(list(towers), batch, told),
            chunk=chunks,
            seed=self.seed * 1_000_003 + step,
            weights={"masked": self.weights.masked} if self.weights.masked else None,
            **self.engine,
        )
        if self.weights.masked:
            told["masked"] = self.weights.masked * result.parts["masked"]
        if self.pair_view is not None and step % self.config.match_every == 0:
            rows = dict(zip(towers, result.representations, strict=True))
            pairs = self.pairs(step, batch, rows["first"], rows["texts"])
            told["matching"] = self._match(step, batch, pairs) if len(pairs) else 0.0
        return told

    def _towers(self, step: int, batch: Minibatch) -> tuple[dict[str, nn.Module], list[Any], list[int]]:
        """Return the towers of the first call by name, their batches and the sizes of their chunks."""
        chunk = self.config.chunk
        towers: dict[str, nn.Module] = {}
        batches: list[Any] = []
        if self.weights.cell_cell or self.weights.cell_text:
            towers["first"] = self.cell_view
            batches.append(batch.first)
        if self.weights.cell_cell:
            towers["second"] = self.cell_view
            batches.append(batch.second)
        if self.weights.cell_text:
            towers["texts"] = self.text_view
            batches.append(batch.texts)
        if self.masked_view is not None:
            towers["masked"] = self.masked_view
            batches.append(self.masked(step, batch))
        return towers, batches, [chunk] * len(towers)

    def _objective(self, names: list[str], batch: Minibatch, told: dict[str, float]) -> Callable[..., Tensor] | None:
        """Return the sum of the contrasts that weigh something; `told` gets each one's value."""
        weights, config = self.weights, self.config
        if not (weights.cell_cell or weights.cell_text):
            return None
        temperature = config.temperature

        def objective(*representations: Tensor) -> Tensor:
            rows = dict(zip(names, representations, strict=True))
            total = rows["first"].new_zeros(())
            if weights.cell_cell:
                with_cells = contrast(config.cell_relation, temperature, True, self.of_cells(batch))
                value = weights.cell_cell * with_cells(rows["first"], rows["second"])
                told["cell_cell"], total = float(value.detach()), total + value
            if weights.cell_text:
                value = weights.cell_text * self._with_texts(batch, rows["first"], rows["texts"])
                told["cell_text"], total = float(value.detach()), total + value
            return total

        return objective

    def _with_texts(self, batch: Minibatch, cells: Tensor, texts: Tensor) -> Tensor:
        """Return the contrast of cells that have a text with the texts of the step."""
        related, relation = self.of_texts(batch), self.config.text_relation
        has = batch.text_of >= 0
        if not bool(has.any()):
            return cells.sum() * 0.0
        texts = texts[: len(batch.type_of_text)]  # a process without a text of its own repeated the last
        if relation in ("instances", "masked"):
            own = batch.text_of[has]
            texts = texts[own]
            related = Related(*(part[has][:, own] for part in (related.right, related.unclear)))
        else:
            close = None if related.close is None else related.close[has]
            related = Related(related.right[has], related.unclear[has], close)
        loss = contrast(relation, self.config.temperature, self.config.symmetric, related)
        return loss(cells[has], texts)

    def of_texts(self, batch: Minibatch) -> Related:
        """Return the relations of cells with texts."""
        places = torch.arange(len(batch.type_of_text))
        return self.kinds.compare(batch.text_of, batch.type_of, places, batch.type_of_text, unknown_unclear=True)

    def of_cells(self, batch: Minibatch) -> Related:
        """Return the relations of cells of one view with those of the other; a cell is always right for itself."""
        found = self.kinds.compare(batch.text_of, batch.type_of, batch.text_of, batch.type_of)
        own = torch.eye(len(batch.text_of), dtype=torch.bool)
        close = None if found.close is None else found.close.masked_fill(own, 1.0)
        return Related(found.right | own, found.unclear & ~own, close)

    def masked(self, step: int, batch: Minibatch) -> MaskedCells:
        """Return this process's share of the cells of the step whose genes are hidden."""
        total = len(batch.text_of)
        wanted = np.arange(total)
        if self.config.masked_cells:
            wanted = np.random.default_rng([self.seed, 36, step]).permutation(total)[: self.config.masked_cells]
        own = np.sort(wanted[(wanted >= batch.offset) & (wanted < batch.offset + len(batch.first))])
        rows = own if len(own) else np.array([batch.offset])
        seeds = [[self.seed, 37, step, int(row)] for row in rows]
        cells = batch.first.take(torch.from_numpy(rows - batch.offset))
        found = mask_cells(cells, self.limit, self.n_genes, self.config.mask, seeds)
        # The engine wants something from every process: a cell of which nothing is asked.
        return found if len(own) else MaskedCells(found.cells, torch.zeros_like(found.chosen), found.genes)

    def pairs(self, step: int, batch: Minibatch, cells: Tensor, texts: Tensor) -> Pairs:
        """Return the pairs of the whole minibatch, the same in every process."""
        rng = np.random.default_rng([self.seed, 38, step])
        chosen = rng.permutation(np.flatnonzero(batch.text_of.numpy() >= 0))
        if self.config.matched_cells:
            chosen = chosen[: self.config.matched_cells]
        texts = texts[: len(batch.type_of_text)]
        generator = torch.Generator().manual_seed(number_of([self.seed, 39, step]))
        return choose_pairs(
            (cells @ texts.T).cpu(),
            batch.text_of,
            self.of_texts(batch).wrong,
            torch.from_numpy(np.sort(chosen)),
            self.config.hard_temperature,
            generator,
        )

    def _match(self, step: int, batch: Minibatch, pairs: Pairs) -> float:
        """Pass the gradient of the pairs on, and return their weighted loss."""
        assert self.pair_view is not None
        weight = self.weights.matching
        result = divide_conquer(
            [self.pair_view],
            [pair_batch(batch, pairs)],
            None,
            chunk=self.config.pair_chunk,
            seed=self.seed * 1_000_003 + step + _MATCH_SEED,
            weights={"matching": weight},
            **self.engine,
        )
        return weight * result.parts["matching"]


def pair_batch(batch: Minibatch, pairs: Pairs) -> PairBatch:
    """Return this process's cells among the pairs, each with its texts; one cell without texts where it has none."""
    here = (pairs.cells >= batch.offset) & (pairs.cells < batch.offset + len(batch.first))
    own = pairs.take(here.nonzero()[:, 0])
    own = own.take(own.cells.argsort(stable=True))
    if not len(own):
        nothing = torch.zeros((0, 1), dtype=torch.long)
        return PairBatch(batch.first.rows(0, 1), torch.tensor([0, 0]), nothing, nothing.bool(), own.match)
    cells, counts = own.cells.unique_consecutive(return_counts=True)
    ids, mask = batch.read(own.texts)
    offsets = torch.cat([counts[:1] * 0, counts.cumsum(0)])
    return PairBatch(batch.first.take(cells - batch.offset), offsets, ids, mask, own.match)
