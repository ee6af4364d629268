"""The network for a cell and a molecule: a graph encoder of atoms, a branch for the cell's state, and a head on both.

It is the drug network of CellLM's release (specification §7.3), which took its molecule branch from TGDRP (TGSA): three
graph isomorphism layers (Xu et al. 2019), each with ReLU and batch normalisation, their outputs side by side (jumping
knowledge), the largest value of each over the atoms. Parameters have the released names, so that weights fit. The
layers are written out here; tests hold them equal to torch-geometric's.

Batch normalisation makes a molecule depend on its minibatch while training; in evaluation it depends on itself alone.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class GraphIsomorphism(nn.Module):
    """One layer: an MLP of ``(1 + eps) * own + sum of neighbours``.

    Parameters
    ----------
    inner
        The MLP.
    """

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.nn = inner
        self.register_buffer("eps", torch.zeros(1))
        self.eps: Tensor

    def forward(self, atoms: Tensor, edges: Tensor) -> Tensor:
        """Return (A, width) from atoms (A, features) and edges int64 (2, E), each bond in both directions."""
        gathered = torch.zeros_like(atoms).index_add_(0, edges[1], atoms[edges[0]])
        out: Tensor = self.nn((1 + self.eps) * atoms + gathered)
        return out


class MoleculeEncoder(nn.Module):
    """Molecules as graphs to vectors.

    Parameters
    ----------
    features
        Of an atom (`molecules.graph.ATOM_FEATURES`).
    width
        Of each layer.
    layers
        How many; the output has ``layers * width`` numbers.
    """

    def __init__(self, features: int = 77, width: int = 128, layers: int = 3) -> None:
        super().__init__()
        self.width = layers * width
        self.convs_drug = nn.ModuleList(
            GraphIsomorphism(
                nn.Sequential(nn.Linear(width if layer else features, width), nn.ReLU(), nn.Linear(width, width))
            )
            for layer in range(layers)
        )
        self.bns_drug = nn.ModuleList(nn.BatchNorm1d(width) for _ in range(layers))

    def forward(self, atoms: Tensor, edges: Tensor, molecule: Tensor, count: int) -> Tensor:
        """Return (count, layers * width).

        Parameters
        ----------
        atoms
            float (A, features).
        edges
            int64 (2, E).
        molecule
            int64 (A,): which molecule an atom belongs to, 0 to `count` - 1, each at least once.
        count
            Molecules.
        """
        states = []
        for layer, norm in zip(self.convs_drug, self.bns_drug, strict=True):
            atoms = norm(torch.relu(layer(atoms, edges)))
            states.append(atoms)
        joined = torch.cat(states, dim=1)
        out = joined.new_full((count, joined.shape[1]), float("-inf"))
        return out.scatter_reduce(0, molecule[:, None].expand_as(joined), joined, "amax")


class ResponseHead(nn.Module):
    """A cell's state and a molecule's to one number, ln(IC50 / µM).

    Parameters
    ----------
    cell, molecule
        Widths of what comes in.
    hidden, width
        Of the cell branch's first layer, and of both branches' last; the joint layers have twice `width`.
    dropout
        After each layer but the last.
    """

    def __init__(
        self, cell: int, molecule: int = 384, hidden: int = 1024, width: int = 256, dropout: float = 0.2
    ) -> None:
        super().__init__()
        self.drug_emb = nn.Sequential(nn.Linear(molecule, width), nn.ReLU(), nn.Dropout(dropout))
        self.cell_emb = nn.Sequential(
            nn.Linear(cell, hidden), nn.ReLU(), nn.Dropout(dropout),
            nn.Linear(hidden, width), nn.ReLU(), nn.Dropout(dropout),
        )  # fmt: skip
        self.regression = nn.Sequential(
            nn.Linear(2 * width, 2 * width), nn.ELU(), nn.Dropout(dropout),
            nn.Linear(2 * width, 2 * width), nn.ELU(), nn.Dropout(dropout),
            nn.Linear(2 * width, 1),
        )  # fmt: skip

    def forward(self, cells: Tensor, molecules: Tensor, cell: Tensor, molecule: Tensor) -> Tensor:
        """Return (n,) for pairs.

        Both branches run once a cell and once a molecule, however many pairs they are in.

        Parameters
        ----------
        cells, molecules
            float (C, cell) and (M, molecule).
        cell, molecule
            int64 (n,): which of them make each pair.
        """
        left, right = self.cell_emb(cells)[cell], self.drug_emb(molecules)[molecule]
        out: Tensor = self.regression(torch.cat([right, left], dim=1))
        return out.squeeze(1)
