"""Ontologies of cells, tissues, diseases and the rest, read from the compact tables that the package ships.

The tables are made by ``scripts/make_ontology.py``, which says where each comes from and under which licence.
"""

from __future__ import annotations

import difflib
import gzip
import re
from collections import deque
from collections.abc import Iterator
from functools import cache
from importlib.resources import files

from cellingua.core.errors import LabelError

PREFIXES = ("CL", "UBERON", "MONDO", "HsapDv", "HANCESTRO", "EFO", "PATO")


class Ontology:
    """One ontology: terms with names, definitions, synonyms and parents.

    In the Cell Ontology a parent is an is-a relation; in Uberon it is is-a or part-of, because the source does not
    tell them apart. Parents never form a cycle (checked when the table is read).

    Parameters
    ----------
    prefix
        Prefix of the ids, such as ``"CL"``.
    rows
        Rows of the shipped table: id, name, definition, synonyms, parents (both joined by ``|``), flags.

    Attributes
    ----------
    prefix
        As given.
    ids
        Ids of all live terms, in the order of the table.
    """

    def __init__(self, prefix: str, rows: list[list[str]]) -> None:
        self.prefix = prefix
        self.ids: list[str] = []
        self._rows: dict[str, list[str]] = {}
        self._parents: dict[str, tuple[str, ...]] = {}
        self._children: dict[str, list[str]] = {}
        self._obsolete: dict[str, tuple[str, str]] = {}
        for row in rows:
            if row[5] == "x":
                self._obsolete[row[0]] = (row[1], row[4])
                continue
            self.ids.append(row[0])
            self._rows[row[0]] = row
            self._parents[row[0]] = tuple(row[4].split("|")) if row[4] else ()
        for term_id, parents in self._parents.items():
            for parent in parents:
                self._children.setdefault(parent, []).append(term_id)
        self._ancestors: dict[str, frozenset[str]] = {}
        self._descendants: dict[str, frozenset[str]] = {}
        self._names: dict[str, str] | None = None
        self._check_acyclic()

    def _check_acyclic(self) -> None:
        """Raise `ValueError` if the parents form a cycle (a damaged table), by peeling off roots."""
        left = {i: len(p) for i, p in self._parents.items()}
        ready = [i for i, n in left.items() if n == 0]
        seen = 0
        while ready:
            seen += 1
            for child in self._children.get(ready.pop(), ()):
                left[child] -= 1
                if left[child] == 0:
                    ready.append(child)
        if seen != len(left):
            raise ValueError(f"the {self.prefix} table has a cycle or a parent that it doesn't hold")

    def __contains__(self, term_id: object) -> bool:
        return term_id in self._rows

    def __len__(self) -> int:
        return len(self.ids)

    def __iter__(self) -> Iterator[str]:
        return iter(self.ids)

    def _row(self, term_id: str) -> list[str]:
        try:
            return self._rows[term_id]
        except KeyError:
            raise LabelError(
                f"{term_id!r} is not a live term of {self.prefix}.",
                f"an id such as {self.ids[0]}",
                self._advice(term_id),
            ) from None

    def _advice(self, term_id: str) -> str:
        if term_id in self._obsolete:
            name, replaced_by = self._obsolete[term_id]
            label = name.removeprefix("obsolete ")
            if replaced_by in self._rows:
                return f"{replaced_by} ({self.name(replaced_by)}), which replaces the obsolete {label!r}"
            return f"another term; {label!r} is obsolete"
        return "one of " + "; ".join(f"{i} ({n})" for i, n in self.nearest(term_id))

    def name(self, term_id: str) -> str:
        """Return the name of a term. Raises `LabelError` for an id that isn't live."""
        return self._row(term_id)[1]

    def definition(self, term_id: str) -> str:
        """Return the definition of a term, ``""`` if it has none."""
        return self._row(term_id)[2]

    def synonyms(self, term_id: str) -> tuple[str, ...]:
        """Return the synonyms of a term, of whatever scope (the source doesn't tell exact from broad)."""
        text = self._row(term_id)[3]
        return tuple(text.split("|")) if text else ()

    def in_human(self, term_id: str) -> bool:
        """Return False for a term of the Cell Ontology that no human has (insects, fungi, mouse-only types)."""
        return self._row(term_id)[5] != "n"

    def obsolete(self, term_id: str) -> tuple[str, str] | None:
        """Return (old name, id of what replaces it or ``""``) of an obsolete term, None for any other id."""
        return self._obsolete.get(term_id)

    def parents(self, term_id: str) -> tuple[str, ...]:
        """Return the direct parents."""
        self._row(term_id)
        return self._parents[term_id]

    def children(self, term_id: str) -> tuple[str, ...]:
        """Return the direct children."""
        self._row(term_id)
        return tuple(self._children.get(term_id, ()))

    def ancestors(self, term_id: str) -> frozenset[str]:
        """Return all terms above a term, without itself."""
        if term_id not in self._ancestors:
            above = set(self.parents(term_id))
            for parent in self._parents[term_id]:
                above |= self.ancestors(parent)
            self._ancestors[term_id] = frozenset(above)
        return self._ancestors[term_id]

    def descendants(self, term_id: str) -> frozenset[str]:
        """Return all terms below a term, without itself."""
        if term_id not in self._descendants:
            found: set[str] = set()
            queue = list(self.children(term_id))
            while queue:
                child = queue.pop()
                if child not in found:
                    found.add(child)
                    queue.extend(self._children.get(child, ()))
            self._descendants[term_id] = frozenset(found)
        return self._descendants[term_id]

    def is_a(self, term_id: str, other: str) -> bool:
        """Return whether a term is `other` or lies below it (in Uberon: or is a part of it)."""
        self._row(other)
        return term_id == other or other in self.ancestors(term_id)

    def distance(self, term_id: str, other: str) -> int:
        """Return the fewest parent or child steps between two terms, -1 if nothing joins them."""
        self._row(other)
        self._row(term_id)
        steps, queue = {term_id: 0}, deque([term_id])
        while queue:
            here = queue.popleft()
            if here == other:
                return steps[here]
            for there in (*self._parents[here], *self._children.get(here, ())):
                if there not in steps:
                    steps[there] = steps[here] + 1
                    queue.append(there)
        return -1

    def find(self, name: str) -> str | None:
        """Return the id of the term with this name (or failing that, this synonym of one term), any case."""
        if self._names is None:
            names: dict[str, str] = {}
            synonyms: dict[str, set[str]] = {}
            for term_id in self.ids:
                names.setdefault(self._rows[term_id][1].lower(), term_id)
                for synonym in self.synonyms(term_id):
                    synonyms.setdefault(synonym.lower(), set()).add(term_id)
            for synonym, owners in synonyms.items():
                if len(owners) == 1:
                    names.setdefault(synonym, *owners)
            self._names = names
        return self._names.get(name.strip().lower())

    def nearest(self, text: str, n: int = 3) -> list[tuple[str, str]]:
        """Return the `n` terms nearest to a text, as (id, name): by digits for an id, else by spelling and words.

        For telling a reader what they may have meant, not for resolving labels.
        """
        match = re.fullmatch(rf"\s*{self.prefix}[:_ ]*(\d+)\s*", text, re.IGNORECASE)
        if match:
            digits = match[1].zfill(7)
            ranked = difflib.get_close_matches(f"{self.prefix}:{digits}", self.ids, n=n, cutoff=0.0)
            return [(i, self._rows[i][1]) for i in ranked]
        query = text.lower()
        words = set(re.findall(r"\w+", query))
        scores: dict[str, float] = {}
        for term_id in self.ids:
            best = 0.0
            for name in (self._rows[term_id][1], *self.synonyms(term_id)):
                best = max(best, _likeness(query, words, name.lower()))
            scores[term_id] = best
        # A full comparison of the best by letters only: on all names it would take seconds.
        short = sorted(self.ids, key=lambda i: (-scores[i], len(self._rows[i][1]), i))[:60]
        exact = {i: max(self._ratio(query, name) for name in (self._rows[i][1], *self.synonyms(i))) for i in short}
        order = sorted(short, key=lambda i: (-(exact[i] + scores[i]), len(self._rows[i][1]), i))
        return [(i, self._rows[i][1]) for i in order[:n]]

    @staticmethod
    def _ratio(query: str, name: str) -> float:
        return difflib.SequenceMatcher(None, query, name.lower(), autojunk=False).ratio()


