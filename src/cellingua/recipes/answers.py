"""What an answer means: fitted on predictions for cells of data sets that the model has not seen.

A set is left out, a model is trained without it and asked about it: `predict`. From several such sets `fit_answers`
makes what is stored in ``calibration.json`` under ``answers``: how sure a probability is, the thresholds that keep an
error rate, and when a cell is of none of the candidates.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellingua.calibration.unknown import OpenCase, open_features, surroundings
from cellingua.cells.collections import CellSet
from cellingua.cells.counts import CountBlock
from cellingua.models.model import LangCellModel
from cellingua.words.candidates import Candidates, whole_ontology
from cellingua.words.ontology import Ontology, load_ontology

Floats = NDArray[np.float32]
CELLS = 2500  # of a set, at most
SEED = 7
FEWEST = 10  # cells of a lineage that is taken away, and of those that stay
#: Types below one of these are one lineage; the first that fits counts.
LINEAGES = (
    "CL:0000084",  # T cell
    "CL:0000945",  # lymphocyte of B lineage
    "CL:0000623",  # natural killer cell
    "CL:0000451",  # dendritic cell
    "CL:0000113",  # mononuclear phagocyte
    "CL:0000763",  # myeloid cell
    "CL:0000037",  # hematopoietic stem cell
    "CL:0000540",  # neuron
    "CL:0000125",  # glial cell
    "CL:0000115",  # endothelial cell
    "CL:0000066",  # epithelial cell
    "CL:0002320",  # connective tissue cell
)


@dataclass(frozen=True)
class Prediction:
    """What a model says of the cells of a set that it has not seen.

    Attributes
    ----------
    name
        Of the set.
    truth
        (n,): ontology id of each cell.
    n_genes
        int64 (n,): genes with a count.
    term_ids, logits
        The set's own types as a user's candidates, (K,), and their logits, float32 (n, K).
    wide_ids, wide_logits
        The whole ontology, (W,) and float32 (n, W).
    known
        float32 (n, F): features of the open-set score, every type a candidate.
    cases
        Lineage -> the cells with that lineage taken from the candidates.
    types
        The same for single types.
    """

    name: str
    truth: NDArray[np.str_]
    n_genes: NDArray[np.int64]
    term_ids: tuple[str, ...]
    logits: Floats
    wide_ids: tuple[str, ...]
    wide_logits: Floats
    known: Floats
    cases: dict[str, OpenCase] = field(default_factory=dict)
    types: dict[str, OpenCase] = field(default_factory=dict)


def lineages_of(terms: Iterable[str], ontology: Ontology) -> dict[str, list[str]]:
    """Return the types of a set by lineage: those below one of `LINEAGES`, or below one another."""
    found: dict[str, list[str]] = {}
    kept = sorted(set(terms), key=lambda term: (len(ontology.ancestors(term)), term))
    for term in kept:
        roots = [one for one in LINEAGES if ontology.is_a(term, one)] + [
            root for root in found if ontology.is_a(term, root)
        ]
        found.setdefault(roots[0] if roots else term, []).append(term)
    return found


def predict(model: LangCellModel, cells: CellSet, name: str, most: int = CELLS) -> Prediction:
    """Return what a model says of at most so many cells of a set, drawn once and for all.

    Parameters
    ----------
    cells
        Labelled cells of one set that the model has not seen.
    """
    ontology = load_ontology("CL")
    live = np.array([term in ontology for term in cells.terms.tolist()])
    rows = np.random.default_rng(SEED).permutation(np.flatnonzero(live))[:most]
    part = cells.take(np.sort(rows))
    block = CountBlock(0, len(part), part.counts, part.totals, np.diff(part.counts.indptr).astype(np.int64))
    embedding = model.encode_cells(model.tokenise(block))
    own = sorted(set(part.terms.tolist()))
    wide = whole_ontology()

    def logits(terms: Sequence[str], origin: str) -> Floats:
        named = [ontology.name(term) for term in terms]
        return model.logits(block, embedding, model.prepare(Candidates(named, list(terms), [""] * len(terms), origin)))

    # One scale for candidates and surroundings: each case is a choice of columns.
    every = sorted({*own, *known_terms(model, ontology)})
    column = {term: place for place, term in enumerate(every)}
    scored = logits(every, "ontology")

    def features(candidates: Sequence[str]) -> Floats:
        around = surroundings(candidates, known_terms(model, ontology), ontology)
        places = [column[term] for term in (*candidates, *around.term_ids)]
        return open_features(scored[:, places], len(candidates), around.distance)

    def without(groups: dict[str, list[str]]) -> dict[str, OpenCase]:
        found = {}
        for lineage, terms in groups.items():
            missing = np.isin(part.terms, terms)
            rest = [term for term in own if term not in terms]
            if missing.sum() >= FEWEST and (~missing).sum() >= FEWEST:
                found[lineage] = OpenCase(features(rest), missing)
        return found

    wide_ids = [str(term) for term in wide.term_ids]
    return Prediction(
        name,
        part.terms,
        block.n_genes,
        tuple(own),
        logits(own, "user"),
        tuple(wide_ids),
        logits(wide_ids, "ontology"),
        features(own),
        without(lineages_of(own, ontology)),
        without({term: [term] for term in own}),
    )


def known_terms(model: LangCellModel, ontology: Ontology) -> list[str]:
    """Return the types that a model has evidence for, wide classes left out."""
    return sorted(term for term in model.supported if term in ontology and ontology.in_human(term))


def fit_answers(predictions: Sequence[Prediction]) -> dict[str, Any]:
    """Return what is stored with the model; see `cellingua.calibration`."""
    raise NotImplementedError
