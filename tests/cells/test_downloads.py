"""Downloaded files: every form gives the same cells in the table's order, and what doesn't fit is named."""

from __future__ import annotations

import gzip
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import response_cells
from anndata import AnnData
from awkward_files import write_10x_folder, write_10x_h5
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from response_cells import write_table, write_text

from cellingua.cells.cell_table import read_cell_table
from cellingua.cells.downloads import open_downloads
from cellingua.cells.text_matrix import layout_of, read_text_matrix
from cellingua.core.errors import FileError, InputError

CELLS = response_cells.cells(24, samples=2)
FIRST, SECOND = CELLS[:10].copy(), CELLS[10:].copy()


def two(write: Callable[[Path, AnnData, str], object]) -> Callable[[Path], object]:
    """Return what writes the cells as two files."""
    return lambda folder: (write(folder, FIRST, "GSM1_D0"), write(folder, SECOND, "GSM2_D11"))


FORMS: dict[str, Callable[[Path], object]] = {
    "triplets with prefixes": two(lambda f, a, name: write_10x_folder(f, a, prefix=f"{name}_")),
    "old plain triplets": two(lambda f, a, name: write_10x_folder(f, a, prefix=f"{name}.", packed=False)),
    "folders of Cell Ranger": two(lambda f, a, name: write_10x_folder(f / name / "filtered_feature_bc_matrix", a)),
    "10x h5": two(lambda f, a, name: write_10x_h5(f / f"{name}.h5", a)),
    "tabs": two(lambda f, a, name: write_text(f / f"{name}.txt", a)),
    "tabs, no corner": two(lambda f, a, name: write_text(f / f"{name}.tsv", a, corner=False)),
    "gzipped csv in quotes": two(
        lambda f, a, name: write_text(f / f"{name}.csv.gz", a, separator=",", quotes=True, corner=False)
    ),
    "semicolons": two(lambda f, a, name: write_text(f / f"{name}.csv", a, separator=";")),
    "spaces": two(lambda f, a, name: write_text(f / f"{name}.txt.gz", a, separator=" ", corner=False)),
    "cells in rows": two(lambda f, a, name: write_text(f / f"{name}.csv", a, separator=",", genes_in_rows=False)),
    "a column of text beside": two(lambda f, a, name: write_text(f / f"{name}.txt", a, beside=True)),
    "one of each": lambda f: (
        write_10x_folder(f / "D0", FIRST),
        write_text(f / "D11.txt.gz", SECOND, genes_in_rows=False),
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_cells_in_the_order_of_the_table(form: str, tmp_path: Path) -> None:
    (tmp_path / "files").mkdir()
    FORMS[form](tmp_path / "files")
    mixed = CELLS[np.random.default_rng(1).permutation(24)[:20]].copy()
    found = open_downloads(tmp_path / "files", write_table(tmp_path / "labels.csv", mixed, sample=False))
    cells = found.cells
    assert cells.cell_names.tolist() == mixed.obs_names.tolist()
    assert cells.obs["label"].tolist() == mixed.obs["label"].tolist()
    place = {name: column for column, name in enumerate(cells.var.index)}
    values = cells.rows("X", 0, 20).toarray()[:, [place[name] for name in mixed.var_names]]
    assert np.array_equal(values, mixed.X.toarray())
    assert any("4 cells of the files are not in the table" in note for note in found.notes)


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".csv.gz", ".txt"])
def test_the_table_may_have_any_separator_and_lie_among_the_files(suffix: str, tmp_path: Path) -> None:
    write_10x_folder(tmp_path, CELLS, prefix="GSM1_")
    table = write_table(tmp_path / f"labels{suffix}", CELLS, separator="," if "csv" in suffix else "\t")
    found = open_downloads(tmp_path, table)
    assert found.cells.obs["sample"].tolist() == CELLS.obs["sample"].tolist()
    assert found.cells.n_cells == 24


def same_barcodes(folder: Path) -> AnnData:
    """Write two samples whose barcodes are the same, and return all cells with their sample."""
    first, second = CELLS[:12].copy(), CELLS[12:].copy()
    second.obs_names = first.obs_names
    write_10x_folder(folder, first, prefix="GSM7_PC9_D1_")
    write_10x_folder(folder, second, prefix="GSM8_PC9_D11_")
    both = AnnData(CELLS.X, CELLS.obs.copy(), CELLS.var)
    both.obs_names = [*first.obs_names, *first.obs_names]
    both.obs["sample"] = ["D1"] * 12 + ["PC9_D11"] * 12
    return both


@pytest.mark.filterwarnings("ignore:Observation names are not unique")
def test_a_barcode_of_two_files_is_told_apart_by_its_sample(tmp_path: Path) -> None:
    both = same_barcodes(tmp_path / "files")
    found = open_downloads(tmp_path / "files", write_table(tmp_path / "t.csv", both))
    assert np.array_equal(found.cells.rows("X", 0, 24).toarray(), CELLS.X.toarray())
    assert len(set(found.cells.cell_names)) == 24
    assert sorted(set(found.cells.obs["file"])) == ["GSM7_PC9_D1", "GSM8_PC9_D11"]
    half = both[:12].copy()
    with pytest.raises(InputError, match=r"line 2: the barcode 'cell0-1' is in GSM7_PC9_D1, GSM8_PC9_D11"):
        open_downloads(tmp_path / "files", write_table(tmp_path / "u.csv", half, sample=False))


