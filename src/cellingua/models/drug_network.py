"""A trained network for drug responses: lines and molecules in, ln(IC50 / µM) of every pair out.

Any module that maps lines x molecules to a table (`nn.fusion.FusionNetwork`, the baselines DeepCDR and TGDRP) is
trained here in the same way. A step takes some lines against all learned drugs at once: a molecule is encoded once a
step and a line once, and the pairs that were not measured are masked. What a line or drug is on average is taken off
first (`level`), so that the network learns what an average does not know.

Nothing of what is not learned from enters scaling, levels or batch normalisation.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cellingua.baselines.additive import effects
from cellingua.core.errors import ConfigError, InputError
from cellingua.molecules.graph import MoleculeGraphs
from cellingua.nn.fusion import FusionConfig, FusionNetwork, FusionSizes, GraphTensors
from cellingua.training.optimise import OptimiseConfig, make_optimiser, rate_at

Floats = NDArray[np.float64]
LEVELS = ("none", "drug", "line", "both")
SCALINGS = ("together", "each", "none")


@dataclass(frozen=True)
class NetworkConfig(FusionSizes):
    """How the network is built (see `FusionSizes`) and trained; chosen on validation pairs.

    Parameters
    ----------
    level
        What is taken off a response first: nothing but the mean, the mean of its drug, of its line, or both. A line
        (drug) without responses has no level of its own, so it must not be taken off where new ones are asked for.
    own_drugs, own_lines
        Numbers of their own for drugs and lines that were learned from.
    epochs, lines, rate, decay
        Passes over the lines, lines a step, largest learning rate (one cycle), and weight decay.
    within
        Weight of a loss on the correlation inside each drug, beside the squared error.
    equal_drugs
        Share of the weight that goes to drugs alike, however much their responses spread: 0 to 1.
    drop_own
        Share of drugs whose own numbers are hidden in a step, so that the molecule must speak.
    scaling
        Of what stands for a line: ``each`` number by its own deviation; all ``together`` by one, which keeps leading
        components larger than the others; or ``none``.
    """

    level: str = "drug"
    own_drugs: bool = True
    own_lines: bool = False
    epochs: int = 40
    lines: int = 64
    rate: float = 5e-3
    decay: float = 0.3
    within: float = 0.5
    equal_drugs: float = 0.0
    drop_own: float = 0.0
    scaling: str = "together"

    def __post_init__(self) -> None:
        if self.level not in LEVELS:
            raise ConfigError(f"level is {self.level!r}.", " or ".join(map(repr, LEVELS)))
        if self.scaling not in SCALINGS:
            raise ConfigError(f"scaling is {self.scaling!r}.", " or ".join(map(repr, SCALINGS)))
        if min(self.epochs, self.lines) < 1 or self.rate <= 0 or self.decay < 0:
            raise ConfigError("Nothing would be learned with these settings.", "epochs, lines and rate above 0")


def tensors(graphs: MoleculeGraphs) -> GraphTensors:
    """Return molecules as tensors."""
    return GraphTensors(
        torch.from_numpy(graphs.atoms), torch.from_numpy(graphs.edges), torch.from_numpy(graphs.molecule), graphs.count
    )


@dataclass(frozen=True)
class Scaling:
    """Mean and unit of each number that stands for a line, over the learned lines, and the largest value in units."""

    mean: Floats
    sd: Floats
    limit: float

    @classmethod
    def fit(cls, cells: Floats, kind: str) -> Scaling:
        """Learn from lines (n, F), NaN absent; `kind` as `NetworkConfig.scaling`."""
        if kind == "none":
            return cls(np.zeros(cells.shape[1]), np.ones(cells.shape[1]), np.inf)
        there = np.isfinite(cells)
        count = np.maximum(there.sum(axis=0), 1)
        mean = np.where(there, cells, 0.0).sum(axis=0) / count
        sd = np.sqrt(np.where(there, (cells - mean) ** 2, 0.0).sum(axis=0) / count)
        if kind == "together":
            return cls(mean, np.full(len(sd), np.sqrt(np.mean(sd**2))), 25.0)
        return cls(mean, sd, 5.0)

    def __call__(self, cells: Floats) -> Tensor:
        """Return float32 (n, F): z-scores, 0 where a number is absent or constant."""
        z = np.where(self.sd > 1e-8, (cells - self.mean) / np.maximum(self.sd, 1e-8), 0.0)
        z = np.clip(np.where(np.isfinite(z), z, 0.0), -self.limit, self.limit)
        return torch.from_numpy(z.astype(np.float32))


@dataclass(frozen=True)
class Level:
    """What a response is on average, and the unit in which the network speaks.

    Attributes
    ----------
    mean, unit
        Of all; the deviation of what is left.
    line, drug
        float64 (L,), (D,): added for each, 0 for what was not learned from.
    """

    mean: float
    unit: float
    line: Floats
    drug: Floats

    @classmethod
    def fit(cls, grid: Floats, kind: str) -> Level:
        """Learn from a table (L, D) with holes."""
        there = np.isfinite(grid)
        mean, line, drug = effects(grid)
        if kind == "none":
            mean, line, drug = float(grid[there].mean()), 0 * line, 0 * drug
        elif kind == "drug":
            count = np.maximum(there.sum(axis=0), 1)
            drug = np.where(there.any(axis=0), np.where(there, grid - mean, 0.0).sum(axis=0) / count, 0.0)
            line = 0 * line
        elif kind == "line":
            line = line * (there.sum(axis=1) / (there.sum(axis=1) + 3.0))
            drug = 0 * drug
        else:
            line = line * (there.sum(axis=1) / (there.sum(axis=1) + 3.0))
        rest = (grid - mean - line[:, None] - drug[None, :])[there]
        return cls(mean, float(rest.std()) or 1.0, line, drug)

    def table(self) -> Floats:
        """Return the level of each pair (L, D)."""
        return self.mean + self.line[:, None] + self.drug[None, :]


Inputs = Callable[[NDArray[np.int64]], Tensor]
Watch = Callable[[int, float], None]


class DrugNetwork:
    """The network on one table of lines x drugs.

    Parameters
    ----------
    config
        How it is built and trained.
    seed
        Of initial weights, order and dropout.
    build
        Makes the module from a `FusionConfig`; by default `FusionNetwork`.
    """

    def __init__(
        self, config: NetworkConfig, seed: int = 0, build: Callable[[FusionConfig], nn.Module] = FusionNetwork
    ) -> None:
        self.config, self.seed, self.build = config, seed, build
        self.module: nn.Module
        self.scaling: Scaling
        self.level: Level
        self._drug_number: NDArray[np.int64]
        self._line_number: NDArray[np.int64]

    def fit(self, grid: Floats, cells: Floats, graphs: MoleculeGraphs, watch: Watch | None = None) -> DrugNetwork:
        """Learn from a table.

        Parameters
        ----------
        grid
            float (L, D), NaN where nothing is to be learned: whole lines and drugs may be empty.
        cells
            float (L, F): what stands for each line; rows of lines that are not learned from are not looked at.
        graphs
            D molecules.
        watch
            Called after each epoch with its number and mean loss.
        """
        there = np.isfinite(grid)
        if cells.shape[0] != grid.shape[0] or graphs.count != grid.shape[1] or not there.any():
            raise InputError(f"A table of {grid.shape}, {len(cells)} lines and {graphs.count} molecules.",
                             "a line and a molecule for each row and column, some values")  # fmt: skip
        lines, drugs = np.flatnonzero(there.any(axis=1)), np.flatnonzero(there.any(axis=0))
        self.scaling = Scaling.fit(cells[lines], self.config.scaling)
        self.level = Level.fit(grid, self.config.level)
        self._line_number, self._drug_number = _numbers(lines, len(grid)), _numbers(drugs, grid.shape[1])
        torch.manual_seed(self.seed)
        c = self.config
        sizes = {field.name: getattr(c, field.name) for field in fields(FusionSizes)}
        own_drugs, own_lines = len(drugs) if c.own_drugs else 0, len(lines) if c.own_lines else 0
        self.module = self.build(FusionConfig(cells.shape[1], own_drugs, own_lines, graphs.atoms.shape[1], **sizes))
        target = (grid - self.level.table()) / self.level.unit
        self._train(target[np.ix_(lines, drugs)], self.scaling(cells[lines]), tensors(_taken(graphs, drugs)), watch)
        return self

    def _train(self, target: Floats, cells: Tensor, graphs: GraphTensors, watch: Watch | None) -> None:
        """Run the epochs: some lines against all drugs a step, one cycle of the learning rate."""
        c, n = self.config, len(target)
        mask = torch.from_numpy(np.isfinite(target))
        values = torch.from_numpy(np.nan_to_num(target).astype(np.float32))
        weight = _weights(values, mask, c.equal_drugs)
        steps = max(1, round(n / c.lines))
        moving = OptimiseConfig(c.rate, warmup=0.2, weight_decay=c.decay)
        optimiser = make_optimiser(self.module.parameters(), moving)
        draw = torch.Generator().manual_seed(self.seed)
        self.module.train()
        for epoch in range(c.epochs):
            total = 0.0
            for step, rows in enumerate(torch.tensor_split(torch.randperm(n, generator=draw), steps)):
                drugs = torch.arange(graphs.count)
                if c.drop_own:
                    drugs = torch.where(torch.rand(len(drugs), generator=draw) < c.drop_own, -1, drugs)
                said = self.module(cells[rows], graphs, rows, drugs)
                loss = _loss(said, values[rows], mask[rows], weight, c.within)
                optimiser.zero_grad(set_to_none=True)
                loss.backward()
                nn.utils.clip_grad_norm_(self.module.parameters(), moving.clip)
                for group in optimiser.param_groups:
                    group["lr"] = rate_at(epoch * steps + step, steps * c.epochs, moving)
                optimiser.step()
                total += float(loss.detach())
            if watch is not None:
                watch(epoch, total / steps)
        self.module.eval()

    @torch.inference_mode()
    def predict(self, cells: Floats, graphs: MoleculeGraphs, *, learned: bool = True) -> Floats:
        """Return float64 (L, D), ln(IC50 / µM).

        Parameters
        ----------
        cells, graphs
            As in `fit`, in the same order; or others.
        learned
            Whether rows and columns are those of `fit`. Otherwise all are new: no level and no numbers of their own.
        """
        self.module.eval()
        if learned and (len(cells) != len(self._line_number) or graphs.count != len(self._drug_number)):
            sizes = f"the {len(self._line_number)} and {len(self._drug_number)} of `fit`"
            raise InputError(f"{len(cells)} lines and {graphs.count} molecules.", sizes, "learned=False")
        lines = self._line_number if learned else np.full(len(cells), -1)
        drugs = self._drug_number if learned else np.full(graphs.count, -1)
        return self._say(cells, graphs, lines, drugs, self.level.table() if learned else self.level.mean)

    def predict_lines(self, cells: Floats, graphs: MoleculeGraphs) -> Floats:
        """Return float64 (m, D) of new lines against the drugs of `fit`, in its order."""
        with torch.inference_mode():
            new = np.full(len(cells), -1)
            return self._say(cells, graphs, new, self._drug_number, self.level.mean + self.level.drug[None, :])

    def _say(self, cells: Floats, graphs: MoleculeGraphs, lines: Any, drugs: Any, level: Any) -> Floats:
        said = self.module(self.scaling(cells), tensors(graphs), torch.from_numpy(lines), torch.from_numpy(drugs))
        return np.asarray(level + self.level.unit * said.double().numpy(), dtype=np.float64)


def _loss(said: Tensor, true: Tensor, mask: Tensor, weight: Tensor, within: float) -> Tensor:
    """Return the weighted squared error of the measured pairs, and what is missing to a correlation of 1 in a drug."""
    w = mask * weight
    loss = (w * (said - true) ** 2).sum() / w.sum()
    if within:
        count = mask.sum(dim=0).clamp(min=1)
        a = torch.where(mask, said - (said * mask).sum(dim=0) / count, 0.0)
        b = torch.where(mask, true - (true * mask).sum(dim=0) / count, 0.0)
        length = (a.square().sum(dim=0) * b.square().sum(dim=0) + 1e-6).sqrt()
        loss = loss + within * (1 - ((a * b).sum(dim=0) / length)[mask.sum(dim=0) >= 5].mean())
    return loss


def _weights(values: Tensor, mask: Tensor, equal: float) -> Tensor:
    """Return (D,): 1 for each drug, or the inverse of its variance, or between; the mean is 1."""
    count = mask.sum(dim=0).clamp(min=1)
    mean = values.sum(dim=0) / count
    variance = (torch.where(mask, values - mean, 0.0) ** 2).sum(dim=0) / count
    weight = (1 / (variance + 0.1 * variance.mean() + 1e-6)) ** equal
    return weight / weight.mean()


def _numbers(kept: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    """Return each place's number among the kept ones, -1 for the others."""
    out = np.full(size, -1, np.int64)
    out[kept] = np.arange(len(kept))
    return out


def _taken(graphs: MoleculeGraphs, rows: NDArray[np.int64]) -> MoleculeGraphs:
    """Return some of the molecules, in ascending order of `rows`."""
    number = _numbers(rows, graphs.count)
    kept = number[graphs.molecule] >= 0
    place = np.cumsum(kept) - 1
    edges = graphs.edges[:, kept[graphs.edges[0]]]
    return MoleculeGraphs(graphs.atoms[kept], place[edges], number[graphs.molecule[kept]], len(rows))
