"""Models at a tenth of the steps: one without each set of real cells, judged on it; and one for each training seed.

    python -m benchmarks.left_out --data ../shared/data/cells --text-tower runs/text_tower
    python -m benchmarks.left_out --data ../shared/data/cells --text-tower runs/text_tower --seeds 0 1 2

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
SEEDS = (0, 1, 2)  # of training; how far they differ is told beside the scoreboard
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


def folder_of(left_out: str, data: Path, name: str = PRESET, seed: int | None = None) -> Path:
    """Return where the model without this set lies, or would lie; that of a training seed leaves none out ("")."""
    hashes = {path: digest for path, digest in data_hashes(data).items() if not path.startswith("evaluation/")}
    config = tenth(preset(name))
    if seed is None:
        return CACHE / left_out / key_of(config, hashes, left_out)
    return CACHE / f"seed_{seed}" / key_of(seeded(config, seed), hashes, left_out)


def seeded(config: RecipeConfig, seed: int) -> RecipeConfig:
    """Return the recipe with another training seed."""
    return replace(config, train=replace(config.train, seed=seed))


def seed_models(data: Path, name: str = PRESET) -> list[Path]:
    """Return the folders of the models of all training seeds; none where one of them was not made yet."""
    folders = [folder_of("", data, name, seed) / name for seed in SEEDS]
    return folders if all((folder / "manifest.json").is_file() for folder in folders) else []


def load_left_out(left_out: str, data: Path, name: str = PRESET) -> LangCellModel:
    """Return the model that has not seen a set; it ends the program with advice where that was not made yet."""
    folder = folder_of(left_out, data, name) / name
    if not (folder / "manifest.json").is_file():
        raise SystemExit(f"There is no model without {left_out} for this recipe and these data: `make train-left-out`.")
    model = load_model(folder)
    assert isinstance(model, LangCellModel)  # the recipe made it
    return model


def train_left_out(
    data: Path,
    text_tower: Path,
    sets: Sequence[str],
    progress: Progress,
    name: str = PRESET,
    seeds: Sequence[int] = (),
) -> None:
    """Make the models that are not there yet: one without each of `sets`, and one on everything for each seed."""
    wanted: list[tuple[str, int | None]] = [*((one, None) for one in sets), *(("", seed) for seed in seeds)]
    missing = [x for x in wanted if not (folder_of(x[0], data, name, x[1]) / name / "manifest.json").is_file()]
    if not missing:
        return progress.say("All models are there.")
    config = tenth(preset(name))
    material = read_material(data, config.generic_terms, progress, config.consensus)
    tower, pieces = load_text_source(text_tower)
    CACHE.mkdir(parents=True, exist_ok=True)
    words = embed_words(tower, pieces, CACHE / "words.safetensors", progress)
    for one, seed in missing:
        folder, own = folder_of(one, data, name, seed), config if seed is None else seeded(config, seed)
        progress.say(f"A model {f'without {one}' if one else f'of seed {seed}'}: {folder}")
        seen = material.without([one]) if one else material
        trained = fit(own, seen, words, tower, pieces, folder / "run", progress, adapt=False)
        save(trained, own, pieces, seen, folder / name)


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
    parser.add_argument("--sets", nargs="+", choices=SETS, help="sets to leave out (default: all, unless --seeds)")
    parser.add_argument("--seeds", nargs="+", type=int, default=[], help="training seeds")
    args = parser.parse_args()
    sets = args.sets or ([] if args.seeds else SETS)
    data = args.data or shared_folder() / "data" / "cells"
    train_left_out(data, args.text_tower, sets, Console(), seeds=args.seeds)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
