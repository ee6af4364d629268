"""What fine-tuning takes: labelled cells, and a configuration whose defaults are stated for each method."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from cellingua.core.errors import ConfigError, InputError

FROZEN = ("classifier", "prototypes")
TRAINED = ("lora", "full", "langcell", "langcell_ce", "cellm", "scbert")
METHODS = (*FROZEN, *TRAINED)
#: Methods that read LangCell's joint space, or its text tower.
WORDS = ("prototypes", "langcell")
#: Methods that need states of genes.
GENES = ("cellm", "scbert")
WEIGHTS = ("balanced", "none", "cellm")


@dataclass(frozen=True)
class LabelledCells:
    """Cells and their labels.

    Attributes
    ----------
    counts
        CSR float32 (n, genes of the vocabulary).
    totals
        float64 (n,): over all columns of the file.
    labels
        Label of each cell, ``""`` where there is none.
    donors
        Donor of each cell, or None where nobody knows.
    """

    counts: csr_matrix
    totals: NDArray[np.float64]
    labels: list[str]
    donors: list[str] | None = None

    def __post_init__(self) -> None:
        n = self.counts.shape[0]
        sizes = {n, len(self.totals), len(self.labels), n if self.donors is None else len(self.donors)}
        if len(sizes) != 1:
            raise InputError("Counts, totals, labels and donors differ in length.", "one of each a cell")

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, rows: Sequence[int] | NDArray[np.integer] | NDArray[np.bool_]) -> LabelledCells:
        """Return some of the cells, by number or by a mask."""
        chosen = np.arange(len(self))[np.asarray(rows)]
        return LabelledCells(
            csr_matrix(self.counts[chosen]),
            self.totals[chosen],
            [self.labels[row] for row in chosen.tolist()],
            None if self.donors is None else [self.donors[row] for row in chosen.tolist()],
        )

    def labelled(self) -> LabelledCells:
        """Return the cells that have a label."""
        return self.take(np.array([label != "" for label in self.labels], dtype=bool))


@dataclass(frozen=True)
class FinetuneConfig:
    """How a model is tuned; None is the default of the method.

    Attributes
    ----------
    method
        ``classifier`` (logistic regression on frozen states), ``prototypes`` (class means mixed with the classes'
        texts), ``lora``, ``full``, ``langcell`` (both towers on cells and texts: LangCell §4.3), ``langcell_ce`` (the
        cell tower with BERT's pooler), ``cellm`` or ``scbert`` (their annotation heads).
    seed
        Of everything random.
    validation_share
        Share of the cells that a trained method is judged on: by whole donors where there are two or more, otherwise
        of each class. None: a fifth, or none at all where a class would lose its only cell.
    tissue
        Helps to read ambiguous labels, such as "alpha".
    class_weights
        ``balanced`` (every class counts the same), ``none``, or ``cellm``: (1 - n_c / n)^2. None: ``balanced``, and
        for the papers' protocols what they have.
    epochs, batch, learning_rate, patience
        Of a trained method. Training stops after `patience` epochs without a better macro-F1 on the validation.
    few_shot
        ``langcell_ce`` only: freeze all but the last layer, so that the pooler stays random, as released.
    rank
        Of LoRA.
    """

    method: str = "classifier"
    seed: int = 0
    validation_share: float | None = None
    tissue: str | None = None
    class_weights: str | None = None
    epochs: int | None = None
    batch: int | None = None
    learning_rate: float | None = None
    patience: int | None = None
    few_shot: bool = False
    rank: int = 8

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise ConfigError(f"There is no method {self.method!r}.", " or ".join(METHODS))
        if self.class_weights not in (None, *WEIGHTS):
            raise ConfigError(f"class_weights is {self.class_weights!r}.", " or ".join(WEIGHTS))
        if self.validation_share is not None and not 0 <= self.validation_share < 1:
            raise ConfigError(f"validation_share is {self.validation_share}.", "at least 0 and below 1")
        if self.seed < 0:
            raise ConfigError(f"The seed is {self.seed}.", "a whole number from 0")
        for name in ("epochs", "batch", "learning_rate", "patience", "rank"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ConfigError(f"{name} is {value}.", "above 0")


def class_weights(kind: str, truth: NDArray[np.integer], classes: int) -> NDArray[np.float64]:
    """Return the weight of each class, float64 (classes,); the mean over the cells is 1 (``cellm``: as released).

    ``balanced``: inverse to the class's cells. ``cellm``: ``(1 - n_c / n)^2``, not brought to a mean of 1.
    """
    sizes = np.bincount(truth, minlength=classes)
    if kind == "cellm":
        return np.asarray((1 - sizes / sizes.sum()) ** 2)
    if kind == "none":
        return np.ones(classes)
    there = sizes > 0
    weights = np.divide(sizes.sum(), sizes, out=np.zeros(classes), where=there)
    return np.asarray(weights / there.sum())
