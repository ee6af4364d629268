"""The report on drugs: self-contained, accessible, escaped, and the numbers of the table."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import drug_world
import numpy as np
import pytest

from cellingua.report.drug_map import MOST_DRUGS, rows_of, shown_drugs
from cellingua.report.drug_page import write_drug_report
from cellingua.tasks.drug_rank import drug_rank
from cellingua.tasks.drug_result import DrugResult


@pytest.fixture(scope="module")
def result() -> DrugResult:
    """Ranked clusters with their cells."""
    return drug_rank(drug_world.cells(60), "cluster", model=drug_world.model(), per_cell=True)


@pytest.fixture(scope="module")
def page(result: DrugResult, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Their report."""
    return write_drug_report(result, drug_world.model(), "cells.h5ad", tmp_path_factory.mktemp("figures"))


class Tags(HTMLParser):
    """Collects tags, and refuses what is closed in another order than it was opened."""

    VOID = ("meta", "img", "link", "br")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def tags(page: str) -> list[tuple[str, dict[str, str | None]]]:
    parser = Tags()
    parser.feed(page)
    assert parser.open == []
    return parser.seen


def test_it_loads_nothing_and_runs_nothing(page: str) -> None:
    found = tags(page)
    assert not [tag for tag, _ in found if tag in ("script", "link", "iframe")]
    sources = [attrs[name] for _, attrs in found for name in ("src", "href") if name in attrs]
    assert all(str(source).startswith("data:image/png;base64,") for source in sources)
    assert "default-src 'none'" in page
    assert not re.search(r"url\(|@import|https?://", page)


def test_the_first_screen_says_what_a_reader_must_know(page: str, result: DrugResult) -> None:
    top = page[: page.index("Each cluster")]
    told = int((result.told_apart() != 0).sum())
    for said in ("Research only, not for clinical use", f"<b>{told}</b>", "drug's mean", "unlike any cancer line"):
        assert said in top
    for said in ("ln IC50", "Drug mean says", "Percentile", "distance"):
        assert said in page


def test_the_heat_map_is_a_table_that_can_be_read_aloud(page: str, result: DrugResult) -> None:
    table = re.search(r'<table class="heat.*?</table>', page, re.DOTALL)
    assert table is not None
    found = tags(table[0])
    assert [tag for tag, _ in found].count("caption") == 1
    assert all("scope" in attrs for tag, attrs in found if tag == "th")
    drugs = shown_drugs(result)
    for row in rows_of(result, drugs):
        assert f'<th scope="row">{row["drug"]}</th>' in table[0]
        for sample, field in enumerate(row["fields"]):
            drug = result.drugs.index(row["drug"])
            assert field["percentile"] == round(float(result.answer.percentile[sample, drug]))
            assert 0 <= field["strength"] <= 1
            assert field["side"] == ("s" if result.answer.percentile[sample, drug] < 50 else "r")
    images = [attrs for tag, attrs in tags(page) if tag == "img"]
    assert all(attrs.get("alt") for attrs in images)


def test_every_sample_lists_its_drugs_in_their_order(page: str, result: DrugResult) -> None:
    lists = re.findall(r'<details class="sample".*?<tbody>(.*?)</tbody>', page, re.DOTALL)
    assert len(lists) == 3
    for sample, text in enumerate(lists):
        named = re.findall(r'<th scope="row">(.*?)</th>', text)
        assert named == [result.drugs[drug] for drug in result.order(sample)][: len(named)]
        assert len(named) == 10
    for sample in range(3):
        for warning in result.warnings(sample):
            assert warning.replace("'", "&#39;") in page
    assert "Cell by cell" in page


def test_drugs_of_the_map_hold_the_first_of_every_sample(result: DrugResult) -> None:
    drugs = shown_drugs(result, most=4)
    assert len(drugs) <= 4
    assert len(set(drugs.tolist())) == len(drugs)
    assert {int(result.order(sample)[0]) for sample in range(3)} <= set(drugs.tolist())
    assert len(shown_drugs(result)) == min(MOST_DRUGS, len(result.drugs))


def test_one_line_and_one_drug_make_a_report_too(tmp_path: Path) -> None:
    one = drug_rank(drug_world.expression(slice(50, 51)), drugs=["Torin 2"], model=drug_world.model())
    page = write_drug_report(one, drug_world.model(), "one.csv", tmp_path)
    tags(page)
    assert "LINE-50" in page
    assert "Cell by cell" not in page
    assert (tmp_path / "drug_heatmap.png").stat().st_size > 1000


def test_the_same_answer_makes_the_same_page(result: DrugResult, page: str, tmp_path: Path) -> None:
    assert write_drug_report(result, drug_world.model(), "cells.h5ad", tmp_path) == page
    assert np.isfinite(result.general).all()
