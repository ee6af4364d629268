"""A user's table of expression, lines x genes, as samples; whatever is wrong with it is named by row and column.

Text with commas or tabs (plain or gzipped), parquet, or a data frame: one row a cell line or tumour, one column a gene,
names of the rows in the first column. Nothing is guessed that would change an answer. A table with genes in its rows is
refused until the call says so; a column of a gene that holds text, a name that stands twice, a row without a number
are errors; columns that are no genes (a tissue, an age) are left out and told. Two traps of public tables are looked
for: columns that were filled in, which are all equal to each other, are dropped, and a table that was centred gene by
gene is refused, because which gene is higher within a line can't be told from it any more.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cellingua.cells.genes import Vocabulary, load_vocabulary
from cellingua.core.errors import FileError, GeneError, InputError
from cellingua.models.drug_expression import Samples

#: Endings of tables; everything else is a file of cells.
TABLES = (".csv", ".tsv", ".txt", ".tab", ".parquet")
#: Headers that name a column of names even where the names are numbers, such as COSMIC's.
_NAMED = re.compile(
    r"(unnamed: 0|index|(cell[ _.]?)?lines?|samples?|names?|(depmap|model|cosmic|sample|line)[ _.]?id|)", re.IGNORECASE
)
#: DepMap writes "TP53 (7157)".
_ENTREZ_BEHIND = re.compile(r"\s*\(\d+\)$")
LOOKED_AT = 3000  # names of a row or column that are looked up to tell genes from lines
FILLED = 10  # so many columns equal to each other in every line were never measured
CENTRED_ROWS = 4  # lines from which on a centred table can be told


@dataclass(frozen=True)
class TableNotes:
    """What was made of a table.

    Attributes
    ----------
    samples, genes
        Rows, and columns that are known human genes.
    left_out
        Names of columns that are no known gene.
    filled
        Columns that were dropped because they equal each other.
    """

    samples: int
    genes: int
    left_out: tuple[str, ...] = ()
    filled: tuple[str, ...] = ()

    def lines(self) -> list[str]:
        """Return what a user should know, one sentence a line."""
        said = [f"{self.samples:,} samples and {self.genes:,} known genes were read."]
        if self.left_out:
            names = ", ".join(self.left_out[:3]) + (", ..." if len(self.left_out) > 3 else "")
            said.append(
                f"{len(self.left_out):,} columns are none of the known genes (protein-coding and microRNA) and were "
                f"left out ({names})."
            )
        if self.filled:
            said.append(
                f"{len(self.filled):,} columns are equal to each other in every sample ({', '.join(self.filled[:3])}, "
                "...): they were filled in, not measured, and count as absent."
            )
        return said


def is_table(source: Any) -> bool:
    """Return whether a source is a table by its kind: a data frame, or a path with the ending of one."""
    if isinstance(source, pd.DataFrame):
        return True
    if not isinstance(source, str | Path):
        return False
    suffixes = [suffix.lower() for suffix in Path(source).suffixes if suffix.lower() != ".gz"]
    return bool(suffixes) and suffixes[-1] in TABLES


def read_expression(source: str | Path | pd.DataFrame, *, genes_in_rows: bool = False) -> tuple[Samples, TableNotes]:
    """Read a table of expression.

    Parameters
    ----------
    source
        A path, or a data frame whose index or first column holds the names of the rows.
    genes_in_rows
        The table has one row a gene and one column a line.

    Raises
    ------
    FileError
        The file is missing, or can't be read as a table.
    GeneError
        Genes are in the rows (or in the columns, with `genes_in_rows`), none is known, or the table was centred.
    InputError
        A name is missing or repeated, or a value is no number.
    """
    name = "The table" if isinstance(source, pd.DataFrame) else str(source)
    frame = source if isinstance(source, pd.DataFrame) else read_frame(Path(source))
    rows, held = _named(frame, name)
    columns = [str(column).strip() for column in held.columns]
    if genes_in_rows:
        held, rows, columns = held.T, columns, rows
    columns = [_ENTREZ_BEHIND.sub("", column) for column in columns]
    vocabulary = load_vocabulary()
    _refuse_transposed(rows, columns, vocabulary, name, genes_in_rows)
    known = vocabulary.resolve(columns).index >= 0
    if not known.any():
        raise GeneError(_no_genes(columns, name), "human genes as symbols or Ensembl ids", "another table")
    _refuse_repeated(rows, name)
    kept = np.flatnonzero(known)
    genes = [columns[at] for at in kept]
    values = _numbers(held.iloc[:, kept], rows, genes, name)
    empty = np.flatnonzero(~np.isfinite(values).any(axis=1))
    if len(empty):
        raise InputError(f"{name}: row {empty[0] + 1} ({rows[empty[0]]!r}) has no value of any gene.",
                         "expression of each line", "leaving it out")  # fmt: skip
    _refuse_centred(values, name)
    filled = filled_columns(values)
    values[:, filled] = np.nan
    notes = TableNotes(
        len(rows), int(len(kept) - filled.sum()), tuple(columns[at] for at in np.flatnonzero(~known)),
        tuple(np.array(genes, dtype=object)[filled].tolist()),
    )  # fmt: skip
    return Samples(rows, np.array(genes, dtype=np.str_)[~filled], values[:, ~filled]), notes


def read_frame(path: Path) -> pd.DataFrame:
    """Read text or parquet as it is, the first row being the header.

    Raises
    ------
    FileError
        The file is missing, empty, or no table.
    """
    if not path.is_file():
        raise FileError(f"{path} does not exist.", "a table: .parquet, .csv, .tsv or .txt, or one of these with .gz")
    try:
        if path.suffix.lower() == ".parquet":
            return pd.read_parquet(path)
        comma = ".csv" in [suffix.lower() for suffix in path.suffixes]
        return pd.read_csv(path, sep="," if comma else "\t", low_memory=False)
    except ImportError as error:
        raise FileError(f"{path} needs pyarrow.", "", "pip install 'cellingua[drug]'") from error
    except (ValueError, OSError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise FileError(f"{path} can't be read as a table ({reason}).",
                        "parquet, or text with commas (.csv) or tabs (.tsv, .txt)") from error  # fmt: skip


def filled_columns(values: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return which columns were filled in: at least `FILLED` that are equal to each other in every row.

    Genes that no line expresses are equal to each other, too, at the lowest value of each row; these were measured.
    With fewer than three rows nothing can be told.
    """
    out = np.zeros(values.shape[1], dtype=bool)
    if len(values) < 3:
        return out
    lowest = np.nanmin(values, axis=1)
    groups: dict[bytes, list[int]] = {}
    for column in range(values.shape[1]):
        groups.setdefault(np.ascontiguousarray(values[:, column]).tobytes(), []).append(column)
    for group in groups.values():
        shown = values[:, group[0]]
        if len(group) >= FILLED and np.isfinite(shown).all() and (shown > lowest).all():
            out[group] = True
    return out


