"""The LangCell recipe: read, tokenise, build the towers, train by contrast of cells and texts, calibrate, save.

``mini`` trains on two cores in minutes: the cell tower is a gated bag of genes, the text tower is MiniLM, read
once and adapted to biology's words afterwards. The paper's size is `LangCellConfig.paper()`.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cellingua.cells.collections import CellSet
from cellingua.cells.genes import load_vocabulary
from cellingua.core.config import to_dict
from cellingua.core.progress import Progress, Silent
from cellingua.engine.processes import Processes
from cellingua.models.bundle import BundleParts, save_bundle
from cellingua.models.decoding import ExpressionDecoder
from cellingua.models.evidence import MarkerEvidence, fit_evidence
from cellingua.models.gene_table import FIRST_TOKEN, GeneTable, number_genes
from cellingua.models.langcell import LangCellConfig, LangCellModule
from cellingua.models.model import LangCellModel
from cellingua.models.text_sources import load_text_source
from cellingua.nn.language import TextTower
from cellingua.recipes.answers import KEPT, fit_answers, predict
from cellingua.recipes.batches import Batches
from cellingua.recipes.card import write_card
from cellingua.recipes.decoder import expression_decoder
from cellingua.recipes.langcell_config import ALIGNED, FIRST, MATCHED, SECOND, RecipeConfig, preset
from cellingua.recipes.langcell_eyes import looking_parts, train_parts, with_cross_attention
from cellingua.recipes.langcell_step import Minibatch, Step, StepConfig
from cellingua.recipes.langcell_towers import FeatureView, LastLayerView, TrainingModule, before_last
from cellingua.recipes.material import Material, estimate_medians, make_simulator, model_genes, read_material
from cellingua.recipes.relations import Kinds
from cellingua.recipes.seen import seen_in_material
from cellingua.recipes.validate import Validation, validate
from cellingua.recipes.wider import Wider, with_wider
from cellingua.recipes.words import Features, WordBank, adapt_words, embed_words
from cellingua.training.loop import train
from cellingua.words.wordpiece import WordPiece

BACKGROUND = 4000  # pseudo-cells that say what markers score by chance
LEAST_ANSWERED = 50  # cells of a held-out file on which answers are calibrated
LAST_PIECES = 48  # of a text whose state before the last layer is read once
DRAWS = {ALIGNED: 0, FIRST: 1 << 20, SECOND: 2 << 20, MATCHED: 3 << 20}  # each stage draws minibatches of its own

__all__ = ["RecipeConfig", "Trained", "build", "fit", "preset", "run"]


def run(config: RecipeConfig, data: Path, out: Path, text_tower: str | Path, progress: Progress | None = None) -> Path:
    """Train a model and save it as the folder ``out/<name>``.

    Parameters
    ----------
    config
        See `RecipeConfig`.
    data
        A folder as `cellingua.cells.collections` describes.
    out
        Checkpoints, logs and the model go here; a run that was stopped resumes from them.
    text_tower
        A text tower as `load_text_source` takes it.

    Returns
    -------
    Path
        The model's folder.
    """
    progress = progress or Silent()
    out.mkdir(parents=True, exist_ok=True)
    material = read_material(data, config.generic_terms, progress, config.consensus)
    tower, pieces = load_text_source(text_tower)
    words = embed_words(tower, pieces, out / "words.safetensors", progress)
    checked = None
    if config.held_out:
        progress.say(f"Validation: a model that has not seen {', '.join(config.held_out)}.")
        seen = material.without(config.held_out)
        trained = fit(config, seen, words, tower, pieces, out / "validation", progress, adapt=False)
        held = material.cells.take(np.isin(material.cells.files, list(config.held_out)))
        chosen = (config.marker_strength, config.agreement, config.unmarked)
        checked = validate(trained.model(config, pieces), held, None if config.fit_channels else chosen)
        progress.say(checked.summary())
        checked = replace(checked, answers=_answers(trained.model(config, pieces, checked), held))
    progress.say("The model: trained on everything.")
    trained = fit(config, material, words, tower, pieces, out / "final", progress)
    return trained.save(config, pieces, checked, material, out / config.name)


def _answers(model: LangCellModel, held: CellSet) -> dict[str, Any]:
    """Return what `fit_answers` makes of the held-out files that are large enough."""
    curated = held.take(held.curated)
    sizes = {str(file): int((curated.files == file).sum()) for file in np.unique(curated.files)}
    predictions = [
        predict(model, curated.take(curated.files == file), file)
        for file, size in sizes.items()
        if size >= LEAST_ANSWERED and len(set(curated.terms[curated.files == file].tolist())) > 1
    ]
    return fit_answers(predictions) if predictions else {}


@dataclass
class Trained:
    """A trained model before it is a folder."""

    module: LangCellModule
    genes: GeneTable
    words: WordBank
    vectors: NDArray[np.float32]
    evidence: MarkerEvidence
    decoder: ExpressionDecoder
    supported: frozenset[str]
    closeness: dict[str, float]

    def model(self, config: RecipeConfig, pieces: WordPiece, checked: Validation | None = None) -> LangCellModel:
        """Return the model in memory."""
        fitted = {key: getattr(config, key) for key in KEPT}
        strength = checked.strength if checked else config.marker_strength
        return LangCellModel(
            name=config.name,
            hash="in memory",
            config=self.module.config,
            module=self.module,
            genes=self.genes,
            term_ids=self.words.term_ids,
            term_vectors=self.vectors,
            load_text=lambda: pieces,
            calibration=checked.calibration() if checked else {"temperature": 1.0} | fitted,
            evidence=replace(self.evidence, strength=strength),
            decoder=self.decoder,
            supported=self.supported,
        )

    def save(
        self,
        config: RecipeConfig,
        pieces: WordPiece,
        checked: Validation | None,
        material: Material,
        folder: Path,
    ) -> Path:
        """Write the folder."""
        model = self.model(config, pieces, checked)
        parts = BundleParts(
            name=config.name,
            description=config.description,
            module=self.module,
            genes=self.genes,
            pieces=pieces,
            term_ids=self.words.term_ids,
            term_vectors=self.vectors,
            calibration=model.calibration,
            card=write_card(to_dict(config), material, checked, self.closeness, self.module.config, len(self.genes)),
            evidence=model.evidence,
            decoder=model.decoder,
            supported=self.supported,
            seen=seen_in_material([material.cells], material.hashes, material.folder),
        )
        save_bundle(folder, parts, storage="int8")
        return folder


def fit(
    config: RecipeConfig,
    material: Material,
    words: WordBank,
    tower: TextTower,
    pieces: WordPiece,
    folder: Path,
    progress: Progress,
    *,
    adapt: bool = True,
) -> Trained:
    """Align cells with the terms' texts, adapt the text tower's words if asked, and train both stages.

    In the alignment the bag and both projections learn to find the terms; the text tower stays as it is. From then on
    the terms' vectors stay: in the two stages that follow, the transformer over top tokens and how texts look at cells
    are trained, and the bag moves a little.
    """
    rng = np.random.default_rng([config.train.seed, 1])
    material = material.narrowed(dict(config.narrower))
    simulator = make_simulator(material, config.simulate)
    rows = model_genes(material.profiles, config.least_profiles)
    medians = estimate_medians(material, simulator, rows, rng)
    genes = number_genes(rows, medians)
    module = build(config, genes, tower, material)
    supported = sorted({*simulator.terms, *simulator.marker_terms, *material.cells.terms.tolist()})
    draws = {}
    for stage in config.stages():
        terms = with_wider(supported, config.wider) if stage == ALIGNED else supported
        wider = Wider(terms, config.wider) if stage == ALIGNED else None
        batches = Batches(config.batches(stage), material.cells, simulator, genes, terms, config.train.seed)
        draws[stage] = Draw(batches, words.of(terms), pieces, config.match_pieces, wider)
    trained = TrainingModule(module, masked=config.objectives.weights.masked > 0)
    run_facts: dict[str, Any] = {
        "recipe": to_dict(config),
        "cells": len(material.cells),
        "hashes": material.hashes,
        "words": words.source,
    }
    stages = config.stages()
    train_parts(module, module.cell_tower, module.cell_projection, module.text_projection)
    step = make_step(config, trained, draws[ALIGNED], ALIGNED, FeatureView(module))
    aligned = stages.pop(ALIGNED)
    train(trained, None, aligned, backward_of=step, folder=folder / ALIGNED, run=run_facts, progress=progress)
    vectors = words.as_taught(words.term_vectors(module), dict(config.narrower))
    closeness = {}
    if adapt:
        closeness = adapt_words(module, pieces, words, vectors, config.word_steps, progress, folder / "words")
    own = vectors[[words.term_ids.index(term) for term in supported]]
    for stage, steps in stages.items():
        facts = run_facts | {"stage": stage, "vectors": hashlib.sha256(vectors.tobytes()).hexdigest()}
        parts = looking_parts(module, last_alone=stage == MATCHED)
        train_parts(module, module.cell_tower, module.cell_projection, *parts)
        draw = FixedTexts(draws[stage], own)
        if stage == MATCHED:
            draw = TextsBeforeLast(draws[stage], own, module)
        step = make_step(config, trained, draw, stage, nn.Identity())
        train(trained, None, steps, backward_of=step, folder=folder / stage, run=facts, progress=progress)
    module.requires_grad_(False)
    background, _ = simulator.from_profiles(BACKGROUND, rng)
    totals = np.asarray(background.sum(axis=1), np.float64).ravel()
    evidence = fit_evidence(material.markers, background, totals, strength=1.0)
    decoder = expression_decoder(material, words, vectors, config.least_profiles)
    return Trained(module, genes, words, vectors, evidence, decoder, frozenset(supported), closeness)


class FixedTexts:
    """The minibatches of `Draw` with the terms' vectors as texts, as the alignment has left them."""

    def __init__(self, draw: Draw, vectors: NDArray[np.float32]) -> None:
        self.draw, self.batches, self.vectors = draw, draw.batches, torch.from_numpy(vectors)

    def __call__(self, step: int) -> Minibatch:
        """Return the minibatch."""
        return replace(self.draw(step), texts=self.vectors)


