"""What the few-shot benchmark compares: our tuned models, the same model without labels, and plain baselines.

Every method sees the same cells to learn from and names the same cells. Those marked as transductive also see the
counts of the cells that are judged, without their labels: components are fitted on the whole set.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.fewshot_sets import LabelledSet
from cellingua.baselines.centroid import NearestCentroid
from cellingua.baselines.form import Baseline, predicted
from cellingua.baselines.logistic import LogisticRegression
from cellingua.baselines.majority import Majority
from cellingua.baselines.neighbours import Neighbours
from cellingua.baselines.normalise import Components, log_normalised
from cellingua.measures.splits import Split

#: Declared before anything was measured: what a user gets who names no method.
DEFAULT = "classifier"
COMPONENTS = 50
NEIGHBOURS = 5
PAPERS = ("langcell", "langcell_ce")

Answer = NDArray[np.str_]


@dataclass(frozen=True)
class Method:
    """One column of the tables.

    Attributes
    ----------
    name, title
        For keys, and for people.
    ours
        Whether it is a method of this package, and not a baseline.
    learns
        Whether it learns from the labelled cells.
    slow
        Whether it trains a tower, and so runs on a part of the grid only.
    """

    name: str
    title: str
    ours: bool = False
    learns: bool = True
    slow: bool = False


METHODS = (
    Method("classifier", "ours: classifier (default)", ours=True),
    Method("prototypes", "ours: prototypes", ours=True),
    Method("lora", "ours: LoRA", ours=True, slow=True),
    Method("full", "ours: all weights", ours=True, slow=True),
    Method("langcell_ce", "ours: LangCell-CE", ours=True, slow=True),
    Method("langcell", "ours: LangCell's few-shot", ours=True, slow=True),
    Method("zero_shot", "ours: no labels", ours=True, learns=False),
    Method("logistic", "logistic regression"),
    Method("neighbours", "k-NN"),
    Method("centroid", "nearest centroid"),
    Method("majority", "majority"),
    Method("logistic_all", "logistic regression, transductive"),
    Method("neighbours_all", "k-NN, transductive"),
)
#: What the bar is held against.
BARS_AGAINST = ("logistic", "neighbours")


@dataclass
class Prepared:
    """What is made once for a set: its components over all cells, and the answers of the model without labels."""

    cells: LabelledSet
    _components: Components | None = field(default=None, repr=False)
    _zero_shot: Answer | None = field(default=None, repr=False)

    @property
    def components(self) -> Components:
        """Principal components of all cells of the set."""
        if self._components is None:
            self._components = Components(COMPONENTS).fit(log_normalised(self.cells.counts, self.cells.totals))
        return self._components

    def zero_shot(self, model: Any) -> Answer:
        """Return the label that the model gives each cell from the labels' words alone."""
        from cellingua.words.candidates import from_labels

        if self._zero_shot is None:
            names = [str(name) for name in np.unique(self.cells.labels)]
            block = SimpleNamespace(counts=self.cells.counts, totals=self.cells.totals)
            candidates = model.prepare(from_labels(names, tissue=self.cells.tissue))
            logits = model.logits(block, model.encode_cells(model.tokenise(block)), candidates)
            self._zero_shot = np.array(names)[logits.argmax(axis=1)]
        return self._zero_shot


def answer(method: Method, prepared: Prepared, split: Split, model: Any, seed: int, *, few: bool = True) -> Answer:
    """Return the labels that a method gives the cells to judge, str (test cells,).

    Parameters
    ----------
    few
        Whether few cells of each type are learned from, which LangCell-CE asks.
    """
    if method.name == "zero_shot":
        return prepared.zero_shot(model)[split.test]
    cells = prepared.cells
    if method.ours:
        return _tuned(method, cells, split, model, seed, few)
    fitted = _baseline(method.name, prepared).fit(
        cells.counts[split.train], cells.labels[split.train], cells.totals[split.train]
    )
    return predicted(fitted, cells.counts[split.test], cells.totals[split.test])


def _baseline(name: str, prepared: Prepared) -> Baseline:
    made: dict[str, Callable[[], Baseline]] = {
        "majority": Majority,
        "logistic": LogisticRegression,
        "neighbours": lambda: Neighbours(NEIGHBOURS, "cosine", COMPONENTS),
        "centroid": NearestCentroid,
        "logistic_all": lambda: LogisticRegression(components=prepared.components),
        "neighbours_all": lambda: Neighbours(NEIGHBOURS, "cosine", prepared.components),
    }
    return made[name]()


def _tuned(method: Method, cells: LabelledSet, split: Split, model: Any, seed: int, few: bool) -> Answer:
    """Tune on the cells to learn from, with the defaults of the method, and name the others.

    A method that leaves the tower as it is uses validation cells for its temperature and its comparison alone, which
    change no answer. So it is given one learned cell of each type for that, instead of fitting five folds for nothing;
    a test holds that the answers are the same. The papers' methods hold nothing out, as they did; LangCell-CE freezes
    all but its last layer with few cells, as it did.
    """
    from cellingua.recipes.finetune import tune
    from cellingua.recipes.finetune_config import FROZEN, FinetuneConfig, LabelledCells

    donors = cells.groups[split.train].tolist() if cells.kind == "donors" else None
    known = LabelledCells(
        cells.counts[split.train], cells.totals[split.train], cells.labels[split.train].tolist(), donors
    )  # fmt: skip
    held = known.take(np.unique(known.labels, return_index=True)[1]) if method.name in FROZEN else None
    papers: dict[str, Any] = {"validation_share": 0.0, "few_shot": few} if method.name in PAPERS else {}
    config = FinetuneConfig(method=method.name, seed=seed, tissue=cells.tissue, **papers)
    tuned = tune(model, known, config, validation=held)
    block = SimpleNamespace(counts=cells.counts[split.test], totals=cells.totals[split.test])
    return np.array(tuned.classes, dtype=np.str_)[tuned.probabilities(block).argmax(axis=1)]
