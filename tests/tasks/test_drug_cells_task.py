"""``tl.drug_cells`` and ``tl.drug_transfer`` as users call them: labels, samples, folders, warnings in plain words."""

from __future__ import annotations

import json
from pathlib import Path

import drug_world
import numpy as np
import pandas as pd
import pytest
import response_cells
from awkward_files import write_10x_folder
from response_cells import write_table

from cellingua import tl
from cellingua.core.errors import InputError
from cellingua.tasks.drug_cells import DrugCells
from cellingua.tasks.drug_labels import positives

QUICK = {"model": None, "draws": 2}


def said(found: DrugCells) -> str:
    return " ".join(found.warnings)


@pytest.mark.parametrize(
    ("labels", "given", "means"),
    [
        (["sensitive", "resistant", ""], {}, ("sensitive", "resistant")),
        (["R", "S", "s?"], {}, ("S", "R")),
        (["1", "0"], {}, ("1", "0")),
        (["True", "False"], {}, ("True", "False")),
        (["holoclone", "paraclone"], {"sensitive": "holoclone"}, ("holoclone", "paraclone")),
        (["holoclone", "paraclone"], {"resistant": "holoclone"}, ("paraclone", "holoclone")),
        (["day0", "day3", "day11"], {"sensitive": "day0", "resistant": "day11"}, ("day0", "day11")),
        (["sensitive", "survivor"], {}, ("sensitive", "survivor")),
    ],
)
def test_which_label_means_what(labels: list[str], given: dict[str, str], means: tuple[str, str]) -> None:
    rows, truth, told = positives(labels, "response", **given)
    assert tuple(told["means"].values()) == means
    assert [labels[row] for row in rows[truth]] == [means[0]]
    assert [labels[row] for row in rows[~truth]] == [means[1]]
    assert sum(told["others"].values()) == len([label for label in labels if label]) - 2


