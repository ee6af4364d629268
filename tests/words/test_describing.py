"""Texts have the form of LangCell's."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from cellingua.core.errors import LabelError
from cellingua.words.describing import ASPECTS, describe_cell, describe_label, describe_term
from cellingua.words.ontology import load_ontology

FORM = re.compile(r"cell type: (?P<name>.+?)\. (?:(?P<definition>.+); )?")


def test_every_term_has_a_text_of_the_form() -> None:
    ontology = load_ontology("CL")
    for term_id in ontology.ids:
        text = describe_term(term_id)
        assert FORM.fullmatch(text), text
        assert text == text.lower()
        assert "\n" not in text
        assert text.startswith(f"cell type: {ontology.name(term_id).lower()}. ")


def test_a_missing_definition_is_left_out() -> None:
    ontology = load_ontology("CL")
    bare = next(i for i in ontology.ids if not ontology.definition(i))
    assert describe_term(bare) == f"cell type: {ontology.name(bare).lower()}. "


def test_texts_of_the_released_demo_have_the_same_form(shared: Path) -> None:
    path = shared / "data" / "parity" / "langcell_tiny" / "input" / "texts.json"
    texts = json.loads(path.read_text(encoding="utf-8"))["texts"][:5]
    ontology = load_ontology("CL")
    same = 0
    for text in texts:
        match = FORM.fullmatch(text)
        assert match
        term_id = ontology.find(match["name"])
        assert term_id
        ours = describe_term(term_id)
        assert FORM.fullmatch(ours)["name"] == match["name"]  # type: ignore[index]
        # Definitions were reworded between releases of the ontology; the rest is letter for letter.
        same += ours == text
        assert describe_label(match["name"], match["definition"]) == text
    assert same >= 1


def test_a_cell_is_described_in_the_order_of_aspects() -> None:
    text = describe_cell(
        {
            "assay": "10x 3' v3",
            "cell_type": "B cell",
            "tissue": "islet of Langerhans",
            "tissue_general": "pancreas",
            "disease": "normal",
            "sex": "female",
            "development_stage": "adult stage",
            "self_reported_ethnicity": "unknown",
        }
    )
    found = [aspect for aspect, _, _ in ASPECTS if f"{aspect}: " in text]
    assert found == ["cell type", "tissue", "organ", "development stage", "disease", "sex", "assay"]
    positions = [text.index(f"{aspect}: ") for aspect in found]
    assert positions == sorted(positions)
    assert "unknown" not in text
    assert "disease: normal. " in text


def test_a_tissue_equal_to_its_organ_is_said_once() -> None:
    text = describe_cell({"cell_type": "B cell", "tissue": "lung", "tissue_general": "lung"})
    assert "tissue: " not in text
    assert "organ: lung. " in text


def test_ids_decide_over_names() -> None:
    text = describe_cell({"cell_type": "my name", "cell_type_ontology_term_id": "CL:0000236"})
    assert text == describe_term("CL:0000236")


def test_what_says_nothing_is_skipped() -> None:
    assert describe_cell({"cell_type": "unknown", "tissue": None, "disease": float("nan"), "sex": "na"}) == ""


def test_an_unknown_id_is_refused() -> None:
    with pytest.raises(LabelError):
        describe_term("CL:9999999")
