"""Which cells are learned from and which are judged: draws, shares and folds, by class and by donor.

Every function returns row numbers, is decided by its seed alone, and keeps the promises that tests hold it to: the two
sides share no cell and together hold every cell that was given, and where whole groups (donors) are divided, no group
stands on both. Labels are texts; what has no label is for the caller to leave out beforehand.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cellingua.core.errors import InputError

Rows = NDArray[np.int64]
Labels = Sequence[Any] | NDArray[Any]


class Split(NamedTuple):
    """Rows to learn from and rows to judge by, int64, each in ascending order."""

    train: Rows
    test: Rows


def few_per_class(labels: Labels, n: int, seed: int, *, most: float = 1.0) -> Split:
    """Draw `n` cells of each class to learn from; the rest is judged (LangCell's few-shot protocol).

    The cells are shuffled once and the first `n` of each class are taken, so with one seed the draw of 3 holds the draw
    of 1, and a difference between them is what the two further cells are worth.

    Parameters
    ----------
    labels
        Class of each cell (n,).
    n
        Cells of each class, at least 1.
    seed
        Of the shuffling.
    most
        Largest share of a class that may be learned from, rounded down but never to none; 1.0 may leave nothing of a
        rare class to judge by, 0.5 keeps at least half of each (of a class with one cell, which is learned from, none).
    """
    codes, k = _coded(labels)
    if n < 1 or not 0 < most <= 1:
        raise InputError(
            f"{n} cells of each class and at most a share of {most} were asked for.", "n >= 1, 0 < most <= 1"
        )
    order = np.random.default_rng(seed).permutation(len(codes))
    taken = np.minimum(n, np.maximum(np.floor(np.bincount(codes, minlength=k) * most), 1)).astype(np.int64)
    inside = _rank_within(codes[order]) < taken[codes[order]]
    return _sides(order[inside], order[~inside])


def by_share(labels: Labels, share: float, seed: int) -> Split:
    """Divide each class in the same proportion: about `share` of it to learn from.

    A class with at least two cells stands on both sides, whatever rounding says; a single cell is learned from.

    Parameters
    ----------
    share
        Between 0 and 1, both excluded: 2/3 for 2:1, 0.8 for 80/20.
    """
    codes, k = _coded(labels)
    _check_share(share)
    sizes = np.bincount(codes, minlength=k)
    taken = np.clip(np.rint(sizes * share), 1, np.maximum(sizes - 1, 1)).astype(np.int64)
    order = np.random.default_rng(seed).permutation(len(codes))
    inside = _rank_within(codes[order]) < taken[codes[order]]
    return _sides(order[inside], order[~inside])


def groups_by_share(groups: Labels, share: float, seed: int) -> Split:
    """Divide whole groups, such as donors, so that about `share` of the cells is learned from.

    Groups are shuffled and taken while that brings the share nearer; at least one group stands on each side.

    Raises
    ------
    InputError
        There is one group only.
    """
    codes, k = _coded(groups)
    _check_share(share)
    _check_parts(2, k, "groups")
    order = np.random.default_rng(seed).permutation(k)
    held = np.cumsum(np.bincount(codes, minlength=k)[order])
    number = int(np.abs(held[:-1] - share * len(codes)).argmin()) + 1
    inside = np.isin(codes, order[:number])
    return _sides(np.flatnonzero(inside), np.flatnonzero(~inside))


def folds(n: int, k: int, seed: int) -> list[Split]:
    """Return `k` splits of `n` cells; each cell is judged once, and folds differ by one cell at most."""
    _check_parts(k, n, "cells")
    return _folds_of(np.random.default_rng(seed).permutation(n), np.arange(n) % k, k)


def class_folds(labels: Labels, k: int, seed: int) -> list[Split]:
    """Return `k` splits in which each class is spread as evenly as it can be; each cell is judged once.

    A class with fewer than `k` cells is missing from some folds.
    """
    codes, _ = _coded(labels)
    _check_parts(k, len(codes), "cells")
    order = np.random.default_rng(seed).permutation(len(codes))
    order = order[np.argsort(codes[order], kind="stable")]
    # Dealt out like cards, class after class: each class is spread evenly, and so are all cells together.
    return _folds_of(order, np.arange(len(codes)) % k, k)


def group_folds(groups: Labels, k: int, seed: int) -> list[Split]:
    """Return `k` splits that leave out whole groups, such as donors (k = number of groups: one each)."""
    codes, n_groups = _coded(groups)
    _check_parts(k, n_groups, "groups")
    parts = np.array_split(np.random.default_rng(seed).permutation(n_groups), k)
    tests = (np.isin(codes, part) for part in parts)
    return [_sides(np.flatnonzero(~test), np.flatnonzero(test)) for test in tests]


def _coded(labels: Labels) -> tuple[Rows, int]:
    """Return each label as the number of its class, and how many classes there are; order of rows changes no number."""
    values = np.asarray(labels)
    if values.ndim != 1 or not len(values):
        raise InputError(f"Labels have the shape {values.shape}.", "one label a cell, at least one cell")
    names, codes = np.unique(values.astype(np.str_) if values.dtype == object else values, return_inverse=True)
    return codes.astype(np.int64), len(names)


def _rank_within(codes: Rows) -> Rows:
    """Return for each entry how many of the same code stand before it."""
    order = np.argsort(codes, kind="stable")
    starts = np.concatenate([[0], np.cumsum(np.bincount(codes))])[:-1]
    rank = np.empty(len(codes), np.int64)
    rank[order] = np.arange(len(codes)) - starts[codes[order]]
    return rank


def _sides(train: NDArray[np.integer], test: NDArray[np.integer]) -> Split:
    return Split(np.sort(train).astype(np.int64), np.sort(test).astype(np.int64))


def _folds_of(order: NDArray[np.integer], fold: NDArray[np.integer], k: int) -> list[Split]:
    return [_sides(order[fold != number], order[fold == number]) for number in range(k)]


def _check_share(share: float) -> None:
    if not 0 < share < 1:
        raise InputError(f"A share of {share} was asked for.", "a number between 0 and 1, such as 0.8")


def _check_parts(k: int, n: int, what: str) -> None:
    if not 2 <= k <= n:
        raise InputError(
            f"{k} parts of {n} {what} were asked for.", f"2 to {n} parts" if n > 1 else f"2 or more {what}"
        )
