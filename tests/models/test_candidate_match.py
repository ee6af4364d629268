"""Similarity and match classifier of a whole model, against the towers one pair at a time."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_model
import torch
from scipy.sparse import csr_matrix

from cellingua.core.errors import InputError, ModelError
from cellingua.models.bundle import load_bundle, save_bundle
from cellingua.models.matching import ask, check_match, match_cells, prepare_match
from cellingua.models.model import LangCellModel
from cellingua.nn.batch import CellBatch
from cellingua.nn.matching import match_plain
from cellingua.words.candidates import Candidates

SIZES = (5, 0, 12, 1, 18)
CANDIDATES = Candidates(
    ["B cell", "T cell", "mine"], ["CL:0000236", "CL:0000084", None], ["", "", "b cell . monocytes"], "user"
)


@dataclass
class Block:
    counts: Any
    totals: Any


BLOCK = Block(csr_matrix((len(SIZES), 3), dtype=np.float32), np.ones(len(SIZES)))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("models") / "tiny"
    save_bundle(place, tiny_model.parts("bert"), storage="float32")
    return place


@torch.no_grad()
def pair_by_pair(model: LangCellModel) -> np.ndarray:
    """Return the log-odds of every pair in float32, padded and masked."""
    ranked = tiny_model.ranked(SIZES)
    _, states = model.module.cells(CellBatch.from_arrays(ranked.indptr, ranked.tokens, ranked.values))
    ready = prepare_match(model, CANDIDATES)
    head = model.module.match_head
    assert head is not None
    logits = match_plain(model.module.text_tower, head, states, ready.matcher.ids, ready.matcher.mask)
    return (logits[:, :, 1] - logits[:, :, 0]).numpy()


@pytest.mark.parametrize(("precision", "apart"), [("float32", 2e-5), ("bfloat16", 0.3), ("int8", 0.3)])
def test_log_odds_in_every_precision(folder: Path, precision: str, apart: float) -> None:
    expected = pair_by_pair(load_bundle(folder))
    model = load_bundle(folder, precision=precision)
    said = ask(model, BLOCK, tiny_model.ranked(SIZES), prepare_match(model, CANDIDATES, top=0))
    assert said.chosen is None
    assert said.log_odds.dtype == np.float32
    np.testing.assert_allclose(said.log_odds, expected, atol=apart * max(1.0, np.abs(expected).max()), rtol=0)
    np.testing.assert_allclose(said.embedding[1], 0)


def test_the_likeliest_are_read(folder: Path) -> None:
    model = load_bundle(folder, precision="float32")
    ranked = tiny_model.ranked(SIZES)
    whole = ask(model, BLOCK, ranked, prepare_match(model, CANDIDATES, top=0))
    few = ask(model, BLOCK, ranked, prepare_match(model, CANDIDATES, top=2))
    assert few.chosen is not None
    np.testing.assert_array_equal(few.chosen, np.argsort(-whole.similarity, axis=1, kind="stable")[:, :2])
    np.testing.assert_allclose(few.log_odds, np.take_along_axis(whole.log_odds, few.chosen, axis=1), atol=1e-5)
    np.testing.assert_allclose(few.similarity, whole.similarity)


def test_a_cell_alone_is_the_same_to_the_bit(folder: Path) -> None:
    model = load_bundle(folder, precision="float32")
    ranked = tiny_model.ranked(SIZES)
    match = prepare_match(model, CANDIDATES, top=2)
    embedding, logits = match_cells(model, BLOCK, ranked, match)
    for row in range(len(SIZES)):
        alone = match_cells(model, Block(BLOCK.counts[[row]], BLOCK.totals[[row]]), ranked.take(np.array([row])), match)
        np.testing.assert_array_equal(alone[0][0], embedding[row])
        # The similarity is one matrix product over all cells, which may add up in another order.
        np.testing.assert_allclose(alone[1][0], logits[row], atol=1e-6)


def test_refusals(folder: Path, tmp_path: Path) -> None:
    save_bundle(tmp_path / "bag", tiny_model.parts("bag"), storage="float32")
    with pytest.raises(ModelError, match="no match head"):
        check_match(load_bundle(tmp_path / "bag"))
    with pytest.raises(InputError, match="match is 'mine'"):
        check_match(load_bundle(folder), "mine")
