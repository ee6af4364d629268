"""A matrix of numbers as text: one row a gene or one row a cell, commas, tabs or spaces, plain or gzipped.

Archives of published data hold such files in every form: with or without a name above the column of names, in
quotes, with further columns of text beside the names. Which way round one lies is told by the barcodes that the caller
knows. It is read in blocks of rows and kept sparse.
"""

from __future__ import annotations

import gzip
import io
from collections.abc import Set
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.sparse import csr_matrix, vstack

from cellingua.cells.genes import load_vocabulary
from cellingua.core.errors import FileError

LEAST_GENES = 20  # with fewer, a table is one about cells rather than a matrix of them
KNOWN_GENES = 0.3  # of the names of a side without barcodes that is taken for the genes
ROWS = 1000  # that are dense at once
PROBE = 200  # rows that are looked at before a file is read


@dataclass(frozen=True)
class Layout:
    """How a text file is laid out.

    Attributes
    ----------
    separator
        What stands between fields.
    header
        Names of the columns of numbers.
    text_columns
        Columns before them that hold text; the first holds the rows' names.
    genes_in_rows
        Whether a row is a gene.
    """

    separator: str
    header: list[str]
    text_columns: int
    genes_in_rows: bool


@dataclass(frozen=True)
class TextMatrix:
    """Cells x genes: names of both, and CSR float32 or float64 (cells, genes)."""

    cells: list[str]
    genes: list[str]
    values: csr_matrix


def text_handle(path: Path) -> io.TextIOBase:
    """Open a text file, gzipped where its name ends in ``.gz``; a byte that is no UTF-8 is replaced."""
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding="utf-8-sig", errors="replace", newline="")  # type: ignore[return-value]
    return open(path, encoding="utf-8-sig", errors="replace", newline="")


def fields_of(line: str, separator: str) -> list[str]:
    """Return the fields of a line without quotes and space around them."""
    parts = line.rstrip("\r\n").split() if separator == " " else line.rstrip("\r\n").split(separator)
    return [part.strip().strip('"').strip() for part in parts]


def separator_of(line: str) -> str:
    """Return what separates the fields of a line: tab, comma, semicolon, else space."""
    return next((mark for mark in "\t,;" if mark in line), " ")


def layout_of(path: Path, barcodes: Set[str]) -> Layout | None:
    """Return how a file is laid out, or None where it is no matrix of genes and cells.

    Parameters
    ----------
    barcodes
        Names of cells. Where neither side has one, the side with more human genes is that of the genes.
    """
    with text_handle(path) as handle:
        lines = [line for _, line in zip(range(PROBE + 1), handle, strict=False) if line.strip()]
    if len(lines) < 2:
        return None
    separator = separator_of(lines[1])  # the header may be one name, without any
    head, rows = fields_of(lines[0], separator), [fields_of(line, separator) for line in lines[1:]]
    width = len(rows[0])
    text_columns = next((place for place, field in enumerate(rows[0]) if place and _is_number(field)), width)
    if text_columns >= width or len(head) not in (width, width - 1):
        return None
    header = head[text_columns - (width - len(head)) :]
    names = [row[0] for row in rows]
    in_header, in_rows = len(barcodes & set(header)), len(barcodes & set(names))
    if not in_header and not in_rows:  # none of these cells is wanted, but the file may still be a matrix
        known_rows, known_header = _known(names), _known(header)
        if max(known_rows, known_header) < KNOWN_GENES:
            return None
        in_header, in_rows = int(known_rows >= known_header), int(known_rows < known_header)
    genes_in_rows = in_header >= in_rows
    if (len(rows) if genes_in_rows else len(header)) < LEAST_GENES:
        return None
    return Layout(separator, header, text_columns, genes_in_rows)


def read_text_matrix(path: Path, layout: Layout) -> TextMatrix:
    """Read a whole file.

    Raises
    ------
    FileError
        A field is no number; its row and column are named.
    """
    columns: list[str | int] = ["name", *range(len(layout.header))]
    used = [0, *range(layout.text_columns, layout.text_columns + len(layout.header))]
    names: list[str] = []
    parts = []
    with text_handle(path) as handle:
        reader = pd.read_csv(
            handle,
            sep=r"\s+" if layout.separator == " " else layout.separator,
            header=None,
            skiprows=1,
            usecols=used,
            dtype=str,
            keep_default_na=False,
            chunksize=ROWS,
            engine="c",
        )
        for table in reader:
            table.columns = pd.Index(columns)
            block = _numbers(table.iloc[:, 1:], table["name"].tolist(), layout.header, path)
            parts.append(csr_matrix(block))
            names += [str(name).strip().strip('"') for name in table["name"]]
    values = csr_matrix(vstack(parts)) if parts else csr_matrix((0, len(layout.header)))
    if layout.genes_in_rows:
        return TextMatrix(layout.header, names, csr_matrix(values.T))
    return TextMatrix(names, layout.header, values)


def _numbers(table: pd.DataFrame, rows: list[str], columns: list[str], path: Path) -> np.ndarray:
    """Return a block of fields as float64; name the first that is no number."""
    try:
        values = table.to_numpy(dtype=np.float64)
    except ValueError:
        values = table.apply(pd.to_numeric, errors="coerce").to_numpy(dtype=np.float64)
    bad = np.argwhere(~np.isfinite(values))
    if len(bad):
        row, column = bad[0]
        said = str(table.iat[row, column])[:40]
        raise FileError(
            f"{path}: row {rows[row]!r}, column {columns[column]!r} holds {said!r}.",
            "a finite number in every field",
            "mending the file, or downloading it again",
        )
    return values


def _known(names: list[str]) -> float:
    """Return which share of the first names are human genes."""
    return float((load_vocabulary().resolve(names[:PROBE]).index >= 0).mean())


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
