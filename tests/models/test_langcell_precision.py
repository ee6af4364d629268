"""LangCell with a BERT tower: read without padding, in the precision that is asked for, a cell as if it were alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tiny_cellm
import tiny_model as tiny
import torch
from scipy.sparse import csr_matrix
from torch import nn

from cellingua.core.errors import InputError
from cellingua.models import model as model_room
from cellingua.models.bundle import load_bundle, save_bundle
from cellingua.models.cellm_bundle import save_cellm
from cellingua.models.model import LangCellModel
from cellingua.models.shelf import load_annotator, load_any, load_model
from cellingua.nn.batch import CellBatch
from cellingua.nn.packing import packable
from cellingua.nn.precision import Precision, choose
from cellingua.recipes.finetune import check
from cellingua.recipes.finetune_config import FinetuneConfig, LabelledCells

PRECISIONS = ("float32", "bfloat16", "int8")


def made(tmp_path: Path, precision: str = "float32", kind: str = "bert") -> LangCellModel:
    save_bundle(tmp_path / "m", tiny.parts(kind), storage="float32")
    return load_bundle(tmp_path / "m", precision=precision)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("state", ["joint", "cls"])
def test_a_cell_is_the_same_to_the_bit_in_any_company(
    tmp_path: Path, precision: str, state: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, cells = made(tmp_path, precision), tiny.ranked((5, 0, 12, 1, 18, 19, 30, 5))
    whole = model.encode_cells(cells, state=state)
    assert len(np.unique(whole, axis=0)) > 4  # cells differ
    order = np.array([3, 0, 4, 1, 7, 2, 6, 5])
    np.testing.assert_array_equal(model.encode_cells(cells.take(order), state=state, batch_size=3), whole[order])
    for row in range(len(whole)):
        np.testing.assert_array_equal(model.encode_cells(cells.take(np.array([row])), state=state)[0], whole[row])
    monkeypatch.setattr(model_room, "TOKEN_BUDGET", 7)
    np.testing.assert_array_equal(model.encode_cells(cells, state=state), whole)


def test_float32_is_the_plain_module(tmp_path: Path) -> None:
    model, cells = made(tmp_path), tiny.ranked()
    batch = CellBatch.from_arrays(cells.indptr, cells.tokens, cells.values)
    with torch.no_grad():
        joint, states = model.module.cells(batch)
    np.testing.assert_allclose(model.encode_cells(cells), joint, atol=1e-5)
    np.testing.assert_allclose(model.encode_cells(cells, state="cls"), states.pooled, atol=1e-5, rtol=1e-5)
    rows = []
    for group, vectors, found in model.cell_states(cells, batch_size=2):
        rows += group.tolist()
        np.testing.assert_allclose(vectors, joint[group], atol=1e-5)
        for row, hidden, seen in zip(group, found.hidden, found.mask, strict=True):
            expected = states.hidden[row, states.mask[row]]
            torch.testing.assert_close(hidden[seen], expected, atol=1e-5, rtol=1e-5)
    assert sorted(rows) == list(range(5))


@pytest.mark.parametrize("precision", PRECISIONS[1:])
def test_lower_precision_is_near_and_says_what_it_is(tmp_path: Path, precision: str) -> None:
    exact, low, cells = made(tmp_path), made(tmp_path, precision), tiny.ranked()
    assert low.reading == Precision(precision, "asked for")
    answer, truth = low.encode_cells(cells), exact.encode_cells(cells)
    assert answer.dtype == np.float32
    assert not np.array_equal(answer, truth)
    assert (answer * truth).sum(axis=1).min() > 0.999
    np.testing.assert_allclose(np.linalg.norm(answer, axis=1), 1, atol=1e-6)
    _, _, states = next(low.cell_states(cells))
    assert states.hidden.dtype == (torch.bfloat16 if precision == "bfloat16" else torch.float32)


def test_by_itself_it_does_what_the_processor_can(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = made(tmp_path, "auto")
    assert model.reading == choose("auto", "cpu")
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: True, raising=False)
    assert model.reading == Precision("bfloat16", "this processor has AMX")
    assert made(tmp_path, "float32").reading.name == "float32"


@pytest.mark.parametrize("precision", ["auto", *PRECISIONS])
def test_a_bag_is_always_float32(tmp_path: Path, precision: str) -> None:
    bag, cells = made(tmp_path, precision, "bag"), tiny.ranked()
    assert bag.reading == Precision("float32", "a bag tower is always read in float32")
    np.testing.assert_array_equal(bag.encode_cells(cells), made(tmp_path, "float32", "bag").encode_cells(cells))


def test_loaded_in_8_bits_the_cell_tower_is_kept_so(tmp_path: Path) -> None:
    model, cells = made(tmp_path, "int8"), tiny.ranked()
    tower = model.module.cell_tower
    assert not any(isinstance(part, nn.Linear | nn.Embedding) for part in tower.modules())
    by_hand = made(tmp_path)
    by_hand.precision = "int8"
    np.testing.assert_allclose(model.encode_cells(cells), by_hand.encode_cells(cells), atol=1e-5)
    assert model.encode_texts(["b cell"]).shape == (1, 32)  # the text side is read as ever


def test_loaded_in_8_bits_it_is_not_tuned(tmp_path: Path) -> None:
    labelled = LabelledCells(csr_matrix((4, 3), dtype=np.float32), np.ones(4), ["a", "a", "b", "b"], None)
    for method in ("classifier", "full"):
        check(made(tmp_path, "float32"), labelled, FinetuneConfig(method))
        check(made(tmp_path, "int8", "bag"), labelled, FinetuneConfig(method))
        with pytest.raises(InputError, match="int8"):
            check(made(tmp_path, "int8"), labelled, FinetuneConfig(method))


def test_weights_that_have_changed_are_read_anew(tmp_path: Path) -> None:
    model, cells = made(tmp_path), tiny.ranked()
    before = model.encode_cells(cells)
    query = model.module.cell_tower.layers[0].attention.query
    with torch.no_grad():
        query.weight.mul_(3)
    changed = model.encode_cells(cells)
    assert np.abs(changed - before).max() > 1e-4
    batch = CellBatch.from_arrays(cells.indptr, cells.tokens, cells.values)
    with torch.no_grad():
        np.testing.assert_allclose(changed, model.module.cells(batch)[0], atol=1e-5)
    query.weight = nn.Parameter(query.weight.detach() / 3)
    np.testing.assert_allclose(model.encode_cells(cells), before, atol=1e-6)


def test_a_tower_with_adapters_is_read_as_it_stands(tmp_path: Path) -> None:
    class Adapted(nn.Module):
        def __init__(self, layer: nn.Linear) -> None:
            super().__init__()
            self.layer, self.weight, self.bias = layer, layer.weight, layer.bias

        def forward(self, states: torch.Tensor) -> torch.Tensor:
            return self.layer(states) * 2

    model, cells = made(tmp_path), tiny.ranked()
    before = model.encode_cells(cells)
    attention = model.module.cell_tower.layers[0].attention
    attention.value = Adapted(attention.value)
    assert not packable(model.module.cell_tower)
    after = model.encode_cells(cells)
    assert np.abs(after - before).max() > 1e-4
    batch = CellBatch.from_arrays(cells.indptr, cells.tokens, cells.values)
    with torch.no_grad():
        np.testing.assert_allclose(after, model.module.cells(batch)[0], atol=1e-5)


def test_loading_by_name_hands_the_precision_on(tmp_path: Path) -> None:
    made(tmp_path)
    for load in (load_model, load_any, load_annotator):
        assert load(tmp_path / "m", precision="bfloat16").precision == "bfloat16"
        with pytest.raises(InputError, match="float16"):
            load(tmp_path / "m", precision="float16")


def test_a_cellm_is_float32_alone(tmp_path: Path) -> None:
    save_cellm(tmp_path / "c", tiny_cellm.parts())
    for precision in ("auto", "float32"):
        assert load_any(tmp_path / "c", precision=precision).name
    with pytest.raises(InputError, match="CellLM"):
        load_any(tmp_path / "c", precision="int8")