def _likeness(query: str, words: set[str], name: str) -> float:
    """Return a cheap likeness in 0..1: shared words, and shared letter triples for misspellings."""
    own = set(name.replace("-", " ").replace(",", " ").split())
    shared = len(words & own) / max(len(words | own), 1)
    triples = {query[i : i + 3] for i in range(max(len(query) - 2, 1))}
    others = {name[i : i + 3] for i in range(max(len(name) - 2, 1))}
    return (shared + len(triples & others) / max(len(triples | others), 1)) / 2


@cache
def load_ontology(prefix: str = "CL") -> Ontology:
    """Return a shipped ontology, read once.

    Parameters
    ----------
    prefix
        One of ``CL``, ``UBERON``, ``MONDO``, ``HsapDv``, ``HANCESTRO``, ``EFO`` (assays) and ``PATO`` (sexes and
        "normal").

    Raises
    ------
    LabelError
        If no such ontology is shipped.
    """
    if prefix not in PREFIXES:
        raise LabelError(f"{prefix!r} is not an ontology that cellingua ships.", "one of " + ", ".join(PREFIXES))
    packed = files("cellingua").joinpath("data", "ontology", f"{prefix.lower()}.tsv.gz").read_bytes()
    lines = gzip.decompress(packed).decode().split("\n")
    return Ontology(prefix, [line.split("\t") for line in lines[1:] if line])
