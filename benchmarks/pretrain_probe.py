"""Linear probes of cell embeddings: tasks, folds, and the baselines that stand beside a model.

A probe is scikit-learn's logistic regression on standardised features, with its own defaults: nothing is tuned. Folds
leave out whole donors where a study has donors, and whole studies elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, vstack
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from cellingua.cells.counts import CountBlocks
from cellingua.cells.doctor import examine
from cellingua.cells.reading import open_cells
from cellingua.measures import classification, splits
from cellingua.words.ontology import load_ontology

TERM = "cell_type_ontology_term_id"
COMPONENTS = 64  # as wide as the model
FOLDS = 5
#: Wide types that studies share: a cell belongs to the first whose term, or a kind of it, it is.
WIDE = {
    "T cell": ("CL:0000084",),
    "B lineage": ("CL:0000945",),
    "NK cell": ("CL:0000623",),
    "myeloid": ("CL:0000763", "CL:0000235", "CL:0000451", "CL:0000576"),
    "endothelial": ("CL:0000115",),
    "stromal": ("CL:0000499", "CL:0000057", "CL:0000669"),
    "epithelial": ("CL:0000066",),
}
Fold = tuple[NDArray[np.bool_], NDArray[np.bool_]]


@dataclass(frozen=True)
class Study:
    """The cells of a file over the vocabulary's genes.

    Attributes
    ----------
    name
        File stem.
    counts, totals
        CSR float32 (cells, vocabulary); float64 (cells,).
    obs
        The file's own table.
    """

    name: str
    counts: csr_matrix
    totals: NDArray[np.float64]
    obs: pd.DataFrame

    def __len__(self) -> int:
        return len(self.totals)


@dataclass(frozen=True)
class Task:
    """What is told from what, and how it is divided.

    Attributes
    ----------
    name
        Of the task.
    rows
        int64 (n,): rows of the studies together.
    truth
        str (n,).
    folds
        (train, test) as bool (n,) each.
    """

    name: str
    rows: NDArray[np.int64]
    truth: NDArray[np.str_]
    folds: list[Fold]


def read_study(path: Path) -> Study:
    """Read a file through the same door as a user's."""
    with open_cells(path) as cells:
        blocks = list(CountBlocks(cells, examine(cells)).blocks())
        counts = csr_matrix(vstack([block.counts for block in blocks]))
        return Study(path.stem, counts, np.concatenate([block.totals for block in blocks]), cells.obs.astype(str))


def group_folds(groups: NDArray[np.str_], n: int, seed: int = 0) -> list[Fold]:
    """Return `n` folds that leave out whole groups (n = number of groups: one group each)."""
    found = splits.group_folds(groups, min(n, len(np.unique(groups))), seed)
    masks = ((np.isin(np.arange(len(groups)), side) for side in split) for split in found)
    return [(train, test) for train, test in masks]


def wide_types(terms: Iterable[str]) -> NDArray[np.str_]:
    """Return the wide type of each Cell Ontology id, "" where it has none."""
    ontology = load_ontology("CL")
    told = {}
    for term in set(terms):
        above = ontology.ancestors(term) | {term} if term in ontology else frozenset()
        told[term] = next((name for name, roots in WIDE.items() if above & set(roots)), "")
    return np.array([told[term] for term in terms])


def tasks_of(studies: Mapping[str, Study]) -> list[Task]:
    """Return the tasks that the studies at hand allow; rows count through the studies in their order."""
    starts = dict(zip(studies, np.cumsum([0, *(len(study) for study in studies.values())]), strict=False))

    def within(study: str, truth: NDArray[np.str_], folds: list[Fold], name: str) -> Task:
        known = ~np.isin(truth, ["", "unknown", "nan"])
        kept = [(train[known], test[known]) for train, test in folds]
        return Task(name, starts[study] + np.flatnonzero(known), truth[known], kept)

    def column(study: str, name: str) -> NDArray[np.str_]:
        return studies[study].obs[name].to_numpy(dtype=np.str_)

    onek1k, oligo, skin, wu = "onek1k_panel1000", "oligodendroglioma", "skin_ctcl_normal", "wu_breast_cid4465"
    cells = np.arange(len(studies[wu])).astype(np.str_)
    tumours = group_folds(column(oligo, "donor_id"), 99)
    found = [
        within(
            onek1k, column(onek1k, TERM), group_folds(column(onek1k, "donor_id"), FOLDS), "onek1k types, donors out"
        ),
        within(oligo, column(oligo, "cell_type"), tumours, "oligodendroglioma types, donors out"),
        within(oligo, column(oligo, "is_malignant"), tumours, "oligodendroglioma malignant, donors out"),
        within(skin, column(skin, "disease"), _pairs_out(studies[skin]), "skin lymphoma donor, donors out"),
        within(wu, column(wu, "is_malignant"), group_folds(cells, FOLDS), "breast malignant, one donor"),
    ]
    for study in (onek1k, "pbmc_3p_5p_panel1767", wu):
        found.append(_study_out(studies, starts, study))
    return found