class TextsBeforeLast(FixedTexts):
    """`FixedTexts` in which texts that look at cells come as their states before the last layer, read here once."""

    def __init__(self, draw: Draw, vectors: NDArray[np.float32], module: LangCellModule) -> None:
        super().__init__(draw, vectors)
        features, group = draw.features, 64
        self.rows = np.concatenate(features.rows)
        order = np.array(sorted(range(len(self.rows)), key=lambda place: len(features.texts[self.rows[place]])))
        self.states = torch.empty((len(self.rows), module.text_tower.width))
        for start in range(0, len(order), group):
            some = order[start : start + group]
            ids, mask = draw.pieces.encode([features.texts[row] for row in self.rows[some]], max_length=LAST_PIECES)
            self.states[some] = before_last(module.text_tower, torch.from_numpy(ids), torch.from_numpy(mask))
        self.place = {row: place for place, row in enumerate(self.rows.tolist())}

    def __call__(self, step: int) -> Minibatch:
        """Return the minibatch."""

        def read(wanted: Tensor) -> tuple[Tensor, Tensor]:
            chosen = self.draw.features.chosen(step, wanted.numpy())
            states = self.states[[self.place[row] for row in chosen.tolist()]]
            return states, torch.ones((len(states), 1), dtype=torch.bool)

        return replace(super().__call__(step), read=read)


