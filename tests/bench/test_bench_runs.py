"""The bench: what it measures on planted cells, what it leaves out and says so, and what changes nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small_world
import tiny_data

import cellingua as cl
from cellingua.bench import suites
from cellingua.bench.candidates import ask, deranged, random_texts, worded
from cellingua.bench.judge import coordinates, smoothed
from cellingua.bench.learned import Contest, divide
from cellingua.bench.zeroshot import References, find_references, on_columns, serving, untrained
from cellingua.core.errors import InputError
from cellingua.models.model import LangCellModel
from cellingua.tasks.clusters import neighbour_graph

SET = "zheng_facs_sorted"  # a name that the folder of planted cells uses


def labelled(n: int = 60, seed: int = 1, **more: Any) -> suites.BenchSet:
    """Return a set of planted cells with their names as labels."""
    return suites.labelled_set(small_world.cells(n, seed=seed, **more), "own", name="planted", donor_key="batch")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A data folder: two named sets of planted cells, and profiles of their types."""
    tiny_data.write_profiles(tmp_path / "profiles")
    for part, name, seed in (("evaluation", SET, 1), ("corpus", "kim_luad_t34", 2)):
        cells = small_world.cells(60, seed=seed)
        cells.obs["cell_type"], cells.obs[suites.TERM] = cells.obs["own"], cells.obs["truth"]
        (tmp_path / part).mkdir()
        cells.write_h5ad(tmp_path / part / f"{name}.h5ad")
    return tmp_path


def by_method(result: dict[str, Any], question: str) -> dict[str, dict[str, Any]]:
    """Return the runs of one question by method."""
    return {run["method"]: run for run in result["runs"] if run["question"] == question}


def test_a_users_file_zero_shot(small_model: LangCellModel) -> None:
    cells = small_world.cells(80, seed=1)
    before = cells.copy()
    result = cl.bench.measure("zero-shot", cells, labels_from="own", model=small_model, draws=2)
    runs = by_method(result, "labels")
    assert set(runs) == {"model", "markers", "majority", "untrained"}
    assert runs["model"]["accuracy"] > 0.9 > runs["untrained"]["accuracy"]
    assert runs["model"]["cells"] == 80
    assert sum(held["cells"] for held in runs["model"]["per_class"].values()) == 80
    low, high = runs["model"]["intervals"]["macro_f1"]
    assert low <= runs["model"]["macro_f1"] <= high
    assert len(runs["model"]["draws"]["accuracy"]) == 2
    counts = cells.obs["own"].value_counts()
    assert runs["majority"]["accuracy"] == pytest.approx(counts.max() / 80, abs=1e-4)
    assert {entry["method"] for entry in result["skipped"]} == {"profiles", "nearest"}
    assert "profile" in result["skipped"][0]["reason"]
    assert by_method(result, "ontology")["model"]["candidates"] > 1000
    json.dumps(result)
    assert cells.obs.equals(before.obs)
    assert (cells.X != before.X).nnz == 0


def test_no_baseline_of_a_users_file_depends_on_the_order_of_its_cells(small_model: LangCellModel) -> None:
    cells = small_world.cells(60, seed=1)
    order = np.random.default_rng(0).permutation(60)
    first, second = (
        cl.bench.measure("zero-shot", part, labels_from="own", model=small_model, candidates=("labels",), draws=1)
        for part in (cells, cells[order].copy())
    )
    for one, other in zip(first["runs"], second["runs"], strict=True):
        assert one["per_class"] == other["per_class"]
        assert one["smoothed"] == other["smoothed"]


def test_a_folder_of_sets_has_profiles_and_says_what_was_trained_on(folder: Path, small_model: LangCellModel) -> None:
    result = cl.bench.measure("zero-shot", folder, model=small_model, candidates=("terms",), draws=1)
    assert list(result["sets"]) == [SET]  # by default what was kept out of training
    runs = by_method(result, "terms")
    assert runs["profiles"]["accuracy"] > 0.9
    assert runs["nearest"]["accuracy"] > 0.9
    assert result["sets"][SET]["in_training"] is False
    assert result["sets"][SET]["zero_shot"] is False  # this model does not say what it saw
    assert "Not known to be zero-shot" in cl.bench.text(result)
    assert len(result["sets"][SET]["sha256"]) == 64
    both = cl.bench.measure(
        "zero-shot", folder, model=small_model, sets=(SET, "kim_luad_t34"), candidates=("terms",), draws=1,
        methods=("model",),
    )  # fmt: skip
    assert both["sets"]["kim_luad_t34"]["in_training"] is True
    assert "NOT zero-shot" in cl.bench.text(both)
    assert next(run for run in both["runs"] if run["set"] == SET)["accuracy"] == runs["model"]["accuracy"]


