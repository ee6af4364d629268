"""The LangCell recipe on a corpus: the BERT cell tower and a BERT text tower, at the paper's size or any other.

Cells come from shards or files of any total size, their texts from the corpus's label columns. ``langcell_paper`` is
the paper's size: 172.8 million parameters; the pre-training code was never released, and what is not known of it is
chosen as the specification of LangCell says (section 4.4).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cellingua.cells.sources import FILE, CellSource, cell_names, count_by, rows_without
from cellingua.core.config import to_dict
from cellingua.core.errors import ConfigError
from cellingua.core.progress import Progress, Silent
from cellingua.engine.processes import Processes
from cellingua.models.bundle import TOKENIZER, BundleParts, save_bundle
from cellingua.models.langcell import LangCellModule, count_parameters
from cellingua.models.shelf import find_model
from cellingua.nn.language import TextTower
from cellingua.recipes.card import write_corpus_card
from cellingua.recipes.cell_texts import CorpusTexts
from cellingua.recipes.corpus_genes import corpus_genes, official_genes
from cellingua.recipes.langcell_config import FIRST
from cellingua.recipes.langcell_corpus_config import CorpusRecipeConfig, preset
from cellingua.recipes.langcell_corpus_draw import Draw, Prepared, make_loader
from cellingua.recipes.langcell_eyes import start_cross_attention, with_cross_attention
from cellingua.recipes.langcell_step import Step, StepConfig
from cellingua.recipes.langcell_towers import TextView, TrainingModule
from cellingua.recipes.relations import Kinds
from cellingua.recipes.seen import seen_in_source
from cellingua.training.loop import Watch, train
from cellingua.training.place import OneProcess, Place, whole_state
from cellingua.words.describing import describe_label, describe_term
from cellingua.words.ontology import load_ontology
from cellingua.words.wordpiece import WordPiece, from_json

FIRST_STAGE_DRAWS = 1 << 20
_GROUP = 32

__all__ = [
    "CorpusRecipeConfig",
    "Draw",
    "Prepared",
    "fit",
    "make_loader",
    "make_step",
    "prepare",
    "preset",
    "run",
    "save",
]


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
    rows = rows_without(source, FILE, config.held_out)
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
    weights = whole_state(trained.model)
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
        StepConfig(
            objectives,
            objectives.weights.in_stage(stage),
            n_genes=len(prepared.genes),
            limit=config.cell.positions - 1,
            seed=config.train.seed,
            autocast=config.train.autocast,
        ),
        Kinds.of(prepared.texts.types, decay, objectives.horizon),
        TextView(trained.model),
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
    cells = count_by(source, FILE, prepared.rows)
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
        seen=seen_in_source(source, prepared.rows, seed=config.train.seed),
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
