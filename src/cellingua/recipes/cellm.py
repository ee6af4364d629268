"""The CellLM recipe: masked expression, normal or cancer, and contrast of two dropout views, in one pair of forwards.

The contrastive batch goes through `cellingua.engine.divide_conquer`, so its size does not depend on memory. The
geometry of a fixed set of cells is measured before, during and after: the anisotropy that CellLM sets out to cure
must be visible. ``cellm_paper`` is the paper's size, ``cellm_mini`` trains on two cores.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from cellingua.cells.binned import BinConfig
from cellingua.cells.genes import load_vocabulary
from cellingua.cells.loader import Loader, LoaderConfig
from cellingua.cells.sources import FILE, NORMAL, CellSource, cell_names, codes_of, normal_or_cancer, rows_of
from cellingua.core.config import from_dict, to_dict
from cellingua.core.errors import ConfigError
from cellingua.core.progress import Progress, Silent
from cellingua.engine.divide_conquer import divide_conquer
from cellingua.engine.losses import InfoNCE, NTXent
from cellingua.engine.processes import Processes
from cellingua.models.cellm import CellLMConfig, CellLMModule
from cellingua.models.cellm_bundle import CellLMParts, numbered_genes, save_cellm
from cellingua.nn.performer import PerformerConfig
from cellingua.objectives.discrimination import class_weights
from cellingua.objectives.masked import MaskConfig
from cellingua.recipes.cellm_card import write_cellm_card
from cellingua.recipes.cellm_probe import Probe
from cellingua.recipes.cellm_views import Labels, ViewMaker, ViewTower
from cellingua.recipes.gene_choice import informative_genes, sample_cells, start_vectors
from cellingua.recipes.gene_graph import GeneVectors, gene_rows
from cellingua.training.loop import TrainConfig, Watch, train
from cellingua.training.place import OneProcess, Place, whole

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
    folder = files("cellingua") / "data" / "recipes"
    path = folder / f"{name}.json"
    if not name.isidentifier() or not name.startswith("cellm") or not path.is_file():
        known = sorted(p.name.removesuffix(".json") for p in folder.iterdir() if p.name.startswith("cellm"))
        raise ConfigError(f"There is no preset {name!r}.", "; ".join(known))
    return from_dict(CellLMRecipeConfig, json.loads(path.read_text(encoding="utf-8")))


@dataclass(frozen=True)
class Prepared:
    """What a run needs besides its configuration, all of it from the corpus.

    Attributes
    ----------
    rows
        int64: the cells that are trained on.
    genes
        int64 (n,): column of each gene of the model.
    module
        Untrained.
    labels
        See `Labels`.
    class_weights
        float64 (2,): over the cells that are trained on.
    """

    rows: NDArray[np.int64]
    genes: NDArray[np.int64]
    module: CellLMModule
    labels: Labels
    class_weights: torch.Tensor


def prepare(
    config: CellLMRecipeConfig, source: CellSource, table: GeneVectors | None = None, progress: Progress | None = None
) -> Prepared:
    """Choose genes, build the untrained model, and read the labels.

    Parameters
    ----------
    config
        See `CellLMRecipeConfig`.
    source
        A corpus over the vocabulary's genes.
    table
        Gene vectors by Ensembl id or symbol, where ``gene_start`` is ``table``.

    Raises
    ------
    LabelError
        A held-out file or the label column is not there, or the labels are of one class.
    CountsError
        The corpus expresses fewer genes than the model has.
    ConfigError
        A table is asked for and not given, or of another width.
    """
    progress = progress or Silent()
    rows = np.arange(len(source))
    if config.held_out:
        rows = np.setdiff1d(rows, rows_of(source, FILE, config.held_out))
    labels = _labels(config, source)
    classes = labels.of({name: source.column(name)[rows] for name in (FILE, labels.column) if name is not None})
    progress.step("Choosing genes")
    sample = sample_cells(source, rows, seed=config.train.seed)
    if config.encoder.genes == source.n_genes:
        genes = np.arange(source.n_genes)
    else:
        genes = informative_genes(sample, config.encoder.genes)
    torch.manual_seed(config.train.seed)
    module = CellLMModule(config.model())
    with torch.no_grad():
        nn.init.normal_(module.performer.token.weight, std=config.token_deviation)
    encoder, deviation = config.encoder, config.start_deviation
    if config.gene_start == "cells":
        module.performer.set_gene_table(start_vectors(sample, genes, encoder.width, deviation, config.train.seed))
    elif config.gene_start == "table":
        module.performer.set_gene_table(torch.from_numpy(_from_table(table, genes, config)))
    module.performer.gene.weight.requires_grad_(config.train_genes)
    return Prepared(rows, genes, module, labels, class_weights(torch.from_numpy(classes)))


def _labels(config: CellLMRecipeConfig, source: CellSource) -> Labels:
    if not config.weights.discrimination:
        return Labels(None, np.array([-1], np.int8))
    withheld = tuple(codes_of(source, FILE, config.unlabelled)) if config.unlabelled else ()
    return Labels(config.label, normal_or_cancer(source, config.label, config.normal), withheld)


def _from_table(table: GeneVectors | None, genes: NDArray[np.int64], config: CellLMRecipeConfig) -> NDArray[np.float32]:
    """Return the rows of a caller's table for the model's genes, named by Ensembl id or by symbol."""
    width = config.encoder.width
    if table is None or table.vectors.shape[1] != width:
        found = "none was given" if table is None else f"vectors of {table.vectors.shape[1]} were given"
        raise ConfigError(f"The genes are to start from a table, and {found}.", f"vectors of {width} for genes")
    vocabulary = load_vocabulary()
    known = set(vocabulary.ensembl_ids.tolist())
    by_id = sum(name in known for name in table.names) * 2 > len(table.names)
    names = (vocabulary.ensembl_ids if by_id else vocabulary.symbols)[genes].tolist()
    return gene_rows(table, names, deviation=config.start_deviation, seed=config.train.seed)


def run(
    config: CellLMRecipeConfig,
    source: CellSource,
    out: Path,
    *,
    table: GeneVectors | None = None,
    progress: Progress | None = None,
    place: Place | None = None,
    tensorboard: bool = False,
    facts: dict[str, Any] | None = None,
) -> Path:
    """Train a model and save it as the folder ``out/<name>``.

    Parameters
    ----------
    config
        See `CellLMRecipeConfig`.
    source
        A prepared corpus, or anything else that is read by row number.
    out
        Checkpoints, logs and the model go here; a run that was stopped resumes from them.
    table
        See `prepare`.
    place
        Where to compute: see `cellingua.training.place`.
    tensorboard
        Write TensorBoard's events too.
    facts
        What the card tells of the data besides the corpus's own index (JSON values).

    Returns
    -------
    Path
        The model's folder.

    Raises
    ------
    EngineError
        The encoder holds BatchNorm, or a forward pass changes a buffer (a redraw inside a step).
    """
    progress, place = progress or Silent(), place or OneProcess()
    out.mkdir(parents=True, exist_ok=True)
    prepared = prepare(config, source, table, progress)
    refuse_batch_norm(prepared.module)
    told = fit(config, source, prepared, out, progress, place, tensorboard)
    folder = out / config.name
    # Sharded weights are gathered by all processes together, before one of them writes.
    weights = {name: whole(tensor) for name, tensor in prepared.module.state_dict().items()}
    place.first(lambda: save(folder, config, source, prepared, told, facts or {}, weights))
    return folder


def fit(
    config: CellLMRecipeConfig,
    source: CellSource,
    prepared: Prepared,
    out: Path,
    progress: Progress,
    place: Place,
    tensorboard: bool = False,
) -> list[dict[str, float]]:
    """Train ``prepared.module`` in place; return the lines of its geometry that this process measured."""
    sizes = [len(part) for part in np.array_split(np.arange(config.batch), place.world)]
    make = ViewMaker(
        prepared.genes,
        config.bins,
        config.mask,
        config.encoder,
        prepared.labels,
        config.train.seed,
        offset=sum(sizes[: place.rank]),
        down_sample=config.down_sample,
    )
    drawn = LoaderConfig(config.batch, config.block, config.train.seed)
    probe = Probe(prepared.module, source, probe_rows(config, source, prepared.rows), make)
    with Loader(source, drawn, make, rows=prepared.rows, rank=place.rank, world=place.world) as loader:
        watch = Watch(
            validate=probe.measure,
            cells_of=lambda step: cell_names(source, loader.rows(step)),
            batch=config.batch,
            tensorboard=tensorboard,
        )
        described = {"recipe": to_dict(config), "cells": len(prepared.rows), "corpus": getattr(source, "digest", "")}
        train(
            prepared.module,
            None,
            config.train,
            backward_of=Step(config, prepared, loader, Processes(reduce=place.reduces)),
            folder=out,
            run=described,
            progress=progress,
            watch=watch,
            place=place,
        )
    return probe.lines


class Step:
    """One step: draws the views, redraws features where that is due, and leaves gradients in ``.grad``.

    Parameters
    ----------
    config
        See `CellLMRecipeConfig`.
    prepared
        See `Prepared`.
    loader
        Draws the two views of a step.
    processes
        Who takes part; None is every process there is.
    """

    def __init__(
        self,
        config: CellLMRecipeConfig,
        prepared: Prepared,
        loader: Loader[Any],
        processes: Processes | None = None,
    ) -> None:
        self.config, self.module, self.loader, self.processes = config, prepared.module, loader, processes
        weights = config.weights
        named = {"masked": weights.masked, "discrimination": weights.discrimination}
        self.weights = {name: weight for name, weight in named.items() if weight}
        self.tower = ViewTower(
            self.module,
            masked=weights.masked > 0,
            discriminated=weights.discrimination > 0,
            class_weights=prepared.class_weights,
        )
        contrast: Any = NTXent(config.temperature)
        if not config.within_views:
            contrast = InfoNCE(config.temperature, config.symmetric)
        self.objective = (lambda a, b: weights.contrast * contrast(a, b)) if weights.contrast else None
        self.autocast = torch.bfloat16 if config.train.precision == "bf16" else None

    def __call__(self, step: int) -> dict[str, float]:
        """Return the weighted losses of step `step`, by name."""
        config = self.config
        if config.redraw_every and step and step % config.redraw_every == 0:
            # Between two optimizer steps: inside one, the second pass would see another encoder than the first.
            self.module.performer.redraw_features(torch.Generator().manual_seed(config.train.seed * 1_000_003 + step))
        result = divide_conquer(
            [self.tower, self.tower],
            list(self.loader.draw(step)),
            self.objective,
            chunk=config.chunk,
            budget=math.inf if config.keep is None else config.keep,
            seed=config.train.seed * 1_000_003 + step,
            weights=self.weights,
            autocast=self.autocast,
            processes=self.processes,
        )
        losses = {"contrast": result.parts["objective"]} if self.objective is not None else {}
        return losses | {name: weight * result.parts[name] for name, weight in self.weights.items()}


def refuse_batch_norm(module: nn.Module) -> None:
    """Raise `ConfigError` where a module normalises over the batch: its cells would depend on each other."""
    for name, part in module.named_modules():
        if isinstance(part, nn.modules.batchnorm._BatchNorm):
            raise ConfigError(
                f"The encoder holds {type(part).__name__} {name!r}: chunks would not add up to the batch.",
                "a normalisation within a cell, such as LayerNorm",
            )


def probe_rows(config: CellLMRecipeConfig, source: CellSource, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the cells that the geometry is measured on: of held-out files if there are any, else of those trained."""
    pool = rows_of(source, FILE, config.held_out) if config.held_out else rows
    chosen = np.random.default_rng([config.train.seed, 34]).permutation(len(pool))[: config.probe_cells]
    return pool[np.sort(chosen)]


def save(
    folder: Path,
    config: CellLMRecipeConfig,
    source: CellSource,
    prepared: Prepared,
    lines: list[dict[str, float]],
    facts: dict[str, Any],
    weights: Mapping[str, torch.Tensor] | None = None,
) -> None:
    """Write the model's folder with its card; `weights` are the module's, where they had to be gathered."""
    vocabulary = load_vocabulary()
    genes = numbered_genes(vocabulary.ensembl_ids[prepared.genes], vocabulary.symbols[prepared.genes])
    per_file = np.bincount(source.column(FILE)[prepared.rows], minlength=len(source.categories[FILE]))
    cells = {name: int(n) for name, n in zip(source.categories[FILE], per_file, strict=True) if n}
    card = write_cellm_card(to_dict(config), cells, len(genes), lines, facts)
    # Dropout is how it was trained, and plays no part in reading a cell: the saved encoder says so.
    plain = replace(config.model(), performer=config.encoder.without_dropout())
    held = CellLMModule(plain)
    held.load_state_dict(prepared.module.state_dict() if weights is None else weights)
    save_cellm(folder, CellLMParts(config.name, config.description, held, genes, card))
