"""Everything that a run of the LangCell recipe can vary: its objectives, its two stages, its towers and its data."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

from cellingua.cells.simulate import SimulateConfig
from cellingua.core.errors import ConfigError
from cellingua.nn.bag import GatedBagConfig
from cellingua.objectives.masked_genes import GeneMaskConfig
from cellingua.recipes.batches import BatchConfig
from cellingua.recipes.presets import read_preset
from cellingua.recipes.relations import RELATIONS
from cellingua.recipes.wider import WiderConfig
from cellingua.training.loop import TrainConfig

ALIGNED, FIRST, MATCHED, SECOND = "aligned", "first", "matched", "second"


@dataclass(frozen=True)
class ObjectiveWeights:
    """What each objective counts; 0 leaves it out. The first stage knows the first two alone."""

    masked: float = 1.0
    cell_cell: float = 1.0
    cell_text: float = 1.0
    matching: float = 1.0

    def __post_init__(self) -> None:
        held = (self.masked, self.cell_cell, self.cell_text, self.matching)
        if not all(0 <= weight < math.inf for weight in held) or not any(held):
            raise ConfigError(f"The objectives weigh {held}.", "0 or more each, and one above 0")
        if self.matching and not self.cell_text:
            raise ConfigError("Hard pairs are drawn by the similarity that cell_text trains, which weighs 0.")

    def in_stage(self, stage: str) -> ObjectiveWeights:
        """Return the weights of a stage; the alignment that may go before both has the contrast with texts alone, and
        the stage that may go between them matches too.
        """
        if stage == ALIGNED:
            return replace(self, masked=0.0, cell_cell=0.0, matching=0.0)
        if stage == MATCHED:
            return replace(self, masked=0.0, cell_cell=0.0)
        return self if stage == SECOND else replace(self, cell_text=0.0, matching=0.0)


@dataclass(frozen=True)
class ObjectivesConfig:
    """The four objectives (specification, section 4.3).

    Parameters
    ----------
    weights
        See `ObjectiveWeights`.
    temperature
        Of both contrasts.
    hard_temperature
        Of the draw of hard pairs: similarities are divided by it before the softmax. The lower, the harder.
    text_relation, cell_relation
        What cells of one text or of wider and narrower types are to each other, in the contrast of cells with texts
        and of cells with cells: one of `cellingua.recipes.relations.RELATIONS`.
    decay, horizon
        Of the closeness in the ontology, where a relation is ``ontology``.
    symmetric
        Average the contrast from texts to cells in.
    mask
        Which genes are hidden, and how.
    masked_cells
        Cells of a minibatch whose genes are hidden; 0 for all.
    matched_cells
        Cells of a minibatch that are matched, three pairs each; 0 for all that have a text.
    match_every
        Steps from one with matching to the next.
    chunk, pair_chunk
        Cells, and cells with their pairs, that are encoded at a time.
    keep
        Bytes of graph that may be kept between the engine's passes; None keeps everything, and encodes once.
    """

    weights: ObjectiveWeights = field(default_factory=ObjectiveWeights)
    temperature: float = 0.05
    hard_temperature: float = 0.05
    text_relation: str = "multi_positive"
    cell_relation: str = "masked"
    decay: float = 0.5
    horizon: int = 2
    symmetric: bool = True
    mask: GeneMaskConfig = field(default_factory=GeneMaskConfig)
    masked_cells: int = 0
    matched_cells: int = 0
    match_every: int = 1
    chunk: int = 32
    pair_chunk: int = 8
    keep: float | None = 0.0

    def __post_init__(self) -> None:
        for name in ("text_relation", "cell_relation"):
            if getattr(self, name) not in RELATIONS:
                raise ConfigError(f"{name} is {getattr(self, name)!r}.", " or ".join(map(repr, RELATIONS)))
        if not (self.temperature > 0 and self.hard_temperature > 0):
            raise ConfigError(f"The temperatures are {self.temperature:g} and {self.hard_temperature:g}.", "above 0")
        if not 0 < self.decay < 1 or self.horizon < 1:
            raise ConfigError(f"Closeness decays by {self.decay:g} up to {self.horizon} steps.", "0 to 1, and 1 step")
        if min(self.chunk, self.pair_chunk, self.match_every) < 1 or min(self.masked_cells, self.matched_cells) < 0:
            raise ConfigError("chunk, pair_chunk and match_every are 1 or more, numbers of cells 0 or more.")

    @property
    def needs_closeness(self) -> bool:
        """Whether a relation is by closeness in the ontology."""
        return "ontology" in (self.text_relation, self.cell_relation)


@dataclass(frozen=True)
class StageConfig:
    """A stage: its steps (none, no stage) and its peak learning rate; the rest is as the run's `TrainConfig` says."""

    steps: int = 0
    learning_rate: float = 1e-4

    def of(self, train: TrainConfig, factors: tuple[tuple[str, float], ...] = ()) -> TrainConfig:
        """Return how the stage is trained; `factors` as in `OptimiseConfig`."""
        optimise = replace(train.optimise, learning_rate=self.learning_rate, factors=factors)
        return replace(train, steps=self.steps, optimise=optimise)


