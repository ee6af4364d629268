"""What held-out files choose: the strength of the channels, temperatures, and how far unknown terms are held back."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import small_world
import tiny_data
from scipy.sparse import csr_matrix, vstack

from cellingua.cells.collections import CellSet
from cellingua.cells.counts import CountBlocks
from cellingua.cells.doctor import examine
from cellingua.cells.genes import load_vocabulary
from cellingua.cells.reading import open_cells
from cellingua.models.decoding import Decoded, ExpressionDecoder
from cellingua.models.evidence import MarkerEvidence, fit_evidence
from cellingua.models.inputs import Rows
from cellingua.models.model import LangCellModel
from cellingua.recipes import validate as module
from cellingua.recipes.validate import AGREEMENTS, STRENGTHS, UNMARKED, WEIGHTS, Validation, validate
from cellingua.words.candidates import from_labels, whole_ontology
from cellingua.words.ontology import load_ontology

FILES = {"one": 21, "two": 22}


def held_out(noise: float) -> CellSet:
    """Return cells of two files, blurred by the mean of all types."""
    parts = []
    for seed in FILES.values():
        source = open_cells(small_world.cells(40, seed, noise=noise))
        (block,) = CountBlocks(source, examine(source)).blocks()
        parts.append((block, source.obs["truth"].to_numpy(dtype=np.str_)))
    names = np.array([f"cell{row}" for row in range(80)])
    return CellSet(
        csr_matrix(vstack([block.counts for block, _ in parts])),
        np.concatenate([block.totals for block, _ in parts]),
        np.concatenate([truth for _, truth in parts]),
        np.ones(80, bool),
        np.repeat(list(FILES), 40),
        names,
    )


def decoder_of(model: LangCellModel, levels: np.ndarray) -> ExpressionDecoder:
    """Return a decoder that says `levels` (types, genes) of the planted types."""
    ids = load_vocabulary().ensembl_ids[small_world.rows_of_genes()]
    vectors = model.term_vectors[[model.term_ids.index(term) for term in small_world.TYPES]]
    mean = levels.mean(axis=0)
    weights = np.linalg.pinv(vectors) @ (levels - mean)
    return ExpressionDecoder(
        tuple(ids.tolist()), frozenset(small_world.TYPES), mean.astype(np.float32), weights.astype(np.float32)
    )


@pytest.fixture(scope="module", autouse=True)
def _all_are_siblings() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cellingua.models.decoding.ALIKE", -1.0)
        yield


@pytest.fixture(scope="module")
def cells() -> CellSet:
    return held_out(0.9)


@pytest.fixture(scope="module")
def model(small_model_folder: Path, cells: CellSet) -> LangCellModel:
    """The small world's model with all three channels."""
    small_model = small_world.model(small_model_folder)
    rows = {gene: row for row, gene in enumerate(load_vocabulary().ensembl_ids.tolist())}
    markers = {term: np.array([rows[gene] for gene in genes]) for term, genes in tiny_data.markers().items()}
    return replace(
        small_model,
        evidence=fit_evidence(markers, cells.counts, cells.totals, strength=1.0),
        decoder=decoder_of(small_model, np.log(small_world.profiles() + 0.1)),
        supported=frozenset(small_world.TYPES),
    )


@pytest.fixture(scope="module")
def found(model: LangCellModel, cells: CellSet) -> Validation:
    return validate(model, cells)


def test_a_decoder_that_knows_is_believed_and_what_is_chosen_is_what_is_used(
    model: LangCellModel, cells: CellSet, found: Validation
) -> None:
    assert found.strength in STRENGTHS
    assert {found.decoded, found.ontology_decoded} <= set(WEIGHTS)
    assert (found.agreement in AGREEMENTS, found.unmarked in UNMARKED) == (True, True)
    assert set(found.accuracy) == set(found.by_agreement) == set(found.by_decoder) == set(found.cells) == set(FILES)
    for file in FILES:
        assert found.cells[file] == 40
        assert found.accuracy[file][f"{found.strength:g}"] == found.by_decoder[file][f"{found.decoded:g}"]
        assert found.accuracy[file][f"{found.strength:g}"] == found.by_agreement[file][f"{found.agreement:g}"]

    def mean(row: dict[str, dict[str, float]], weight: float) -> float:
        return float(np.mean([by[f"{weight:g}"] for by in row.values()]))

    best = max(mean(found.by_decoder, weight) for weight in WEIGHTS)
    assert found.decoded > 0
    assert mean(found.by_decoder, found.decoded) == best > mean(found.by_decoder, 0.0)
    # As a user would get it.
    assert isinstance(model.evidence, MarkerEvidence)
    chosen = replace(model, calibration=found.calibration(), evidence=replace(model.evidence, strength=found.strength))
    for file in FILES:
        part = cells.take(cells.files == file)
        block, candidates = Rows(part.counts, part.totals), from_labels(sorted(set(part.terms.tolist())))
        logits = chosen.logits(block, chosen.encode_cells(chosen.tokenise(block)), chosen.prepare(candidates))
        right = np.array(candidates.term_ids)[logits.argmax(axis=1)] == part.terms
        assert right.mean() == pytest.approx(found.accuracy[file][f"{found.strength:g}"], abs=1e-4)
    assert f"decoder {found.decoded:g}" in found.summary()


