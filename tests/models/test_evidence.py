"""Marker evidence: equal to a plain loop, a matter of the cell alone, and zero on average by chance."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load, save
from scipy.sparse import csr_matrix

from cellingua.cells.genes import load_vocabulary
from cellingua.core.errors import ModelError
from cellingua.models.evidence import CLIP, SPREAD_FLOOR, TOP, MarkerEvidence, fit_evidence

TERMS = ("CL:0000236", "CL:0000084", "CL:0000576", "CL:0000115")
GENES = 300


@dataclass
class Block:
    counts: csr_matrix
    totals: np.ndarray

    def take(self, rows: list[int]) -> Block:
        return Block(csr_matrix(self.counts[rows]), self.totals[rows])


def draw(n: int, seed: int) -> Block:
    """Return cells of random depth over the first genes of the vocabulary, totals above what is seen."""
    rng = np.random.default_rng(seed)
    level = np.random.default_rng(0).gamma(0.7, 1.0, GENES)
    dense = rng.poisson(level * rng.lognormal(0, 0.7, (n, 1))).astype(np.float32)
    counts = csr_matrix(dense)
    counts.resize((n, len(load_vocabulary())))
    return Block(counts, dense.sum(axis=1).astype(np.float64) * 1.25)


def markers() -> dict[str, np.ndarray]:
    """Return markers: as many as are used, more than are used, one, and some shared with the first."""
    rng = np.random.default_rng(5)
    drawn = rng.permutation(GENES)
    return {
        TERMS[0]: drawn[:TOP],
        TERMS[1]: drawn[TOP : 2 * TOP + 15],
        TERMS[2]: drawn[90:91],
        TERMS[3]: np.concatenate([drawn[5:10], drawn[100:105]]),
    }


@cache
def fitted() -> MarkerEvidence:
    background = draw(400, seed=1)
    return fit_evidence(markers(), background.counts, background.totals, strength=1.5)


def plain_score(evidence: MarkerEvidence, counts: np.ndarray, total: float, term: str) -> float:
    """Score one cell for one term, gene by gene."""
    column = load_vocabulary().ensembl_ids.tolist().index
    place = evidence.terms.index(term)
    raw = 0.0
    for gene, name in enumerate(evidence.genes):
        value = math.log1p(counts[column(name)] * 1e4 / total) if total > 0 else 0.0
        raw += float(evidence.weights[gene, place]) * min(value / float(evidence.spread[gene]), CLIP)
    chance = evidence.intercept[place] + evidence.slope[place] * math.log(np.count_nonzero(counts) + 50)
    return evidence.strength * (raw - chance) / evidence.scale[place]


def test_the_score_is_a_plain_sum_over_genes() -> None:
    block = draw(6, seed=2)
    block.counts.data[:3] *= 400  # beyond the clip
    block.totals[5] = 0.0
    found = fitted().score(block, TERMS)
    assert found.dtype == np.float32
    for cell in range(6):
        dense = block.counts[cell].toarray().ravel()
        plain = [plain_score(fitted(), dense, block.totals[cell], term) for term in TERMS]
        np.testing.assert_allclose(found[cell], plain, rtol=1e-4, atol=1e-4)


def test_rare_and_well_ranked_markers_weigh_more() -> None:
    # Rarity of a gene among the terms over the discounted rank, in unit length.
    held, used = fitted(), {term: rows[:TOP] for term, rows in markers().items()}
    ids = load_vocabulary().ensembl_ids
    for place, rows in enumerate(used.values()):
        named_by = [sum(int(row) in other.tolist() for other in used.values()) for row in rows]
        raw = [math.log(1 + len(used) / (1 + n)) / math.sqrt(math.log2(2 + rank)) for rank, n in enumerate(named_by)]
        expected = dict(zip(ids[rows].tolist(), np.array(raw) / np.linalg.norm(raw), strict=True))
        column = held.weights[:, place].toarray().ravel()
        found = {held.genes[gene]: column[gene] for gene in np.flatnonzero(column)}
        assert found == pytest.approx(expected, rel=1e-5)


def test_a_score_depends_on_the_cell_alone() -> None:
    block = draw(9, seed=3)
    whole = fitted().score(block, TERMS)
    order = [4, 0, 8, 2]
    np.testing.assert_array_equal(fitted().score(block.take(order), TERMS), whole[order])
    for cell in range(9):
        np.testing.assert_array_equal(fitted().score(block.take([cell]), TERMS)[0], whole[cell])


def test_candidates_do_not_change_each_other() -> None:
    block = draw(5, seed=3)
    whole = fitted().score(block, TERMS)
    some = fitted().score(block, [TERMS[2], None, "CL:0000000", TERMS[0], TERMS[2]])
    np.testing.assert_array_equal(some[:, [0, 3, 4]], whole[:, [2, 0, 2]])
    np.testing.assert_array_equal(some[:, 1:3], 0)
    np.testing.assert_array_equal(fitted().score(block, [None, TERMS[0]], 2.5)[:, 0], np.full(5, 2.5, np.float32))
    np.testing.assert_array_equal(fitted().score(block, [None, TERMS[0]], 2.5)[:, 1], whole[:, 0])
    assert fitted().knows([None, TERMS[0], "CL:0000000"]).tolist() == [False, True, False]
    assert fitted().score(block, []).shape == (5, 0)


@given(times=st.floats(1e-3, 1e3))
def test_sequencing_deeper_over_the_same_genes_changes_nothing(times: float) -> None:
    block = draw(4, seed=4)
    deeper = Block(csr_matrix(block.counts * np.float32(times)), block.totals * np.float32(times))
    np.testing.assert_allclose(fitted().score(deeper, TERMS), fitted().score(block, TERMS), rtol=1e-3, atol=1e-3)


def test_only_shares_of_the_total_count() -> None:
    block = draw(4, seed=4)
    half = replace(block, totals=block.totals * 2)
    before, after = fitted().score(block, TERMS), fitted().score(half, TERMS)
    assert (after <= before).all()
    assert (after[:, [0, 1, 3]] < before[:, [0, 1, 3]]).all()


def test_strength_scales() -> None:
    block = draw(4, seed=4)
    double = replace(fitted(), strength=3.0)
    np.testing.assert_allclose(double.score(block, TERMS), 2 * fitted().score(block, TERMS), rtol=1e-6)
    assert not replace(fitted(), strength=0.0).score(block, TERMS).any()


def test_a_cell_that_shows_a_types_markers_scores_highest_for_it() -> None:
    planted = draw(len(TERMS), seed=6)
    dense = planted.counts.toarray()
    for cell, term in enumerate(TERMS):
        dense[cell, markers()[term][:TOP]] += 20
    block = Block(csr_matrix(dense), dense.sum(axis=1).astype(np.float64))
    found = fitted().score(block, TERMS)
    assert found.argmax(axis=1).tolist() == [0, 1, 2, 3]
    assert (np.diag(found) > 1.5).all()


def test_background_scores_zero_give_or_take_one() -> None:
    seen, unseen = draw(400, seed=1), draw(2000, seed=7)
    found = replace(fitted(), strength=1.0).score(seen, TERMS)
    np.testing.assert_allclose(found.mean(axis=0), 0, atol=1e-3)
    np.testing.assert_allclose(found.std(axis=0), 1, atol=5e-3)
    other = replace(fitted(), strength=1.0).score(unseen, TERMS)
    np.testing.assert_allclose(other.mean(axis=0), 0, atol=0.2)
    np.testing.assert_allclose(other.std(axis=0), 1, atol=0.2)


def test_a_deep_cell_has_no_better_chance() -> None:
    unseen = draw(2000, seed=7)
    found = replace(fitted(), strength=1.0).score(unseen, TERMS)
    deep = unseen.totals > np.median(unseen.totals)
    assert (np.abs(found[deep].mean(axis=0) - found[~deep].mean(axis=0)) < 0.35).all()


def test_an_empty_cell_scores_what_a_cell_without_genes_would() -> None:
    empty = Block(csr_matrix((1, len(load_vocabulary())), dtype=np.float32), np.zeros(1))
    found = fitted().score(empty, TERMS)
    held = fitted()
    expected = -held.strength * (held.intercept + held.slope * math.log(50)) / held.scale
    np.testing.assert_allclose(found[0], expected, rtol=1e-5)


def test_a_gene_that_the_vocabulary_lost_is_passed_over() -> None:
    block = draw(3, seed=8)
    lost = replace(fitted(), genes=("ENSG99999999999", *fitted().genes[1:]))
    weights = fitted().weights.toarray()
    weights[0] = 0
    without = replace(fitted(), weights=type(fitted().weights)(weights))
    np.testing.assert_allclose(lost.score(block, TERMS), without.score(block, TERMS), rtol=1e-5, atol=1e-6)


def test_rare_genes_have_a_spread() -> None:
    assert fitted().spread.min() >= np.float32(SPREAD_FLOOR)
    assert len(fitted().genes) == len(set(fitted().genes)) == 2 * TOP + 1 + 5


def test_round_trip() -> None:
    back = MarkerEvidence.from_bytes(fitted().to_bytes(), "here")
    assert (back.terms, back.genes, back.strength) == (fitted().terms, fitted().genes, fitted().strength)
    for name in ("spread", "intercept", "slope", "scale"):
        np.testing.assert_array_equal(getattr(back, name), getattr(fitted(), name))
    block = draw(5, seed=9)
    np.testing.assert_allclose(back.score(block, TERMS), fitted().score(block, TERMS), atol=5e-3)  # half precision
    assert MarkerEvidence.from_bytes(back.to_bytes(), "here").to_bytes() == fitted().to_bytes()


def _without(held: dict[str, torch.Tensor]) -> None:
    del held["slope"]


def _short(held: dict[str, torch.Tensor]) -> None:
    held["scale"] = held["scale"][:2]


def _flat(held: dict[str, torch.Tensor]) -> None:
    held["spread"] = torch.zeros_like(held["spread"])


def _astray(held: dict[str, torch.Tensor]) -> None:
    held["rows"] = held["rows"] + 10_000


def _unordered(held: dict[str, torch.Tensor]) -> None:
    held["indptr"] = held["indptr"].flip(0)


def _no_strength(held: dict[str, torch.Tensor]) -> None:
    held["strength"] = held["strength"][:0]


def _another_type(held: dict[str, torch.Tensor]) -> None:
    held["spread"] = held["spread"].to(torch.bfloat16)


def _not_a_number(held: dict[str, torch.Tensor]) -> None:
    held["intercept"] = held["intercept"] * math.nan


def _not_text(held: dict[str, torch.Tensor]) -> None:
    held["terms"] = torch.full_like(held["terms"], 255)


@pytest.mark.parametrize(
    "damage",
    [_without, _short, _flat, _astray, _unordered, _no_strength, _another_type, _not_a_number, _not_text],
)
def test_damage_is_told(damage: object) -> None:
    held = load(fitted().to_bytes())
    damage(held)  # type: ignore[operator]
    with pytest.raises(ModelError, match=r"evidence\.safetensors can't be read"):
        MarkerEvidence.from_bytes(save(held), "evidence.safetensors")


@pytest.mark.parametrize("cut", [0, 4, 100, -1])
def test_a_cut_file_is_told(cut: int) -> None:
    with pytest.raises(ModelError, match="can't be read"):
        MarkerEvidence.from_bytes(fitted().to_bytes()[:cut], "evidence.safetensors")
