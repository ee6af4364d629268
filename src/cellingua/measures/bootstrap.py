"""How sure a measure is: percentile intervals over cells drawn again with replacement.

Drawing n cells with replacement is drawing the entries of the table of who was taken for whom from a multinomial
distribution, so a thousand draws cost a thousand small tables and not a thousand passes over the cells. The cells of
one donor resemble each other: an interval over cells says nothing of other donors, and is too narrow for them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cellingua.core.errors import InputError
from cellingua.measures.classification import class_scores

DRAWS, LEVEL = 1000, 0.95
Interval = tuple[float, float]


def table_scores(tables: NDArray[np.integer]) -> dict[str, NDArray[np.float64]]:
    """Return accuracy, macro and weighted F1 of tables of who was taken for whom.

    Parameters
    ----------
    tables
        int (draws, K, K + 1): truth by prediction; the last column is whatever is none of the K classes.

    Returns
    -------
    dict
        float64 (draws,) each. Macro F1 is over the classes that occur in a table's truth.
    """
    inner = tables[:, :, :-1]
    hits = np.diagonal(inner, axis1=1, axis2=2)
    support, predicted = tables.sum(axis=2), inner.sum(axis=1)
    f1 = 2 * hits / np.maximum(support + predicted, 1)
    total = np.maximum(support.sum(axis=1), 1)
    return {
        "accuracy": hits.sum(axis=1) / total,
        "macro_f1": f1.sum(axis=1) / np.maximum((support > 0).sum(axis=1), 1),
        "weighted_f1": (f1 * support).sum(axis=1) / total,
    }


def truth_table(truth: ArrayLike, prediction: ArrayLike) -> NDArray[np.int64]:
    """Return int64 (K, K + 1): the classes of the truth, sorted, by what was predicted; the last column is the rest."""
    scores = class_scores(truth, prediction)  # refuses what can't be judged
    place: dict[Any, int] = {name: number for number, name in enumerate(scores.classes.tolist())}
    k = len(place)
    true = np.array([place[name] for name in np.asarray(truth).astype(np.str_).tolist()])
    said = np.array([place.get(name, k) for name in np.asarray(prediction).astype(np.str_).tolist()])
    return np.bincount(true * (k + 1) + said, minlength=k * (k + 1)).reshape(k, k + 1)


def intervals(
    truth: ArrayLike, prediction: ArrayLike, *, draws: int = DRAWS, level: float = LEVEL, seed: int = 0
) -> dict[str, Interval]:
    """Return the interval of accuracy, macro and weighted F1.

    Parameters
    ----------
    truth, prediction
        Labels as text (n,).
    draws, level, seed
        Draws of n cells each; the share of them inside the interval; of the draws.
    """
    _check(draws, level)
    table = truth_table(truth, prediction)
    n = int(table.sum())
    drawn = np.random.default_rng(seed).multinomial(n, (table / n).ravel(), size=draws)
    return {
        name: _middle(values, level) for name, values in table_scores(drawn.reshape(draws, *table.shape)).items()
    }  # fmt: skip


def share_interval(
    right: ArrayLike, *, draws: int = DRAWS, level: float = LEVEL, seed: int = 0
) -> Interval:  # fmt: skip
    """Return the interval of a share of cells, such as that of answers that are right by lineage."""
    _check(draws, level)
    held = np.asarray(right, dtype=bool)
    if not len(held):
        raise InputError("There is no cell to judge.", "at least one")
    drawn = np.random.default_rng(seed).binomial(len(held), held.mean(), size=draws) / len(held)
    return _middle(drawn, level)


def _middle(values: NDArray[np.float64], level: float) -> Interval:
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _check(draws: int, level: float) -> None:
    if draws < 1 or not 0 < level < 1:
        raise InputError(f"{draws} draws at the level {level} were asked for.", "at least one draw, 0 < level < 1")
