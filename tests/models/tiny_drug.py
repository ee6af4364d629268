"""A small drug model, fitted on lines whose responses follow from a few programmes of genes."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from cellingua.cells.genes import load_vocabulary
from cellingua.models.drug_expression import Samples
from cellingua.models.drug_model import DrugModel
from cellingua.molecules.response import Responses
from cellingua.recipes.drug_mini import MiniConfig, fit

LINES, GENES, DRUGS = 90, 300, 7
CONFIG = MiniConfig(factors=12, waves=32, folds=4)


def symbols(number: int = GENES) -> np.ndarray:
    """Return symbols of protein-coding genes, each naming one gene."""
    vocabulary = load_vocabulary()
    coding = vocabulary.symbols[vocabulary.biotypes == "protein_coding"]
    return np.unique(coding)[:number]


def world(lines: int = LINES, seed: int = 0) -> tuple[Samples, np.ndarray]:
    """Return expression as intensities, and ln IC50 (lines, DRUGS) without noise; the programmes are always alike."""
    fixed = np.random.default_rng(7)
    programmes, level = fixed.normal(size=(5, GENES)), 2 * fixed.normal(size=GENES)
    effect, mean = fixed.normal(size=(5, DRUGS)), 2 * fixed.normal(size=DRUGS)
    rng = np.random.default_rng(seed)
    state = rng.normal(size=(lines, 5))
    values = np.exp(0.5 * state @ programmes + level + 0.2 * rng.normal(size=(lines, GENES)))
    return Samples([f"L{seed}.{n}" for n in range(lines)], symbols(), values), state @ effect + mean


def responses(samples: Samples, truth: np.ndarray, seed: int = 0) -> Responses:
    """Return nine tenths of the pairs, with noise."""
    rng = np.random.default_rng(seed)
    line, drug = np.nonzero(rng.random(truth.shape) < 0.9)
    names = np.array(samples.names)
    order = np.argsort(names)
    place = np.argsort(order)[line]
    rows = np.lexsort((drug, place))
    value = truth[line, drug] + 0.3 * rng.normal(size=len(line))
    drugs = np.array([f"drug{n}" for n in range(DRUGS)])
    return Responses(names[order], drugs, place[rows], drug[rows], value[rows])


@lru_cache(maxsize=1)
def model() -> DrugModel:
    """Return the fitted model."""
    samples, truth = world()
    return fit(samples, responses(samples, truth), config=CONFIG, name="tiny_drug")
