"""Called by `test_langcell_processes`, and started under torchrun: trains LangCell on a corpus, saves the weights."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

from safetensors.torch import save_file

from cellingua.core.progress import Silent
from cellingua.recipes.langcell_config import StageConfig
from cellingua.recipes.langcell_corpus import fit, prepare
from cellingua.training.place import OneProcess, PlaceConfig, make_place, whole


def main(folder: Path, world: int) -> None:
    """Train a few steps of both stages."""
    from test_langcell_corpus import CONFIG, Memory

    place = OneProcess() if world == 1 else make_place(PlaceConfig("cpu", world), "float64")
    # A chunk owns its random state: with chunks of one, dropout is the same however the cells are shared out.
    objectives = replace(CONFIG.objectives, chunk=1, pair_chunk=1, keep=0.0, masked_cells=0, matched_cells=0)
    train = replace(CONFIG.train, steps=4, precision="float64")
    config = replace(CONFIG, objectives=objectives, first=StageConfig(2, 4e-3), train=train)
    source = Memory()
    prepared = prepare(config, source)
    trained = fit(config, source, prepared, folder / f"run-{world}", Silent(), place)
    weights_now = {name: whole(tensor).detach().clone().contiguous() for name, tensor in trained.state_dict().items()}
    place.first(lambda: save_file(weights_now, folder / f"weights-{world}.safetensors"))


if __name__ == "__main__":
    sys.path[:0] = sys.argv[3:]
    main(Path(sys.argv[1]), int(sys.argv[2]))
