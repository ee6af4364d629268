"""Two processes give LangCell the weights of one at the same global minibatch, matching and masks included."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import two_langcell
from safetensors.torch import load_file

PATHS = [str(Path(__file__).parents[1]), str(Path(__file__).parent)]


def test_two_processes_train_the_weights_of_one(tmp_path: Path) -> None:
    pytest.importorskip("lightning_fabric")
    if not torch.distributed.is_gloo_available():
        pytest.skip("this torch was built without gloo")
    two_langcell.main(tmp_path, world=1)
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [sys.executable, *torchrun, two_langcell.__file__, str(tmp_path), "2", *PATHS]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    one, two = (load_file(tmp_path / f"weights-{world}.safetensors") for world in (1, 2))
    assert one.keys() == two.keys()
    assert {tensor.dtype for tensor in two.values()} == {torch.float64}
    norm = sum(float(tensor.square().sum()) for tensor in one.values()) ** 0.5
    away = sum(float((one[name] - two[name]).square().sum()) for name in one) ** 0.5
    assert away <= 1e-6 * norm
