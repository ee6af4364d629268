"""The main job on a small world: right, alike in every form, and polite to what is there."""

from __future__ import annotations

from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
import small_world
from scipy.sparse import csc_matrix, csr_matrix

from cellingua.cells.reading import open_cells
from cellingua.core.errors import CountsError, GeneError, InputError, LabelError
from cellingua.models.model import LangCellModel
from cellingua.tasks import scoring
from cellingua.tasks.annotate import annotate
from cellingua.tasks.embed import embed
from cellingua.tasks.result import Annotation
from cellingua.tasks.summary import look_again, summarise
from cellingua.tasks.writing import result_columns, storable, write_annotated

LABELS = small_world.LABELS


def assert_same_cells(a: Annotation, b: Annotation, rows: np.ndarray | slice = slice(None)) -> None:
    """Assert that `a`, for these rows, says of every cell what `b` says."""
    np.testing.assert_array_equal(a.labels[rows], b.labels)
    np.testing.assert_array_equal(a.status[rows], b.status)
    np.testing.assert_array_equal(a.runner_up[rows], b.runner_up)
    np.testing.assert_allclose(a.probability[rows], b.probability, atol=1e-5)
    np.testing.assert_allclose(a.embedding[rows], b.embedding, atol=1e-5)


def test_planted_types_are_named(small_model: LangCellModel) -> None:
    cells = small_world.cells(150, seed=1)
    result = annotate(cells, LABELS, model=small_model)
    assert np.mean(result.term_ids == cells.obs["truth"].to_numpy()) > 0.97
    assert len(result.clusters) >= 5
    assert all(row.share > 0.9 for row in result.clusters)
    assert "6 candidates" in repr(result)


def test_with_the_whole_ontology_they_are_named_or_rolled_up_rightly(small_model: LangCellModel) -> None:
    from cellingua.words.ontology import load_ontology

    ontology = load_ontology("CL")
    cells = small_world.cells(60, seed=2)
    result = annotate(cells, model=small_model)
    assert len(result.candidates.labels) > 2500
    pairs = zip(result.term_ids, cells.obs["truth"], strict=True)
    right = [a == b or (a != "" and a in ontology.ancestors(b)) for a, b in pairs]
    assert np.mean(right) > 0.9


def test_a_cell_answers_alone_and_in_any_order(small_model: LangCellModel, monkeypatch: pytest.MonkeyPatch) -> None:
    cells = small_world.cells(30, seed=3, noise=0.85)
    whole = annotate(cells.copy(), LABELS, model=small_model)
    assert len(set(whole.status)) > 1  # hard cells among them, or this shows little
    order = np.random.default_rng(0).permutation(30)
    assert_same_cells(whole, annotate(cells[order].copy(), LABELS, model=small_model), order)
    for row in range(4):
        assert_same_cells(whole, annotate(cells[[row]].copy(), LABELS, model=small_model), np.array([row]))
    monkeypatch.setattr(scoring, "ROWS", 7)
    assert_same_cells(whole, annotate(cells.copy(), LABELS, model=small_model))


def test_order_of_genes_and_form_of_the_matrix_change_nothing(small_model: LangCellModel) -> None:
    cells = small_world.cells(30, seed=4, noise=0.5)
    whole = annotate(cells.copy(), LABELS, model=small_model)
    shuffled = cells[:, np.random.default_rng(1).permutation(cells.n_vars)].copy()
    assert_same_cells(whole, annotate(shuffled, LABELS, model=small_model))
    for matrix in (csc_matrix(cells.X), cells.X.toarray(), csr_matrix(cells.X.astype(np.int32))):
        assert_same_cells(whole, annotate(anndata.AnnData(matrix, cells.obs, cells.var), LABELS, model=small_model))


def test_file_formats_agree(small_model: LangCellModel, tmp_path: Path) -> None:
    cells = small_world.cells(30, seed=5)
    cells.write_h5ad(tmp_path / "a.h5ad")
    small_world.write_zarr(cells, tmp_path / "a.zarr")
    whole = annotate(cells.copy(), LABELS, model=small_model)
    for name in ("a.h5ad", "a.zarr"):
        assert_same_cells(whole, annotate(tmp_path / name, LABELS, model=small_model))


