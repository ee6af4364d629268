"""Right by lineage: the rule on a small tree, the real ontology, and a plain twin."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellingua.core.errors import InputError
from cellingua.measures.lineage import lineage_right, mean_distance, steps_up
from cellingua.words.ontology import load_ontology

#: A cell; T, B and monocyte below it; CD4 and CD8 below T; naive and memory below CD4; helper below memory.
TREE = {
    "cell": (),
    "lymphocyte": ("cell",),
    "T": ("lymphocyte",),
    "B": ("lymphocyte",),
    "monocyte": ("cell",),
    "CD4": ("T",),
    "CD8": ("T",),
    "naive": ("CD4",),
    "memory": ("CD4",),
    "helper": ("memory",),
    "both": ("CD4", "CD8"),
}


def parents(term: str) -> tuple[str, ...]:
    return TREE[term]


def right(truth: str, answer: str, *others: str) -> bool:
    """Judge one answer in a set whose labels are the truth and others."""
    return bool(lineage_right([truth, *others], [answer, *others], parents)[0])


@pytest.mark.parametrize(
    ("truth", "answer", "others", "wanted"),
    [
        ("naive", "naive", ["memory"], True),
        ("memory", "helper", ["naive"], True),  # a descendant
        ("naive", "CD4", ["B"], True),
        ("naive", "T", ["B"], True),  # two steps up
        ("naive", "lymphocyte", ["monocyte"], False),  # three
        ("naive", "CD4", ["memory"], False),  # above another label, too
        ("naive", "T", ["CD8"], False),
        ("naive", "CD4", ["CD8"], True),  # above the truth alone
        ("naive", "CD4", ["CD4"], True),  # another label is not its own ancestor
        ("naive", "memory", ["B"], False),  # a sibling
        ("naive", "", ["B"], False),
        ("both", "T", ["B"], True),
        ("CD4", "both", ["B"], True),
    ],
)
def test_the_rule(truth: str, answer: str, others: list[str], wanted: bool) -> None:
    assert right(truth, answer, *others) is wanted


def test_steps_up_are_the_fewest() -> None:
    assert steps_up("helper", parents) == {"helper": 0, "memory": 1, "CD4": 2, "T": 3, "lymphocyte": 4, "cell": 5}
    assert steps_up("both", parents)["T"] == 2
    ladder = {"a": ("b", "c"), "b": ("c",), "c": ()}  # a step and a longer way to the same term
    assert steps_up("a", ladder.__getitem__) == {"a": 0, "b": 1, "c": 1}


@given(st.lists(st.tuples(st.sampled_from(sorted(TREE)), st.sampled_from(["", *sorted(TREE)])), min_size=1))
def test_the_plain_twin(pairs: list[tuple[str, str]]) -> None:
    truth, answer = [a for a, _ in pairs], [b for _, b in pairs]

    def above(term: str) -> set[str]:
        return set(TREE[term]).union(*(above(parent) for parent in TREE[term]))

    def plainly(true: str, said: str) -> bool:
        if said == true or (said and true in above(said)):
            return True
        near = {*TREE[true], *(grand for parent in TREE[true] for grand in TREE[parent])}
        return said in near and not any(said in above(other) for other in set(truth) - {true})

    assert lineage_right(truth, answer, parents).tolist() == [plainly(*pair) for pair in pairs]


def test_on_the_cell_ontology() -> None:
    ontology = load_ontology("CL")
    naive, memory, cd4, monocyte = "CL:0000895", "CL:0000897", "CL:0000624", "CL:0000576"
    answers = [cd4, "CL:0001054", monocyte]  # a CD14-positive monocyte is a monocyte
    assert lineage_right([naive, monocyte, naive], answers, ontology.parents).tolist() == [True, True, False]
    assert not lineage_right([naive, memory], [cd4, memory], ontology.parents)[0]


def test_distance_is_of_the_errors_alone() -> None:
    ontology = load_ontology("CL")
    b, t = "CL:0000236", "CL:0000084"
    assert mean_distance([b, b], [b, t], ontology.distance) == ontology.distance(b, t)
    assert mean_distance([b], [b], ontology.distance) is None
    assert mean_distance([b], [""], ontology.distance) is None
    assert mean_distance(["a"], ["b"], lambda *_: -1) is None
    assert mean_distance(["a"], ["b"], lambda *_: -1, unjoined=9.0) == 9.0


def test_what_cannot_be_judged_is_refused() -> None:
    for truth, answer in (([], []), (["T"], []), (["", "T"], ["T", "T"])):
        with pytest.raises(InputError, match="a term and an answer"):
            lineage_right(truth, np.array(answer), parents)
