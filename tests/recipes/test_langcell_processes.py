"""Two processes give LangCell the weights of one at the same global minibatch, matching and masks included."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

SCRIPT = Path(__file__).with_name("two_langcell.py")
PATHS = [str(SCRIPT.parents[1]), str(SCRIPT.parent)]


def test_two_processes_train_the_weights_of_one(tmp_path: Path) -> None:
    pytest.importorskip("lightning_fabric")
    if not torch.distributed.is_gloo_available():
        pytest.skip("this torch was built without gloo")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    for world, start in ((1, []), (2, torchrun)):
        command = [sys.executable, *start, str(SCRIPT), str(tmp_path), str(world), *PATHS]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr[-3000:]
    one, two = (load_file(tmp_path / f"weights-{world}.safetensors") for world in (1, 2))
    assert one.keys() == two.keys()
    assert {tensor.dtype for tensor in two.values()} == {torch.float64}
    norm = sum(float(tensor.square().sum()) for tensor in one.values()) ** 0.5
    away = sum(float((one[name] - two[name]).square().sum()) for name in one) ** 0.5
    assert away <= 1e-6 * norm
