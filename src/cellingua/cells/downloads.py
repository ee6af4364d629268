"""A folder of files as a public archive gives them, and a user's table of labels, as one file of cells.

The folder may hold 10x triplets (with a prefix for each sample, or in a folder for each), 10x ``.h5`` files and
matrices of text, plain or gzipped. The table says which barcode is which cell: a barcode that several files have is
told apart by its sample, which names a file or a part of its name.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, vstack

from cellingua.cells.cell_table import CellTable, read_cell_table
from cellingua.cells.matrices import HeldMatrix
from cellingua.cells.reading import CellFile, open_cells, reading
from cellingua.cells.text_matrix import layout_of, read_text_matrix
from cellingua.core.errors import FileError, GeneError, InputError

DEPTH = 4  # folders below the one that was named
TRIPLET = re.compile(r"(?P<prefix>.*?)[_.\-]?matrix\.mtx(\.gz)?$")
BESIDE = re.compile(r".*(barcodes|features|genes)\.tsv(\.gz)?$")
TEXT = (".txt", ".tsv", ".csv", ".txt.gz", ".tsv.gz", ".csv.gz")
PACKED = (".tar", ".tar.gz", ".tgz", ".zip", ".rar", ".7z")
USUAL = ("filtered_feature_bc_matrix", "raw_feature_bc_matrix", "filtered_gene_bc_matrices", "outs", "hg19", "GRCh38")
WANTED = "10x triplets (matrix.mtx, barcodes.tsv, features.tsv or genes.tsv), 10x .h5 files, or matrices as text"


@dataclass(frozen=True)
class Part:
    """One file (or triplet) of the folder.

    Attributes
    ----------
    name
        What tells it from the others: its prefix, the names of its folders, or the name of the file.
    path
        Where it lies.
    cells
        Its barcodes.
    var
        Its genes: names as index, ``gene_ids`` where it has them.
    counts
        CSR (cells, genes).
    """

    name: str
    path: Path
    cells: list[str]
    var: pd.DataFrame
    counts: csr_matrix


@dataclass
class Downloaded:
    """A folder as one file of cells.

    Attributes
    ----------
    cells
        The cells of the table, with ``label``, ``sample`` and ``file`` in obs, in the order of the table.
    notes
        What was passed over, left out or taken for the same, as sentences.
    """

    cells: CellFile
    notes: list[str] = field(default_factory=list)


def open_downloads(folder: str | Path, table: str | Path, *, allow_missing: bool = False) -> Downloaded:
    """Read the files of a folder and the cells of a table.

    Parameters
    ----------
    folder
        Files as downloaded; archives (tar, zip) must be unpacked.
    table
        Columns ``barcode``, ``label`` and, where barcodes repeat or samples matter, ``sample``.
    allow_missing
        Leave out, and count, rows whose barcode no file has, instead of refusing them.

    Raises
    ------
    FileError
        No file can be read as cells, or one is damaged.
    InputError
        A barcode is in no file, or in several and its sample doesn't say which.
    """
    folder, listed = Path(folder), read_cell_table(Path(table))
    notes: list[str] = []
    parts = read_parts(folder, set(listed.barcodes), listed.path, notes)
    rows, part_of, row_of = match_cells(listed, parts, allow_missing, notes)
    unused = sum(len(part.cells) for part in parts) - len(rows)
    if unused:
        notes.append(f"{unused:,} cells of the files are not in the table: left out.")
    used = [part for number, part in enumerate(parts) if (part_of == number).any()]
    var, columns = shared_genes(used, notes)
    blocks, order = [], []
    for number, part in enumerate(parts):
        mine = np.flatnonzero(part_of == number)
        if len(mine):
            blocks.append(csr_matrix(part.counts[row_of[mine]][:, columns[part.name]]))
            order.append(mine)
    back = np.argsort(np.concatenate(order), kind="stable")
    values = csr_matrix(csr_matrix(vstack(blocks))[back])
    names = [parts[number].name for number in part_of.tolist()]
    obs = pd.DataFrame(
        {
            "label": [listed.labels[row] for row in rows.tolist()],
            "sample": [listed.samples[row] or name for row, name in zip(rows.tolist(), names, strict=True)],
            "file": names,
        },
        index=_cell_names([listed.barcodes[row] for row in rows.tolist()], names),
    )
    held = HeldMatrix(values, f"{len(used)} downloaded files were read whole")
    return Downloaded(CellFile(folder, "downloaded files", obs, var, {"X": held}), notes)


def read_parts(folder: Path, barcodes: set[str], table: Path, notes: list[str]) -> list[Part]:
    """Return everything in the folder that can be read as cells, sorted by name."""
    if not folder.is_dir():
        raise FileError(f"{folder} is no folder.", f"a folder with {WANTED}", "the folder of the downloaded files")
    parts, over = [], []
    for path in sorted(_files(folder)):
        lower = path.name.lower()
        if path.resolve() == table.resolve() or BESIDE.match(lower):
            continue
        if TRIPLET.match(lower) or lower.endswith(".h5"):
            with open_cells(path) as opened:
                values = opened.rows("X", 0, opened.n_cells)
                cells = [str(name) for name in opened.obs.index]
                parts.append(Part(_name(folder, path), path, cells, opened.var, values))
            continue
        layout = None
        if lower.endswith(TEXT):
            with reading(path):
                layout = layout_of(path, barcodes | {_bare(name) for name in barcodes})
                if layout is not None:
                    found = read_text_matrix(path, layout)
                    var = pd.DataFrame(index=found.genes)
                    parts.append(Part(_name(folder, path), path, found.cells, var, found.values))
        if layout is None:
            over.append(path.name)
    if not parts:
        packed = [name for name in over if name.lower().endswith(PACKED)]
        held = ", ".join(over[:5]) or "nothing"
        advice = f"unpacking {packed[0]} first" if packed else "the folder of the downloaded files"
        raise FileError(f"{folder} holds no file of cells (it holds: {held}).", WANTED, advice)
    if over:
        notes.append(f"Not read, since they are no matrix of genes and cells: {', '.join(over[:5])}.")
    return parts


def match_cells(
    table: CellTable, parts: list[Part], allow_missing: bool, notes: list[str]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Return, for each row of the table that was found: its number, its part, and its row there.

    A barcode is looked for as it stands; where no file has one of the table's barcodes like that, without the number
    that 10x puts at its end (``-1``).
    """
    exact = [{name: row for row, name in reversed(list(enumerate(part.cells)))} for part in parts]
    bare = not any(barcode in names for barcode in table.barcodes for names in exact)
    if bare:
        exact = [{_bare(name): row for name, row in names.items()} for names in exact]
    places: list[tuple[int, int, int]] = []
    lost: list[int] = []
    for row, (barcode, sample) in enumerate(zip(table.barcodes, table.samples, strict=True)):
        key = _bare(barcode) if bare else barcode
        of_sample = [n for n, part in enumerate(parts) if _belongs(sample, part.name)]
        holding = [n for n, names in enumerate(exact) if key in names and (not of_sample or n in of_sample)]
        if len(holding) > 1:
            raise InputError(
                f"{table.path}: line {table.lines[row]}: the barcode {barcode!r} is in "
                f"{', '.join(parts[n].name for n in holding[:3])}.",
                "a column sample with the name of one of these files, or a part of it",
                "--table with such a column, or a folder with fewer files",
            )
        if holding:
            places.append((row, holding[0], exact[holding[0]][key]))
        else:
            lost.append(row)
    if lost and (not allow_missing or not places):
        _refuse_lost(table, lost, parts)
    if lost:
        notes.append(f"{len(lost):,} rows of the table have a barcode that no file has: left out.")
    if bare:
        notes.append("Barcodes of table and files differ in the number at their end (-1): taken for the same.")
    _refuse_twice(table, places)
    found = np.array(places, np.int64).reshape(-1, 3)
    return found[:, 0], found[:, 1], found[:, 2]


