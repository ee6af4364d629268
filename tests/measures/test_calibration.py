"""Calibration, coverage and risk against scikit-learn and against loops over the cells."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellingua.core.errors import InputError
from cellingua.measures.calibration import (
    covered,
    expected_calibration_error,
    reliability,
    risk_coverage,
    separation,
)
from cellingua.words.ontology import load_ontology

metrics = pytest.importorskip("sklearn.metrics")

STATED = st.sampled_from([0.0, 0.05, 0.25, 0.5, 0.75, 0.999, 1.0])
CELLS = st.lists(st.tuples(STATED, st.booleans()), min_size=1, max_size=40)


@given(CELLS, st.integers(1, 12))
def test_the_error_is_that_of_a_loop_over_the_bins(cells: list[tuple[float, bool]], bins: int) -> None:
    stated, right = (np.array(side) for side in zip(*cells, strict=True))
    total = 0.0
    for number in range(bins):
        last = number == bins - 1
        inside = (stated * bins >= number) & ((stated * bins < number + 1) | last)
        if inside.any():
            total += inside.sum() * abs(right[inside].mean() - stated[inside].mean())
    assert expected_calibration_error(stated, right, bins) == pytest.approx(total / len(cells))
    assert reliability(stated, right, bins).count.sum() == len(cells)


def test_stated_as_it_comes_has_no_error_and_certain_mistakes_have_all() -> None:
    stated = np.repeat([0.25, 0.75], 8)
    right = np.r_[np.arange(8) < 2, np.arange(8) < 6]
    assert expected_calibration_error(stated, right) == 0
    assert expected_calibration_error(np.ones(5), np.zeros(5, bool)) == 1
    assert np.isnan(expected_calibration_error([], []))
    assert np.isnan(reliability([1.0], [True], 2).accuracy[0])


@given(CELLS)
def test_separation_is_the_area_under_the_roc_curve(cells: list[tuple[float, bool]]) -> None:
    score, positive = (np.array(side) for side in zip(*cells, strict=True))
    found = separation(score, positive)
    if positive.all() or not positive.any():
        assert np.isnan(found)
    else:
        assert found == pytest.approx(metrics.roc_auc_score(positive, score))
        assert separation(-score, positive) == pytest.approx(1 - found)


@given(CELLS, st.randoms(use_true_random=False))
def test_risk_is_a_loop_over_the_surest_cells_in_any_order(cells: list[tuple[float, bool]], random: object) -> None:
    stated, right = (np.array(side) for side in zip(*cells, strict=True))
    curve = risk_coverage(stated, right)
    levels = sorted(set(stated.tolist()), reverse=True)
    assert curve.share == pytest.approx([np.mean(stated >= level) for level in levels])
    assert curve.risk == pytest.approx([1 - right[stated >= level].mean() for level in levels])
    assert curve.risk[-1] == pytest.approx(1 - right.mean())
    order = np.random.default_rng(0).permutation(len(cells))
    again = risk_coverage(stated[order], right[order])
    assert again.area == pytest.approx(curve.area)


def test_an_ancestor_covers_unknown_does_not_and_a_descendant_where_asked() -> None:
    ontology = load_ontology("CL")
    t, cd4, b = "CL:0000084", "CL:0000624", "CL:0000236"
    found = covered([t, cd4, cd4, b, ""], [cd4, t, cd4, t, t], ontology.is_a)
    assert found.tolist() == [True, False, True, False, False]
    finer = covered([t, cd4, cd4, b, ""], [cd4, t, cd4, t, t], ontology.is_a, finer=True)
    assert finer.tolist() == [True, True, True, False, False]


@pytest.mark.parametrize("stated", [[1.2], [-0.1], [float("nan")]])
def test_no_probability_is_refused(stated: list[float]) -> None:
    with pytest.raises(InputError, match="outside 0 to 1"):
        reliability(stated, [True])


def test_lengths_that_differ_are_refused() -> None:
    with pytest.raises(InputError, match="outcome"):
        separation([0.1, 0.2], [True])
    with pytest.raises(InputError, match="truth"):
        covered(["a"], [], lambda a, b: True)
    with pytest.raises(InputError, match="bins"):
        reliability([0.5], [True], 0)
    assert np.isnan(risk_coverage([], []).area)
