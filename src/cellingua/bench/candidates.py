"""What cells are named from, and the controls: the same names with texts that say something else, or nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cellingua.bench.suites import BenchSet
from cellingua.core.errors import InputError
from cellingua.words.candidates import Candidates, by_tissue, from_labels, whole_ontology
from cellingua.words.describing import describe_label, describe_term
from cellingua.words.ontology import load_ontology
from cellingua.words.templates import phrase

KINDS = ("terms", "labels", "tissue", "ontology")
#: Texts alone: no candidate has a term, so that no stored vector and no marker speaks for it.
CONTROLS = ("definitions", "names", "shuffled", "random")
TITLES = {
    "terms": "its own types, as terms",
    "labels": "its own labels, as written",
    "tissue": "the types of its tissue",
    "ontology": "the whole ontology",
    "definitions": "texts alone: names and definitions",
    "names": "texts alone: names",
    "shuffled": "texts alone: names with definitions of other types",
    "random": "texts alone: random words",
}
WORDS = 30  # of a random text


@dataclass(frozen=True)
class Question:
    """Candidates, and what the right answers are.

    Attributes
    ----------
    candidates
        To choose from.
    names
        What an answer is called, str (K,): a term's id, or the label.
    truth
        str (n,): the right name of each judged cell.
    truth_terms
        Ontology id of each truth, ``""`` where it has none.
    rows
        int64 (n,): which cells of the set are judged.
    """

    candidates: Candidates
    names: NDArray[np.str_]
    truth: NDArray[np.str_]
    truth_terms: NDArray[np.str_]
    rows: NDArray[np.int64]

    @property
    def term_ids(self) -> list[str]:
        """Ontology id of each candidate, ``""`` where it has none."""
        return [term or "" for term in self.candidates.term_ids]


def ask(cells: BenchSet, kind: str, *, seed: int = 0) -> Question:
    """Return the question that `kind` puts to a set.

    Parameters
    ----------
    kind
        One of `KINDS` or `CONTROLS`. ``terms``: the distinct terms of the set's labels. ``labels``: the labels, read
        as a user's. ``tissue`` and ``ontology``: all types of the set's tissue, of the whole ontology; judged against
        the terms. A control: the terms with the texts that it names.
    seed
        Of the controls.

    Raises
    ------
    InputError
        No such kind, no tissue, or a set whose labels have fewer than two terms.
    """
    if kind == "labels":
        candidates = from_labels(sorted(set(cells.labels.tolist())), tissue=cells.tissue)
        of_label = dict(zip(candidates.labels, candidates.term_ids, strict=True))
        terms = np.array([of_label.get(label) or "" for label in cells.labels.tolist()], dtype=np.str_)
        # A label that is an id is shown by its name; what is compared are the labels as they stand in the file.
        names = np.array(sorted(set(cells.labels.tolist())), dtype=np.str_)
        return Question(candidates, names, cells.labels, terms, np.arange(len(cells)))
    rows = np.flatnonzero(cells.terms != "")
    truth = cells.terms[rows]
    own = sorted(set(truth.tolist()))
    if len(own) < 2:
        raise InputError(
            f"The labels of {cells.name} have {len(own)} ontology terms.", "at least two", "--candidates labels"
        )
    if kind in CONTROLS:
        candidates = worded(own, kind, seed)
        return Question(candidates, np.array(own, dtype=np.str_), truth, truth, rows)
    if kind == "terms":
        candidates = from_labels(own)
    elif kind == "ontology":
        candidates = whole_ontology()
    elif kind == "tissue":
        if cells.tissue is None:
            raise InputError(f"The tissue of {cells.name} is not known.", "a tissue", "--tissue")
        candidates = by_tissue(cells.tissue)
    else:
        raise InputError(f"There are no candidates {kind!r}.", "one of: " + ", ".join((*KINDS, *CONTROLS)))
    return Question(candidates, np.array([t or "" for t in candidates.term_ids], np.str_), truth, truth, rows)


def worded(terms: Sequence[str], kind: str, seed: int) -> Candidates:
    """Return candidates that are texts and nothing else, of the kind of a control."""
    ontology = load_ontology("CL")
    names = [ontology.name(term) for term in terms]
    if kind == "definitions":
        texts = [describe_term(term) for term in terms]
    elif kind == "names":
        texts = [describe_label(name) for name in names]
    elif kind == "shuffled":
        others = [ontology.definition(terms[place]) for place in deranged(len(terms), seed)]
        texts = [phrase("cell type", name, other) for name, other in zip(names, others, strict=True)]
    else:
        texts = random_texts(len(terms), seed)
    return Candidates(names, [None] * len(terms), texts, "user", [])


def deranged(n: int, seed: int) -> NDArray[np.int64]:
    """Return a permutation of `n` >= 2 places that leaves none where it is: one cycle through all, drawn by `seed`."""
    order = np.random.default_rng(seed).permutation(n)
    out = np.empty(n, np.int64)
    out[order] = np.roll(order, 1)
    return out


def random_texts(n: int, seed: int) -> list[str]:
    """Return `n` texts of random words of the ontology's definitions, in the form of a cell type's text."""
    ontology = load_ontology("CL")
    words = sorted({word for term in ontology.ids for word in ontology.definition(term).lower().split()})
    drawn = np.random.default_rng(seed).integers(len(words), size=(n, WORDS))
    return [phrase("cell type", words[row[0]], " ".join(words[word] for word in row[1:])) for row in drawn]