def shared_genes(parts: list[Part], notes: list[str]) -> tuple[pd.DataFrame, dict[str, NDArray[np.int64]]]:
    """Return the genes that all parts have, and their columns in each part by its name.

    Genes that one file lacks are absent there, not zero, so they are left out of all and counted.
    """
    first = parts[0].var
    if all(part.var.index.equals(first.index) for part in parts):
        every = np.arange(len(first), dtype=np.int64)
        return first, {part.name: every for part in parts}
    with_ids = all("gene_ids" in part.var for part in parts)
    keys = [pd.Index(part.var["gene_ids"] if with_ids else part.var.index).astype(str) for part in parts]
    common = keys[0][~keys[0].duplicated()]
    for key in keys[1:]:
        common = common[common.isin(key)]
    if not len(common):
        raise GeneError(
            f"The files {parts[0].name} and others share no gene.", "files with genes named in one way", "one at a time"
        )
    columns = {}
    for part, key in zip(parts, keys, strict=True):
        at = {name: place for place, name in reversed(list(enumerate(key)))}
        columns[part.name] = np.array([at[name] for name in common], np.int64)
    most = max(len(part.var) for part in parts)
    notes.append(f"{len(common):,} genes are in all files (the largest has {most:,}); the others were left out.")
    return first.iloc[columns[parts[0].name]], columns