def test_a_sample_of_another_file_never_lends_its_barcode(tmp_path: Path) -> None:
    write_10x_folder(tmp_path / "files", FIRST, prefix="D0_")
    write_10x_folder(tmp_path / "files", SECOND, prefix="D11_")
    (tmp_path / "t.csv").write_text(f"barcode,label,sample\n{SECOND.obs_names[0]},sensitive,D0\n")
    with pytest.raises(InputError, match="1 of 1 rows have a barcode that no file has"):
        open_downloads(tmp_path / "files", tmp_path / "t.csv")


def test_the_number_at_the_end_of_barcodes_may_differ(tmp_path: Path) -> None:
    write_10x_folder(tmp_path / "files", CELLS)
    bare = CELLS.copy()
    bare.obs_names = [name.removesuffix("-1") for name in CELLS.obs_names]
    found = open_downloads(tmp_path / "files", write_table(tmp_path / "t.csv", bare))
    assert np.array_equal(found.cells.rows("X", 0, 24).toarray(), CELLS.X.toarray())
    assert any("taken for the same" in note for note in found.notes)


def test_barcodes_that_no_file_has_are_refused_or_counted(tmp_path: Path) -> None:
    write_10x_folder(tmp_path / "files", FIRST)
    table = write_table(tmp_path / "t.csv", CELLS)
    with pytest.raises(InputError, match=r"14 of 24 rows .* line 12, 'cell10-1' of sample 'S0'"):
        open_downloads(tmp_path / "files", table)
    found = open_downloads(tmp_path / "files", table, allow_missing=True)
    assert found.cells.n_cells == 10
    assert any(note.startswith("14 rows of the table") for note in found.notes)
    with pytest.raises(InputError, match="14 of 14 rows"):
        open_downloads(tmp_path / "files", write_table(tmp_path / "u.csv", SECOND), allow_missing=True)


def test_genes_that_one_file_lacks_are_left_out_not_zero(tmp_path: Path) -> None:
    write_10x_folder(tmp_path / "files", FIRST[:, :250].copy(), prefix="D0_")
    write_10x_folder(tmp_path / "files", SECOND[:, 50:][:, ::-1].copy(), prefix="D11_")
    found = open_downloads(tmp_path / "files", write_table(tmp_path / "t.csv", CELLS, sample=False))
    place = {name: column for column, name in enumerate(CELLS.var_names)}
    columns = [place[name] for name in found.cells.var.index]
    assert sorted(columns) == list(range(50, 250))
    assert np.array_equal(found.cells.rows("X", 0, 24).toarray(), CELLS.X.toarray()[:, columns])
    assert any("200 genes are in all files" in note for note in found.notes)


