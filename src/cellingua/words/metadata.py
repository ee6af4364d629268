"""Metadata of cells after CELLxGENE's schema: which column says what, and the distinct rows of a table of cells.

Versions 2 to 7 of the schema use the same columns: a name and, beside it, ``<name>_ontology_term_id`` (files that
were not yet published have the ids alone; version 2 says ``ethnicity``, later ones ``self_reported_ethnicity``). They
differ in values: several diseases or ethnicities of one cell are joined by ``" || "`` or, up to version 5, by a comma;
tissues up to version 3 may end in ``" (organoid)"`` or ``" (cell culture)"``. ``tissue_general`` is added to files that
CELLxGENE publishes; elsewhere the organ follows from the tissue.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cellingua.core.errors import ConfigError, InputError

#: Metadata of cells: name of a column -> its values, one a cell.
Table = Mapping[str, Any] | pd.DataFrame
# Aspect, field of CELLxGENE's metadata, prefixes of its ontologies. The cell type comes first, so that a limit on
# the length of a text never cuts it off.
ASPECTS: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("cell type", "cell_type", ("CL",)),
    ("tissue", "tissue", ("UBERON", "CL")),
    ("organ", "tissue_general", ("UBERON",)),
    ("development stage", "development_stage", ("HsapDv", "UBERON")),
    ("disease", "disease", ("MONDO", "PATO")),
    ("sex", "sex", ("PATO",)),
    ("ethnicity", "self_reported_ethnicity", ("HANCESTRO",)),
    ("assay", "assay", ("EFO",)),
)
NAMES = tuple(aspect for aspect, _, _ in ASPECTS)
FIELD = {aspect: field for aspect, field, _ in ASPECTS}
PREFIXES_OF = {aspect: prefixes for aspect, _, prefixes in ASPECTS}
ID = "_ontology_term_id"
VERSIONS = range(2, 8)
# What a field was called before version 3; files of later versions that were edited by hand still have it.
FORMER = {"self_reported_ethnicity": "ethnicity"}


@dataclass(frozen=True)
class Column:
    """Where a table says one aspect: the column of ids and that of names, None where there is none.

    `tissue` is where the tissue is said, for an organ that may follow from it.
    """

    ids: str | None
    names: str | None
    tissue: tuple[str | None, str | None] = (None, None)

    @property
    def four(self) -> tuple[str | None, str | None, str | None, str | None]:
        """Columns of ids and names, and those of the tissue's."""
        return (self.ids, self.names, *self.tissue)

    @property
    def needed(self) -> list[str]:
        """Names of all columns that are read."""
        return [name for name in self.four if name is not None]


def choose_aspects(wanted: Sequence[str]) -> tuple[str, ...]:
    """Return aspects in their fixed order, from names such as ``"cell type"``, ``"cell_type"`` or ``"organ"``.

    Raises
    ------
    ConfigError
        An aspect that doesn't exist, one that is named twice, or none.
    """
    known = {name: name for name in NAMES} | {field.replace("_", " "): name for name, field in FIELD.items()}
    chosen = []
    for text in wanted:
        name = known.get(" ".join(text.replace("_", " ").split()).lower())
        if name is None:
            raise ConfigError(f"There is no aspect {text!r}.", "some of: " + ", ".join(NAMES), "another name")
        if name in chosen:
            raise ConfigError(f"The aspect {name!r} is named twice.", "each aspect once")
        chosen.append(name)
    if not chosen:
        raise ConfigError("No aspect is named.", "some of: " + ", ".join(NAMES))
    return tuple(name for name in NAMES if name in chosen)


def check_version(version: str) -> None:
    """Raise `InputError` if a file says that it follows a version of the schema other than 2 to 7."""
    major = version.strip().split(".")[0]
    if not (major.isdecimal() and int(major) in VERSIONS):
        raise InputError(
            f"The metadata follow version {version.strip()!r:.40} of CELLxGENE's schema.",
            f"version {VERSIONS[0]} to {VERSIONS[-1]}",
            "naming the columns yourself, such as --column 'cell type=cell_type' --column ethnicity=ethnicity",
        )