def _files(folder: Path) -> list[Path]:
    found = (path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
    return [path for path in found if len(path.relative_to(folder).parts) <= DEPTH]


def _name(folder: Path, path: Path) -> str:
    """Return what tells a file from the others: its folders without Cell Ranger's own, and its own name or prefix."""
    folders = [name for name in path.relative_to(folder).parts[:-1] if name not in USUAL]
    match = TRIPLET.match(path.name)
    own = match["prefix"] if match else re.sub(r"(\.(txt|tsv|csv|h5|gz))+$", "", path.name)
    return "/".join([*folders, *([own] if own else [])]) or folder.name


def _belongs(sample: str, name: str) -> bool:
    """Return whether a sample is the name of a part, or a run of its words."""
    if not sample:
        return False
    wanted, held = (re.split(r"[^a-z0-9]+", text.casefold().strip()) for text in (sample, name))
    return any(held[start : start + len(wanted)] == wanted for start in range(len(held) - len(wanted) + 1))


def _bare(barcode: str) -> str:
    return re.sub(r"-\d+$", "", barcode)


def _cell_names(barcodes: list[str], files: list[str]) -> list[str]:
    """Return barcodes, with their file before them where one repeats."""
    often = Counter(barcodes)
    return [code if often[code] == 1 else f"{file}/{code}" for code, file in zip(barcodes, files, strict=True)]


def _refuse_lost(table: CellTable, lost: list[int], parts: list[Part]) -> None:
    first = lost[0]
    named = f" of sample {table.samples[first]!r}" if table.samples[first] else ""
    some: Any = ", ".join(repr(name) for name in parts[0].cells[:2])
    raise InputError(
        f"{table.path}: {len(lost):,} of {len(table):,} rows have a barcode that no file has; the first is line "
        f"{table.lines[first]}, {table.barcodes[first]!r}{named}.",
        f"barcodes as the files have them, such as {some} in {parts[0].name}",
        "mending the table, or --allow-missing where some cells were filtered out of the files",
    )


def _refuse_twice(table: CellTable, places: list[tuple[int, int, int]]) -> None:
    seen: dict[tuple[int, int], int] = {}
    for row, part, cell in places:
        first = seen.setdefault((part, cell), row)
        if first != row:
            raise InputError(
                f"{table.path}: lines {table.lines[first]} and {table.lines[row]} are both about the cell "
                f"{table.barcodes[row]!r}.",
                "one row a cell",
                "leaving one out",
            )
