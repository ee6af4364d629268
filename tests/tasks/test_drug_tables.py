"""Tables of users: what is read of them, whatever form they have, and what is refused by row and column."""

from __future__ import annotations

from pathlib import Path

import drug_world
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cellingua.cells.genes import load_vocabulary
from cellingua.core.errors import FileError, GeneError, InputError
from cellingua.tasks.drug_tables import FILLED, filled_columns, is_table, read_expression


def table(rows: int = 12) -> pd.DataFrame:
    return drug_world.expression(slice(0, rows))


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.txt", "a.csv.gz", "a.parquet"])
def test_every_form_of_a_table_reads_alike(name: str, tmp_path: Path) -> None:
    path, frame = tmp_path / name, table()
    if name.endswith("parquet"):
        pytest.importorskip("pyarrow")
        frame.to_parquet(path, index=False)
    else:
        frame.to_csv(path, sep="," if ".csv" in name else "\t", index=False)
    read, notes = read_expression(path)
    held, _ = read_expression(frame)
    assert is_table(path)
    assert read.names == held.names == frame["line"].tolist()
    assert read.genes.tolist() == held.genes.tolist() == frame.columns[1:].tolist()
    np.testing.assert_array_equal(read.values, frame.iloc[:, 1:].to_numpy())
    assert (notes.samples, notes.genes, notes.left_out) == (12, 400, ())


def test_names_may_be_the_index_and_genes_may_be_ids_or_carry_numbers() -> None:
    frame = table().set_index("line")
    vocabulary = load_vocabulary()
    rows = vocabulary.resolve(frame.columns.tolist()).index
    ids = frame.set_axis(vocabulary.ensembl_ids[rows], axis=1)
    depmap = frame.set_axis([f"{name} ({number})" for number, name in enumerate(frame.columns)], axis=1)
    for form in (frame, ids, depmap):
        read, _ = read_expression(form)
        assert len(read.genes) == 400
        np.testing.assert_array_equal(read.values, frame.to_numpy())


def test_columns_that_are_no_gene_are_left_out_and_told() -> None:
    frame = table().assign(tissue="lung", age=40)
    read, notes = read_expression(frame)
    assert len(read.genes) == 400
    assert notes.left_out == ("tissue", "age")
    assert any("tissue" in line for line in notes.lines())


def test_a_gene_that_was_not_measured_is_absent_not_zero() -> None:
    frame = table()
    frame.iloc[3, 7] = None
    read, _ = read_expression(frame)
    there = np.isfinite(read.values)
    assert not there[3, 6]
    assert there.sum() == 12 * 400 - 1


def test_genes_in_rows_are_refused_until_it_is_said() -> None:
    turned = table().set_index("line").T.rename_axis("gene").reset_index()
    with pytest.raises(GeneError, match="the rows are genes") as error:
        read_expression(turned)
    assert repr(turned["gene"].iloc[0]) in str(error.value)
    assert "LINE-00" in str(error.value)
    assert "--genes-in-rows" in str(error.value)
    read, _ = read_expression(turned, genes_in_rows=True)
    np.testing.assert_array_equal(read.values, table().iloc[:, 1:].to_numpy())
    with pytest.raises(GeneError, match="columns are genes"):
        read_expression(table(), genes_in_rows=True)


def spoilt(kind: str) -> pd.DataFrame:
    frame = table().reset_index(drop=True)
    if kind == "text":
        frame[frame.columns[5]] = frame[frame.columns[5]].astype(object)
        frame.iloc[4, 5] = "high"
    elif kind == "infinite":
        frame.iloc[4, 5] = np.inf
    elif kind == "twice":
        frame.loc[4, "line"] = "LINE-00"
    elif kind == "unnamed":
        frame.loc[4, "line"] = None
    elif kind == "empty line":
        frame.iloc[4, 1:] = np.nan
    elif kind == "numbers for names":
        frame = frame.iloc[:, 1:]
    elif kind == "centred":
        frame.iloc[:, 1:] = (frame.iloc[:, 1:] - frame.iloc[:, 1:].mean()) / frame.iloc[:, 1:].std()
    elif kind == "no genes":
        frame.columns = ["line", *(f"probe_{n}" for n in range(400))]
    elif kind == "entrez":
        frame.columns = ["line", *(str(90_000 + n) for n in range(400))]
    elif kind == "no rows":
        frame = frame.iloc[:0]
    return frame


SPOILT = {
    "text": ("row 5", "'LINE-04'", "'high'"),
    "infinite": ("row 5", "infinite"),
    "twice": ("'LINE-00'", "rows 1 and 5"),
    "unnamed": ("row 5", "no name"),
    "empty line": ("row 5", "'LINE-04'", "no value"),
    "numbers for names": ("first column", "numbers"),
    "centred": ("mean 0",),
    "no genes": ("none of the 400 columns", "probe_0"),
    "entrez": ("90000", "Entrez"),
    "no rows": ("0 rows",),
}


@pytest.mark.parametrize("kind", SPOILT)
def test_a_spoilt_table_is_refused_with_its_place(kind: str) -> None:
    frame = spoilt(kind)
    column = str(frame.columns[5])
    with pytest.raises(InputError) as error:
        read_expression(frame)
    for said in SPOILT[kind]:
        assert said in str(error.value)
    if kind in ("text", "infinite"):
        assert repr(column) in str(error.value)


def test_a_file_that_is_no_table(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="does not exist"):
        read_expression(tmp_path / "none.csv")
    (tmp_path / "empty.csv").write_text("")
    with pytest.raises(FileError, match="can't be read"):
        read_expression(tmp_path / "empty.csv")
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(FileError):
        read_expression(tmp_path / "bad.parquet")


def test_a_z_score_within_each_line_is_no_centred_table() -> None:
    frame = table()
    values = frame.iloc[:, 1:].to_numpy()
    frame.iloc[:, 1:] = (values - values.mean(axis=1, keepdims=True)) / values.std(axis=1, keepdims=True)
    assert len(read_expression(frame)[0].names) == 12


def test_filled_columns_are_absent_and_told() -> None:
    frame = table()
    frame.iloc[:, 1 : 1 + FILLED] = np.tile(np.linspace(4, 5, 12)[:, None], FILLED)
    read, notes = read_expression(frame)
    assert len(read.genes) == 400 - FILLED
    assert notes.filled == tuple(frame.columns[1 : 1 + FILLED])
    assert any("filled in" in line for line in notes.lines())


@settings(max_examples=40)
@given(st.integers(2, 6), st.integers(0, 25), st.integers(0, 2**32 - 1))
def test_filled_columns_against_the_plain_rule(rows: int, equal: int, seed: int) -> None:
    """Equal columns count where there are enough of them, above the lowest value, in three rows or more."""
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(rows, 40))
    values[:, 0] = values.min(axis=1) - 1  # a gene that no line expresses
    values[:, 1:12] = values[:, :1]
    values[:, 12 : 12 + equal] = rng.normal(size=(rows, 1))
    expected = np.zeros(40, bool)
    for column in range(40):
        same = (values == values[:, [column]]).all(axis=0).sum()
        expected[column] = rows >= 3 and same >= FILLED and (values[:, column] > values.min(axis=1)).all()
    np.testing.assert_array_equal(filled_columns(values), expected)
