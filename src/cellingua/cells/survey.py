"""Look at every file of a corpus before anything is written: what is readable, what is refused, which labels."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cellingua.cells.diagnosis import Diagnosis
from cellingua.cells.doctor import examine
from cellingua.cells.reading import KNOWN, CellFile, open_cells
from cellingua.cells.sources import DONOR, FILE
from cellingua.core.errors import ConfigError, FileError, InputError, LabelError
from cellingua.core.progress import Progress

_MISSING = {"", "nan", "none", "na", "n/a", "null", "<na>", "unknown", "unassigned"}


@dataclass(frozen=True)
class LabelColumn:
    """One label of each cell, from one or more columns of ``obs``.

    Attributes
    ----------
    name
        How it is called in the corpus.
    columns
        Columns of ``obs``; the first that knows a cell's value gives it.
    """

    name: str
    columns: tuple[str, ...]

    @classmethod
    def parse(cls, text: str) -> LabelColumn:
        """Read ``COLUMN``, ``NAME=COLUMN`` or ``NAME=COLUMN|COLUMN``.

        Raises
        ------
        LabelError
            A part is empty, or the name is taken by the corpus itself.
        """
        name, found, rest = text.partition("=")
        columns = (rest if found else name).split("|")
        name = name if found else columns[0]
        if not all(part.strip() for part in (name, *columns)) or name.strip() in (FILE, DONOR):
            raise LabelError(
                f"{text!r} names no label column.", f"COLUMN or NAME=COLUMN|COLUMN; not {FILE!r} or {DONOR!r}"
            )
        return cls(name.strip(), tuple(column.strip() for column in columns))

    def values(self, obs: pd.DataFrame) -> NDArray[np.object_]:
        """Return the value of each cell as text, "" where none is known."""
        found = np.full(len(obs), "", dtype=object)
        for column in self.columns:
            if column in obs:
                given = texts(obs[column])
                found = np.where(found == "", given, found)
        return found


def texts(column: pd.Series) -> NDArray[np.object_]:
    """Return a column of ``obs`` as text, "" where a value is missing or says that it isn't known."""
    categories = pd.Categorical(column.astype(str))  # a few distinct values are cleaned, not a million cells
    clean = [str(value).strip() for value in categories.categories]
    clean = ["" if value.lower() in _MISSING else value for value in clean]
    return np.array([*clean, ""], dtype=object)[categories.codes]


@dataclass(frozen=True)
class CorpusConfig:
    """How a corpus is made.

    Parameters
    ----------
    labels
        Label columns as `LabelColumn.parse` reads them.
    donor_column
        Column of ``obs`` with the donor; donors of different files are different donors.
    layer
        Layer with the counts; None lets the doctor find it.
    min_genes
        Cells with fewer genes of the vocabulary are left out.
    seed
        Of the shuffle.
    block
        Neighbours of a file that stay together until the cells of a shard are shuffled.
    shard_values
        About so many stored counts go into a shard; memory follows it (about ten bytes each).
    """

    labels: tuple[str, ...] = ()
    donor_column: str = "donor_id"
    layer: str | None = None
    min_genes: int = 1
    seed: int = 0
    block: int = 32
    shard_values: int = 32_000_000

    def label_columns(self) -> list[LabelColumn]:
        """Return the label columns, or raise `LabelError` where one is wrong or named twice."""
        labels = [LabelColumn.parse(text) for text in self.labels]
        names = [label.name for label in labels]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise ConfigError(f"The label column {twice!r} is named twice.", "one name a label")
        return labels


@dataclass(frozen=True)
class SurveyedFile:
    """What is known of a file that may go into the corpus.

    Attributes
    ----------
    path, name
        Where it is; how the corpus calls it (its path below the folder that was given).
    n_cells
        Cells.
    size, changed
        Bytes and time of the last change (nanoseconds), by which a later run knows the file again.
    labels
        Label column -> distinct known values, "donor" among them.
    notes
        Warnings of the doctor.
    """

    path: Path
    name: str
    n_cells: int
    size: int
    changed: int
    labels: dict[str, tuple[str, ...]]
    notes: tuple[str, ...]

    def key(self) -> list[object]:
        """Return what a later run compares."""
        return [self.name, self.n_cells, self.size, self.changed]


