"""Measured responses of cell lines to drugs: IC50 tables, their units, repeats, and compounds with two names.

Everything downstream works on ``ln(IC50 / µM)``, low = sensitive, one value a pair of line and drug. A table in another
unit is converted, and a unit is never guessed from the values: it stands in the column's name, or is given. Repeats of
a pair are averaged before anything is split, so that no repeat of a test pair is trained on; one compound under two
names is one drug, where its InChIKey is known. Pairs whose repeats disagree too much are refused, averaged or dropped
as the caller says, and told in every case.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cellingua.core.errors import FileError, InputError

if TYPE_CHECKING:
    import pandas as pd

#: Unit -> (factor, offset) of ln µM: value' = factor * v + offset, where v is the value, or its ln where `_LINEAR`.
UNITS = {
    "ln_um": (1.0, 0.0),
    "log10_um": (math.log(10), 0.0),
    "log10_m": (math.log(10), math.log(1e6)),
    "pic50": (-math.log(10), math.log(1e6)),
    "um": (1.0, 0.0),
    "nm": (1.0, math.log(1e-3)),
    "m": (1.0, math.log(1e6)),
}
_LINEAR = ("um", "nm", "m")
#: What a column's name may say of its unit, in lower case without anything but letters and digits.
_NAMES = {
    "lnic50": "ln_um",
    "lnic50um": "ln_um",
    "log10ic50um": "log10_um",
    "log10ic50m": "log10_m",
    "pic50": "pic50",
    "ic50um": "um",
    "ic50nm": "nm",
    "ic50m": "m",
}
#: ln µM beyond which no screen measures: a femtomolar, and a mole in a millilitre. A median must be a dose in use.
RANGE, MEDIAN = (-21.0, 21.0), (-10.0, 10.0)
#: Repeats that lie further apart than tenfold disagree.
TENFOLD = math.log(10)


@dataclass(frozen=True)
class Responses:
    """One value for each measured pair of line and drug.

    Attributes
    ----------
    lines, drugs
        str (L,), (D,): sorted names; each occurs in a pair.
    line, drug
        int64 (n,): place of each pair's line in `lines` and drug in `drugs`; sorted by line, then drug, no pair twice.
    value
        float64 (n,): ln(IC50 / µM).
    """

    lines: NDArray[np.str_]
    drugs: NDArray[np.str_]
    line: NDArray[np.int64]
    drug: NDArray[np.int64]
    value: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.value)

    def grid(self) -> NDArray[np.float64]:
        """Return float64 (L, D): the values as a table, NaN where nothing was measured."""
        table = np.full((len(self.lines), len(self.drugs)), np.nan)
        table[self.line, self.drug] = self.value
        return table

    def take(self, rows: NDArray[Any]) -> Responses:
        """Return the pairs that `rows` (numbers or a mask) names, with the lines and drugs that occur in them."""
        return _coded(self.lines[self.line[rows]], self.drugs[self.drug[rows]], self.value[rows])


@dataclass(frozen=True)
class ResponseNotes:
    """What was done to a table on its way to `Responses`.

    Attributes
    ----------
    rows, pairs
        Rows that were read; pairs that came out.
    unit
        What the values were in.
    empty
        Rows without a line, a drug or a value, left out.
    repeated
        Pairs that were measured more than once, and averaged.
    disagreeing
        Pairs whose repeats lie further apart than allowed: (line, drug, smallest, largest) in ln µM.
    renamed
        Name -> the name that it was counted under, because both are one compound.
    """

    rows: int
    pairs: int
    unit: str
    empty: int = 0
    repeated: int = 0
    disagreeing: tuple[tuple[str, str, float, float], ...] = ()
    renamed: Mapping[str, str] = field(default_factory=dict)


def read_table(path: Path) -> pd.DataFrame:
    """Read a table: parquet, or text with commas or tabs, plain or gzipped; names stay text.

    Raises
    ------
    FileError
        The file is missing, or not a table.
    """
    import pandas as pd

    if not path.is_file():
        raise FileError(f"{path} is not there.", "a table: .parquet, .csv, .tsv or .txt, or one of these with .gz")
    try:
        if path.suffix == ".parquet":
            return pd.read_parquet(path)
        comma = ".csv" in path.suffixes
        return pd.read_csv(path, sep="," if comma else "\t", dtype_backend="numpy_nullable", low_memory=False)
    except ImportError as error:
        raise FileError(f"{path} needs pyarrow.", "", "pip install 'cellingua[drug]'") from error
    except (ValueError, OSError, UnicodeDecodeError) as error:
        raise FileError(
            f"{path} can't be read as a table ({error}).", "parquet, or text with commas or tabs"
        ) from error


def responses(
    table: pd.DataFrame,
    *,
    line: str = "line",
    drug: str = "drug",
    value: str | None = None,
    unit: str | None = None,
    same: Mapping[str, str] | None = None,
    apart: float = TENFOLD,
    disagreeing: str = "refuse",
) -> tuple[Responses, ResponseNotes]:
    """Return the pairs of a long table, repeats averaged.

    Parameters
    ----------
    table
        One row a measurement.
    line, drug, value
        Columns. Without `value` the one column whose name says its unit, such as ``ln_ic50`` or ``IC50 (nM)``.
    unit
        One of `UNITS`; by default what the column's name says.
    same
        Name of a drug -> its compound (an InChIKey; empty where unknown): names of one compound become the first of
        them in the alphabet.
    apart
        Repeats of a pair further apart than this, in ln, disagree.
    disagreeing
        What happens to pairs that do: ``refuse``, ``mean`` or ``drop``.

    Raises
    ------
    InputError
        A column is missing, the unit is unknown or implausible, a value is no number, or repeats disagree; the first
        rows are named, counted from 1 below the header.
    """
    if disagreeing not in ("refuse", "mean", "drop"):
        raise InputError(f"{disagreeing!r} is nothing to do with disagreeing pairs.", "refuse, mean or drop")
    column, unit = _column_and_unit(table, line, drug, value, unit)
    names = [_texts(table[name]) for name in (line, drug)]
    numbers = _numbers(table[column], column)
    kept = (names[0] != "") & (names[1] != "") & np.isfinite(numbers)
    if not kept.any():
        raise InputError(f"No row of {len(table):,} has a line ({line!r}), a drug ({drug!r}) and a value ({column!r}).")
    values = to_ln_um(numbers[kept], unit, rows=np.flatnonzero(kept) + 1)
    renamed = one_name(names[1][kept], same or {})
    drugs = np.array([renamed.get(name, name) for name in names[1][kept]], dtype=np.str_)
    found, repeated, far = _averaged(names[0][kept], drugs, values, apart)
    if far and disagreeing == "refuse":
        raise InputError(
            f"{len(far):,} pairs were measured more than once with results more than {math.exp(apart):.3g}-fold apart: "
            f"{_say(far)}.",
            "repeats that agree",
            "mending them, or disagreeing='mean' or 'drop'",
        )
    if far and disagreeing == "drop":
        bad = {(a, b) for a, b, _, _ in far}
        rows = [(a, b) not in bad for a, b in zip(found.lines[found.line], found.drugs[found.drug], strict=True)]
        found = found.take(np.array(rows))
    notes = ResponseNotes(
        len(table), len(found), unit, int((~kept).sum()), repeated, tuple(far), {k: renamed[k] for k in sorted(renamed)}
    )
    return found, notes


def to_ln_um(values: NDArray[np.float64], unit: str, *, rows: NDArray[np.integer] | None = None) -> NDArray[np.float64]:
    """Return concentrations as ln µM; refuse what no screen measures, as a sign of another unit.

    Parameters
    ----------
    values
        (n,), finite.
    unit
        One of `UNITS`.
    rows
        (n,): the number of each value's row, for the message.
    """
    if unit not in UNITS:
        raise InputError(f"The unit {unit!r} is not known.", f"one of {', '.join(UNITS)}")
    rows = np.arange(1, len(values) + 1) if rows is None else rows
    v = values
    if unit in _LINEAR:
        if (values <= 0).any():
            first = int(np.flatnonzero(values <= 0)[0])
            raise InputError(
                f"The IC50 of row {rows[first]} is {values[first]:g}, which is no concentration in {unit}.",
                "values above 0",
                "--unit ln_um, if these are logarithms",
            )
        v = np.log(values)
    factor, offset = UNITS[unit]
    out = factor * v + offset
    wild = (out < RANGE[0]) | (out > RANGE[1])
    if wild.any() or not MEDIAN[0] <= np.median(out) <= MEDIAN[1]:
        where = int(np.flatnonzero(wild)[0]) if wild.any() else int(np.argsort(out)[len(out) // 2])
        raise InputError(
            f"As {unit}, the IC50 of row {rows[where]} ({values[where]:g}) would be {out[where]:.1f} in ln µM.",
            f"a median between {MEDIAN[0]:g} and {MEDIAN[1]:g}, and all between {RANGE[0]:g} and {RANGE[1]:g}",
            f"--unit with one of {', '.join(UNITS)}",
        )
    return out


def one_name(drugs: NDArray[np.str_], same: Mapping[str, str]) -> dict[str, str]:
    """Return name -> first name in the alphabet of the same compound, for names that are not the first themselves."""
    names: dict[str, list[str]] = {}
    for name in np.unique(drugs):
        if same.get(str(name)):
            names.setdefault(same[str(name)], []).append(str(name))
    return {other: group[0] for group in names.values() for other in group[1:]}


def _averaged(
    lines: NDArray[np.str_], drugs: NDArray[np.str_], values: NDArray[np.float64], apart: float
) -> tuple[Responses, int, list[tuple[str, str, float, float]]]:
    """Return one pair for each line and drug, how many were repeated, and those whose repeats are far apart."""
    raw = _coded(lines, drugs, values)
    key = raw.line * len(raw.drugs) + raw.drug  # sorted, because the pairs are
    starts = np.flatnonzero(np.diff(key, prepend=-1))
    counts = np.diff(np.append(starts, len(key)))
    low, high = np.minimum.reduceat(raw.value, starts), np.maximum.reduceat(raw.value, starts)
    mean = np.add.reduceat(raw.value, starts) / counts
    # A sum's rounding must not move a pair that was measured once, or the same twice.
    mean = np.where(low == high, low, mean)
    line, drug = raw.line[starts], raw.drug[starts]
    far = [
        (str(raw.lines[line[i]]), str(raw.drugs[drug[i]]), float(low[i]), float(high[i]))
        for i in np.flatnonzero(high - low > apart)
    ]
    return Responses(raw.lines, raw.drugs, line, drug, mean), int((counts > 1).sum()), far


def _coded(lines: NDArray[np.str_], drugs: NDArray[np.str_], values: NDArray[np.float64]) -> Responses:
    """Return rows as `Responses`, sorted by line, drug and value, so that the order of a file decides nothing."""
    names, line = np.unique(lines, return_inverse=True)
    compounds, drug = np.unique(drugs, return_inverse=True)
    order = np.lexsort((values, drug, line))
    return Responses(names, compounds, line[order].astype(np.int64), drug[order].astype(np.int64), values[order])


def _column_and_unit(table: pd.DataFrame, line: str, drug: str, value: str | None, unit: str | None) -> tuple[str, str]:
    """Return the column of the values, and their unit."""
    for name in (line, drug, value):
        if name is not None and name not in table.columns:
            raise InputError(
                f"The table has no column {name!r}, but {', '.join(map(repr, map(str, table.columns[:8])))}.",
                "one row a measurement: line, drug, IC50",
                "naming its columns",
            )
    told = {str(c): _NAMES.get(re.sub(r"[^a-z0-9]", "", str(c).lower().replace("µ", "u").replace("μ", "u")))
            for c in table.columns}  # fmt: skip
    if value is None:
        known = [name for name, found in told.items() if found]
        if len(known) != 1:
            raise InputError(
                f"{len(known)} columns have a name that says IC50 with its unit.",
                "one, such as ln_ic50 (ln µM), IC50_uM, IC50_nM or pIC50",
                "naming the column of the values",
            )
        value = known[0]
    unit = unit or told.get(value)
    if unit is None:
        raise InputError(
            f"The column {value!r} does not say what unit its values are in.",
            f"one of {', '.join(UNITS)}",
            "--unit",
        )
    return value, unit


def _texts(column: pd.Series) -> NDArray[np.str_]:
    """Return a column as stripped text, empty where nothing stands."""
    texts = ["" if missing else str(entry).strip() for entry, missing in zip(column, column.isna(), strict=True)]
    return np.array(texts, dtype=np.str_)


def _numbers(column: pd.Series, name: str) -> NDArray[np.float64]:
    """Return a column as float64, NaN where it is empty; refuse text."""
    import pandas as pd

    numbers = pd.to_numeric(column, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
    text = np.flatnonzero(np.isnan(numbers) & column.notna().to_numpy())
    if len(text):
        raise InputError(
            f"Row {text[0] + 1} of the column {name!r} is {column.iloc[text[0]]!r}.", "a number, or nothing"
        )
    return numbers


def _say(far: list[tuple[str, str, float, float]], most: int = 3) -> str:
    said = [f"{a} with {b} ({low:.2f} and {high:.2f} in ln µM)" for a, b, low, high in far[:most]]
    return ", ".join(said) + (f", and {len(far) - most:,} more" if len(far) > most else "")