def cut(path: Path) -> None:
    """Cut a file short."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize("part", ["matrix.mtx.gz", "features.tsv.gz", "barcodes.tsv.gz"])
def test_a_gzip_that_is_cut_short_is_named(part: str, tmp_path: Path) -> None:
    folder = write_10x_folder(tmp_path / "files", CELLS)
    cut(folder / part)
    with pytest.raises(FileError, match="files") as caught:
        open_downloads(folder, write_table(tmp_path / "t.csv", CELLS))
    assert "could not be read" in str(caught.value)


def test_a_text_matrix_and_a_table_that_are_cut_short_are_named(tmp_path: Path) -> None:
    write_text(tmp_path / "files" / "a.txt.gz", CELLS)
    table = write_table(tmp_path / "t.csv.gz", CELLS)
    whole = (tmp_path / "files" / "a.txt.gz").read_bytes()
    cut(tmp_path / "files" / "a.txt.gz")
    with pytest.raises(FileError, match=r"a\.txt\.gz could not be read"):
        open_downloads(tmp_path / "files", table)
    (tmp_path / "files" / "a.txt.gz").write_bytes(whole)
    cut(table)
    with pytest.raises(FileError, match=r"t\.csv\.gz could not be read"):
        open_downloads(tmp_path / "files", table)


def test_folders_without_cells_say_what_they_hold(tmp_path: Path) -> None:
    table = write_table(tmp_path / "t.csv", CELLS)
    with pytest.raises(FileError, match="is no folder"):
        open_downloads(tmp_path / "nowhere", table)
    folder = tmp_path / "files"
    folder.mkdir()
    with pytest.raises(FileError, match="holds no file of cells \\(it holds: nothing\\)"):
        open_downloads(folder, table)
    (folder / "GSE1_RAW.tar").write_bytes(b"tar")
    (folder / "about.txt").write_text("cell\tgenes\tumis\n" + "".join(f"well{i}\t{i}\t{i}\n" for i in range(50)))
    with pytest.raises(FileError, match=r"unpacking GSE1_RAW\.tar first"):
        open_downloads(folder, table)


def test_a_triplet_without_its_other_files_or_without_cells_is_refused(tmp_path: Path) -> None:
    table = write_table(tmp_path / "t.csv", CELLS)
    folder = write_10x_folder(tmp_path / "files", CELLS, packed=False)
    (folder / "barcodes.tsv").rename(tmp_path / "barcodes.tsv")
    with pytest.raises(FileError, match=r"no features\.tsv \(or genes\.tsv\) and barcodes\.tsv beside it"):
        open_downloads(folder, table)
    (folder / "barcodes.tsv").write_text("")
    with pytest.raises(FileError):
        open_downloads(folder, table)
    (folder / "matrix.mtx").write_text("")
    with pytest.raises(FileError, match="matrix"):
        open_downloads(folder, table)
    shutil.rmtree(folder)
    write_10x_folder(folder, CELLS[:0].copy())
    with pytest.raises(InputError, match="24 of 24 rows"):
        open_downloads(folder, table)


def test_a_field_that_is_no_number_is_named_by_row_and_column(tmp_path: Path) -> None:
    path = write_text(tmp_path / "a.txt", CELLS)
    lines = path.read_text().splitlines()
    fields = lines[7].split("\t")
    fields[3] = "n.d."
    path.write_text("\n".join([*lines[:7], "\t".join(fields), *lines[8:]]))
    layout = layout_of(path, set(CELLS.obs_names))
    assert layout is not None
    with pytest.raises(FileError, match=rf"row '{fields[0]}', column 'cell2-1' holds 'n\.d\.'"):
        read_text_matrix(path, layout)
    fields[3] = ""
    path.write_text("\n".join([*lines[:7], "\t".join(fields), *lines[8:]]))
    with pytest.raises(FileError, match="column 'cell2-1' holds ''"):
        read_text_matrix(path, layout)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "holds no cells"),
        ("barcode,label\n", "holds no cells"),
        ("barcode,response\na,sensitive\n", "no column 'label'"),
        ("well,label\na,sensitive\n", "no column 'barcode'"),
        ("barcode,label\na\n", "line 2 has 1 fields"),
        ("barcode,label\n,sensitive\n", "line 2 has no barcode"),
        ("barcode,label\na,\nb,\n", "no row has a label"),
        ("barcode,label\na,s\nb,r\na,s\n", "lines 2 and 4 are both about 'a'"),
        ("barcode,label,sample\na,s,1\na,r,1\n", "lines 2 and 3 are both about 'a' of sample '1'"),
    ],
)
def test_a_table_that_is_wrong_is_refused_by_line(text: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=said):
        read_cell_table(path)
    with pytest.raises(FileError, match="is not there"):
        read_cell_table(tmp_path / "other.csv")


def test_one_cell_under_two_spellings_is_refused(tmp_path: Path) -> None:
    write_10x_folder(tmp_path / "files", CELLS)
    (tmp_path / "t.csv").write_text("barcode,label\ncell1,sensitive\ncell1-2,resistant\n")
    with pytest.raises(InputError, match="lines 2 and 3 are both about the cell"):
        open_downloads(tmp_path / "files", tmp_path / "t.csv")


@example(genes_in_rows=True, corner=False, quotes=False, packed=False, separator=",", n=1)
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    genes_in_rows=st.booleans(),
    corner=st.booleans(),
    quotes=st.booleans(),
    packed=st.booleans(),
    separator=st.sampled_from(["\t", ",", ";", " "]),
    n=st.integers(1, 24),
)
def test_any_layout_of_text_is_read_back(
    genes_in_rows: bool, corner: bool, quotes: bool, packed: bool, separator: str, n: int, tmp_path: Path
) -> None:
    part = CELLS[:n].copy()
    path = write_text(
        tmp_path / ("a.txt.gz" if packed else "a.txt"), part, genes_in_rows=genes_in_rows, separator=separator,
        corner=corner, quotes=quotes,
    )  # fmt: skip
    layout = layout_of(path, set(part.obs_names))
    assert layout is not None
    assert layout.genes_in_rows == genes_in_rows
    found = read_text_matrix(path, layout)
    assert (found.cells, found.genes) == (part.obs_names.tolist(), part.var_names.tolist())
    assert np.array_equal(found.values.toarray(), part.X.toarray())


def test_a_table_about_cells_is_no_matrix(tmp_path: Path) -> None:
    path = tmp_path / "info.txt.gz"
    text = "cell\tcluster\tgenes\n" + "".join(f"cell{i}-1\tA\t{i}\n" for i in range(24))
    path.write_bytes(gzip.compress(text.encode()))
    assert layout_of(path, set(CELLS.obs_names)) is None
    write_text(tmp_path / "counts.txt", CELLS)
    found = open_downloads(tmp_path, write_table(tmp_path / "t.csv", CELLS))
    assert found.notes == ["Not read, since they are no matrix of genes and cells: info.txt.gz."]
