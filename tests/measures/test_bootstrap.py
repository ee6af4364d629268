"""Intervals: the tables against the measures themselves, the draws against drawing cells, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellingua.core.errors import InputError
from cellingua.measures.bootstrap import intervals, share_interval, table_scores, truth_table
from cellingua.measures.classification import accuracy, macro_f1, weighted_f1

LABELS = st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("abcx")), min_size=1, max_size=40)


@given(LABELS)
def test_scores_of_a_table_are_those_of_its_cells(pairs: list[tuple[str, str]]) -> None:
    truth, said = (np.array(column) for column in zip(*pairs, strict=True))
    table = truth_table(truth, said)
    assert table.sum() == len(pairs)
    found = table_scores(table[None])
    assert found["accuracy"][0] == pytest.approx(accuracy(truth, said))
    assert found["macro_f1"][0] == pytest.approx(macro_f1(truth, said))
    assert found["weighted_f1"][0] == pytest.approx(weighted_f1(truth, said))


def cells(n: int = 300, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    truth = rng.choice(list("aabc"), n)
    return truth, np.where(rng.random(n) < 0.8, truth, rng.choice(list("abcx"), n))


def test_drawing_tables_is_drawing_cells() -> None:
    truth, said = cells()
    rng = np.random.default_rng(1)
    plain: dict[str, list[float]] = {"accuracy": [], "macro_f1": [], "weighted_f1": []}
    for _ in range(1500):
        rows = rng.integers(0, len(truth), len(truth))
        for name, measure in (("accuracy", accuracy), ("macro_f1", macro_f1), ("weighted_f1", weighted_f1)):
            plain[name].append(measure(truth[rows], said[rows]))
    for name, (low, high) in intervals(truth, said, draws=1500).items():
        wanted = np.quantile(plain[name], [0.025, 0.975])
        assert [low, high] == pytest.approx(wanted.tolist(), abs=0.012), name


def test_an_interval_holds_the_value_and_shrinks_with_cells() -> None:
    truth, said = cells(200)
    few = intervals(truth, said)
    many = intervals(np.tile(truth, 16), np.tile(said, 16))
    for name, measure in (("accuracy", accuracy), ("macro_f1", macro_f1), ("weighted_f1", weighted_f1)):
        for low, high in (few[name], many[name]):
            assert low <= measure(truth, said) <= high
        assert many[name][1] - many[name][0] < 0.5 * (few[name][1] - few[name][0])
    assert intervals(truth, said) == few
    assert intervals(truth, truth)["macro_f1"] == (1.0, 1.0)


def test_a_share_has_the_same_interval_as_an_accuracy() -> None:
    truth, said = cells(400)
    assert share_interval(truth == said) == pytest.approx(intervals(truth, said)["accuracy"], abs=0.01)
    assert share_interval([True] * 5) == (1.0, 1.0)


def test_what_cannot_be_judged_is_refused() -> None:
    with pytest.raises(InputError, match="no cell"):
        intervals([], [])
    with pytest.raises(InputError, match="no cell"):
        share_interval([])
    with pytest.raises(InputError, match="draws"):
        intervals(["a"], ["a"], draws=0)
    with pytest.raises(InputError, match="level"):
        share_interval([True], level=1.0)
