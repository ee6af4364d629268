"""The texts of a corpus's cells: read from its label columns once, drawn in every step, aspects left out at random.

The cell type is never left out first; where it is said alone a text is what a prompt is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cellingua.cells.sources import DONOR, FILE, CellSource
from cellingua.core.errors import InputError, LabelError
from cellingua.words.aspects import Reading
from cellingua.words.describing import CellFacts, draw_texts, read_facts
from cellingua.words.ontology import load_ontology

CELL_TYPE = "cell type"


@dataclass(frozen=True)
class TextConfig:
    """How a cell's metadata become its text.

    Parameters
    ----------
    templates
        Forms of a text, drawn evenly; see `cellingua.words.templates.TEMPLATES`.
    drop
        Chance of leaving out each aspect but the first that is known, the cell type.
    alone
        Chance that the first is said alone.
    columns
        Aspect -> label column, for corpora whose columns are not named after CELLxGENE's schema, as
        ``"cell type=louvain"``.
    limit
        Most word pieces of a text.
    """

    templates: tuple[str, ...] = ("langcell",)
    drop: float = 0.5
    alone: float = 0.25
    columns: tuple[str, ...] = ()
    limit: int = 512

    def own_columns(self) -> dict[str, str]:
        """Return `columns` as a mapping."""
        return dict(text.split("=", 1) for text in self.columns)


class CorpusTexts:
    """Texts and types of the cells of a source.

    Parameters
    ----------
    source
        With metadata in its label columns; `InputError` where none says the cell type.
    config
        See `TextConfig`.
    """

    def __init__(self, source: CellSource, config: TextConfig) -> None:
        self.config = config
        names = [name for name in source.categories if name not in (FILE, DONOR)]
        table = {
            name: pd.Categorical.from_codes(source.column(name), pd.Index(source.categories[name])) for name in names
        }
        try:
            self.facts: CellFacts = read_facts(table, own_columns=config.own_columns())
        except InputError as error:
            raise LabelError(
                f"The texts of cells need to know the cell type. {error.found}",
                "label columns named after CELLxGENE's schema, such as cell_type, tissue, disease, sex",
                "--label-columns cell_type=COLUMN tissue=COLUMN when the corpus is prepared",
            ) from error
        self.types, of_row = _types(self.facts.rows)
        self.type_of: NDArray[np.int64] = of_row[self.facts.index]

    def draw(self, cells: NDArray[np.integer], seed: list[int]) -> list[str]:
        """Return a text of each of some cells, ``""`` where nothing is known; a function of the arguments."""
        config = self.config
        rng = np.random.default_rng(seed)
        return draw_texts(self.facts, cells, rng, drop=config.drop, alone=config.alone, templates=config.templates)


def _types(rows: Sequence[Mapping[str, Reading]]) -> tuple[list[str], NDArray[np.int64]]:
    """Return the types that occur, as ontology ids where known, and that of each distinct row (-1: not known)."""
    ontology = load_ontology("CL")
    place: dict[str, int] = {}
    found = np.full(len(rows), -1, np.int64)
    for number, row in enumerate(rows):
        if CELL_TYPE in row:
            name = row[CELL_TYPE].name
            found[number] = place.setdefault(ontology.find(name) or name.lower(), len(place))
    return list(place), found
