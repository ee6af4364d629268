"""Text of a cell type, and text of a cell from its metadata, in the form that LangCell was trained on.

The form is that of the released code (specification of LangCell, section 2): lower case,
``"cell type: <name>. <definition>; "``; a definition that is missing is left out.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellingua.core.errors import ConfigError
from cellingua.words.definitions import definition_key, own_definitions
from cellingua.words.metadata import ASPECTS as ASPECTS
from cellingua.words.metadata import (
    FIELD,
    NAMES,
    PREFIXES_OF,
    choose_aspects,
    distinct_rows,
    find_columns,
)
from cellingua.words.ontology import Ontology, load_ontology

SAYS_NOTHING = {"", "unknown", "na", "n/a", "nan", "none", "<na>", "not applicable", "unassigned"}
# Template -> what it is. The first is LangCell's (specification, section 2.2).
TEMPLATES = {
    "langcell": "'cell type: b cell. a lymphocyte of ...; tissue: blood. ...; ', LangCell's form",
    "names": "the same without definitions: 'cell type: b cell. tissue: blood. '",
    "sentence": "'a cell of type b cell, from blood, ... . a lymphocyte of ...', only the type is defined",
    "bare": "names alone: 'b cell, blood, normal'",
}
_SENTENCE = {
    "cell type": "of type {}",
    "tissue": "from {}",
    "organ": "of the organ {}",
    "development stage": "at the stage {}",
    "disease": "with the disease state {}",
    "sex": "of sex {}",
    "ethnicity": "of ethnicity {}",
    "assay": "measured by {}",
}
_ID = re.compile(r"[A-Za-z]+:\d+")
_KIND_OF_TISSUE = re.compile(r"\s*\((cell culture|organoid)\)$", re.IGNORECASE)


@lru_cache(maxsize=4096)  # cells of many combinations share few phrases
def _phrase(aspect: str, name: str, definition: str) -> str:
    """Return ``"<aspect>: <name>. <definition>; "`` in lower case, on one line."""
    definition = " ".join(definition.split())
    text = f"{aspect}: {' '.join(name.split())}. "
    if definition:
        text += f"{definition}; "
    return text.lower()


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
    return _phrase("cell type", ontology.name(term_id), ontology.definition(term_id))


def describe_label(label: str, description: str = "") -> str:
    """Return the text of a label that is no term of the ontology, with the user's own description if there is one."""
    return _phrase("cell type", label, description)


@dataclass(frozen=True)
class Reading:
    """What one aspect of one cell says.

    Attributes
    ----------
    name, definition
        As they are said; a name that is ``""`` says nothing, a definition that is ``""`` is left out.
    known
        False for a label that no ontology knows, and no definition of the user's.
    own
        Keys of the user's definitions that were used.
    """

    name: str
    definition: str = ""
    known: bool = True
    own: tuple[str, ...] = ()


def read_aspect(aspect: str, term_id: str, name: str, definitions: Mapping[str, str] | None = None) -> Reading:
    """Return what one aspect says, from its term id if that is known, else from its name.

    Parameters
    ----------
    aspect
        One of `cellingua.words.metadata.NAMES`.
    term_id, name
        As they stand in the metadata, ``""`` where there is none. An id may stand in place of the name; several ids
        or names are joined by ``||`` (ids also by commas); an obsolete id is read as what replaces it.
    definitions
        The user's own, as from `cellingua.words.definitions.own_definitions`; they go before the ontology's.
    """
    own = definitions or {}
    ids, names = _several_ids(term_id), [part.strip() for part in name.split("||")]
    if max(len(ids), len(names)) == 1:
        return _read_one(aspect, ids[0], names[0], own)
    if len(ids) != len(names):
        ids, names = (ids, [""] * len(ids)) if any(ids) else ([""] * len(names), names)
    parts = [part for part in (_read_one(aspect, *pair, own) for pair in zip(ids, names, strict=True)) if part.name]
    return Reading(
        " and ".join(part.name for part in parts),
        " ".join(part.definition for part in parts if part.definition),
        all(part.known for part in parts),
        tuple(key for part in parts for key in part.own),
    )


