"""The open-set score: distances in the ontology, features of a cell alone, a combination that tells planted cells."""

from __future__ import annotations

import numpy as np
import pytest

from cellingua.calibration.unknown import (
    FEATURES,
    OpenCase,
    OpenSet,
    fit_open_set,
    information,
    known_terms,
    open_features,
    surroundings,
)
from cellingua.words.ontology import load_ontology

T, CD4, NAIVE, B, LEUKOCYTE, NEURON, CELL = (
    "CL:0000084", "CL:0000624", "CL:0000895", "CL:0000236", "CL:0000738", "CL:0000540", "CL:0000000",
)  # fmt: skip


def test_related_terms_are_near_and_the_further_apart_the_farther() -> None:
    ontology = load_ontology("CL")
    found = surroundings([CD4, None, "CL:9999999"], [T, NAIVE, B, LEUKOCYTE, NEURON, CD4], ontology)
    far = dict(zip(found.term_ids, found.distance.tolist(), strict=True))
    assert CD4 not in far
    assert far[T] == far[NAIVE] == far[LEUKOCYTE] == 0
    assert 0 < far[B] < far[NEURON] <= 1
    nothing = surroundings([None], [T, B], ontology)
    assert nothing.distance.tolist() == [1, 1]


def test_information_rises_downwards_and_wide_terms_are_no_surroundings() -> None:
    ontology = load_ontology("CL")
    content = information(ontology)
    assert content[CELL] == pytest.approx(0, abs=0.01)
    assert content[CELL] < content[LEUKOCYTE] < content[T] < content[CD4] <= 1
    assert known_terms([T, CELL, "CL:0000255", "CL:9999999"], ontology) == [T]


def test_features_depend_on_the_cell_alone_and_on_no_common_shift() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(30, 12)).astype(np.float32) * 3
    distance = np.array([0, 0.5, 1, 0.2, 0, 0.9, 1, 0.4], np.float32)
    found = open_features(logits, 4, distance)
    assert found.shape == (30, len(FEATURES))
    alone = np.concatenate([open_features(logits[[row]], 4, distance) for row in range(30)])
    assert found == pytest.approx(alone, abs=1e-5)
    assert open_features(logits + 7, 4, distance) == pytest.approx(found, abs=1e-4)
    order = np.r_[[2, 0, 3, 1], 4 + np.random.default_rng(1).permutation(8)]
    assert open_features(logits[:, order], 4, distance[order[4:] - 4]) == pytest.approx(found, abs=1e-4)


def test_every_feature_rises_with_a_far_type_and_without_surroundings_nothing_fails() -> None:
    near, far = np.zeros((1, 6), np.float32), np.zeros((1, 6), np.float32)
    near[0, 0], far[0, 5] = 8, 8
    distance = np.array([0.0, 0.3, 1.0], np.float32)
    assert (open_features(far, 3, distance) > open_features(near, 3, distance)).all()
    assert np.isfinite(open_features(near, 6, np.empty(0, np.float32))).all()


def test_planted_cells_are_told_and_few_others_are_called_unknown() -> None:
    rng = np.random.default_rng(2)

    def case(n: int) -> OpenCase:
        missing = rng.random(n) < 0.3
        return OpenCase((rng.normal(size=(n, 4)) + 3 * missing[:, None]).astype(np.float32), missing)

    known = [rng.normal(size=(400, 4)).astype(np.float32) for _ in range(3)]
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
    features = np.zeros((100, 4), np.float32)
    features[:, 0], features[:, 1] = np.where(missing, 2, -2), np.where(missing, -2, 2)
    fitted = fit_open_set([OpenCase(features, missing)], [features[~missing]], 0.01)
    assert fitted.weights[0] > 0
    assert fitted.weights[1] == 0
