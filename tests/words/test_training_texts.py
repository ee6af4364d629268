"""Texts for training: aspects left out at random, the cell type first, and always possible alone; organs of tissues."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellingua.core.errors import ConfigError
from cellingua.words.aspects import organs, read_aspect, read_organ
from cellingua.words.describing import TEMPLATES, describe_cell, describe_cells, describe_term, draw_texts, read_facts
from cellingua.words.metadata import NAMES
from cellingua.words.ontology import load_ontology

TYPES = ["CL:0000236", "CL:0000576", "CL:0000084", "unknown"]
COLUMNS = {
    "cell_type_ontology_term_id": TYPES,
    "tissue_ontology_term_id": ["UBERON:0002048", "UBERON:0000178", "unknown", "UBERON:0000178"],
    "disease_ontology_term_id": ["PATO:0000461", "MONDO:0005061", "PATO:0000461", "unknown"],
    "sex": ["male", "female", "unknown", "unknown"],
    "assay": ["10x 3' v3", "Smart-seq2", "10x 3' v3", "unknown"],
}


def aspects_of(text: str) -> list[str]:
    """Return the aspects that a text of the template ``names`` says, in their order."""
    return [part.split(": ")[0] for part in text.split(". ") if part]


@given(st.floats(0, 1), st.floats(0, 1), st.integers(0, 2**32), st.lists(st.integers(0, 2), max_size=12))
def test_a_drawn_text_is_the_whole_text_with_aspects_left_out(
    drop: float, alone: float, seed: int, cells: list[int]
) -> None:
    facts = read_facts(COLUMNS)
    whole = [aspects_of(facts.texts("names").texts[place]) for place in facts.texts("names").index]
    drawn = draw_texts(facts, cells, np.random.default_rng(seed), drop=drop, alone=alone, templates=["names"])
    again = draw_texts(facts, cells, np.random.default_rng(seed), drop=drop, alone=alone, templates=["names"])
    assert drawn == again
    for cell, text in zip(cells, drawn, strict=True):
        said = aspects_of(text)
        # A tissue that is left alone by its organ is said; a whole text says such a tissue as the organ alone.
        assert [a for a in said if a != "tissue"] == [a for a in whole[cell] if a in said and a != "tissue"]
        assert said[0] == "cell type"
        if alone == 1 or drop == 1:
            assert said == ["cell type"]
        if alone == 0 and drop == 0:
            assert said == whole[cell]


def test_the_cell_type_alone_has_its_chance_and_the_form_of_a_prompt() -> None:
    facts = read_facts(COLUMNS)
    cells = np.zeros(4000, dtype=np.int64)
    prompt = describe_term("CL:0000236")
    drawn = draw_texts(facts, cells, np.random.default_rng(0), drop=0.5, alone=0.25)
    # 0.25, and 0.5 ** 5 of the rest: tissue, organ, disease, sex and assay are known.
    share = np.mean([text == prompt for text in drawn])
    assert abs(share - (0.25 + 0.75 * 0.5**5)) < 0.03
    assert all(text.startswith(prompt) for text in drawn)
    never = draw_texts(facts, cells, np.random.default_rng(0), drop=0.0, alone=0.0)
    assert set(never) == {facts.texts().texts[0]}


def test_a_cell_without_a_type_says_what_is_known_and_one_without_anything_nothing() -> None:
    facts = read_facts(COLUMNS)
    assert facts.described.tolist() == [True, True, True, True]
    (text,) = draw_texts(facts, [3], np.random.default_rng(0), drop=1.0, templates=["bare"])
    assert text == "blood"
    nothing = read_facts({"cell_type": ["unknown", "B cell"], "sex": ["na", None]})
    assert nothing.described.tolist() == [False, True]
    assert draw_texts(nothing, [0], np.random.default_rng(0)) == [""]
    assert draw_texts(nothing, [], np.random.default_rng(0)) == []


def test_all_templates_are_drawn() -> None:
    facts = read_facts(COLUMNS)
    drawn = draw_texts(facts, [0] * 200, np.random.default_rng(0), drop=0, alone=0, templates=list(TEMPLATES))
    whole = {facts.texts(template).texts[0] for template in TEMPLATES}
    assert len(whole) == len(TEMPLATES)
    assert set(drawn) == whole


@pytest.mark.parametrize("wrong", [{"drop": 1.1}, {"alone": -0.1}, {"templates": []}, {"templates": ["poem"]}])
def test_wrong_choices_are_refused(wrong: dict) -> None:
    with pytest.raises(ConfigError):
        draw_texts(read_facts(COLUMNS), [0], np.random.default_rng(0), **wrong)


@pytest.mark.parametrize(
    ("tissue", "organ"),
    [
        ("UBERON:0008951", "lung"),  # left lung lobe
        ("UBERON:0000006", "pancreas"),  # islet of Langerhans
        ("UBERON:0002048", "lung"),
        ("UBERON:0001157", "colon"),  # transverse colon: a part of the intestine as well, which comes later
        ("UBERON:0002048 (organoid)", "lung"),
        ("UBERON:0002048 (cell culture)", ""),
        ("CL:0000057", ""),  # a culture of fibroblasts
        ("UBERON:9999999", ""),
        ("unknown", ""),
        ("", ""),
    ],
)
def test_the_organ_follows_from_the_tissue(tissue: str, organ: str) -> None:
    assert read_organ(tissue, "").name == organ
    assert read_organ("", tissue).name == organ


def test_an_organ_that_is_said_stays_and_one_that_is_not_follows() -> None:
    columns = {
        "cell_type": ["B cell"] * 4,
        "tissue": ["islet of Langerhans", "islet of Langerhans", "blorb", None],
        "tissue_general": ["endocrine gland", "unknown", None, None],
    }
    found = describe_cells(columns, template="names")
    assert [found.texts[place] for place in found.index] == [
        "cell type: b cell. tissue: islet of langerhans. organ: endocrine gland. ",
        "cell type: b cell. tissue: islet of langerhans. organ: pancreas. ",
        "cell type: b cell. tissue: blorb. ",
        "cell type: b cell. ",
    ]
    assert found.facts.derived == ()
    alone = describe_cells({"tissue": ["transverse colon"]}, aspects=["organ"], template="bare")
    assert alone.texts == ["colon"]
    assert alone.facts.derived == ("organ",)
    own = {"tissue": "where"}
    assert describe_cells({"where": ["lung"]}, aspects=["organ"], own_columns=own, template="bare").texts == ["lung"]


def test_every_listed_organ_is_a_term_and_its_own_organ_or_part_of_one_before_it() -> None:
    uberon, seen = load_ontology("UBERON"), []
    for organ in organs():
        assert organ in uberon
        place = [other for other in seen if other in uberon.ancestors(organ)]
        assert read_organ(organ, "").name == uberon.name(place[0] if place else organ)
        seen.append(organ)
    assert len(set(seen)) == len(seen) > 50


def test_several_names_joined_by_commas_are_read_where_all_are_known() -> None:
    one, other = (load_ontology("HANCESTRO").name(i) for i in ("HANCESTRO:0005", "HANCESTRO:0014"))
    both = read_aspect("ethnicity", "", f"{one},{other}")
    assert both == read_aspect("ethnicity", "HANCESTRO:0005,HANCESTRO:0014", "")
    assert both.name == f"{one} and {other}"
    assert read_aspect("ethnicity", "", f"{one},blorb").name == f"{one},blorb"
    mondo = load_ontology("MONDO")
    comma = next(mondo.name(i) for i in mondo.ids if "," in mondo.name(i))
    assert read_aspect("disease", "", comma).name == comma


def test_labels_as_people_write_them_are_read_and_told() -> None:
    found = describe_cells({"cell_type": ["FCGR3A+ Mono", "Tregs", "doublets", "blorb", "B cell"]}, template="bare")
    texts = [found.texts[place] for place in found.index]
    assert texts == ["cd14-low, cd16-positive monocyte", "regulatory t cell", "", "blorb", "b cell"]
    ontology = load_ontology("CL")
    assert found.facts.read_as == {
        "FCGR3A+ Mono": "CD14-low, CD16-positive monocyte",
        "Tregs": ontology.name("CL:0000815"),
    }
    assert found.facts.without == {"cell type": 1}
    own = describe_cells({"cell_type": ["Tregs"]}, definitions={"tregs": "Mine."})
    assert own.texts == ["cell type: tregs. mine.; "]
    # An id that is known decides, whatever the label beside it.
    both = {"cell_type": ["doublets"], "cell_type_ontology_term_id": ["CL:0000236"]}
    assert describe_cells(both, template="bare").texts == ["b cell"]


@pytest.mark.parametrize(
    ("aspect", "old", "new"),
    [("assay", "EFO:0009898", "EFO:0009922"), ("ethnicity", "HANCESTRO:0593", "AfPO:0000056")],
)
def test_an_id_of_former_years_is_read_as_what_replaced_it(aspect: str, old: str, new: str) -> None:
    assert read_aspect(aspect, old, "") == read_aspect(aspect, new, "")
    assert read_aspect(aspect, old, "").known


def test_one_cell_and_a_table_say_the_same_whether_the_organ_is_said_or_not() -> None:
    cell = {"cell_type": "B cell", "tissue": "transverse colon"}
    assert describe_cell(cell) == describe_cell(cell | {"tissue_general": "colon"})
    assert NAMES[0] == "cell type"
    assert describe_cells({name: [value] for name, value in cell.items()}).texts == [describe_cell(cell)]
