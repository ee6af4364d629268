"""Text of a cell type, and text of cells from their metadata, in the form that LangCell was trained on.

The form is that of the released code (specification of LangCell, section 2): lower case,
``"cell type: <name>. <definition>; "``; a definition that is missing is left out.

For training, metadata are read once and texts are drawn at every step::

    read_facts(columns, *, aspects=None, own_columns=None, definitions=None) -> CellFacts
    draw_texts(facts, cells, rng, *, drop=0.5, alone=0.25, templates=("langcell",)) -> list[str]
    CellFacts.texts(template="langcell") -> (texts, index): every distinct text once, nothing left out

``columns`` is a mapping name -> column (a data frame will do), such as ``{"cell_type_ontology_term_id": ids}``;
``cells`` are int places in it, ``rng`` a ``numpy.random.Generator``. A text always begins with the cell type where
that is known, and with the chance `alone` says nothing else, as prompts do. ``""`` stands for a cell that nothing is
known of (``facts.described`` is False there): leave those out before drawing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellingua.core.errors import ConfigError
from cellingua.words.aspects import Reading, read_aspect, read_organ
from cellingua.words.definitions import own_definitions
from cellingua.words.leaving_out import check_chance, keep, kept
from cellingua.words.metadata import ASPECTS as ASPECTS
from cellingua.words.metadata import FIELD, NAMES, Table, choose_aspects, distinct_rows, find_columns
from cellingua.words.ontology import Ontology, load_ontology
from cellingua.words.templates import TEMPLATES as TEMPLATES
from cellingua.words.templates import check_template, compose, phrase


def describe_term(term_id: str, ontology: Ontology | None = None) -> str:
    """Return the text of a cell type: ``"cell type: b cell. a lymphocyte of b lineage ... mediated immunity.; "``.

    Parameters
    ----------
    term_id
        An id of the ontology; `LabelError` if it isn't a live term.
    ontology
        By default the Cell Ontology.
    """
    ontology = ontology or load_ontology("CL")
    return phrase("cell type", ontology.name(term_id), ontology.definition(term_id))


def describe_label(label: str, description: str = "") -> str:
    """Return the text of a label that is no term of the ontology, with the user's own description if there is one."""
    return phrase("cell type", label, description)


@dataclass(frozen=True)
class CellFacts:
    """What the metadata of cells say, each distinct row read once.

    Attributes
    ----------
    rows
        Distinct rows: aspect -> what it says, the aspects that say something alone, in their fixed order.
    index
        int64 (cells,): the place in `rows` of each cell.
    aspects
        Aspects that the table has, or that follow from what it has.
    derived
        Aspects that no column says and that follow from another: the organ, from the tissue.
    unknown
        Aspect -> label that no ontology knows -> number of cells; such labels are said as they are.
    read_as
        Label of a cell type that is no name of the ontology -> the name it was read as, by the rules for labels.
    without
        Aspect -> number of cells whose metadata don't say it.
    used
        Keys of the user's definitions that were used.
    """

    rows: list[dict[str, Reading]]
    index: NDArray[np.int64]
    aspects: tuple[str, ...]
    derived: tuple[str, ...]
    unknown: dict[str, dict[str, int]]
    read_as: dict[str, str]
    without: dict[str, int]
    used: frozenset[str]

    def __len__(self) -> int:
        return len(self.index)

    @cached_property
    def described(self) -> NDArray[np.bool_]:
        """bool (cells,): whether anything is known of a cell."""
        return np.array([bool(row) for row in self.rows], dtype=np.bool_)[self.index]

    def texts(self, template: str = "langcell", *, drop: float = 0.0, seed: int = 0) -> CellTexts:
        """Return the text of every cell; `template`, `drop` and `seed` are those of `describe_cells`."""
        check_template(template)
        check_chance("drop", drop)
        places: dict[str, int] = {}
        of_row = np.zeros(len(self.rows), dtype=np.int64)
        for number, row in enumerate(self.rows):
            text = compose(keep(row, drop, seed), template)
            of_row[number] = places.setdefault(text, len(places))
        return CellTexts(list(places), of_row[self.index], self)