class Draw:
    """Minibatch of a step number: cells of all sources, and all terms that a cell can carry, each in one writing.

    With `wider` the text of some cells is that of a wider term; their own is then neither right nor wrong.
    """

    def __init__(
        self, batches: Batches, features: Features, pieces: WordPiece, most_pieces: int, wider: Wider | None = None
    ) -> None:
        self.batches, self.features, self.pieces, self.most_pieces = batches, features, pieces, most_pieces
        self.wider = wider

    def __call__(self, step: int) -> Minibatch:
        """Return the minibatch; a term is text and type at once."""
        first, second, targets = self.batches.draw(step)
        terms = torch.arange(len(self.batches.row_of))

        def read(rows: Tensor) -> tuple[Tensor, Tensor]:
            ids, mask = self.pieces.encode(self.features.written(step, rows.numpy()), max_length=self.most_pieces)
            return torch.from_numpy(ids), torch.from_numpy(mask)

        said = targets
        if self.wider is not None:
            said = self.wider(targets, np.random.default_rng([self.batches.seed, 41, step]))
        return Minibatch(first, second, 0, said, targets, self.features.sample(step), terms, read)


def make_step(
    config: RecipeConfig, trained: TrainingModule, draw: Draw | FixedTexts, stage: str, text_view: nn.Module
) -> Step:
    """Return the step of a stage."""
    objectives, shift = config.objectives, DRAWS[stage]
    pair_view = None
    if stage == MATCHED:
        objectives = replace(objectives, matched_cells=0, match_every=1)
        pair_view = LastLayerView(trained.model)
    decay = objectives.decay if objectives.needs_closeness else None
    return Step(
        trained,
        lambda step: draw(step + shift),
        StepConfig(
            objectives,
            objectives.weights.in_stage(stage),
            n_genes=trained.model.config.vocabulary - FIRST_TOKEN,
            limit=config.top.top if config.top else 0,
            seed=config.train.seed,
            autocast=config.train.autocast,
        ),
        Kinds.of(list(draw.batches.row_of), decay, objectives.horizon),
        text_view,
        processes=Processes(reduce=False),
        pair_view=pair_view,
    )


