"""What `drug_mini` is trained on, from the folder of drug-response tables and the folder of mean profiles.

TGSA's pairs without its test lines, GDSC2's pairs of further lines, drugs of both GDSC screens beside them, and the
array expression of all; and the RNA-seq profiles of the Human Protein Atlas for the genes' levels in sequencing.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cellingua.core.errors import FileError
from cellingua.models.drug_expression import Samples
from cellingua.recipes.drug import learned_grid
from cellingua.recipes.drug_data import DrugData, read_drug_data, read_more_lines, spelled
from cellingua.recipes.drug_mini import Learned

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class MiniData:
    """Aligned tables.

    Attributes
    ----------
    data
        TGSA's tables.
    learned
        Lines to learn from, TGSA's first; only those with array expression.
    test
        Array expression of the lines of a role that was not learned from.
    test_grid
        float64 (m, D): what was measured on them.
    sequenced
        Lines in RNA-seq, named as in `learned` where they are the same.
    """

    data: DrugData
    learned: Learned
    test: Samples
    test_grid: Floats
    sequenced: Samples


def read_mini_data(
    drug_folder: Path, cells_folder: Path, *, learn: tuple[str, ...] = ("train", "val"), role: str = "test"
) -> MiniData:
    """Read what the model is trained on.

    Parameters
    ----------
    drug_folder
        As `recipes.drug_data` reads it.
    cells_folder
        With ``profiles/hpa_cell_lines.parquet``.
    learn, role
        Roles of TGSA's split by line: what is learned from, and what is kept for the test.
    """
    data = read_drug_data(drug_folder)
    grid = learned_grid(data, "unseen_lines", learn)
    more = read_more_lines(drug_folder, data, np.asarray(np.isfinite(grid).any(axis=1)))
    wide = np.concatenate([data.tables["wide"], more.tables["wide"]])
    whole = np.concatenate([grid, more.grid])
    names = [*data.pairs.lines.tolist(), *more.names.tolist()]
    measured = np.isfinite(wide).any(axis=1)
    rows = np.flatnonzero(np.isfinite(whole).any(axis=1) & measured)
    expression = Samples([names[row] for row in rows], data.genes, wide[rows])
    tests = learned_grid(data, "unseen_lines", (role,))
    kept = np.flatnonzero(np.isfinite(tests).any(axis=1) & measured[: len(tests)])
    held = Samples([names[row] for row in kept], data.genes, wide[kept])
    learned = Learned(expression, whole[rows], more.beside[rows])
    return MiniData(data, learned, held, tests[kept], _sequenced(cells_folder, data, expression.names))


def _sequenced(folder: Path, data: DrugData, names: list[str]) -> Samples:
    """Return RNA-seq profiles of lines, named as in `names` where a line of that spelling is among them."""
    path = folder / "profiles" / "hpa_cell_lines.parquet"
    if not path.is_file():
        raise FileError(f"{path} is not there.", "the folder of cells and mean profiles", "its README")
    table = pd.read_parquet(path)
    listed = dict(zip(data.pairs.lines.tolist(), data.lines.name.tolist(), strict=True))
    by_name = {spelled(listed.get(name, name)): name for name in names}
    columns = [column for column in table.columns if column != "symbol"]
    called = [by_name.get(spelled(column.split("|")[-1]), column) for column in columns]
    values = table[columns].to_numpy(np.float64).T
    return Samples(called, table.index.to_numpy().astype(np.str_), values)
