"""The files of 10x Genomics Cell Ranger: HDF5 of both layouts, and the folder with ``matrix.mtx``."""

from __future__ import annotations

import gzip
import re
import warnings
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import scipy.io
from scipy.sparse import csr_matrix

from cellingua.cells.matrices import HeldMatrix, JoinedColumns, Matrix, StoredRows
from cellingua.core.errors import FileError

Parts = tuple[pd.DataFrame, pd.DataFrame, Matrix]
_MATRIX = re.compile(r"(?P<prefix>.*)matrix\.mtx(\.gz)?$")


def _text(dataset: Any) -> list[str]:
    return [value.decode() if isinstance(value, bytes) else str(value) for value in dataset[:]]


def open_10x_h5(handle: h5py.File) -> Parts | None:
    """Return (cells, columns, matrix) of a Cell Ranger file, or None if it is none.

    Layout 3 has one group ``matrix`` with ``features``; layout 2 has a group a genome with ``genes``. Both
    store genes by cells in compressed columns, which is cells by genes in compressed rows.
    """
    if "matrix" in handle and "features" in handle["matrix"]:
        group = handle["matrix"]
        features = group["features"]
        columns = {"gene_ids": _text(features["id"])}
        for key, name in (("feature_type", "feature_types"), ("genome", "genome")):
            if key in features:
                columns[name] = _text(features[key])
        var = pd.DataFrame(columns, index=_text(features["name"]))
        return pd.DataFrame(index=_text(group["barcodes"])), var, _flipped(group)
    genomes = [name for name, group in handle.items() if isinstance(group, h5py.Group) and "gene_names" in group]
    if not genomes:
        return None
    frames, parts = [], []
    for genome in genomes:
        group = handle[genome]
        columns = {"gene_ids": _text(group["genes"])}
        columns["genome"] = [genome] * len(columns["gene_ids"])
        frames.append(pd.DataFrame(columns, index=_text(group["gene_names"])))
        parts.append(_flipped(group))
    barcodes = _text(handle[genomes[0]]["barcodes"])
    if any(_text(handle[genome]["barcodes"]) != barcodes for genome in genomes[1:]):
        raise FileError(
            f"The genomes {', '.join(genomes)} list different cells.",
            "the same cells for each genome",
            "one file for each genome",
        )
    matrix: Matrix = parts[0] if len(parts) == 1 else JoinedColumns(parts)
    return pd.DataFrame(index=barcodes), pd.concat(frames), matrix


def _flipped(group: h5py.Group) -> Matrix:
    genes, cells = (int(number) for number in group["shape"][:])
    return StoredRows(group, (cells, genes))


def parts_of_10x(folder: Path, prefix: str | None = None) -> dict[str, Path] | None:
    """Return the three files of a 10x folder as {"matrix", "features", "barcodes"}, or None.

    GEO puts a prefix before each name (``GSM123_matrix.mtx.gz``); it has to be the same for all three.
    """
    matches = [_MATRIX.match(path.name) for path in sorted(folder.iterdir()) if path.is_file()]
    for match in matches:
        if match is None or (prefix is not None and match["prefix"] != prefix):
            continue
        found = {"matrix": folder / match.string}
        for key, stems in (("features", ("features.tsv", "genes.tsv")), ("barcodes", ("barcodes.tsv",))):
            for name in (f"{match['prefix']}{stem}{ending}" for stem in stems for ending in ("", ".gz")):
                if (folder / name).is_file():
                    found.setdefault(key, folder / name)
        if len(found) == 3:
            return found
    return None


def _lines(path: Path) -> list[list[str]]:
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt", encoding="utf-8") as handle:
        return [line.rstrip("\r\n").split("\t") for line in handle if line.strip()]


def open_10x_folder(path: Path) -> Parts:
    """Return (cells, columns, matrix) of a folder with matrix.mtx, or of the path of such a matrix.

    The text form can't be read by rows, so the matrix is loaded whole.
    """
    folder, prefix = path, None
    if path.is_file():
        match = _MATRIX.match(path.name)
        folder, prefix = path.parent, match["prefix"] if match is not None else None
    files = parts_of_10x(folder, prefix)
    if files is None:
        raise FileError(
            f"{path} has no features.tsv (or genes.tsv) and barcodes.tsv beside it.",
            "the three files of a 10x folder, gzipped or not, with one prefix",
            "the folder as Cell Ranger wrote it",
        )
    features = _lines(files["features"])
    width = min((len(row) for row in features), default=0)
    columns = {"gene_ids": [row[0] for row in features]}
    if width >= 3:
        columns["feature_types"] = [row[2] for row in features]
    names = [row[1] if width >= 2 else row[0] for row in features]
    obs = pd.DataFrame(index=[row[0] for row in _lines(files["barcodes"])])
    with warnings.catch_warnings():
        # scipy announces that it will return arrays; either becomes a csr_matrix, and older ones have no setting.
        warnings.simplefilter("ignore", DeprecationWarning)
        values = csr_matrix(scipy.io.mmread(str(files["matrix"])))
    if values.shape == (len(features), len(obs)):
        values = csr_matrix(values.T)
    elif values.shape == (len(features), len(obs) + 1):
        raise FileError(
            f"{files['barcodes']} lists {len(obs):,} cells for {values.shape[1]:,} columns.",
            "one barcode a column",
            "the folder as Cell Ranger wrote it",
        )
    if values.dtype == np.int64 and values.nnz and values.data.max() < 2**31:
        values.data = values.data.astype(np.int32)
    note = "the text form of 10x can't be read in parts, so it was loaded whole"
    return obs, pd.DataFrame(columns, index=names), HeldMatrix(values, note)