@dataclass(frozen=True)
class CellTexts:
    """The texts of cells, each distinct one once.

    Attributes
    ----------
    texts
        Distinct texts in order of first appearance; ``""`` for cells that nothing is said of.
    index
        int64 (cells,): the place in `texts` of each cell.
    facts
        What they were made of, and what could not be read.
    """

    texts: list[str]
    index: NDArray[np.int64]
    facts: CellFacts

    @property
    def each(self) -> NDArray[np.object_]:
        """The text of every cell, (cells,)."""
        return np.array(self.texts, dtype=object)[self.index]


def read_facts(
    columns: Table,
    *,
    aspects: Sequence[str] | None = None,
    own_columns: Mapping[str, str] | None = None,
    definitions: Mapping[str, str] | None = None,
) -> CellFacts:
    """Read the metadata of cells; rows that are identical are read once.

    Parameters
    ----------
    columns
        Name -> column with a value a cell, named as in CELLxGENE's schema (version 2 to 7); a data frame will do.
    aspects
        Aspects to say, which must be there; by default all that are there, of which the cell type must be. The organ
        is there where the tissue is: a cell whose metadata don't say it gets the organ that its tissue belongs to.
    own_columns
        Aspect -> column that says it, for tables that don't follow the schema.
    definitions
        Id or name -> the user's own definition.

    Raises
    ------
    InputError
        Columns are missing or differ in length, keys of definitions are repeated.
    ConfigError
        An unknown aspect.
    """
    chosen = None if aspects is None else choose_aspects(aspects)
    where = find_columns([str(name) for name in columns], chosen, own_columns)
    needed = list(dict.fromkeys(name for column in where.values() for name in column.needed))
    rows, index = distinct_rows([columns[name] for name in needed])
    cells = np.bincount(index, minlength=len(rows)).tolist()
    reader = _Reader(own_definitions(definitions or {}))
    found: list[dict[str, Reading]] = []
    unknown: dict[str, dict[str, int]] = {}
    without = dict.fromkeys(where, 0)
    places = {name: place for place, name in enumerate(needed)}
    at = {aspect: [places.get(name or "", -1) for name in column.four] for aspect, column in where.items()}
    for row, n in zip(rows, cells, strict=True):
        values, said = (*row, ""), {}
        for aspect, (ids, names, tissue_ids, tissues) in at.items():
            # Place -1, of a column that isn't there, is the "" at the end.
            reading = reader.read(aspect, values[ids], values[names], values[tissue_ids], values[tissues])
            if not reading.name:
                without[aspect] += n
                continue
            said[aspect] = reading
            if not reading.known:
                counts = unknown.setdefault(aspect, {})
                counts[reading.name] = counts.get(reading.name, 0) + n
        found.append(said)
    read_as = {reading.label: reading.name for reading in reader.read_already.values() if reading.label}
    used = frozenset(key for reading in reader.read_already.values() for key in reading.own)
    derived = tuple(aspect for aspect, column in where.items() if column.ids is None and column.names is None)
    return CellFacts(found, index, tuple(where), derived, unknown, read_as, without, used)


class _Reader:
    """Reads aspects, each combination of id and name once."""

    def __init__(self, own: Mapping[str, str]) -> None:
        self.own = own
        self.read_already: dict[tuple[str, str, str], Reading] = {}

    def read(self, aspect: str, term_id: str, name: str, tissue_id: str = "", tissue: str = "") -> Reading:
        """Return what one aspect says; an organ that isn't said follows from the tissue."""
        key = (aspect, term_id, name)
        if key not in self.read_already:
            self.read_already[key] = read_aspect(*key, self.own)
        if self.read_already[key].name or not (tissue_id or tissue):
            return self.read_already[key]
        key = ("organ of", tissue_id, tissue)
        if key not in self.read_already:
            self.read_already[key] = read_organ(tissue_id, tissue, self.own)
        return self.read_already[key]


