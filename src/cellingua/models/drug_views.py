"""What is known of lines, as kernels: how alike two lines are, seen through expression, mutations or any other table.

A view is one table of features. Its numbers are standardised over the lines that are learned from, and a feature that
is absent counts as its mean, which says nothing. Each view gives a linear kernel, a radial one, or both, of mean
diagonal 1 over the learned lines, so that weights compare; views are summed. Nothing of a line that is not learned
from enters means, scales or widths: a new line's row depends on that line alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cellingua.core.errors import InputError

Floats = NDArray[np.float64]
Tables = Mapping[str, Floats]


@dataclass(frozen=True)
class View:
    """How one table enters.

    Parameters
    ----------
    name
        Of the table.
    linear, radial, profile
        Weight of each kernel; 0 leaves it out. ``profile`` is the correlation of two lines over features: linear
        without the length and the mean of a line, which follow its quality as much as its biology.
    scale
        Standardise features (expression), or only centre them (mutations: a rare one must not count more).
    limit
        Largest standardised value.
    """

    name: str
    linear: float = 1.0
    radial: float = 0.0
    scale: bool = True
    limit: float = 5.0
    profile: float = 0.0


class LineKernel:
    """A sum of kernels over views, fitted on the learned lines.

    Parameters
    ----------
    views
        What is summed.
    """

    def __init__(self, views: Sequence[View]) -> None:
        if not views or any(max(view.linear, view.radial, view.profile) <= 0 for view in views):
            raise InputError("A view without a weight says nothing.", "linear, radial or profile above 0 for each view")
        self.views = tuple(views)
        self._mean: dict[str, Floats] = {}
        self._sd: dict[str, Floats] = {}
        self._learned: dict[str, Floats] = {}
        self._size: dict[str, float] = {}
        self._width: dict[str, float] = {}

    def fit(self, tables: Tables) -> LineKernel:
        """Take means, scales and widths from the learned lines.

        Parameters
        ----------
        tables
            Name -> float (n, F), NaN where a feature is absent.
        """
        for view in self.views:
            values = _table(tables, view)
            there = np.isfinite(values)
            count = np.maximum(there.sum(axis=0), 1)
            mean = np.where(there, values, 0.0).sum(axis=0) / count
            sd = np.sqrt(np.where(there, (values - mean) ** 2, 0.0).sum(axis=0) / count)
            self._mean[view.name], self._sd[view.name] = mean, sd
            z = self._standard(values, view)
            squares = (z**2).sum(axis=1)
            self._learned[view.name] = z
            self._size[view.name] = float(squares.mean()) or 1.0
            distance = squared_distances(z, z)[np.triu_indices(len(z), 1)]
            self._width[view.name] = (float(np.median(distance)) if len(distance) else 1.0) or 1.0
        return self

    def to_learned(self, tables: Tables) -> Floats:
        """Return how alike each line is to each learned one, float64 (m, n)."""
        total: Floats | float = 0.0
        for view in self.views:
            values, learned = _table(tables, view), self._learned[view.name]
            if values.shape[1] != learned.shape[1]:
                raise InputError(f"The table {view.name!r} has {values.shape[1]:,} features.", f"{learned.shape[1]:,}")
            z = self._standard(values, view)
            if view.linear > 0:
                total = total + view.linear * (z @ learned.T) / self._size[view.name]
            if view.profile > 0:
                total = total + view.profile * _unit(z) @ _unit(learned).T
            if view.radial > 0:
                total = total + view.radial * np.exp(-squared_distances(z, learned) / self._width[view.name])
        return np.asarray(total)

    def primal(self, name: str, dual: Floats) -> tuple[Floats, Floats]:
        """Return weights of a linear view's features, (F, D), and what they add (D,), from those of learned lines.

        ``features @ weights + offset`` is this view's part of ``to_learned(...) @ dual``: what is learned can be kept
        without the lines that it was learned from.

        Raises
        ------
        InputError
            The view is not linear, or clips its features.
        """
        (view,) = [view for view in self.views if view.name == name]
        if view.radial or view.profile or view.scale:
            raise InputError(f"The view {name!r} is not linear in its features.", "linear alone, without scaling")
        weights = view.linear / self._size[name] * self._learned[name].T @ dual
        return weights, -self._mean[name] @ weights

    def _standard(self, values: Floats, view: View) -> Floats:
        mean, sd = self._mean[view.name], self._sd[view.name]
        z = values - mean
        if view.scale:
            z = np.clip(np.where(sd > 1e-8, z / np.maximum(sd, 1e-8), 0.0), -view.limit, view.limit)
        return np.where(np.isfinite(z), z, 0.0)


def _table(tables: Tables, view: View) -> Floats:
    if view.name not in tables:
        raise InputError(f"There is no table {view.name!r}.", f"one of {', '.join(sorted(tables))}")
    return np.asarray(tables[view.name], dtype=np.float64)


def _unit(z: Floats) -> Floats:
    """Return rows around their mean, of length 1; an empty row stays empty."""
    centred = z - z.mean(axis=1, keepdims=True)
    length = np.linalg.norm(centred, axis=1, keepdims=True)
    return np.divide(centred, length, out=np.zeros_like(centred), where=length > 1e-12)


def squared_distances(a: Floats, b: Floats) -> Floats:
    """Return squared distances (m, n), never below 0."""
    distance = (a**2).sum(axis=1)[:, None] + (b**2).sum(axis=1)[None, :] - 2 * a @ b.T
    return np.maximum(distance, 0.0)
