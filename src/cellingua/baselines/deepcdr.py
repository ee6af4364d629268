"""A network in the style of DeepCDR (Liu et al. 2020): graph convolutions of the molecule beside dense layers of omics.

The molecule branch has DeepCDR's three graph convolutions (Kipf and Welling 2017) of 256, 256 and 100 channels, each
with ReLU, batch normalisation and dropout, and the largest value over the atoms; the cell branch its dense layers of
256 (tanh, batch normalisation, dropout) and 100. What DeepCDR does with the joined 200 numbers, one-dimensional
convolutions over features whose order means nothing, is two dense layers here: that is what "style" says. Its other
omics stand beside the expression in the one table of numbers of a line.
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn

from cellingua.nn.fusion import FusionConfig, GraphTensors


class GraphConvolution(nn.Module):
    """One layer: the mean of an atom and its neighbours, weighted by the roots of their degrees, times a matrix."""

    def __init__(self, features: int, width: int) -> None:
        super().__init__()
        self.lin = nn.Linear(features, width, bias=False)
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, atoms: Tensor, edges: Tensor) -> Tensor:
        """Return (A, width) from atoms (A, features) and edges int64 (2, E), each bond in both directions."""
        degree = torch.ones(len(atoms), dtype=atoms.dtype).index_add_(
            0, edges[1], torch.ones(edges.shape[1], dtype=atoms.dtype)
        )
        scale = degree.rsqrt()[:, None]
        scaled = self.lin(atoms) * scale
        return scale * scaled.index_add(0, edges[1], scaled[edges[0]]) + self.bias


class DeepCDRStyle(nn.Module):
    """Lines x molecules to a table of responses.

    Parameters
    ----------
    config
        `cell` and `atoms` are read; the other sizes are DeepCDR's.
    """

    def __init__(self, config: FusionConfig) -> None:
        super().__init__()
        sizes = (config.atoms, 256, 256, 100)
        self.convs = nn.ModuleList(GraphConvolution(a, b) for a, b in itertools.pairwise(sizes))
        self.norms = nn.ModuleList(nn.BatchNorm1d(size) for size in sizes[1:])
        self.cell = nn.Sequential(
            nn.Linear(config.cell, 256), nn.Tanh(), nn.BatchNorm1d(256), nn.Dropout(0.1), nn.Linear(256, 100), nn.ReLU()
        )
        self.left, self.right = nn.Linear(100, 128), nn.Linear(100, 128, bias=False)
        self.after = nn.Sequential(nn.Tanh(), nn.Linear(128, 32), nn.ReLU(), nn.Linear(32, 1))
        self.dropout = nn.Dropout(0.1)

    def forward(
        self, cells: Tensor, graphs: GraphTensors, lines: Tensor | None = None, drugs: Tensor | None = None
    ) -> Tensor:
        """Return (C, D); `lines` and `drugs` are passed over: nothing has numbers of its own here."""
        atoms = graphs.atoms
        for conv, norm in zip(self.convs, self.norms, strict=True):
            atoms = self.dropout(norm(torch.relu(conv(atoms, graphs.edges))))
        pooled = atoms.new_full((graphs.count, atoms.shape[1]), float("-inf"))
        pooled = pooled.scatter_reduce(0, graphs.molecule[:, None].expand_as(atoms), atoms, "amax")
        pairs: Tensor = self.left(self.cell(cells))[:, None, :] + self.right(pooled)[None, :, :]
        out: Tensor = self.after(pairs).squeeze(-1)
        return out
