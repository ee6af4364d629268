"""Masked gene modelling (LangCell's MGM): hide some genes of a ranked cell, and say which they were.

BERT's recipe over rank-value tokens (specification of LangCell, section 4.3): 15 % of a cell's genes are chosen; of
those 80 % become the mask token, 10 % another gene drawn at random, 10 % stay, and all are predicted. As in
`cellingua.objectives.masked`, positions are chosen before any forward pass, and the loss is a sum and a count.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from cellingua.core.errors import ConfigError
from cellingua.objectives.masked import Generators, Hidden, choose_positions, uniform


@dataclass(frozen=True)
class GeneMaskConfig:
    """Which genes are hidden, and how.

    Parameters
    ----------
    ratio
        Share of a cell's genes that are chosen, rounded up.
    masked, random
        Chances that a chosen gene becomes the mask token, and that it becomes a random gene; otherwise it stays.
    mask_token
        Id of ``<mask>``.
    first_gene
        Lowest id of a gene: ids below it are padding and mask.
    """

    ratio: float = 0.15
    masked: float = 0.8
    random: float = 0.1
    mask_token: int = 1
    first_gene: int = 2

    def __post_init__(self) -> None:
        if not 0 < self.ratio <= 1:
            raise ConfigError(f"The mask ratio is {self.ratio:g}.", "above 0, at most 1", "0.15")
        if min(self.masked, self.random) < 0 or self.masked + self.random > 1:
            raise ConfigError(
                f"Of the chosen genes {self.masked:g} are masked and {self.random:g} replaced.",
                "chances that add up to 1 at most",
                "0.8 and 0.1",
            )


def hide_genes(tokens: Tensor, maskable: Tensor, n_genes: int, config: GeneMaskConfig, generator: Generators) -> Hidden:
    """Return `tokens` with some genes hidden; ``levels`` of the result are the genes before.

    Parameters
    ----------
    tokens
        int64 (B, L), on the CPU: genes ``first_gene .. first_gene + n_genes - 1``, and what else a cell has.
    maskable
        bool (B, L): genes, never ``<cls>`` and never padding.
    n_genes
        Number of genes, of which a random one is drawn.
    config
        See `GeneMaskConfig`.
    generator
        A generator on the CPU that belongs to this step, or one for each cell, by which a cell's mask does not
        depend on its company.
    """
    chosen = choose_positions(maskable, config.ratio, generator)
    how, which = uniform(chosen, generator), uniform(chosen, generator)
    genes = tokens[chosen]
    other = config.first_gene + (which * n_genes).long().clamp(max=n_genes - 1)
    genes = torch.where(how < config.masked + config.random, other, genes)
    genes = torch.where(how < config.masked, config.mask_token, genes)
    shown = tokens.clone()
    shown[chosen] = genes
    return Hidden(shown, chosen, tokens)
