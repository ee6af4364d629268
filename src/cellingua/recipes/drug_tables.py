"""Every table of drug responses in the folder, and the questions that are asked of it, in one form.

A question is a table with holes to learn from and pairs to answer; baselines, the field and networks all take it. The
tables beside TGSA's (DeepCDR's pairs, the screens GDSC1 and GDSC2) keep the lines that have wide expression and the
drugs that have a SMILES, so that every method answers the same pairs. Repeats are averaged and one compound under two
names is one drug before anything is divided.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cellingua.molecules.response import Responses, read_table, responses
from cellingua.molecules.smiles import Molecule, read_molecules, same_compounds
from cellingua.molecules.splits import PairSplit, check_split, digest, random_pairs, stored_split, unseen_lines
from cellingua.recipes.drug_data import DrugData, _measured, _npz, _places, _rows, _tsv, read_drug_data

Floats = NDArray[np.float64]
SEED = 42
LEARN = ("train", "val")
TABLES = ("tgsa", "deepcdr", "gdsc1", "gdsc2", "gdsc1_to_gdsc2")


@dataclass(frozen=True)
class Question:
    """What is learned from, and what is asked.

    Attributes
    ----------
    table, kind
        Name of the table, and of its split: the way in which what is asked is new.
    data
        Features of lines and drugs.
    grid
        float64 (L, D): what may be learned from, NaN elsewhere.
    line, drug, truth
        (n,): the pairs that are asked, and their answers.
    chosen
        float64 (L, D): `grid` without its validation pairs, or None where there are none.
    digest
        SHA-256 of the split.
    """

    table: str
    kind: str
    data: DrugData
    grid: Floats
    line: NDArray[np.int64]
    drug: NDArray[np.int64]
    truth: Floats
    digest: str
    chosen: Floats | None = None

    @property
    def name(self) -> str:
        """Table and kind."""
        return f"{self.table}/{self.kind}"


def questions(folder: Path, tables: tuple[str, ...] = TABLES) -> Iterator[Question]:
    """Yield the questions of some tables; a table is read when its first question is asked for."""
    for table in tables:
        if table == "gdsc1_to_gdsc2":
            yield from _between_screens(folder)
            continue
        data = read_drug_data(folder) if table == "tgsa" else read_other(folder, table)
        for kind in data.splits:
            yield asked(table, data, kind)


def asked(table: str, data: DrugData, kind: str) -> Question:
    """Return the question of one split: learn from train and val, answer test."""
    split = data.splits[kind]
    test = split.rows("test")
    return Question(
        table, kind, data, _grid(data.pairs, split.rows(*LEARN)), data.pairs.line[test], data.pairs.drug[test],
        data.pairs.value[test], digest(split, data.pairs),
        _grid(data.pairs, split.rows("train")) if len(split.rows("val")) else None,
    )  # fmt: skip


def read_other(folder: Path, table: str) -> DrugData:
    """Read DeepCDR's pairs or a screen: ``deepcdr``, ``gdsc1`` or ``gdsc2``.

    Splits are drawn with seed 42; DeepCDR's 95:5 of pairs is its own, without the pairs whose repeats it divides.
    """
    listed = _tsv(folder / ("deepcdr" if table == "deepcdr" else "gdsc") / "drugs.tsv")
    if table == "deepcdr":
        frame = read_table(folder / "deepcdr" / "pairs.parquet")
        frame = frame[frame.in_deepcdr_set.astype(bool) & (frame.line != "")]
    else:
        frame = read_table(folder / "gdsc" / f"{table}.parquet")
        frame = frame[frame.line != ""]
    molecules = _molecules(listed)
    wide = _npz(folder / "expression" / "gdsc_expression_z_6163.npz")
    frame = frame[frame.line.isin(set(wide["depmap"])) & frame.drug.isin({m.name for m in molecules})]
    pairs, _ = responses(frame, value="ln_ic50", unit="ln_um", same=same_compounds(molecules), disagreeing="mean")
    by_name = {molecule.name: molecule for molecule in molecules}
    kept = [by_name[str(name)] for name in pairs.drugs]
    columns = ~_measured(folder)
    tables = {"wide": _rows(wide["z_times_1024"][:, columns] / 1024.0, _places(wide["depmap"], pairs.lines))}
    splits: dict[str, PairSplit] = {}
    if table == "deepcdr":
        splits["random_pairs"] = _deepcdr_split(frame, pairs, kept, molecules)
    else:
        splits["random_pairs"] = random_pairs(pairs, SEED)
    splits["unseen_lines"] = unseen_lines(pairs, SEED)
    check_split(splits["unseen_lines"], pairs)
    lines = pd.DataFrame(index=pairs.lines)
    drugs = pd.DataFrame({"scaffold": [m.scaffold for m in kept], "inchikey": [m.inchikey for m in kept]},
                         index=pairs.drugs)  # fmt: skip
    return DrugData(pairs, splits, kept, tables, wide["genes"][columns].astype(np.str_), lines, drugs)


def _molecules(listed: pd.DataFrame) -> list[Molecule]:
    """Return the molecules of a list of drugs, each name once; drugs without a SMILES are left out."""
    column = "isomeric_smiles" if "isomeric_smiles" in listed.columns else "smiles"
    name = "drug" if "drug" in listed.columns else "name"
    told = listed[listed[column] != ""].drop_duplicates(name)
    return read_molecules(told[name].tolist(), told[column].tolist())


def _deepcdr_split(frame: pd.DataFrame, pairs: Responses, kept: list[Molecule], molecules: list[Molecule]) -> PairSplit:
    """Return DeepCDR's own division of pairs; a pair whose repeats lie on both sides is out."""
    name_of = {molecule.inchikey: molecule.name for molecule in kept}
    ours = {molecule.name: name_of.get(molecule.inchikey, molecule.name) for molecule in molecules}
    roles: dict[tuple[str, str], set[str]] = {}
    for line, drug, role in zip(frame.line, frame.drug, frame.split, strict=True):
        roles.setdefault((str(line), ours[str(drug)]), set()).add(str(role))
    names = zip(pairs.lines[pairs.line].tolist(), pairs.drugs[pairs.drug].tolist(), strict=True)
    found = [roles[pair] for pair in names]
    return stored_split("random_pairs", [next(iter(role)) if len(role) == 1 else "out" for role in found])


