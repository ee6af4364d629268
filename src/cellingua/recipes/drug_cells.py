"""Sensitive or resistant: how well labelled cells teach a model, and what of it is the sample.

CellLM reports F1 after learning from 5 % ("few-shot") and from 80 % ("full") of the cells, drawn at random. Where a
sample holds cells of one label alone, such a draw asks which sample a cell is from. So beside it stand: a logistic
regression on the genes, whole samples left out, how well two samples of *one* label are told apart (which no response
explains), and what is scored by calling every cell sensitive.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import combinations
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cellingua.baselines.logistic import LogisticRegression
from cellingua.calibration.rollup import softmax
from cellingua.core.errors import InputError
from cellingua.core.progress import Progress, Silent
from cellingua.measures.classification import accuracy, class_scores, macro_f1
from cellingua.measures.ranking import auroc
from cellingua.measures.regression import within
from cellingua.measures.splits import Split, by_share, group_folds
from cellingua.recipes.finetune import fitter, tune
from cellingua.recipes.finetune_config import TRAINED, FinetuneConfig, LabelledCells
from cellingua.recipes.finetune_frozen import Classes, read_states

if TYPE_CHECKING:
    from cellingua.models.tuned import Model

FEW, FULL, DRAWS = 0.05, 0.8, 10
MOST_SAMPLES, MOST_PAIRS = 20, 5
LEAST = 10  # cells of a sample, and of each label in it, for an AUROC inside it
MEASURES = ("f1", "macro_f1", "auroc", "accuracy")
#: Returns the probability that each cell to judge is sensitive, float64 (test cells,).
Scorer = Callable[[Split, int], NDArray[np.float64]]


def scorers(model: Model | None, cells: LabelledCells, positive: str, config: FinetuneConfig) -> dict[str, Scorer]:
    """Return what is compared: the tuned model, and a logistic regression on log-normalised genes.

    Parameters
    ----------
    model
        LangCell, CellLM or Geneformer; None leaves it out.
    cells
        With two labels, none of them empty.
    positive
        The label that means sensitive.
    config
        How the model is tuned. Methods that leave the tower as it is read all cells once (a cell's state depends on
        that cell alone); the others are tuned anew for each split.
    """
    found: dict[str, Scorer] = {}
    if model is not None:
        trained = config.method in TRAINED
        found["model"] = (_tuned if trained else _frozen)(model, cells, positive, config)

    def logistic(split: Split, seed: int) -> NDArray[np.float64]:
        train, test = cells.take(split.train), cells.take(split.test)
        fitted = LogisticRegression().fit(train.counts, train.labels, train.totals)
        return fitted.predict_proba(test.counts, test.totals)[:, fitted.classes.tolist().index(positive)]

    return {**found, "logistic regression": logistic}


def wordless(labels: list[str], width: int) -> Classes:
    """Return two classes about which words say nothing: "sensitive" is no type of cell that a text could describe."""
    names = tuple(sorted(set(labels)))
    return Classes(names, (None,) * len(names), ("",) * len(names), np.zeros((len(names), width), np.float32))


def _frozen(model: Model, cells: LabelledCells, positive: str, config: FinetuneConfig) -> Scorer:
    classes = wordless(cells.labels, int(getattr(model, "joint_width", 0)))
    states = read_states(model, cells, classes)
    place = classes.labels.index(positive)

    def score(split: Split, seed: int) -> NDArray[np.float64]:
        fitted = fitter(config, config.method, model, classes)(states.take(split.train))
        return softmax(fitted.logits(states.take(split.test)))[:, place].astype(np.float64)

    return score


def _tuned(model: Model, cells: LabelledCells, positive: str, config: FinetuneConfig) -> Scorer:
    from dataclasses import replace

    def score(split: Split, seed: int) -> NDArray[np.float64]:
        tuned = tune(model, cells.take(split.train), replace(config, seed=seed))
        test = cells.take(split.test)
        block = SimpleNamespace(counts=test.counts, totals=test.totals)
        return tuned.probabilities(block)[:, tuned.classes.index(positive)].astype(np.float64)

    return score


def figures(truth: NDArray[np.bool_], probability: NDArray[np.float64]) -> dict[str, float]:
    """Return F1 of the sensitive cells, macro-F1, AUROC (NaN where one label is judged) and accuracy."""
    said = probability >= 0.5
    return {
        "f1": float(class_scores(truth, said, [True]).f1[0]),
        "macro_f1": macro_f1(truth, said),
        "auroc": auroc(truth, probability),
        "accuracy": accuracy(truth, said),
    }


def random_draws(
    compared: Mapping[str, Scorer],
    truth: NDArray[np.bool_],
    share: float,
    draws: int = DRAWS,
    seed: int = 0,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Return the figures after learning from a share of each label, drawn at random: mean and spread over the draws.

    Raises
    ------
    InputError
        A label has one cell, or there is no draw.
    """
    counts = {True: int(truth.sum()), False: int((~truth).sum())}
    if min(counts.values()) < 2 or draws < 1:
        raise InputError(
            f"{counts[True]:,} sensitive and {counts[False]:,} resistant cells, and {draws} draws.",
            "two cells of each label and one draw at least",
        )
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in (*compared, "every cell called sensitive")}
    progress = progress or Silent()
    progress.step(f"{share:.0%} of the cells", draws)
    for draw in range(draws):
        split = by_share(truth, share, seed + draw)
        for name, score in compared.items():
            runs[name].append(figures(truth[split.test], score(split, seed + draw)))
        runs["every cell called sensitive"].append(figures(truth[split.test], np.ones(len(split.test))))
        progress.advance()
    learned = {"sensitive": int(truth[split.train].sum()), "resistant": int((~truth[split.train]).sum())}
    return {
        "share": share,
        "draws": draws,
        "learned_from": learned,
        "judged": len(split.test),
        "methods": {name: _spread(found) for name, found in runs.items()},
    }


