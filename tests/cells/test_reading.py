"""Opening files: every form gives the same counts, and nothing damaged gives anything but a FileError."""

from __future__ import annotations

import warnings
from pathlib import Path

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
from awkward_files import human_counts, write, write_10x_folder, write_10x_h5
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.sparse import csc_matrix, csr_matrix

from cellingua.cells.counts import CountBlocks
from cellingua.cells.doctor import examine
from cellingua.cells.reading import CellFile, open_cells
from cellingua.core.errors import ConfigError, FileError, InputError

BASE = human_counts(n_cells=23, n_genes=700)
DENSE = BASE.X.toarray()


def with_values(values: object) -> anndata.AnnData:
    return anndata.AnnData(values, BASE.obs.copy(), BASE.var.copy())


def write_zarr(adata: anndata.AnnData, path: Path) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        adata.write_zarr(path)
    return path


FORMS = {
    "memory csr": lambda folder: with_values(csr_matrix(DENSE)),
    "memory csc": lambda folder: with_values(csc_matrix(DENSE)),
    "memory dense": lambda folder: with_values(DENSE),
    "memory uint8": lambda folder: with_values(csr_matrix(DENSE.astype(np.uint8))),
    "memory int64": lambda folder: with_values(DENSE.astype(np.int64)),
    "memory view": lambda folder: with_values(np.vstack([DENSE, DENSE]).astype(np.float32)[: BASE.n_obs])[:, :],
    "memory backed": lambda folder: anndata.read_h5ad(write(BASE, folder / "b.h5ad"), backed="r"),
    "h5ad csr": lambda folder: write(BASE, folder / "a.h5ad"),
    "h5ad csc": lambda folder: write(with_values(csc_matrix(DENSE)), folder / "c.h5ad"),
    "h5ad dense": lambda folder: write(with_values(DENSE), folder / "d.h5ad"),
    "h5ad uint16": lambda folder: write(with_values(csr_matrix(DENSE.astype(np.uint16))), folder / "u.h5ad"),
    "zarr csr": lambda folder: write_zarr(BASE, folder / "a.zarr"),
    "zarr csc": lambda folder: write_zarr(with_values(csc_matrix(DENSE)), folder / "c.zarr"),
    "zarr dense": lambda folder: write_zarr(with_values(DENSE), folder / "d.zarr"),
    "10x h5": lambda folder: write_10x_h5(folder / "x.h5", BASE),
    "10x mtx": lambda folder: write_10x_folder(folder / "mtx", BASE),
    "10x mtx old": lambda folder: write_10x_folder(folder / "old", BASE, packed=False),
    "10x mtx prefix": lambda folder: write_10x_folder(folder / "geo", BASE, prefix="GSM1_"),
    "matrix.mtx.gz": lambda folder: write_10x_folder(folder / "one", BASE) / "matrix.mtx.gz",
}


@pytest.fixture(scope="module")
def expected() -> csr_matrix:
    with open_cells(with_values(csr_matrix(DENSE))) as cells:
        return next(CountBlocks(cells, examine(cells)).blocks()).counts


@pytest.mark.parametrize("form", sorted(FORMS))
@pytest.mark.parametrize("rows", [5, 2048])
def test_every_form_gives_the_same_counts(form: str, rows: int, tmp_path: Path, expected: csr_matrix) -> None:
    with open_cells(FORMS[form](tmp_path)) as cells:
        assert [str(name) for name in cells.cell_names] == BASE.obs_names.tolist()
        blocks = list(CountBlocks(cells, examine(cells)).blocks(rows))
    counts = np.vstack([block.counts.toarray() for block in blocks])
    np.testing.assert_array_equal(counts, expected.toarray())
    np.testing.assert_array_equal(np.concatenate([b.totals for b in blocks]), DENSE.sum(axis=1, dtype=np.float64))
    np.testing.assert_array_equal(np.concatenate([b.n_genes for b in blocks]), (DENSE > 0).sum(axis=1))
    assert [block.start for block in blocks] == list(range(0, BASE.n_obs, rows))