@pytest.mark.parametrize(
    ("labels", "given", "message"),
    [
        (["", ""], {}, "No cell has a label"),
        (["sensitive", "sensitive"], {}, "have one label: 'sensitive' \\(2\\)"),
        (["a", "b"], {}, "isn't clear which"),
        (["sensitive", "resistant", "1", "0"], {}, "isn't clear which"),
        (["a", "b", "c"], {"sensitive": "a"}, "isn't clear which"),
        (["a", "b"], {"sensitive": "c"}, "has the label 'c'"),
        (["a", "b"], {"sensitive": "a", "resistant": "a"}, "isn't clear which"),
    ],
)
def test_labels_that_say_too_little_are_refused(labels: list[str], given: dict[str, str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        positives(labels, "response", **given)


def test_figures_of_labelled_cells_come_with_samples_left_out() -> None:
    adata = response_cells.cells(160)
    before = adata.copy()
    found = tl.drug_cells(adata, "number", sample_key="sample", **QUICK)
    assert found.facts["sensitive"] + found.facts["resistant"] == 160
    assert found.few["learned_from"].keys() == found.full["learned_from"].keys()
    assert sum(found.full["learned_from"].values()) in (127, 128, 129)
    assert found.samples["methods"]["logistic regression"]["auroc"] > 0.9
    assert not found.label_by_sample["equal"]
    assert "label equals the sample" not in said(found)
    json.dumps(found.to_dict(), allow_nan=False)
    assert adata.obs.equals(before.obs)
    again = tl.drug_cells(before, "number", sample_key="sample", **QUICK)
    assert again.to_dict() == found.to_dict()


def test_where_the_label_is_the_sample_a_plain_warning_says_so() -> None:
    adata = response_cells.cells(120, samples=2, equal=True, response=0)
    found = tl.drug_cells(adata, sample_key="sample", **QUICK)
    assert found.full["methods"]["logistic regression"]["f1"] > 0.95
    assert "The label equals the sample: each of the 2 samples" in said(found)
    assert "No sample could be left out" in said(found)
    four = tl.drug_cells(response_cells.cells(160, equal=True, response=0), sample_key="sample", few=0.2, **QUICK)
    assert "Two samples of the same label are told apart" in said(four)
    assert "No samples were given" in said(tl.drug_cells(adata, **QUICK))
    adata.obs["one"] = "x"
    assert "All cells are of one sample" in said(tl.drug_cells(adata, sample_key="one", **QUICK))
    nearly = response_cells.cells(120, samples=2, equal=True)
    nearly.obs.iloc[:3, nearly.obs.columns.get_loc("label")] = "sensitive"
    assert "The sample nearly says the label" in said(tl.drug_cells(nearly, sample_key="sample", **QUICK))


def test_a_model_takes_part_by_name_or_folder(small_model_folder: Path) -> None:
    found = tl.drug_cells(response_cells.cells(60), model=small_model_folder, draws=1, sample_key="sample")
    assert set(found.few["methods"]) == {"model", "logistic regression", "every cell called sensitive"}
    assert found.facts["model"]["name"] == "small_world"
    assert set(found.samples["methods"]) == set(found.few["methods"])


def test_a_folder_with_a_table_is_one_file(tmp_path: Path) -> None:
    adata = response_cells.cells(80)
    write_10x_folder(tmp_path / "files", adata)
    found = tl.drug_cells(tmp_path / "files", table=write_table(tmp_path / "t.csv", adata), **QUICK)
    direct = tl.drug_cells(adata, sample_key="sample", **QUICK)
    assert found.few == direct.few
    assert found.samples == direct.samples
    with pytest.raises(InputError, match="goes with a folder"):
        tl.drug_cells(adata, table=tmp_path / "t.csv", **QUICK)


def test_the_drug_model_is_judged_on_the_labels_without_learning_from_them() -> None:
    adata = drug_world.cells(60)
    adata.obs["label"] = np.where(adata.obs["cluster"] == "a", "sensitive", "resistant")
    model = drug_world.model()
    found = tl.drug_cells(adata, drug="az d8931", drug_model=model, **QUICK)
    assert found.shipped["drug"] == "AZD-8931"
    adata.obs["label"] = np.where(adata.obs["cluster"] == "a", "resistant", "sensitive")
    turned = tl.drug_cells(adata, drug="AZD-8931", drug_model=model, **QUICK)
    assert found.shipped["auroc"] + turned.shipped["auroc"] == pytest.approx(1.0, abs=1e-4)
    with pytest.raises(InputError, match="not known"):
        tl.drug_cells(adata, drug="aspirin", drug_model=model, **QUICK)


def transfer_world() -> tuple[pd.DataFrame, pd.DataFrame]:
    return drug_world.expression(), drug_world.measured()


def test_cells_are_scored_by_lines_and_labels_only_judge() -> None:
    lines, responses = transfer_world()
    adata = drug_world.cells(60)
    truth = pd.Series(dict(zip(responses.line + responses.drug, responses.ln_ic50, strict=True)))
    means = {kind: truth[f"LINE-{line}Cisplatin"] for kind, line in (("a", 50), ("b", 55), ("c", 60))}
    lowest = min(means, key=lambda kind: means[kind])
    cluster = np.array(["a", "b", "c"])[np.arange(60) % 3]
    adata.obs["label"] = np.where(cluster == lowest, "sensitive", "resistant")
    found = tl.drug_transfer(adata, lines, responses, drugs=["cis platin", "Docetaxel"], labels_from="label")
    assert list(found.scores.columns) == ["Cisplatin", "Docetaxel"]
    assert found.scores.index.tolist() == adata.obs_names.tolist()
    assert found.auroc["Cisplatin"] > 0.9
    assert found.facts["lines"] == {"Cisplatin": 64, "Docetaxel": 64}
    assert "changes with the cells beside it" in found.warnings[-1]
    without = tl.drug_transfer(adata, lines, responses, drugs=["Cisplatin"])
    assert without.auroc == {"Cisplatin": None}
    assert np.allclose(without.scores["Cisplatin"], found.scores["Cisplatin"])


def test_z_scores_are_taken_as_they_are_on_request() -> None:
    lines, responses = transfer_world()
    adata = drug_world.cells(60)
    dense = np.log1p(adata.X.toarray())
    adata.X = (dense - dense.mean(axis=0)) / np.maximum(dense.std(axis=0), 1e-9)
    with pytest.raises(InputError):
        tl.drug_transfer(adata, lines, responses, drugs=["Cisplatin"])
    found = tl.drug_transfer(adata, lines, responses, drugs=["Cisplatin"], as_is=True)
    assert np.isfinite(found.scores.to_numpy()).all()
    adata.X[3, 5] = np.nan
    with pytest.raises(InputError, match="not finite"):
        tl.drug_transfer(adata, lines, responses, drugs=["Cisplatin"], as_is=True)
    for drugs, message in (([], "No drug"), (["Aspirin"], "no drug 'Aspirin'")):
        with pytest.raises(InputError, match=message):
            tl.drug_transfer(drug_world.cells(9), lines, responses, drugs=drugs)


def test_the_public_sets_are_read_and_warned_of(shared: Path) -> None:
    path = shared / "data" / "drug" / "single_cell" / "a375_plx4720.h5ad"
    if not path.is_file():
        pytest.skip("the folder of drug-response data is not there")
    found = tl.drug_cells(path, "sensitive_PLX4720", sample_key="population", **QUICK)
    assert (found.facts["sensitive"], found.facts["resistant"]) == (62, 46)
    assert "label equals the sample" in said(found)
    assert found.notes[-1].startswith("X holds no whole numbers")
