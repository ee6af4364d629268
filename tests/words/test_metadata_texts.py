"""Texts of tables of cells: the same whatever the order and form of the table, and described once."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cellingua.core.errors import CellinguaError, ConfigError, FileError, InputError
from cellingua.words import describing
from cellingua.words.definitions import read_definitions
from cellingua.words.describing import TEMPLATES, describe_cell, describe_cells, describe_term, read_aspect
from cellingua.words.metadata import check_version, choose_aspects, distinct_rows
from cellingua.words.ontology import load_ontology

TYPES = ["B cell", "monocyte", "my own type", "unknown", None]
VALUES = {
    "cell_type": TYPES,
    "tissue": ["blood", "lung", None],
    "tissue_general": ["blood", "lung"],
    "development_stage": ["adult stage", "unknown"],
    "disease": ["normal", "lung adenocarcinoma"],
    "sex": ["male", "female"],
    "self_reported_ethnicity": ["European", "na"],
    "assay": ["10x 3' v3", "Smart-seq2"],
}


def table(n: int = 200, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    return pd.DataFrame({name: np.array(v, dtype=object)[rng.integers(len(v), size=n)] for name, v in VALUES.items()})


def each(found: describing.CellTexts) -> list[str]:
    return [found.texts[place] for place in found.index]


@pytest.mark.parametrize("drop", [0.0, 0.5])
@pytest.mark.parametrize("template", TEMPLATES)
def test_a_cell_has_its_text_whatever_the_order_and_form_of_the_table(template: str, drop: float) -> None:
    obs = table()
    texts = each(describe_cells(obs, template=template, drop=drop, seed=3))
    order = np.random.default_rng(1).permutation(len(obs))
    shuffled = each(describe_cells(obs.iloc[order], template=template, drop=drop, seed=3))
    assert shuffled == [texts[i] for i in order]
    assert each(describe_cells(obs.astype("category"), template=template, drop=drop, seed=3)) == texts
    lists = {name: obs[name].tolist() for name in reversed(list(obs))}
    assert each(describe_cells(lists, template=template, drop=drop, seed=3)) == texts
    assert each(describe_cells(obs[50:60], template=template, drop=drop, seed=3)) == texts[50:60]
    assert all(text == text.lower() and not set("\t\r\n") & set(text) for text in texts)


def test_a_table_says_what_one_cell_says() -> None:
    obs = table(60)
    for template in TEMPLATES:
        texts = each(describe_cells(obs, template=template))
        assert texts == [describe_cell(row, template=template) for row in obs.to_dict("records")]


def test_templates_differ_and_name_the_type_first() -> None:
    cell = {"cell_type": "B cell", "tissue": "blood"}
    texts = {template: describe_cell(cell, template=template) for template in TEMPLATES}
    assert texts["langcell"].startswith(describe_term("CL:0000236") + "organ: blood. ")
    assert texts["names"] == "cell type: b cell. organ: blood. "
    assert texts["bare"] == "b cell, blood"
    assert texts["sentence"].startswith("a b cell, in the blood. a lymphocyte")
    with pytest.raises(ConfigError, match="langcell"):
        describe_cell(cell, template="poem")


def test_a_sentence_reads_as_one() -> None:
    whole = {
        "cell_type": "acinar cell",
        "tissue": "islet of Langerhans",
        "development_stage": "adult stage",
        "disease": "normal",
        "sex": "female",
        "self_reported_ethnicity": "European",
        "assay": "10x 3' v3",
    }
    text = describe_cell(whole, template="sentence")
    assert text.startswith(
        "an acinar cell, from islet of langerhans, in the pancreas, at the adult stage, without disease, "
        "from a female donor, of european ancestry, measured by 10x 3' v3. a secretory cell"
    )
    assert (
        describe_cell({"sex": "male", "disease": "gout"}, template="sentence")
        == "a cell, with gout, from a male donor."
    )
    assert describe_cell({"sex": "unknown"}, template="sentence") == ""


def test_a_million_cells_are_described_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = {"compose": 0, "read": 0}
    compose, read = describing.compose, describing.read_aspect

    def counted_compose(*args):  # type: ignore[no-untyped-def]
        calls["compose"] += 1
        return compose(*args)

    def counted_read(*args):  # type: ignore[no-untyped-def]
        calls["read"] += 1
        return read(*args)

    monkeypatch.setattr(describing, "compose", counted_compose)
    monkeypatch.setattr(describing, "read_aspect", counted_read)
    small = table(50).astype("category")
    rows = np.arange(1_000_000) % 50
    found = describe_cells({name: pd.Categorical(small[name]).take(rows) for name in small})
    assert len(found.index) == 1_000_000
    assert calls["compose"] == len(small.astype(str).drop_duplicates())
    assert calls["read"] <= sum(len(values) for values in VALUES.values())
    assert np.array_equal(found.index, np.tile(describe_cells(small).index, 20_000))


@settings(deadline=None, max_examples=40)
@given(
    st.lists(st.tuples(st.sampled_from(["a", " a", "b", "", None]), st.sampled_from(["x", "y", None])), max_size=30),
    st.booleans(),
)
def test_distinct_rows_are_those_of_a_plain_loop(rows: list[tuple[str | None, str | None]], categorical: bool) -> None:
    columns: list[object] = [np.array([row[i] for row in rows], dtype=object) for i in range(2)]
    if categorical:
        columns = [pd.Categorical(column) for column in columns]
    found, index = distinct_rows(columns)
    plain = [tuple((value or "").strip() for value in row) for row in rows]
    assert [found[place] for place in index] == plain
    assert found == list(dict.fromkeys(plain))


def test_distinct_rows_of_more_combinations_than_a_number_holds() -> None:
    rng = np.random.default_rng(0)
    values = np.array([f"v{number}" for number in range(900)], dtype=object)
    columns = [values[rng.integers(900, size=2000)][rng.integers(0, 2000, 4000) // 3] for _ in range(12)]
    rows, index = distinct_rows(columns)  # 900 ** 12 combinations
    plain = list(zip(*columns, strict=True))
    assert [rows[place] for place in index] == plain
    assert rows == list(dict.fromkeys(plain))
    assert distinct_rows([[], []])[0] == []


def test_the_cell_type_is_never_dropped_and_the_rest_at_random() -> None:
    obs = table(400)
    full = each(describe_cells(obs, template="names"))
    halves = [each(describe_cells(obs, template="names", drop=0.5, seed=seed)) for seed in (0, 0, 1)]
    assert halves[0] == halves[1]
    assert halves[0] != halves[2]
    alone = each(describe_cells(obs, template="names", drop=1.0))
    for whole, half, one in zip(full, halves[0], alone, strict=True):
        assert half
        typed = whole.startswith("cell type: ")
        assert half.startswith("cell type: ") == typed
        assert not typed or one == whole.split(". ")[0] + ". "
        assert one.count(": ") == 1
    share = sum(half.count(": ") for half in halves[0]) / sum(whole.count(": ") for whole in full)
    assert 0.45 < share < 0.75
    with pytest.raises(ConfigError, match="chance"):
        describe_cells(obs, drop=1.5)


def test_what_no_ontology_knows_is_kept_and_counted() -> None:
    found = describe_cells({"cell_type": ["blorb"] * 3 + ["B cell"] + [None, "unknown"], "tissue": ["blood"] * 6})
    assert found.facts.unknown == {"cell type": {"blorb": 3}}
    assert found.facts.without == {"cell type": 2, "tissue": 0, "organ": 0}
    assert found.texts[0].startswith("cell type: blorb. organ: blood. ")
    assert found.facts.aspects == ("cell type", "tissue", "organ")
    assert found.facts.derived == ("organ",)


def test_ids_go_before_names_and_obsolete_or_several_ids_are_read() -> None:
    assert read_aspect("cell type", "CL:0000236", "whatever").name == "B cell"
    assert read_aspect("cell type", "", "CL:0000236").name == "B cell"
    assert read_aspect("cell type", "CL:9999999", "B cell").known
    assert not read_aspect("cell type", "CL:9999999", "").known
    both = read_aspect("disease", "MONDO:0005061 || PATO:0000461", "")
    assert both.known
    assert both.name.endswith(" and normal")
    assert read_aspect("ethnicity", "HANCESTRO:0005,HANCESTRO:0014", "European,Hispanic").name.count(" and ") == 1
    assert read_aspect("tissue", "UBERON:0000178 (organoid)", "blood (organoid)").name == "blood"
    ontology = load_ontology("CL")
    old, new = next((i, r[1]) for i, r in ontology._obsolete.items() if r[1] in ontology)
    assert read_aspect("cell type", old, "").name == ontology.name(new)


def test_the_former_name_of_ethnicity_is_read() -> None:
    columns = {"cell_type_ontology_term_id": ["CL:0000236"], "ethnicity": ["European"]}
    assert describe_cells(columns).facts.aspects == ("cell type", "ethnicity")


def test_missing_columns_are_named_with_what_is_there() -> None:
    with pytest.raises(InputError, match=r"no column cell_type(.|\n)*louvain(.|\n)*version 2 to 7"):
        describe_cells({"louvain": ["1"]})
    with pytest.raises(InputError, match="no column disease"):
        describe_cells({"cell_type": ["B cell"]}, aspects=["cell type", "disease"])
    with pytest.raises(InputError, match="no column nope"):
        describe_cells({"cell_type": ["B cell"]}, own_columns={"cell type": "nope"})
    with pytest.raises(ConfigError, match="not among"):
        describe_cells({"cell_type": ["B cell"]}, aspects=["cell type"], own_columns={"sex": "cell_type"})
    with pytest.raises(InputError, match="1, 2 values"):
        describe_cells({"cell_type": ["B cell"], "tissue": ["lung", "lung"]})
    assert describe_cells({"mine": ["B cell"]}, own_columns={"cell type": "mine"}, template="bare").texts == ["b cell"]


@pytest.mark.parametrize("wanted", [["colour"], ["sex", "sex"], ["sex", "Sex"], [], [""]])
def test_wrong_aspects_are_refused(wanted: list[str]) -> None:
    with pytest.raises(ConfigError):
        choose_aspects(wanted)


def test_aspects_are_named_either_way_and_keep_their_order() -> None:
    assert choose_aspects(["Assay", "tissue_general", "cell_type"]) == ("cell type", "organ", "assay")


@pytest.mark.parametrize("version", ["1.1.0", "8.0.0", "0", "new", ""])
def test_other_versions_of_the_schema_are_refused(version: str) -> None:
    with pytest.raises(InputError, match="version 2 to 7"):
        check_version(version)


def test_own_definitions_go_before_the_ontology(tmp_path: Path) -> None:
    path = tmp_path / "own.json"
    path.write_text(json.dumps({"cl:0000236": "Mine.", "BLORB": {"name": "blorb", "def": "New."}, "lung": []}))
    own = read_definitions(path)
    found = describe_cells({"cell_type": ["B cell", "blorb"], "tissue": ["lung", "lung"]}, definitions=own)
    assert found.texts == ["cell type: b cell. mine.; organ: lung. ", "cell type: blorb. new.; organ: lung. "]
    assert found.facts.unknown == {}
    assert found.facts.used == {"cl:0000236", "blorb", "lung"}
    lines = tmp_path / "own.tsv"
    lines.write_text("\ufeff# mine\r\n\r\nCL:0000236\tMine.\r\nblorb\tNew.\r\nlung\t\r\n", encoding="utf-8")
    assert read_definitions(lines) == own


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("a.json", '{"a": "1", "a": "2"}', "twice"),
        ("a.json", '{"a": "1", "A ": "2"}', "twice"),
        ("a.json", '{"a": {"def": "1", "def": "2"}}', "twice"),
        ("a.json", '{"a": 1}', "no text"),
        ("a.json", '{"a": "1", "b": null}', "'b' is no text"),
        ("a.json", '{"a": "1", "b": ["2"]}', "'b' is no text"),
        ("a.json", '{"a": {"name": "a"}}', "no text"),
        ("a.json", '{"a": {"def": "1", "definition": "2"}}', "both"),
        ("a.json", '\ufeff\ufeff{"a": "1"}', "not JSON"),
        ("a.json", '["a"]', "no JSON object"),
        ("a.json", '{"a": ', "not JSON"),
        ("a.json", "[" * 100_000, "not JSON"),
        ("a.json", "{}", "no definition"),
        ("a.json", '{" ": "x"}', "empty key"),
        ("a.tsv", "a\t1\nb\t2\nA\t3\n", "twice"),
        ("a.tsv", "a 1\n", "0 tabs"),
        ("a.tsv", "a\t1\t2\n", "2 tabs"),
        ("a.tsv", "\t1\n", "empty key"),
        ("a.tsv", "a\t\0\n", "not a text"),
        ("a.tsv", "# nothing\n", "no definition"),
    ],
)
def test_bad_definitions_are_refused(tmp_path: Path, name: str, text: str, says: str) -> None:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    with pytest.raises(CellinguaError, match=says) as caught:
        read_definitions(path)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("start", ["", "\ufeff"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("name", ["a.json", "A.JSON", "a.tsv", "a.txt"])
def test_definitions_are_read_whatever_wrote_the_file(tmp_path: Path, name: str, end: str, start: str) -> None:
    lines = ["# mine", "CL:0000236\tMine.", "", "blorb cell\tNew  text"]
    if name.lower().endswith("json"):
        lines = ["{", '"CL:0000236": "Mine.",', '"blorb cell": {"def": "New  text"}', "}"]
    (tmp_path / name).write_text(start + end.join(lines) + end, encoding="utf-8", newline="")
    assert read_definitions(tmp_path / name) == {"cl:0000236": "Mine.", "blorb cell": "New text"}


def test_definitions_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="can't be read"):
        read_definitions(tmp_path / "none.tsv")
    (tmp_path / "latin.tsv").write_bytes(b"a\t\xe9\n")
    with pytest.raises(FileError, match="UTF-8"):
        read_definitions(tmp_path / "latin.tsv")
