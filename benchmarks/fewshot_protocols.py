"""Which cells are learned from: 1 to 20 a type, 2:1 and 80/20, by cell, by donor, or across protocols.

Few cells (LangCell, few-shot): n of each type are drawn and all others judged, without validation. Fine-tuning: 2:1
(LangCell) and 80/20 (CellLM, scBERT), each type divided in that proportion. Where donors are known, they are divided
and not their cells; across protocols the cells to learn from are drawn from one, and all of the other is judged.
"""

from __future__ import annotations

import numpy as np

from benchmarks.fewshot_sets import LabelledSet
from cellingua.measures.splits import Split, by_share, few_per_class, groups_by_share

FEW = (1, 3, 5, 10, 20)
SHARES = {"2:1": 2 / 3, "80/20": 0.8}
PROTOCOLS = (*(str(n) for n in FEW), *SHARES)
DRAWS = 5
FIRST_SEED = 2024  # LangCell's
MOST = 0.5  # of a rare type at most half is learned from, so that it can be judged


def divide(cells: LabelledSet, protocol: str, draw: int) -> Split:
    """Return the rows of one draw; the same for every method.

    Parameters
    ----------
    protocol
        One of `PROTOCOLS`.
    draw
        0, 1, 2...: the seed is `FIRST_SEED` more.
    """
    seed = FIRST_SEED + draw
    share = SHARES.get(protocol)
    if cells.kind == "cells":
        if share is None:
            return few_per_class(cells.labels, int(protocol), seed, most=MOST)
        return by_share(cells.labels, share, seed)
    if cells.kind == "donors":
        train, test = groups_by_share(cells.groups, 0.5 if share is None else share, seed)
        return _few_of(cells, int(protocol), seed, train, test) if share is None else Split(train, test)
    train, test = (np.flatnonzero(cells.groups == cells.learned), np.flatnonzero(cells.groups != cells.learned))
    if share is None:
        return _few_of(cells, int(protocol), seed, train, test)
    return Split(train[by_share(cells.labels[train], share, seed).train], test)


def _few_of(cells: LabelledSet, n: int, seed: int, train: np.ndarray, test: np.ndarray) -> Split:
    """Return `n` cells of each type among `train`, and all of `test`."""
    return Split(train[few_per_class(cells.labels[train], n, seed).train], test)
