"""Everything that a run of the LangCell recipe on a corpus can vary."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from cellingua.core.errors import ConfigError
from cellingua.models.gene_table import GeneTable
from cellingua.models.langcell import LangCellConfig
from cellingua.nn.language import TextTowerConfig
from cellingua.nn.transformer import CellTowerConfig
from cellingua.recipes.cell_texts import TextConfig
from cellingua.recipes.corpus_genes import SOURCES
from cellingua.recipes.langcell_config import FIRST, SECOND, ObjectivesConfig, StageConfig
from cellingua.recipes.presets import read_preset
from cellingua.training.loop import TrainConfig

TERMS = ("ontology", "seen")


@dataclass(frozen=True)
class CorpusRecipeConfig:
    """Everything that a run on a corpus can vary; presets are JSON files in ``data/recipes``.

    Parameters
    ----------
    name, description
        Of the model.
    cell
        The cell tower. Its vocabulary follows from the genes where these are of the corpus.
    text
        The text tower, where none is given to start from.
    joint_width
        Of the space of both.
    genes
        ``geneformer_v1``: the released table of 25,424 genes and medians. ``corpus``: genes that the corpus expresses,
        with its own medians.
    texts
        See `TextConfig`.
    terms
        ``ontology``: the finished model holds a vector of every term of the Cell Ontology; ``seen``: of the types of
        the corpus alone, which is quick.
    objectives, first
        See `ObjectivesConfig` and `StageConfig`.
    batch, block
        Cells of a minibatch over all processes, and neighbours of a shard read together.
    encoder_rate
        What the second stage's learning rate is multiplied by for the towers' layers that came trained; fresh
        cross-attention, projections and heads move at the rate itself.
    held_out
        Files that are not trained on.
    train
        See `TrainConfig`; the second stage's.
    """

    name: str
    description: str
    cell: CellTowerConfig = field(default_factory=CellTowerConfig.paper)
    text: TextTowerConfig = field(default_factory=TextTowerConfig.paper)
    joint_width: int = 256
    genes: str = "geneformer_v1"
    texts: TextConfig = field(default_factory=TextConfig)
    terms: str = "ontology"
    objectives: ObjectivesConfig = field(default_factory=ObjectivesConfig)
    first: StageConfig = field(default_factory=StageConfig)
    batch: int = 64
    block: int = 16
    encoder_rate: float = 0.1
    held_out: tuple[str, ...] = ()
    train: TrainConfig = field(default_factory=TrainConfig)

    def __post_init__(self) -> None:
        if self.genes not in SOURCES or self.terms not in TERMS:
            raise ConfigError(
                f"genes is {self.genes!r} and terms {self.terms!r}.", f"{' or '.join(SOURCES)}; {' or '.join(TERMS)}"
            )
        dropped = self.cell.dropout or self.cell.attention_dropout
        if self.objectives.weights.cell_cell and not dropped:
            raise ConfigError(
                "The contrast of two dropout views is asked for with dropout 0: both views would be the same.",
                "dropout above 0, or no contrast",
                '"dropout": 0.02 in cell, or "cell_cell": 0 in objectives.weights',
            )

    def stages(self, *, fresh_text: bool) -> dict[str, TrainConfig]:
        """Return how each stage is trained, in their order; an untrained text tower moves at the rate itself."""
        slow = ["model.cell_tower.*"] if fresh_text else ["model.cell_tower.*", "model.text_tower.*"]
        factors = (("*.cross*", 1.0), *((pattern, self.encoder_rate) for pattern in slow))
        second = replace(self.train, optimise=replace(self.train.optimise, factors=factors))
        return ({FIRST: self.first.of(self.train)} if self.first.steps else {}) | {SECOND: second}

    def model(self, genes: GeneTable, text: TextTowerConfig) -> LangCellConfig:
        """Return what the model is made of: its towers, as large as its genes and its text tower say."""
        last = int(genes.tokens.max())
        cell = replace(self.cell, vocabulary=last + 2, cls_token=last + 1)
        return LangCellConfig(
            "bert",
            text,
            bert=cell,
            joint_width=self.joint_width,
            temperature=self.objectives.temperature,
            token_limit=cell.positions - 1,
            text_limit=self.texts.limit,
            match_head=self.objectives.weights.matching > 0,
            gene_table=self.genes if self.genes != "corpus" else self.name,
        )


def preset(name: str) -> CorpusRecipeConfig:
    """Return a shipped configuration, such as ``langcell_paper``."""
    return read_preset(CorpusRecipeConfig, "langcell", name)
