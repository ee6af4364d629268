"""Is an answer on the right branch of an ontology? Terms and their parents in, right or wrong out.

An answer is right by lineage where it is the truth, a descendant of it (a finer answer than the data set has), or an
ancestor at most two steps up that is not also an ancestor of another label of the set: so wide an answer would fit
both. Accuracy among thousands of terms punishes "CD4 T cell" for "naive CD4 T cell" like "neuron"; this does not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellingua.core.errors import InputError

STEPS = 2
Parents = Callable[[str], Iterable[str]]
Terms = Sequence[str] | NDArray[Any]


def steps_up(term: str, parents: Parents) -> dict[str, int]:
    """Return the fewest steps from a term to each of its ancestors; itself is 0 steps away."""
    found, edge = {term: 0}, [term]
    while edge:
        above = dict.fromkeys(parent for child in edge for parent in parents(child) if parent not in found)
        found |= dict.fromkeys(above, found[edge[0]] + 1)
        edge = list(above)
    return found


def lineage_right(truth: Terms, answer: Terms, parents: Parents, *, steps: int = STEPS) -> NDArray[np.bool_]:
    """Return which answers are right by lineage, bool (n,).

    Parameters
    ----------
    truth, answer
        Ids of terms (n,); an answer ``""`` (no answer, or free text) is wrong.
    parents
        Returns the direct parents of a term.
    steps
        How far up an ancestor may be.

    Raises
    ------
    InputError
        No cell, another number of answers than of truths, or a truth that is empty.
    """
    true, said = [str(term) for term in truth], [str(term) for term in answer]
    if not true or len(true) != len(said) or "" in true:
        raise InputError(
            f"{len(true):,} true terms ({true.count('')} of them empty) and {len(said):,} answers.",
            "a term and an answer for each cell",
        )
    labels = sorted(set(true))
    above = {term: steps_up(term, parents) for term in sorted({*labels, *said} - {""})}
    allowed = {label: _wider(label, labels, above, steps) for label in labels}
    right = {
        (label, term): bool(term) and (term in allowed[label] or label in above[term])
        for label, term in set(zip(true, said, strict=True))
    }
    return np.array([right[pair] for pair in zip(true, said, strict=True)], dtype=np.bool_)


def _wider(label: str, labels: Sequence[str], above: dict[str, dict[str, int]], steps: int) -> set[str]:
    """Return the label and those of its ancestors that are near enough and above no other label of the set."""
    near = {term for term, far in above[label].items() if 0 < far <= steps}
    for other in labels:
        if other != label:
            near -= {term for term, far in above[other].items() if far > 0}
    return {label, *near}


def mean_distance(
    truth: Terms, answer: Terms, distance: Callable[[str, str], int], *, unjoined: float | None = None
) -> float | None:
    """Return the mean number of steps between answers and truths that differ; None where none can be measured.

    Parameters
    ----------
    distance
        Steps between two terms, negative where nothing joins them.
    unjoined
        What counts for such a pair; None leaves it out.
    """
    pairs = [(str(a), str(b)) for a, b in zip(truth, answer, strict=True) if a and b and str(a) != str(b)]
    found = {pair: float(distance(*pair)) for pair in set(pairs)}
    steps = [found[pair] if found[pair] >= 0 else unjoined for pair in pairs]
    counted = [step for step in steps if step is not None]
    return float(np.mean(counted)) if counted else None