def _pairs_out(study: Study) -> list[Fold]:
    """Return a fold for each pair of a normal and a lymphoma donor, both left out."""
    donors, disease = (study.obs[name].to_numpy(dtype=np.str_) for name in ("donor_id", "disease"))
    normal, ill = np.unique(donors[disease == "normal"]), np.unique(donors[disease != "normal"])
    return [(~np.isin(donors, pair), np.isin(donors, pair)) for pair in product(normal, ill)]


def _study_out(studies: Mapping[str, Study], starts: Mapping[str, int], left_out: str) -> Task:
    """Return the task of naming wide types in a study, learned from the others with curated labels."""
    rows, truth, inside = [], [], []
    for name, study in studies.items():
        if TERM not in study.obs or name == "oligodendroglioma":
            continue
        types = wide_types(study.obs[TERM])
        known = np.flatnonzero(types != "")
        rows.append(starts[name] + known)
        truth.append(types[known])
        inside.append(np.full(len(known), name == left_out))
    types, test = np.concatenate(truth), np.concatenate(inside)
    shared = np.isin(types, types[~test])  # a type that only the left-out study has can't be learned
    return Task(
        f"{left_out} wide types, study out",
        np.concatenate(rows)[shared],
        types[shared],
        [(~test[shared], test[shared])],
    )


def score(truth: NDArray[np.str_], guess: NDArray[np.str_]) -> dict[str, float]:
    """Return accuracy, balanced accuracy, and macro F1 over the classes that occur in the truth."""
    return {
        "accuracy": classification.accuracy(truth, guess),
        "balanced_accuracy": classification.balanced_accuracy(truth, guess),
        "macro_f1": classification.macro_f1(truth, guess),
    }


def probe(task: Task, features_of: Callable[[NDArray[np.int64], NDArray[np.int64]], tuple]) -> dict[str, float]:
    """Return the scores of a task over all its test cells together.

    Parameters
    ----------
    features_of
        (training rows, test rows) -> their features; what it fits, it fits on the training rows.
    """
    truths, guesses = [], []
    for train, test in task.folds:
        if len(np.unique(task.truth[train])) < 2 or not test.any():
            continue
        x, y = features_of(task.rows[train], task.rows[test])
        model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=3000)).fit(x, task.truth[train])
        truths.append(task.truth[test])
        guesses.append(model.predict(y))
    return score(np.concatenate(truths), np.concatenate(guesses))


def majority(task: Task) -> dict[str, float]:
    """Return the scores of always answering the commonest class of the training cells."""
    truths, guesses = [], []
    for train, test in task.folds:
        names, counts = np.unique(task.truth[train], return_counts=True)
        truths.append(task.truth[test])
        guesses.append(np.full(int(test.sum()), names[counts.argmax()]))
    return score(np.concatenate(truths), np.concatenate(guesses))


def pca_on_training(values: csr_matrix) -> Callable[[NDArray[np.int64], NDArray[np.int64]], tuple]:
    """Return features of a PCA that is fitted on the training cells of each fold, on the genes that they express."""

    def features(train: NDArray[np.int64], test: NDArray[np.int64]) -> tuple:
        genes = np.flatnonzero(values[train].getnnz(axis=0) >= 3)
        fitted = PCA(min(COMPONENTS, len(train) - 1, len(genes)), svd_solver="randomized", random_state=0)
        x = fitted.fit_transform(values[train][:, genes].toarray())
        return x, fitted.transform(values[test][:, genes].toarray())

    return features


def fixed(vectors: NDArray[np.floating]) -> Callable[[NDArray[np.int64], NDArray[np.int64]], tuple]:
    """Return features that are there already: rows of an embedding."""
    return lambda train, test: (vectors[train], vectors[test])
