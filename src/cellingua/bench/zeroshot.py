"""Naming cells that nobody labelled: a model of ours, and what can be done without one on the same candidates."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cellingua.baselines.form import softmax
from cellingua.baselines.marker_score import MarkerScore, Scorer
from cellingua.baselines.profile_correlation import ProfileCorrelation
from cellingua.bench.candidates import Question
from cellingua.bench.suites import BenchSet
from cellingua.cells.collections import read_profiles
from cellingua.cells.simulate import ProfileSet
from cellingua.core.errors import InputError
from cellingua.measures.lineage import steps_up
from cellingua.models.langcell import LangCellModule
from cellingua.models.model import LangCellModel
from cellingua.recipes.material import reviewed_labels
from cellingua.words.candidates import Candidates
from cellingua.words.ontology import load_ontology

ROWS = 2048
VARIABLE = 1000  # genes that the nearest profile is found over
Floats = NDArray[Any]


@dataclass(frozen=True)
class Method:
    """One row of a table.

    Attributes
    ----------
    name, title
        For keys, and for people.
    ours
        Whether it is a model of this package, and not a baseline.
    """

    name: str
    title: str
    ours: bool = False


ZERO_SHOT = (
    Method("model", "model", ours=True),
    Method("markers", "marker scoring (cellconsensus)"),
    Method("profiles", "profile correlation (as SingleR)"),
    Method("nearest", "nearest profile (Spearman)"),
    Method("majority", "majority"),
    Method("untrained", "untrained tower"),
)


@dataclass(frozen=True)
class References:
    """What the baselines know: each None where it is not at hand, with the reason.

    Attributes
    ----------
    markers
        Scores markers; the evidence channel of a model is one.
    profiles
        Mean profiles with their terms.
    missing
        Method -> why it is left out.
    """

    markers: Scorer | None
    profiles: ProfileSet | None
    missing: Mapping[str, str]


def find_references(markers: Scorer | None, folder: Path | None) -> References:
    """Return markers and the profile tables of a data folder, and why one of them is not there."""
    missing = {} if markers is not None else {"markers": "no bundled model has marker evidence"}
    profiles = None
    if folder is None or not (folder / "profiles" / "profiles_meta.tsv").is_file():
        told = "no profile tables: --data (or --profiles) names no folder that has profiles/"
        missing |= dict.fromkeys(("profiles", "nearest"), told)
    else:
        try:
            profiles = read_profiles(folder / "profiles", reviewed_labels())
        except InputError as error:
            missing |= dict.fromkeys(("profiles", "nearest"), error.found)
    return References(markers, profiles, missing)


def model_probabilities(model: LangCellModel, cells: BenchSet, candidates: Candidates) -> Floats:
    """Return the model's calibrated probabilities, float32 (n, K)."""
    prepared = model.prepare(candidates)
    return _probabilities(model, cells, prepared)


def _probabilities(model: LangCellModel, cells: BenchSet, prepared: Any) -> Floats:
    parts = []
    for start in range(0, len(cells), ROWS):
        block = cells.block(start, start + ROWS)
        logits = model.logits(block, model.encode_cells(model.tokenise(block)), prepared)
        parts.append(softmax(np.asarray(logits, np.float64)).astype(np.float32))
    return np.concatenate(parts)


