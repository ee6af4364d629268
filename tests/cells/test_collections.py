"""The data folder of a recipe: what is read of it, and what is told when a part is missing."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import small_world
import tiny_data
from scipy.sparse import csr_matrix

from cellingua.cells.collections import data_hashes, read_cells, read_markers, read_profiles
from cellingua.cells.genes import load_vocabulary
from cellingua.core.errors import FileError, InputError

MARKERS = "cellconsensus_top40.parquet"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_data.write_folder(tmp_path_factory.mktemp("data"), cells=24)


def test_cells_of_every_file_are_read(folder: Path) -> None:
    cells = read_cells(folder / "corpus")
    assert cells.files.tolist() == ["curated"] * 24 + ["mixed"] * 24
    assert cells.names[0] == tiny_data.PLANTED
    assert cells.counts.shape == (48, len(load_vocabulary()))
    expected = small_world.cells(24, 22)
    np.testing.assert_array_equal(cells.counts[24:][:, small_world.rows_of_genes()].toarray(), expected.X.toarray())
    np.testing.assert_allclose(cells.totals[24:], np.asarray(expected.X.sum(axis=1)).ravel())
    assert len(read_cells(folder / "evaluation")) == 24


def test_machine_labels_fill_gaps_alone(folder: Path) -> None:
    cells = read_cells(folder / "corpus")
    truth = small_world.cells(24, 22).obs["truth"].to_numpy()
    kind = np.arange(24) % 4
    mixed = cells.take(cells.files == "mixed")
    assert cells.take(cells.files == "curated").curated.all()
    assert mixed.curated.tolist() == (kind == 0).tolist()
    assert mixed.terms.tolist() == np.where(kind < 2, truth, "").tolist()


@pytest.mark.parametrize("sure", [["True", "False", "nan"], [True, False, None]])
def test_a_column_of_mixed_kinds_is_sure_only_where_it_says_so(tmp_path: Path, sure: list) -> None:
    adata = small_world.cells(3)
    adata.obs["pseudo_label_ontology_term_id"] = ["CL:0000236"] * 3
    adata.obs["pseudo_label_confident"] = pd.Categorical(sure)
    adata.write_h5ad(tmp_path / "a.h5ad")
    assert read_cells(tmp_path).terms.tolist() == ["CL:0000236", "", ""]


def test_cells_without_any_label_column_have_no_term(folder: Path) -> None:
    judged = read_cells(folder / "evaluation")
    assert set(judged.terms.tolist()) == {""}
    assert not judged.curated.any()


def test_take(folder: Path) -> None:
    cells = read_cells(folder / "corpus")
    for rows in (np.array([30, 2, 2]), np.arange(48) > 40):
        part = cells.take(rows)
        np.testing.assert_array_equal(part.counts.toarray(), cells.counts.toarray()[rows])
        for name in ("totals", "terms", "curated", "files", "names"):
            np.testing.assert_array_equal(getattr(part, name), getattr(cells, name)[rows])


def test_a_file_that_the_doctor_refuses_is_named(tmp_path: Path) -> None:
    adata = small_world.cells(30)
    adata.X = csr_matrix(np.log1p(adata.X.toarray()) - 1.0)
    adata.write_h5ad(tmp_path / "scaled.h5ad")
    with pytest.raises(InputError, match="scaled"):
        read_cells(tmp_path)


def test_a_folder_without_cells(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "missing"):
        with pytest.raises(FileError, match="has no h5ad"):
            read_cells(path)


def test_profiles_are_shares_of_molecules(folder: Path) -> None:
    profiles = read_profiles(folder / "profiles", {})
    rows = small_world.rows_of_genes()
    assert profiles.terms.tolist() == list(small_world.TYPES) * 2
    assert profiles.studies.tolist() == ["North"] * 6 + ["South"] * 6
    np.testing.assert_allclose(profiles.expression.sum(axis=1), 1, rtol=1e-5)
    assert profiles.measured[:6, rows].all()
    assert not profiles.measured[6:, rows[::10]].any()
    assert profiles.measured.sum() == 6 * len(rows) + 6 * (len(rows) - len(rows[::10]))
    assert not profiles.expression[~profiles.measured].any()
    noise = np.random.default_rng(0).lognormal(0, 0.2, (6, len(rows)))
    means = small_world.profiles() * noise
    expected = means / means.sum(axis=1, keepdims=True)
    # What was log1p(CPM) is CPM again; what stands for 0 molecules a million is below the rounding.
    np.testing.assert_allclose(profiles.expression[:6, rows], expected, rtol=1e-3, atol=1e-8)


def test_reviewed_labels_replace_and_remove(folder: Path) -> None:
    reviewed = {("North", "B cell"): "CL:0000788", ("South", "monocyte"): ""}
    profiles = read_profiles(folder / "profiles", reviewed)
    assert len(profiles) == 11
    assert profiles.terms[0] == "CL:0000788"
    south = profiles.take(profiles.studies == "South")
    assert "CL:0000576" not in south.terms.tolist()
    plain = read_profiles(folder / "profiles", {})
    np.testing.assert_array_equal(profiles.expression, plain.take(np.arange(12) != 9).expression)


def test_markers_are_rows_of_the_vocabulary_best_first(folder: Path) -> None:
    found = read_markers(folder / "markers" / MARKERS)
    ids = load_vocabulary().ensembl_ids
    assert {term: ids[rows].tolist() for term, rows in found.items()} == tiny_data.markers()


def test_what_is_missing_is_told(tmp_path: Path) -> None:
    tiny_data.write_profiles(tmp_path / "profiles")
    with pytest.raises(FileError, match=r"cellconsensus_top40\.parquet is not there"):
        read_markers(tmp_path / MARKERS)
    (tmp_path / "profiles" / "South.parquet").unlink()
    with pytest.raises(FileError, match=r"South\.parquet is not there"):
        read_profiles(tmp_path / "profiles", {})
    (tmp_path / "profiles" / "profiles_meta.tsv").unlink()
    with pytest.raises(FileError, match=r"profiles_meta\.tsv is not there"):
        read_profiles(tmp_path / "profiles", {})


def test_what_is_damaged_is_told(tmp_path: Path) -> None:
    tiny_data.write_profiles(tmp_path)
    whole = tmp_path / "North.parquet"
    content = whole.read_bytes()
    for part in (content[:-20], b"", b"not a table"):
        whole.write_bytes(part)
        with pytest.raises(FileError, match=r"North\.parquet can't be read"):
            read_profiles(tmp_path, {})
    whole.write_bytes(content)
    table = pd.read_parquet(whole)
    table.drop(columns="North_2").to_parquet(whole)
    with pytest.raises(FileError, match=r"North\.parquet lacks the column 'North_2'"):
        read_profiles(tmp_path, {})
    table.set_axis([f"GENE{row}" for row in range(len(table))]).to_parquet(whole)
    with pytest.raises(FileError, match="'North_0' expresses no known gene"):
        read_profiles(tmp_path, {})
    pd.DataFrame({"profile_id": []}).to_csv(tmp_path / "profiles_meta.tsv", sep="\t")
    with pytest.raises(FileError, match="lacks the column 'file'"):
        read_profiles(tmp_path, {})


def test_markers_of_another_naming_are_told(tmp_path: Path) -> None:
    table = pd.DataFrame({tiny_data.TERM: ["CL:0000236"], "ensembl_id": ["CD19"], "rank": [1]})
    table.to_parquet(tmp_path / MARKERS)
    with pytest.raises(FileError, match="names no known gene"):
        read_markers(tmp_path / MARKERS)
    table.drop(columns="rank").to_parquet(tmp_path / MARKERS)
    with pytest.raises(FileError, match="lacks the column 'rank'"):
        read_markers(tmp_path / MARKERS)


def test_every_data_file_has_its_hash(folder: Path) -> None:
    found = data_hashes(folder)
    assert sorted(found) == [
        "corpus/curated.h5ad",
        "corpus/mixed.h5ad",
        "evaluation/judge.h5ad",
        f"markers/{MARKERS}",
        "profiles/North.parquet",
        "profiles/South.parquet",
        "profiles/profiles_meta.tsv",
    ]
    path = "profiles/profiles_meta.tsv"
    assert found[path] == hashlib.sha256((folder / path).read_bytes()).hexdigest()
