"""Candidates from the ontology, a tissue and the user's labels; bad labels are refused in words."""

from __future__ import annotations

from pathlib import Path

import pytest

from cellingua.core.errors import FileError, LabelError
from cellingua.words.candidates import by_tissue, candidate_terms, from_labels, read_labels_file, whole_ontology
from cellingua.words.ontology import load_ontology
from cellingua.words.tissues import tissue_table

ONTOLOGY = load_ontology("CL")


def test_whole_ontology_leaves_out_other_species_and_says_so() -> None:
    candidates = whole_ontology()
    assert len(candidates) == len(set(candidates.labels)) == len(candidate_terms())
    assert all(ONTOLOGY.in_human(i) for i in candidates.term_ids if i)
    assert "CL:0000000" not in candidates.term_ids
    assert {"CL:0000236", "CL:0000171", "CL:0000540"} <= set(candidates.term_ids)
    assert set(candidates.texts) == {""}
    assert "398" in candidates.reading[0]


@pytest.mark.parametrize("duty", ["phagocyte", "mononuclear leukocyte", "progenitor cell"])
def test_a_duty_is_no_candidate_of_ours_and_one_of_a_user(duty: str) -> None:
    (term,) = [i for i in ONTOLOGY.ids if ONTOLOGY.name(i) == duty]
    assert term not in whole_ontology().term_ids
    assert from_labels([duty, "B cell"]).term_ids[0] == term


def test_every_term_of_the_tissue_table_is_a_live_human_term() -> None:
    uberon = load_ontology("UBERON")
    table = tissue_table()
    assert len(table) > 45
    for place, terms in table.items():
        assert place == "everywhere" or place in uberon
        assert all(i in ONTOLOGY and ONTOLOGY.in_human(i) for i in terms)


@pytest.mark.parametrize(
    ("tissue", "inside", "outside"),
    [
        ("pancreas", "CL:0000171", "CL:0000182"),
        ("liver", "CL:0000182", "CL:0000171"),
        ("UBERON:0002048", "CL:0002063", "CL:0000653"),
        ("kidney", "CL:0000653", "CL:0002063"),
        ("brain", "CL:0000128", "CL:0000182"),
        ("retina", "CL:0000604", "CL:0000182"),
        ("skin", "CL:0000312", "CL:0000604"),
        ("heart", "CL:0000746", "CL:0000312"),
        ("colon", "CL:0000584", "CL:0000746"),
        ("placenta", "CL:0000351", "CL:0000746"),
        ("testis", "CL:0000216", "CL:0000351"),
        ("islets", "CL:0000169", "CL:0002064"),
        ("temporal cortex", "CL:0000127", "CL:0000182"),
    ],
)
def test_a_tissue_has_its_own_types_and_what_is_everywhere(tissue: str, inside: str, outside: str) -> None:
    ids = set(by_tissue(tissue).term_ids)
    assert inside in ids
    assert outside not in ids
    assert {"CL:0000084", "CL:0000115", "CL:0000057", "CL:0000235"} <= ids


def test_a_part_has_no_more_than_the_whole() -> None:
    assert set(by_tissue("islet of Langerhans").term_ids) <= set(by_tissue("pancreas").term_ids)
    assert set(by_tissue("cerebellum").term_ids) <= set(by_tissue("brain").term_ids)


def test_a_tissue_that_does_not_exist_names_the_nearest() -> None:
    with pytest.raises(LabelError, match="pancreas"):
        by_tissue("pancreass")
    with pytest.raises(LabelError):
        by_tissue("UBERON:9999999")
    with pytest.raises(LabelError):
        by_tissue("  ")


def test_labels_are_kept_as_written_and_their_reading_is_told() -> None:
    candidates = from_labels(["CD4 T", "my odd cluster", "CL:0000236"])
    assert candidates.labels == ["CD4 T", "my odd cluster", "B cell"]
    assert candidates.term_ids == ["CL:0000624", None, "CL:0000236"]
    assert candidates.texts == ["", "cell type: my odd cluster. ", ""]
    assert candidates.reading[0] == '"CD4 T" read as CD4-positive, alpha-beta T cell (CL:0000624), short form'
    assert "free text" in candidates.reading[1]


def test_a_comma_is_part_of_a_name_first() -> None:
    with_comma = [i for i in ONTOLOGY.ids if "," in ONTOLOGY.name(i)]
    assert len(with_comma) > 100
    for term_id in with_comma:
        name = ONTOLOGY.name(term_id)
        assert from_labels(name).term_ids == [term_id]
        assert from_labels(f"{name}; T cell").term_ids == [term_id, "CL:0000084"]
    assert from_labels("B cell, NK, monocyte").labels == ["B cell", "NK", "monocyte"]
    assert from_labels("CD4-positive, alpha-beta T cell, B cell").term_ids == ["CL:0000624", "CL:0000236"]
    assert from_labels("something, odd").labels == ["something, odd"]


def test_the_users_description_goes_into_the_text() -> None:
    candidates = from_labels([("B cell", "My own words."), ("odd", "An odd one.")])
    assert candidates.texts == ["cell type: b cell. my own words.; ", "cell type: odd. an odd one.; "]


def test_html_is_data() -> None:
    label = "<img src=x onerror=alert(1)>"
    assert from_labels([label]).labels == [label]


def test_two_labels_of_one_term_are_kept_with_a_note() -> None:
    candidates = from_labels(["NK", "natural killer cell"])
    assert candidates.labels == ["NK", "natural killer cell"]
    assert any("same term" in line for line in candidates.reading)


@pytest.mark.parametrize(
    "labels",
    [[], "", ["B cell", ""], ["B cell", "  "], ["B cell", "B cell"], ["B cell", "b CELL "], "B cell;;NK"]
    + [["CL:9999999"], ["CL:12"], ["B cell", "CL:0000236"], ["x" * 5000], ["CL_99999999"]],
)
def test_bad_labels_are_refused(labels: list[str] | str) -> None:
    with pytest.raises(LabelError) as caught:
        from_labels(labels)
    assert caught.value.exit_code == 2


def test_an_unknown_id_names_the_nearest_and_an_obsolete_one_its_successor() -> None:
    with pytest.raises(LabelError, match=r"CL:\d{7} \("):
        from_labels(["CL:9999999"])
    obsolete = next(i for i, (_, new) in ONTOLOGY._obsolete.items() if new in ONTOLOGY)
    with pytest.raises(LabelError, match="obsolete"):
        from_labels([obsolete])


def test_a_labels_file(tmp_path: Path) -> None:
    path = tmp_path / "labels.txt"
    path.write_bytes("\ufeff# mine\r\nB cell\r\n\r\nodd\tAn odd one.\r\nTreg\n".encode())
    assert read_labels_file(path) == [("B cell", ""), ("odd", "An odd one."), ("Treg", "")]


@pytest.mark.parametrize("content", [b"\xff\xfe\x00B", b"caf\xe9\n", b"# nothing\n\n", b"a\x00b\n", b"\tonly words\n"])
def test_a_bad_labels_file_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "labels.txt"
    path.write_bytes(content)
    with pytest.raises(LabelError):
        read_labels_file(path)


def test_a_missing_labels_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileError):
        read_labels_file(tmp_path / "none.txt")
    with pytest.raises(FileError):
        read_labels_file(tmp_path)
