"""The annotation head of CellLM and scBERT: one score a token, put at its gene's place, then a small network."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from cellingua.nn.batch import BinnedBatch


class GeneScores(nn.Module):
    """A linear score of each token's state (released as a 1 x width convolution), as one vector a cell.

    Parameters
    ----------
    width
        Width of the states.
    size
        Length of the vector: genes and CLS (scBERT: and the last slot), or the slots.
    by_slot
        The k-th token at place k, as in CellLM's first release; padding slots then hold the bias. By default a token
        stands at the place of its gene, and genes that the cell lacks are 0.
    rectify
        Cut negative scores to 0 before they are placed (the drug-response pooling does not).
    """

    def __init__(self, width: int, size: int, *, by_slot: bool = False, rectify: bool = True) -> None:
        super().__init__()
        self.size, self.by_slot, self.rectify = size, by_slot, rectify
        self.score = nn.Linear(width, 1)

    def forward(self, hidden: Tensor, batch: BinnedBatch) -> Tensor:
        """Return (B, size) from the states (B, L, width) of a batch."""
        scores = self.score(hidden).squeeze(-1)
        if self.rectify:
            scores = functional.relu(scores)
        if self.by_slot:
            bias = functional.relu(self.score.bias) if self.rectify else self.score.bias
            spare = self.size - scores.shape[1]
            if spare < 0:
                raise ValueError(f"{scores.shape[1]} tokens for a head of {self.size} slots")
            return torch.cat([scores, bias.expand(len(scores), spare)], dim=1)
        # One place more, for padding, is cut off again.
        places = torch.where(batch.mask, batch.genes, self.size)
        return scores.new_zeros(len(scores), self.size + 1).scatter(1, places, scores)[:, : self.size]


class AnnotationHead(nn.Module):
    """Scores of genes -> two hidden layers -> logits of the classes."""

    def __init__(self, width: int, size: int, hidden: tuple[int, int], classes: int, *, by_slot: bool = False) -> None:
        super().__init__()
        self.scores = GeneScores(width, size, by_slot=by_slot)
        self.first = nn.Linear(size, hidden[0])
        self.second = nn.Linear(hidden[0], hidden[1])
        self.last = nn.Linear(hidden[1], classes)

    def forward(self, hidden: Tensor, batch: BinnedBatch) -> Tensor:
        """Return the logits (B, classes) from the states (B, L, width) of a batch."""
        vector = functional.relu(self.scores(hidden, batch))
        return self.last(functional.relu(self.second(functional.relu(self.first(vector)))))
