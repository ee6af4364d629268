"""The Cell Ontology terms that an answer may be rolled up to."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import sparse

from cellingua.calibration.rollup import Hierarchy
from cellingua.words.dictionary import DUTIES, UNINFORMATIVE
from cellingua.words.ontology import Ontology

ROOT = "CL:0000000"

# Terms right below "cell" say what a cell does or looks like, hardly ever what it is. These two are lineages.
LINEAGES = frozenset({"CL:0000988", "CL:4033054"})  # hematopoietic cell, perivascular cell

# No name for a cell of its own, and yet an answer where germ layers can't be told apart.
STAGES = frozenset({"CL:0002321"})  # embryonic cell (metazoa)

# Duties that are an answer all the same where the types added up share them: mononuclear phagocytes and leukocytes.
KINDRED = frozenset({"CL:0000113", "CL:0000842"})

# Fit to be chosen by a user, but no answer to "what is it?" when several types are added up: shape, potency, duty.
TOO_WIDE = (DUTIES - KINDRED) | {
    "CL:0000064",  # ciliated cell
    "CL:0000075",  # columnar/cuboidal epithelial cell
    "CL:0000076",  # squamous epithelial cell
    "CL:0000095",  # neuron associated cell
    "CL:0000159",  # seromucus secreting cell
    "CL:0000197",  # sensory receptor cell
    "CL:4052002",  # syncytial cell
}

# What definitions of CL say and its arcs lack: neural is "a cell that is part of the nervous system", embryonic "a cell
# of the embryo". Without these no answer is wide enough where a glioblast can't be told from a radial glial cell.
BY_DEFINITION = {
    "CL:0000030": "CL:0002319",  # glioblast: neural cell
    "CL:0000031": "CL:0002319",  # neuroblast (sensu Vertebrata): neural cell
    "CL:0011020": "CL:0002319",  # neural progenitor cell: neural cell
    "CL:0000352": "CL:0002321",  # epiblast cell: embryonic cell (metazoa)
}


def wider_terms(term: str, ontology: Ontology) -> frozenset[str]:
    """Return what a term is a kind of: by the ontology's arcs and by its definitions (`BY_DEFINITION`)."""
    found = ontology.ancestors(term)
    more = [BY_DEFINITION[one] for one in (term, *found) if one in BY_DEFINITION]
    return found.union(more, *(ontology.ancestors(one) for one in more))


def is_kind_of(term: str, other: str, ontology: Ontology) -> bool:
    """Return whether `term` is `other` or a kind of it, as `wider_terms` says."""
    return term == other or (term in ontology and other in wider_terms(term, ontology))


def says_nothing(term: str, ontology: Ontology) -> bool:
    """Return whether a term is so wide that it names no kind of cell, such as "cell" or "eukaryotic cell"."""
    return term in UNINFORMATIVE - STAGES or term == ROOT


def is_answer(term: str, ontology: Ontology) -> bool:
    """Return whether `term` is specific enough to be the answer to "what is this cell?"."""
    if term in STAGES:
        return True
    if term in UNINFORMATIVE or term in TOO_WIDE:
        return False
    parents = set(ontology.parents(term))
    return bool(parents) and (parents != {ROOT} or term in LINEAGES)


def hierarchy_of(term_ids: Sequence[str | None], ontology: Ontology) -> tuple[Hierarchy, list[str]]:
    """Return the hierarchy over candidates and its terms, one a row.

    Only terms with at least one candidate below them count, and of terms that cover the same candidates only the
    narrowest. Candidates without a term take no part: no sum contains them.
    """
    below: dict[str, set[int]] = {}
    for column, term in enumerate(term_ids):
        if term is None or term not in ontology:
            continue
        for wider in (term, *wider_terms(term, ontology)):
            below.setdefault(wider, set()).add(column)
    breadth = {term: len(ontology.descendants(term)) for term in below}
    narrowest: dict[frozenset[int], str] = {}
    for term in sorted(below, key=lambda term: (breadth[term], term)):
        columns = below[term]
        if is_answer(term, ontology) and (len(columns) > 1 or term in term_ids):
            narrowest.setdefault(frozenset(columns), term)
    terms = list(narrowest.values())
    if not terms:
        return Hierarchy.none(len(term_ids)), []
    rows = np.concatenate([np.full(len(below[term]), row) for row, term in enumerate(terms)])
    columns_ = np.concatenate([np.array(sorted(below[term]), dtype=np.int64) for term in terms])
    members = sparse.csr_matrix(
        (np.ones(len(rows), dtype=np.float32), (rows, columns_)), shape=(len(terms), len(term_ids))
    )
    position = {term: row for row, term in enumerate(terms)}
    own = np.array([position.get(term, -1) if term else -1 for term in term_ids], dtype=np.int64)
    return Hierarchy(members, np.array([breadth[term] for term in terms], dtype=np.int64), own), terms
