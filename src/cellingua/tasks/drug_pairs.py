"""A user's tables of responses and molecules, made to fit the lines with expression and a model's drugs.

What does not fit is an error that names row and column: a line without expression, a drug without SMILES or unknown to
the model. With ``missing="drop"`` such rows are left out and counted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray

from cellingua.cells.reading import CellFile, open_cells
from cellingua.core.errors import InputError
from cellingua.models.drug_model import DrugModel
from cellingua.molecules.response import ResponseNotes, Responses, responses
from cellingua.molecules.smiles import Molecule, read_molecules, same_compounds
from cellingua.tasks.drug_answer import Source, known_drugs
from cellingua.tasks.drug_samples import SampleSet, of_rows, of_table
from cellingua.tasks.drug_tables import is_table, read_frame


@dataclass(frozen=True)
class ResponseOptions:
    """How a table of responses is read.

    Attributes
    ----------
    line, drug, value
        Its columns; without `value` the one whose name says IC50 and its unit.
    unit
        Of the values, where the column's name does not say it or says it wrongly.
    disagreeing
        What happens to repeats of a pair more than tenfold apart: ``refuse``, ``mean`` or ``drop``.
    missing
        What happens to rows whose line has no expression, or whose drug has no SMILES or is not known to the model:
        ``refuse`` or ``drop``.
    """

    line: str = "line"
    drug: str = "drug"
    value: str | None = None
    unit: str | None = None
    disagreeing: str = "refuse"
    missing: str = "refuse"


@dataclass(frozen=True)
class Paired:
    """Lines and responses that fit together.

    Attributes
    ----------
    lines
        With expression.
    responses
        Their pairs.
    notes
        What was done to the responses, and how many rows were left out for what.
    """

    lines: SampleSet
    responses: Responses
    notes: ResponseNotes
    dropped: Mapping[str, int]

    def told(self) -> list[str]:
        """Return what a user should know, a sentence each."""
        notes, said = self.notes, list(self.lines.notes)
        said.append(
            f"{notes.pairs:,} pairs of {len(self.responses.lines):,} lines and {len(self.responses.drugs):,} drugs, "
            f"read as {notes.unit}."
        )
        said += [f"{count:,} rows were left out: {why}." for why, count in self.dropped.items() if count]
        if notes.empty:
            said.append(f"{notes.empty:,} rows without a line, a drug or a value were left out.")
        if notes.repeated:
            said.append(f"{notes.repeated:,} pairs were measured more than once, and averaged.")
        if notes.disagreeing:
            said.append(f"{len(notes.disagreeing):,} of them disagree by more than tenfold.")
        if notes.renamed:
            said.append(f"{len(notes.renamed):,} names are of a compound that has another name in the table.")
        return said


def read_lines(source: Source, *, layer: str | None = None, genes_in_rows: bool = False) -> SampleSet:
    """Return the lines of a table, or the rows of a file of profiles."""
    if is_table(source):
        return of_table(source, genes_in_rows=genes_in_rows)
    if isinstance(source, CellFile):
        return of_rows(source, layer)
    with open_cells(source if isinstance(source, AnnData) else str(source)) as cells:
        return of_rows(cells, layer)


def read_smiles(source: str | Path | pd.DataFrame, *, salts: str = "keep") -> list[Molecule]:
    """Return the molecules of a table with the columns ``drug`` (or ``name``) and ``smiles``.

    Raises
    ------
    InputError
        A column is missing, a name is empty or stands twice for two molecules, a SMILES can't be read (its row, counted
        from 1 below the header, is named), or RDKit is not installed.
    """
    frame = source if isinstance(source, pd.DataFrame) else read_frame(Path(source))
    columns = {str(name).strip().lower(): name for name in frame.columns}
    drug = next((columns[name] for name in ("drug", "name", "compound") if name in columns), None)
    text = next((columns[name] for name in ("smiles", "canonical_smiles", "isomeric_smiles") if name in columns), None)
    if drug is None or text is None:
        raise InputError(
            f"The table of molecules has the columns {', '.join(map(repr, map(str, frame.columns[:8])))}.",
            "the columns 'drug' and 'smiles'",
        )
    names, smiles = _texts(frame[drug]), _texts(frame[text])
    blank = [row for row, name in enumerate(names, start=1) if not name]
    if blank:
        raise InputError(f"Row {blank[0]} of the table of molecules has no name in {drug!r}.", "a name for each drug")
    molecules = read_molecules(names, smiles, salts=salts)
    first: dict[str, tuple[int, Molecule]] = {}
    for row, molecule in enumerate(molecules, start=1):
        before = first.setdefault(molecule.name, (row, molecule))
        if before[1].inchikey != molecule.inchikey:
            raise InputError(
                f"Rows {before[0]} and {row} of the table of molecules give {molecule.name!r} two structures.",
                "one molecule a name",
            )
    return [molecule for _, molecule in first.values()]


def pair(
    lines: SampleSet,
    source: str | Path | pd.DataFrame,
    options: ResponseOptions,
    *,
    molecules: list[Molecule] | None = None,
    model: DrugModel | None = None,
) -> Paired:
    """Return lines and responses that fit together.

    Parameters
    ----------
    molecules
        Each drug has to be among them.
    model
        Each drug has to be known to it; drugs get the model's names.

    Raises
    ------
    InputError
        A row does not fit, unless ``options.missing`` is ``drop``; or as `molecules.response.responses`.
    """
    if options.missing not in ("refuse", "drop"):
        raise InputError(f"{options.missing!r} is nothing to do with rows that don't fit.", "refuse or drop")
    name = "The table of responses" if isinstance(source, pd.DataFrame) else str(source)
    frame = source if isinstance(source, pd.DataFrame) else read_frame(Path(source))
    for column in (options.line, options.drug):
        if column not in frame.columns:
            have = ", ".join(repr(str(one)) for one in frame.columns[:8])
            raise InputError(
                f"{name} has no column {column!r}, but {have}.",
                "one row a measurement: line, drug, IC50",
                "--line-column and --drug-column, or turning a table of lines x drugs into rows",
            )
    texts = {column: np.array(_texts(frame[column]), dtype=object) for column in (options.line, options.drug)}
    dropped: dict[str, int] = {}
    keep = np.ones(len(frame), dtype=bool)
    keep &= _fits(name, options.line, texts[options.line], set(lines.samples.names), "has no expression", options,
                  dropped)  # fmt: skip
    frame = frame.copy()
    if molecules is not None:
        known = {molecule.name for molecule in molecules}
        keep &= _fits(name, options.drug, texts[options.drug], known, "has no SMILES", options, dropped)
    if model is not None:
        spelled = _model_names(model, texts[options.drug])
        known = {text for text in texts[options.drug] if text in spelled}
        keep &= _fits(name, options.drug, texts[options.drug], known, f"is not known to {model.name}", options, dropped)
        frame[options.drug] = [spelled.get(text, text) for text in texts[options.drug]]
    # Emptied, not removed: messages about other rows keep their numbers.
    frame[options.drug] = frame[options.drug].astype(object).where(keep, None)
    found, notes = responses(
        frame, line=options.line, drug=options.drug, value=options.value,
        unit=options.unit, disagreeing=options.disagreeing,
        same=None if molecules is None else same_compounds(molecules),
    )  # fmt: skip
    return Paired(lines, found, replace(notes, empty=notes.empty - int((~keep).sum())), dropped)


def _fits(
    name: str, column: str, texts: NDArray[Any], known: set[str], what: str, options: ResponseOptions,
    dropped: dict[str, int],
) -> NDArray[np.bool_]:  # fmt: skip
    """Return which rows name something known (empty ones do, and are left out later); refuse or count the others."""
    good = np.array([not text or text in known for text in texts], dtype=bool)
    bad = np.flatnonzero(~good)
    if not len(bad):
        return good
    others = sorted({str(texts[row]) for row in bad})
    if options.missing == "refuse":
        more = f", and {len(others) - 1:,} others" if len(others) > 1 else ""
        raise InputError(
            f"{name}: row {bad[0] + 1}, column {column!r}: {str(texts[bad[0]])!r} {what}{more} ({len(bad):,} rows).",
            "lines and drugs named alike in all tables",
            "other names, or --missing drop to leave these rows out",
        )
    if not good.any():
        raise InputError(f"{name}: no row is left, as each {column} {what}.", "names alike in all tables")
    dropped[f"the {column} {what} ({', '.join(others[:3])}{', ...' if len(others) > 3 else ''})"] = len(bad)
    return good


def _model_names(model: DrugModel, texts: NDArray[Any]) -> dict[str, str]:
    """Return text -> the model's name of that drug, for those that it knows."""
    found = {}
    for text in sorted({str(text) for text in texts if text}):
        try:
            found[text] = known_drugs(model, [text])[0]
        except InputError:
            continue
    return found


def _texts(column: pd.Series) -> list[str]:
    """Return a column as stripped texts, empty where nothing stands."""
    return [str(entry).strip() if there else "" for entry, there in zip(column, column.notna(), strict=True)]
