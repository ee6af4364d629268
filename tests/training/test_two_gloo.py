"""Two gloo processes give the weights of one process at the same global minibatch."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import two_gloo
from safetensors.torch import load_file

PATH = str(Path(__file__).parents[1])


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The weights of all ways to train, by this process alone and by two under torchrun."""
    pytest.importorskip("lightning_fabric")
    if not torch.distributed.is_gloo_available():
        pytest.skip("this torch was built without gloo")
    folder = tmp_path_factory.mktemp("weights")
    two_gloo.main(folder, world=1)
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [sys.executable, *torchrun, two_gloo.__file__, str(folder), "2", PATH]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
@pytest.mark.parametrize("way", ["plain", "engine", "resumed"])
def test_weights_are_those_of_one_process(out: Path, way: str, strategy: str) -> None:
    one, two = (load_file(out / f"{way}-{name}.safetensors") for name in ("ddp-1", f"{strategy}-2"))
    assert one.keys() == two.keys()
    assert {tensor.dtype for tensor in two.values()} == {torch.float64}
    norm = sum(float(tensor.square().sum()) for tensor in one.values()) ** 0.5
    away = sum(float((one[name] - two[name]).square().sum()) for name in one) ** 0.5
    assert away <= 1e-6 * norm


def test_training_moved_the_weights(out: Path) -> None:
    plain, engine = (load_file(out / f"{way}-ddp-1.safetensors") for way in ("plain", "engine"))
    name = "layers.0.weight"
    assert (plain[name] - engine[name]).norm() > 1e-2 * plain[name].norm()
