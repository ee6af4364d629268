"""Terms that answers are rolled up to: what the ontology's arcs say, and what its definitions say."""

from __future__ import annotations

import numpy as np
import pytest

from cellingua.calibration.hierarchy import BY_DEFINITION, hierarchy_of, is_answer, is_kind_of, wider_terms
from cellingua.words.ontology import load_ontology

GLIOBLAST, RADIAL, NEURAL = "CL:0000030", "CL:0000681", "CL:0002319"


@pytest.mark.parametrize(("term", "wider"), BY_DEFINITION.items())
def test_what_definitions_add_is_alive_an_answer_and_no_arc_yet(term: str, wider: str) -> None:
    """An arc that a later ontology has by itself is to be taken from the list."""
    ontology = load_ontology("CL")
    assert term in ontology
    assert not ontology.is_a(term, wider)
    assert is_kind_of(term, wider, ontology)
    assert is_answer(wider, ontology)
    assert not is_kind_of(wider, term, ontology)
    for narrower in ontology.descendants(term):
        assert is_kind_of(narrower, wider, ontology)


def test_a_glioblast_and_a_radial_glial_cell_are_added_up() -> None:
    ontology = load_ontology("CL")
    hierarchy, terms = hierarchy_of([GLIOBLAST, RADIAL, None], ontology)
    assert NEURAL in terms
    mass = hierarchy.mass(np.array([[0.4, 0.5, 0.1]], np.float32))
    assert mass[0, terms.index(NEURAL)] == pytest.approx(0.9)


def test_other_terms_are_as_wide_as_the_ontology_says() -> None:
    ontology = load_ontology("CL")
    for term in (RADIAL, "CL:0000084", "CL:0000000"):
        assert wider_terms(term, ontology) == ontology.ancestors(term)
    assert not is_kind_of("CL:9999999", NEURAL, ontology)
