"""A small world of drug responses: lines with hidden factors, drugs that follow them, and a real model fitted to both.

Expression follows four factors; each drug follows one of them, so that a model can find it. Cells are drawn from lines.
"""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import pandas as pd
import small_world
from anndata import AnnData
from scipy.sparse import csr_matrix

from cellingua.cells.genes import load_vocabulary
from cellingua.models.drug_bundle import save_drug_model
from cellingua.models.drug_expression import Samples
from cellingua.models.drug_model import DrugModel
from cellingua.molecules.response import Responses, responses
from cellingua.recipes.drug_mini import MiniConfig, fit

LINES, FACTORS = 64, 4
DRUGS = [
    "Erlotinib", "Gefitinib", "Trametinib", "Dabrafenib", "Cisplatin", "Bortezomib", "AZD-8931", "Torin 2", "PLX4720",
    "Docetaxel",
]  # fmt: skip
#: Made up but for the first two: what they are is of no account here.
SMILES = [
    "COCCOc1cc2ncnc(Nc3cccc(C#C)c3)c2cc1OCCOC", "COc1cc2ncnc(Nc3ccc(F)c(Cl)c3)c2cc1OCCCN1CCOCC1", "c1ccccc1CCO",
    "CCOC(=O)c1ccccc1", "CC(N)C(=O)O", "c1ccc2[nH]ccc2c1", "CCN(CC)CCO", "O=C1CCCCC1", "Clc1ccc(Br)cc1", "CC(=O)OCC",
]  # fmt: skip


@functools.cache
def world() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return factors (L, 4), expression as logarithms (L, G), truth ln IC50 (L, D), and the rows of the genes."""
    rng = np.random.default_rng(5)
    rows = small_world.rows_of_genes()[:400]
    factors = rng.normal(size=(LINES, FACTORS))
    loadings = rng.normal(size=(FACTORS, len(rows))) * (rng.random((FACTORS, len(rows))) < 0.5)
    level = rng.uniform(0, 8, len(rows))
    expression = level + 1.2 * factors @ loadings + rng.normal(0, 0.3, (LINES, len(rows)))
    mean = rng.uniform(-6, 5, len(DRUGS))
    weights = 1.5 * np.eye(FACTORS)[np.arange(len(DRUGS)) % FACTORS] + 0.3 * rng.normal(size=(len(DRUGS), FACTORS))
    truth = mean + factors @ weights.T + rng.normal(0, 0.4, (LINES, len(DRUGS)))
    return factors, expression, truth, rows


def names() -> list[str]:
    """Return the names of the lines."""
    return [f"LINE-{number:02d}" for number in range(LINES)]


def expression(rows: slice = slice(None)) -> pd.DataFrame:
    """Return a table lines x symbols, names of the lines in its first column."""
    _, values, _, genes = world()
    frame = pd.DataFrame(np.round(values, 4), columns=load_vocabulary().symbols[genes])
    frame.insert(0, "line", names())
    return frame.iloc[rows]


def measured(rows: slice = slice(None)) -> pd.DataFrame:
    """Return a table of responses: line, drug, ln_ic50."""
    _, _, truth, _ = world()
    wide = pd.DataFrame(truth, index=names(), columns=DRUGS).iloc[rows]
    long = wide.stack().rename("ln_ic50").rename_axis(["line", "drug"]).reset_index()
    return long.round(4)


def samples(rows: slice = slice(None)) -> Samples:
    """Return the expression as samples."""
    _, values, _, genes = world()
    return Samples(names()[rows], load_vocabulary().symbols[genes], values[rows])


def pairs(rows: slice = slice(None)) -> Responses:
    """Return the responses as pairs."""
    return responses(measured(rows))[0]


@functools.cache
def model() -> DrugModel:
    """Return a model fitted to the first 48 lines."""
    small = MiniConfig(factors=8, waves=16, folds=3)
    return fit(samples(slice(0, 48)), pairs(slice(0, 48)), name="small drugs", config=small)


@functools.cache
def model_with_molecules() -> DrugModel:
    """Return one that learned from molecules, too; needs RDKit."""
    from cellingua.molecules.smiles import read_molecules

    small = MiniConfig(factors=8, waves=16, folds=3)
    rows = slice(0, 48)
    return fit(samples(rows), pairs(rows), read_molecules(DRUGS, SMILES), name="small drugs", config=small)


def folder(path: Path) -> Path:
    """Save that model and return its folder."""
    save_drug_model(path, model())
    return path


def cells(n: int = 90, seed: int = 0) -> AnnData:
    """Return `n` cells of three clusters drawn from three lines: column ``cluster`` (one cell has none)."""
    _, values, _, genes = world()
    rng = np.random.default_rng(seed)
    kind = np.arange(n) % 3
    mean = np.exp(values[[50, 55, 60]])
    mean = 6_000 * mean / mean.sum(axis=1, keepdims=True)
    counts = rng.poisson(mean[kind]).astype(np.float32)
    obs = pd.DataFrame({"cluster": np.array(["a", "b", "c"], dtype=object)[kind]}, index=[f"c{i}" for i in range(n)])
    obs.loc["c0", "cluster"] = None
    vocabulary = load_vocabulary()
    var = pd.DataFrame({"gene_ids": vocabulary.ensembl_ids[genes]}, index=vocabulary.symbols[genes])
    return AnnData(csr_matrix(counts), obs, var)
