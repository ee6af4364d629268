"""Is a cell of none of the candidates? An open-set score from the cell alone.

The model knows many more types than a user names. Where a type that is related to no candidate fits a cell well and
better than all that are, the cell is probably of none of them. That it fits well matters: a cell of a tissue that the
model hardly knows is like nothing, which says little about the candidates.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from cellingua.calibration.hierarchy import is_answer
from cellingua.calibration.rollup import softmax
from cellingua.words.ontology import Ontology
from cellingua.words.spelling import split_words

Floats = NDArray[np.float32]
FEATURES = ("gap", "doubt", "fit")
RIDGE = 1.0


@dataclass(frozen=True)
class Surroundings:
    """The terms that a cell is compared with beside the candidates.

    Attributes
    ----------
    term_ids
        (W,): known types that are no candidates.
    related
        bool (W,): whether they lie above or below a candidate, or have all words of a label that is no term.
    """

    term_ids: tuple[str, ...]
    related: NDArray[np.bool_]


def surroundings(
    candidates: Sequence[str | None], known: Iterable[str], ontology: Ontology, written: Iterable[str] = ()
) -> Surroundings:
    """Return the known terms that are no candidates, and which of them are related to one.

    Parameters
    ----------
    candidates
        Ontology ids; None, or an id that is not live, is related to nothing.
    known
        Terms that the model has evidence for.
    written
        Labels of candidates without an id. A term whose name has all words of such a label is related to it: whoever
        writes "stellate cell" has asked for the pancreatic ones, too.
    """
    return _surroundings(
        tuple(dict.fromkeys(candidates)), tuple(sorted(set(known))), ontology, frozenset(map(_words, written))
    )


@lru_cache(maxsize=256)
def _surroundings(
    candidates: tuple[str | None, ...], known: tuple[str, ...], ontology: Ontology, written: frozenset[frozenset[str]]
) -> Surroundings:
    named = {term for term in candidates if term is not None and term in ontology}
    terms = sorted({term for term in known if term in ontology} - named)
    above = {wider for term in named for wider in ontology.ancestors(term)}
    free = [words for words in written if words]

    def is_related(term: str) -> bool:
        line = ontology.ancestors(term)
        return term in above or not named.isdisjoint(line) or any(map(_words(ontology.name(term)).issuperset, free))

    return Surroundings(tuple(terms), np.array([is_related(term) for term in terms], dtype=bool))


def _words(text: str) -> frozenset[str]:
    """Return the words of a name but for "cell"."""
    return frozenset(split_words(text)) - {"cell"}


def known_terms(supported: Iterable[str], ontology: Ontology) -> list[str]:
    """Return the types that a model has evidence for and a human cell can be, sorted; wide classes left out."""
    return sorted(
        term for term in supported if term in ontology and ontology.in_human(term) and is_answer(term, ontology)
    )


def open_features(logits: Floats, n_candidates: int, related: NDArray[np.bool_]) -> Floats:
    """Return what speaks for "none of the candidates" in each cell, float32 (n, 3), in the order of `FEATURES`.

    Parameters
    ----------
    logits
        float (n, K + W): of the candidates, then of their surroundings, on one scale.
    n_candidates
        K.
    related
        bool (W,): see `Surroundings`.

    Returns
    -------
    ndarray
        How far the best unrelated term is above the best candidate or relative; minus the log-probability of the best
        candidate among all; the logit of the best unrelated term. Without an unrelated term the gap is 0.
    """
    outside = np.concatenate([np.zeros(n_candidates, bool), ~related])
    inside = np.where(outside, -np.inf, logits).max(axis=1)
    beyond = np.where(outside, logits, -np.inf).max(axis=1) if outside.any() else inside
    own = np.log(softmax(logits)[:, :n_candidates].max(axis=1) + 1e-6)
    return np.stack([beyond - inside, -own, beyond], axis=1).astype(np.float32)


@dataclass(frozen=True)
class OpenSet:
    """A logistic combination of the features: the probability that a cell is of none of the candidates.

    Attributes
    ----------
    weights
        (F,): of the features.
    bias
        Added to their sum.
    cutoff
        A cell with a higher score is unknown.
    """

    weights: tuple[float, ...]
    bias: float
    cutoff: float

    def score(self, features: Floats) -> Floats:
        """Return float32 (n,), within 0 and 1."""
        value = features @ np.asarray(self.weights, np.float32) + np.float32(self.bias)
        return np.asarray(0.5 * (1 + np.tanh(0.5 * value)), np.float32)

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {"features": list(FEATURES), "weights": list(self.weights), "bias": self.bias, "cutoff": self.cutoff}

    @classmethod
    def from_dict(cls, held: dict[str, Any]) -> OpenSet:
        """Return what `to_dict` gave.

        Raises
        ------
        ValueError
            It was fitted on other features than these.
        """
        if tuple(held["features"]) != FEATURES:
            raise ValueError(f"a score of {', '.join(map(str, held['features']))}, not of {', '.join(FEATURES)}")
        return cls(tuple(float(w) for w in held["weights"]), float(held["bias"]), float(held["cutoff"]))


@dataclass(frozen=True)
class OpenCase:
    """Cells of one set with a lineage taken from the candidates.

    Attributes
    ----------
    features
        float32 (n, F).
    missing
        bool (n,): cells of the lineage that was taken away.
    """

    features: Floats
    missing: NDArray[np.bool_]


def fit_open_set(cases: Sequence[OpenCase], known: Sequence[Floats], false_alarms: float) -> OpenSet:
    """Return the combination of the largest likelihood; every case, and in it both kinds of cells, weigh the same.

    Parameters
    ----------
    cases
        To fit the weights on, each feature in units of its own deviation, so that a feature's scale does not decide
        how much it is held back. No weight is below 0: each feature speaks for "none" or for nothing.
    known
        Features of cells whose type is among the candidates, one array a set; the cut-off lets at most a share of
        `false_alarms` of them be unknown, on average over sets, since the next set may be one that is unlike the
        others, and a cell that is called unknown in error is one that was not named right.
    """
    usable = [case for case in cases if 0 < case.missing.sum() < len(case.missing)]
    design = np.concatenate([case.features for case in usable]).astype(np.float64)
    unit = np.maximum(design.std(axis=0), 1e-6)
    design /= unit
    target = np.concatenate([case.missing for case in usable])
    weight = np.concatenate([np.where(c.missing, 0.5 / c.missing.sum(), 0.5 / (~c.missing).sum()) for c in usable])
    weight /= weight.sum()
    sign = np.where(target, 1.0, -1.0)

    def loss(x: NDArray[np.float64]) -> float:
        margin = sign * (design @ x[:-1] + x[-1])
        return float((weight * np.logaddexp(0, -margin)).sum() + RIDGE * (x[:-1] ** 2).sum())

    bounds = [(0.0, None)] * design.shape[1] + [(None, None)]
    found = minimize(loss, np.zeros(design.shape[1] + 1), method="L-BFGS-B", bounds=bounds).x
    fitted = OpenSet(tuple(np.round(found[:-1] / unit, 6).tolist()), round(float(found[-1]), 5), 1.0)
    scores = [fitted.score(features) for features in known if len(features)]
    levels = np.unique(np.concatenate(scores))
    share = np.mean([_above(part, levels) for part in scores], axis=0)
    allowed = levels[share <= false_alarms]
    cutoff = float(np.ceil(allowed[0] * 1e5) / 1e5) if len(allowed) else 1.0  # rounded down, it would let more through
    return OpenSet(fitted.weights, fitted.bias, cutoff)


def _above(scores: Floats, levels: Floats) -> NDArray[np.float64]:
    """Return the share of scores above each level."""
    return 1.0 - np.searchsorted(np.sort(scores), levels, side="right") / len(scores)
