"""What a recipe's material was, for `cellingua.models.seen`: data sets with hashes and donors, and the cells."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.sparse import csr_matrix, vstack

from cellingua.cells.collections import CellSet
from cellingua.cells.reading import open_cells
from cellingua.cells.sources import DONOR, FILE, CellSource
from cellingua.core.files import sha256_file
from cellingua.models.seen import CELLS, DataSet, Seen, drawn_cells, record

#: Studies in GEO, SRA, ENA, ArrayExpress and DDBJ.
ACCESSION = re.compile(r"\b(?:GSE\d{3,}|[SED]RP\d{5,}|PRJ[A-Z]{2}\d{4,}|E-[A-Z]{4}-\d+)\b")
SOURCES = "SOURCES.tsv"
DONOR_COLUMN = "donor_id"
_UNKNOWN = {"", "unknown", "nan", "none", "na"}
_FOLDERS = {"profiles": "profiles", "markers": "markers"}
_ROWS = 8192


@dataclass(frozen=True)
class Told:
    """What ``SOURCES.tsv`` tells of a file: a title, where it is from, its licence, accessions."""

    title: str = ""
    source: str = ""
    licence: str = ""
    accessions: tuple[str, ...] = ()


def read_sources(folder: Path) -> dict[str, Told]:
    """Return what the data folder's ``SOURCES.tsv`` tells of each file, by its name; nothing where there is none."""
    path = folder / SOURCES
    if not path.is_file():
        return {}
    with open(path, encoding="utf-8", newline="") as handle:
        rows = [row for row in csv.DictReader(handle, delimiter="\t") if row.get("file")]
    return {
        row["file"]: Told(
            row.get("title") or "",
            row.get("source") or "",
            row.get("licence") or "",
            tuple(sorted(set(ACCESSION.findall(" ".join(str(value) for value in row.values() if value))))),
        )
        for row in rows
    }


def seen_in_material(sets: Sequence[CellSet], hashes: Mapping[str, str], folder: Path | None = None) -> Seen:
    """Return what a model saw of a data folder as `cellingua.cells.collections` describes it.

    Parameters
    ----------
    sets
        The real cells that it is trained on, as one set or several; a cell in two of them counts once.
    hashes
        SHA-256 of the data files by their paths in the folder. Files of ``corpus/`` without a cell in `sets` are
        left out, those of ``profiles/`` and ``markers/`` are listed.
    folder
        The data folder, for sizes, donors and accessions; without it these stay empty.
    """
    told = {} if folder is None else read_sources(folder)
    files = np.concatenate([held.files for held in sets])
    names = np.concatenate([held.names for held in sets])
    counts = csr_matrix(vstack([held.counts for held in sets]))
    first = np.sort(np.unique(np.char.add(np.char.add(files, "\t"), names), return_index=True)[1])
    found = []
    for path, digest in hashes.items():
        kind = _FOLDERS.get(path.split("/")[0], CELLS if path.startswith("corpus/") else None)
        stem = Path(path).name.split(".")[0]
        inside = first[files[first] == stem]
        if kind is None or (kind == CELLS and not len(inside)):
            continue
        at = None if folder is None else folder / path
        donors = donors_of(at, names[inside]) if kind == CELLS and at is not None else ()
        others = told.get(Path(path).name, Told()).accessions
        size = at.stat().st_size if at is not None and at.is_file() else 0
        found.append(DataSet(stem, kind, digest, size, len(inside), donors, others))
    return record(found, csr_matrix(counts[first]))


def donors_of(path: Path, names: np.ndarray) -> tuple[str, ...]:
    """Return the donors of some cells of a file, sorted; none where the file names none."""
    if not path.is_file():
        return ()
    with open_cells(path) as cells:
        if DONOR_COLUMN not in cells.obs:
            return ()
        donors = pd.Series(cells.obs[DONOR_COLUMN].astype(str).to_numpy(), index=cells.cell_names)
    return known(donors[donors.index.isin(set(names.tolist()))].tolist())


def known(values: Sequence[str]) -> tuple[str, ...]:
    """Return the distinct values that say something, sorted."""
    return tuple(sorted({str(value) for value in values if str(value).lower() not in _UNKNOWN}))


def seen_in_source(
    source: CellSource, rows: np.ndarray, paths: Mapping[str, Path] | None = None, seed: int = 0
) -> Seen:
    """Return what a model saw of a corpus.

    Parameters
    ----------
    source
        The corpus; every file of it is a data set, called as its column "file" calls it.
    rows
        The cells that it is trained on; of very many, fingerprints of some that are drawn are stored.
    paths
        Where the files lie, for hashes; those of others stay empty.
    """
    files, donors = source.column(FILE)[rows], source.column(DONOR)[rows]
    found = []
    for code, name in enumerate(source.categories[FILE]):
        inside = files == code
        if not inside.any():
            continue
        # A donor is called FILE/DONOR in a corpus, so that donors of two files are never one.
        told = [source.categories[DONOR][one].split("/")[-1] for one in np.unique(donors[inside]) if one >= 0]
        path = (paths or {}).get(name)
        there = path is not None and path.is_file()
        digest, size = (sha256_file(path), path.stat().st_size) if there and path is not None else ("", 0)
        others = tuple(sorted(set(ACCESSION.findall(name))))
        found.append(DataSet(_stem(name), CELLS, digest, size, int(inside.sum()), known(told), others))
    return record(found, _blocks(source, rows[drawn_cells(len(rows), seed)]))


def _stem(name: str) -> str:
    for ending in (".h5ad", ".zarr", ".h5", ".mtx"):
        name = name.removesuffix(ending)
    return name.split("/")[-1]


def _blocks(source: CellSource, rows: np.ndarray) -> Iterator[csr_matrix]:
    rows = np.sort(rows)  # neighbours are read together
    for start in range(0, len(rows), _ROWS):
        yield source.read(rows[start : start + _ROWS]).counts
