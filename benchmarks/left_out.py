"""Models that leave one set of real cells out: each judged on the set that it has not seen.

    python -m benchmarks.left_out --data ../shared/data/cells --text-tower runs/text_tower

The preset's recipe at a tenth of its steps, its alignment alone: that is what finds the terms, and what the figures of
``bench-calibration`` and ``bench-unknown`` need; the stages after it take most of the time and move them little. A
model is an ordinary folder under ``cache/left_out``, named after the hash of recipe and data, so that nothing is made
twice and nothing old is taken for new.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks.common import ROOT, shared_folder
from cellingua.cells.collections import CellSet, data_hashes
from cellingua.core.config import to_dict
from cellingua.core.progress import Console, Progress
from cellingua.models.model import LangCellModel
from cellingua.models.shelf import load_model
from cellingua.models.text_sources import load_text_source
from cellingua.recipes.langcell import RecipeConfig, Trained, fit, preset
from cellingua.recipes.langcell_config import StageConfig
from cellingua.recipes.material import Material, read_material
from cellingua.recipes.words import embed_words
from cellingua.words.wordpiece import WordPiece

#: Every labelled set of the corpus with at least 300 cells and two usable types.
SETS = (
    "onek1k_panel1000",
    "kim_luad_t34",
    "pbmc_3p_5p_panel1767",
    "wu_breast_cid4465",
    "fetal_cortex_culture_panel2000",
    "tyser_gastrula_panel2900",
)
SHARE = 10  # of the preset's steps: one in so many
CACHE = ROOT / "cache" / "left_out"
PRESET = "langcell_mini"


def tenth(config: RecipeConfig) -> RecipeConfig:
    """Return the recipe at a tenth of the alignment's steps, without the stages after it and without validation."""
    train = replace(config.train, steps=max(1, config.train.steps // SHARE))
    return replace(config, train=train, first=StageConfig(), matched=StageConfig(), second=StageConfig(), held_out=())


def key_of(config: RecipeConfig, hashes: dict[str, str], left_out: str) -> str:
    """Return 16 hexadecimal digits that stand for recipe, data and the set that is left out."""
    facts = json.dumps([to_dict(config), hashes, left_out], sort_keys=True)
    return hashlib.sha256(facts.encode()).hexdigest()[:16]


def folder_of(left_out: str, data: Path, name: str = PRESET) -> Path:
    """Return where the model without this set lies, or would lie."""
    hashes = {path: digest for path, digest in data_hashes(data).items() if not path.startswith("evaluation/")}
    return CACHE / left_out / key_of(tenth(preset(name)), hashes, left_out)


def load_left_out(left_out: str, data: Path, name: str = PRESET) -> LangCellModel:
    """Return the model that has not seen a set; it ends the program with advice where that was not made yet."""
    folder = folder_of(left_out, data, name) / name
    if not (folder / "manifest.json").is_file():
        raise SystemExit(f"There is no model without {left_out} for this recipe and these data: `make train-left-out`.")
    model = load_model(folder)
    assert isinstance(model, LangCellModel)  # the recipe made it
    return model


def train_left_out(data: Path, text_tower: Path, sets: Sequence[str], progress: Progress, name: str = PRESET) -> None:
    """Make the models that are not there yet."""
    missing = [one for one in sets if not (folder_of(one, data, name) / name / "manifest.json").is_file()]
    if not missing:
        return progress.say("All models are there.")
    config = tenth(preset(name))
    material = read_material(data, config.generic_terms, progress, config.consensus)
    tower, pieces = load_text_source(text_tower)
    CACHE.mkdir(parents=True, exist_ok=True)
    words = embed_words(tower, pieces, CACHE / "words.safetensors", progress)
    for one in missing:
        folder = folder_of(one, data, name)
        progress.say(f"A model without {one}: {folder}")
        seen = material.without([one])
        trained = fit(config, seen, words, tower, pieces, folder / "run", progress, adapt=False)
        save(trained, config, pieces, seen, folder / name)


def save(trained: Trained, config: RecipeConfig, pieces: WordPiece, material: Material, folder: Path) -> None:
    """Write a trained model as the recipe does, without a validation."""
    trained.save(config, pieces, None, material, folder)


def cells_of(left_out: str, cells: CellSet) -> CellSet:
    """Return the labelled cells of a set, types of fewer than two cells included."""
    return cells.take(np.flatnonzero((cells.files == left_out) & (cells.terms != "") & cells.curated))


def main() -> int:
    """Make the models."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of cells, profiles and markers")
    parser.add_argument("--text-tower", type=Path, default=ROOT / "runs" / "text_tower")
    parser.add_argument("--sets", nargs="+", default=SETS, choices=SETS)
    args = parser.parse_args()
    train_left_out(args.data or shared_folder() / "data" / "cells", args.text_tower, args.sets, Console())
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
