"""Is a cell of none of the candidates? An open-set score from the cell alone.

The model knows many more types than a user names. Where the likeliest of all these types lie far from every candidate
in the ontology, the cell is probably of none of them. Far is measured by information: what two terms have in common is
their narrowest shared ancestor, and the fewer terms lie below it, the more it says (Lin, 1998).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from cellingua.calibration.hierarchy import is_answer
from cellingua.calibration.rollup import softmax
from cellingua.words.ontology import Ontology

Floats = NDArray[np.float32]
FEATURES = ("distance", "outside", "gap", "doubt")
RIDGE = 1.0


@dataclass(frozen=True)
class Surroundings:
    """The terms that a cell is compared with beside the candidates.

    Attributes
    ----------
    term_ids
        (W,): known types that are no candidates.
    distance
        float32 (W,): 0 for what lies above or below a candidate, to 1 for what shares nothing with any.
    """

    term_ids: tuple[str, ...]
    distance: Floats


@cache
def information(ontology: Ontology) -> dict[str, float]:
    """Return the information content of each term, 0 (the root) to 1 (a term with none below it) (Seco, 2004)."""
    total = math.log(len(ontology) + 1)
    return {term: 1 - math.log(len(ontology.descendants(term)) + 1) / total for term in ontology.ids}


def surroundings(candidates: Sequence[str | None], known: Iterable[str], ontology: Ontology) -> Surroundings:
    """Return the known terms that are no candidates, each with its distance from the nearest candidate.

    Parameters
    ----------
    candidates
        Ontology ids; None, or an id that is not live, is near to nothing.
    known
        Terms that the model has evidence for.
    """
    return _surroundings(tuple(dict.fromkeys(candidates)), tuple(sorted(set(known))), ontology)


@lru_cache(maxsize=256)
def _surroundings(candidates: tuple[str | None, ...], known: tuple[str, ...], ontology: Ontology) -> Surroundings:
    content = information(ontology)
    named = [term for term in candidates if term is not None and term in ontology]
    above = {term: ontology.ancestors(term) | {term} for term in named}
    terms = sorted({term for term in known if term in ontology} - set(named))
    return Surroundings(
        tuple(terms),
        np.array([_distance(term, above, content, ontology) for term in terms], np.float32),
    )


def known_terms(supported: Iterable[str], ontology: Ontology) -> list[str]:
    """Return the types that a model has evidence for and a human cell can be, sorted; wide classes left out."""
    return sorted(
        term for term in supported if term in ontology and ontology.in_human(term) and is_answer(term, ontology)
    )


def _distance(term: str, above: dict[str, frozenset[str]], content: dict[str, float], ontology: Ontology) -> float:
    own = ontology.ancestors(term) | {term}
    nearest = 0.0
    for other, line in above.items():
        if other in own or term in line:
            return 0.0
        shared = max((content[one] for one in own & line), default=0.0)
        nearest = max(nearest, 2 * shared / (content[term] + content[other] + 1e-9))
    return 1.0 - min(nearest, 1.0)


def open_features(logits: Floats, n_candidates: int, distance: Floats) -> Floats:
    """Return what speaks for "none of the candidates" in each cell, float32 (n, 4), in the order of `FEATURES`.

    Parameters
    ----------
    logits
        float (n, K + W): of the candidates, then of their surroundings, on one scale.
    n_candidates
        K.
    distance
        float32 (W,): see `Surroundings`.

    Returns
    -------
    ndarray
        The expected distance from the candidates and the probability of all terms that are related to none, both as
        log-odds; how far the best unrelated term is above the best candidate or relative; minus the log-probability of
        the best candidate among all.
    """
    probability = softmax(logits)
    far = np.concatenate([np.zeros(n_candidates, np.float32), distance])
    outside = far > 0
    lost = probability[:, outside].sum(axis=1)
    inside = np.where(outside, -np.inf, logits).max(axis=1)
    beyond = np.where(outside, logits, -np.inf).max(axis=1) if outside.any() else inside
    own = np.log(probability[:, :n_candidates].max(axis=1) + 1e-6)
    return np.stack([_log_odds(probability @ far), _log_odds(lost), beyond - inside, -own], axis=1).astype(np.float32)


def _log_odds(share: Floats) -> Floats:
    return np.asarray(np.log((share + 1e-4) / (1 - share + 1e-4)))


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
        """Return what `to_dict` gave."""
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
        To fit the weights on. No weight is below 0: each feature speaks for "none" or for nothing.
    known
        Features of cells whose type is among the candidates, one array a set; the cut-off lets at most a share of
        `false_alarms` of them be unknown, on average over sets, since the next set may be one that is unlike the
        others, and a cell that is called unknown in error is one that was not named right.
    """
    usable = [case for case in cases if 0 < case.missing.sum() < len(case.missing)]
    design = np.concatenate([case.features for case in usable]).astype(np.float64)
    target = np.concatenate([case.missing for case in usable])
    weight = np.concatenate([np.where(c.missing, 0.5 / c.missing.sum(), 0.5 / (~c.missing).sum()) for c in usable])
    weight /= weight.sum()
    sign = np.where(target, 1.0, -1.0)

    def loss(x: NDArray[np.float64]) -> float:
        margin = sign * (design @ x[:-1] + x[-1])
        return float((weight * np.logaddexp(0, -margin)).sum() + RIDGE * (x[:-1] ** 2).sum())

    bounds = [(0.0, None)] * design.shape[1] + [(None, None)]
    found = minimize(loss, np.zeros(design.shape[1] + 1), method="L-BFGS-B", bounds=bounds).x
    fitted = OpenSet(tuple(round(float(w), 5) for w in found[:-1]), round(float(found[-1]), 5), 1.0)
    scores = [fitted.score(features) for features in known if len(features)]
    levels = np.unique(np.concatenate(scores))
    share = np.mean([_above(part, levels) for part in scores], axis=0)
    allowed = levels[share <= false_alarms]
    cutoff = float(np.ceil(allowed[0] * 1e5) / 1e5) if len(allowed) else 1.0  # rounded down, it would let more through
    return OpenSet(fitted.weights, fitted.bias, cutoff)


def _above(scores: Floats, levels: Floats) -> NDArray[np.float64]:
    """Return the share of scores above each level."""
    return 1.0 - np.searchsorted(np.sort(scores), levels, side="right") / len(scores)
