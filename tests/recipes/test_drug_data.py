"""The stored drug tables on one axis: what is dropped, what is kept out, and what the recipe may learn from."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from cellingua.core.errors import FileError

pytest.importorskip("rdkit")

from cellingua.recipes.drug import FULL, learned_grid
from cellingua.recipes.drug_data import DrugData, _moved, read_drug_data, read_more_lines


@pytest.fixture(scope="module")
def folder() -> Path:
    found = Path(__file__).resolve().parents[3] / "shared" / "data" / "drug"
    if not found.is_dir():
        pytest.skip("the shared data folder is not beside this checkout")
    return found


@pytest.fixture(scope="module")
def data(folder: Path) -> DrugData:
    return read_drug_data(folder)


def test_tables_have_one_axis_and_no_filled_column(data: DrugData) -> None:
    assert all(len(table) == 580 for table in data.tables.values())
    wide = data.tables["wide"]
    assert wide.shape == (580, 5778) == (580, len(data.genes))
    assert int(np.isnan(wide).all(axis=1).sum()) == 6  # the README names them
    there = wide[np.isfinite(wide).all(axis=1)]
    # 385 equal columns were filled in; of what is left no two are the same
    assert len(np.unique(there[:5], axis=1).T) == 5778
    assert [m.name for m in data.molecules] == data.pairs.drugs.tolist()


def test_a_split_is_learned_from_its_roles_alone(data: DrugData) -> None:
    grid = learned_grid(data, "unseen_lines", ("train",))
    rows = data.splits["unseen_lines"].rows("train")
    assert np.isfinite(grid).sum() == len(rows) == 49_899
    test = np.unique(data.pairs.line[data.splits["unseen_lines"].rows("test")])
    assert len(test) == 116
    assert np.isnan(grid[test]).all()


def test_further_lines_hold_nothing_of_lines_that_are_not_learned_from(folder: Path, data: DrugData) -> None:
    learned = np.isfinite(learned_grid(data, "unseen_lines", ("train", "val"))).any(axis=1)
    more = read_more_lines(folder, data, learned)
    assert len(more.names) == len(more.grid) == len(more.beside) - 580
    assert len(more.names) > 300
    assert np.isnan(more.beside[:580][~learned]).all()
    assert np.isfinite(more.beside[:580][learned]).any(axis=1).sum() > 400
    ours = {"".join(c for c in name.upper() if c.isalnum()) for name in data.lines.name}
    assert not ours & {"".join(c for c in str(name).upper() if c.isalnum()) for name in more.names}
    assert all(len(table) == len(more.names) for table in more.tables.values())
    # no profile is one of TGSA's own, under whatever name
    there = data.tables["wide"][np.isfinite(data.tables["wide"]).all(axis=1)]
    alike = np.corrcoef(more.tables["wide"], there)[: len(more.names), len(more.names) :]
    assert alike.max() < 0.999


def test_moving_a_screen_is_learned_from_learned_lines() -> None:
    rng = np.random.default_rng(0)
    ours = rng.normal(size=(60, 2))
    later = np.concatenate([ours + [1.0, -2.0], rng.normal(size=(5, 2))])
    learned = np.arange(60) < 40
    moved = _moved(later, ours, learned)
    assert np.allclose(moved[:60], ours)
    wild = later.copy()
    wild[40:60] += 100
    assert np.allclose(_moved(wild, ours, learned)[60:], moved[60:])
    assert np.isnan(_moved(later, ours, np.arange(60) < 10)).all()  # too few lines in common


def test_the_bands_hold_each_component_once() -> None:
    ends = [(band.start, band.stop) for band in FULL.bands]
    assert ends[0][0] == 0
    assert ends[-1][1] is None
    assert all(left[1] == right[0] for left, right in pairwise(ends))


def test_a_folder_without_the_tables_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"pairs\.parquet"):
        read_drug_data(tmp_path)
