"""Files in drevalpy's form: what was written comes back to the last bit; drevalpy reads it where it is installed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cellingua.core.errors import InputError
from cellingua.molecules.response import Responses, responses
from cellingua.molecules.splits import unseen_both, unseen_lines
from cellingua.tasks.drug_export import write_dataset, write_predictions, write_split

TISSUES = {f"line {n}": "lung" if n % 2 else "skin, other" for n in range(11)}
COMPOUNDS = {f"drug {n}": str(1000 + n) for n in range(5)}


def pairs() -> Responses:
    rng = np.random.default_rng(0)
    rows = [(f"line {a}", f"drug {b}", rng.normal() * 2.5) for a in range(12) for b in range(6) if rng.random() < 0.8]
    return responses(pd.DataFrame(rows, columns=["line", "drug", "ln_ic50"]))[0]


def read(path: Path) -> pd.DataFrame:
    """Read as drevalpy does (``DrugResponseDataset.from_csv``), but every digit of a number."""
    return pd.read_csv(path, dtype={"pubchem_id": str, "cell_line_name": str}, float_precision="round_trip")


def test_a_data_set_comes_back(tmp_path: Path) -> None:
    known = pairs()
    table = read(write_dataset(tmp_path, "tiny", known, tissues=TISSUES, compounds=COMPOUNDS))
    assert list(table.columns) == ["cell_line_name", "pubchem_id", "response", "tissue"]
    names = {number: name for name, number in COMPOUNDS.items()}
    again, _ = responses(
        pd.DataFrame(
            {
                "line": table.cell_line_name,
                "drug": [names.get(d, d) for d in table.pubchem_id],
                "ln_ic50": table.response,
            }
        )
    )
    assert again.value.tobytes() == known.value.tobytes()
    assert again.lines.tolist() == known.lines.tolist()
    assert again.drugs.tolist() == known.drugs.tolist()
    assert set(table.tissue[table.cell_line_name == "line 11"]) == {"unknown"}
    lines = pd.read_csv(tmp_path / "tiny" / "cell_line_names.csv", index_col="cell_line_name")
    assert lines.tissue["line 0"] == "skin, other"
    assert len(lines.drop_duplicates()) == len(known.lines)  # as drevalpy reads tissues


def test_folds_share_nothing_and_hold_all(tmp_path: Path) -> None:
    known = pairs()
    for fold in range(2):
        at = write_split(tmp_path, "tiny", known, unseen_lines(known, fold), fold=fold)
    parts = {role: read(at / f"cv_split_1_{role}.csv") for role in ("train", "validation", "test")}
    assert sum(map(len, parts.values())) == len(known)
    lines = [set(part.cell_line_name) for part in parts.values()]
    assert all(lines)
    assert sum(map(len, lines)) == len(set.union(*lines)) == len(known.lines)
    assert at.parent.name == "LCO"
    rows = unseen_lines(known, 1).rows("test")
    said = np.random.default_rng(1).normal(size=len(rows))
    path = write_predictions(tmp_path, "tiny", "ours", known, rows, said, mode="LCO", fold=1)
    table = read(path)
    assert table.predictions.to_numpy().tobytes() == said.tobytes()
    assert table.drop(columns="predictions").equals(parts["test"])


def test_what_drevalpy_would_misread_is_refused(tmp_path: Path) -> None:
    known = pairs()
    with pytest.raises(InputError, match="drug 0, drug 1 have one identifier"):
        write_dataset(tmp_path, "tiny", known, compounds={"drug 0": "7", "drug 1": "7"})
    scaffolds = {str(drug): str(drug) for drug in known.drugs}
    with pytest.raises(InputError, match="no split of the kind unseen_both"):
        write_split(tmp_path, "tiny", known, unseen_both(known, scaffolds, 0))
    for name in ("../up", "a/b", "", ".hidden"):
        with pytest.raises(InputError, match="name of a folder"):
            write_dataset(tmp_path / "x", name, known)
    with pytest.raises(InputError, match="predictions"):
        write_predictions(tmp_path, "tiny", "ours", known, np.arange(3), np.array([1.0, np.nan, 2.0]), mode="LCO")


def test_drevalpy_reads_them(tmp_path: Path) -> None:
    datasets = pytest.importorskip("drevalpy.datasets.dataset", reason="drevalpy has an environment of its own")
    known = pairs()
    path = write_dataset(tmp_path, "tiny", known, tissues=TISSUES, compounds=COMPOUNDS)
    held = datasets.DrugResponseDataset.from_csv(path, "tiny")
    np.testing.assert_allclose(held.response, known.value, rtol=1e-15)
    tissues = pytest.importorskip("drevalpy.models.utils").load_tissues_from_csv(str(tmp_path), "tiny")
    assert set(tissues.identifiers) == set(known.lines.tolist())
    at = write_split(tmp_path, "tiny", known, unseen_lines(known, 0))
    held.load_splits(str(at))
    assert len(held.cv_splits) == 1
    assert len(held.cv_splits[0]["test"]) == len(unseen_lines(known, 0).rows("test"))