@pytest.mark.parametrize(("task", "protocols"), [("few-shot", ("few:3",)), ("fine-tuned", ("share", "folds"))])
def test_learning_methods_learn_from_the_same_cells(
    folder: Path, small_model: LangCellModel, task: str, protocols: tuple[str, ...]
) -> None:
    result = cl.bench.measure(task, folder, model=small_model, protocols=protocols, draws=2)
    for protocol in protocols:
        runs = by_method(result, protocol)
        assert set(runs) >= {"model", "zero_shot", "logistic", "neighbours", "components", "celltypist", "untrained"}
        assert {run["cells"] for run in runs.values()} == {runs["model"]["cells"]}
        assert runs["model"]["accuracy"] > 0.8
        splits = result["sets"][SET]["splits"][protocol]
        assert len(splits) == len(runs["model"]["draws"]["accuracy"]) == 2
        assert splits[0]["digest"] != splits[1]["digest"]
    assert by_method(result, protocols[-1])["majority"]["accuracy"] < 0.5
    if protocols[-1] == "folds":
        assert by_method(result, "folds")["model"]["cells"] == 60


def test_donors_are_held_out_whole(small_model: LangCellModel) -> None:
    cells = labelled()
    assert cells.donors == 2
    (split,) = divide(cells, "donors", 0)
    assert not set(cells.groups[split.train]) & set(cells.groups[split.test])
    with pytest.raises(InputError, match="no two donors"):
        divide(cells.take(cells.groups == "donor 1"), "donors", 0)
    with pytest.raises(InputError, match="no protocol"):
        divide(cells, "thirds", 0)
    result = cl.bench.measure(
        "fine-tuned", small_world.cells(60, seed=1), labels_from="own", donor_key="batch", model=small_model, draws=1,
        methods=("model", "majority"),
    )  # fmt: skip
    assert {run["question"] for run in result["runs"]} == {"share", "donors"}


def test_folds_are_pooled_and_every_cell_is_judged_once() -> None:
    cells = labelled()
    contest = Contest(cells, None, References(None, None, {}))
    rows, found = contest.answer("logistic", divide(cells, "folds", 0), 0)
    assert np.array_equal(rows, np.arange(len(cells)))
    assert found.shape == (60, 6)
    assert np.mean(contest.names[found.argmax(axis=1)] == cells.labels) > 0.8
    assert contest.missing["model"] == "no model was asked for"


def test_baselines_alone_without_a_model() -> None:
    result = cl.bench.measure(
        "few-shot", small_world.cells(60, seed=1), labels_from="own", model=None, draws=1, methods=("logistic", "model")
    )
    assert [run["method"] for run in result["runs"]] == ["logistic"]
    assert result["model"] == {}
    assert "no model" in cl.bench.text(result)


def test_an_untrained_tower_differs_in_its_tower_alone(small_model: LangCellModel) -> None:
    one, same, other = (untrained(small_model, seed) for seed in (0, 0, 1))
    block = labelled(10).block()
    vectors = [model.encode_cells(model.tokenise(block)) for model in (small_model, one, same, other)]
    assert np.array_equal(vectors[1], vectors[2])
    assert not np.allclose(vectors[1], vectors[3])
    assert not np.allclose(vectors[0], vectors[1])
    assert one.genes is small_model.genes
    assert one.evidence is None


def test_controls_are_texts_and_nothing_else() -> None:
    terms = ["CL:0000084", "CL:0000236", "CL:0000576"]
    made = {kind: worded(terms, kind, 3) for kind in ("definitions", "names", "shuffled", "random")}
    for candidates in made.values():
        assert candidates.term_ids == [None] * 3
        assert len(set(candidates.texts)) == 3
    assert made["names"].texts[0] == "cell type: t cell. "
    assert made["definitions"].texts[0].startswith(made["names"].texts[0])
    for number in range(3):
        assert made["shuffled"].texts[number].startswith(made["names"].texts[number])
        assert made["shuffled"].texts[number] != made["definitions"].texts[number]
    assert random_texts(3, 3) == made["random"].texts != random_texts(3, 4)
    for n in (2, 3, 17):
        order = deranged(n, 0)
        assert sorted(order.tolist()) == list(range(n))
        assert (order != np.arange(n)).all()


def test_controls_run_the_model_alone(folder: Path, small_model: LangCellModel) -> None:
    result = cl.bench.measure("controls", folder, model=small_model, draws=1)
    assert [(run["question"], run["method"]) for run in result["runs"]] == [
        (kind, "model") for kind in ("definitions", "names", "shuffled", "random")
    ]


