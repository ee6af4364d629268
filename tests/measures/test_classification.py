"""Classification scores against scikit-learn, and what happens with classes that are absent."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellingua.core.errors import InputError
from cellingua.measures.classification import (
    accuracy,
    balanced_accuracy,
    class_scores,
    confusion,
    macro_f1,
    weighted_f1,
)

metrics = pytest.importorskip("sklearn.metrics")

LABELS = st.sampled_from(["a", "b", "c", "d"])
PAIRS = st.lists(st.tuples(LABELS, LABELS), min_size=1, max_size=40)


@given(PAIRS)
def test_equal_to_scikit_learn_on_the_same_classes(pairs: list[tuple[str, str]]) -> None:
    truth, said = (np.array(side) for side in zip(*pairs, strict=True))
    for classes in (np.unique(truth), np.unique(np.concatenate([truth, said])), np.array(["d", "a", "c"])):
        theirs = metrics.precision_recall_fscore_support(truth, said, labels=classes, zero_division=0)
        ours = class_scores(truth, said, classes)
        for mine, other in zip((ours.precision, ours.recall, ours.f1, ours.support), theirs, strict=True):
            assert np.allclose(mine, other)
        for average, score in (("macro", macro_f1), ("weighted", weighted_f1)):
            other = metrics.f1_score(truth, said, labels=classes, average=average, zero_division=0)
            assert score(truth, said, classes) == pytest.approx(other)
    assert accuracy(truth, said) == pytest.approx(metrics.accuracy_score(truth, said))
    assert balanced_accuracy(truth, said) == pytest.approx(metrics.recall_score(truth, said, average="macro",
                                                           labels=np.unique(truth), zero_division=0))  # fmt: skip
    assert (confusion(truth, said, list("abcd")) == metrics.confusion_matrix(truth, said, labels=list("abcd"))).all()
    assert confusion(truth, said).trace() == (truth == said).sum()


@given(PAIRS, st.randoms())
def test_order_of_cells_and_names_of_classes_change_nothing(pairs: list[tuple[str, str]], random: object) -> None:
    truth, said = zip(*pairs, strict=True)
    other = list(pairs)
    random.shuffle(other)  # type: ignore[attr-defined]
    renamed = [("zyxw"["abcd".index(a)], "zyxw"["abcd".index(b)]) for a, b in other]
    for score in (accuracy, balanced_accuracy, macro_f1, weighted_f1):
        expected = score(truth, said)
        for again in (other, renamed):
            assert score(*zip(*again, strict=True)) == pytest.approx(expected)


def test_the_mean_is_over_the_classes_of_the_truth() -> None:
    truth, said = ["a", "a", "b", "b"], ["a", "a", "b", "new"]
    assert class_scores(truth, said).classes.tolist() == ["a", "b"]
    assert macro_f1(truth, said) == pytest.approx((1 + 2 / 3) / 2)
    # as scikit-learn, on request: the answered class has F1 0 and counts
    assert macro_f1(truth, said, ["a", "b", "new"]) == pytest.approx((1 + 2 / 3) / 3)
    assert weighted_f1(truth, said, ["a", "b", "new"]) == weighted_f1(truth, said)
    # an absent class that is asked for has recall 0, and balanced accuracy has no place for it
    scores = class_scores(truth, said, ["a", "b", "absent"])
    assert scores.support.tolist() == [2, 2, 0]
    assert scores.predicted.tolist() == [2, 1, 0]
    assert scores.f1[2] == scores.recall[2] == scores.precision[2] == 0.0
    assert balanced_accuracy(truth, said) == 0.75


def test_confusion_counts_who_was_taken_for_whom() -> None:
    truth, said = [1, 1, 2, 3], [1, 2, 2, 9]
    assert confusion(truth, said, [1, 2, 3]).tolist() == [[1, 1, 0], [0, 1, 0], [0, 0, 0]]
    assert confusion(truth, said).sum() == 4
    assert confusion(truth, said, [2, 1, 3])[1].tolist() == [1, 1, 0]


def test_labels_may_be_objects() -> None:
    truth = np.array(["a", "b", "b"], dtype=object)
    assert macro_f1(truth, np.array(["a", "b", "a"])) == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ("truth", "said"), [([], []), (["a"], ["a", "b"]), ([["a"]], [["a"]])], ids=["none", "lengths", "shape"]
)
def test_what_can_not_be_judged_is_refused(truth: list, said: list) -> None:
    with pytest.raises(InputError):
        macro_f1(truth, said)


@pytest.mark.parametrize("classes", [["a", "a"], []])
def test_classes_are_named_once(classes: list[str]) -> None:
    with pytest.raises(InputError, match="each class once"):
        class_scores(["a"], ["a"], classes)
