"""Splits: nothing on both sides, nothing lost, no donor divided, decided by the seed."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellingua.core.errors import InputError
from cellingua.measures.splits import (
    Split,
    by_share,
    class_folds,
    few_per_class,
    folds,
    group_folds,
    groups_by_share,
)

CLASSES = st.lists(st.sampled_from("abcd"), min_size=1, max_size=60)
DONORS = st.lists(st.sampled_from(["d1", "d2", "d3", "d4", "d5"]), min_size=2, max_size=60).filter(
    lambda donors: len(set(donors)) > 1
)
SEEDS = st.integers(0, 2**31)


def whole(split: Split, n: int) -> bool:
    """Whether both sides are ascending, share nothing, and hold every row."""
    both = np.concatenate(split)
    ascending = all((np.diff(side) > 0).all() for side in split)
    return ascending and sorted(both.tolist()) == list(range(n))


@given(CLASSES, st.integers(1, 6), SEEDS, st.sampled_from([0.3, 0.5, 1.0]))
def test_few_of_each_class(labels: list[str], n: int, seed: int, most: float) -> None:
    split = few_per_class(labels, n, seed, most=most)
    assert whole(split, len(labels))
    taken = Counter(labels[row] for row in split.train)
    for name, size in Counter(labels).items():
        assert taken[name] == min(n, max(int(size * most), 1))
    again = few_per_class(labels, n, seed, most=most)
    assert all((a == b).all() for a, b in zip(split, again, strict=True))
    # more cells are added to the same ones
    assert set(split.train) <= set(few_per_class(labels, n + 2, seed, most=most).train)


@given(CLASSES, st.floats(0.05, 0.95), SEEDS)
def test_a_share_of_each_class(labels: list[str], share: float, seed: int) -> None:
    split = by_share(labels, share, seed)
    assert whole(split, len(labels))
    taken = Counter(labels[row] for row in split.train)
    for name, size in Counter(labels).items():
        assert abs(taken[name] - size * share) <= 1
        assert size == 1 or 0 < taken[name] < size
        assert size > 1 or taken[name] == 1
    assert (split.train == by_share(labels, share, seed).train).all()


@given(DONORS, st.floats(0.05, 0.95), SEEDS)
def test_whole_donors_by_share(donors: list[str], share: float, seed: int) -> None:
    split = groups_by_share(donors, share, seed)
    assert whole(split, len(donors))
    sides = [{donors[row] for row in side} for side in split]
    assert sides[0]
    assert sides[1]
    assert not sides[0] & sides[1]
    assert (split.train == groups_by_share(donors, share, seed).train).all()


def test_donors_come_as_near_to_the_share_as_their_order_allows() -> None:
    donors = np.repeat([f"d{number}" for number in range(50)], 4)
    for seed in range(5):
        assert len(groups_by_share(donors, 0.8, seed).train) == 160
    assert len({tuple(groups_by_share(donors, 0.8, seed).train) for seed in range(5)}) == 5


@given(CLASSES.filter(lambda labels: len(labels) > 1), st.data(), SEEDS)
def test_folds_judge_each_cell_once(labels: list[str], data: st.DataObject, seed: int) -> None:
    k = data.draw(st.integers(2, len(labels)))
    for found in (folds(len(labels), k, seed), class_folds(labels, k, seed)):
        assert len(found) == k
        assert all(whole(split, len(labels)) for split in found)
        assert sorted(row for split in found for row in split.test) == list(range(len(labels)))
        sizes = [len(split.test) for split in found]
        assert max(sizes) - min(sizes) <= 1
    for name, size in Counter(labels).items():
        of_class = [sum(labels[row] == name for row in split.test) for split in class_folds(labels, k, seed)]
        assert size // k <= min(of_class)
        assert max(of_class) <= -(-size // k)


@given(DONORS, st.data(), SEEDS)
def test_folds_of_donors(donors: list[str], data: st.DataObject, seed: int) -> None:
    k = data.draw(st.integers(2, len(set(donors))))
    found = group_folds(donors, k, seed)
    assert len(found) == k
    assert all(whole(split, len(donors)) for split in found)
    assert sorted(row for split in found for row in split.test) == list(range(len(donors)))
    for split in found:
        assert not {donors[row] for row in split.train} & {donors[row] for row in split.test}


def test_seeds_differ() -> None:
    labels = ["a"] * 50 + ["b"] * 50
    for made in (
        lambda seed: few_per_class(labels, 5, seed).train,
        lambda seed: by_share(labels, 0.5, seed).train,
        lambda seed: folds(100, 4, seed)[0].test,
        lambda seed: class_folds(labels, 4, seed)[0].test,
    ):
        assert len({tuple(made(seed)) for seed in range(8)}) == 8


def test_draws_are_even() -> None:
    """Each of four cells is drawn about as often as any other."""
    drawn = Counter(int(few_per_class(["a"] * 4, 1, seed).train[0]) for seed in range(2000))
    assert min(drawn.values()) > 400


@pytest.mark.parametrize(
    "call",
    [
        lambda: few_per_class([], 1, 0),
        lambda: few_per_class(["a"], 0, 0),
        lambda: few_per_class(["a"], 1, 0, most=0.0),
        lambda: by_share(["a"], 1.0, 0),
        lambda: groups_by_share(["one", "one"], 0.5, 0),
        lambda: folds(3, 4, 0),
        lambda: folds(3, 1, 0),
        lambda: group_folds(["a", "b"], 3, 0),
    ],
)
def test_what_can_not_be_divided_is_refused(call: object) -> None:
    with pytest.raises(InputError):
        call()  # type: ignore[operator]
