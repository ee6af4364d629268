"""The LangCell recipe on a corpus: the BERT cell tower and a BERT text tower, at the paper's size or any other.

Cells come from shards or files of any total size, their texts from the corpus's label columns. ``langcell_paper`` is
the paper's size: 172.8 million parameters; the pre-training code was never released, and what is not known of it is
chosen as the specification of LangCell says (section 4.4).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cellingua.cells.genes import load_vocabulary
from cellingua.cells.loader import Loader, LoaderConfig
from cellingua.cells.ranked import rank_tokens
from cellingua.cells.sources import FILE, CellRows, CellSource, cell_names, rows_of
from cellingua.core.config import to_dict
from cellingua.core.errors import ConfigError
from cellingua.core.progress import Progress, Silent
from cellingua.engine.processes import Processes
from cellingua.models.bundle import TOKENIZER, BundleParts, save_bundle
from cellingua.models.gene_table import GeneTable
from cellingua.models.langcell import LangCellConfig, LangCellModule, count_parameters
from cellingua.models.shelf import find_model
from cellingua.nn.batch import CellBatch
from cellingua.nn.language import TextTower, TextTowerConfig
from cellingua.nn.transformer import CellTowerConfig
from cellingua.recipes.card import write_corpus_card
from cellingua.recipes.cell_texts import CorpusTexts, TextConfig
from cellingua.recipes.corpus_genes import SOURCES, corpus_genes, official_genes
from cellingua.recipes.langcell_config import FIRST, SECOND, ObjectivesConfig, StageConfig
from cellingua.recipes.langcell_eyes import start_cross_attention, with_cross_attention
from cellingua.recipes.langcell_step import Minibatch, Step
from cellingua.recipes.langcell_towers import TextView, TrainingModule
from cellingua.recipes.presets import read_preset
from cellingua.recipes.relations import Kinds
from cellingua.training.loop import TrainConfig, Watch, train
from cellingua.training.place import OneProcess, Place, whole
from cellingua.words.describing import describe_label, describe_term
from cellingua.words.ontology import load_ontology
from cellingua.words.wordpiece import WordPiece, from_json

TERMS = ("ontology", "seen")
FIRST_STAGE_DRAWS = 1 << 20
_GROUP = 32


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


@dataclass(frozen=True)
class Prepared:
    """What a run needs besides its configuration.

    Attributes
    ----------
    rows
        int64: the cells that are trained on.
    genes
        The model's genes.
    module
        Untrained, but for what the text tower came with.
    pieces
        Its tokeniser.
    texts
        Of the cells.
    fresh_text
        Whether the text tower is untrained.
    """

    rows: NDArray[np.int64]
    genes: GeneTable
    module: LangCellModule
    pieces: WordPiece
    texts: CorpusTexts
    fresh_text: bool


def prepare(
    config: CorpusRecipeConfig,
    source: CellSource,
    text: tuple[TextTower, WordPiece] | None = None,
    progress: Progress | None = None,
) -> Prepared:
    """Read genes and texts, and build the untrained model.

    Parameters
    ----------
    text
        A text tower and its tokeniser to start from; None starts from random weights, with the tokeniser of the
        bundled model.

    Raises
    ------
    LabelError
        A held-out file is not there.
    InputError
        No label column says the cell type.
    """
    progress = progress or Silent()
    rows = np.arange(len(source))
    if config.held_out:
        rows = np.setdiff1d(rows, rows_of(source, FILE, config.held_out))
    texts = CorpusTexts(source, config.texts)
    seed = config.train.seed
    genes = official_genes() if config.genes != "corpus" else corpus_genes(source, rows, seed)
    torch.manual_seed(seed)
    width = config.cell.width
    if text is None:
        progress.say("No text tower was given: it starts from random weights, and has to learn to read from the texts.")
        pieces = bundled_pieces()
        tower = TextTower(replace(config.text, encoder_width=width))
        start_cross_attention(tower)
    else:
        tower, pieces = text
        tower = with_cross_attention(tower, width)
    if len(pieces) > tower.config.vocabulary:
        raise ConfigError(
            f"The tokeniser has {len(pieces):,} pieces, and the text tower {tower.config.vocabulary:,} rows."
        )
    module = LangCellModule(config.model(genes, tower.config))
    module.text_tower = tower
    progress.say(f"{count_parameters(module):,} parameters; {len(genes):,} genes; {len(texts.types):,} cell types.")
    return Prepared(rows, genes, module, pieces, texts, text is None)


def run(
    config: CorpusRecipeConfig,
    source: CellSource,
    out: Path,
    *,
    text: tuple[TextTower, WordPiece] | None = None,
    progress: Progress | None = None,
    place: Place | None = None,
    tensorboard: bool = False,
) -> Path:
    """Train a model and save it as the folder ``out/<name>``.

    Parameters
    ----------
    source
        A prepared corpus, or anything else that is read by row number.
    out
        Checkpoints, logs and the model go here; a run that was stopped resumes from them.
    text
        See `prepare`.
    place
        Where to compute: see `cellingua.training.place`.
    tensorboard
        Write TensorBoard's events too.

    Returns
    -------
    Path
        The model's folder.
    """
    progress, place = progress or Silent(), place or OneProcess()
    out.mkdir(parents=True, exist_ok=True)
    prepared = prepare(config, source, text, progress)
    trained = fit(config, source, prepared, out, progress, place, tensorboard)
    folder = out / config.name
    # Sharded weights are gathered by all processes together, before one of them writes.
    weights = {name: whole(tensor) for name, tensor in trained.model.state_dict().items()}
    place.first(lambda: save(folder, config, source, prepared, weights, progress))
    return folder


def fit(
    config: CorpusRecipeConfig,
    source: CellSource,
    prepared: Prepared,
    out: Path,
    progress: Progress,
    place: Place,
    tensorboard: bool = False,
) -> TrainingModule:
    """Train ``prepared.module`` in place, both stages, and return it with its head for masked genes."""
    trained = TrainingModule(prepared.module, masked=config.objectives.weights.masked > 0)
    described = {"recipe": to_dict(config), "cells": len(prepared.rows), "corpus": getattr(source, "digest", "")}
    for stage, steps in config.stages(fresh_text=prepared.fresh_text).items():
        with make_loader(config, source, prepared, place) as loader:
            shift = FIRST_STAGE_DRAWS if stage == FIRST else 0
            draw = Draw(config, prepared, loader, stage, shift)
            watch = Watch(
                cells_of=lambda step, loader=loader, shift=shift: cell_names(source, loader.rows(step + shift)),  # type: ignore[misc]
                batch=config.batch,
                tensorboard=tensorboard,
            )
            train(
                trained,
                None,
                steps,
                backward_of=make_step(config, prepared, trained, draw, stage, Processes(reduce=place.reduces)),
                folder=out / stage,
                run=described | {"stage": stage},
                progress=progress,
                watch=watch,
                place=place,
            )
    return trained


def make_loader(config: CorpusRecipeConfig, source: CellSource, prepared: Prepared, place: Place) -> Loader[CellBatch]:
    """Return what reads the cells of a step and makes their tokens."""
    tokens, medians = prepared.genes.columns(load_vocabulary().ensembl_ids)
    limit = config.cell.positions - 1

    def make(step: int, cells: CellRows) -> CellBatch:
        ranked = rank_tokens(cells.counts, tokens, medians, totals=cells.totals, limit=limit)
        return CellBatch.from_arrays(ranked.indptr, ranked.tokens)

    drawn = LoaderConfig(config.batch, config.block, config.train.seed)
    return Loader(source, drawn, make, rows=prepared.rows, rank=place.rank, world=place.world)


class Draw:
    """Minibatch of a step number: cells by the loader, texts by their rows; the same in any number of processes."""

    def __init__(
        self, config: CorpusRecipeConfig, prepared: Prepared, loader: Loader[CellBatch], stage: str, shift: int
    ) -> None:
        self.config, self.prepared, self.loader, self.shift = config, prepared, loader, shift
        self.wants_texts = stage == SECOND

    def __call__(self, step: int) -> Minibatch:
        """Return the minibatch; two views of a cell are two draws of the tower's own dropout."""
        step += self.shift
        texts, loader, limit = self.prepared.texts, self.loader, self.config.texts.limit
        rows = loader.rows(step)
        written = texts.draw(rows, [self.config.train.seed, 41, step])
        distinct = list(dict.fromkeys(text for text in written if text)) or ["unknown"]
        place = {text: number for number, text in enumerate(distinct)}
        text_of = np.array([place.get(text, -1) if text else -1 for text in written], np.int64)
        type_of = texts.type_of[rows]
        types = np.full(len(distinct), -1, np.int64)
        types[text_of[text_of >= 0]] = type_of[text_of >= 0]

        def read(wanted: Tensor) -> tuple[Tensor, Tensor]:
            ids, mask = self.prepared.pieces.encode([distinct[i] for i in wanted.tolist()], max_length=limit)
            return torch.from_numpy(ids), torch.from_numpy(mask)

        # Fewer texts than processes: those without one of their own read the last again, and it counts once.
        own = np.array_split(np.arange(max(len(distinct), loader.world)), loader.world)[loader.rank]
        cells = loader.draw(step)
        offset = sum(len(part) for part in np.array_split(rows, loader.world)[: loader.rank])
        return Minibatch(
            cells,
            cells,
            offset,
            torch.from_numpy(text_of),
            torch.from_numpy(type_of),
            read(torch.from_numpy(own.clip(max=len(distinct) - 1))) if self.wants_texts else None,
            torch.from_numpy(types),
            read,
        )


