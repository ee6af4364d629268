"""Read what was given, ask the model, and put together what it says of lines, clusters and cells."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import pandas as pd
from anndata import AnnData

from cellingua.cells.diagnosis import Diagnosis
from cellingua.cells.doctor import examine
from cellingua.cells.reading import CellFile, open_cells
from cellingua.core.errors import InputError
from cellingua.core.progress import Progress, Silent
from cellingua.core.runtime import versions
from cellingua.models.drug_model import DrugAnswer, DrugModel
from cellingua.tasks.drug_result import CellSpread, DrugResult
from cellingua.tasks.drug_samples import SampleSet, cell_blocks, of_clusters, of_rows, of_table, refuse_without_labels
from cellingua.tasks.drug_tables import is_table

if TYPE_CHECKING:
    from cellingua.molecules.smiles import Molecule

FAR = 95.0  # percentile of distance beyond which a single cell counts as far from the lines
TABLES = ("value", "sd", "low", "high", "percentile")

Source: TypeAlias = AnnData | CellFile | pd.DataFrame | str | Path


@dataclass(frozen=True)
class DrugOptions:
    """What a run can vary.

    Attributes
    ----------
    cluster_key
        Column of ``obs`` whose labels make the clusters.
    whole
        All cells of the file are one sample.
    bulk
        Each row of the file is a line or a tumour, in any unit that keeps the order of genes.
    genes_in_rows
        A table has one row a gene.
    layer
        Layer that holds the counts.
    drugs
        Names; None for all that the model knows.
    molecules
        Drugs that are new to the model, asked about besides.
    by
        The order, see `tasks.drug_result.ORDERS`.
    level
        Of the ranges.
    per_cell
        Also predict each cell.
    """

    cluster_key: str | None = None
    whole: bool = False
    bulk: bool = False
    genes_in_rows: bool = False
    layer: str | None = None
    drugs: tuple[str, ...] | None = None
    molecules: tuple[Molecule, ...] = ()
    by: str = "percentile"
    level: float = 0.9
    per_cell: bool = False


def answer(
    source: Source, model: DrugModel, options: DrugOptions, *, diagnosis: Diagnosis | None = None,
    progress: Progress | None = None,
) -> DrugResult:  # fmt: skip
    """Read samples, predict and order; a file of cells that is open already is read as it is.

    Raises
    ------
    InputError
        As `drug_rank`.
    """
    progress = progress or Silent()
    refuse_mixed(options)
    names = None if options.drugs is None else known_drugs(model, options.drugs)
    if is_table(source):
        if options.cluster_key or options.whole or options.per_cell:
            raise InputError("A table of lines has no clusters and no cells.", "a file of cells, or none of these")
        return predict_set(of_table(source, genes_in_rows=options.genes_in_rows), model, names, options, progress)
    if isinstance(source, CellFile):
        return _of_cells(source, model, names, options, diagnosis, progress)
    with open_cells(source) as cells:  # type: ignore[arg-type]
        return _of_cells(cells, model, names, options, diagnosis, progress)


def refuse_mixed(options: DrugOptions) -> None:
    """Raise `InputError` where the options say two things about which rows belong together."""
    if sum((options.cluster_key is not None, options.whole, options.bulk)) > 1:
        raise InputError(
            "Clusters, the whole file and bulk rows were asked for together.", "one of cluster key, whole and bulk"
        )
    if options.bulk and options.per_cell:
        raise InputError("Bulk rows have no cells.", "bulk or per cell")


def known_drugs(model: DrugModel, drugs: Sequence[str]) -> list[str]:
    """Return the model's names of drugs, whatever case and signs they are written in; refuse others.

    Raises
    ------
    InputError
        A drug is not known to the model; the nearest names are told.
    """
    spelled: dict[str, str] = {}
    for one in model.drugs:
        spelled.setdefault(_spelled(one.name), one.name)
    exact = {one.name for one in model.drugs}
    found = []
    for drug in drugs:
        found_name = drug if drug in exact else spelled.get(_spelled(drug))
        if found_name is None:
            near = difflib.get_close_matches(_spelled(drug), list(spelled), n=4, cutoff=0.5)
            raise InputError(
                f"The drug {drug!r} is not known to {model.name}.",
                f"one of its {len(model.drugs)} drugs (cellingua drug rank --list)",
                f"{', '.join(spelled[name] for name in near)}{', or ' if near else ''}its SMILES with --smiles",
            )
        if found_name not in found:
            found.append(found_name)
    return found


def predict_set(
    samples: SampleSet, model: DrugModel, drugs: list[str] | None, options: DrugOptions, progress: Progress
) -> DrugResult:
    """Return what the model says of samples.

    All known drugs are predicted whatever was asked for, because `DrugResult.general` is a median over all of them.
    """
    progress.step("Predicting drug responses")
    everything = model.predict(samples.samples, None, level=options.level)
    general = np.median(everything.percentile, axis=1)
    told = everything if drugs is None else _columns(everything, drugs)
    if options.molecules:
        new = model.predict_molecules(samples.samples, list(options.molecules), level=options.level)
        told = _joined(told, new)
    provenance = {
        "model": model.name,
        "hash": model.hash,
        "parameters": {
            "kind": samples.kind, "cluster_key": samples.key or None, "by": options.by, "level": options.level,
            "layer": options.layer, "drugs": None if drugs is None else list(drugs),
            "new_drugs": {molecule.name: molecule.smiles for molecule in options.molecules},
        },
        "lines": model.facts.get("lines"),
        "versions": versions(),
    }  # fmt: skip
    return DrugResult(samples, told, general, options.by, options.level, provenance)


def _of_cells(
    cells: CellFile, model: DrugModel, drugs: list[str] | None, options: DrugOptions, diagnosis: Diagnosis | None,
    progress: Progress,
) -> DrugResult:  # fmt: skip
    if options.bulk:
        return predict_set(of_rows(cells, options.layer), model, drugs, options, progress)
    if options.cluster_key is None and not options.whole:
        refuse_without_labels(cells, "--cluster-key")
    diagnosis = diagnosis or examine(cells, layer=options.layer)
    found = of_clusters(cells, diagnosis, options.cluster_key, progress)
    result = predict_set(found, model, drugs, options, progress)
    if options.per_cell:
        result = replace(result, cells=each_cell(cells, diagnosis, model, result, progress))
    return result


def each_cell(
    cells: CellFile, diagnosis: Diagnosis, model: DrugModel, result: DrugResult, progress: Progress
) -> CellSpread:
    """Return predictions for each cell of an opened file; new molecules are left NaN.

    A cell without enough of the model's genes in its file is refused with its cluster before; a cell without a single
    count is NaN.
    """
    known = {drug.name for drug in model.drugs}
    columns = [place for place, drug in enumerate(result.drugs) if drug in known]
    asked = [result.drugs[place] for place in columns]
    values = np.full((cells.n_cells, len(result.drugs)), np.nan, dtype=np.float32)
    distance = np.full(cells.n_cells, np.nan)
    progress.step("Predicting each cell", cells.n_cells)
    for start, stop, samples in cell_blocks(cells, diagnosis):
        counted: np.ndarray = np.nansum(samples.values, axis=1)
        lit = np.flatnonzero(counted > 0)
        if len(lit) and asked:
            said = model.predict(samples.take(lit), asked, level=result.level)
            values[np.ix_(start + lit, np.array(columns))] = said.value
            distance[start + lit] = said.distance
        progress.advance(stop - start)
    shape = (len(result.samples), len(result.drugs))
    low, median, high = (np.full(shape, np.nan) for _ in range(3))
    far = np.full(shape[0], np.nan)
    assert result.set.group is not None
    for sample in range(shape[0]):
        mine = (result.set.group == sample) & np.isfinite(distance)
        if mine.any() and asked:
            part = values[mine][:, columns].astype(np.float64)
            low[sample, columns], median[sample, columns], high[sample, columns] = np.quantile(
                part, (0.1, 0.5, 0.9), axis=0
            )
            far[sample] = float((distance[mine] > FAR).mean())
    return CellSpread(values, low, median, high, far)


def _columns(answer: DrugAnswer, drugs: list[str]) -> DrugAnswer:
    """Return some drugs of an answer, in the order given."""
    place = {name: number for number, name in enumerate(answer.drugs)}
    at = [place[drug] for drug in drugs]
    tables = {name: getattr(answer, name)[:, at] for name in TABLES}
    return _replaced(answer, drugs, tables, answer.drug_mean[at])


def _joined(left: DrugAnswer, right: DrugAnswer) -> DrugAnswer:
    """Return known drugs with new ones behind them, whose mean and percentile nobody has measured."""
    tables = {name: np.concatenate([getattr(left, name), getattr(right, name)], axis=1) for name in TABLES}
    tables["percentile"][:, len(left.drugs) :] = np.nan
    mean = np.concatenate([left.drug_mean, np.full(len(right.drugs), np.nan)])
    return _replaced(left, [*left.drugs, *right.drugs], tables, mean)


def _replaced(answer: DrugAnswer, drugs: list[str], tables: dict[str, np.ndarray], mean: np.ndarray) -> DrugAnswer:
    return replace(answer, drugs=drugs, drug_mean=mean, **tables)  # type: ignore[arg-type]


def _spelled(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())
