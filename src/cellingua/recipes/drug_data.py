"""A folder of drug-response tables as arrays on one axis of lines and one of drugs.

The folder is that of TGSA's pairs with what is known of their lines (``tgsa/``), wider expression and mutations of
more lines (``expression/``), and the screens that hold further lines and drugs (``gdsc/``); its README says where each
table came from. Columns that were filled in rather than measured are dropped, a line without a table has NaN in it,
and lines whose name belongs to two are left out. Nothing is scaled here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cellingua.core.errors import FileError
from cellingua.molecules.response import Responses, read_table, responses
from cellingua.molecules.smiles import Molecule, read_molecules
from cellingua.molecules.splits import PairSplit, stored_split
from cellingua.recipes.drug_targets import targets

Floats = NDArray[np.float64]
SPLITS = {"random_pairs": "split_random", "unseen_lines": "split_line", "unseen_drugs": "split_drug"}
#: A line or drug of a further screen with fewer values than this says too little to be worth its place.
LEAST_LINE, LEAST_DRUG = 20, 200


@dataclass(frozen=True)
class DrugData:
    """TGSA's pairs and all that is known of their lines and drugs.

    Attributes
    ----------
    pairs
        The 82,833 pairs.
    splits
        Kind -> the stored split.
    molecules
        In the order of `pairs.drugs`.
    tables
        Name -> float (L, F), NaN where absent, in the order of `pairs.lines`: ``wide`` (5,778 genes, z within the
        line), ``expression`` (706 genes), ``mutations`` and ``copies`` (706 genes), ``mutations_wide``, ``lineage``,
        ``targets`` (columns of ``wide`` that are known to carry responses).
    genes
        str (5778,): columns of ``wide``.
    lines, drugs
        The tables of lines and drugs as read, in the same orders.
    """

    pairs: Responses
    splits: Mapping[str, PairSplit]
    molecules: list[Molecule]
    tables: Mapping[str, Floats]
    genes: NDArray[np.str_]
    lines: pd.DataFrame
    drugs: pd.DataFrame


@dataclass(frozen=True)
class MoreLines:
    """Lines that TGSA's table does not have, and drugs beside its own.

    Attributes
    ----------
    names
        str (M,): names of the further lines.
    tables
        Name -> float (M, F), as in `DrugData`; what these lines lack is NaN.
    grid
        float (M, D): their values for TGSA's drugs, from GDSC2, moved to TGSA's level drug by drug.
    beside
        float (L + M, E): all lines, TGSA's first, with drugs that TGSA's table does not have or another screen's.
    """

    names: NDArray[np.str_]
    tables: Mapping[str, Floats]
    grid: Floats
    beside: Floats


def read_drug_data(folder: Path) -> DrugData:
    """Read the folder.

    Raises
    ------
    FileError
        A file is missing.
    """
    frame = read_table(folder / "tgsa" / "pairs.parquet").sort_values(["line", "drug"], kind="stable")
    pairs, _ = responses(frame)
    splits = {kind: stored_split(kind, frame[column].to_numpy()) for kind, column in SPLITS.items()}
    lines = _tsv(folder / "tgsa" / "lines.tsv").set_index("line").loc[pairs.lines.tolist()]
    drugs = _tsv(folder / "tgsa" / "drugs.tsv").set_index("drug").loc[pairs.drugs.tolist()]
    molecules = read_molecules(pairs.drugs.tolist(), drugs.isomeric_smiles.tolist())
    near = _npz(folder / "tgsa" / "line_features.npz")
    order = _places(near["lines"], pairs.lines)
    tables = {
        "expression": near["expression"][order].astype(np.float64),
        "mutations": near["mutation"][order].astype(np.float64),
        "copies": near["copy_number"][order].astype(np.float64),
        "lineage": _one_hot(lines.lineage),
    }
    wide = _npz(folder / "expression" / "gdsc_expression_z_6163.npz")
    kept = ~_measured(folder)
    rows = _places(wide["depmap"], pairs.lines)
    tables["wide"] = _rows(wide["z_times_1024"][:, kept] / 1024.0, rows)
    names = dict(zip(wide["depmap"], wide["name_key"], strict=True))
    tables["mutations_wide"] = _mutations(folder, [names.get(line, "") for line in pairs.lines])
    genes = wide["genes"][kept].astype(np.str_)
    tables["targets"] = tables["wide"][:, targets(genes)]
    return DrugData(pairs, splits, molecules, tables, genes, lines, drugs)


def read_more_lines(folder: Path, data: DrugData, learned: NDArray[np.bool_]) -> MoreLines:
    """Read what the screens hold beyond TGSA's table.

    Parameters
    ----------
    learned
        bool (L,): TGSA's lines that may be learned from. All others are kept out, by identifier and by name.
    """
    listed = _tsv(folder / "gdsc" / "lines.tsv")
    name_of = dict(zip(listed.line, listed.name, strict=True))
    ours = [name_of.get(line, "") if line else "" for line in data.pairs.lines]
    known = {*data.pairs.lines.tolist()}
    taken = {spelled(text) for text in data.lines.name.tolist()}
    wide = _npz(folder / "expression" / "gdsc_expression_z_6163.npz")
    at = {key: row for row, key in enumerate(wide["name_key"])}
    more = listed[
        (listed.in_expression == "True") & (listed.line != "") & ~listed.line.isin(known)
        & ~listed.name_key.isin(taken) & listed.name_key.isin(at)
    ]  # fmt: skip
    screens = [read_table(folder / "gdsc" / f"{screen}.parquet") for screen in ("gdsc1", "gdsc2")]
    names = np.array(
        [name if ok else "" for name, ok in zip(ours, learned, strict=True)] + more.name.tolist(), dtype=np.str_
    )
    same = _same_drugs(folder, data)
    second = _wide_form(screens[1].assign(drug=screens[1].drug.map(lambda n: same.get(n, n))), names)
    grid = np.full((len(names), len(data.pairs.drugs)), np.nan)
    shared = [d for d in data.pairs.drugs if d in second.columns]
    grid[:, _places(data.pairs.drugs, np.array(shared))] = second[shared].to_numpy()
    grid = _moved(grid, data.pairs.grid(), learned)
    beside = [_wide_form(screens[0], names), second.drop(columns=shared)]
    n = len(ours)
    values = np.concatenate([t.loc[:, t.notna().sum() >= LEAST_DRUG].to_numpy() for t in beside], axis=1)
    enough = np.isfinite(grid[n:]).sum(axis=1) >= LEAST_LINE
    keys = more.name_key.to_numpy()[enough]
    tables = {name: np.full((len(keys), table.shape[1]), np.nan) for name, table in data.tables.items()}
    tables["wide"] = wide["z_times_1024"][:, ~_measured(folder)][[at[key] for key in keys]] / 1024.0
    tables["targets"] = tables["wide"][:, targets(data.genes)]
    tables["mutations_wide"] = _mutations(folder, keys.tolist())
    keep = np.concatenate([np.ones(n, bool), enough])
    return MoreLines(names[n:][enough], tables, grid[n:][enough], values[keep])


def _same_drugs(folder: Path, data: DrugData) -> dict[str, str]:
    """Return name in the screens -> name in TGSA's table, by InChIKey, else by spelling."""
    listed = _tsv(folder / "gdsc" / "drugs.tsv")
    by_key = dict(zip(data.drugs.inchikey, data.pairs.drugs.tolist(), strict=True))
    by_name = {spelled(name): name for name in data.pairs.drugs.tolist()}
    found = {}
    for name, key in zip(listed.drug, listed.inchikey, strict=True):
        ours = by_key.get(key) if key else None
        ours = ours or by_name.get(spelled(name))
        if ours:
            found[name] = ours
    return found


