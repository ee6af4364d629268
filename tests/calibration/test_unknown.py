"""The open-set score: relatives in the ontology, features of a cell alone, a combination that tells planted cells."""

from __future__ import annotations

import numpy as np
import pytest

from cellingua.calibration.unknown import (
    FEATURES,
    OpenCase,
    OpenSet,
    fit_open_set,
    known_terms,
    open_features,
    surroundings,
)
from cellingua.words.ontology import load_ontology

T, CD4, NAIVE, B, LEUKOCYTE, NEURON, CELL = (
    "CL:0000084", "CL:0000624", "CL:0000895", "CL:0000236", "CL:0000738", "CL:0000540", "CL:0000000",
)  # fmt: skip


def test_terms_above_and_below_a_candidate_are_its_relatives() -> None:
    ontology = load_ontology("CL")
    found = surroundings([CD4, None, "CL:9999999"], [T, NAIVE, B, LEUKOCYTE, NEURON, CD4], ontology)
    assert dict(zip(found.term_ids, found.related.tolist(), strict=True)) == {
        T: True, NAIVE: True, LEUKOCYTE: True, B: False, NEURON: False,
    }  # fmt: skip
    assert surroundings([None], [T, B], ontology).related.tolist() == [False, False]


def test_a_label_without_an_id_is_related_to_terms_that_have_all_its_words() -> None:
    ontology = load_ontology("CL")
    stellate, hepatic, neuron = "CL:0002410", "CL:0000632", "CL:0000540"  # of the pancreas, of the liver
    known = [stellate, hepatic, neuron, B]

    def related(*written: str) -> list[str]:
        found = surroundings([T, None], known, ontology, written)
        return [term for term, near in zip(found.term_ids, found.related, strict=True) if near]

    assert related("Stellate cells") == [hepatic, stellate]
    assert related("stellate-cell of pancreas") == []
    assert related("pancreatic stellate", "nothing known") == [stellate]
    assert related("cells", "", "???") == []


def test_wide_terms_are_no_surroundings() -> None:
    assert known_terms([T, CELL, "CL:0000255", "CL:9999999"], load_ontology("CL")) == [T]


def test_features_depend_on_the_cell_alone_and_on_no_order() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(30, 12)).astype(np.float32) * 3
    related = np.array([1, 0, 0, 0, 1, 0, 0, 0], bool)
    found = open_features(logits, 4, related)
    assert found.shape == (30, len(FEATURES))
    alone = np.concatenate([open_features(logits[[row]], 4, related) for row in range(30)])
    assert found == pytest.approx(alone, abs=1e-5)
    order = np.r_[[2, 0, 3, 1], 4 + np.random.default_rng(1).permutation(8)]
    assert open_features(logits[:, order], 4, related[order[4:] - 4]) == pytest.approx(found, abs=1e-4)


def test_every_feature_rises_with_a_far_type_and_without_surroundings_nothing_fails() -> None:
    near, far = np.zeros((1, 6), np.float32), np.zeros((1, 6), np.float32)
    near[0, 0], far[0, 5] = 8, 8
    related = np.array([True, False, False])
    assert (open_features(far, 3, related) > open_features(near, 3, related)).all()
    assert np.isfinite(open_features(near, 6, np.empty(0, bool))).all()


def test_a_cell_that_fits_no_known_type_speaks_less_for_none_than_one_that_fits_another() -> None:
    """The gap, and what the best candidate has of all, are the same; what differs is how well the other type fits."""
    logits = np.array([[2.0, 1.0, 6.0], [12.0, 11.0, 16.0]], np.float32)
    unlike, other = open_features(logits, 2, np.array([False]))
    assert unlike[:2] == pytest.approx(other[:2], abs=1e-4)
    assert unlike[FEATURES.index("fit")] < other[FEATURES.index("fit")]


def test_a_features_unit_changes_no_score() -> None:
    rng = np.random.default_rng(5)
    missing = rng.random(400) < 0.4
    features = (rng.normal(size=(400, 3)) + missing[:, None] * [2.0, 1.0, 0.3]).astype(np.float32)
    unit = np.array([1.0, 50.0, 0.02], np.float32)
    plain = fit_open_set([OpenCase(features, missing)], [features[~missing]], 0.05)
    other = fit_open_set([OpenCase(features * unit, missing)], [features[~missing] * unit], 0.05)
    assert other.score(features * unit) == pytest.approx(plain.score(features), abs=1e-3)


def test_a_score_of_other_features_is_refused() -> None:
    held = OpenSet((1.0, 1.0, 1.0), 0.0, 0.5).to_dict() | {"features": ["distance", "outside", "gap", "doubt"]}
    with pytest.raises(ValueError, match="a score of distance"):
        OpenSet.from_dict(held)


def test_planted_cells_are_told_and_few_others_are_called_unknown() -> None:
    rng = np.random.default_rng(2)

    def case(n: int) -> OpenCase:
        missing = rng.random(n) < 0.3
        return OpenCase((rng.normal(size=(n, 3)) + 3 * missing[:, None]).astype(np.float32), missing)

    known = [rng.normal(size=(400, 3)).astype(np.float32) for _ in range(3)]
    fitted = fit_open_set([case(200), case(300)], known, 0.02)
    assert min(fitted.weights) >= 0
    assert np.mean([(fitted.score(features) > fitted.cutoff).mean() for features in known]) <= 0.02
    unlike = [*known, known[0] + 3]  # nearly all of a fourth set would be called unknown: it raises the cut-off
    cautious = fit_open_set([case(200), case(300)], unlike, 0.02)
    assert np.mean([(cautious.score(features) > cautious.cutoff).mean() for features in unlike]) <= 0.02
    assert cautious.cutoff > fitted.cutoff
    other = case(1000)
    assert (fitted.score(other.features)[other.missing] > fitted.cutoff).mean() > 0.9
    assert OpenSet.from_dict(fitted.to_dict()) == fitted


def test_a_feature_that_speaks_the_other_way_round_counts_for_nothing() -> None:
    missing = np.arange(100) < 50
    features = np.zeros((100, 3), np.float32)
    features[:, 0], features[:, 1] = np.where(missing, 2, -2), np.where(missing, -2, 2)
    fitted = fit_open_set([OpenCase(features, missing)], [features[~missing]], 0.01)
    assert fitted.weights[0] > 0
    assert fitted.weights[1] == 0