def test_rows_of_any_place_are_those_of_the_matrix(tmp_path: Path) -> None:
    adata = BASE.copy()
    adata.layers["dense"] = DENSE * 2
    adata.layers["columns"] = csc_matrix(DENSE * 3)
    adata.raw = BASE
    adata = adata[:, :300].copy()
    path = write(adata, tmp_path / "a.h5ad")
    for source in (path, adata):
        with open_cells(source) as cells:
            assert cells.places() == ["X", "layers/columns", "layers/dense", "raw/X"]
            assert len(cells.columns("raw/X")) == 700
            np.testing.assert_array_equal(cells.rows("layers/dense", 3, 9).toarray(), DENSE[3:9, :300] * 2)
            np.testing.assert_array_equal(cells.rows("layers/columns", 3, 9).toarray(), DENSE[3:9, :300] * 3)
            np.testing.assert_array_equal(cells.rows("raw/X", 20, 99).toarray(), DENSE[20:])
            assert cells.place_of("dense") == "layers/dense"
            assert cells.place_of("raw") == "raw/X"
            with pytest.raises(ConfigError, match="one of: X, columns, dense, raw/X"):
                cells.place_of("counts")


def test_only_the_rows_asked_for_are_read(tmp_path: Path) -> None:
    path = write(BASE, tmp_path / "a.h5ad")
    with open_cells(path) as cells:

        class Watched:
            def __init__(self, dataset: h5py.Dataset) -> None:
                self.dataset, self.read = dataset, 0

            def __getitem__(self, part: slice) -> np.ndarray:
                self.read += part.stop - part.start
                return self.dataset[part]

        matrix = cells.matrices["X"]
        matrix._data = Watched(matrix._data)
        cells.rows("X", 4, 6)
        assert matrix._data.read == int((DENSE[4:6] > 0).sum())


def test_the_layout_of_anndata_0_6_is_read(tmp_path: Path) -> None:
    path = tmp_path / "old.h5ad"
    counts = csr_matrix(DENSE)
    with h5py.File(path, "w") as handle:
        group = handle.create_group("X")
        group.attrs["h5sparse_format"], group.attrs["h5sparse_shape"] = "csr", counts.shape
        for name in ("data", "indices", "indptr"):
            group[name] = getattr(counts, name)
        for name, index in (("obs", BASE.obs_names), ("var", BASE.var_names)):
            handle[name] = np.array([(text.encode(), 1) for text in index], dtype=[("index", "S20"), ("n", "i4")])
    with open_cells(path) as cells:
        assert cells.var.index.tolist() == BASE.var_names.tolist()
        np.testing.assert_array_equal(cells.rows("X", 0, 99).toarray(), DENSE)


def everything(path: Path) -> tuple[int, set[int]]:
    """Read all of a file as the user's commands do; return its number of cells, and how many each place gave."""
    with open_cells(path) as cells:
        diagnosis = examine(cells)
        read = {sum(rows.shape[0] for _, _, rows in cells.blocks(place, 7)) for place in cells.places()}
        if not diagnosis.refused:
            read.add(sum(len(block.totals) for block in CountBlocks(cells, diagnosis)))
        return cells.n_cells, read


@pytest.fixture(scope="module")
def whole_file(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return write(BASE, tmp_path_factory.mktemp("whole") / "a.h5ad").read_bytes()


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.floats(0, 0.999))
def test_a_truncated_file_is_a_file_error(tmp_path: Path, whole_file: bytes, share: float) -> None:
    path = tmp_path / "cut.h5ad"
    path.write_bytes(whole_file[: int(share * len(whole_file))])
    with pytest.raises(FileError) as caught:
        everything(path)
    assert "cut.h5ad" in caught.value.found
    assert caught.value.exit_code == 2


