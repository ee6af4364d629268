"""Drugs for cell lines, tumours and clusters, ranked or as a table: ``cl.tl.drug_rank`` and ``cl.tl.drug_predict``."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from anndata import AnnData

from cellingua.core.errors import InputError
from cellingua.core.progress import Progress
from cellingua.models.drug_bundle import DEFAULT, load_drug_model
from cellingua.models.drug_model import DrugModel
from cellingua.tasks.drug_answer import DrugOptions, Source, answer
from cellingua.tasks.drug_result import DrugResult, checked_order
from cellingua.tasks.writing import storable

if TYPE_CHECKING:
    from cellingua.molecules.smiles import Molecule

KEY = "cellingua_drugs"
#: The tumour that ships with the package, and the column that says which of its cells belong together.
SAMPLE, SAMPLE_KEY = "kim_luad_tumour.h5ad", "cell_type"


def sample_path() -> Path:
    """Return the path of the tumour sample that ships with the package."""
    return Path(str(files("cellingua") / "data" / "demo" / SAMPLE))


def drug_rank(
    cells: Source,
    cluster_key: str | None = None,
    drugs: Sequence[str] | None = None,
    *,
    model: str | Path | DrugModel = DEFAULT,
    by: str = "percentile",
    whole: bool = False,
    bulk: bool = False,
    genes_in_rows: bool = False,
    molecules: Sequence[Molecule] = (),
    level: float = 0.9,
    per_cell: bool = False,
    layer: str | None = None,
    key_added: str = KEY,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> DrugResult:
    """Rank drugs for each cluster of a file of cells, or for each line of a table. For research, not for treatment.

    Parameters
    ----------
    cells
        An AnnData or a file of cells (see `cluster_key`, `whole`, `bulk`), or a table of expression, lines x genes: a
        data frame, or a path to text or parquet. Of an AnnData, ``uns[key_added]`` says what was asked; ``X`` is left
        as it is.
    cluster_key
        Column of ``obs``: each of its labels is a pseudo-bulk, the sum of its cells' counts.
    drugs
        Names; by default all that the model knows.
    model
        Name or folder of a drug model, or a loaded one.
    by
        ``percentile`` (default): which share of the training lines is predicted to be more sensitive to that drug;
        ``difference``: predicted ln IC50 less the drug's mean; ``ic50``, which puts drugs first that kill everything.
    whole, bulk
        All cells are one sample; each row of the file is a line or tumour.
    genes_in_rows
        A table has genes in its rows.
    molecules
        New drugs, from `cellingua.molecules.smiles.read_molecules` (needs RDKit).
    level
        Of the ranges, such as 0.9.
    per_cell
        Also predict each cell, into ``obsm[key_added]`` of an AnnData (cells x drugs, ln IC50).
    layer
        Layer that holds the counts; by default they are looked for.
    key_added
        Key that is written into an AnnData.
    overwrite
        Replace that key if it is there.
    progress
        Where to report.

    Returns
    -------
    DrugResult
        ``to_frame()`` is the table: a row a sample and drug, with ln IC50 and IC50 in µM, range, percentile, what the
        drug's mean says, distance from the training lines and warnings.

    Raises
    ------
    InputError
        The input can't be used, a drug or order is not known, or single cells come without saying which belong
        together.
    """
    options = DrugOptions(
        cluster_key, whole, bulk, genes_in_rows, layer, None if drugs is None else tuple(drugs), tuple(molecules),
        checked_order(by), level, per_cell,
    )  # fmt: skip
    if isinstance(cells, AnnData) and not overwrite:
        taken = [name for name, held in (("uns", cells.uns), ("obsm", cells.obsm)) if key_added in held]
        if taken:
            raise InputError(f"{taken[0]}[{key_added!r}] exists already.", "a key that is free", "overwrite=True")
    loaded = model if isinstance(model, DrugModel) else load_drug_model(model)
    result = answer(cells, loaded, options, progress=progress)
    if isinstance(cells, AnnData):
        cells.uns[key_added] = storable({**result.provenance, "drugs": result.drugs})
        if result.cells is not None:
            cells.obsm[key_added] = result.cells.ln_ic50
    return result


def drug_predict(
    cells: Source,
    drugs: Sequence[str] | None = None,
    *,
    model: str | Path | DrugModel = DEFAULT,
    cluster_key: str | None = None,
    whole: bool = False,
    bulk: bool = False,
    genes_in_rows: bool = False,
    molecules: Sequence[Molecule] = (),
    level: float = 0.9,
    layer: str | None = None,
    progress: Progress | None = None,
) -> pd.DataFrame:
    """Predict responses of samples to drugs, as a table; nothing is written into what was given.

    Parameters
    ----------
    cells, cluster_key, whole, bulk, genes_in_rows, layer
        As `drug_rank` takes them.
    drugs, molecules, model, level, progress
        As `drug_rank` takes them.

    Returns
    -------
    DataFrame
        A row a sample and drug, in the order of both; columns as those of `DrugResult.to_frame`.

    Raises
    ------
    InputError
        As `drug_rank`.
    """
    options = DrugOptions(
        cluster_key, whole, bulk, genes_in_rows, layer, None if drugs is None else tuple(drugs), tuple(molecules),
        level=level,
    )  # fmt: skip
    loaded = model if isinstance(model, DrugModel) else load_drug_model(model)
    return in_given_order(answer(cells, loaded, options, progress=progress))


def in_given_order(result: DrugResult) -> pd.DataFrame:
    """Return the table of a result in the order of its samples and drugs, without ranks."""
    frame = result.to_frame().drop(columns="rank")
    place = {name: number for number, name in enumerate(result.drugs)}
    drug = frame["drug"].map(place).to_numpy()
    sample = np.repeat(np.arange(len(result.samples)), len(result.drugs))
    return frame.iloc[np.lexsort((drug, sample))].reset_index(drop=True)
