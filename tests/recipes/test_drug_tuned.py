"""A tower tuned on responses: what it learns from, what it must not see, and that the given model stays as it is."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import tiny_cellm
import torch

from cellingua.cells.genes import load_vocabulary
from cellingua.core.errors import InputError
from cellingua.models.cellm import CellLMModel
from cellingua.recipes.drug_states import line_states
from cellingua.recipes.drug_tuned import TowerTuning, tuned_states

LINES, HELD = 40, slice(30, 40)


@pytest.fixture(scope="module")
def encoder() -> CellLMModel:
    return tiny_cellm.model("exact")


@pytest.fixture(scope="module")
def world() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return expression of lines, its genes, and responses that follow from ten of the genes; ten lines have none."""
    rng = np.random.default_rng(3)
    rows = tiny_cellm.vocabulary_rows()[:60]
    values = rng.normal(size=(LINES, 60))
    grid = values[:, :10] @ rng.normal(size=(10, 6)) + rng.normal(size=6)
    grid[rng.random(grid.shape) < 0.2] = np.nan
    grid[HELD] = np.nan
    return values, load_vocabulary().ensembl_ids[rows], grid


@pytest.mark.parametrize("rank", [None, 2])
def test_without_a_pass_the_states_are_those_of_the_tower(
    encoder: CellLMModel, world: tuple[np.ndarray, ...], rank: int | None
) -> None:
    values, genes, grid = world
    found = tuned_states(encoder, values, genes, grid, TowerTuning(passes=0, rank=rank), 0)
    assert np.allclose(found, line_states(values, genes, encoder), rtol=0, atol=1e-5)


def test_tuning_parts_lines_that_respond_differently(encoder: CellLMModel, world: tuple[np.ndarray, ...]) -> None:
    """Two kinds of lines with other genes high: the distance of their means over the spread inside a kind rises."""
    values, genes, grid = world
    kind = np.arange(LINES) % 2 == 0
    values = values + 0.3 * np.where(kind[:, None], 1.0, -1.0) * np.where(np.arange(60) < 30, 1.0, -1.0)
    grid = np.where(np.isfinite(grid), np.where(kind, 2.0, -2.0)[:, None], np.nan)
    before = copy.deepcopy(encoder.module.state_dict())
    frozen = line_states(values, genes, encoder)

    def apart(states: np.ndarray) -> float:
        between = states[kind].mean(axis=0) - states[~kind].mean(axis=0)
        along = states @ between / np.linalg.norm(between)
        return float(np.linalg.norm(between) / np.sqrt((along[kind].var() + along[~kind].var()) / 2))

    config = TowerTuning(passes=10, lines=10, rate=1e-2)
    found = tuned_states(encoder, values, genes, grid, config, 0)
    assert apart(found) > 1.05 * apart(frozen)
    assert np.array_equal(found, tuned_states(encoder, values, genes, grid, config, 0))
    corrected = tuned_states(encoder, values, genes, grid, replace(config, rank=4), 0)
    assert not np.allclose(corrected, frozen, rtol=0, atol=1e-4)
    for name, weight in encoder.module.state_dict().items():
        assert torch.equal(weight, before[name]), name


def test_lines_without_responses_teach_nothing(encoder: CellLMModel, world: tuple[np.ndarray, ...]) -> None:
    values, genes, grid = world
    config = TowerTuning(passes=2)
    other = values.copy()
    other[HELD] = np.random.default_rng(5).normal(size=other[HELD].shape)
    one, two = (tuned_states(encoder, table, genes, grid, config, 0) for table in (values, other))
    assert np.allclose(one[:30], two[:30], rtol=0, atol=1e-6)
    assert not np.allclose(one[30:], two[30:], rtol=0, atol=1e-3)
    with pytest.raises(InputError, match="both expression and responses"):
        tuned_states(encoder, values, genes, np.full_like(grid, np.nan), config, 0)
