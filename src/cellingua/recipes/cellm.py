"""The CellLM recipe: masked expression, normal or cancer, and contrast of two dropout views, in one pair of forwards.

The contrastive batch goes through `cellingua.engine.divide_conquer`, so its size does not depend on memory. The
geometry of a fixed set of cells is measured before, during and after: the anisotropy that CellLM sets out to cure
must be visible. ``cellm_paper`` is the paper's size, ``cellm_mini`` trains on two cores.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from cellingua.cells.genes import load_vocabulary
from cellingua.cells.loader import Loader, LoaderConfig
from cellingua.cells.sources import (
    FILE,
    CellSource,
    cell_names,
    codes_of,
    count_by,
    normal_or_cancer,
    rows_of,
    rows_without,
)
from cellingua.core.config import to_dict
from cellingua.core.errors import ConfigError
from cellingua.core.progress import Progress, Silent
from cellingua.engine.processes import Processes
from cellingua.models.cellm import CellLMModule
from cellingua.models.cellm_bundle import CellLMParts, numbered_genes, save_cellm
from cellingua.objectives.discrimination import class_weights
from cellingua.recipes.cellm_card import write_cellm_card
from cellingua.recipes.cellm_config import CellLMRecipeConfig, ObjectiveWeights, preset
from cellingua.recipes.cellm_probe import Probe
from cellingua.recipes.cellm_step import Prepared, Step, refuse_batch_norm
from cellingua.recipes.cellm_views import Labels, ViewMaker
from cellingua.recipes.gene_choice import informative_genes, sample_cells, start_vectors
from cellingua.recipes.gene_graph import GeneVectors, gene_rows
from cellingua.recipes.seen import seen_in_source
from cellingua.training.loop import Watch, train
from cellingua.training.place import OneProcess, Place, whole_state

__all__ = [
    "CellLMRecipeConfig",
    "ObjectiveWeights",
    "Prepared",
    "Step",
    "fit",
    "prepare",
    "preset",
    "refuse_batch_norm",
    "run",
    "save",
]


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
    rows = rows_without(source, FILE, config.held_out)
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
    weights = whole_state(prepared.module)
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
    cells = count_by(source, FILE, prepared.rows)
    card = write_cellm_card(to_dict(config), cells, len(genes), lines, facts)
    # Dropout is how it was trained, and plays no part in reading a cell: the saved encoder says so.
    plain = replace(config.model(), performer=config.encoder.without_dropout())
    held = CellLMModule(plain)
    held.load_state_dict(prepared.module.state_dict() if weights is None else weights)
    seen = seen_in_source(source, prepared.rows, seed=config.train.seed)
    save_cellm(folder, CellLMParts(config.name, config.description, held, genes, card, seen))
