"""Labels for cells that came without: groups of like cells, named by votes between the profiles of every two types.

A single cell shows too little to be told from its siblings; the mean of some twenty like cells shows enough. So the
cells of a file are grouped finely, and each group is compared with reference profiles, two types at a time, over the
genes that tell these two apart. Known gates (no CD3, no T cell) correct what profiles confuse. It is how a careful
person labels an unlabelled file, and it serves the training side alone: a label made so depends on the file's other
cells, as no answer of a model may.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellingua.cells.collections import CellSet
from cellingua.cells.genes import load_vocabulary
from cellingua.cells.leakage import log_normalised
from cellingua.cells.simulate import ProfileSet
from cellingua.measures.rank_correlation import telling_genes, unit_ranks
from cellingua.recipes.presets import shipped

COMPONENTS, VARIABLE, GROUP = 30, 2000, 25  # principal components; variable genes; cells of a group
EACH_WAY, FLOOR, SHARP = 60, 0.1, 5.0  # genes either way of a pair; counts per 10,000; of a vote
LEAST_SEEN, MEASURED = 5, 0.9  # cells that show a gene; share of a study's profiles that measure it


@dataclass(frozen=True)
class Gate:
    """A rule on the mean of log1p counts per 10,000 of some genes: groups of these types beyond it are renamed.

    Attributes
    ----------
    of
        Types that it is for; None for all.
    genes
        Symbols.
    lowest, highest
        Where the mean must lie for the rule to apply.
    then
        The new type; ``""`` for none.
    """

    of: frozenset[str] | None
    genes: tuple[str, ...]
    lowest: float
    highest: float
    then: str


@dataclass(frozen=True)
class ConsensusConfig:
    """Which files are labelled so, and how.

    Attributes
    ----------
    files
        Stems of files of the corpus.
    studies
        Study of profiles -> weight of its votes.
    terms
        Types that are told apart.
    gates
        In their order.
    merge
        Type -> the type that it is called in the end.
    """

    files: tuple[str, ...]
    studies: Mapping[str, float]
    terms: tuple[str, ...]
    gates: tuple[Gate, ...]
    merge: Mapping[str, str]


def read_consensus(name: str) -> ConsensusConfig:
    """Return the shipped configuration ``consensus_<name>``; `ConfigError` where there is none."""
    held = shipped("consensus", f"consensus_{name}")
    gates = tuple(_gate(entry) for entry in held["gates"])
    return ConsensusConfig(tuple(held["files"]), held["studies"], tuple(held["terms"]), gates, held["merge"])


def _gate(entry: dict[str, Any]) -> Gate:
    low, high = entry.get("between", (entry.get("above", -np.inf), entry.get("below", np.inf)))
    of = None if entry["of"] is None else frozenset(entry["of"])
    return Gate(of, tuple(entry["genes"]), float(low), float(high), entry["then"])


def relabelled(cells: CellSet, profiles: ProfileSet, config: ConsensusConfig) -> CellSet:
    """Return the cells with the labels of the configured files replaced; they count as made by a machine."""
    terms, curated = cells.terms.astype(object), cells.curated.copy()
    for file in config.files:
        rows = np.flatnonzero(cells.files == file)
        if len(rows) > 2 * GROUP:
            terms[rows] = consensus(cells.take(rows), profiles, config)
            curated[rows] = False
    return CellSet(cells.counts, cells.totals, terms.astype(str), curated, cells.files, cells.names)


def consensus(cells: CellSet, profiles: ProfileSet, config: ConsensusConfig) -> NDArray[np.str_]:
    """Return the type of each cell of one file, ``""`` where its group is of none for sure."""
    group = groups(cells)
    sums = np.stack([np.asarray(cells.counts[group == g].sum(axis=0)).ravel() for g in range(group.max() + 1)])
    level = sums / np.maximum(sums.sum(axis=1, keepdims=True), 1) * 1e4
    shown = np.asarray((cells.counts > 0).sum(axis=0)).ravel() >= LEAST_SEEN
    vote = votes(level, shown, profiles, config)
    known = np.isfinite(vote.max(axis=1))  # where no study has any of the types, nothing was voted on
    named = np.where(known, np.array(config.terms, object)[vote.argmax(axis=1)], "")
    named = gated(named, level, config.gates)
    return np.array([config.merge.get(term, term) for term in named])[group]


def groups(cells: CellSet) -> NDArray[np.int64]:
    """Return a group of like cells for each cell."""
    from sklearn.cluster import KMeans
    from sklearn.decomposition import PCA

    values = log_normalised(cells.counts)
    mean = np.asarray(values.mean(axis=0)).ravel()
    spread = np.asarray(values.multiply(values).mean(axis=0)).ravel() - mean**2
    often = np.flatnonzero(values.getnnz(axis=0) >= max(LEAST_SEEN, 0.005 * len(cells)))
    # What varies more than other genes of its level.
    x, y = np.log(mean[often]), np.log(spread[often] + 1e-9)
    variable = often[np.argsort(np.polyval(np.polyfit(x, y, 2), x) - y, kind="stable")[:VARIABLE]]
    dense = values[:, variable].toarray()
    scaled = np.clip((dense - dense.mean(axis=0)) / (dense.std(axis=0) + 0.1), -5, 5)
    size = min(COMPONENTS, *scaled.shape)
    inner = PCA(size, svd_solver="full", random_state=0).fit_transform(scaled)
    found = KMeans(max(10, len(cells) // GROUP), n_init=3, random_state=0).fit_predict(inner)
    return np.asarray(np.unique(found, return_inverse=True)[1], np.int64)


def votes(
    level: NDArray[np.floating], shown: NDArray[np.bool_], profiles: ProfileSet, config: ConsensusConfig
) -> NDArray[np.float64]:
    """Return how far each group (rows of counts per 10,000) prefers each type to the others, (groups, terms)."""
    total = np.zeros((len(level), len(config.terms)))
    weight = np.zeros(len(config.terms))
    for study, weighs in config.studies.items():
        of = profiles.studies == study
        if not of.any():
            continue
        genes = np.flatnonzero(shown & (profiles.measured[of].mean(axis=0) > MEASURED))
        there = [place for place, term in enumerate(config.terms) if (of & (profiles.terms == term)).any()]
        means = [
            profiles.expression[of & (profiles.terms == config.terms[place])][:, genes].mean(axis=0) for place in there
        ]
        reference = np.log(np.stack(means) * 1e4 + FLOOR)
        total[:, there] += weighs * _duels(np.log(level[:, genes] + FLOOR), reference)
        weight[there] += weighs
    return np.where(weight > 0, total / np.maximum(weight, 1e-9), -np.inf)


def _duels(level: NDArray[np.floating], reference: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return the mean vote for each reference (groups, references) over its duels with all others."""
    score = np.zeros((len(level), len(reference)))
    for a in range(len(reference)):
        for b in range(a + 1, len(reference)):
            genes = telling_genes(reference[a], reference[b], EACH_WAY)
            agree = unit_ranks(level[:, genes]) @ unit_ranks(reference[[a, b]][:, genes]).T
            vote = np.tanh(SHARP * (agree[:, 0] - agree[:, 1]))
            score[:, a] += vote
            score[:, b] -= vote
    return score / max(1, len(reference) - 1)


def gated(named: NDArray[np.object_], level: NDArray[np.floating], gates: Sequence[Gate]) -> NDArray[np.object_]:
    """Return the types of groups after the gates."""
    row_of = {symbol: row for row, symbol in enumerate(load_vocabulary().symbols.tolist())}
    out = named.copy()
    for gate in gates:
        mean = np.log1p(level[:, [row_of[gene] for gene in gate.genes]]).mean(axis=1)
        fits = (mean > gate.lowest) & (mean < gate.highest)
        for place in np.flatnonzero(fits):
            if gate.of is None or out[place] in gate.of:
                out[place] = gate.then
    return out