def make_step(
    config: CorpusRecipeConfig,
    prepared: Prepared,
    trained: TrainingModule,
    draw: Draw,
    stage: str,
    processes: Processes | None = None,
) -> Step:
    """Return the step of a stage."""
    objectives = config.objectives
    decay = objectives.decay if objectives.needs_closeness else None
    return Step(
        trained,
        draw,
        objectives,
        objectives.weights.in_stage(stage),
        Kinds.of(prepared.texts.types, decay, objectives.horizon),
        TextView(trained.model),
        n_genes=len(prepared.genes),
        limit=config.cell.positions - 1,
        seed=config.train.seed,
        autocast=torch.bfloat16 if config.train.precision == "bf16" else None,
        processes=processes,
    )


def save(
    folder: Path,
    config: CorpusRecipeConfig,
    source: CellSource,
    prepared: Prepared,
    weights: Mapping[str, Tensor],
    progress: Progress,
) -> None:
    """Read the terms with the trained text tower, and write the model's folder with its card."""
    module, ontology = LangCellModule(prepared.module.config), load_ontology("CL")
    module.load_state_dict(weights)
    module.eval()
    types = prepared.texts.types
    terms = list(ontology.ids) if config.terms == "ontology" else []
    terms += [term for term in types if term not in set(terms)]
    texts = [describe_term(term, ontology) if term in ontology else describe_label(term) for term in terms]
    per_file = np.bincount(source.column(FILE)[prepared.rows], minlength=len(source.categories[FILE]))
    cells = {name: int(n) for name, n in zip(source.categories[FILE], per_file, strict=True) if n}
    parts = BundleParts(
        name=config.name,
        description=config.description,
        module=module,
        genes=prepared.genes,
        pieces=prepared.pieces,
        term_ids=terms,
        term_vectors=read_terms(module, prepared.pieces, texts, config.texts.limit, progress),
        card=write_corpus_card(
            to_dict(config), cells, module, len(prepared.genes), types, fresh_text=prepared.fresh_text
        ),
        supported=frozenset(types),
    )
    save_bundle(folder, parts, storage="float16")


@torch.inference_mode()
def read_terms(
    module: LangCellModule, pieces: WordPiece, texts: list[str], limit: int, progress: Progress
) -> NDArray[np.float32]:
    """Return the texts in the joint space, float32 (n, joint); texts of like length are read together."""
    order = np.argsort([len(text) for text in texts], kind="stable")
    out = np.empty((len(texts), module.config.joint_width), np.float32)
    progress.step("Reading the terms", len(texts))
    for start in range(0, len(order), _GROUP):
        rows = order[start : start + _GROUP]
        ids, mask = pieces.encode([texts[i] for i in rows], max_length=limit)
        out[rows] = module.texts(torch.from_numpy(ids), torch.from_numpy(mask)).float().numpy()
        progress.advance(len(rows))
    return out


def bundled_pieces() -> WordPiece:
    """Return the tokeniser of the bundled model: BERT's word pieces that occur in the ontologies, and common words."""
    path = find_model("langcell_mini") / TOKENIZER
    return from_json(path.read_text(encoding="utf-8"), path.name)
