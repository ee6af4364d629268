"""The arms of the CellLM ablation: the same model, cells, steps and seeds, with and without the contrast.

``python -m benchmarks.pretrain_arms [--runs DIR]`` prepares the corpus, trains each arm (a run that was stopped goes
on), stores the untrained model of each seed too, and writes ``arms.json`` with the hash of every model, by which
`benchmarks.bench_pretrain` knows them again. Files that the probes are measured on are not trained on by any arm.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks.common import shared_folder
from cellingua.cells.collections import read_cells
from cellingua.cells.corpus import Corpus
from cellingua.cells.prepare import CorpusConfig, prepare_corpus
from cellingua.core.files import write_json
from cellingua.core.progress import Console, Progress
from cellingua.core.runtime import set_threads
from cellingua.models.cellm_bundle import load_cellm
from cellingua.models.manifest import read_manifest
from cellingua.recipes.cellm import CellLMRecipeConfig, prepare, preset, run, save

SEEDS = (0, 1, 2)
ARMS = ("contrast", "without")
UNTRAINED = "untrained"
#: The probes' files: no arm has seen a cell of them.
UNSEEN = (
    "onek1k_panel1000.h5ad",
    "pbmc_3p_5p_panel1767.h5ad",
    "skin_ctcl_normal.h5ad",
    "wu_breast_cid4465.h5ad",
)
#: The one evaluation file that a probe reads; what is matched with it is left out of the corpus.
EVALUATION = ("oligodendroglioma",)
LIST = "arms.json"
#: Where the trained arms are kept: bench-pretrain verifies and scores these.
STORED = Path(__file__).resolve().parent / "arms" / "cellm"


def config_of(arm: str, seed: int) -> CellLMRecipeConfig:
    """Return the configuration of an arm: the preset's, with its probes' files held out."""
    config = preset("cellm_mini")
    weights = config.weights if arm == "contrast" else replace(config.weights, contrast=0.0)
    return replace(config, held_out=UNSEEN, weights=weights, train=replace(config.train, seed=seed))


def open_training_corpus(runs: Path, progress: Progress) -> Corpus:
    """Return the corpus of the shared cells, prepared once; cells of the evaluation file are refused."""
    cells = shared_folder() / "data" / "cells"
    reference = read_cells(cells / "evaluation", progress)
    reference = reference.take(np.isin(reference.files, EVALUATION))
    return prepare_corpus(
        [cells / "corpus"], runs / "corpus", CorpusConfig(labels=("disease",)), reference=reference, progress=progress
    )


def store_untrained(corpus: Corpus, seed: int, folder: Path, progress: Progress) -> None:
    """Save the model that an arm of this seed starts from."""
    config = replace(config_of("contrast", seed), description="Not trained: what the arms of this seed start from.")
    save(folder, config, corpus, prepare(config, corpus, progress=progress), [], {})


def main() -> int:
    """Train what is not there yet, and list the arms."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=Path, default=STORED)
    parser.add_argument("--threads", type=int, default=None)
    args = parser.parse_args()
    set_threads(args.threads)
    progress = Console()
    corpus = open_training_corpus(args.runs, progress)
    progress.say(corpus.summary())
    arms = {}
    for seed in SEEDS:
        for arm in (UNTRAINED, *ARMS):
            out = args.runs / f"{arm}_{seed}"
            folder = out / "cellm_mini"
            if not (folder / "manifest.json").is_file():
                progress.say(f"Arm {arm}, seed {seed}.")
                if arm == UNTRAINED:
                    out.mkdir(parents=True, exist_ok=True)
                    store_untrained(corpus, seed, folder, progress)
                else:
                    run(config_of(arm, seed), corpus, out, progress=progress)
            arms[f"{arm}_{seed}"] = read_manifest(folder).hash
            load_cellm(folder)  # every file is the one that was listed
            write_json(args.runs / LIST, {"corpus": corpus.digest, "unseen": list(UNSEEN), "arms": arms})
    print(json.dumps(arms, indent=1))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
