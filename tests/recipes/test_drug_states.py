"""Bulk profiles as cells: order of genes is all that counts, and a line depends on itself alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import tiny_cellm

from cellingua.cells.genes import load_vocabulary
from cellingua.core.errors import InputError
from cellingua.models.cellm import CellLMModel
from cellingua.recipes.drug_states import (
    SEEN_GENES,
    as_cells,
    line_states,
    token_states,
    typical_values,
    untrained,
    with_length,
)


@pytest.fixture(scope="module")
def encoder() -> CellLMModel:
    return tiny_cellm.model("exact")


@pytest.fixture
def profiles() -> tuple[np.ndarray, np.ndarray]:
    """Return five lines over 60 of the model's genes and 20 that it does not have, with holes."""
    rng = np.random.default_rng(1)
    rows = np.concatenate([tiny_cellm.vocabulary_rows()[:60], np.arange(2100, 2120)])
    values = rng.normal(size=(5, len(rows)))
    values[1, :30] = np.nan
    values[4] = np.nan
    return values, load_vocabulary().ensembl_ids[rows]


def test_values_ascend_and_any_number_of_them_spans_the_same() -> None:
    for number in (1, 2, 100, 30_000):
        made = typical_values(number)
        assert len(made) == number
        assert (np.diff(made) >= 0).all()
        assert (made > 0).all()
    assert np.allclose(typical_values(101)[50], typical_values(1)[0])


def test_the_scale_stays_when_a_model_is_trained_again() -> None:
    """Median and ends of the gene medians of the langcell_mini d4bacae8, which the stored drug arms have seen."""
    assert typical_values(1)[0] == pytest.approx(2.1216, abs=1e-4)
    assert typical_values(18_040)[[0, -1]] == pytest.approx([0.00080453, 204.29])


def test_only_the_order_of_a_lines_genes_counts(encoder: CellLMModel, profiles: tuple[np.ndarray, np.ndarray]) -> None:
    values, genes = profiles
    states = line_states(values, genes, encoder)
    assert np.array_equal(states, line_states(np.exp(values) * 7 - 3, genes, encoder), equal_nan=True)
    assert not np.allclose(states[:4], line_states(-values, genes, encoder)[:4])


def test_a_lines_state_is_its_own(encoder: CellLMModel, profiles: tuple[np.ndarray, np.ndarray]) -> None:
    values, genes = profiles
    states = line_states(values, genes, encoder)
    assert states.shape == (5, 2 * encoder.width)
    assert np.isnan(states[4]).all()
    assert np.isfinite(states[:4]).all()
    turned = np.random.default_rng(2).permutation(len(genes))
    assert np.allclose(states[:4], line_states(values[:4][:, turned], genes[turned], encoder), atol=1e-5)
    for row in range(4):
        assert np.allclose(states[row], line_states(values[row : row + 1], genes, encoder)[0], atol=1e-5)


def test_an_absent_gene_is_absent(encoder: CellLMModel, profiles: tuple[np.ndarray, np.ndarray]) -> None:
    values, genes = profiles
    cells = as_cells(values[:2], genes, encoder)
    assert np.diff(cells.counts.indptr).tolist() == [60, 30]
    dropped = as_cells(values[1:2, 30:], genes[30:], encoder)
    assert np.array_equal(dropped.counts.toarray(), cells.counts[1].toarray())


def test_tokens_hold_the_states_that_lines_are_made_of(
    encoder: CellLMModel, profiles: tuple[np.ndarray, np.ndarray]
) -> None:
    values, genes = profiles
    held, states = token_states(values, genes, encoder), line_states(values, genes, encoder)
    tokens, width = SEEN_GENES + 1, encoder.width
    number, vectors = held[:, :tokens], held[:, tokens:].reshape(5, tokens, width)
    assert (number >= 0).sum(axis=1).tolist() == [61, 31, 61, 61, 0]
    assert (vectors[number < 0] == 0).all()
    assert np.allclose(vectors[:4, 0], states[:4, :width], atol=1e-5)  # CLS stands first
    for row in range(4):
        seen = number[row] >= 0
        seen[0] = False
        assert np.allclose(vectors[row, seen].mean(axis=0), states[row, width:], atol=1e-5)


def test_the_highest_genes_are_kept(encoder: CellLMModel, profiles: tuple[np.ndarray, np.ndarray]) -> None:
    values, genes = profiles
    cells = as_cells(values[:1], genes, encoder)
    binned = with_length(encoder, 10).bin(cells)
    assert binned.lengths.tolist() == [10]
    row = encoder.select(cells.counts).toarray()[0]
    assert set(binned.genes.tolist()) == set(np.argsort(-row, kind="stable")[:10].tolist())


def test_random_weights_are_of_the_same_network(encoder: CellLMModel, profiles: tuple[np.ndarray, np.ndarray]) -> None:
    values, genes = profiles
    other = untrained(encoder, 3)
    assert isinstance(other, CellLMModel)
    assert other.config == encoder.config
    made = line_states(values[:2], genes, other)
    assert np.array_equal(made, line_states(values[:2], genes, untrained(encoder, 3)))
    assert not np.allclose(made, line_states(values[:2], genes, encoder))


def test_genes_that_nobody_knows_are_refused(encoder: CellLMModel) -> None:
    with pytest.raises(InputError, match="None of 2 genes"):
        as_cells(np.ones((1, 2)), np.array(["x1", "x2"]), encoder)
    with pytest.raises(InputError, match="lines x genes"):
        as_cells(np.ones((1, 2)), np.array(["x1"]), replace(encoder))