def test_a_term_stands_for_the_nearest_candidate() -> None:
    naive, memory, cd4, t, b = "CL:0000895", "CL:0000897", "CL:0000624", "CL:0000084", "CL:0000236"
    assert serving([naive, memory, cd4, b], [t, naive]) == [naive, t, t, ""]
    assert serving(["CL:nothing", ""], [t]) == ["", ""]


def test_terms_and_labels_are_judged_by_their_own_names() -> None:
    cells = labelled()
    by_label, by_term = ask(cells, "labels"), ask(cells, "terms")
    assert set(by_label.truth.tolist()) == set(small_world.LABELS)
    assert set(by_term.truth.tolist()) == set(small_world.TYPES)
    assert by_label.truth_terms.tolist() == by_term.truth.tolist()
    with pytest.raises(InputError, match="tissue"):
        ask(cells, "tissue")
    with pytest.raises(InputError, match="no candidates"):
        ask(cells, "everything")
    nameless = suites.joined(cells, {label: (label, "") for label in small_world.LABELS})
    with pytest.raises(InputError, match="ontology terms"):
        ask(nameless, "terms")


def test_joined_labels_are_one() -> None:
    cells = labelled()
    merged = suites.joined(cells, dict.fromkeys(small_world.LABELS[1:3], ("T cell", "CL:0000084")))
    assert len(set(merged.labels.tolist())) == 5
    assert (merged.terms == "CL:0000084").sum() == np.isin(cells.labels, small_world.LABELS[1:3]).sum()
    kept, rare = suites.without_rare(merged, int((merged.labels == "T cell").sum()))
    assert set(kept.labels.tolist()) == {"T cell"}
    assert len(rare) == 4


def test_smoothing_mends_a_wrong_cell_among_its_like_and_leaves_strangers_alone() -> None:
    cells = labelled(120)
    near = coordinates(cells)
    graph = neighbour_graph(near, 0)
    names = np.array(sorted(set(cells.labels.tolist())))
    sure = np.where(cells.labels[:, None] == names, 0.9, 0.1 / (len(names) - 1))
    wrong = sure.copy()
    wrong[0] = np.roll(sure[0], 1)
    assert (smoothed(sure, graph).argmax(axis=1) == sure.argmax(axis=1)).mean() > 0.95
    assert names[smoothed(wrong, graph)[0].argmax()] == cells.labels[0]
    assert smoothed(wrong, None) is wrong
    wide = np.concatenate([wrong, np.zeros((120, 50))], axis=1)
    assert np.allclose(smoothed(wide, graph)[:, : len(names)], smoothed(wrong, graph))


def test_classes_stand_in_their_columns() -> None:
    found = on_columns(np.array([[0.7, 0.3]]), np.array(["c", "a"]), np.array(["a", "b", "c"]))
    assert np.allclose(found, [[0.3, 0.0, 0.7]])


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    known = find_references(None, tmp_path)
    assert set(known.missing) == {"markers", "profiles", "nearest"}
    assert known.profiles is None


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"task": "one-shot"}, "no task"),
        ({"data": None}, "No data"),
        ({"labels_from": ""}, "not named"),
        ({"labels_from": "nothing"}, "no column"),
        ({"candidates": ("all",)}, "no candidates"),
        ({"methods": ("magic",)}, "no method"),
        ({"draws": 0}, "draws"),
        ({"sets": ("pbmc3k",)}, "Sets are named"),
        ({"profiles": "nowhere"}, "profiles_meta"),
    ],
)
def test_a_wrong_call_is_refused(arguments: dict[str, Any], told: str, small_model: LangCellModel) -> None:
    call = {"task": "zero-shot", "data": small_world.cells(20), "labels_from": "own", "model": small_model}
    with pytest.raises(InputError, match=told):
        cl.bench.measure(**(call | arguments))


def test_sets_that_are_not_there_are_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no set"):
        suites.named_set("pbmc4k", folder)
    with pytest.raises(InputError, match="not there"):
        suites.named_set("baron_donor1", folder)
    empty = tmp_path / "other"
    (empty / "evaluation").mkdir(parents=True)
    with pytest.raises(InputError, match="none of the named sets"):
        cl.bench.measure("zero-shot", empty, model=None)
    assert suites.available(folder) == [SET, "kim_luad_t34"]


def test_one_label_is_no_question() -> None:
    cells = small_world.cells(20)
    cells.obs["own"] = "B cell"
    with pytest.raises(InputError, match="fewer than two labels"):
        suites.labelled_set(cells, "own")
    cells.obs["own"] = "unknown"
    with pytest.raises(InputError, match="fewer than two labels"):
        suites.labelled_set(cells, "own")
