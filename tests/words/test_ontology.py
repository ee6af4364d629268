"""The shipped ontologies: their form, their graph, and what they say to a wrong id."""

from __future__ import annotations

import re

import pytest

from cellingua.core.errors import LabelError
from cellingua.words.ontology import PREFIXES, Ontology, load_ontology


@pytest.mark.parametrize("prefix", PREFIXES)
def test_every_ontology_is_read_and_its_parents_exist(prefix: str) -> None:
    ontology = load_ontology(prefix)
    assert len(ontology) == len(set(ontology.ids)) > 30
    for term_id in ontology.ids[:: max(1, len(ontology) // 500)]:
        assert ontology.name(term_id)
        assert all(parent in ontology for parent in ontology.parents(term_id))
        assert term_id not in ontology.ancestors(term_id)


def test_cell_ontology_is_the_stated_release() -> None:
    ontology = load_ontology("CL")
    assert len(ontology) == 3324
    assert ontology.name("CL:0000236") == "B cell"
    assert sum(not ontology.in_human(i) for i in ontology.ids) == 398


def test_ancestors_and_descendants_mirror_each_other() -> None:
    ontology = load_ontology("CL")
    for term_id in ontology.ids[::37]:
        for above in ontology.ancestors(term_id):
            assert term_id in ontology.descendants(above)
        for child in ontology.children(term_id):
            assert term_id in ontology.parents(child)


def test_ancestors_are_the_closure_of_parents() -> None:
    ontology = load_ontology("CL")
    for term_id in ontology.ids[::53]:
        found: set[str] = set()
        queue = list(ontology.parents(term_id))
        while queue:
            here = queue.pop()
            if here not in found:
                found.add(here)
                queue.extend(ontology.parents(here))
        assert ontology.ancestors(term_id) == found


def test_is_a_and_distance() -> None:
    ontology = load_ontology("CL")
    assert ontology.is_a("CL:0000236", "CL:0000542")
    assert not ontology.is_a("CL:0000542", "CL:0000236")
    assert ontology.distance("CL:0000236", "CL:0000236") == 0
    assert ontology.distance("CL:0000236", ontology.parents("CL:0000236")[0]) == 1
    assert ontology.distance("CL:0000084", "CL:0000236") == ontology.distance("CL:0000236", "CL:0000084") > 1


def test_parts_of_an_organ_lie_below_it() -> None:
    uberon = load_ontology("UBERON")
    assert uberon.is_a("UBERON:0000006", "UBERON:0001264")


@pytest.mark.parametrize(
    ("text", "wanted"),
    [("B cel", "CL:0000236"), ("fibroblst", "CL:0000057"), ("Macrofage", "CL:0000235"), ("hepatocytes", "CL:0000182")],
)
def test_nearest_finds_what_was_meant(text: str, wanted: str) -> None:
    assert wanted in [term_id for term_id, _ in load_ontology("CL").nearest(text)]


def test_nearest_of_an_id_are_ids_alike() -> None:
    near = load_ontology("CL").nearest("CL:0000239", n=3)
    assert all(re.fullmatch(r"CL:\d{7}", term_id) for term_id, _ in near)
    assert len(near) == 3


def test_an_id_that_does_not_exist_names_the_nearest() -> None:
    with pytest.raises(LabelError, match=r"CL:\d{7} \("):
        load_ontology("CL").name("CL:9999999")


def test_an_obsolete_id_names_what_replaces_it() -> None:
    ontology = load_ontology("CL")
    old = [i for i, (_, new) in ontology._obsolete.items() if new in ontology]
    assert len(old) > 50
    for term_id in old[:20]:
        with pytest.raises(LabelError, match="replaces"):
            ontology.name(term_id)


def test_a_cycle_is_refused() -> None:
    rows = [["X:1", "one", "", "", "X:2", ""], ["X:2", "two", "", "", "X:1", ""]]
    with pytest.raises(ValueError, match="cycle"):
        Ontology("X", rows)


def test_a_parent_that_is_missing_is_refused() -> None:
    with pytest.raises(ValueError, match="parent"):
        Ontology("X", [["X:1", "one", "", "", "X:9", ""]])


def test_an_unknown_ontology_is_refused() -> None:
    with pytest.raises(LabelError, match="CL"):
        load_ontology("GO")
