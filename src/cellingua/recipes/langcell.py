"""The LangCell recipe: read, tokenise, build the towers, train by contrast of cells and texts, calibrate, save.

``mini`` trains on two cores in minutes: the cell tower is a gated bag of genes, the text tower is MiniLM, read
once and adapted to biology's words afterwards. The paper's size is `LangCellConfig.paper()`.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cellingua.cells.genes import load_vocabulary
from cellingua.cells.simulate import SimulateConfig
from cellingua.core.config import to_dict
from cellingua.core.progress import Progress, Silent
from cellingua.models.bundle import BundleParts, save_bundle
from cellingua.models.evidence import MarkerEvidence, fit_evidence
from cellingua.models.gene_table import GeneTable
from cellingua.models.langcell import LangCellConfig, LangCellModule
from cellingua.models.model import LangCellModel
from cellingua.models.text_sources import load_text_source
from cellingua.nn.bag import GatedBagConfig
from cellingua.objectives.contrast import cell_text_contrast
from cellingua.recipes.batches import BatchConfig, Batches
from cellingua.recipes.card import write_card
from cellingua.recipes.material import Material, estimate_medians, make_simulator, model_genes, read_material
from cellingua.recipes.presets import read_preset
from cellingua.recipes.validate import Validation, validate
from cellingua.recipes.words import WordBank, adapt_words, embed_words
from cellingua.training.loop import TrainConfig, train
from cellingua.words.wordpiece import WordPiece

FIRST_TOKEN = 2  # below it: padding and mask
BACKGROUND = 4000  # pseudo-cells that say what markers score by chance


@dataclass(frozen=True)
class RecipeConfig:
    """Everything that a run can vary; presets are JSON files in ``data/recipes``.

    Parameters
    ----------
    name, description
        Of the model.
    gene_width, hidden, token_limit, temperature
        Of the cell tower and the joint space.
    least_profiles
        A gene belongs to the model if this many profiles express it.
    batch, marker_share, machine_share, curated_share, token_dropout
        See `BatchConfig`; what the shares leave is pseudo-cells from profiles.
    word_steps
        Steps of adapting the text tower after the cells are trained.
    held_out
        Files of the corpus on which the second channel's strength and the temperatures are chosen, by a model that
        has not seen them; the model that is saved is trained on everything. Empty: no validation.
    generic_terms
        Terms too wide to teach anything.
    simulate, train
        See `SimulateConfig` and `TrainConfig`.
    """

    name: str
    description: str
    gene_width: int = 160
    hidden: int = 512
    token_limit: int = 512
    temperature: float = 0.05
    least_profiles: int = 20
    batch: int = 192
    marker_share: float = 0.15
    machine_share: float = 0.08
    curated_share: float = 0.17
    token_dropout: float = 0.3
    word_steps: int = 300
    held_out: tuple[str, ...] = ()
    generic_terms: tuple[str, ...] = ()
    simulate: SimulateConfig = field(default_factory=SimulateConfig)
    train: TrainConfig = field(default_factory=TrainConfig)

    def batches(self) -> BatchConfig:
        """Return the part that says how minibatches are made."""
        return BatchConfig(
            self.batch,
            self.marker_share,
            self.machine_share,
            self.curated_share,
            self.token_dropout,
            self.token_limit,
        )


def preset(name: str) -> RecipeConfig:
    """Return a shipped configuration, such as ``langcell_mini``."""
    return read_preset(RecipeConfig, "langcell", name)


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
    material = read_material(data, config.generic_terms, progress)
    tower, pieces = load_text_source(text_tower)
    words = embed_words(tower, pieces, out / "words.safetensors", progress)
    checked = None
    if config.held_out:
        progress.say(f"Validation: a model that has not seen {', '.join(config.held_out)}.")
        trained = fit(config, material.without(config.held_out), words, tower, out / "validation", progress)
        held = material.cells.take(np.isin(material.cells.files, list(config.held_out)))
        checked = validate(trained.model(config, pieces), held)
        progress.say(checked.summary())
    progress.say("The model: trained on everything.")
    trained = fit(config, material, words, tower, out / "final", progress)
    return trained.save(config, pieces, checked, material, out / config.name, progress)


@dataclass
class Trained:
    """A trained model before it is a folder."""

    module: LangCellModule
    genes: GeneTable
    words: WordBank
    evidence: MarkerEvidence
    supported: frozenset[str]

    def model(self, config: RecipeConfig, pieces: WordPiece, checked: Validation | None = None) -> LangCellModel:
        """Return the model in memory."""
        calibration = checked.calibration() if checked else {"temperature": 1.0}
        return LangCellModel(
            name=config.name,
            hash="in memory",
            config=self.module.config,
            module=self.module,
            genes=self.genes,
            term_ids=self.words.term_ids,
            term_vectors=self.words.term_vectors(self.module),
            load_text=lambda: pieces,
            calibration=calibration,
            evidence=replace(self.evidence, strength=checked.strength if checked else 1.0),
            supported=self.supported,
        )

    def save(
        self,
        config: RecipeConfig,
        pieces: WordPiece,
        checked: Validation | None,
        material: Material,
        folder: Path,
        progress: Progress,
    ) -> Path:
        """Adapt the text tower to the words, and write the folder."""
        vectors = self.words.term_vectors(self.module)
        checkpoints = folder.parent / "words"
        closeness = adapt_words(self.module, pieces, self.words, vectors, config.word_steps, progress, checkpoints)
        model = self.model(config, pieces, checked)
        parts = BundleParts(
            name=config.name,
            description=config.description,
            module=self.module,
            genes=self.genes,
            pieces=pieces,
            term_ids=self.words.term_ids,
            term_vectors=vectors,
            calibration=model.calibration,
            card=write_card(to_dict(config), material, checked, closeness, self.module.config, len(self.genes)),
            evidence=model.evidence,
            supported=self.supported,
        )
        save_bundle(folder, parts, storage="int8")
        return folder


def fit(
    config: RecipeConfig, material: Material, words: WordBank, tower: nn.Module, folder: Path, progress: Progress
) -> Trained:
    """Train the cell tower and both projections on `material`; the text tower stays as it is."""
    rng = np.random.default_rng([config.train.seed, 1])
    simulator = make_simulator(material, config.simulate)
    rows = model_genes(material.profiles, config.least_profiles)
    medians = estimate_medians(material, simulator, rows, rng)
    genes = gene_table(rows, medians)
    module = build(config, genes, tower, material)
    supported = sorted({*simulator.terms, *simulator.marker_terms, *material.cells.terms.tolist()})
    batches = Batches(config.batches(), material.cells, simulator, genes, supported, config.train.seed)
    features = words.of(supported)

    def losses_of(step: int) -> dict[str, Tensor]:
        batch, targets = batches.draw(step)
        cells, _ = module.cells(batch)
        texts = nn.functional.normalize(module.text_projection(features.sample(step)), dim=-1)
        positive, ignored = batches.relations(targets)
        loss = cell_text_contrast(cells, texts, positive, ignored, temperature=config.temperature, symmetric=False)
        return {"cell_text": loss}

    run_facts: dict[str, Any] = {
        "recipe": to_dict(config),
        "cells": len(material.cells),
        "hashes": material.hashes,
        "words": words.source,
    }
    train(module, losses_of, config.train, folder=folder, run=run_facts, progress=progress)
    background, _ = simulator.from_profiles(BACKGROUND, rng)
    totals = np.asarray(background.sum(axis=1), np.float64).ravel()
    evidence = fit_evidence(material.markers, background, totals, strength=1.0)
    return Trained(module, genes, words, evidence, frozenset(supported))


def gene_table(rows: NDArray[np.int64], medians: NDArray[np.float64]) -> GeneTable:
    """Return the gene table of vocabulary rows; tokens follow the order of the Ensembl ids."""
    vocabulary = load_vocabulary()
    order = np.argsort(vocabulary.ensembl_ids[rows])
    rows, medians = rows[order], medians[order]
    tokens = (FIRST_TOKEN + np.arange(len(rows))).astype(np.int32)
    return GeneTable(vocabulary.ensembl_ids[rows], vocabulary.symbols[rows], tokens, medians)


def build(config: RecipeConfig, genes: GeneTable, tower: nn.Module, material: Material) -> LangCellModule:
    """Return an untrained model around a text tower that is not trained; genes start from a factorisation.

    Two genes whose profiles look alike start alike: the right singular vectors of the log profiles, in units of
    the medians, centred. A random start needs many times the cells.
    """
    torch.manual_seed(config.train.seed)
    bag = GatedBagConfig(
        vocabulary=FIRST_TOKEN + len(genes), width=config.gene_width, hidden=config.hidden, pooled=256, dropout=0.0
    )
    module = LangCellModule(
        LangCellConfig(
            "bag",
            tower.config,  # type: ignore[arg-type]
            bag=bag,
            temperature=config.temperature,
            token_limit=config.token_limit,
            gene_table=config.name,
        )
    )
    module.text_tower = tower  # type: ignore[assignment]
    module.text_tower.requires_grad_(False)
    columns = {gene: row for row, gene in enumerate(load_vocabulary().ensembl_ids.tolist())}
    rows = np.array([columns[gene] for gene in genes.ensembl_ids.tolist()])
    level = np.log1p(material.profiles.expression[:, rows] * 1e4 / genes.medians.astype(np.float32))
    level -= level.mean(axis=0)
    right = np.linalg.svd(level, full_matrices=False)[2][: config.gene_width]
    start = torch.from_numpy(right.T.astype(np.float32) * np.float32(0.3 * len(genes) ** 0.5))
    with torch.no_grad():
        module.cell_tower.token.weight[FIRST_TOKEN:, : start.shape[1]] = start  # type: ignore[union-attr, index]
    return module
