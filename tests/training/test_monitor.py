"""The monitor measures what its name says, and leaves no trace in the run."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from cellingua.core.errors import ConfigError
from cellingua.measures.geometry import effective_rank, mean_cosine, spectrum, uniformity, unit_rows
from cellingua.training.monitor import Monitor, geometry

CELLS = torch.randn(40, 6, generator=torch.Generator().manual_seed(0))


def tower(dropout: float) -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(6, 12), nn.Dropout(dropout), nn.Linear(12, 5))


def test_the_floats_are_the_measures() -> None:
    states = np.random.default_rng(0).normal(size=(30, 5))
    found = geometry(states, states, 2.0 * states)
    rows = unit_rows(states)
    assert found["alignment"] == pytest.approx(0.0, abs=1e-12)  # views are compared at unit length
    assert found["uniformity"] == uniformity(rows)
    assert found["mean_cosine"] == mean_cosine(rows)
    assert found["effective_rank"] == effective_rank(rows)
    assert found["spectrum_2"] == pytest.approx(spectrum(rows)[:2].sum())
    assert "spectrum_8" not in found  # five axes
    assert all(isinstance(value, float) for value in found.values())


def test_it_writes_lines_that_can_be_read(tmp_path: Path) -> None:
    module = tower(0.2)
    monitor = Monitor(module, lambda: module(CELLS), every=5, folder=tmp_path / "run")
    assert [step for step in range(11) if monitor.due(step)] == [0, 5, 10]
    first, again = monitor.observe(0), monitor.observe(5)
    assert first == again  # nothing was trained between
    assert first["alignment"] > 0
    lines = [json.loads(line) for line in (tmp_path / "run" / "geometry.jsonl").read_text().splitlines()]
    assert lines == [{"step": 0, **first}, {"step": 5, **first}]
    assert [line["step"] for line in monitor.lines] == [0, 5]


def test_without_dropout_the_views_are_one() -> None:
    module = tower(0.0)
    assert Monitor(module, lambda: module(CELLS)).observe(0)["alignment"] == 0.0


def test_random_state_mode_and_gradients_stay() -> None:
    module = tower(0.2).train()
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    Monitor(module, lambda: module(CELLS)).observe(0)
    assert torch.equal(torch.rand(3), expected)
    assert module.training
    assert all(parameter.grad is None for parameter in module.parameters())

    def broken() -> torch.Tensor:
        raise RuntimeError("no cells")

    with pytest.raises(RuntimeError, match="no cells"):
        Monitor(module, broken).observe(0)
    assert module.training


def test_a_negative_interval_is_refused() -> None:
    with pytest.raises(ConfigError, match="every -1"):
        Monitor(tower(0.1), lambda: CELLS, every=-1)