def untrained(model: LangCellModel, seed: int = 0) -> LangCellModel:
    """Return the model with a cell tower of random weights and without evidence: what the architecture alone does."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        module = LangCellModule(model.config).requires_grad_(False).eval()
    return replace(model, name=f"{model.name}, untrained", module=module.to(model.device), evidence=None, head=None)


def serving(terms: Sequence[str], candidates: Sequence[str]) -> list[str]:
    """Return the candidate that each term stands for: itself, or the nearest of its ancestors; ``""`` for none.

    Of equally near ancestors the first in the order of the candidates is taken.
    """
    ontology = load_ontology("CL")
    wanted = {term: place for place, term in reversed(list(enumerate(candidates))) if term}
    found: dict[str, str] = {}
    for term in dict.fromkeys(terms):
        far = steps_up(term, ontology.parents) if term in ontology else {}
        near = sorted((steps, wanted[above], above) for above, steps in far.items() if above in wanted)
        found[term] = near[0][2] if near else ""
    return [found[term] for term in terms]


def profile_method(
    cells: BenchSet, question: Question, profiles: ProfileSet, *, nearest: bool = False
) -> ProfileCorrelation:
    """Return profile correlation over the profiles that stand for a candidate, on the genes of the cells' file.

    Parameters
    ----------
    nearest
        Take the label of the nearest profile over the most variable genes, and nothing more: on some sets a better
        baseline than SingleR's algorithm, so that both stand beside the model.

    Raises
    ------
    InputError
        No candidate has a profile, or too few genes are shared.
    """
    name_of = {term: name for name, term in reversed(list(zip(question.names, question.term_ids, strict=True))) if term}
    stand = serving(profiles.terms.tolist(), question.term_ids)
    kept = np.array([term != "" for term in stand], dtype=bool)
    labels = np.array([name_of.get(term, "") for term in stand], dtype=np.str_)
    chosen = profiles.take(np.flatnonzero(kept))
    how: dict[str, Any] = {"fine_tune": False, "quantile": 1.0, "variable": VARIABLE} if nearest else {}
    return ProfileCorrelation(chosen.expression, chosen.measured, labels[kept], cells.measured, **how)


def on_columns(found: Floats, classes: NDArray[np.str_], names: NDArray[np.str_]) -> Floats:
    """Return probabilities of some classes in the columns of all candidates; the others get 0."""
    place = {name: number for number, name in enumerate(names.tolist())}
    out = np.zeros((len(found), len(names)), np.float32)
    out[:, [place[name] for name in classes.tolist()]] = found
    return out


def zero_shot(
    cells: BenchSet, question: Question, model: LangCellModel | None, known: References, *, seed: int = 0
) -> tuple[dict[str, Callable[[], Floats]], dict[str, str]]:
    """Return what can be asked and what can't: method -> its probabilities (n, K) when called, method -> reason.

    Parameters
    ----------
    cells
        The judged cells of the set (`Question.rows`).
    model
        None leaves out what needs one.
    seed
        Of the untrained tower.
    """
    missing = dict(known.missing)
    ready: dict[str, Callable[[], Floats]] = {}
    if model is not None:
        ready["model"] = lambda: model_probabilities(model, cells, question.candidates)
    if known.markers is not None:
        scored = MarkerScore(known.markers, question.names.tolist(), question.candidates.term_ids)
        ready["markers"] = lambda: scored.predict_proba(cells.counts, cells.totals)
    if known.profiles is not None:
        for name in ("profiles", "nearest"):
            try:
                alike = profile_method(cells, question, known.profiles, nearest=name == "nearest")
                ready[name] = partial(_correlated, alike, cells, question)
            except InputError as error:
                missing[name] = error.found
    ready["majority"] = lambda: _majority(question)
    if model is not None:
        # The candidates keep the vectors of the trained text side: only the cells are read by chance.
        ready["untrained"] = lambda: _probabilities(untrained(model, seed), cells, model.prepare(question.candidates))
    return ready, missing


def _correlated(alike: ProfileCorrelation, cells: BenchSet, question: Question) -> Floats:
    return on_columns(alike.predict_proba(cells.counts), alike.classes, question.names)


def _majority(question: Question) -> Floats:
    """Return the commonest label of the truth for every cell: it alone looks at the labels."""
    names, sizes = np.unique(question.truth, return_counts=True)
    # A truth that is no candidate (of another tissue, say) can't be answered.
    shares = dict(zip(names.tolist(), sizes / sizes.sum(), strict=True))
    row = np.array([shares.get(name, 0.0) for name in question.names.tolist()])
    return np.tile(row, (len(question.truth), 1))