def _named(frame: pd.DataFrame, name: str) -> tuple[list[str], pd.DataFrame]:
    """Return the names of the rows, and the frame without them."""
    if not len(frame) or not frame.shape[1]:
        raise InputError(f"{name} has {len(frame):,} rows and {frame.shape[1]:,} columns.", "lines x genes")
    if not isinstance(frame.index, pd.RangeIndex) and not pd.api.types.is_numeric_dtype(frame.index):
        return [str(entry).strip() for entry in frame.index], frame
    header, first = str(frame.columns[0]).strip(), frame.iloc[:, 0]
    numbers = pd.api.types.is_numeric_dtype(first)
    if numbers and not _NAMED.fullmatch(header):
        raise InputError(
            f"{name}: the first column ({header!r}) holds numbers, where names of the rows are expected.",
            "names of the lines in the first column",
            "a first column with the header 'line'",
        )
    texts = ["" if missing else str(entry).strip() for entry, missing in zip(first, first.isna(), strict=True)]
    blank = [row for row, text in enumerate(texts, start=1) if not text]
    if blank:
        raise InputError(f"{name}: row {blank[0]} has no name in the first column ({header!r}).", "a name for each row")
    return texts, frame.iloc[:, 1:]


def _known(names: list[str], vocabulary: Vocabulary) -> float:
    """Return which share of some names, spread over all of them, are known genes."""
    part = names[:: max(1, len(names) // LOOKED_AT)]
    return float((vocabulary.resolve(part).index >= 0).mean()) if part else 0.0


def _refuse_transposed(rows: list[str], columns: list[str], vocabulary: Vocabulary, name: str, turned: bool) -> None:
    in_rows, in_columns = _known(rows, vocabulary), _known(columns, vocabulary)
    # Names of a few lines may be genes by chance (T-T, HT); of most lines they are not.
    if in_rows < 0.3 or in_rows <= 2 * in_columns or len(rows) < 10:
        return
    first, header = (rows[0], columns[0] if columns else "")
    here = "columns" if turned else "rows"
    raise GeneError(
        f"{name}: the {here} are genes (the first is {first!r}, {in_rows:.0%} are known), and the "
        f"{'rows' if turned else 'columns'} are not (the first is {header!r}, {in_columns:.0%} are known).",
        "one row a line and one column a gene" if not turned else "one row a gene and one column a line",
        "without --genes-in-rows" if turned else "--genes-in-rows, if that is how the table is meant",
    )


def _no_genes(columns: list[str], name: str) -> str:
    if sum(column.isdigit() for column in columns) > len(columns) / 2:
        return f"{name}: the columns have numbers for names (the first is {columns[0]!r}), such as those of Entrez."
    first = repr(columns[0]) if columns else "none at all"
    return f"{name}: none of the {len(columns):,} columns is a known human gene (the first is {first})."


def _refuse_repeated(rows: list[str], name: str) -> None:
    seen: dict[str, int] = {}
    for row, text in enumerate(rows, start=1):
        if text in seen:
            raise InputError(
                f"{name}: the name {text!r} stands in rows {seen[text]} and {row}.",
                "one row a line",
                "leaving one out, or giving them different names",
            )
        seen[text] = row


def _numbers(frame: pd.DataFrame, rows: list[str], genes: list[str], name: str) -> NDArray[np.float64]:
    """Return the values as float64, NaN where empty; refuse text and infinities by row and column."""
    try:
        values = frame.to_numpy(dtype=np.float64, na_value=np.nan)
    except (ValueError, TypeError):
        values = frame.apply(pd.to_numeric, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
        bad = np.argwhere(np.isnan(values) & frame.notna().to_numpy())
        if len(bad):
            row, column = (int(place) for place in bad[0])
            raise InputError(
                f"{name}: row {row + 1} ({rows[row]!r}), column {genes[column]!r} is "
                f"{str(frame.iloc[row, column])[:40]!r}.",
                "a number, or nothing where a gene was not measured",
            ) from None
    wild = np.argwhere(np.isinf(values))
    if len(wild):
        row, column = (int(place) for place in wild[0])
        raise InputError(f"{name}: row {row + 1} ({rows[row]!r}), column {genes[column]!r} is infinite.", "a number")
    return np.array(values)  # a copy of our own: the frame is the caller's


def _refuse_centred(values: NDArray[np.float64], name: str) -> None:
    """Refuse a table whose genes each have the mean 0 over its lines."""
    if len(values) < CENTRED_ROWS:
        return
    there = np.isfinite(values)
    count = np.maximum(there.sum(axis=0), 1)
    mean = np.where(there, values, 0.0).sum(axis=0) / count
    sd = np.sqrt(np.where(there, (values - mean) ** 2, 0.0).sum(axis=0) / count)
    varied = sd > 0
    if varied.any() and float((np.abs(mean[varied]) < 1e-3 * sd[varied]).mean()) > 0.9:
        raise GeneError(
            f"{name}: each gene has the mean 0 over the lines, so the table was centred or made z-scores gene by gene, "
            "and which gene is higher within a line can't be told any more.",
            "expression before scaling: counts, TPM, intensities, or their logarithms",
            "the table from before that step",
        )
