"""The network behind drug responses: genes to factors, factors to the response to every drug.

The genes of a sample are taken as a few hundred hidden factors and noise of each gene's own (factor analysis). What is
known of the factors is their posterior given the genes that are there: a gene that was not measured is absent, which
says nothing, and is neither zero nor average. The factors then answer in three ways that are added: as they are, as a
direction (their length taken out), and through cosines of random projections, whose products approach a radial kernel
(random Fourier features, Rahimi and Recht 2007, equation 1). No training sample is kept: only axes, weights and means.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class ResponseNetwork(nn.Module):
    """Standardised genes to ln(IC50 / µM) of every drug.

    Parameters
    ----------
    genes, factors, waves, drugs
        Sizes.
    """

    def __init__(self, genes: int, factors: int, waves: int, drugs: int) -> None:
        super().__init__()
        shapes = {
            "loadings": (genes, factors),  # of a gene on each factor
            "noise": (genes,),  # variance of a gene that no factor explains
            "length": (factors,),  # of each factor where answers are made of them: the large ones count more
            "frequencies": (factors, waves),
            "phases": (waves,),
            "linear": (factors, drugs),
            "direction": (factors, drugs),
            "waved": (waves, drugs),
            "offset": (drugs,),
        }
        for name, shape in shapes.items():
            self.register_buffer(name, torch.zeros(shape))
        self.loadings: Tensor
        self.noise: Tensor
        self.length: Tensor
        self.frequencies: Tensor
        self.phases: Tensor
        self.linear: Tensor
        self.direction: Tensor
        self.waved: Tensor
        self.offset: Tensor

    def precision(self, there: Tensor) -> Tensor:
        """Return the posterior precision of the factors, (factors, factors), where genes `there` (genes,) are known."""
        seen = self.loadings[there]
        return seen.T @ (seen / self.noise[there][:, None]) + torch.eye(
            self.loadings.shape[1], dtype=seen.dtype, device=seen.device
        )

    def factors(self, z: Tensor, there: Tensor) -> Tensor:
        """Return the posterior mean of the factors, (n, factors).

        Parameters
        ----------
        z
            float (n, genes): standardised expression; what stands where `there` is False is not looked at.
        there
            bool (n, genes).
        """
        # Samples of one table lack the same genes: one system of equations for all of them.
        patterns, which = torch.unique(there, dim=0, return_inverse=True)
        out = z.new_zeros((len(z), self.loadings.shape[1]))
        for number, pattern in enumerate(patterns):
            rows = torch.nonzero(which == number).squeeze(1)
            pulled = (z[rows][:, pattern] / self.noise[pattern]) @ self.loadings[pattern]
            out = out.index_copy(0, rows, torch.linalg.solve(self.precision(pattern), pulled.T).T)
        return out

    def waves(self, scores: Tensor) -> Tensor:
        """Return (n, waves): random Fourier features of scaled factors."""
        size = (2.0 / max(self.phases.shape[0], 1)) ** 0.5
        return size * torch.cos(scores @ self.frequencies + self.phases)

    def respond(self, factors: Tensor) -> Tensor:
        """Return (n, drugs) from factors (n, factors)."""
        scores = factors * self.length
        unit = scores / torch.linalg.vector_norm(scores, dim=1, keepdim=True).clamp(min=1e-9)
        return self.offset + scores @ self.linear + unit @ self.direction + self.waves(scores) @ self.waved

    def forward(self, z: Tensor, there: Tensor) -> Tensor:
        """Return (n, drugs), ln(IC50 / µM): see `factors`."""
        return self.respond(self.factors(z, there))
