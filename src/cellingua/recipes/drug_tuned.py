"""A language model's cell tower tuned on responses of cell lines, each line read once a pass.

A table of responses has a few hundred lines and tens of thousands of pairs: a tower that is tuned with the network of
pairs would read every line a hundred times a pass. Here the tower learns first, under a linear head with one output a
drug, from the table of lines x drugs with the mean of each drug taken off; the fusion network then gets the states of
the tuned tower. ``rank`` keeps the weights and learns low-rank corrections beside them (LoRA, Hu et al. 2021).
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cellingua.core.errors import InputError
from cellingua.models.cellm import CellLMModel
from cellingua.recipes.drug_states import SEEN_GENES, as_cells, line_states, with_length
from cellingua.recipes.finetune_towers import with_lora
from cellingua.training.optimise import OptimiseConfig, make_optimiser, rate_at

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class TowerTuning:
    """How a tower is tuned; chosen on validation lines.

    Parameters
    ----------
    passes, lines
        Over the lines that are learned from, and lines a step.
    rate, decay
        Of AdamW.
    rank
        Of LoRA's corrections; None moves all weights.
    """

    passes: int = 15
    lines: int = 32
    rate: float = 1e-3
    decay: float = 0.01
    rank: int | None = None


def tuned_states(
    encoder: CellLMModel, values: Floats, genes: NDArray[np.str_], grid: Floats, config: TowerTuning, seed: int
) -> Floats:
    """Return what the tuned tower makes of all lines, float64 (m, 2 width), as `drug_states.line_states` does.

    Parameters
    ----------
    encoder
        Is copied and stays as it is.
    values, genes
        Expression of m lines: see `drug_states.as_cells`.
    grid
        float64 (m, D): responses, NaN where nothing is learned from; a row without any is not read in training.
    seed
        Of the order of lines and of the head.

    Raises
    ------
    InputError
        No line has both expression and responses.
    """
    learned = np.flatnonzero(np.isfinite(grid).any(axis=1) & np.isfinite(values).any(axis=1))
    if not len(learned):
        raise InputError("No line has both expression and responses.", "lines named alike in both tables")
    torch.manual_seed(seed)
    seeing = with_length(encoder, SEEN_GENES)
    binned = seeing.bin(as_cells(values[learned], genes, encoder))
    tower: Any = copy.deepcopy(seeing.module.performer)
    if config.rank is None:
        tower.requires_grad_(True)
    else:
        tower = with_lora(tower, config.rank)
    head = nn.Linear(2 * encoder.width, grid.shape[1])

    def predicted(rows: NDArray[np.int64]) -> Tensor:
        seen = tower(seeing.module.performer.batch(binned.take(rows)), together=False)
        return head(torch.cat([seen.cls, seen.mean], dim=1))

    _train(nn.ModuleDict({"tower": tower, "head": head}), predicted, *_centred(grid[learned]), config, seed)
    if config.rank is not None:
        tower = tower.merge_and_unload()
    whole = copy.deepcopy(encoder.module)
    whole.performer = tower.requires_grad_(False).eval()
    return line_states(values, genes, replace(encoder, module=whole))


def _train(
    module: nn.Module, predicted: Callable[[NDArray[np.int64]], Tensor], target: Tensor, there: Tensor,
    config: TowerTuning, seed: int,
) -> None:  # fmt: skip
    """Move the weights of `module` until what is predicted of lines (n, D) is near the target where there is one."""
    module.train()
    parts = -(-len(target) // config.lines)
    schedule = OptimiseConfig(config.rate, weight_decay=config.decay)
    optimiser = make_optimiser(module.parameters(), schedule)
    rng, step = np.random.default_rng(seed), 0
    for _ in range(config.passes):
        for rows in np.array_split(rng.permutation(len(target)), parts):
            for group in optimiser.param_groups:
                group["lr"] = rate_at(step, config.passes * parts, schedule)
            optimiser.zero_grad()
            ((predicted(rows) - target[rows]) ** 2)[there[rows]].mean().backward()
            nn.utils.clip_grad_norm_(module.parameters(), schedule.clip)
            optimiser.step()
            step += 1


def _centred(grid: Floats) -> tuple[Tensor, Tensor]:
    """Return responses less the mean of their drug, over the deviation of all, 0 where there is none; and which are."""
    there = np.isfinite(grid)
    count = np.maximum(there.sum(axis=0), 1)
    rest = np.where(there, grid - np.where(there, grid, 0.0).sum(axis=0) / count, 0.0)
    spread = np.sqrt((rest**2).sum() / there.sum())
    return torch.from_numpy((rest / max(spread, 1e-9)).astype(np.float32)), torch.from_numpy(there)
