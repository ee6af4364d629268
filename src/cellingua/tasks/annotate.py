"""Name the cells of a file or an AnnData from plain words."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from anndata import AnnData

from cellingua.calibration.conformal import Rule
from cellingua.calibration.hierarchy import hierarchy_of
from cellingua.calibration.rollup import ROLLED_UP, STATUS, UNKNOWN, Decisions
from cellingua.cells.diagnosis import Diagnosis
from cellingua.cells.doctor import examine
from cellingua.cells.genes import load_vocabulary
from cellingua.cells.reading import CellFile, open_cells
from cellingua.cells.wording import printable
from cellingua.core.errors import InputError
from cellingua.core.progress import Progress, Silent
from cellingua.core.runtime import pick_device, versions
from cellingua.models.matching import TOP, CandidateMatch
from cellingua.models.shelf import load_annotator
from cellingua.tasks.answering import Answering, answering_of
from cellingua.tasks.clusters import (
    ClusterRow,
    Graph,
    cluster_cells,
    consensus,
    mean_probabilities,
    neighbour_graph,
)
from cellingua.tasks.columns import text_column
from cellingua.tasks.embed import embedding_key, precision_of
from cellingua.tasks.helped import helped_by_composition, helped_by_neighbours
from cellingua.tasks.markers import cluster_markers
from cellingua.tasks.options import (
    KEY,
    MODEL,
    AnnotateOptions,
    Labels,
    check_matching,
    choose_candidates,
    own_classes,
    ready_to_match,
)
from cellingua.tasks.overlap import WatchedBlocks
from cellingua.tasks.result import Annotation
from cellingua.tasks.scoring import MIN_TOKENS, Scores, score_cells
from cellingua.tasks.writing import check_keys, write_keys
from cellingua.words.candidates import Candidates
from cellingua.words.ontology import load_ontology

if TYPE_CHECKING:
    from cellingua.models.tuned import Model

UNKNOWN_LABEL = "unknown"
LISTED = 200  # candidate sets up to this size are written out in the provenance; larger ones by hash


def annotate(
    cells: AnnData | CellFile | str | Path,
    labels: Labels | None = None,
    *,
    tissue: str | None = None,
    model: str | Path | Model = MODEL,
    layer: str | None = None,
    key_added: str = KEY,
    cluster_key: str | None = None,
    sample_key: str | None = None,
    compare_to: str | None = None,
    overwrite: bool = False,
    seed: int = 0,
    device: str = "auto",
    match: bool | str = False,
    match_top: int = TOP,
    precision: str = "auto",
    error_rate: float | None = None,
    smooth: bool = False,
    in_sample: bool = False,
) -> Annotation:
    """Name every cell, and every cluster, from words.

    Parameters
    ----------
    cells
        An AnnData (the keys below are written into it), or a path: then nothing is written.
    labels, tissue, layer, key_added, cluster_key, sample_key, compare_to, overwrite, seed
        See `AnnotateOptions`.
    model
        Name of a model, its folder, or a loaded one. A tuned model names its own classes unless others are given.
    device
        ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
    match, match_top
        See `AnnotateOptions`; True means ``ours``.
    precision
        Of a BERT cell tower and of texts read beside its cells: ``auto`` (bfloat16 where the device has it),
        ``float32``, ``bfloat16`` or ``int8``; for a model that isn't loaded yet.
    error_rate
        Such as 0.05: the share of cells that may be left without a right answer. Each cell gets the narrowest term that
        keeps it, and is ``unknown`` where none does or where it seems to be of none of the candidates; see the page on
        answers.
    smooth, in_sample
        Add ``obs[KEY_smoothed]`` (helped by neighbours) and ``obs[KEY_in_sample]`` (corrected for the composition of
        the sample, or of each sample of `sample_key`). The other columns stay as they are.

    Returns
    -------
    Annotation
        Labels, probabilities, embedding, clusters. Into an AnnData go ``obs[KEY]``, ``obs[KEY_id]``,
        ``obs[KEY_probability]``, ``obs[KEY_runner_up]``, ``obs[KEY_status]``, ``obs[KEY_cluster]``,
        ``obs[KEY_cluster_label]``, ``obsm["X_langcell"]`` and ``uns[KEY]``; with an error rate ``obs[KEY_unknown]``,
        where candidates were named; ``X`` is never changed.

    Raises
    ------
    InputError
        The cells can't be used (`CountsError`, `GeneError`, `FileError`), a label or the tissue does not exist
        (`LabelError`), a column is missing, or a key exists and `overwrite` is False.
    """
    mode = "ours" if match is True else match or None
    options = AnnotateOptions(
        labels, tissue, layer, key_added, cluster_key, sample_key, compare_to, overwrite, seed, mode, match_top,
        error_rate, smooth, in_sample,
    )  # fmt: skip
    if isinstance(cells, AnnData):
        columns, obsm, uns = list(cells.obs.columns), list(cells.obsm), list(cells.uns)
        check_keys(columns, obsm, uns, key_added, overwrite=overwrite, more=options.more)
    candidates = choose_candidates(labels, tissue)
    loaded = model
    if isinstance(loaded, str | Path):
        loaded = load_annotator(loaded, device=pick_device(device).name, precision=precision)
    candidates = own_classes(loaded, candidates, labels, tissue)
    check_matching(loaded, candidates, options)
    if isinstance(cells, AnnData) and embedding_key("joint", loaded) in cells.obsm and not overwrite:
        raise InputError(f"obsm has a key {embedding_key('joint', loaded)!r} already.", "a free key", "overwrite=True")
    source = cells if isinstance(cells, CellFile) else open_cells(cells)
    result = annotate_cells(source, candidates, loaded, options)
    if isinstance(cells, AnnData):
        write_keys(cells, result, key_added)
    return result


def annotate_cells(
    cells: CellFile,
    candidates: Candidates,
    model: Model,
    options: AnnotateOptions,
    *,
    diagnosis: Diagnosis | None = None,
    progress: Progress | None = None,
) -> Annotation:
    """Name the cells of an opened file; nothing is written.

    Parameters
    ----------
    candidates
        What to choose from, as `choose_candidates` gives.
    diagnosis
        What the doctor said, if it has been asked already.

    Raises
    ------
    InputError
        As `annotate`.
    """
    progress = progress or Silent()
    keys = (options.cluster_key, options.sample_key, options.compare_to)
    given, samples, own = (text_column(cells.obs, key) if key else None for key in keys)
    if diagnosis is None:
        diagnosis = examine(cells, layer=options.layer)
    diagnosis.raise_if_refused()
    check_matching(model, candidates, options)
    blocks = WatchedBlocks(cells, diagnosis, model)
    answering = answering_of(model, candidates, options.error_rate, options.match)
    for line in answering.warnings():
        progress.say(line)
    naming = _Naming(candidates, answering.rule)
    match = ready_to_match(model, candidates, options)
    progress.step("Naming cells", cells.n_cells)
    scores = score_cells(blocks, model, candidates, naming.hierarchy, progress, match, answering)
    seen = blocks.overlap()
    if seen.known or not seen.recorded:
        progress.say(printable(seen.sentence()))
    labels, ids, runner_up = naming.labels(scores.decisions)
    progress.step("Finding clusters")
    graph = neighbour_graph(scores.embedding, options.seed)
    codes, names = _clusters(scores, graph, given, options.seed)
    smoothed = corrected = None
    if options.smooth:
        smoothed = naming.labels(helped_by_neighbours(scores, graph, naming.rule, naming.hierarchy))[0]
    if options.in_sample:
        corrected = naming.labels(helped_by_composition(scores, samples, naming.rule, naming.hierarchy))[0]
    progress.step("Finding the genes that speak for each cluster", cells.n_cells)
    markers = cluster_markers(blocks, codes, np.asarray(load_vocabulary().symbols), progress)
    unique, renamed = unique_names(cells.obs.index)
    return Annotation(
        names=unique,
        labels=labels,
        term_ids=ids,
        probability=scores.decisions.probability,
        runner_up=runner_up,
        status=np.array(STATUS, dtype=object)[scores.decisions.status],
        scores=scores,
        candidates=candidates,
        cluster=np.array(names, dtype=object)[codes],
        clusters=naming.clusters(scores, codes, names, labels, markers),
        diagnosis=diagnosis,
        provenance=_provenance(candidates, model, options, diagnosis, answering, match) | {"seen": seen.to_dict()},
        samples=samples,
        own=own,
        graph=graph,
        renamed=renamed,
        embedding_key=embedding_key("joint", model),
        smoothed=smoothed,
        in_sample=corrected,
    )


class _Naming:
    """From scores to names: the same candidates, terms and rule for cells and for clusters."""

    def __init__(self, candidates: Candidates, rule: Rule) -> None:
        ontology = load_ontology("CL")
        self.rule = rule
        self.hierarchy, terms = hierarchy_of(candidates.term_ids, ontology)
        pairs = zip(candidates.labels, candidates.term_ids, strict=True)
        self.candidates = [(label, term or "") for label, term in pairs]
        # A term that is a candidate too is called as the user wrote it.
        written = {term: label for label, term in reversed(self.candidates)}
        self.terms = [(written.get(term) or ontology.name(term), term) for term in terms]

    def labels(self, decisions: Decisions) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return label, term id and runner-up of each cell as object arrays."""
        names, ids = (np.array(column, dtype=object) for column in zip(*self.candidates, ("", ""), strict=True))
        labels, term_ids, runner_up = names[decisions.best], ids[decisions.best], names[decisions.second]
        rolled, unknown = decisions.status == ROLLED_UP, decisions.status == UNKNOWN
        if rolled.any():
            wider, wider_ids = (np.array(column, dtype=object) for column in zip(*self.terms, strict=True))
            labels[rolled] = wider[decisions.ancestor[rolled]]
            term_ids[rolled] = wider_ids[decisions.ancestor[rolled]]
        labels[unknown], term_ids[unknown] = UNKNOWN_LABEL, ""
        doubtful = rolled | unknown
        runner_up[doubtful] = names[decisions.best[doubtful]]
        runner_up[decisions.probability == 0.0] = ""
        return labels, term_ids, runner_up

    def clusters(
        self,
        scores: Scores,
        codes: np.ndarray,
        names: list[str],
        labels: np.ndarray,
        markers: Sequence[tuple[str, ...]],
    ) -> list[ClusterRow]:
        """Return the table of clusters."""
        means = mean_probabilities(codes, len(names), len(self.candidates), scores.top_index, scores.top_probability)
        answers = consensus(means, self.hierarchy, self.terms, self.candidates, self.rule.threshold, self.rule.floor)
        rows = []
        for number, (label, term, status, probability, alternatives) in enumerate(answers):
            inside = codes == number
            n, share = int(inside.sum()), float(np.mean(labels[inside] == label))
            rows.append(
                ClusterRow(names[number], n, label, term, status, probability, alternatives, share, markers[number])
            )
        return rows


