"""The collection of training data that a recipe reads: real cells, mean profiles, marker genes.

::

    corpus/*.h5ad                     counts; obs: cell_type_ontology_term_id, and for machine-made labels
                                      pseudo_label_ontology_term_id with pseudo_label_confident
    evaluation/*.h5ad                 cells that no training cell may match
    profiles/*.parquet                rows genes (Ensembl id), columns profiles: log1p(CPM), NaN where not measured
    profiles/profiles_meta.tsv        profile_id, file, set, source_label, cell_type_ontology_term_id
    markers/cellconsensus_top40.parquet   cell_type_ontology_term_id, ensembl_id, rank
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, vstack

from cellingua.cells.counts import CountBlocks
from cellingua.cells.doctor import examine
from cellingua.cells.genes import load_vocabulary
from cellingua.cells.reading import open_cells
from cellingua.cells.simulate import ProfileSet
from cellingua.core.errors import FileError
from cellingua.core.files import sha256_file
from cellingua.core.progress import Progress, Silent

UNKNOWN = ""
_TERM = "cell_type_ontology_term_id"
_META = ["profile_id", "file", "set", "source_label", _TERM]
_MACHINE, _SURE = "pseudo_label_ontology_term_id", "pseudo_label_confident"


@dataclass(frozen=True)
class CellSet:
    """Real cells on the genes of the vocabulary.

    Attributes
    ----------
    counts
        CSR float32 (cells, vocabulary).
    totals
        float64 (cells,): over all columns of the file.
    terms
        Ontology id of each cell, ``""`` where there is none.
    curated
        bool (cells,): True where the term is the label of the source, False where a machine gave it.
    files, names
        File stem and name of each cell.
    """

    counts: csr_matrix
    totals: NDArray[np.float64]
    terms: NDArray[np.str_]
    curated: NDArray[np.bool_]
    files: NDArray[np.str_]
    names: NDArray[np.str_]

    def __len__(self) -> int:
        return len(self.terms)

    def take(self, rows: NDArray[np.integer] | NDArray[np.bool_]) -> CellSet:
        """Return some of the cells."""
        return CellSet(
            csr_matrix(self.counts[rows]),
            self.totals[rows],
            self.terms[rows],
            self.curated[rows],
            self.files[rows],
            self.names[rows],
        )


def read_cells(folder: Path, progress: Progress | None = None) -> CellSet:
    """Read every h5ad in `folder` through the same door as a user's file.

    Raises
    ------
    FileError
        The folder has no h5ad, or one that the doctor refuses (its name and the reason are given).
    """
    progress = progress or Silent()
    paths = sorted(folder.glob("*.h5ad"))
    if not paths:
        raise FileError(f"{folder} has no h5ad file.", "labelled cells as h5ad", "another --data")
    progress.step(f"Reading {folder.name}", len(paths))
    parts = []
    for path in paths:
        parts.append(read_cell_file(path))
        progress.advance()
    return CellSet(
        csr_matrix(vstack([part.counts for part in parts])),
        np.concatenate([part.totals for part in parts]),
        np.concatenate([part.terms for part in parts]),
        np.concatenate([part.curated for part in parts]),
        np.concatenate([part.files for part in parts]),
        np.concatenate([part.names for part in parts]),
    )


def read_cell_file(path: Path) -> CellSet:
    """Read one h5ad; see `read_cells`."""
    with open_cells(path) as cells:
        blocks = list(CountBlocks(cells, examine(cells)).blocks())
        terms, curated = _terms(cells.obs)
        return CellSet(
            csr_matrix(vstack([block.counts for block in blocks])),
            np.concatenate([block.totals for block in blocks]),
            terms,
            curated,
            np.full(cells.n_cells, path.stem),
            np.asarray(cells.obs.index, dtype=np.str_),
        )


def _terms(obs: pd.DataFrame) -> tuple[NDArray[np.str_], NDArray[np.bool_]]:
    """Return the term of each cell and whether it is curated; confident machine labels fill the gaps."""
    terms = _ids(obs, _TERM)
    curated = terms != UNKNOWN
    # As text: a column that went through a concatenation may hold "True" and "nan" where it held booleans.
    sure = obs[_SURE].astype(str).to_numpy() == "True" if _SURE in obs else np.zeros(len(obs), bool)
    return np.where(sure & ~curated, _ids(obs, _MACHINE), terms), curated


def _ids(obs: pd.DataFrame, column: str) -> NDArray[np.str_]:
    """Return a column of ontology ids; what is no id (``unknown``, ``nan``) becomes ``""``."""
    if column not in obs:
        return np.full(len(obs), UNKNOWN, dtype="U16")
    given = obs[column].astype(str).to_numpy().astype(np.str_)
    return np.where(np.char.find(given, ":") > 0, given, UNKNOWN).astype("U16")


def read_profiles(folder: Path, reviewed: Mapping[tuple[str, str], str]) -> ProfileSet:
    """Read mean profiles onto the genes of the vocabulary.

    Parameters
    ----------
    folder
        Holds ``profiles_meta.tsv`` and the parquet files that it names.
    reviewed
        (study, source label) -> ontology id, which replaces the id of the table; ``""`` leaves the profile out.

    Returns
    -------
    ProfileSet
        Profiles with a term only; rows sum to 1.

    Raises
    ------
    FileError
        A file is missing, lacks a column, or has a profile without a gene of the vocabulary.
    """
    path = folder / "profiles_meta.tsv"
    if not path.is_file():
        raise FileError(f"{path} is not there.", "the table of profiles", "another --data")
    meta = pd.read_csv(path, sep="\t", dtype=str, keep_default_na=False)
    _require(path, meta, _META)
    row_of = {gene: row for row, gene in enumerate(load_vocabulary().ensembl_ids.tolist())}
    expression = np.full((len(meta), len(row_of)), np.nan, np.float32)
    for name, group in meta.groupby("file"):
        table = _read_parquet(folder / str(name), group["profile_id"].tolist())
        rows = np.array([row_of.get(gene, -1) for gene in table.index])
        values = np.expm1(table[group["profile_id"]].to_numpy(np.float32))[rows >= 0]
        expression[np.ix_(group.index.to_numpy(), rows[rows >= 0])] = values.T
    measured = ~np.isnan(expression)
    shares = np.nan_to_num(expression, copy=False)
    empty = np.flatnonzero(shares.sum(axis=1) <= 0)
    if len(empty):
        name = meta["profile_id"][empty[0]]
        raise FileError(f"{path}: the profile {name!r} expresses no known gene.", "rows named by Ensembl ids")
    shares /= shares.sum(axis=1, keepdims=True)
    terms = [
        reviewed.get((study, label), term)
        for study, label, term in zip(meta["set"], meta["source_label"], meta[_TERM], strict=True)
    ]
    named = np.array([":" in term for term in terms])
    studies = meta["set"].to_numpy(dtype=np.str_)
    return ProfileSet(shares[named], measured[named], np.array(terms)[named], studies[named])


def read_markers(path: Path) -> dict[str, NDArray[np.int64]]:
    """Read marker genes: ontology id -> rows of the vocabulary, best first.

    Raises
    ------
    FileError
        The file is missing, lacks a column, or names no gene of the vocabulary.
    """
    table = _read_parquet(path, [_TERM, "ensembl_id", "rank"])
    row_of = {gene: row for row, gene in enumerate(load_vocabulary().ensembl_ids.tolist())}
    table = table.assign(row=[row_of.get(gene, -1) for gene in table["ensembl_id"]])
    table = table[table["row"] >= 0].sort_values("rank", kind="stable")
    if table.empty:
        raise FileError(f"{path} names no known gene.", "Ensembl ids in the column ensembl_id")
    grouped = table.groupby(table[_TERM].astype(str))["row"]
    return {str(term): _unique(rows.to_numpy()) for term, rows in grouped}


def _read_parquet(path: Path, columns: list[str]) -> pd.DataFrame:
    """Return a table that has these columns, or raise `FileError`."""
    if not path.is_file():
        raise FileError(f"{path} is not there.", "a parquet file", "another --data")
    try:
        table = pd.read_parquet(path)
    except ImportError as error:
        raise FileError(
            f"{path} can't be read: {error}.", "a package that reads parquet", "pip install 'cellingua[train]'"
        ) from error
    except (OSError, ValueError) as error:  # pyarrow's own errors are ValueErrors
        raise FileError(f"{path} can't be read: {error}.", "a whole parquet file") from error
    _require(path, table, columns)
    return table


def _require(path: Path, table: pd.DataFrame, columns: list[str]) -> None:
    lacking = [column for column in columns if column not in table]
    if lacking:
        raise FileError(f"{path} lacks the column {lacking[0]!r}.", f"columns {', '.join(columns[:6])}")


def _unique(rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return rows without repeats, first ones first."""
    _, first = np.unique(rows, return_index=True)
    return rows[np.sort(first)]


def data_hashes(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of every data file below `folder`, by its path there."""
    kinds = {".h5ad", ".parquet", ".tsv", ".gz"}
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.suffix in kinds)
    return {path.relative_to(folder).as_posix(): sha256_file(path) for path in files}
