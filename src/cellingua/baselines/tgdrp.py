"""TGDRP's network as CellLM's release uses it (specification §7.3), over states of cells that were computed once.

One score for each token of a cell (a 1 x width convolution, no ReLU), put at its gene's place: genes that the encoder
did not see are 0. That vector goes through 1,024 and 256 units; the molecule through three graph isomorphism layers of
128; both through two layers of 512.

Faults of the release that stay here: a bulk profile expresses more genes than the encoder reads, and the vector is 0
for the rest; the response is not centred, so that most of the loss is the drug's level; what a batch holds changes a
molecule (batch normalisation) while training; the last epoch's weights are tested, whatever validation said.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from cellingua.nn.batch import BinnedBatch
from cellingua.nn.fusion import FusionConfig, GraphTensors
from cellingua.nn.gene_head import GeneScores
from cellingua.nn.molecule import MoleculeEncoder, ResponseHead


class TGDRP(nn.Module):
    """Lines x molecules to a table of responses.

    Parameters
    ----------
    genes, tokens, width
        Genes of the encoder; tokens of a line, at most; width of a state.
    atoms
        Features of an atom.
    hidden, joint, molecule
        As released 1,024, 256 and 128.
    """

    def __init__(
        self,
        genes: int,
        tokens: int,
        width: int,
        *,
        atoms: int = 77,
        hidden: int = 1024,
        joint: int = 256,
        molecule: int = 128,
    ) -> None:
        super().__init__()
        self.tokens, self.width = tokens, width
        self.conv = GeneScores(width, genes + 1, rectify=False)
        self.molecules = MoleculeEncoder(atoms, molecule)
        self.head = ResponseHead(genes + 1, self.molecules.width, hidden, joint)

    def gene_vector(self, cells: Tensor) -> Tensor:
        """Return (C, genes + 1) from rows of `tokens` gene numbers (-1: no token), then their states.

        CLS has the number `genes`.
        """
        number = cells[:, : self.tokens].long()
        states = cells[:, self.tokens :].reshape(len(cells), self.tokens, self.width)
        return self.conv(states, BinnedBatch(number, number, number >= 0))

    def forward(
        self, cells: Tensor, graphs: GraphTensors, lines: Tensor | None = None, drugs: Tensor | None = None
    ) -> Tensor:
        """Return (C, D); `lines` and `drugs` are passed over."""
        molecules = self.molecules(graphs.atoms, graphs.edges, graphs.molecule, graphs.count)
        line, drug = torch.meshgrid(torch.arange(len(cells)), torch.arange(graphs.count), indexing="ij")
        said: Tensor = self.head(self.gene_vector(cells), molecules, line.reshape(-1), drug.reshape(-1))
        return said.reshape(len(cells), graphs.count)


def builder(genes: int, tokens: int, width: int) -> Callable[[FusionConfig], TGDRP]:
    """Return what makes the network as released from a `FusionConfig`, of which only `atoms` is read."""
    return lambda config: TGDRP(genes, tokens, width, atoms=config.atoms)
