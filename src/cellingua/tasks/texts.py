"""The texts of the cells of one file or AnnData, from its metadata."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import anndata
import pandas as pd
from anndata import AnnData

from cellingua.cells.reading import CellFile, open_cells, reading
from cellingua.core.errors import ConfigError, InputError
from cellingua.core.runtime import versions
from cellingua.tasks.options import KEY
from cellingua.tasks.writing import storable
from cellingua.words.definitions import read_definitions
from cellingua.words.describing import CellTexts, describe_cells
from cellingua.words.metadata import check_version


def texts(
    cells: AnnData | CellFile | str | Path,
    *,
    template: str = "langcell",
    aspects: Sequence[str] | None = None,
    columns: Mapping[str, str] | None = None,
    definitions: Mapping[str, str] | str | Path | None = None,
    key_added: str = KEY,
    overwrite: bool = False,
) -> CellTexts:
    """Return the text of every cell, made from its metadata and the definitions of the ontologies.

    Parameters
    ----------
    cells
        An AnnData with columns of CELLxGENE's schema in ``obs`` (the texts are written to ``obs["cellingua_text"]``,
        categorical, missing where nothing is known of a cell; what made them, to ``uns`` under the same key), or a
        path, and then nothing is written.
    template
        ``langcell``, ``names``, ``sentence`` or ``bare``.
    aspects
        Some of cell type, tissue, organ, development stage, disease, sex, ethnicity, assay; by default all that the
        columns say.
    columns
        Aspect -> column that says it, where the columns don't follow the schema: ``{"cell type": "my_labels"}``.
    definitions
        Your own, which go before the ontologies': id or name -> text, or a JSON or TSV file of them.
    key_added
        First part of the keys that are written.
    overwrite
        Replace the keys if they are there.

    Returns
    -------
    CellTexts
        ``each`` has the text of every cell, ``texts`` every distinct one, ``facts`` what could not be read.

    Raises
    ------
    InputError
        A column is missing, the metadata follow another version of the schema, definitions are repeated, or a key
        exists and `overwrite` is False.
    ConfigError
        There is no such template or aspect.
    """
    key = f"{key_added}_text"
    if isinstance(cells, AnnData) and not overwrite:
        taken = [f"{place}[{key!r}]" for place, held in (("obs", cells.obs), ("uns", cells.uns)) if key in held]
        if taken:
            raise InputError(
                f"{taken[0]} exists already.", "a key that is free", "another key_added, or overwrite=True"
            )
    own = read_definitions(definitions) if isinstance(definitions, str | Path) else definitions
    how: dict[str, Any] = {"template": template, "aspects": aspects, "own_columns": columns, "definitions": own}
    if isinstance(cells, CellFile):
        return texts_of(cells, **how)
    with open_cells(cells) as source:
        found = texts_of(source, **how)
    if isinstance(cells, AnnData):
        cells.obs[key] = _categorical(found)
        cells.uns[key] = _provenance(found, template)
    return found


def _categorical(found: CellTexts) -> pd.Categorical:
    """Return the texts as a column; a cell that nothing is known of has none."""
    said = [text for text in found.texts if text]
    silent = found.texts.index("") if "" in found.texts else len(found.texts)
    codes = found.index - (found.index > silent)
    codes[found.index == silent] = -1
    return pd.Categorical.from_codes(codes, categories=pd.Index(said, dtype=object))


def _provenance(found: CellTexts, template: str) -> Any:
    """Return how texts were made, in values that h5ad holds (labels are free text, so that none is a key)."""
    facts = found.facts
    return storable(
        {
            "template": template,
            "aspects": list(facts.aspects),
            "taken_from_the_tissue": list(facts.derived),
            "in_no_ontology": [f"{a}: {label}" for a, labels in facts.unknown.items() for label in labels],
            "read_as": [f"{label} -> {name}" for label, name in facts.read_as.items()],
            "own_definitions": sorted(facts.used),
            "versions": versions(),
        }
    )


def schema_version(cells: CellFile) -> str:
    """Return the version of CELLxGENE's schema that a file says it follows (``uns["schema_version"]``), or ``""``."""
    if cells.kind == "AnnData":
        return str(cells.source.uns.get("schema_version", ""))
    if cells.kind not in ("h5ad", "zarr"):
        return ""
    source: Any = cells.source
    with reading(cells.path):
        if "uns" not in source or "schema_version" not in source["uns"]:
            return ""
        return str(anndata.io.read_elem(source["uns"]["schema_version"]))


def texts_of(cells: CellFile, *, own_columns: Mapping[str, str] | None = None, **how: Any) -> CellTexts:
    """Return the texts of the cells of a file.

    Parameters
    ----------
    cells
        An opened file.
    own_columns, how
        As `cellingua.words.describing.describe_cells` takes them. A version of the schema that the file names is
        checked, unless columns are named by `own_columns`.

    Raises
    ------
    InputError
        Columns are missing, or the file follows another version of the schema; the message names the file.
    """
    try:
        version = schema_version(cells)
        if version and not own_columns:
            check_version(version)
        columns = {str(name): cells.obs[name] for name in cells.obs.columns}
        return describe_cells(columns, own_columns=own_columns, **how)
    except ConfigError:
        raise
    except InputError as error:
        if error.found.startswith(str(cells.path)):
            raise
        raise type(error)(f"{cells.name}: {error.found}", error.expected, error.try_) from error


def what_was_said(name: str, texts: CellTexts, asked: Sequence[str]) -> list[str]:
    """Return lines that tell a user what became of a file's metadata."""
    said = ", ".join(texts.facts.aspects)
    lines = [f"{name}: {len(texts.index):,} cells, {len(texts.texts):,} distinct texts of: {said}"]
    absent = [aspect for aspect in asked if aspect not in texts.facts.aspects]
    if absent:
        lines.append(f"  no column for: {', '.join(absent)}")
    if "organ" in texts.facts.derived:
        lines.append("  organ: no column says it, taken from the tissue")
    for aspect, count in texts.facts.without.items():
        if count:
            lines.append(f"  {aspect}: not said for {count:,} cells, left out of their texts")
    silent = len(texts.facts) - int(texts.facts.described.sum())
    if silent:
        lines.append(f"  nothing is known of {silent:,} cells: their text is empty")
    for label, term in texts.facts.read_as.items():
        lines.append(f"  cell type: {label[:60]!r} read as {term}")
    for aspect, labels in texts.facts.unknown.items():
        shown = ", ".join(repr(label[:60]) for label in sorted(labels, key=lambda label: (-labels[label], label))[:5])
        more = f" and {len(labels) - 5:,} more" if len(labels) > 5 else ""
        lines.append(
            f"  {aspect}: {len(labels):,} labels of {sum(labels.values()):,} cells are in no ontology, "
            f"kept as they are: {shown}{more}"
        )
    return lines
