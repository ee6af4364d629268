"""A network for every line against every drug: each line and each molecule is encoded once, however many pairs it has.

The molecule branch is that of TGDRP (`nn/molecule.py`: three graph isomorphism layers, jumping knowledge). The cell
branch takes whatever states stand for a line: components of its expression, or what a language model of cells makes of
it. Both meet in one joint layer, written as the sum of a cell's part and a drug's part, so that its matrix products are
of lines plus drugs and not of their pairs; a product of the two stands beside it (a factorisation whose factors are
read from features).

A drug, or a line, that was learned from may have numbers of its own beside what its features say (`own_drugs`,
`own_lines`): a head for each drug, in the words of multi-task learning. They are 0 for what is new.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from cellingua.core.errors import ConfigError
from cellingua.nn.molecule import MoleculeEncoder


@dataclass(frozen=True, kw_only=True)
class FusionSizes:
    """Widths and dropouts that are a choice.

    Parameters
    ----------
    molecule
        Width of a graph layer; there are three.
    hidden, joint, meet, last
        Widths of the cell branch, of an encoded line or drug, of the layer in which they meet, and of the one after.
    dropout
        In the branches.
    cell_dropout
        Of the numbers that stand for a line.
    """

    molecule: int = 64
    hidden: int = 256
    joint: int = 96
    meet: int = 48
    last: int = 32
    dropout: float = 0.2
    cell_dropout: float = 0.1


@dataclass(frozen=True)
class FusionConfig(FusionSizes):
    """Sizes of the network: those of the data, beside those that are a choice.

    Parameters
    ----------
    cell
        Numbers that stand for a line.
    drugs, lines
        Drugs and lines with numbers of their own; 0 for none.
    atoms
        Of an atom's features.
    """

    cell: int
    drugs: int = 0
    lines: int = 0
    atoms: int = 77

    def __post_init__(self) -> None:
        if min(self.cell, self.atoms, self.molecule, self.hidden, self.joint, self.meet, self.last) < 1:
            raise ConfigError("A width of the network is below 1.", "whole numbers from 1")
        if not (0 <= self.dropout < 1 and 0 <= self.cell_dropout < 1):
            raise ConfigError("A dropout is not a share.", "0 up to, not including, 1")


@dataclass(frozen=True)
class GraphTensors:
    """Molecules as `molecules.graph.graphs` makes them, as tensors: see `nn.molecule.MoleculeEncoder.forward`."""

    atoms: Tensor
    edges: Tensor
    molecule: Tensor
    count: int


class FusionNetwork(nn.Module):
    """Lines x molecules to a table of responses.

    Parameters
    ----------
    config
        Sizes.
    """

    def __init__(self, config: FusionConfig) -> None:
        super().__init__()
        self.config = config
        self.molecules = MoleculeEncoder(config.atoms, config.molecule)
        self.drug_emb = nn.Sequential(
            nn.Linear(self.molecules.width, config.joint), nn.ReLU(), nn.Dropout(config.dropout)
        )
        self.cell_emb = nn.Sequential(
            nn.Dropout(config.cell_dropout),
            nn.Linear(config.cell, config.hidden), nn.ReLU(), nn.Dropout(config.dropout),
            nn.Linear(config.hidden, config.joint),
        )  # fmt: skip
        self.straight = nn.Sequential(nn.Dropout(config.cell_dropout), nn.Linear(config.cell, config.joint))
        self.own_drugs = nn.Embedding(config.drugs, config.joint) if config.drugs else None
        self.own_lines = nn.Embedding(config.lines, config.joint) if config.lines else None
        for own in (self.own_drugs, self.own_lines):
            if own is not None:
                nn.init.normal_(own.weight, std=0.05)
        self.from_cell = nn.Linear(config.joint, config.meet)
        self.from_drug = nn.Linear(config.joint, config.meet, bias=False)
        self.after = nn.Sequential(nn.ReLU(), nn.Linear(config.meet, config.last), nn.ReLU(), nn.Linear(config.last, 1))
        self.alone = nn.Linear(config.joint, 1, bias=False)

    def encode_drugs(self, graphs: GraphTensors, known: Tensor | None = None) -> Tensor:
        """Return (D, joint).

        Parameters
        ----------
        graphs
            The molecules.
        known
            int64 (D,): each molecule's number among the drugs with numbers of their own, -1 for a new one.
        """
        made = self.drug_emb(self.molecules(graphs.atoms, graphs.edges, graphs.molecule, graphs.count))
        return _with_own(made, self.own_drugs, known)

    def encode_cells(self, cells: Tensor, known: Tensor | None = None) -> Tensor:
        """Return (C, joint) from what stands for lines (C, cell); `known` as in `encode_drugs`."""
        return _with_own(self.cell_emb(cells) + self.straight(cells), self.own_lines, known)

    def meet(self, cells: Tensor, drugs: Tensor) -> Tensor:
        """Return (C, D) from encoded lines and drugs."""
        pairs = self.from_cell(cells)[:, None, :] + self.from_drug(drugs)[None, :, :]
        product = cells @ drugs.T / self.config.joint**0.5
        return self.after(pairs).squeeze(-1) + product + self.alone(drugs).squeeze(-1)[None, :]

    def forward(
        self, cells: Tensor, graphs: GraphTensors, lines: Tensor | None = None, drugs: Tensor | None = None
    ) -> Tensor:
        """Return (C, D): every line against every molecule."""
        return self.meet(self.encode_cells(cells, lines), self.encode_drugs(graphs, drugs))


def _with_own(made: Tensor, own: nn.Embedding | None, known: Tensor | None) -> Tensor:
    """Return states with the numbers of their own added where there are some."""
    if own is None or known is None:
        return made
    there = (known >= 0).to(made.dtype)[:, None]
    return made + own(known.clamp(min=0)) * there
