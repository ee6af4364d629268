"""``cellingua drug cells`` as a user meets it: figures, warnings, files; errors leave nothing and show no traceback."""

from __future__ import annotations

import json
import re
from pathlib import Path

import drug_world
import numpy as np
import pandas as pd
import pytest
import response_cells
from awkward_files import write_10x_folder
from folders import everything
from response_cells import write_table

from cellingua.cli.main import main


@pytest.fixture
def labelled(tmp_path: Path) -> Path:
    """A labelled file, alone in its folder."""
    cells = response_cells.cells(60)
    cells.obs["one"] = "sensitive"
    cells.obs["none"] = pd.array([None] * 60, dtype="string")
    cells.obs["score"] = np.linspace(0, 1, 60)
    cells.obs["rare"] = ["resistant" if row == 0 else "sensitive" for row in range(60)]
    cells.obs["three"] = np.array(["a", "b", "c"])[np.arange(60) % 3]
    path = tmp_path / "data" / "cells.h5ad"
    path.parent.mkdir()
    cells.write_h5ad(path)
    return path


@pytest.fixture
def downloaded(tmp_path: Path) -> tuple[Path, Path]:
    """A folder of a triplet, and a table."""
    cells = response_cells.cells(60)
    return write_10x_folder(tmp_path / "files", cells), write_table(tmp_path / "table.csv", cells)


def call(*arguments: object) -> int:
    return main(["drug", "cells", *map(str, arguments)])


def test_figures_are_printed_and_written(
    labelled: Path, small_model_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "figures.json"
    options = ("--model", small_model_folder, "--draws", 2, "--sample-key", "sample")
    assert call(labelled, *options, "-o", out) == 0
    said = capsys.readouterr().out
    for part in ("few-shot: learned from", "full: learned from", "samples left out: 60 cells judged", "macro-F1", "! "):
        assert part in said
    held = json.loads(out.read_text())
    assert set(held) >= {"facts", "few_shot", "full", "samples_left_out", "warnings"}
    assert call(labelled, *options, "--json", "--quiet") == 0
    assert json.loads(capsys.readouterr().out) == held
    assert call(labelled, *options, "-o", out) == 2
    assert call(labelled, *options, "-o", out, "--force", "--quiet") == 0


def test_a_folder_of_downloads(
    downloaded: tuple[Path, Path], small_model_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, table = downloaded
    assert call(folder, "--table", table, "--model", small_model_folder, "--draws", 1) == 0
    assert "samples left out" in capsys.readouterr().out


def test_lines_judge_cells_without_learning_from_them(
    small_model_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cells = drug_world.cells(60)
    cells.obs["label"] = ["sensitive" if row % 3 == 0 else "resistant" for row in range(60)]
    cells.write_h5ad(tmp_path / "cells.h5ad")
    drug_world.expression().to_csv(tmp_path / "lines.csv", index=False)
    drug_world.measured().to_csv(tmp_path / "ic50.csv", index=False)
    quick = ("--model", small_model_folder, "--draws", 1)
    lines = ("--lines", tmp_path / "lines.csv", "--responses", tmp_path / "ic50.csv")
    scores = tmp_path / "scores.tsv"
    assert call(tmp_path / "cells.h5ad", *quick, *lines, "--drug", "Cisplatin", "--scores", scores) == 0
    assert re.search(
        r"from cell lines \(strong ridge, \d{3} genes\):\n  Cisplatin: AUROC [01]\.", capsys.readouterr().out
    )
    assert pd.read_csv(scores, sep="\t").shape == (60, 2)
    assert call(tmp_path / "cells.h5ad", *quick, *lines, "--drug", "Cisplatin", "--as-is") == 0
    assert "few-shot" not in capsys.readouterr().out
    model = drug_world.folder(tmp_path / "model")
    assert call(tmp_path / "cells.h5ad", *quick, "--drug", "Cisplatin", "--drug-model", model) == 0
    assert "small drugs, which saw no labelled cell, for Cisplatin: AUROC" in capsys.readouterr().out
    before = everything(tmp_path)
    for wrong in (
        (*lines, "--drug", "Aspirin"), lines, lines[:2], ("--as-is",), ("--scores", tmp_path / "other.tsv"),
        ("--drug", "Cisplatin", "--drug", "Docetaxel"), ("--drug", "Cisplatin", "--drug-model", tmp_path / "nothing"),
        (*lines, "--drug", "Cisplatin", "--table", tmp_path / "ic50.csv"),
    ):  # fmt: skip
        assert call(tmp_path / "cells.h5ad", *quick, *wrong) == 2
    assert everything(tmp_path) == before


BAD = {
    "no such column": ("--labels-from", "nothing"),
    "no label": ("--labels-from", "none"),
    "one class": ("--labels-from", "one"),
    "numbers": ("--labels-from", "score"),
    "one cell of a label": ("--labels-from", "rare"),
    "three labels": ("--labels-from", "three"),
    "a label that is not there": ("--sensitive", "dead"),
    "no such sample column": ("--sample-key", "patient"),
    "a share of all": ("--full", "1"),
    "no share": ("--few", "0"),
    "no draw": ("--draws", "0"),
    "no such model": ("--model", "nothing_like_it"),
    "no such layer": ("--layer", "counts"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_calls_exit_with_2_and_write_nothing(
    name: str, labelled: Path, small_model_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = everything(tmp_path)
    model = () if "--model" in BAD[name] else ("--model", small_model_folder)
    assert call(labelled, *model, *BAD[name], "-o", tmp_path / "out.json") == 2
    told = capsys.readouterr().err
    assert "cellingua: " in told
    assert "Traceback" not in told
    assert everything(tmp_path) == before


@pytest.mark.parametrize("fault", ["no table", "truncated", "empty folder", "barcodes of others", "no labels"])
def test_bad_folders_exit_with_2_and_write_nothing(
    fault: str,
    downloaded: tuple[Path, Path],
    small_model_folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder, table = downloaded
    if fault == "truncated":
        path = folder / "matrix.mtx.gz"
        path.write_bytes(path.read_bytes()[:300])
    elif fault == "empty folder":
        for path in folder.iterdir():
            path.unlink()
    elif fault == "barcodes of others":
        table.write_text("barcode,label\nAAAC,sensitive\nAAAG,resistant\n")
    elif fault == "no labels":
        table.write_text("barcode,label\ncell0-1,\ncell1-1,\n")
    else:
        table.unlink()
    before = everything(tmp_path)
    assert call(folder, "--table", table, "--model", small_model_folder, "-o", tmp_path / "out.json") == 2
    assert "Traceback" not in capsys.readouterr().err
    assert everything(tmp_path) == before
