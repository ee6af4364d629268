"""`tl.finetune` on an AnnData, and columns as labels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import small_world

import cellingua as cl
from cellingua.core.errors import FileError, InputError
from cellingua.models.model import LangCellModel
from cellingua.tasks.columns import label_column, text_column
from cellingua.tasks.finetune import digest, hold_out


def test_a_model_in_memory_and_one_on_disk_name_the_same(small_model: LangCellModel, tmp_path: Path) -> None:
    cells, fresh = small_world.cells(60, seed=1, noise=0.5), small_world.cells(30, seed=2, noise=0.5)
    before = cells.copy()
    held = cl.tl.finetune(cells, "own", model=small_model)
    stored = cl.tl.finetune(cells, "own", tmp_path / "mine", model=small_model)
    one, two = cl.tl.annotate(fresh.copy(), model=held.model), cl.tl.annotate(fresh.copy(), model=tmp_path / "mine")
    assert one.labels.tolist() == two.labels.tolist()
    np.testing.assert_allclose(one.probability, two.probability, atol=2e-5)
    assert one.embedding_key == "X_langcell"
    assert stored.model.folder == tmp_path / "mine"
    # Nothing is written into the cells.
    pd.testing.assert_frame_equal(cells.obs, before.obs)
    assert (cells.X != before.X).nnz == 0
    assert list(cells.obsm) == list(cells.uns) == []


def test_an_output_that_exists_is_refused_before_work(small_model: LangCellModel, tmp_path: Path) -> None:
    with pytest.raises(FileError, match="exists"):
        cl.tl.finetune(small_world.cells(20), "nothing", tmp_path, model=small_model)


def test_a_test_set_takes_no_part(small_model: LangCellModel) -> None:
    cells = small_world.cells(80, seed=1, noise=0.5)
    tuned = cl.tl.finetune(cells, "own", model=small_model, donor_key="batch", test_share=0.4)
    assert tuned.facts["test"]["on"] == "whole donors"
    assert tuned.facts["cells"] + tuned.facts["test"]["cells"] == 80
    assert len(tuned.facts["donors"]) == 1


def test_rolled_up_labels_come_from_the_ontology(small_model: LangCellModel) -> None:
    cells = small_world.cells(60, seed=1, noise=0.5)
    tuned = cl.tl.finetune(cells, "own", model=small_model)
    unsure = cl.tl.annotate(small_world.cells(60, seed=3, noise=0.93), model=tuned.model)
    assert set(unsure.status) <= {"named", "rolled_up", "unknown"}
    assert (unsure.status != "named").any()
    rolled = unsure.labels[unsure.status == "rolled_up"]
    assert not set(rolled) & set(small_world.LABELS)


@pytest.mark.parametrize(
    ("values", "labels"),
    [
        (pd.Categorical(["a", None, "b"]), ["a", "", "b"]),
        ([b"a", "b", None], ["a", "b", ""]),
        ([" a ", "nan", "NaN"], ["a", "", ""]),
        ([1.0, 2.0, np.nan], ["1", "2", ""]),
        ([1, 2, 1], ["1", "2", "1"]),
        ([True, False, True], ["True", "False", "True"]),
        (pd.array([1, None, 2], dtype="Int64"), ["1", "", "2"]),
    ],
    ids=["categorical", "bytes", "text", "floats", "integers", "booleans", "nullable"],
)
def test_a_column_as_labels(values: object, labels: list[str]) -> None:
    assert label_column(pd.DataFrame({"x": values}), "x") == labels


@pytest.mark.parametrize(
    ("values", "says"),
    [
        (np.linspace(0, 1, 30), "holds numbers"),
        (np.arange(500), "holds numbers"),
        ([f"cell-{row}" for row in range(300)], "different values"),
    ],
    ids=["floats", "many", "names"],
)
def test_a_column_of_something_else_is_refused(values: object, says: str) -> None:
    with pytest.raises(InputError, match=says):
        label_column(pd.DataFrame({"x": values}), "x")


def test_a_column_that_is_not_there_names_the_nearest() -> None:
    with pytest.raises(InputError, match="celltype"):
        text_column(pd.DataFrame({"celltype": ["a"], "other": ["b"]}), "cell_type")


def test_the_digest_is_of_counts_and_labels(small_model: LangCellModel) -> None:
    from cellingua.recipes.finetune_config import LabelledCells

    made = small_world.cells(10)
    held = LabelledCells(made.X.tocsr(), np.ones(10), made.obs["own"].tolist())
    other = LabelledCells(made.X.tocsr(), np.ones(10), made.obs["own"].tolist()[::-1])
    assert digest(held) == digest(held.take(np.arange(10)))
    assert len({digest(held), digest(other), digest(held.take(np.arange(9)))}) == 3


def test_a_share_divides_each_class_or_whole_donors() -> None:
    from scipy.sparse import csr_matrix

    from cellingua.recipes.finetune_config import LabelledCells

    labels = ["a"] * 10 + ["b"] * 10
    cells = LabelledCells(csr_matrix((20, 3)), np.ones(20), labels)
    split, told = hold_out(cells, 0.2, 0)
    assert told == "a share of each class"
    assert sorted(labels[row] for row in split.test.tolist()) == ["a", "a", "b", "b"]
    nothing, _ = hold_out(cells, 0.0, 0)
    assert len(nothing.test) == 0
    with pytest.raises(InputError, match="test share"):
        hold_out(cells, -0.1, 0)
