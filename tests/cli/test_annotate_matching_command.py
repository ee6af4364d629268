"""``cellingua annotate --match``."""

from __future__ import annotations

import json
from pathlib import Path

import anndata
import pytest

from cellingua.cli.main import main

LABELS = "B cell; monocyte; endothelial cell; pancreatic A cell"


def run(file: Path, model: Path, *more: str) -> int:
    return main(["annotate", str(file), "--model", str(model), "--labels", LABELS, "--no-report", *more])


@pytest.mark.parametrize("mode", ["ours", "compat"])
def test_it_says_how_it_was_matched(
    file: Path, matching_model_folder: Path, capsys: pytest.CaptureFixture[str], mode: str
) -> None:
    more = ["--match"] if mode == "ours" else ["--match", mode]
    assert run(file, matching_model_folder, *more, "--match-top", "2", "--precision", "float32", "--json") == 0
    parameters = json.loads(capsys.readouterr().out)["provenance"]["parameters"]
    assert parameters["match"]["mode"] == mode
    assert parameters["match"]["matched_a_cell"] == 2
    assert parameters["precision"] == "float32"
    back = anndata.read_h5ad(file.parent / "cells_cellingua" / "cells.annotated.h5ad")
    assert back.uns["cellingua"]["parameters"]["match"]["mode"] == mode
    assert set(back.obs["cellingua_status"]) <= {"named", "rolled_up", "unknown"}


@pytest.mark.parametrize(
    ("more", "says"),
    [(["--match"], "no match head"), (["--match", "--match-top", "-2"], "match_top is -2")],
)
def test_what_cannot_be_matched_exits_2_and_leaves_nothing(
    file: Path, small_model_folder: Path, capsys: pytest.CaptureFixture[str], more: list[str], says: str
) -> None:
    before = sorted(file.parent.rglob("*"))
    assert run(file, small_model_folder, "--quiet", *more) == 2
    shown = capsys.readouterr()
    assert says in shown.err
    assert "Traceback" not in shown.err
    assert sorted(file.parent.rglob("*")) == before


def test_a_mode_that_does_not_exist_exits_2(file: Path, matching_model_folder: Path) -> None:
    with pytest.raises(SystemExit) as stopped:
        run(file, matching_model_folder, "--match", "mine")
    assert stopped.value.code == 2