def find_sources(sources: Sequence[Path]) -> list[tuple[Path, str]]:
    """Return (path, name) of every file of cells in files and folders, in the order of their names.

    Raises
    ------
    FileError
        A source does not exist, or nothing in it looks like a file of cells.
    """
    found: dict[Path, str] = {}
    for source in sources:
        if not source.exists():
            raise FileError(f"{source} does not exist.", f"{KNOWN}, or a folder of such files", "check the path")
        if _is_cells(source):
            found[source] = source.name
        elif source.is_dir():
            found |= {path: path.relative_to(source).as_posix() for path in _inside(source)}
    if not found:
        where = ", ".join(str(source) for source in sources)
        raise FileError(f"{where}: there is no file of cells.", KNOWN, "another --corpus")
    names = list(found.values())
    # Two folders may hold files of one name.
    shown = {path: (str(path) if names.count(name) > 1 else name) for path, name in found.items()}
    return sorted(shown.items(), key=lambda item: item[1])


def _is_cells(path: Path) -> bool:
    if path.is_file():
        return path.suffix in (".h5ad", ".h5") or re.fullmatch(r".*matrix\.mtx(\.gz)?", path.name) is not None
    if path.suffix == ".zarr" or any((path / name).exists() for name in (".zgroup", "zarr.json")):
        return True
    return any((path / name).exists() for name in ("matrix.mtx", "matrix.mtx.gz"))


def _inside(folder: Path) -> list[Path]:
    found = []
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            continue
        if _is_cells(path):
            found.append(path)
        elif path.is_dir():
            found += _inside(path)
    return found


def survey(
    sources: Sequence[Path],
    labels: Sequence[LabelColumn],
    donor_column: str,
    layer: str | None,
    *,
    skip_bad: bool,
    progress: Progress,
) -> tuple[list[SurveyedFile], dict[str, str]]:
    """Examine every file; nothing is written.

    Returns
    -------
    files, refused
        Files that can be used; name -> reason of those that can't (only with `skip_bad`).

    Raises
    ------
    FileError
        No file can be used, or one can't and `skip_bad` is False; all refused files are listed.
    LabelError
        A label column is in no file, or has one value in all cells that know it.
    """
    found = find_sources(sources)
    files: list[SurveyedFile] = []
    refused: dict[str, str] = {}
    present: set[str] = set()
    progress.step("Looking at the files", len(found))
    for path, name in found:
        try:
            with open_cells(path) as cells:
                diagnosis = examine(cells, layer=layer)
                diagnosis.raise_if_refused()
                present |= set(map(str, cells.obs.columns))
                files.append(_surveyed(path, name, cells, diagnosis, labels, donor_column))
        except InputError as error:
            refused[name] = " ".join(error.found.split())
        progress.advance()
    _tell(files, refused, skip_bad=skip_bad)
    for label in labels:
        _check_label(label, files, present)
    return files, refused


def _surveyed(
    path: Path, name: str, cells: CellFile, diagnosis: Diagnosis, labels: Sequence[LabelColumn], donor_column: str
) -> SurveyedFile:
    values = {label.name: _distinct(label.values(cells.obs)) for label in labels}
    values[DONOR] = _distinct(LabelColumn(DONOR, (donor_column,)).values(cells.obs))
    size, changed = stamp(path)
    notes = tuple(finding.text for finding in diagnosis.findings if finding.level == "warning")
    return SurveyedFile(path, name, cells.n_cells, size, changed, values, notes)


def _distinct(values: NDArray[np.object_]) -> tuple[str, ...]:
    return tuple(sorted(set(values.tolist()) - {""}))


def stamp(path: Path) -> tuple[int, int]:
    """Return bytes and time of the last change of a file, or of all files of a folder."""
    inside = [path] if path.is_file() else [part for part in path.rglob("*") if part.is_file()]
    stats = [part.stat() for part in inside]
    return sum(stat.st_size for stat in stats), max((stat.st_mtime_ns for stat in stats), default=0)


def _tell(files: Sequence[SurveyedFile], refused: dict[str, str], *, skip_bad: bool) -> None:
    if not refused or (skip_bad and files):
        return
    lines = "".join(f"\n  {name}: {reason}" for name, reason in list(refused.items())[:20])
    more = f"\n  and {len(refused) - 20:,} more" if len(refused) > 20 else ""
    n = len(files) + len(refused)
    raise FileError(
        f"{len(refused):,} of {n:,} files can't be used:{lines}{more}",
        "human counts in every file",
        "mend or remove them" + (", or leave them out with --skip-bad" if files else ""),
    )


def _check_label(label: LabelColumn, files: Sequence[SurveyedFile], present: set[str]) -> None:
    lacking = [column for column in label.columns if column not in present]
    if lacking:
        known = ", ".join(sorted(present)[:12]) or "none"
        raise LabelError(f"No file has the column {lacking[0]!r} in obs.", f"one of: {known}")
    held = {value for file in files for value in file.labels[label.name]}
    if len(held) < 2:
        only = f"one value, {held.pop()!r}," if held else "no known value"
        raise LabelError(
            f"The label {label.name!r} has {only} in all cells.",
            "a label that tells cells apart",
            "another column, or more files",
        )
