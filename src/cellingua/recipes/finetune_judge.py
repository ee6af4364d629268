"""How a tuned model is judged: folds, the frozen classifier beside it, and the figures that are told."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellingua.measures.classification import accuracy, macro_f1
from cellingua.measures.splits import Split, class_folds, group_folds
from cellingua.recipes.finetune_config import FinetuneConfig, LabelledCells
from cellingua.recipes.finetune_frozen import Linear, States, best_temperature, log_softmax
from cellingua.recipes.finetune_run import held_out

FOLDS = 5
MOST_JUDGED = 5000  # cells that take part in the folds of a frozen method
#: Divides the logits where no cell can be held out to fit it.
TEMPERATURE = {"classifier": 0.4, "prototypes": 2.6}


def by_folds(
    states: States, cells: LabelledCells, compared: Mapping[str, Callable[[States], Linear]], config: FinetuneConfig
) -> tuple[dict[str, NDArray[np.float64]], NDArray[np.int64], str]:
    """Return the logits of held-out cells for each method, their classes, and how they were held out.

    A cell is judged where its class is among those learned from; a class with one cell, or of one donor, never is.
    """
    chosen, told = folds_of(cells, states.truth, config)
    logits: dict[str, list[NDArray[np.float64]]] = {name: [] for name in compared}
    rows: list[NDArray[np.int64]] = []
    for split in chosen:
        known = np.isin(states.truth[split.test], states.truth[split.train])
        test = split.test[known]
        if not len(test):
            continue
        part, held = states.take(split.train), states.take(test)
        rows.append(test)
        for name, fit in compared.items():
            logits[name].append(fit(part).logits(held))
    if not rows:
        return {}, np.zeros(0, np.int64), "nothing: no class has two cells"
    order = np.concatenate(rows)
    return {name: np.concatenate(parts) for name, parts in logits.items()}, states.truth[order], told


def folds_of(cells: LabelledCells, truth: NDArray[np.int64], config: FinetuneConfig) -> tuple[list[Split], str]:
    """Return folds of donors where there are two or more, otherwise of each class, and their description.

    Where the configuration asks for a share, it is that one split instead.
    """
    seed = config.seed
    if config.validation_share is not None:
        split, told = held_out(cells, config)
        return ([split] if len(split.test) else []), told
    rows = np.arange(len(truth))
    if len(rows) > MOST_JUDGED:
        rows = np.sort(np.random.default_rng([seed, 6]).permutation(rows)[:MOST_JUDGED])
    donors = [] if cells.donors is None else [cells.donors[row] for row in rows.tolist()]
    n_donors = len(set(donors))
    if n_donors >= 2:
        number = min(FOLDS, n_donors)
        splits, told = group_folds(donors, number, seed), f"{number} folds of whole donors"
    else:
        number = min(FOLDS, int(np.bincount(truth[rows]).max()))
        if number < 2:
            return [], ""
        splits, told = class_folds(truth[rows], number, seed), f"{number} folds of each class"
    return [Split(rows[split.train], rows[split.test]) for split in splits], told


def compare(
    judged: dict[str, NDArray[np.float64]], truth: NDArray[np.int64], method: str, told: str, temperature: float
) -> dict[str, Any]:
    """Return the figures of the method and of the frozen classifier on the same cells, as JSON values."""
    found: dict[str, Any] = {"on": told, "cells": len(truth)}
    for name, logits in judged.items():
        own = temperature if name == method else best_temperature(logits, truth, TEMPERATURE["classifier"])
        found[name] = figures(logits, truth, own)
    found["worse"] = bool(found[method]["macro_f1"] < found["classifier"]["macro_f1"])
    return found


def figures(logits: NDArray[np.floating], truth: NDArray[np.int64], temperature: float) -> dict[str, float]:
    """Return accuracy, macro-F1 over the classes that occur, and the mean log loss at a temperature."""
    guess = logits.argmax(axis=1)
    loss = -log_softmax(logits / temperature)[np.arange(len(truth)), truth].mean()
    return {
        "accuracy": round(accuracy(truth, guess), 4),
        "macro_f1": round(macro_f1(truth, guess), 4),
        "log_loss": round(float(loss), 4),
    }
