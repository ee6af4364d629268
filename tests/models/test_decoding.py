"""The decoder that arbitrates between like types: equal to a plain twin, a matter of the cell alone, kept in files."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import tiny_model as tiny
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load, save
from scipy.sparse import csr_matrix
from scipy.stats import spearmanr
from sklearn.linear_model import Ridge

from cellingua.cells.genes import load_vocabulary
from cellingua.core.errors import ModelError
from cellingua.models.bundle import load_bundle, save_bundle
from cellingua.models.decoding import ALIKE, EACH_WAY, LIKELIEST, Decoded, ExpressionDecoder, fit_decoder
from cellingua.models.manifest import write_manifest
from cellingua.models.model import LangCellModel

GENES, JOINT = 200, 32
KNOWN = ["CL:0000236", "CL:0000084", "CL:0000576", "CL:0000115", "CL:0000171", "CL:0000623", "CL:0000788"]
TERMS = [*KNOWN[:3], None, *KNOWN[3:5], "CL:0000000", *KNOWN[5:]]  # free text and a term of words alone among them


@cache
def decoder() -> ExpressionDecoder:
    """Return a decoder of which some types are alike and some are not."""
    rng = np.random.default_rng(3)
    columns = np.sort(rng.permutation(1000)[:GENES])
    genes = tuple(load_vocabulary().ensembl_ids[columns].tolist())
    mean = rng.normal(0, 2, GENES).astype(np.float32)
    return ExpressionDecoder(genes, frozenset(KNOWN), mean, rng.normal(0, 1, (JOINT, GENES)).astype(np.float32))


@cache
def vectors() -> np.ndarray:
    """Return a vector a candidate: those of known terms close together, save that of one."""
    drawn = np.random.default_rng(4).normal(0, 0.09, (len(TERMS), JOINT)).astype(np.float32)
    drawn[TERMS.index(KNOWN[4])] *= 8
    return drawn


def decoded() -> Decoded:
    return decoder().prepare(vectors(), TERMS)


def cells(n: int = 25, seed: int = 1) -> tuple[csr_matrix, np.ndarray]:
    """Return counts of cells over the vocabulary, one of them empty, and logits of which no two are alike."""
    rng = np.random.default_rng(seed)
    dense = np.zeros((n, len(load_vocabulary())), np.float32)
    dense[:, :1000] = rng.poisson(rng.gamma(0.6, 2.0, (n, 1000)))
    dense[n // 2] = 0
    return csr_matrix(dense), rng.normal(0, 3, (n, len(TERMS))).astype(np.float32)


def plain_arbitration(levels: list[np.ndarray | None], genes: list[int], cell: np.ndarray, logits: np.ndarray) -> list:
    """Arbitrate for one cell, pair by pair, with correlations from elsewhere."""
    added = [0.0] * len(logits)
    top = sorted(range(len(logits)), key=lambda place: -logits[place])[:LIKELIEST]
    for one, other in combinations(top, 2):
        a, b = levels[one], levels[other]
        if a is None or b is None or np.corrcoef(a, b)[0, 1] <= ALIKE:
            continue
        ranked = sorted(range(len(genes)), key=lambda gene: a[gene] - b[gene])
        telling = ranked[:EACH_WAY] + ranked[-EACH_WAY:]
        shown = [cell[genes[gene]] for gene in telling]
        gain = 0.0
        if len(set(shown)) > 1:
            gain = spearmanr(shown, a[telling])[0] - spearmanr(shown, b[telling])[0]
        added[one] += gain / (len(top) - 1)
        added[other] -= gain / (len(top) - 1)
    return added


def test_arbitration_is_a_plain_loop_over_cells_and_pairs() -> None:
    counts, logits = cells()
    held = decoder()
    column = {gene: row for row, gene in enumerate(load_vocabulary().ensembl_ids.tolist())}
    levels = [
        held.mean + vectors()[place] @ held.weights if term in held.terms else None for place, term in enumerate(TERMS)
    ]
    found = decoded().arbitration(counts, logits)
    assert found.dtype == np.float32
    columns = [column[gene] for gene in held.genes]
    expected = [plain_arbitration(levels, columns, counts[row].toarray()[0], logits[row]) for row in range(25)]
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert (np.abs(found) > 0.01).any(axis=1).mean() > 0.8  # there was something to arbitrate


def test_there_are_siblings_and_strangers() -> None:
    held = decoded()
    assert held.siblings(0, 1)
    stranger = int(held.place[TERMS.index(KNOWN[4])])
    assert not held.siblings(0, stranger)
    assert [place for place, row in enumerate(held.place.tolist()) if row < 0] == [3, 6]


@given(order=st.permutations(range(25)), size=st.integers(1, 25))
@settings(max_examples=15, deadline=None)
def test_a_row_depends_on_that_cell_alone(order: list[int], size: int) -> None:
    counts, logits = cells()
    held = decoded()
    whole = held.arbitration(counts, logits)
    for start in range(0, 25, size):
        rows = order[start : start + size]
        np.testing.assert_array_equal(held.arbitration(csr_matrix(counts[rows]), logits[rows]), whole[rows])


@given(order=st.permutations(range(len(TERMS))))
@settings(max_examples=20, deadline=None)
def test_the_order_of_candidates_only_permutes_columns(order: list[int]) -> None:
    counts, logits = cells()
    other = decoder().prepare(vectors()[order], [TERMS[place] for place in order])
    found = other.arbitration(counts, logits[:, order])
    np.testing.assert_allclose(found, decoded().arbitration(counts, logits)[:, order], atol=1e-5)


def test_what_one_gains_another_loses_and_depth_plays_no_part() -> None:
    counts, logits = cells()
    found = decoded().arbitration(counts, logits)
    np.testing.assert_allclose(found.sum(axis=1), 0, atol=1e-5)
    np.testing.assert_array_equal(decoded().arbitration(counts * 7, logits), found)
    assert np.abs(found).max() <= 2


def test_unknown_terms_and_unlikely_ones_get_nothing() -> None:
    counts, logits = cells()
    found = decoded().arbitration(counts, logits)
    assert not found[:, [3, 6]].any()
    unlikely = np.argsort(np.argsort(-logits, axis=1), axis=1) >= LIKELIEST
    assert not found[unlikely].any()
    none = decoder().prepare(vectors(), ["CL:0000000", None] * 4 + ["CL:0000540"])
    assert not none.arbitration(counts, logits).any()


def test_a_cell_like_one_of_two_siblings_speaks_for_it() -> None:
    held = decoder().prepare(vectors()[:2], KNOWN[:2])
    counts = np.zeros((2, len(load_vocabulary())), np.float32)
    counts[:, held.columns] = np.exp(held.levels)
    found = held.arbitration(csr_matrix(counts), np.zeros((2, 2), np.float32))
    assert found[0, 0] > 0.05 > -0.05 > found[0, 1]
    assert found[1, 1] > 0.05 > -0.05 > found[1, 0]


def test_empty_cells_are_not_arbitrated() -> None:
    counts, logits = cells()
    found = decoded().arbitration(counts, logits)
    assert not found[12].any()
    empty = csr_matrix(np.zeros((3, len(load_vocabulary())), np.float32))
    assert not decoded().arbitration(empty, logits[:3]).any()


@pytest.mark.parametrize("k", [0, 1])
def test_one_candidate_has_no_rival(k: int) -> None:
    counts, logits = cells()
    found = decoder().prepare(vectors()[:k], TERMS[:k]).arbitration(counts, logits[:, :k])
    assert found.shape == (25, k)
    assert not found.any()


def test_no_cells() -> None:
    counts, logits = cells()
    assert decoded().arbitration(csr_matrix(counts[:0]), logits[:0]).shape == (0, len(TERMS))


def test_a_gene_that_the_vocabulary_lost_is_passed_over() -> None:
    held = decoder()
    lost = replace(held, genes=("ENSG99999999999", *held.genes[1:]))
    without = ExpressionDecoder(held.genes[1:], held.terms, held.mean[1:], held.weights[:, 1:])
    counts, logits = cells()
    np.testing.assert_allclose(
        lost.prepare(vectors(), TERMS).arbitration(counts, logits),
        without.prepare(vectors(), TERMS).arbitration(counts, logits),
        atol=1e-5,
    )


# -- the fit ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ridge", [1e-3, 0.5])
@pytest.mark.parametrize("n", [12, 60])  # fewer terms than the joint space is wide, and more
def test_the_fit_is_a_weighted_ridge_regression(ridge: float, n: int) -> None:
    rng = np.random.default_rng(n)
    v = rng.normal(size=(n, JOINT)).astype(np.float32)
    expression = rng.normal(size=(n, 20)).astype(np.float32)
    weight = rng.integers(1, 9, n).astype(np.float64)
    mean, weights = fit_decoder(v, expression, weight, ridge=ridge)
    expected = np.average(expression, axis=0, weights=np.sqrt(weight))
    np.testing.assert_allclose(mean, expected, atol=1e-5)
    theirs = Ridge(alpha=ridge, fit_intercept=False, solver="svd")
    theirs.fit(v.astype(np.float64), expression - expected, sample_weight=np.sqrt(weight))
    np.testing.assert_allclose(weights, theirs.coef_.T, atol=1e-4)
    assert (mean.dtype, weights.dtype) == (np.float32, np.float32)


def test_a_map_that_is_linear_is_found() -> None:
    rng = np.random.default_rng(0)
    v, truth = rng.normal(size=(80, JOINT)).astype(np.float32), rng.normal(size=(JOINT, 20)).astype(np.float32)
    v -= v.mean(axis=0)
    mean, weights = fit_decoder(v, v @ truth + 3, np.ones(80), ridge=1e-6)
    np.testing.assert_allclose(mean, 3, atol=1e-4)
    np.testing.assert_allclose(weights, truth, atol=1e-3)


# -- agreement -------------------------------------------------------------------------------------------------------


def test_agreement_is_spearmans_correlation_over_the_genes_that_vary(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cellingua.models.decoding.VARIABLE", 50)
    counts, _ = cells()
    held = decoder()
    known = [place for place, term in enumerate(TERMS) if term in held.terms]
    levels = held.mean + vectors()[known] @ held.weights
    genes = sorted(range(GENES), key=lambda gene: -levels[:, gene].std())[:50]
    column = {gene: row for row, gene in enumerate(load_vocabulary().ensembl_ids.tolist())}
    columns = [column[held.genes[gene]] for gene in genes]
    found = decoded().agreement(counts)
    assert found.dtype == np.float32
    for row in range(25):
        shown = counts[row].toarray()[0, columns]
        said = [spearmanr(shown, level[genes])[0] if shown.any() else 0.0 for level in levels]
        np.testing.assert_allclose(found[row, known], said, atol=1e-5)
        np.testing.assert_allclose(found[row, [3, 6]], np.mean(said), atol=1e-5)  # of which nothing was seen
    np.testing.assert_array_equal(decoded().agreement(counts * 7), found)  # depth plays no part
    assert np.abs(found).max() > 0.05


@given(order=st.permutations(range(25)), size=st.integers(1, 25))
@settings(max_examples=15, deadline=None)
def test_agreement_of_a_cell_depends_on_it_alone(order: list[int], size: int) -> None:
    counts, _ = cells()
    whole = decoded().agreement(counts)
    for start in range(0, 25, size):
        rows = order[start : start + size]
        np.testing.assert_array_equal(decoded().agreement(csr_matrix(counts[rows])), whole[rows])


def test_nothing_to_agree_with() -> None:
    counts, _ = cells()
    assert not decoder().prepare(vectors()[3:5], [None, "CL:0000000"]).agreement(counts).any()
    assert not decoder().prepare(vectors()[2:4], TERMS[2:4]).agreement(counts).any()  # one alone
    assert decoded().agreement(counts[:0]).shape == (0, len(TERMS))


# -- the file --------------------------------------------------------------------------------------------------------


def test_round_trip() -> None:
    held = decoder()
    back = ExpressionDecoder.from_bytes(held.to_bytes(), JOINT, "here")
    assert (back.genes, back.terms) == (held.genes, held.terms)
    np.testing.assert_array_equal(back.mean, held.mean.astype(np.float16).astype(np.float32))
    step = np.abs(held.weights).max(axis=0) / 127  # of each gene
    assert (np.abs(back.weights - held.weights) <= 0.51 * step).all()
    assert back.to_bytes() == held.to_bytes()
    counts, logits = cells()
    said, told = back.prepare(vectors(), TERMS), decoded()
    np.testing.assert_allclose(said.arbitration(counts, logits), told.arbitration(counts, logits), atol=0.05)
    np.testing.assert_allclose(said.agreement(counts), told.agreement(counts), atol=0.01)


DAMAGE: dict[str, Callable[[dict[str, torch.Tensor]], object]] = {
    "lacks": lambda held: held.pop("mean"),
    "fewer genes": lambda held: held.update(genes=held["genes"][:40]),
    "short": lambda held: held.update(mean=held["mean"][:-1]),
    "flat": lambda held: held.update(weights=held["weights"].flatten()),
    "turned": lambda held: held.update(weights=held["weights"].T.contiguous()),
    "narrow": lambda held: held.update(weights=held["weights"][:, :-1].contiguous()),
    "few scales": lambda held: held.update(scale=held["scale"][:-1]),
    "not a number": lambda held: held["scale"].fill_(math.nan),
    "endless": lambda held: held["mean"].fill_(math.inf),
    "not text": lambda held: held.update(genes=torch.full_like(held["genes"], 255)),
    "another type": lambda held: held.update(terms=held["terms"].to(torch.bfloat16)),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_damage_is_told(case: str) -> None:
    held = load(decoder().to_bytes())
    DAMAGE[case](held)
    with pytest.raises(ModelError, match=r"decoder\.safetensors can't be read"):
        ExpressionDecoder.from_bytes(save(held), JOINT, "decoder.safetensors")


@pytest.mark.parametrize("cut", [0, 4, 100, -1])
def test_a_cut_file_is_told(cut: int) -> None:
    with pytest.raises(ModelError, match="can't be read"):
        ExpressionDecoder.from_bytes(decoder().to_bytes()[:cut], JOINT, "decoder.safetensors")


# -- in a model ------------------------------------------------------------------------------------------------------

CALIBRATION = {
    "temperature": 2.0,
    "agreement": 15.0,
    "decoded": 10.0,
    "ontology_decoded": 20.0,
    "words_only": -1.0,
    "unprofiled": -3.0,
}


@dataclass
class Candidates:
    term_ids: list[str | None]
    texts: list[str]
    origin: str = "user"


@dataclass
class Block:
    counts: csr_matrix
    totals: np.ndarray


def save_tiny(folder: Path, *, with_decoder: bool) -> Path:
    """Write the tiny model: its terms known to the decoder, save the last."""
    parts = tiny.parts()
    term_ids = [*KNOWN[:3], "CL:0000115"]
    rng = np.random.default_rng(0)
    drawn = rng.normal(size=(4, JOINT)).astype(np.float32)
    held = replace(decoder(), terms=frozenset(KNOWN[:3]), weights=decoder().weights * np.float32(0.1))
    parts = replace(
        parts,
        term_ids=term_ids,
        term_vectors=drawn / np.linalg.norm(drawn, axis=1, keepdims=True),
        calibration=dict(CALIBRATION),
        decoder=held if with_decoder else None,
        supported=frozenset(term_ids[:2]),
    )
    save_bundle(folder, parts, storage="float32")
    return folder


@pytest.fixture
def model(tmp_path: Path) -> LangCellModel:
    return load_bundle(save_tiny(tmp_path / "with", with_decoder=True))


def stored(model: LangCellModel, origin: str) -> Candidates:
    return Candidates([*model.term_ids], [""] * len(model.term_ids), origin)


def test_a_folder_keeps_the_decoder(model: LangCellModel) -> None:
    assert model.decoder is not None
    assert model.decoder.genes == decoder().genes
    assert model.decoder.terms == frozenset(KNOWN[:3])
    assert model.folder is not None
    (model.folder / "decoder.safetensors").write_bytes(b"other")
    with pytest.raises(ModelError, match=r"decoder\.safetensors has"):
        load_bundle(model.folder)
    (model.folder / "decoder.safetensors").write_bytes(
        replace(decoder(), weights=np.ones((16, GENES), "f4")).to_bytes()
    )
    write_manifest(model.folder)
    with pytest.raises(ModelError, match=r"decoder\.safetensors can't be read"):
        load_bundle(model.folder)


@pytest.mark.parametrize("origin", ["user", "ontology", "tissue"])
def test_the_logits_carry_what_the_decoder_adds(model: LangCellModel, origin: str) -> None:
    counts, _ = cells()
    block = Block(counts, np.asarray(counts.sum(axis=1)).ravel().astype(np.float64))
    embedding = np.random.default_rng(8).normal(size=(25, JOINT)).astype(np.float32)
    embedding /= np.linalg.norm(embedding, axis=1, keepdims=True)
    prepared = model.prepare(stored(model, origin))
    weight = CALIBRATION["decoded" if origin == "user" else "ontology_decoded"]
    assert prepared.decoded is not None
    assert prepared.decoded_weight == weight
    similarity = embedding @ prepared.vectors.T / np.float32(model.config.temperature)
    if origin == "user":
        agreement = prepared.decoded.agreement(counts)
        assert agreement.any()
        similarity = similarity + 15 * agreement
    added = prepared.decoded.arbitration(counts, similarity)
    assert added.any()
    expected = (similarity + weight * added + prepared.prior) / 2.0
    np.testing.assert_allclose(model.logits(block, embedding, prepared), expected, atol=1e-4)
    alone = [model.logits(Block(counts[row], block.totals[[row]]), embedding[[row]], prepared)[0] for row in range(25)]
    np.testing.assert_allclose(model.logits(block, embedding, prepared), alone, atol=1e-4)


def test_terms_without_profiles_are_held_back_only_where_the_user_named_none(model: LangCellModel) -> None:
    for origin in ("ontology", "tissue"):
        prior = model.prepare(stored(model, origin)).prior
        assert prior.tolist() == [0.0, 0.0, -1.0, -4.0]  # markers at least, words and a profile, words alone
    assert not model.prepare(stored(model, "user")).prior.any()


def test_a_model_without_decoder_is_as_before(model: LangCellModel, tmp_path: Path) -> None:
    plain = load_bundle(save_tiny(tmp_path / "without", with_decoder=False))
    assert plain.decoder is None
    assert not (tmp_path / "without" / "decoder.safetensors").exists()
    counts, _ = cells()
    block = Block(counts, np.asarray(counts.sum(axis=1)).ravel().astype(np.float64))
    embedding = np.random.default_rng(8).normal(size=(25, JOINT)).astype(np.float32)
    for origin, handicap in (("user", 0.0), ("ontology", -1.0)):
        prepared = plain.prepare(stored(plain, origin))
        assert prepared.decoded is None
        assert prepared.prior.tolist() == [0.0, 0.0, handicap, handicap]
        similarity = embedding @ prepared.vectors.T / np.float32(plain.config.temperature)
        np.testing.assert_array_equal(plain.logits(block, embedding, prepared), (similarity + prepared.prior) / 2)
    off = replace(model, calibration={"temperature": 2.0})
    prepared = off.prepare(stored(off, "user"))
    assert prepared.decoded is None
    np.testing.assert_array_equal(
        off.logits(block, embedding, prepared), plain.logits(block, embedding, plain.prepare(stored(plain, "user")))
    )