def find_columns(
    names: Collection[str], aspects: Sequence[str] | None = None, own: Mapping[str, str] | None = None
) -> dict[str, Column]:
    """Return where a table says each aspect.

    Parameters
    ----------
    names
        Names of the table's columns.
    aspects
        Aspects that must be there; by default all that are there, of which the cell type must be. The organ is there
        where the tissue is.
    own
        Aspect -> column of names or ids, where the user named one.

    Raises
    ------
    InputError
        A column is missing; the message lists what was found.
    ConfigError
        `own` names a column for an aspect that doesn't exist, isn't asked for or has one already.
    """
    found = {}
    given, own = own or {}, {}
    for text, column_name in given.items():
        (aspect,) = choose_aspects([text])
        if aspect in own:
            raise ConfigError(f"Two columns are named for {aspect!r}.", "one column an aspect")
        own[aspect] = column_name
    read = None if aspects is None else {*aspects, *(("tissue",) if "organ" in aspects else ())}
    idle = [aspect for aspect in own if read is not None and aspect not in read]
    if idle:
        raise ConfigError(f"A column is named for {', '.join(idle)}, which is not among the aspects.", ", ".join(NAMES))
    for aspect in NAMES if aspects is None else aspects:
        column = _column(aspect, names, own)
        if aspect == "organ":
            tissue = _column("tissue", names, own) or Column(None, None)
            column = column or Column(None, None)
            column = Column(column.ids, column.names, (tissue.ids, tissue.names))
        if column is not None and column.needed:
            found[aspect] = column
    missing = [aspect for aspect in (("cell type",) if aspects is None else aspects) if aspect not in found]
    if missing:
        raise _missing([f"{FIELD[aspect]} or {FIELD[aspect]}{ID}" for aspect in missing], names)
    return found


def _column(aspect: str, names: Collection[str], own: Mapping[str, str]) -> Column | None:
    """Return where a table says one aspect, None where it doesn't."""
    if aspect in own:
        if own[aspect] not in names:
            raise _missing([own[aspect]], names)
        return Column(None, own[aspect])
    field = FIELD[aspect]
    for spelling in (field, FORMER.get(field, field)):
        ids, plain = f"{spelling}{ID}", spelling
        if ids in names or plain in names:
            return Column(ids if ids in names else None, plain if plain in names else None)
    return None


def _missing(missing: list[str], names: Collection[str]) -> InputError:
    shown = ", ".join(sorted(map(str, names))[:30]) + (", ..." if len(names) > 30 else "")
    return InputError(
        f"The metadata have no column {'; no column '.join(missing)}. They hold: {shown or 'no column at all'}.",
        f"the obs columns of CELLxGENE's schema, version {VERSIONS[0]} to {VERSIONS[-1]}: "
        + ", ".join(f"{field} ({aspect})" for aspect, field in FIELD.items()),
        "naming the column with --column 'cell type=NAME', or leaving the aspect out with --aspects",
    )


def distinct_rows(columns: Sequence[Any]) -> tuple[list[tuple[str, ...]], NDArray[np.int64]]:
    """Return the distinct rows of a table and which of them each cell has.

    Parameters
    ----------
    columns
        Columns of one length: arrays, lists, pandas series (categorical or not) of texts. A value that is missing
        is ``""``; blanks around a text are taken off.

    Returns
    -------
    rows
        Distinct rows in order of first appearance.
    index
        int64 (cells,): the place in `rows` of each cell.

    Raises
    ------
    InputError
        The columns differ in length.
    """
    lengths = {len(column) for column in columns}
    if len(lengths) > 1:
        raise InputError(f"Columns have {', '.join(map(str, sorted(lengths)))} values.", "one value a cell in each")
    index = np.zeros(lengths.pop() if lengths else 0, dtype=np.int64)
    coded = [_codes(column) for column in columns]
    size = 1
    for codes, values in coded:
        if size * len(values) >= 1 << 62:  # codes are made dense again before their product would overflow
            index = pd.factorize(index)[0].astype(np.int64)
            size = int(index.max(initial=0)) + 1
        index = index * len(values) + codes
        size *= len(values)
    index = pd.factorize(index)[0].astype(np.int64)
    first = np.zeros(int(index.max(initial=-1)) + 1, dtype=np.int64)
    first[index[::-1]] = np.arange(len(index))[::-1]  # of several places the last one written stays: the first cell
    chosen = [[values[code] for code in codes[first].tolist()] for codes, values in coded]
    return list(zip(*chosen, strict=True)) if chosen else [() for _ in first], index


def _codes(column: Any) -> tuple[NDArray[np.int64], list[str]]:
    """Return codes (cells,) and the texts that they stand for; equal texts have equal codes."""
    dtype = getattr(column, "dtype", None)
    if isinstance(dtype, pd.CategoricalDtype):
        held = pd.Categorical(column)
        codes, values = np.asarray(held.codes), list(held.categories)
    else:
        codes, uniques = pd.factorize(np.asarray(column, dtype=object), use_na_sentinel=True)
        values = list(uniques)
    texts = [" ".join(str(value).split()) for value in values] + [""]  # the last is that of the code -1
    places: dict[str, int] = {}
    merged = np.array([places.setdefault(text, len(places)) for text in texts], dtype=np.int64)
    return merged[codes], list(places)
