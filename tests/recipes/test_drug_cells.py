"""Sensitive or resistant: planted responses are found, planted samples are told as such, nothing is learned twice."""

from __future__ import annotations

import numpy as np
import pytest
import response_cells
from anndata import AnnData
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import f1_score, roc_auc_score

from cellingua.cells.doctor import examine
from cellingua.cells.reading import open_cells
from cellingua.core.errors import InputError
from cellingua.measures.splits import Split, by_share
from cellingua.models.model import LangCellModel
from cellingua.recipes.drug_cells import (
    figures,
    label_by_sample,
    left_out_samples,
    random_draws,
    samples_told_apart,
    scorers,
    wordless,
)
from cellingua.recipes.finetune_config import FinetuneConfig, LabelledCells
from cellingua.recipes.finetune_frozen import fit_classifier, read_states
from cellingua.tasks.finetune import read_labelled


def labelled(adata: AnnData) -> tuple[LabelledCells, np.ndarray, np.ndarray]:
    """Return cells, truth and samples."""
    source = open_cells(adata)
    cells, _ = read_labelled(source, examine(source), "label", "sample")
    return cells, np.array(cells.labels) == "sensitive", np.array(cells.donors)


def test_figures_are_those_of_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    truth, probability = rng.random(200) < 0.4, np.round(rng.random(200), 2)
    found = figures(truth, probability)
    said = probability >= 0.5
    assert found["f1"] == pytest.approx(f1_score(truth, said))
    assert found["macro_f1"] == pytest.approx(f1_score(truth, said, average="macro"))
    assert found["auroc"] == pytest.approx(roc_auc_score(truth, probability))
    assert found["accuracy"] == pytest.approx((truth == said).mean())


def test_a_planted_response_is_found_in_samples_that_were_left_out() -> None:
    cells, truth, samples = labelled(response_cells.cells(200))
    compared = scorers(None, cells, "sensitive", FinetuneConfig())
    full = random_draws(compared, truth, 0.8, 2)
    left = left_out_samples(compared, truth, samples)
    assert full["methods"]["logistic regression"]["auroc"] > 0.95
    assert left["methods"]["logistic regression"]["auroc"] > 0.95
    assert left["methods"]["logistic regression"]["auroc_within"] > 0.95
    assert (left["folds"], left["judged"], left["not_judged"]) == (4, 200, 0)
    assert left["methods"]["every cell called sensitive"]["auroc"] == 0.5


def test_a_sample_that_is_taken_for_a_response_is_found_out() -> None:
    cells, truth, samples = labelled(response_cells.cells(200, response=0, equal=True))
    compared = scorers(None, cells, "sensitive", FinetuneConfig())
    assert random_draws(compared, truth, 0.8, 2)["methods"]["logistic regression"]["f1"] > 0.95
    assert left_out_samples(compared, truth, samples)["methods"]["logistic regression"]["auroc"] < 0.7
    apart = samples_told_apart(cells, truth, samples, 0.2)
    assert apart["pairs"] == 2
    assert apart["auroc"] > 0.9
    plain, truth, samples = labelled(response_cells.cells(200, batch=0, equal=True))
    assert samples_told_apart(plain, truth, samples, 0.2)["auroc"] < 0.7


def test_samples_that_hold_one_label_leave_nothing_to_learn_from() -> None:
    cells, truth, samples = labelled(response_cells.cells(60, samples=2, equal=True))
    compared = scorers(None, cells, "sensitive", FinetuneConfig())
    assert left_out_samples(compared, truth, samples)["reason"].startswith("Without any one sample")
    assert left_out_samples(compared, truth, np.full(60, "a"))["reason"] == "There is one sample only."
    three = np.where(truth, "a", np.where(np.arange(60) % 4 == 1, "b", "c"))
    found = left_out_samples(compared, truth, three)
    assert found["not_judged"] == int(truth.sum())
    assert found["judged"] == int((~truth).sum())
    assert found["methods"]["logistic regression"]["auroc"] is None


def test_the_model_is_tuned_on_the_cells_of_the_split_alone(small_model: LangCellModel) -> None:
    import small_world

    adata = small_world.cells(90, seed=2)
    truth = adata.obs["own"].str.contains("T cell").to_numpy()
    adata.obs["label"] = np.where(truth, "sensitive", "resistant")
    adata.obs["sample"] = "one"
    cells, truth, _ = labelled(adata)
    score = scorers(small_model, cells, "sensitive", FinetuneConfig())["model"]
    split = by_share(truth, 0.3, 1)
    said = score(split, 0)
    assert figures(truth[split.test], said)["auroc"] > 0.95
    # The plain way: states of the learned cells alone, read by themselves.
    part, rest = cells.take(split.train), cells.take(split.test)
    classes = wordless(cells.labels, small_model.joint_width)
    fitted = fit_classifier(small_model, read_states(small_model, part, classes), classes, "balanced", 0)
    logits = fitted.logits(read_states(small_model, rest, classes))
    assert np.abs(said - 1 / (1 + np.exp(logits[:, 0] - logits[:, 1]))).max() < 1e-4
    # A cell's score does not depend on which other cells are judged.
    alone = score(Split(split.train, split.test[3:4]), 0)
    assert alone[0] == pytest.approx(said[3], abs=1e-5)


def test_names_of_labels_change_nothing(small_model: LangCellModel) -> None:
    adata = response_cells.cells(80)
    cells, truth, _ = labelled(adata)
    other = LabelledCells(cells.counts, cells.totals, ["B cell" if t else "unlike it" for t in truth], cells.donors)
    split = by_share(truth, 0.5, 0)
    for name in ("model", "logistic regression"):
        first = scorers(small_model, cells, "sensitive", FinetuneConfig())[name](split, 0)
        second = scorers(small_model, other, "B cell", FinetuneConfig())[name](split, 0)
        assert np.abs(first - second).max() < 1e-3


def test_methods_that_train_a_tower_are_tuned_for_each_split(small_model: LangCellModel) -> None:
    cells, truth, _ = labelled(response_cells.cells(40))
    split = by_share(truth, 0.5, 0)
    score = scorers(small_model, cells, "sensitive", FinetuneConfig(method="full", epochs=1))["model"]
    first = score(split, 0)
    assert first.shape == (len(split.test),)
    assert ((first >= 0) & (first <= 1)).all()
    assert np.array_equal(first, score(split, 0))


def test_draws_that_can_not_be_are_refused() -> None:
    cells, _, _ = labelled(response_cells.cells(30))
    compared = scorers(None, cells, "sensitive", FinetuneConfig())
    with pytest.raises(InputError, match="1 sensitive and 29 resistant"):
        random_draws(compared, np.arange(30) == 0, 0.05)
    with pytest.raises(InputError, match="0 draws"):
        random_draws(compared, np.arange(30) < 9, 0.05, 0)


@given(st.lists(st.tuples(st.booleans(), st.sampled_from("abc")), min_size=1, max_size=40))
def test_how_far_the_sample_says_the_label(rows: list[tuple[bool, str]]) -> None:
    truth, samples = np.array([row[0] for row in rows]), np.array([row[1] for row in rows])
    found = label_by_sample(truth, samples)
    assert sum(map(sum, found["samples"].values())) == len(rows)
    assert max(truth.mean(), 1 - truth.mean()) - 1e-12 <= found["accuracy"] <= 1
    assert found["equal"] == (found["accuracy"] == 1 and len(found["samples"]) > 1)
