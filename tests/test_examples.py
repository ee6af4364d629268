"""The example scripts do what they say: two processes train the model that one process trains."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import small_world
import torch
from safetensors.torch import load_file

from cellingua.cli.main import main

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
CONFIG = {
    "name": "tiny",
    "description": "A tiny model.",
    "encoder": {
        "genes": 100, "width": 16, "layers": 1, "heads": 2, "head_width": 8, "features": 16, "dropout": 0.1,
        "attention": "favor",
    },
    "batch": 16,
    "block": 4,
    "chunk": 4,
    "probe_cells": 16,
    "label": "cancer",
    "train": {"steps": 6, "checkpoint_every": 4, "precision": "float64"},
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files of cells, a configuration, and ``one``: what one process makes of them."""
    made = tmp_path_factory.mktemp("example")
    (made / "files").mkdir()
    for seed, name in enumerate(("a", "b")):
        adata = small_world.cells(24, seed)
        adata.obs["disease"] = ["normal", "glioma"] * 12
        adata.write_h5ad(made / "files" / f"{name}.h5ad")
    (made / "tiny.json").write_text(json.dumps(CONFIG))
    words = ["--corpus", made / "files", "-o", made / "one", *options(made)]
    assert main(["pretrain", "cellm", *map(str, words)]) == 0
    return made


def options(folder: Path) -> list[str]:
    return ["--label-columns", "cancer=disease", "--config", str(folder / "tiny.json"), "--quiet"]


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_torchrun_trains_the_model_of_one_process(folder: Path, strategy: str) -> None:
    pytest.importorskip("lightning_fabric")
    bash = shutil.which("bash")
    if bash is None or not torch.distributed.is_gloo_available():
        pytest.skip("there is no bash here, or this torch was built without gloo")
    out = folder / strategy
    environment = {**os.environ, "PYTHON": sys.executable, "STRATEGY": strategy, "OMP_NUM_THREADS": "1"}
    command = [bash, EXAMPLES / "pretrain_torchrun.sh", folder / "files", out, *options(folder)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.split() == [str(out / "tiny")]
    states = [load_file(at / "checkpoint" / "step-6.safetensors") for at in (folder / "one", out)]
    names = [name for name in states[0] if name.startswith("weights.")]
    norm = sum(float(states[0][name].double().square().sum()) for name in names) ** 0.5
    away = sum(float((states[0][n].double() - states[1][n].double()).square().sum()) for n in names) ** 0.5
    assert away <= 1e-6 * norm
    assert (out / "tiny" / "manifest.json").is_file()


@pytest.mark.parametrize("name", sorted(path.name for path in EXAMPLES.iterdir() if path.suffix in (".sh", ".sbatch")))
def test_every_script_is_bash(name: str) -> None:
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("there is no bash here")
    done = subprocess.run([bash, "-n", EXAMPLES / name], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
