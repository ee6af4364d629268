"""Everything that a run of the CellLM recipe can vary, and what is refused before it starts."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from cellingua.cells.binned import BinConfig
from cellingua.cells.sources import NORMAL
from cellingua.core.errors import ConfigError
from cellingua.models.cellm import CellLMConfig
from cellingua.nn.performer import PerformerConfig
from cellingua.objectives.masked import MaskConfig
from cellingua.recipes.presets import read_preset
from cellingua.training.loop import TrainConfig

STARTS = ("random", "cells", "table")
TABLE_DEVIATION = 0.02


@dataclass(frozen=True)
class ObjectiveWeights:
    """What each objective counts; 0 leaves it out."""

    contrast: float = 1.0
    masked: float = 1.0
    discrimination: float = 1.0

    def __post_init__(self) -> None:
        held = (self.contrast, self.masked, self.discrimination)
        if not all(0 <= weight < math.inf for weight in held) or not any(held):
            raise ConfigError(f"The objectives weigh {held}.", "0 or more each, and one above 0")


@dataclass(frozen=True)
class CellLMRecipeConfig:
    """Everything that a run can vary; presets are JSON files in ``data/recipes``.

    Parameters
    ----------
    name, description
        Of the model.
    encoder
        Its size; `genes` of the genes that vary most in the corpus are taken. Dropout on the embedding falls on CLS,
        too, whose row is all ones: beside it a small encoder's signal is lost, and the contrast then finds only the
        few strongest directions (depth, study). The presets leave it out.
    bins, mask
        How counts become tokens, and what is hidden.
    weights
        Of the objectives.
    temperature, symmetric, within_views
        Of the contrast, see `cellingua.objectives.cell_contrast`.
    down_sample
        A view keeps a random share of each cell's counts, between ``1 - down_sample`` and 1; 0 makes views by dropout
        and mask alone, as in the paper.
    batch, block, chunk
        Cells of a minibatch over all processes, neighbours of a shard read together, and cells encoded at a time.
    keep
        Bytes of graph that may be kept between the engine's passes; None keeps everything, and encodes once.
    redraw_every
        Steps between redraws of random features, always between two steps; 0 never draws them again.
    gene_start
        ``random``; ``cells``, from a factorisation of the training cells; ``table``, vectors that the caller gives,
        such as those of `cellingua.recipes.gene_graph`.
    start_deviation, token_deviation
        Standard deviation of the entries of the gene table and of the token table at the start. What counts is their
        ratio, and that both are large beside what an untrained layer adds.
    train_genes
        Whether the gene table is trained (the released checkpoint's was frozen).
    label, normal
        Column of the corpus that tells normal from cancer, and its values that mean normal.
    unlabelled, held_out
        Files whose label is not used; files that are not trained on. Probe cells come from the latter, if any.
    probe_cells
        Cells that the geometry is measured on.
    train
        See `TrainConfig`; `validate_every` is how often the geometry is measured.
    """

    name: str
    description: str
    encoder: PerformerConfig
    bins: BinConfig = field(default_factory=BinConfig)
    mask: MaskConfig = field(default_factory=MaskConfig)
    weights: ObjectiveWeights = field(default_factory=ObjectiveWeights)
    temperature: float = 0.05
    symmetric: bool = True
    within_views: bool = False
    down_sample: float = 0.0
    batch: int = 256
    block: int = 16
    chunk: int = 32
    keep: float | None = 0.0
    redraw_every: int = 0
    gene_start: str = "random"
    start_deviation: float = TABLE_DEVIATION
    token_deviation: float = TABLE_DEVIATION
    train_genes: bool = True
    label: str = "disease"
    normal: tuple[str, ...] = NORMAL
    unlabelled: tuple[str, ...] = ()
    held_out: tuple[str, ...] = ()
    probe_cells: int = 512
    train: TrainConfig = field(default_factory=TrainConfig)

    def __post_init__(self) -> None:
        encoder = self.encoder
        places = ("embedding", "attention", "feedforward")
        if not 0 <= self.down_sample < 1:
            raise ConfigError(f"down_sample is {self.down_sample:g}.", "at least 0 and below 1")
        dropped = any(encoder.dropout_of(place) for place in places)
        if self.weights.contrast and not dropped and not self.down_sample:
            raise ConfigError(
                "The contrast of two dropout views is asked for with dropout 0: both views would be the same.",
                "dropout above 0, counts that are down-sampled, or no contrast",
                '"dropout": 0.1 in encoder, or "contrast": 0 in weights',
            )
        if self.within_views and not self.symmetric:
            raise ConfigError("Negatives within views go with both directions.", "symmetric: true")
        if self.gene_start not in STARTS:
            raise ConfigError(f"gene_start is {self.gene_start!r}.", " or ".join(map(repr, STARTS)))
        if self.redraw_every < 0 or (self.redraw_every and encoder.attention != "favor"):
            raise ConfigError(
                f"Random features are to be drawn again every {self.redraw_every} steps, with {encoder.attention!r} "
                "attention.",
                "0, or a number of steps with 'favor'",
            )
        if encoder.attention == "compat" or encoder.every_gene:
            raise ConfigError(
                "A cell's state would depend on the cells beside it, and chunks would be another batch.",
                "'favor' or 'exact' attention, with CLS",
            )
        if not (self.start_deviation > 0 and self.token_deviation > 0):
            raise ConfigError(f"The tables start with deviations {self.start_deviation:g}, {self.token_deviation:g}.")
        if min(self.batch, self.chunk, self.block, self.probe_cells) < 2:
            raise ConfigError("batch, block, chunk and probe_cells are 2 or more each.")
        if not self.temperature > 0:
            raise ConfigError(f"The temperature is {self.temperature:g}.", "above 0")

    def model(self) -> CellLMConfig:
        """Return what the model is made of."""
        return CellLMConfig(self.encoder, self.bins, gene_table=self.gene_start)


def preset(name: str) -> CellLMRecipeConfig:
    """Return a shipped configuration, such as ``cellm_mini``."""
    return read_preset(CellLMRecipeConfig, "cellm", name)