@settings(max_examples=25, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.floats(0, 0.9999), st.binary(min_size=1, max_size=64))
def test_damage_inside_a_file_is_an_error_of_ours_or_harmless(
    tmp_path: Path, whole_file: bytes, share: float, noise: bytes
) -> None:
    path = tmp_path / "damaged.h5ad"
    start = int(share * len(whole_file))
    path.write_bytes((whole_file[:start] + noise + whole_file[start + len(noise) :])[: len(whole_file)])
    code, n_cells, read = 0, 0, set[int]()
    try:
        n_cells, read = everything(path)
    except InputError as error:  # anything else fails the test
        code = error.exit_code
    assert code in (0, 2)
    assert read <= {n_cells}


def bad_files(folder: Path) -> dict[str, Path]:
    files = {"missing": folder / "missing.h5ad"}
    for name, content in (
        ("empty.h5ad", b""),
        ("text.h5ad", b"cell,gene\n1,2\n"),
        ("zipped.h5ad", b"\x1f\x8b" + b"0" * 50),
        ("table.csv", b"a,b\n"),
        ("cells.loom", b"a"),
        ("noise.bin", bytes(range(256))),
    ):
        (folder / name).write_bytes(content)
        files[name] = folder / name
    with h5py.File(folder / "other.h5", "w") as handle:
        handle["table"] = [1, 2, 3]
    with h5py.File(folder / "multi.h5mu", "w") as handle:
        handle.create_group("mod")
    with h5py.File(folder / "hollow.h5ad", "w") as handle:
        handle.create_group("obs")
        handle.create_group("var")
    (folder / "folder").mkdir()
    lone = write_10x_folder(folder / "lone", BASE)
    (lone / "barcodes.tsv.gz").unlink()
    short = write_10x_folder(folder / "short", BASE)
    (short / "matrix.mtx.gz").write_bytes((short / "matrix.mtx.gz").read_bytes()[:400])
    fewer = write_10x_folder(folder / "fewer", BASE, packed=False)
    (fewer / "barcodes.tsv").write_text("a\nb\n")
    names = ("other.h5", "multi.h5mu", "hollow.h5ad", "folder", "lone", "short", "fewer")
    return files | {name: folder / name for name in names} | {"lone matrix": lone / "matrix.mtx.gz"}


def test_bad_files_say_what_was_found_what_is_expected_and_what_to_try(tmp_path: Path) -> None:
    for name, path in bad_files(tmp_path).items():
        with pytest.raises(FileError) as caught:
            open_cells(path)
        error = caught.value
        assert error.exit_code == 2, name
        assert str(path) in error.found, name
        assert error.expected, name
        assert error.try_, name


def test_what_a_missing_path_may_have_meant_is_named(tmp_path: Path) -> None:
    write(BASE, tmp_path / "pbmc.h5ad")
    with pytest.raises(FileError, match=r"pbmc\.h5ad"):
        open_cells(tmp_path / "pmbc.h5ad")


@pytest.mark.parametrize(
    ("part", "value"),
    [("indptr", [0, 3]), ("indices", None), ("data", [1.0])],
)
def test_parts_of_a_matrix_that_do_not_fit_are_a_file_error(tmp_path: Path, part: str, value: object) -> None:
    path = write(BASE, tmp_path / "a.h5ad")
    with h5py.File(path, "r+") as handle:
        values = handle["X"][part][:] + 10_000 if value is None else value
        del handle["X"][part]
        handle["X"][part] = values
    with pytest.raises(FileError):
        everything(path)


def test_a_matrix_of_another_size_than_its_tables_is_a_file_error() -> None:
    frame = pd.DataFrame(index=["a", "b"])
    from cellingua.cells.matrices import HeldMatrix

    with pytest.raises(FileError, match="3 × 2 values for 2 cells × 2 genes"):
        CellFile(None, "AnnData", frame, frame, {"X": HeldMatrix(np.ones((3, 2)))})


def test_every_corpus_file_opens(shared: Path) -> None:
    files = sorted((shared / "data" / "cells").glob("*/*.h5ad"))
    assert len(files) >= 20
    for path in files:
        with open_cells(path) as cells:
            diagnosis = examine(cells)
            assert not diagnosis.refused, path.name
            assert diagnosis.species == "human", path.name
            assert diagnosis.place == "X"
            assert diagnosis.recovery is None
            assert diagnosis.share_of_counts_mapped > 0.65, path.name