@dataclass(frozen=True)
class TopLayers:
    """The transformer over a bag's highest tokens, whose states texts look at; see `GatedBagConfig`."""

    layers: int = 2
    top: int = 128
    layer_width: int = 128
    heads: int = 4
    feedforward: int = 512


@dataclass(frozen=True)
class RecipeConfig:
    """Everything that a run on a data folder can vary; presets are JSON files in ``data/recipes``.

    Parameters
    ----------
    name, description
        Of the model.
    gene_width, hidden, token_limit
        Of the cell tower.
    top
        The transformer beside the bag; None for none, and then genes can't be masked nor texts matched.
    least_profiles
        A gene belongs to the model if this many profiles express it.
    batch, marker_share, machine_share, curated_share, token_dropout
        See `cellingua.recipes.batches.BatchConfig`; what the shares leave is pseudo-cells from profiles. Two draws of
        the dropout of tokens are the two views of a cell.
    word_steps
        Steps of adapting the text tower after the cells are trained.
    held_out
        Files of the corpus on which the second channel's strength and the temperatures are chosen, by a model that
        has not seen them; the model that is saved is trained on everything. Empty: no validation.
    marker_strength, agreement, unmarked, ontology_markers, decoded, ontology_decoded, unprofiled, wider_term
        What the second and the third channel count where no file is held out to fit it on: a marker score of 1; a
        cell's agreement with the decoder; what a user's candidate without markers gets; what marker scores are
        multiplied by in the whole ontology; the decoder's arbitration among a user's candidates and in the whole
        ontology; and what is added, in the whole ontology, to the logit of a term of which neither a profile nor cells
        were seen, and of one of which a kind was.
    fit_channels
        Whether the first three of these are fitted on the held-out files, where there are some. These may all be of
        few tissues, and what counts for others is better said here.
    generic_terms
        Terms too wide to teach anything.
    narrower
        Term -> what a human cell of it is taught as: the ontology defines human "classical monocytes" below that term
        and below "CD14-positive monocyte", of which neither is a kind of the other. A cell that learns one alone is
        wrong wherever a data set says the other. Held-out files are asked for their own terms.
    wider
        Wider targets in the alignment; see `WiderConfig`.
    consensus
        Name of a shipped configuration by which unlabelled files get labels (`cellingua.recipes.consensus`); or "".
    objectives
        See `ObjectivesConfig`.
    first, matched, second
        The stages that come after the alignment: masked genes and the contrast of cells; matching in the text tower's
        last layer alone, which costs little, with all cells of a minibatch; all four objectives in all layers.
    bag_rate
        What their rate is multiplied by for the bag and its projection, which the alignment has trained.
    stage_batch
        Cells of a minibatch in these stages.
    match_pieces
        Word pieces of a text that is matched, at most.
    simulate, train
        See `SimulateConfig` and `TrainConfig`; the latter is that of the alignment, in which the bag learns to find the
        terms' texts.
    """

    name: str
    description: str
    gene_width: int = 160
    hidden: int = 512
    token_limit: int = 512
    top: TopLayers | None = None
    least_profiles: int = 20
    batch: int = 192
    marker_share: float = 0.15
    machine_share: float = 0.08
    curated_share: float = 0.17
    token_dropout: float = 0.3
    word_steps: int = 300
    held_out: tuple[str, ...] = ()
    marker_strength: float = 2.0
    agreement: float = 10.0
    unmarked: float = 4.0
    ontology_markers: float = 1.0
    decoded: float = 40.0
    ontology_decoded: float = 10.0
    unprofiled: float = -6.0
    wider_term: float = -4.0
    fit_channels: bool = True
    generic_terms: tuple[str, ...] = ()
    narrower: tuple[tuple[str, str], ...] = ()
    wider: WiderConfig = field(default_factory=WiderConfig)
    consensus: str = ""
    objectives: ObjectivesConfig = field(default_factory=ObjectivesConfig)
    first: StageConfig = field(default_factory=StageConfig)
    matched: StageConfig = field(default_factory=StageConfig)
    second: StageConfig = field(default_factory=StageConfig)
    bag_rate: float = 0.01
    stage_batch: int = 64
    match_pieces: int = 24
    simulate: SimulateConfig = field(default_factory=SimulateConfig)
    train: TrainConfig = field(default_factory=TrainConfig)

    def __post_init__(self) -> None:
        weights = self.objectives.weights
        if self.top is None and (weights.masked or weights.matching):
            raise ConfigError(
                "Masked genes and matching need the states of tokens, and the bag alone has none.",
                "layers over the top tokens, or no weight on these objectives",
                '"top": {}, or "masked": 0 and "matching": 0 in objectives.weights',
            )
        if self.objectives.text_relation in ("instances", "masked"):
            raise ConfigError(
                f"text_relation is {self.objectives.text_relation!r}, and here all terms are texts of a step.",
                "'multi_positive' or 'ontology'",
            )

    def stages(self) -> dict[str, TrainConfig]:
        """Return how each stage is trained, in their order; those without steps are left out."""
        bag = tuple((f"model.{part}.*", self.bag_rate) for part in ("cell_tower", "cell_projection"))
        factors = (("model.cell_tower.top.*", 1.0), *bag)
        later = {FIRST: self.first, MATCHED: self.matched, SECOND: self.second}
        found = {name: stage.of(self.train, factors) for name, stage in later.items() if stage.steps}
        if not self.objectives.weights.matching:
            found.pop(MATCHED, None)
        return {ALIGNED: self.train} | found

    def batches(self, stage: str) -> BatchConfig:
        """Return how the minibatches of a stage are made."""
        return BatchConfig(
            self.batch if stage == ALIGNED else self.stage_batch,
            self.marker_share,
            self.machine_share,
            self.curated_share,
            self.token_dropout,
            self.token_limit,
        )

    def bag(self, n_genes: int) -> GatedBagConfig:
        """Return the cell tower for a number of genes."""
        plain = GatedBagConfig(
            vocabulary=self.objectives.mask.first_gene + n_genes,
            width=self.gene_width,
            hidden=self.hidden,
            pooled=256,
            dropout=0.0,
        )
        if self.top is None:
            return plain
        top = self.top
        return replace(
            plain,
            layers=top.layers,
            top=top.top,
            layer_width=top.layer_width,
            heads=top.heads,
            feedforward=top.feedforward,
            top_pooled=False,
        )


def preset(name: str) -> RecipeConfig:
    """Return a shipped configuration, such as ``langcell_mini``."""
    return read_preset(RecipeConfig, "langcell", name)
