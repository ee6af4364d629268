"""Naming cells after some were labelled: a model of ours, tuned, and plain classifiers on the same labelled cells.

Every method learns from the same cells and names the same others, with its defaults; nothing is chosen here.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from cellingua.baselines.celltypist_method import CellTypistMethod
from cellingua.baselines.form import Baseline, Labels, coded, softmax
from cellingua.baselines.logistic import LogisticRegression
from cellingua.baselines.majority import Majority
from cellingua.baselines.marker_score import MarkerScore
from cellingua.baselines.neighbours import Neighbours
from cellingua.baselines.softmax_regression import Fitted, fit_softmax
from cellingua.bench import scanvi
from cellingua.bench.candidates import Question, ask
from cellingua.bench.suites import BenchSet
from cellingua.bench.zeroshot import Method, References, model_probabilities, on_columns, profile_method, untrained
from cellingua.core.errors import InputError
from cellingua.measures.splits import Split, by_share, class_folds, few_per_class, groups_by_share
from cellingua.models.inputs import Rows
from cellingua.models.model import LangCellModel
from cellingua.models.shelf import Model
from cellingua.recipes.finetune import tune
from cellingua.recipes.finetune_config import FinetuneConfig, LabelledCells

COMPONENTS, NEIGHBOURS, FOLDS, SHARE = 50, 5, 5, 0.8
Floats = NDArray[Any]
FIRST_SEED = 2024  # LangCell's
MOST = 0.5  # of a rare type at most half is learned from, so that it can be judged
LEARNED = (
    Method("model", "model, tuned (classifier)", ours=True),
    Method("zero_shot", "model, without labels", ours=True),
    Method("logistic", "logistic regression"),
    Method("neighbours", "k-NN"),
    Method("components", "PCA + linear"),
    Method("celltypist", "CellTypist's method"),
    Method("scanvi", "scANVI"),
    Method("untrained", "untrained tower + linear"),
    Method("markers", "marker scoring (cellconsensus)"),
    Method("profiles", "profile correlation (as SingleR)"),
    Method("majority", "majority"),
)


def divide(cells: BenchSet, protocol: str, draw: int) -> list[Split]:
    """Return what is learned from and judged in one draw: one split, or the folds whose answers are pooled.

    Parameters
    ----------
    protocol
        ``few:N``: N cells of each type. ``share``: 80/20, each type divided in that proportion. ``donors``: 80/20 by
        whole donors. ``folds``: 5 stratified folds.
    draw
        0, 1, 2...: the seed is `FIRST_SEED` more.

    Raises
    ------
    InputError
        There is no such protocol, or no donor that can be held out.
    """
    seed = FIRST_SEED + draw
    if protocol.startswith("few:"):
        return [few_per_class(cells.labels, int(protocol[4:]), seed, most=MOST)]
    if protocol == "share":
        return [by_share(cells.labels, SHARE, seed)]
    if protocol == "folds":
        return class_folds(cells.labels, FOLDS, seed)
    if protocol != "donors":
        raise InputError(f"There is no protocol {protocol!r}.", "few:N, share, donors or folds")
    if not cells.donors:
        raise InputError(f"{cells.name} has no two donors.", "donors", "--donor-key")
    return [groups_by_share(cells.groups, SHARE, seed)]


class LinearOnTower:
    """Logistic regression on what a tower that nobody trained makes of cells: what its architecture is worth.

    Parameters
    ----------
    model
        The model whose architecture it is.
    seed
        Of the random weights.
    """

    def __init__(self, model: LangCellModel, seed: int = 0) -> None:
        self._model = untrained(model, seed)
        self.classes: NDArray[np.str_] = np.zeros(0, np.str_)
        self._mean: Floats = np.zeros(0)
        self._scale = 1.0
        self._fitted: Fitted | None = None

    def _states(self, counts: csr_matrix, totals: Floats | None) -> Floats:
        total = np.asarray(counts.sum(axis=1)).ravel() if totals is None else totals
        block = Rows(counts, np.asarray(total, np.float64))
        with torch.inference_mode():
            return self._model.encode_cells(self._model.tokenise(block), state="cls").astype(np.float64)

    def fit(self, counts: csr_matrix, labels: Labels, totals: Floats | None = None) -> LinearOnTower:
        """Fit the classifier; states are centred and brought to a mean square of 1 over all of them."""
        self.classes, codes = coded(labels, counts.shape[0])
        states = self._states(counts, totals)
        self._mean = states.mean(axis=0)
        self._scale = float(np.sqrt(((states - self._mean) ** 2).mean())) or 1.0
        self._fitted = fit_softmax((states - self._mean) / self._scale, codes, len(self.classes), bias_penalty=0.0)
        return self

    def predict_proba(self, counts: csr_matrix, totals: Floats | None = None) -> Floats:
        """Return the probabilities, float64 (n, K)."""
        if self._fitted is None:
            raise InputError("This classifier has not learned anything yet.", "fit before predict_proba")
        return softmax(self._fitted.logits((self._states(counts, totals) - self._mean) / self._scale))


class Contest:
    """A set and the methods that are compared on it; what no split changes is worked out once.

    Parameters
    ----------
    cells
        The set.
    model
        None leaves out what needs one; a model without words can be tuned and can't answer without labels.
    known
        Markers and profiles.
    """

    def __init__(self, cells: BenchSet, model: Model | None, known: References) -> None:
        self.cells, self.model, self.known = cells, model, known
        self.question: Question = ask(cells, "labels")
        self.missing = dict(known.missing)
        if reason := scanvi.missing():
            self.missing["scanvi"] = reason
        if not isinstance(model, LangCellModel):
            told = "no model was asked for" if model is None else f"{model.name} knows no words"
            self.missing |= {"zero_shot": told, "untrained": told}
        if model is None:
            self.missing["model"] = "no model was asked for"
        self._fixed: dict[str, Floats] = {}

    @property
    def names(self) -> NDArray[np.str_]:
        """The labels, str (K,): the columns of every answer."""
        return self.question.names

    def answer(self, method: str, splits: list[Split], seed: int) -> tuple[NDArray[np.int64], Floats]:
        """Return rows that were judged and the probabilities of each label there, (n, K), pooled over the splits.

        Raises
        ------
        InputError
            The method can't be used on these cells.
        """
        parts = [(split.test, self._one(method, split, seed)) for split in splits]
        rows = np.concatenate([part[0] for part in parts])
        order = np.argsort(rows, kind="stable")
        return rows[order], np.concatenate([part[1] for part in parts])[order]

    def _one(self, method: str, split: Split, seed: int) -> Floats:
        if method in ("zero_shot", "markers", "profiles"):
            return self._without_labels(method)[split.test]
        train, test = self.cells.take(split.train), self.cells.take(split.test)
        if method == "model":
            return on_columns(*_tuned(self.model, train, test, seed), self.names)
        if method == "scanvi":
            return on_columns(*scanvi.answers(train, test, seed), self.names)
        fitted = self._baseline(method, seed).fit(train.counts, train.labels, train.totals)
        return on_columns(fitted.predict_proba(test.counts, test.totals), fitted.classes, self.names)

    def _without_labels(self, method: str) -> Floats:
        """Return the answers of a method that learns from no cell, for all cells of the set."""
        if method not in self._fixed:
            cells, question = self.cells, self.question
            if method == "zero_shot":
                assert isinstance(self.model, LangCellModel)  # otherwise it is among the missing
                found = model_probabilities(self.model, cells, question.candidates)
            elif method == "markers":
                assert self.known.markers is not None
                scored = MarkerScore(self.known.markers, question.names.tolist(), question.candidates.term_ids)
                found = scored.predict_proba(cells.counts, cells.totals)
            else:
                assert self.known.profiles is not None
                alike = profile_method(cells, question, self.known.profiles)
                found = on_columns(alike.predict_proba(cells.counts), alike.classes, question.names)
            self._fixed[method] = found
        return self._fixed[method]

    def _baseline(self, method: str, seed: int) -> Baseline:
        made: dict[str, Callable[[], Any]] = {
            "majority": Majority,
            "logistic": LogisticRegression,
            "neighbours": partial(Neighbours, NEIGHBOURS, "cosine", COMPONENTS),
            "components": partial(LogisticRegression, components=COMPONENTS),
            "celltypist": CellTypistMethod,
            "untrained": lambda: LinearOnTower(self.model, seed),  # type: ignore[arg-type]  # otherwise missing
        }
        baseline: Baseline = made[method]()
        return baseline


def _tuned(model: Any, train: BenchSet, test: BenchSet, seed: int) -> tuple[Floats, NDArray[np.str_]]:
    """Return the answers of the model tuned with its default method, and the classes of their columns.

    The default leaves the tower as it is and uses validation cells for its temperature alone, which changes no answer:
    one learned cell of each type serves, instead of five folds that are fitted for nothing.
    """
    donors = train.groups.tolist() if train.donors else None
    known = LabelledCells(train.counts, train.totals, train.labels.tolist(), donors)
    held = known.take(np.unique(known.labels, return_index=True)[1])
    tuned = tune(model, known, FinetuneConfig(seed=seed, tissue=train.tissue), validation=held)
    return tuned.probabilities(test.block()), np.array(tuned.classes, dtype=np.str_)