def build(config: RecipeConfig, genes: GeneTable, tower: TextTower, material: Material) -> LangCellModule:
    """Return an untrained model around a text tower that is not trained; genes start from a factorisation.

    Two genes whose profiles look alike start alike: the right singular vectors of the log profiles, in units of
    the medians, centred. A random start needs many times the cells. Where texts are matched, the text tower gets
    cross-attention that starts at zero, and that is trained.
    """
    torch.manual_seed(config.train.seed)
    matched = config.objectives.weights.matching > 0
    bag = config.bag(len(genes))
    if matched:
        tower = with_cross_attention(tower, bag.layer_width, dropout=0.0)
    module = LangCellModule(
        LangCellConfig(
            "bag",
            tower.config,
            bag=bag,
            temperature=config.objectives.temperature,
            token_limit=config.token_limit,
            match_limit=config.match_pieces if matched else None,
            match_head=matched,
            gene_table=config.name,
        )
    )
    module.text_tower = tower
    columns = {gene: row for row, gene in enumerate(load_vocabulary().ensembl_ids.tolist())}
    rows = np.array([columns[gene] for gene in genes.ensembl_ids.tolist()])
    level = np.log1p(material.profiles.expression[:, rows] * 1e4 / genes.medians.astype(np.float32))
    level -= level.mean(axis=0)
    right = np.linalg.svd(level, full_matrices=False)[2][: config.gene_width]
    start = torch.from_numpy(right.T.astype(np.float32) * np.float32(0.3 * len(genes) ** 0.5))
    with torch.no_grad():
        module.cell_tower.token.weight[FIRST_TOKEN:, : start.shape[1]] = start  # type: ignore[union-attr, index]
    return module
