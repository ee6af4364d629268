"""The recipe for drug responses: which views and bands, and one call for every question.

The weights were chosen by leave-one-out error over the training and validation lines of TGSA's table, and the
molecules' kernel by folds of whole scaffolds over its training and validation drugs; nothing was chosen on test pairs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cellingua.calibration.ranges import Ranges
from cellingua.models.drug_field import Band, Completed, FieldConfig, complete
from cellingua.models.drug_views import View
from cellingua.molecules.smiles import likeness
from cellingua.recipes.drug_data import DrugData, MoreLines

Floats = NDArray[np.float64]


def _views(
    wide: tuple[float, float], near: tuple[float, float], marks: tuple[float, float], copies: float, lineage: float
) -> tuple[View, ...]:
    """Return the views of one band: (linear, radial) of both expression tables, then what is added to them.

    Genes that are known to carry responses (`recipes.drug_targets`) are seen twice: among all, and among themselves.
    """
    return (
        View("wide", wide[0], wide[1], profile=1.5),
        View("targets", 1.0, 1.0),
        View("expression", near[0], near[1]),
        View("mutations_wide", marks[0], scale=False),
        View("mutations", marks[1], scale=False),
        View("copies", copies, scale=False),
        View("lineage", lineage, scale=False),
    )


#: All that is known of TGSA's lines. General sensitivity follows many genes a little; fine differences follow
#: neighbours and copy number.
FULL = FieldConfig(
    (
        Band(_views((4.0, 0.7), (0.7, 0.4), (0.3, 0.6), 0.3, 0.05), 0, 1),
        Band(_views((2.5, 2.5), (1.0, 1.0), (0.4, 0.2), 0.25, 0.3), 1, 6),
        Band(_views((1.0, 5.0), (0.2, 1.0), (0.4, 0.4), 0.8, 0.25), 6),
    )
)


@dataclass(frozen=True)
class Answered:
    """Predictions for pairs of a split.

    Attributes
    ----------
    rows
        int64 (n,): the pairs.
    truth, prediction, sd
        float64 (n,), ln(IC50 / µM).
    new_lines
        Ranges for lines that were not learned from, where the split asks for such.
    """

    rows: NDArray[np.int64]
    truth: Floats
    prediction: Floats
    sd: Floats
    new_lines: Ranges | None = None


def learned_grid(data: DrugData, kind: str, roles: tuple[str, ...]) -> Floats:
    """Return TGSA's table with the pairs of some roles of a split alone, NaN elsewhere."""
    rows = data.splits[kind].rows(*roles)
    grid = np.full((len(data.pairs.lines), len(data.pairs.drugs)), np.nan)
    grid[data.pairs.line[rows], data.pairs.drug[rows]] = data.pairs.value[rows]
    return grid


def answer(
    data: DrugData,
    kind: str,
    *,
    learn: tuple[str, ...] = ("train", "val"),
    role: str = "test",
    more: MoreLines | None = None,
    config: FieldConfig = FULL,
) -> Answered:
    """Learn from some roles of a split and answer another.

    Parameters
    ----------
    kind
        A key of ``data.splits``.
    more
        Further lines and drugs to learn from, read for the lines of these roles.
    """
    grid, tables = learned_grid(data, kind, learn), dict(data.tables)
    beside = None
    if more is not None:
        grid = np.concatenate([grid, more.grid])
        tables = {name: np.concatenate([table, more.tables[name]]) for name, table in tables.items()}
        beside = more.beside
    done = complete(grid, tables, config, molecules=likeness(data.molecules), beside=beside)
    return of_split(data, kind, role, done)


def of_split(data: DrugData, kind: str, role: str, done: Completed) -> Answered:
    """Return the pairs of a role beside what a full table says of them."""
    rows = data.splits[kind].rows(role)
    where = data.pairs.line[rows], data.pairs.drug[rows]
    return Answered(rows, data.pairs.value[rows], done.values[where], done.sd[where], done.new_lines)
