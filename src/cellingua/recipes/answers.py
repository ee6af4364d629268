"""What an answer means: fitted on predictions for cells of data sets that the model has not seen.

A set is left out, a model is trained without it and asked about it: `predict`. From several such sets `fit_answers`
makes what is stored in ``calibration.json`` under ``answers``: how sure a probability is, the thresholds that keep an
error rate, and when a cell is of none of the candidates.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellingua.calibration.answers import Answers
from cellingua.calibration.conformal import GRID, fit_error_rates
from cellingua.calibration.hierarchy import hierarchy_of, is_kind_of
from cellingua.calibration.rollup import UNKNOWN, Hierarchy, decide, softmax
from cellingua.calibration.temperature import Labelled, fit_temperature
from cellingua.calibration.unknown import OpenCase, fit_open_set, known_terms, open_features, surroundings
from cellingua.cells.collections import CellSet
from cellingua.cells.counts import CountBlock
from cellingua.measures.calibration import covered
from cellingua.models.model import LangCellModel
from cellingua.words.candidates import Candidates, whole_ontology
from cellingua.words.ontology import Ontology, load_ontology

Floats = NDArray[np.float32]
CELLS = 2500  # of a set, at most
KEPT = (
    "agreement",
    "unmarked",
    "decoded",
    "ontology_decoded",
    "ontology_markers",
    "unprofiled",
    "wider_term",
)  # what of a calibration is not fitted here, and what logits are made with
SEED = 7
WIDE_CELLS = 200  # of a set, over the whole ontology
FALSE_ALARMS = 0.01  # share of cells of a candidate's type that the open-set score may call unknown
FLOOR = 0.5  # least probability of an answer, however wide: as likely right as wrong
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
    """What a model says of the cells of a set that it has not seen, before any calibration.

    Attributes
    ----------
    name
        Of the set.
    truth
        (n,): ontology id of each cell.
    term_ids, logits
        The set's own types as a user's candidates, (K,), and their logits, float32 (n, K).
    known_ids, known_logits
        These and all types that the model has evidence for, as a user's candidates: (T,) and float32 (n, T).
    evident
        (T,): whether the model has evidence for each of `known_ids`.
    wide_ids, wide_logits, words_only
        The whole ontology, (W,), float32 (n, W), and bool (W,): known from words alone.
    """

    name: str
    truth: NDArray[np.str_]
    term_ids: tuple[str, ...]
    logits: Floats
    known_ids: tuple[str, ...]
    known_logits: Floats
    evident: NDArray[np.bool_]
    wide_ids: tuple[str, ...]
    wide_logits: Floats
    words_only: NDArray[np.bool_]


def lineages_of(terms: Iterable[str], ontology: Ontology) -> dict[str, list[str]]:
    """Return the types of a set by lineage: below one another, or else below the same one of `LINEAGES`."""
    found: dict[str, list[str]] = {}
    root: dict[str, str] = {}
    for term in sorted(set(terms), key=lambda term: (len(ontology.ancestors(term)), term)):
        wider = [root[other] for other in root if ontology.is_a(term, other)]
        lineage = [one for one in LINEAGES if ontology.is_a(term, one)]
        root[term] = (wider or lineage or [term])[0]
        found.setdefault(root[term], []).append(term)
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
    kept = {key: model.calibration[key] for key in KEPT if key in model.calibration}
    raw = replace(model, calibration={"temperature": 1.0} | kept)
    embedding = raw.encode_cells(raw.tokenise(block))

    def logits(terms: Sequence[str], origin: str) -> Floats:
        candidates = Candidates([ontology.name(term) for term in terms], list(terms), [""] * len(terms), origin)
        return raw.logits(block, embedding, raw.prepare(candidates))

    own = sorted(set(part.terms.tolist()))
    evident = set(known_terms(model.supported, ontology))
    known = sorted({*own, *evident})
    wide = [str(term) for term in whole_ontology().term_ids]
    return Prediction(
        name,
        part.terms,
        tuple(own),
        logits(own, "user"),
        tuple(known),
        logits(known, "user"),
        np.array([term in evident for term in known]),
        tuple(wide),
        logits(wide, "ontology"),
        np.array([term not in model.supported for term in wide]),
    )


def fit_answers(predictions: Sequence[Prediction]) -> dict[str, Any]:
    """Return what is to be stored in a model's calibration.

    Parameters
    ----------
    predictions
        One a data set, each by a model that has not seen it.

    Returns
    -------
    dict
        ``temperature``, ``ontology_temperature`` and ``words_only``, as `LangCellModel.prepare` reads them; and
        ``answers``, as `cellingua.calibration.answers.Answers` reads it.
    """
    ontology = load_ontology("CL")
    user = fit_temperature([_labelled(part, ontology) for part in predictions])
    wide = fit_temperature([_labelled_widely(part, ontology) for part in predictions])
    cases = [case for part in predictions for case in open_cases(part, user.temperature).values()]
    known = [known_features(part, user.temperature) for part in predictions]
    open_set = fit_open_set(cases, known, FALSE_ALARMS)
    losses = []
    for part, features in zip(predictions, known, strict=True):
        probability = softmax(part.logits / np.float32(user.temperature))
        enough = open_set.score(features) <= open_set.cutoff
        losses.append(uncovered(probability, enough, part.term_ids, part.truth, ontology))
    widely = []
    for part in predictions:
        some = slice(0, None, max(1, len(part.truth) // WIDE_CELLS))
        probability = softmax(wide.apply(part.wide_logits[some], part.words_only))
        widely.append(
            uncovered(
                probability, np.ones(len(probability), bool), part.wide_ids, part.truth[some], ontology, finer=True
            )
        )
    answers = Answers(
        {"user": fit_error_rates(losses, FLOOR), "ontology": fit_error_rates(widely, FLOOR)},
        open_set,
        tuple(part.name for part in predictions),
    )
    return {
        "temperature": user.temperature,
        "ontology_temperature": wide.temperature,
        "words_only": wide.bias,
        "answers": answers.to_dict(),
    }


def uncovered(
    probability: Floats,
    enough: NDArray[np.bool_],
    term_ids: Sequence[str],
    truth: NDArray[np.str_],
    ontology: Ontology,
    grid: Sequence[float] = GRID,
    *,
    finer: bool = False,
) -> NDArray[np.bool_]:
    """Return whether each cell is left uncovered at each threshold, bool (n, G).

    With `finer` an answer below the truth covers it: in the whole ontology it may say more than the set's labels do. A
    threshold that took this for a mistake would call every T cell "leukocyte", as some sets say no more than "T cell".
    """
    types, code = np.unique(truth, return_inverse=True)
    hierarchy, covers = _covering(tuple(term_ids), tuple(types.tolist()), ontology, finer)
    mass = hierarchy.mass(probability)
    found = np.empty((len(truth), len(grid)), bool)
    for column, threshold in enumerate(grid):
        answer = decide(probability, enough, threshold, hierarchy, FLOOR, mass)
        place = np.where(answer.ancestor >= 0, 1 + len(term_ids) + answer.ancestor, 1 + answer.best)
        place[answer.status == UNKNOWN] = 0
        found[:, column] = ~covers[code, place]
    return found


@lru_cache(maxsize=64)
def _covering(
    term_ids: tuple[str, ...], types: tuple[str, ...], ontology: Ontology, finer: bool
) -> tuple[Hierarchy, NDArray[np.bool_]]:
    """Return the hierarchy, and which of no answer, the candidates and its terms cover each type, bool (types, .)."""
    hierarchy, terms = hierarchy_of(term_ids, ontology)
    names = ("", *term_ids, *terms)
    kinds = partial(is_kind_of, ontology=ontology)
    covers = [covered(names, [kind] * len(names), kinds, finer=finer) for kind in types]
    return hierarchy, np.array(covers)


def open_cases(part: Prediction, temperature: float, groups: dict[str, list[str]] | None = None) -> dict[str, OpenCase]:
    """Return lineage -> the cells of a set with that lineage taken from the candidates.

    Parameters
    ----------
    temperature
        Of a user's candidates.
    groups
        Lineage -> its types; None: as `lineages_of` tells. Those with too few cells are left out.
    """
    ontology = load_ontology("CL")
    found = {}
    for lineage, terms in (groups or lineages_of(part.term_ids, ontology)).items():
        missing = np.isin(part.truth, terms)
        rest = [term for term in part.term_ids if term not in terms]
        if missing.sum() >= FEWEST and (~missing).sum() >= FEWEST:
            found[lineage] = OpenCase(_features(part, rest, temperature, ontology), missing)
    return found


def known_features(part: Prediction, temperature: float) -> Floats:
    """Return the features of the open-set score with every type of the set a candidate, float32 (n, F)."""
    return _features(part, part.term_ids, temperature, load_ontology("CL"))


def _features(part: Prediction, candidates: Sequence[str], temperature: float, ontology: Ontology) -> Floats:
    evident = [term for term, known in zip(part.known_ids, part.evident, strict=True) if known]
    around = surroundings(candidates, evident, ontology)
    column = {term: place for place, term in enumerate(part.known_ids)}
    places = [column[term] for term in (*candidates, *around.term_ids)]
    return open_features(part.known_logits[:, places] / np.float32(temperature), len(candidates), around.related)


def _labelled(part: Prediction, ontology: Ontology) -> Labelled:
    right = part.truth[:, None] == np.array(part.term_ids)[None, :]
    return Labelled(part.logits, right, np.zeros(len(part.term_ids), bool))


def _labelled_widely(part: Prediction, ontology: Ontology) -> Labelled:
    """A term of the whole ontology is right where it is the cell's or a kind of it."""
    some = slice(0, None, max(1, len(part.truth) // WIDE_CELLS))
    types, code = np.unique(part.truth[some], return_inverse=True)
    kinds = {str(term): ontology.descendants(str(term)) | {str(term)} for term in types}
    right = np.array([[other in kinds[str(term)] for other in part.wide_ids] for term in types])
    return Labelled(part.wide_logits[some], right[code], part.words_only)
