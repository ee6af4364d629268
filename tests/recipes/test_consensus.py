"""Labels for files without: planted groups come out right, gates correct them, and no other file is touched."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from scipy.sparse import csr_matrix, vstack

from cellingua.cells.collections import CellSet
from cellingua.cells.genes import load_vocabulary
from cellingua.cells.simulate import ProfileSet
from cellingua.core.errors import ConfigError
from cellingua.recipes.consensus import (
    GROUP,
    ConsensusConfig,
    Gate,
    consensus,
    gated,
    groups,
    read_consensus,
    relabelled,
)
from cellingua.words.ontology import load_ontology

TERMS = ("CL:0000236", "CL:0000624", "CL:0000625", "CL:0000576")
GENES = 600  # expressed by the planted types, of the vocabulary's first
STUDIES = {"North": 1.0, "South": 0.5}
CONFIG = ConsensusConfig(("bare",), STUDIES, TERMS, (), {})


@cache
def levels() -> np.ndarray:
    """Return mean counts (types, genes): two of the types differ in a few genes only."""
    rng = np.random.default_rng(3)
    level = np.tile(rng.gamma(0.6, 1.5, GENES), (len(TERMS), 1))
    for number in range(len(TERMS)):
        level[number, 100 * number : 100 * number + 60] += 6
    level[2] = level[1]
    level[1, 400:420] += 8
    level[2, 420:440] += 8
    return level


@cache
def profiles() -> ProfileSet:
    """Return a profile a type and study, off by a factor a gene; the second study measured fewer genes."""
    rng = np.random.default_rng(4)
    expression = np.zeros((2 * len(TERMS), len(load_vocabulary())), np.float32)
    expression[:, :GENES] = np.tile(levels(), (2, 1)) * rng.lognormal(0, 0.2, (2 * len(TERMS), GENES))
    measured = expression > 0
    measured[len(TERMS) :, :GENES:10] = False
    expression[~measured] = 0
    expression /= expression.sum(axis=1, keepdims=True)
    return ProfileSet(expression, measured, np.array(TERMS * 2), np.repeat(list(STUDIES), len(TERMS)))


def cells(file: str, n: int = 240, seed: int = 0, kinds: int = len(TERMS)) -> tuple[CellSet, np.ndarray]:
    """Return shallow cells of a file, which all came with the same wrong label, and their types."""
    rng = np.random.default_rng(seed)
    kind = rng.integers(0, kinds, n)
    dense = np.zeros((n, len(load_vocabulary())), np.float32)
    dense[:, :GENES] = rng.poisson(levels()[kind] * rng.lognormal(0, 0.3, (n, 1)))
    counts, totals = csr_matrix(dense), dense.sum(axis=1).astype(np.float64)
    names = np.array([f"{file}{row}" for row in range(n)])
    held = CellSet(counts, totals, np.full(n, "CL:0000000"), np.ones(n, bool), np.full(n, file), names)
    return held, np.array(TERMS)[kind]


def together(*sets: CellSet) -> CellSet:
    arrays = [
        np.concatenate([getattr(s, name) for s in sets]) for name in ("totals", "terms", "curated", "files", "names")
    ]
    return CellSet(csr_matrix(vstack([s.counts for s in sets])), *arrays)


def test_planted_types_get_their_names() -> None:
    held, truth = cells("bare")
    found = consensus(held, profiles(), CONFIG)
    assert (found == truth).mean() > 0.97
    assert set(found.tolist()) == set(TERMS)


def test_the_same_cells_get_the_same_names() -> None:
    held, _ = cells("bare")
    np.testing.assert_array_equal(consensus(held, profiles(), CONFIG), consensus(held, profiles(), CONFIG))


def test_groups_are_small_and_numbered_from_zero() -> None:
    held, truth = cells("bare")
    found = groups(held)
    count = np.bincount(found)
    assert len(found) == len(held)
    assert (count > 0).all()
    assert len(count) == max(10, len(held) // GROUP)
    pure = [np.unique(truth[found == group], return_counts=True)[1].max() for group in range(len(count))]
    assert sum(pure) / len(held) > 0.97


def test_only_the_files_that_are_named_change() -> None:
    (bare, truth), (own, _) = cells("bare"), cells("own", 80, seed=5)
    both = together(own, bare)
    found = relabelled(both, profiles(), CONFIG)
    here = both.files == "bare"
    assert (found.terms[here] == truth).mean() > 0.97
    assert not found.curated[here].any()
    np.testing.assert_array_equal(found.terms[~here], own.terms)
    assert found.curated[~here].all()
    for name in ("totals", "files", "names"):
        np.testing.assert_array_equal(getattr(found, name), getattr(both, name))
    assert found.counts is both.counts
    assert both.curated.all()  # what was given stays
    # Other cells of other files play no part, and a name that no file has is passed over.
    alone = relabelled(bare, profiles(), replace(CONFIG, files=("bare", "not there")))
    np.testing.assert_array_equal(alone.terms, found.terms[here])


def test_few_cells_keep_what_they_came_with() -> None:
    held, _ = cells("bare", 2 * GROUP)
    found = relabelled(held, profiles(), CONFIG)
    np.testing.assert_array_equal(found.terms, held.terms)
    assert found.curated.all()


def test_types_are_merged_in_the_end() -> None:
    held, truth = cells("bare")
    merged = replace(CONFIG, merge={"CL:0000624": "CL:0000084", "CL:0000625": "CL:0000084"})
    expected = np.where(np.isin(truth, TERMS[1:3]), "CL:0000084", truth)
    assert (consensus(held, profiles(), merged) == expected).mean() > 0.97


def test_types_and_studies_without_profiles_get_no_votes() -> None:
    held, truth = cells("bare", kinds=3)
    lacking = profiles().take(profiles().terms != TERMS[3])
    found = consensus(held, lacking, replace(CONFIG, studies=STUDIES | {"West": 3.0}))
    assert (found == truth).mean() > 0.97
    assert (consensus(held, profiles(), replace(CONFIG, studies={"West": 1.0})) == "").all()


# -- gates -----------------------------------------------------------------------------------------------------------


def level_of(**genes: float) -> np.ndarray:
    """Return counts per 10,000 (1, vocabulary) in which each of these has this log1p."""
    level = np.zeros((1, len(load_vocabulary())))
    symbols = load_vocabulary().symbols.tolist()
    for symbol, value in genes.items():
        level[0, symbols.index(symbol)] = np.expm1(value)
    return level


CD3 = Gate(frozenset({"NK", "T"}), ("CD3D", "CD3E"), -np.inf, 1.0, "NK")
PLATELET = Gate(None, ("PPBP", "PF4"), 3.0, np.inf, "platelet")
UNSURE = Gate(frozenset({"T"}), ("CD8A",), 0.6, 1.1, "")


@pytest.mark.parametrize(
    ("named", "genes", "after"),
    [
        ("T", {"CD3D": 0.8, "CD3E": 0.8}, "NK"),
        ("T", {"CD3D": 1.4, "CD3E": 0.8}, "T"),  # the mean of the genes counts
        ("T", {"CD3D": 1.4, "CD3E": 0.4}, "NK"),
        ("B", {"CD3D": 0.8, "CD3E": 0.8}, "B"),  # a gate for other types
        ("B", {"PPBP": 4.0, "PF4": 4.0}, "platelet"),
        ("", {"PPBP": 4.0, "PF4": 4.0}, "platelet"),
        ("B", {"PPBP": 4.0}, "B"),
        ("T", {"CD3D": 2.0, "CD3E": 2.0, "CD8A": 0.8}, ""),
        ("T", {"CD3D": 2.0, "CD3E": 2.0, "CD8A": 1.2}, "T"),
        ("T", {"CD3D": 0.1, "CD3E": 0.1, "CD8A": 0.8}, "NK"),  # renamed by the first, so the last is not for it
    ],
)
def test_gates_rename_what_they_are_for(named: str, genes: dict[str, float], after: str) -> None:
    given = np.array([named], object)
    assert gated(given, level_of(**genes), [PLATELET, CD3, UNSURE]).tolist() == [after]
    assert given.tolist() == [named]


def test_a_gate_works_on_cells() -> None:
    held, truth = cells("bare")
    own = load_vocabulary().symbols[:60].tolist()  # genes of the first type
    gate = Gate(frozenset({TERMS[0]}), tuple(own), 1.0, np.inf, "")
    found = consensus(held, profiles(), replace(CONFIG, gates=(gate,)))
    assert (found == np.where(truth == TERMS[0], "", truth)).mean() > 0.97


# -- what ships ------------------------------------------------------------------------------------------------------


def test_the_shipped_configuration_names_what_exists() -> None:
    held, ontology = read_consensus("blood"), load_ontology("CL")
    symbols = set(load_vocabulary().symbols.tolist())
    said = {*held.merge, *held.merge.values()}
    for gate in held.gates:
        assert gate.lowest < gate.highest
        assert set(gate.genes) <= symbols
        assert gate.of is None or gate.of <= set(held.terms)
        said |= {gate.then} - {""} | (gate.of or set())
    assert held.files
    assert held.gates
    assert len(set(held.terms)) == len(held.terms) > 10
    for term in {*held.terms, *said}:
        assert term in ontology
        assert ontology.obsolete(term) is None
    assert set(held.merge) <= set(held.terms)
    assert not set(held.merge) & set(held.merge.values())  # nothing is merged twice
    assert all(weight > 0 for weight in held.studies.values())


@pytest.mark.parametrize("name", ["blud", "", "../recipes/blood"])
def test_another_name_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="no preset"):
        read_consensus(name)