def unique_names(names: pd.Index) -> tuple[np.ndarray, int]:
    """Return names made unique by ``-1``, ``-2``... behind repeated ones, and how many were changed."""
    texts = [str(name) for name in names]
    taken = set(texts)
    if len(taken) == len(texts):
        return np.array(texts, dtype=object), 0
    seen: set[str] = set()
    following: dict[str, int] = {}
    changed = 0
    for position, text in enumerate(texts):
        if text in seen:
            number = following.get(text, 1)
            while f"{text}-{number}" in taken:
                number += 1
            following[text] = number + 1
            texts[position] = f"{text}-{number}"
            taken.add(texts[position])
            changed += 1
        seen.add(texts[position])
    return np.array(texts, dtype=object), changed


def _clusters(scores: Scores, graph: Graph | None, given: np.ndarray | None, seed: int) -> tuple[np.ndarray, list[str]]:
    """Return cluster codes int64 (n,), largest first, and the names of the clusters."""
    if given is None:
        codes = cluster_cells(scores.embedding, graph, seed)
        return codes, [str(number) for number in range(int(codes.max()) + 1)]
    values, inverse, sizes = np.unique(given.astype(str), return_inverse=True, return_counts=True)
    order = np.argsort(-sizes, kind="stable")
    rank = np.empty(len(values), dtype=np.int64)
    rank[order] = np.arange(len(values))
    return rank[inverse], [str(values[place]) or "(none)" for place in order]