def test_what_was_chosen_elsewhere_is_not_fitted(model: LangCellModel, cells: CellSet) -> None:
    found = validate(model, cells, (1.5, 20.0, 3.0))
    assert (found.strength, found.agreement, found.unmarked) == (1.5, 20.0, 3.0)


def test_one_that_says_the_same_of_all_is_not_asked(model: LangCellModel, cells: CellSet) -> None:
    dull = decoder_of(model, np.zeros((6, small_world.N_GENES)) + np.log(small_world.profiles().mean(axis=0) + 0.1))
    found = validate(replace(model, decoder=dull), cells)
    assert (found.decoded, found.ontology_decoded) == (0.0, 0.0)  # the smallest of equals
    for row in found.by_decoder.values():
        assert len(set(row.values())) == 1


def test_handicaps_are_fitted_within_bounds_and_used_where_the_user_named_none(
    model: LangCellModel, found: Validation
) -> None:
    for handicap in (found.words_only, found.unprofiled, found.wider_term):
        assert -module.MOST_HANDICAP <= handicap <= 0
    # A term of markers without a profile; one of words alone; a planted one.
    assert model.decoder is not None
    wider = model.decoder.wider
    assert {"CL:0000000", *load_ontology("CL").ancestors(next(iter(small_world.TYPES)))} <= wider
    assert not wider & {*small_world.TYPES}
    some = next(str(t) for t in whole_ontology().term_ids if t not in small_world.TYPES and t not in wider)
    chosen = replace(model, calibration=found.calibration(), supported=model.supported | {some})
    wide = chosen.prepare(whole_ontology())
    place = {term: row for row, term in enumerate(wide.term_ids)}
    prior = {term: float(wide.prior[row]) for term, row in place.items()}
    other = next(str(term) for term in place if term not in {*small_world.TYPES, *wider, some})
    assert prior[some] == pytest.approx(found.unprofiled)
    assert prior[other] == pytest.approx(found.words_only + found.unprofiled)
    assert {prior[term] for term in small_world.TYPES} == {0.0}
    above = found.words_only + found.unprofiled + found.wider_term  # a class of planted types, itself not planted
    assert {round(prior[term], 4) for term in wider if term in prior} == {round(above, 4)}
    assert wide.decoded_weight == found.ontology_decoded
    named = chosen.prepare(from_labels([some, other, "CL:0000236"]))
    assert not named.prior.any()
    assert named.decoded_weight == found.decoded


def test_what_is_stored() -> None:
    by = {"f": {"1": 0.9}}
    found = Validation(1.0, 30.0, 3.0, 2.0, 20.0, 10.0, 0.5, 0.7, -1.0, -2.0, -3.0, by, by, by, {"f": 5})
    assert found.calibration() == {
        "temperature": 0.5,
        "ontology_temperature": 0.7,
        "words_only": -1.0,
        "unprofiled": -2.0,
        "wider_term": -3.0,
        "agreement": 30.0,
        "unmarked": 3.0,
        "ontology_markers": 2.0,
        "decoded": 20.0,
        "ontology_decoded": 10.0,
        "threshold": 0.5,
    }
    chosen = "Marker strength 1, agreement 30, decoder 20; temperature 0.50"
    assert found.summary() == f"{chosen}; accuracy on held-out files: f 0.900."


def test_half_of_the_grounds_is_accuracy_with_one_types_markers_missing() -> None:
    rng = np.random.default_rng(5)
    similarity, evidence, agreement = (rng.normal(size=(30, 4)).astype(np.float32) for _ in range(3))
    truth = rng.integers(4, size=30)
    marked = np.array([True, True, False, True])
    none = Decoded(np.arange(0), np.full(4, -1), np.zeros((0, 0), np.float32))
    empty = np.zeros((30, 0), np.float32)
    part = module._Held(
        "f", similarity, evidence, marked, agreement, csr_matrix((30, 0)), none, truth, empty, empty, none, empty
    )
    accuracy = []
    for missing in (None, 0, 1, 3):
        shown = [place for place in range(4) if marked[place] and place != missing]
        logits = similarity + 5 * agreement + 1.5
        logits[:, shown] += 2 * evidence[:, shown] - 1.5
        accuracy.append(np.mean(logits.argmax(axis=1) == truth))
    found = module._with_and_without_markers(part, 2.0, 5.0, 1.5)
    assert found == pytest.approx((accuracy[0] + np.mean(accuracy[1:])) / 2)