def describe_cells(
    columns: Table,
    *,
    template: str = "langcell",
    aspects: Sequence[str] | None = None,
    own_columns: Mapping[str, str] | None = None,
    definitions: Mapping[str, str] | None = None,
    drop: float = 0.0,
    seed: int = 0,
) -> CellTexts:
    """Return the text of every cell of a table; identical metadata is read and described once.

    Parameters
    ----------
    columns, aspects, own_columns, definitions
        As `read_facts` takes them.
    template
        One of `TEMPLATES`.
    drop
        Chance of leaving out an aspect (0 to 1). The cell type is always kept; where it isn't known, the first aspect
        that is. At 1 the cell type alone is said, as in prompts.
    seed
        Draw of `drop`. It depends on the seed and the metadata alone, not on the order or number of cells.

    Raises
    ------
    InputError
        Columns are missing or differ in length, keys of definitions are repeated.
    ConfigError
        An unknown template or aspect, or a chance outside 0 to 1.
    """
    check_template(template)
    check_chance("drop", drop)
    facts = read_facts(columns, aspects=aspects, own_columns=own_columns, definitions=definitions)
    return facts.texts(template, drop=drop, seed=seed)


def describe_cell(
    metadata: Mapping[str, Any], *, template: str = "langcell", definitions: Mapping[str, str] | None = None
) -> str:
    """Return the text of one cell from up to eight aspects of its metadata, each with its ontology's definition.

    Parameters
    ----------
    metadata
        Fields by their CELLxGENE names (``cell_type``, ``tissue``, ``tissue_general``, ``development_stage``,
        ``disease``, ``sex``, ``self_reported_ethnicity``, ``assay``), each a name; beside each, where known, its
        ``<field>_ontology_term_id``, which then decides. Fields that are missing or say nothing are skipped, and so
        is a tissue equal to its organ; an organ that isn't said follows from the tissue.
    template
        One of `TEMPLATES`.
    definitions
        Id or name -> the user's own definition.

    Returns
    -------
    str
        Aspects in their fixed order; ``""`` if none says anything.

    Raises
    ------
    ConfigError
        An unknown template.
    """
    check_template(template)
    reader = _Reader(own_definitions(definitions or {}))
    where = find_columns([*metadata, FIELD["cell type"]])
    values = {name: "" if value is None else " ".join(str(value).split()) for name, value in metadata.items()}
    said = {
        aspect: reader.read(aspect, *(values.get(name or "", "") for name in column.four))
        for aspect, column in where.items()
    }
    return compose(said, template)


def draw_texts(
    facts: CellFacts,
    cells: Sequence[int] | NDArray[np.integer],
    rng: np.random.Generator,
    *,
    drop: float = 0.5,
    alone: float = 0.25,
    templates: Sequence[str] = ("langcell",),
) -> list[str]:
    """Return a text of each of some cells with aspects left out at random, for a step of training.

    Parameters
    ----------
    facts
        From `read_facts`, once for all steps.
    cells
        Places of the cells of this step; one may come several times, and is drawn each time.
    rng
        Of this step; nothing else is drawn from it than ``(len(cells), 10)`` numbers.
    drop
        Chance of leaving out each aspect but the first that is known, which is the cell type (0 to 1).
    alone
        Chance that the first is said alone, whatever `drop` is: prompts hold the cell type alone, so that training
        must have seen it so (0 to 1).
    templates
        Each text has one of these, drawn evenly.

    Returns
    -------
    list of str
        One a cell; ``""`` where nothing is known of the cell.

    Raises
    ------
    ConfigError
        An unknown template, none, or a chance outside 0 to 1.
    """
    check_chance("drop", drop)
    check_chance("alone", alone)
    if not templates:
        raise ConfigError("No template is named.", "some of: " + ", ".join(TEMPLATES))
    for template in templates:
        check_template(template)
    draws = rng.random((len(cells), len(NAMES) + 2))
    texts = []
    for row, draw in zip(facts.index[np.asarray(cells, dtype=np.int64)].tolist(), draws, strict=True):
        template = templates[int(draw[-1] * len(templates))]
        chance = 1.0 if draw[-2] < alone else drop
        texts.append(compose(kept(facts.rows[row], dict(zip(NAMES, draw, strict=False)), chance), template))
    return texts