def _moved(grid: Floats, ours: Floats, learned: NDArray[np.bool_]) -> Floats:
    """Return values of a later fit of the same screen at TGSA's level: per drug, by the mean difference of pairs."""
    both = np.isfinite(grid[: len(ours)]) & np.isfinite(ours) & learned[:, None]
    count = both.sum(axis=0)
    gap = np.where(both, ours - grid[: len(ours)], 0.0).sum(axis=0) / np.maximum(count, 1)
    return np.where(count >= 20, grid + gap, np.nan)


def _wide_form(frame: pd.DataFrame, names: NDArray[np.str_]) -> pd.DataFrame:
    """Return a long table as lines x drugs, repeats averaged, in the order of `names`; unnamed lines are empty."""
    kept = frame[frame.name.isin(set(names[names != ""].tolist()))]
    return kept.groupby(["name", "drug"], observed=True).ln_ic50.mean().unstack().reindex(names)


def _measured(folder: Path) -> NDArray[np.bool_]:
    """Return which columns of the wide table are filled in, all with the same number."""
    return np.asarray(_tsv(folder / "expression" / "genes.tsv").filled.to_numpy() == "True")


def _mutations(folder: Path, keys: list[str]) -> Floats:
    stored = _npz(folder / "expression" / "gdsc_mut_cnv_6163.npz")
    marks = np.unpackbits(stored["mutation_packbits"], axis=1)[:, : len(stored["genes"])]
    return _rows(marks.astype(np.float64), _places(stored["name_key"], np.array(keys, dtype=np.str_)))


def _rows(values: Floats, rows: NDArray[np.int64]) -> Floats:
    """Return rows by number, NaN for -1."""
    return np.where((rows >= 0)[:, None], values[rows], np.nan)


def _places(names: NDArray[Any], wanted: NDArray[Any]) -> NDArray[np.int64]:
    """Return the row of each wanted name, -1 where there is none; an empty name is none."""
    at = {str(name): row for row, name in enumerate(names) if str(name)}
    return np.array([at.get(str(name), -1) for name in wanted], dtype=np.int64)


def _one_hot(column: pd.Series) -> Floats:
    values = column.to_numpy().astype(np.str_)
    kinds = np.unique(values[values != ""])
    return (values[:, None] == kinds[None, :]).astype(np.float64)


def spelled(name: str) -> str:
    """Return a name in capitals without anything but letters and digits: names that agree so are one."""
    return "".join(letter for letter in name.upper() if letter.isascii() and letter.isalnum())


def _tsv(path: Path) -> pd.DataFrame:
    if not path.is_file():
        raise FileError(f"{path} is not there.", "the folder of drug-response tables", "its README, for what it holds")
    return pd.read_csv(path, sep="\t", dtype=str, keep_default_na=False)


def _npz(path: Path) -> dict[str, NDArray[Any]]:
    if not path.is_file():
        raise FileError(f"{path} is not there.", "the folder of drug-response tables", "its README, for what it holds")
    with np.load(path, allow_pickle=False) as stored:
        return {name: stored[name] for name in stored.files}
