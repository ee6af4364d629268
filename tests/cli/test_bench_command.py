"""``cellingua bench``: tables and JSON of a labelled file, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import small_world
from folders import everything

from cellingua.bench import TASKS
from cellingua.cli import bench
from cellingua.cli.main import main


@pytest.fixture
def call(tmp_path: Path, small_model_folder: Path) -> list[str]:
    """The words of a call on a labelled file, without its output."""
    small_world.cells(40).write_h5ad(tmp_path / "cells.h5ad")
    words = ["bench", "zero-shot", "--data", str(tmp_path / "cells.h5ad"), "--model", str(small_model_folder)]
    return [*words, "--labels-from", "own", "--candidates", "labels", "--draws", "1"]


def test_tables_and_json(call: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "bench.json"
    assert main([*call, "-o", str(out)]) == 0
    shown = capsys.readouterr()
    assert "marker scoring (cellconsensus)" in shown.out
    assert "Left out:" in shown.out
    held = json.loads(out.read_text(encoding="utf-8"))
    assert {run["method"] for run in held["runs"]} == {"model", "markers", "majority", "untrained"}
    assert main([*call, "--json", "--quiet"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["runs"] == held["runs"]
    assert main([*call, "-o", str(out)]) == 2
    assert main([*call, "-o", str(out), "--force", "--quiet"]) == 0
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (["--labels-from", "none"], "no column"),
        (["--labels-from", "batch", "--candidates", "tissue"], ""),
        (["--data", "nowhere.h5ad"], "does not exist"),
        (["--sets", "pbmc3k"], "Sets are named"),
        (["--methods", "magic"], "no method"),
        (["--candidates", "all"], "no candidates"),
        (["--draws", "0"], "draws"),
        (["--seed", "-1"], "seed"),
        (["--model", "no_such_model"], "no_such_model"),
        (["--donor-key", "none"], "no column"),
        (["--profiles", "nowhere"], "profiles_meta"),
        (["--tissue", "the moon", "--candidates", "tissue"], "moon"),
    ],
    ids=lambda words: " ".join(words) if isinstance(words, list) else "",
)
def test_bad_input_is_told_and_nothing_is_written(
    call: list[str], change: list[str], told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = everything(tmp_path)
    assert main([*call, *change, "-o", str(tmp_path / "bench.json")]) == 2
    shown = capsys.readouterr().err
    assert told in shown
    assert "Traceback" not in shown
    assert everything(tmp_path) == before


def test_the_input_is_no_place_for_the_output(call: list[str], tmp_path: Path) -> None:
    before = everything(tmp_path)
    assert main([*call, "-o", str(tmp_path / "cells.h5ad"), "--force"]) == 2
    assert everything(tmp_path) == before


def test_the_verb_knows_the_tasks() -> None:
    assert tuple(TASKS) == bench.TASKS