def _between_screens(folder: Path) -> Iterator[Question]:
    """Yield GDSC1 -> GDSC2: lines and drugs that both hold, and the same with lines that GDSC1's table lacks."""
    first, second = read_other(folder, "gdsc1"), read_other(folder, "gdsc2")
    there = {key: place for place, key in enumerate(first.drugs.inchikey)}
    drug = np.array([there.get(key, -1) for key in second.drugs.inchikey])[second.pairs.drug]
    line = _places(first.pairs.lines, second.pairs.lines)[second.pairs.line]
    both = (drug >= 0) & (line >= 0)
    line, drug, truth = line[both], drug[both], second.pairs.value[both]
    whole = first.pairs.grid()
    named = digest(first.splits["unseen_lines"], first.pairs)
    asks = Question("gdsc1_to_gdsc2", "random_pairs", first, whole, line, drug, truth, named)
    yield asks
    split = first.splits["unseen_lines"]
    new = np.zeros(len(whole), bool)
    new[first.pairs.line[split.rows("test")]] = True
    rows = new[line]
    yield replace(
        asks, kind="unseen_lines", grid=np.where(new[:, None], np.nan, whole), line=line[rows], drug=drug[rows],
        truth=truth[rows],
    )  # fmt: skip


def _grid(pairs: Responses, rows: NDArray[np.int64]) -> Floats:
    grid = np.full((len(pairs.lines), len(pairs.drugs)), np.nan)
    grid[pairs.line[rows], pairs.drug[rows]] = pairs.value[rows]
    return grid