def _several_ids(text: str) -> list[str]:
    parts = text.split("||")
    commas = [part.strip() for part in text.split(",")]
    if len(parts) == 1 and all(_ID.fullmatch(part) for part in commas):
        parts = commas
    return [_KIND_OF_TISSUE.sub("", part).strip() for part in parts]


def _read_one(aspect: str, term_id: str, name: str, own: Mapping[str, str]) -> Reading:
    ontologies = [load_ontology(prefix) for prefix in PREFIXES_OF[aspect]]
    plain = _KIND_OF_TISSUE.sub("", name)
    term = next((live for text in (term_id, plain) for o in ontologies if (live := _live(o, text))), None)
    if term is None and plain.lower() not in SAYS_NOTHING:
        term = next(((o, found) for o in ontologies if (found := o.find(plain))), None)
    if term is not None:
        said, definition = term[0].name(term[1]), term[0].definition(term[1])
    elif name.lower() not in SAYS_NOTHING:
        said, definition = name, ""
    elif _ID.fullmatch(term_id):
        said, definition = term_id, ""
    else:
        return Reading("")
    for key in dict.fromkeys(definition_key(text) for text in (term_id, term[1] if term else "", name, said)):
        if key and key in own:
            return Reading(said, own[key], True, (key,))
    return Reading(said, definition, term is not None)


def _live(ontology: Ontology, term_id: str) -> tuple[Ontology, str] | None:
    if term_id in ontology:
        return ontology, term_id
    replaced_by = (ontology.obsolete(term_id) or ("", ""))[1]
    return (ontology, replaced_by) if replaced_by in ontology else None


def _compose(readings: Mapping[str, Reading], template: str) -> str:
    """Return the text of a cell, in lower case, on one line; ``""`` if no aspect says anything."""
    said = {aspect: readings[aspect] for aspect in NAMES if aspect in readings and readings[aspect].name}
    if "tissue" in said and "organ" in said and said["tissue"].name.lower() == said["organ"].name.lower():
        del said["tissue"]
    if template == "langcell":
        return "".join(_phrase(aspect, part.name, part.definition) for aspect, part in said.items())
    if template == "names":
        return "".join(_phrase(aspect, part.name, "") for aspect, part in said.items())
    if template == "bare":
        text = ", ".join(part.name for part in said.values())
    else:
        text = ", ".join(_SENTENCE[aspect].format(part.name) for aspect, part in said.items())
        text = f"a cell {text}. {said['cell type'].definition if 'cell type' in said else ''}" if said else ""
    return " ".join(text.split()).lower()


def check_template(template: str) -> None:
    """Raise `ConfigError` for a template that doesn't exist."""
    if template not in TEMPLATES:
        raise ConfigError(f"There is no template {template!r}.", "one of: " + ", ".join(TEMPLATES), "another name")


