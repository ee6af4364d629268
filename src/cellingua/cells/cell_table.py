"""A user's own table of cells: barcode, label, and the sample where there are several."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cellingua.cells.text_matrix import fields_of, separator_of, text_handle
from cellingua.core.errors import FileError, InputError

NAMES = {"barcode": ("barcode", "barcodes", "cell", "cell_id"), "label": ("label",), "sample": ("sample",)}


@dataclass(frozen=True)
class CellTable:
    """One row a cell.

    Attributes
    ----------
    path
        The file.
    barcodes, labels, samples
        Of each row; a label may be empty, and all samples are empty where the table has no such column.
    lines
        Number of each row's line in the file, from 1.
    """

    path: Path
    barcodes: list[str]
    labels: list[str]
    samples: list[str]
    lines: list[int]

    def __len__(self) -> int:
        return len(self.barcodes)


def read_cell_table(path: Path) -> CellTable:
    """Read a table with a header; commas, tabs or semicolons, plain or gzipped.

    Raises
    ------
    FileError
        It is missing, has no rows, or its gzip is cut short.
    InputError
        A column is missing, a row is too short or has no barcode, or no row has a label.
    """
    if not path.is_file():
        raise FileError(f"{path} is not there.", "a table with the columns barcode, label, sample", "check the path")
    try:
        with text_handle(path) as handle:
            lines = [(number, line) for number, line in enumerate(handle, 1) if line.strip()]
    except (OSError, EOFError) as error:
        raise FileError(f"{path} could not be read: {error}.", "a complete file", "copying it again") from error
    if len(lines) < 2:
        raise FileError(f"{path} holds no cells.", "a header with barcode, label, sample, and one row a cell")
    separator = separator_of(lines[0][1])
    head = [name.casefold() for name in fields_of(lines[0][1], separator)]
    places = {key: next((head.index(name) for name in names if name in head), -1) for key, names in NAMES.items()}
    for key in ("barcode", "label"):
        if places[key] < 0:
            raise InputError(
                f"{path} has no column {key!r}, but {', '.join(map(repr, head[:8]))}.",
                "a header with the columns barcode, label and, where there are several, sample",
                "renaming its columns",
            )
    found: dict[str, list[str]] = {key: [] for key in NAMES}
    for number, line in lines[1:]:
        row = fields_of(line, separator)
        if len(row) != len(head) or not row[places["barcode"]]:
            what = f"{len(row)} fields" if len(row) != len(head) else "no barcode"
            raise InputError(f"{path}: line {number} has {what}.", f"{len(head)} fields, as the header has")
        for key, place in places.items():
            found[key].append(row[place] if place >= 0 else "")
    if not any(found["label"]):
        raise InputError(f"{path}: no row has a label.", "sensitive or resistant for each cell")
    table = CellTable(path, found["barcode"], found["label"], found["sample"], [number for number, _ in lines[1:]])
    _refuse_repeats(table)
    return table


def _refuse_repeats(table: CellTable) -> None:
    seen: dict[tuple[str, str], int] = {}
    for barcode, sample, line in zip(table.barcodes, table.samples, table.lines, strict=True):
        first = seen.setdefault((barcode, sample), line)
        if first != line:
            where = f" of sample {sample!r}" if sample else ""
            raise InputError(
                f"{table.path}: lines {first} and {line} are both about {barcode!r}{where}.",
                "one row a cell",
                "a column sample that tells them apart" if not sample else "leaving one out",
            )
