"""IC50 tables: units, repeats, names of one compound, and what is refused with its row."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellingua.core.errors import FileError, InputError
from cellingua.molecules.response import UNITS, read_table, responses, to_ln_um

ROWS = st.lists(st.tuples(st.sampled_from("ABCD"), st.sampled_from("xyz"), st.floats(-5, 5)), min_size=1, max_size=40)


def long(rows: list[tuple[str, str, float]], name: str = "ln_ic50") -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["line", "drug", name])


@given(ROWS, st.randoms())
def test_order_of_rows_decides_nothing_and_repeats_are_their_mean(
    rows: list[tuple[str, str, float]], random: object
) -> None:
    found, notes = responses(long(rows), disagreeing="mean")
    shuffled = list(rows)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    again, _ = responses(long(shuffled), disagreeing="mean")
    for name in ("lines", "drugs", "line", "drug", "value"):
        assert (getattr(found, name) == getattr(again, name)).all()
    expected = long(rows).groupby(["line", "drug"]).ln_ic50.mean()
    ours = dict(zip(zip(found.lines[found.line], found.drugs[found.drug], strict=True), found.value, strict=True))
    assert ours.keys() == set(expected.index)
    assert all(ours[pair] == pytest.approx(value, abs=1e-9) for pair, value in expected.items())
    assert notes.rows == len(rows)
    assert notes.pairs == len(expected)
    grid = found.grid()
    assert np.isfinite(grid).sum() == len(found)
    assert (grid[found.line, found.drug] == found.value).all()


@pytest.mark.parametrize(
    ("unit", "value"),
    [("ln_um", 0.0), ("log10_um", 0.0), ("log10_m", -6.0), ("pic50", 6.0), ("um", 1.0), ("nm", 1000.0), ("m", 1e-6)],
)
def test_one_micromolar_is_nought_in_every_unit(unit: str, value: float) -> None:
    assert to_ln_um(np.array([value]), unit)[0] == pytest.approx(0, abs=1e-9)
    tenfold = {"ln_um": math.log(10), "log10_um": 1.0, "log10_m": -5.0, "pic50": 5.0}.get(unit, value * 10)
    assert to_ln_um(np.array([tenfold]), unit)[0] == pytest.approx(math.log(10))
    assert set(UNITS) >= {unit}


@pytest.mark.parametrize(
    ("name", "unit"),
    [("LN_IC50", "ln_um"), ("IC50 (nM)", "nm"), ("ic50_uM", "um"), ("IC50 µM", "um"), ("pIC50", "pic50")],
)
def test_the_name_of_a_column_says_its_unit(name: str, unit: str) -> None:
    _, notes = responses(long([("A", "x", 5.0)], name))
    assert notes.unit == unit


def test_a_unit_that_is_not_known_or_not_plausible_is_refused() -> None:
    with pytest.raises(InputError, match="does not say what unit") as caught:
        responses(long([("A", "x", 5.0)], "IC50"), value="IC50")
    assert "--unit" in str(caught.value)
    with pytest.raises(InputError, match=r"row 2.*no concentration in um"):
        responses(long([("A", "x", 5.0), ("B", "x", -1.0)], "IC50"), value="IC50", unit="um")
    with pytest.raises(InputError, match=r"row \d.*ln µM"):  # nM given as logarithms of µM
        responses(long([("A", "x", 500.0), ("B", "x", 12.0)], "IC50"), value="IC50", unit="ln_um")
    with pytest.raises(InputError, match="furlong"):
        responses(long([("A", "x", 5.0)]), unit="furlong")
    with pytest.raises(InputError, match="0 columns"):
        responses(long([("A", "x", 5.0)], "effect"))


def test_repeats_that_disagree_are_named_and_left_to_the_caller() -> None:
    table = long([("A", "x", 0.0), ("A", "x", 4.0), ("A", "y", 1.0), ("A", "y", 2.0), ("B", "y", 0.5)])
    with pytest.raises(InputError, match=r"1 pairs.*A with x \(0.00 and 4.00"):
        responses(table)
    mean, notes = responses(table, disagreeing="mean")
    assert mean.value.tolist() == [2.0, 1.5, 0.5]
    assert notes.repeated == 2
    assert notes.disagreeing == (("A", "x", 0.0, 4.0),)
    dropped, _ = responses(table, disagreeing="drop")
    assert dropped.drugs.tolist() == ["y"]
    assert dropped.value.tolist() == [1.5, 0.5]
    with pytest.raises(InputError, match="'guess'"):
        responses(table, disagreeing="guess")


def test_one_compound_under_two_names_is_one_drug() -> None:
    table = long([("A", "Torin 2", 1.0), ("A", "torin2", 2.0), ("A", "other", 0.0), ("B", "torin2", 3.0)])
    found, notes = responses(table, same={"Torin 2": "K", "torin2": "K", "other": ""})
    assert found.drugs.tolist() == ["Torin 2", "other"]
    assert notes.renamed == {"torin2": "Torin 2"}
    assert notes.repeated == 1
    assert found.grid()[0, 0] == 1.5


def test_rows_without_a_name_or_a_number_are_told_apart_from_text() -> None:
    table = pd.DataFrame(
        {"line": ["A", None, "B", " "], "drug": ["x", "x", "x", "x"], "ln_ic50": [1.0, 2.0, None, 3.0]}
    )
    found, notes = responses(table)
    assert len(found) == 1
    assert notes.empty == 3
    with pytest.raises(InputError, match="Row 2 of the column 'ln_ic50' is 'n/d'"):
        responses(pd.DataFrame({"line": ["A", "B"], "drug": ["x", "x"], "ln_ic50": ["1.0", "n/d"]}))
    with pytest.raises(InputError, match="No row of 1"):
        responses(pd.DataFrame({"line": [""], "drug": ["x"], "ln_ic50": [1.0]}))
    with pytest.raises(InputError, match="no column 'drug'"):
        responses(pd.DataFrame({"line": ["A"], "x": [1.0]}))


@pytest.mark.parametrize("name", ["t.csv", "t.tsv.gz", "t.txt", "t.parquet"])
def test_a_table_is_the_same_in_every_format(tmp_path: Path, name: str) -> None:
    table = long([("A", "x", 1.0), ("B", "NA", 2.5)])
    path = tmp_path / name
    if path.suffix == ".parquet":
        table.to_parquet(path)
    else:
        table.to_csv(path, sep="," if ".csv" in name else "\t", index=False)
    found, _ = responses(read_table(path))
    assert found.value[0] == 1.0
    assert found.lines[0] == "A"


def test_what_is_no_table_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="not there"):
        read_table(tmp_path / "none.csv")
    (tmp_path / "bad.parquet").write_bytes(b"not parquet")
    with pytest.raises(FileError, match="can't be read"):
        read_table(tmp_path / "bad.parquet")


def test_the_stored_pairs_are_read_as_their_readme_counts_them(shared: Path) -> None:
    folder = shared / "data" / "drug"
    found, notes = responses(read_table(folder / "tgsa" / "pairs.parquet"))
    assert (len(found), len(found.lines), len(found.drugs)) == (82_833, 580, 170)
    assert notes.repeated == notes.empty == 0
    with pytest.raises(InputError, match="more than once"):
        responses(read_table(folder / "gdsc" / "gdsc1.parquet"), line="name")
