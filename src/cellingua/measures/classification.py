"""How right labels are: accuracy, its mean over classes, F1 in its averages, and the table of who was taken for whom.

Arguments come as (truth, prediction), as in scikit-learn, whose values these are for the same set of classes; tests
compare. What differs is the default set of classes, because a mean over classes is only as fair as that set:

- **by default the classes are those that occur in the truth**, so that two methods on the same cells are averaged over
  the same classes whatever they answer (scikit-learn takes those of truth and prediction together, and a method that
  answers a class of its own is divided by one more). An answer outside these classes is wrong: it costs the recall of
  the true class, and the precision of nobody, since no class of the truth was claimed;
- a class that is asked for by `classes` and absent from the truth has recall 0 and F1 0, and counts in macro F1; it has
  no weight in weighted F1 and is left out of balanced accuracy, which has no meaning for it;
- a class that is never predicted has precision 0 and F1 0: nothing is undefined, nothing warns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cellingua.core.errors import InputError

Classes = Sequence[Any] | NDArray[Any] | None


@dataclass(frozen=True)
class ClassScores:
    """Scores of each class, in the order of `classes`.

    Attributes
    ----------
    classes
        (K,): the classes.
    precision, recall, f1
        float64 (K,): 0 where nothing was predicted, or nothing is there.
    support
        int64 (K,): cells of the class in the truth.
    predicted
        int64 (K,): cells that were given the class.
    """

    classes: NDArray[Any]
    precision: NDArray[np.float64]
    recall: NDArray[np.float64]
    f1: NDArray[np.float64]
    support: NDArray[np.int64]
    predicted: NDArray[np.int64]


def accuracy(truth: ArrayLike, prediction: ArrayLike) -> float:
    """Return the share of cells whose prediction is the truth."""
    true, said = _pair(truth, prediction)
    return float(np.mean(true == said))


def confusion(truth: ArrayLike, prediction: ArrayLike, classes: Classes = None) -> NDArray[np.int64]:
    """Return how often each class was taken for each.

    Parameters
    ----------
    truth, prediction
        Labels (n,) of the same cells.
    classes
        (K,), the order of rows and columns; by default the sorted classes of truth and prediction together, so that
        every cell is counted. Cells whose truth or prediction is not among given classes are left out.

    Returns
    -------
    ndarray
        int64 (K, K): row = truth, column = prediction.
    """
    true, said = _pair(truth, prediction)
    names = np.unique(np.concatenate([true, said])) if classes is None else _classes(classes)
    rows, columns = _codes(true, names), _codes(said, names)
    kept = (rows >= 0) & (columns >= 0)
    k = len(names)
    return np.bincount(rows[kept] * k + columns[kept], minlength=k * k).reshape(k, k).astype(np.int64)


def class_scores(truth: ArrayLike, prediction: ArrayLike, classes: Classes = None) -> ClassScores:
    """Return precision, recall, F1 and support of each class (by default: of the truth's, sorted).

    Raises
    ------
    InputError
        No cell, another number of predictions than of truths, or a class that is named twice.
    """
    true, said = _pair(truth, prediction)
    names = np.unique(true) if classes is None else _classes(classes)
    rows, columns = _codes(true, names), _codes(said, names)
    k = len(names)
    support = np.bincount(rows[rows >= 0], minlength=k)
    predicted = np.bincount(columns[columns >= 0], minlength=k)
    hits = np.bincount(rows[(rows == columns) & (rows >= 0)], minlength=k)
    f1 = 2 * hits / np.maximum(support + predicted, 1)
    return ClassScores(
        names, hits / np.maximum(predicted, 1), hits / np.maximum(support, 1), f1, support, predicted
    )  # fmt: skip


def balanced_accuracy(truth: ArrayLike, prediction: ArrayLike) -> float:
    """Return the mean recall of the classes that occur in the truth."""
    return float(class_scores(truth, prediction).recall.mean())


def macro_f1(truth: ArrayLike, prediction: ArrayLike, classes: Classes = None) -> float:
    """Return the mean F1 of the classes (by default: of the truth's), each counting the same."""
    return float(class_scores(truth, prediction, classes).f1.mean())


def weighted_f1(truth: ArrayLike, prediction: ArrayLike, classes: Classes = None) -> float:
    """Return the mean F1 of the classes, weighted by their cells in the truth; 0 where none of them occurs."""
    scores = class_scores(truth, prediction, classes)
    total = int(scores.support.sum())
    return float(scores.f1 @ scores.support / total) if total else 0.0


def _pair(truth: ArrayLike, prediction: ArrayLike) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return both as arrays of one kind; refuse none and unequal lengths."""
    true, said = np.asarray(truth), np.asarray(prediction)
    if true.ndim != 1 or true.shape != said.shape:
        raise InputError(
            f"Truth has the shape {true.shape} and prediction {said.shape}.", "one label a cell in each: (n,)"
        )
    if not len(true):
        raise InputError("There is no cell to judge.", "at least one")
    return _plain(true), _plain(said)


def _plain(labels: NDArray[Any]) -> NDArray[Any]:
    """Return labels that can be sorted: text held as objects becomes text."""
    return labels.astype(np.str_) if labels.dtype == object else labels


def _classes(classes: Sequence[Any] | NDArray[Any]) -> NDArray[Any]:
    names = _plain(np.asarray(classes))
    if len(np.unique(names)) != len(names) or not len(names):
        raise InputError(f"{len(names)} classes were given, some twice or none at all.", "each class once")
    return names


def _codes(labels: NDArray[Any], names: NDArray[Any]) -> NDArray[np.int64]:
    """Return the place of each label in `names`, -1 where it is not among them."""
    order = np.argsort(names, kind="stable")
    place = np.minimum(np.searchsorted(names[order], labels), len(names) - 1)
    codes = order[place]
    return np.where(names[codes] == labels, codes, -1).astype(np.int64)