def test_order_of_candidates_changes_no_label(small_model: LangCellModel) -> None:
    cells = small_world.cells(30, seed=6)
    whole = annotate(cells.copy(), LABELS, model=small_model)
    turned = annotate(cells.copy(), LABELS[::-1], model=small_model)
    np.testing.assert_array_equal(whole.labels, turned.labels)


def test_keys_are_written_and_x_is_left_alone(small_model: LangCellModel) -> None:
    cells = small_world.cells(40)
    before, names = cells.X.copy(), cells.obs_names.copy()
    result = annotate(cells, LABELS, model=small_model, key_added="mine", sample_key="batch", compare_to="own")
    for suffix in ("", "_id", "_probability", "_runner_up", "_status", "_cluster", "_cluster_label"):
        assert f"mine{suffix}" in cells.obs
    assert isinstance(cells.obs["mine"].dtype, pd.CategoricalDtype)
    assert cells.obsm["X_langcell"].dtype == np.float32
    assert cells.uns["mine"]["model"]["name"] == "small_world"
    assert (before != cells.X).nnz == 0
    assert (names == cells.obs_names).all()
    assert result.to_frame().shape == (40, 7)


def test_an_existing_key_is_kept_unless_told(small_model: LangCellModel) -> None:
    cells = small_world.cells(10)
    cells.obs["cellingua_id"] = "precious"
    with pytest.raises(InputError, match=r"cellingua_id.*exists already"):
        annotate(cells, LABELS, model=small_model)
    assert (cells.obs["cellingua_id"] == "precious").all()
    assert "cellingua" not in cells.obs
    annotate(cells, LABELS, model=small_model, overwrite=True)
    assert (cells.obs["cellingua_id"] != "precious").all()


def test_empty_and_shallow_cells_are_unknown(small_model: LangCellModel) -> None:
    cells = small_world.cells(30)
    counts = cells.X.tolil()
    counts[0] = 0
    counts[1] = 0
    counts[1, :5] = 1
    cells.X = csr_matrix(counts)
    result = annotate(cells, LABELS, model=small_model)
    assert result.status[:2].tolist() == ["unknown", "unknown"]
    assert result.labels[:2].tolist() == ["unknown", "unknown"]
    assert result.probability[0] == 0
    assert not result.embedding[0].any()
    assert (result.status[2:] != "unknown").mean() > 0.9


def test_given_clusters_are_named(small_model: LangCellModel) -> None:
    cells = small_world.cells(60)
    cells.obs["group"] = pd.Categorical(cells.obs["truth"].map(lambda term: f"g {term}"))
    cells.obs.loc["cell0", "group"] = np.nan
    result = annotate(cells, LABELS, model=small_model, cluster_key="group")
    found = {row.name: row.term_id for row in result.clusters if row.name != "(none)"}
    assert all(name == f"g {term}" for name, term in found.items())
    assert sum(row.n for row in result.clusters) == 60


def test_the_seed_decides_clusters_and_the_answer_repeats(small_model: LangCellModel) -> None:
    a = annotate(small_world.cells(80), LABELS, model=small_model, seed=4)
    b = annotate(small_world.cells(80), LABELS, model=small_model, seed=4)
    np.testing.assert_array_equal(a.cluster, b.cluster)
    assert a.clusters == b.clusters
    assert a.provenance == b.provenance


def test_summary_and_second_looks(small_model: LangCellModel) -> None:
    import json

    result = annotate(small_world.cells(80, noise=0.4), LABELS, model=small_model, sample_key="batch", compare_to="own")
    summary = summarise(result)
    json.dumps(summary, allow_nan=False)
    assert sum(row["cells"] for row in summary["labels"]) == 80
    assert sum(row["cells"] for row in summary["composition"]) == 80
    assert {row["sample"] for row in summary["composition"]} == {"donor 1", "donor 2"}
    assert summary["agreement"]["exact"] <= summary["agreement"]["related"]
    again = look_again(result, limit=10)
    assert len(again) == 10
    assert len({row["cell"] for row in again}) == 10