def describe_cell(
    metadata: Mapping[str, Any], *, template: str = "langcell", definitions: Mapping[str, str] | None = None
) -> str:
    """Return the text of a cell from up to eight aspects of its metadata, each with its ontology's definition.

    Parameters
    ----------
    metadata
        Fields by their CELLxGENE names (``cell_type``, ``tissue``, ``tissue_general``, ``development_stage``,
        ``disease``, ``sex``, ``self_reported_ethnicity``, ``assay``), each a name; beside each, where known, its
        ``<field>_ontology_term_id``, which then decides. Fields that are missing or say nothing are skipped, and so
        is a tissue equal to its organ.
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
    own = own_definitions(definitions or {})
    readings = {}
    for aspect, column in find_columns([*metadata, FIELD["cell type"]]).items():
        ids, names = (_text(metadata.get(key)) if key else "" for key in (column.ids, column.names))
        readings[aspect] = read_aspect(aspect, ids, names, own)
    return _compose(readings, template)


def _text(value: Any) -> str:
    return "" if value is None else " ".join(str(value).split())


@dataclass(frozen=True)
class CellTexts:
    """The texts of cells, each distinct one once.

    Attributes
    ----------
    texts
        Distinct texts in order of first appearance; ``""`` for cells that nothing is said of.
    index
        int64 (cells,): the place in `texts` of each cell.
    aspects
        Aspects that the table has.
    unknown
        Aspect -> label that no ontology knows -> number of cells; such labels are said as they are.
    without
        Aspect -> number of cells whose metadata don't say it.
    used
        Keys of the user's definitions that were used.
    """

    texts: list[str]
    index: NDArray[np.int64]
    aspects: tuple[str, ...]
    unknown: dict[str, dict[str, int]]
    without: dict[str, int]
    used: frozenset[str]


def describe_cells(
    columns: Mapping[str, Any],
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
    columns
        Name -> column with a value a cell, named as in CELLxGENE's schema (version 3 to 7); a data frame will do.
    template
        One of `TEMPLATES`.
    aspects
        Aspects to say, which must be there; by default all that are there, of which the cell type must be.
    own_columns
        Aspect -> column that says it, for tables that don't follow the schema.
    definitions
        Id or name -> the user's own definition.
    drop
        Chance of leaving out an aspect, for training (0 to 1). The cell type is always kept; where it isn't known,
        the first aspect that is. At 1 the cell type alone is said, as in prompts.
    seed
        Draw of `drop`. It depends on the seed and the metadata alone, not on the order or number of cells; give
        each training step its own.

    Raises
    ------
    InputError
        Columns are missing or differ in length, keys of definitions are repeated.
    ConfigError
        An unknown template or aspect, or a chance outside 0 to 1.
    """
    check_template(template)
    if not 0 <= drop <= 1:
        raise ConfigError(f"drop is {drop}.", "a chance from 0 to 1")
    own = own_definitions(definitions or {})
    where = find_columns(list(columns), None if aspects is None else choose_aspects(aspects), own_columns)
    needed = list(dict.fromkeys(name for column in where.values() for name in (column.ids, column.names) if name))
    rows, index = distinct_rows([columns[name] for name in needed])
    cells = np.bincount(index, minlength=len(rows))
    read: dict[tuple[str, str, str], Reading] = {}
    places: dict[str, int] = {}
    text_of_row = np.zeros(len(rows), dtype=np.int64)
    unknown: dict[str, dict[str, int]] = {}
    without = dict.fromkeys(where, 0)
    for number, row in enumerate(rows):
        values = dict(zip(needed, row, strict=True))
        readings = {}
        for aspect, column in where.items():
            key = (aspect, values.get(column.ids or "", ""), values.get(column.names or "", ""))
            reading = read[key] = read.get(key) or read_aspect(*key, own)
            readings[aspect] = reading
            without[aspect] += 0 if reading.name else int(cells[number])
            if not reading.known:
                counts = unknown.setdefault(aspect, {})
                counts[reading.name] = counts.get(reading.name, 0) + int(cells[number])
        text = _compose(_keep(readings, drop, seed), template)
        text_of_row[number] = places.setdefault(text, len(places))
    used = frozenset(key for reading in read.values() for key in reading.own)
    return CellTexts(list(places), text_of_row[index], tuple(where), unknown, without, used)


def _keep(readings: Mapping[str, Reading], drop: float, seed: int) -> dict[str, Reading]:
    """Return the aspects that aren't dropped; the first that says something always stays."""
    said = {aspect: readings[aspect] for aspect in NAMES if aspect in readings and readings[aspect].name}
    if drop == 0:
        return said
    facts = "\x1f".join(f"{aspect}={reading.name.lower()}" for aspect, reading in said.items())
    # 64 bytes: a draw of 8 bytes for each of the eight aspects.
    draws = np.frombuffer(hashlib.blake2b(f"{seed}\x1f{facts}".encode()).digest(), dtype="<u8") / 2.0**64
    chance = dict(zip(NAMES, draws, strict=True))
    return {a: part for place, (a, part) in enumerate(said.items()) if place == 0 or chance[a] >= drop}
