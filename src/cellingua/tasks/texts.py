"""The texts of the cells of one file, from its metadata."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import anndata

from cellingua.cells.reading import CellFile, reading
from cellingua.core.errors import ConfigError, InputError
from cellingua.words.describing import CellTexts, describe_cells
from cellingua.words.metadata import check_version


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