@pytest.mark.parametrize(
    ("labels", "settings", "kind", "says"),
    [
        (["CL:9999999"], {}, LabelError, "CL:9999999"),
        (["B cell", "B cell"], {}, LabelError, "twice"),
        (["B cell", " "], {}, LabelError, "empty"),
        ([], {}, LabelError, "no label"),
        (None, {"tissue": "panceras"}, LabelError, "pancreas"),
        (LABELS, {"cluster_key": "bach"}, InputError, "batch"),
        (LABELS, {"sample_key": "nothing like it"}, InputError, "no column"),
        (LABELS, {"layer": "raw_counts"}, InputError, "raw_counts"),
    ],
)
def test_wrong_calls_are_refused(
    small_model: LangCellModel, labels: list[str] | None, settings: dict[str, str], kind: type, says: str
) -> None:
    cells = small_world.cells(10)
    with pytest.raises(kind, match=says) as caught:
        annotate(cells, labels, model=small_model, **settings)
    assert caught.value.exit_code == 2
    assert "cellingua" not in cells.obs


def test_unusable_cells_are_refused(small_model: LangCellModel) -> None:
    mouse = small_world.cells(20)
    mouse.var = pd.DataFrame(index=[name.capitalize() for name in mouse.var_names])
    mouse.var_names = ["Gapdh", "Actb", *mouse.var_names[2:]]
    with pytest.raises(GeneError, match="mouse"):
        annotate(mouse, LABELS, model=small_model)
    negative = small_world.cells(20)
    negative.X = csr_matrix(-negative.X)
    with pytest.raises(CountsError):
        annotate(negative, LABELS, model=small_model)


@pytest.mark.parametrize("kind", ["h5ad", "zarr"])
def test_a_copy_of_the_file_keeps_all_that_was_there(small_model: LangCellModel, tmp_path: Path, kind: str) -> None:
    cells = small_world.cells(20)
    cells.layers["other"] = cells.X * 2
    cells.obsm["X_pca"] = np.ones((20, 3), dtype=np.float32)
    cells.uns["title"] = "mine"
    cells.raw = cells
    path = tmp_path / f"a.{kind}"
    cells.write_h5ad(path) if kind == "h5ad" else small_world.write_zarr(cells, path)
    with open_cells(path) as opened:
        result = annotate(opened, LABELS, model=small_model)
        write_annotated(
            opened,
            tmp_path / "b.h5ad",
            columns=result_columns(result, "cellingua"),
            obsm={"X_langcell": result.embedding},
            uns={"cellingua": storable(result.provenance)},
        )
    back = anndata.read_h5ad(tmp_path / "b.h5ad")
    assert (back.X != cells.X).nnz == 0
    assert (back.layers["other"] != cells.layers["other"]).nnz == 0
    assert back.raw.shape == cells.shape
    assert back.uns["title"] == "mine"
    assert list(back.obs.columns[:3]) == ["truth", "own", "batch"]
    np.testing.assert_array_equal(back.obs["cellingua"].astype(str), result.labels.astype(str))
    np.testing.assert_array_equal(back.obsm["X_pca"], cells.obsm["X_pca"])


def test_embed_gives_both_states(small_model: LangCellModel) -> None:
    cells = small_world.cells(12)
    joint = embed(cells, model=small_model)
    np.testing.assert_allclose(np.linalg.norm(joint, axis=1), 1, atol=1e-5)
    state = embed(cells, model=small_model, state="cls")
    np.testing.assert_array_equal(cells.obsm["X_langcell"], joint)
    np.testing.assert_array_equal(cells.obsm["X_langcell_cls"], state)
    with pytest.raises(InputError, match=r"X_langcell.*already"):
        embed(cells, model=small_model)
    with pytest.raises(InputError, match="no state"):
        embed(cells, model=small_model, state="mean")