def _provenance(
    candidates: Candidates,
    model: Model,
    options: AnnotateOptions,
    diagnosis: Diagnosis,
    answering: Answering,
    match: CandidateMatch | None = None,
) -> dict[str, Any]:
    """Return what is needed to repeat the annotation, as JSON values."""
    pairs = [f"{label}\t{term or ''}" for label, term in zip(candidates.labels, candidates.term_ids, strict=True)]
    digest = hashlib.sha256("\n".join(pairs).encode()).hexdigest()[:16]
    chosen: dict[str, Any] = {"origin": candidates.origin, "n": len(candidates.labels), "hash": digest}
    if len(candidates.labels) <= LISTED:
        chosen["labels"] = list(candidates.labels)
        chosen["term_ids"] = [term or "" for term in candidates.term_ids]
    described = {
        "name": model.name,
        "hash": model.hash,
        "marker_evidence": getattr(model, "evidence", None) is not None,
    }
    if model.head is not None:
        described |= {"tuned": {"method": model.head.method, **model.head.facts}}
    return {
        "model": described,
        "candidates": chosen,
        "parameters": {
            "tissue": options.tissue,
            "layer": options.layer,
            "cluster_key": options.cluster_key,
            "sample_key": options.sample_key,
            "compare_to": options.compare_to,
            "seed": options.seed,
            **answering.named(),
            "smooth": options.smooth,
            "in_sample": options.in_sample,
            "min_tokens": MIN_TOKENS,
            "precision": precision_of(model).name,
            "match": None if match is None else match.to_dict(),
        },
        "doctor": diagnosis.to_dict(),
        "versions": versions(),
    }