def _spread(runs: list[dict[str, float]]) -> dict[str, float | None]:
    out: dict[str, float | None] = {}
    for name in MEASURES:
        values = np.array([run[name] for run in runs])
        out[name], out[f"{name}_sd"] = _plain(values.mean()), _plain(values.std())
    return out


def _plain(value: Any) -> float | None:
    """Return a figure that JSON can hold."""
    return round(float(value), 4) if np.isfinite(value) else None


def left_out_samples(
    compared: Mapping[str, Scorer],
    truth: NDArray[np.bool_],
    samples: NDArray[np.str_],
    seed: int = 0,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Return the figures where each sample is judged by what was learned from the others, pooled over all samples.

    Beyond `MOST_SAMPLES` samples, groups of samples are left out together. A fold whose other samples hold one label
    alone can't be learned from; its cells are not judged, and counted. Where a sample holds one label, leaving it out
    makes that label rarer among the others, so that an AUROC over all samples can lie below 0.5 by that alone.

    Returns
    -------
    dict
        ``judged``, ``not_judged`` (cells), ``folds`` and ``methods``; the latter is empty, with a ``reason``, where
        nothing could be judged. ``auroc_within`` is the mean over samples that hold both labels.
    """
    n = len(np.unique(samples))
    if n < 2:
        return {"methods": {}, "reason": "There is one sample only."}
    splits = group_folds(samples, min(n, MOST_SAMPLES), seed)
    usable = [split for split in splits if len(np.unique(truth[split.train])) == 2]
    left = sum(len(split.test) for split in splits) - sum(len(split.test) for split in usable)
    if not usable:
        return {"methods": {}, "reason": "Without any one sample the others hold one label alone."}
    rows = np.concatenate([split.test for split in usable])
    (progress or Silent()).step("Samples left out", len(usable))
    said: dict[str, list[NDArray[np.float64]]] = {name: [] for name in compared}
    for split in usable:
        for name, score in compared.items():
            said[name].append(score(split, seed))
        (progress or Silent()).advance()
    pooled = {name: np.concatenate(parts) for name, parts in said.items()}
    pooled["every cell called sensitive"] = np.ones(len(rows))
    return {
        "folds": len(usable),
        "judged": len(rows),
        "not_judged": left,
        "methods": {
            name: {key: _plain(value) for key, value in figures(truth[rows], p).items()}
            | {"auroc_within": _within(truth[rows], p, samples[rows])}
            for name, p in pooled.items()
        },
    }


def _within(truth: NDArray[np.bool_], probability: NDArray[np.float64], samples: NDArray[np.str_]) -> float | None:
    """Return the mean AUROC over samples with enough cells of each label."""
    enough = [
        s for s in np.unique(samples) if min(int(truth[samples == s].sum()), int((~truth[samples == s]).sum())) >= LEAST
    ]
    rows = np.isin(samples, enough)
    return _plain(within(truth[rows], probability[rows], samples[rows], measure=auroc).mean) if enough else None


def label_by_sample(truth: NDArray[np.bool_], samples: NDArray[np.str_]) -> dict[str, Any]:
    """Return how far the sample alone says the label.

    Returns
    -------
    dict
        ``samples``: name -> [sensitive, resistant]; ``accuracy``: of calling each cell what most of its sample are;
        ``equal``: whether each sample holds one label, and both labels occur.
    """
    table = {
        str(s): [int(truth[samples == s].sum()), int((~truth[samples == s]).sum())] for s in np.unique(samples)
    }  # fmt: skip
    right = sum(max(counts) for counts in table.values())
    equal = all(min(counts) == 0 for counts in table.values()) and len(table) > 1
    return {"samples": table, "accuracy": right / max(len(truth), 1), "equal": equal}


def samples_told_apart(
    cells: LabelledCells, truth: NDArray[np.bool_], samples: NDArray[np.str_], share: float = FEW, seed: int = 0
) -> dict[str, Any]:
    """Return how well two samples of the same label are told apart by logistic regression on a share of their cells.

    No response explains such a difference: an AUROC as high as that between the labels says that the random draws
    measure the sample.

    Returns
    -------
    dict
        ``pairs`` (of the largest samples, at most `MOST_PAIRS` for each label) and ``auroc``, their mean; None where
        no label has two samples with `LEAST` cells.
    """
    found = []
    for label in (True, False):
        sizes = {s: int(((samples == s) & (truth == label)).sum()) for s in np.unique(samples).tolist()}
        large = sorted((s for s in sizes if sizes[s] >= LEAST), key=lambda s: (-sizes[s], s))
        for first, second in list(combinations(large, 2))[:MOST_PAIRS]:
            rows = np.flatnonzero(np.isin(samples, [first, second]) & (truth == label))
            here = samples[rows] == first
            split = by_share(here, share, seed)
            part = cells.take(rows)
            part = LabelledCells(part.counts, part.totals, [str(value) for value in here.tolist()])
            score = scorers(None, part, "True", FinetuneConfig())["logistic regression"]
            found.append(auroc(here[split.test], score(split, seed)))
    return {"pairs": len(found), "auroc": _plain(np.mean(found)) if found else None}
