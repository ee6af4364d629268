"""``cellingua finetune`` as a user meets it: a model that annotates and embeds; errors leave nothing."""

from __future__ import annotations

import json
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
import small_world
import tiny_cellm
from folders import everything
from interrupted_tuning import interrupted

from cellingua.cli.main import main
from cellingua.models.cellm_bundle import save_cellm


@pytest.fixture
def labelled(tmp_path: Path) -> Path:
    """A labelled file, alone in its folder, with columns of every kind that labels come in."""
    cells = small_world.cells(60, seed=1, noise=0.4)
    rng = np.random.default_rng(0)
    cells.obs = cells.obs.assign(
        celltype=pd.Categorical(cells.obs["own"]),
        holes=np.where(np.arange(60) % 4 == 0, None, cells.obs["own"]),
        vague=np.where(np.arange(60) % 5 == 0, "doublet", cells.obs["own"]),
        one="B cell",
        score=rng.normal(size=60),
        many=np.arange(60) * 7 + 1000,
        leiden=(np.arange(60) % 6).astype(float),
        names=[f"cell {row}" for row in range(60)],
        none=pd.array([None] * 60, dtype="string"),
        rare=["only one" if row == 0 else label for row, label in enumerate(cells.obs["own"])],
    )
    path = tmp_path / "data" / "cells.h5ad"
    path.parent.mkdir()
    cells.write_h5ad(path)
    return path


def tune(file: Path, out: Path, base: Path, *more: str, column: str = "celltype") -> int:
    return main(["finetune", str(file), "--labels-from", column, "-o", str(out), "--model", str(base), *more])


def annotate(file: Path, model: Path, *more: str) -> int:
    return main(["annotate", str(file), "--model", str(model), "--no-report", "--quiet", "--force", *more])


def test_a_tuned_model_is_used_like_any_other(
    labelled: Path, small_model_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, other = tmp_path / "my_model", tmp_path / "other.h5ad"
    assert tune(labelled, model, small_model_folder, "--donor-key", "batch", "--test-share", "0.3") == 0
    told = capsys.readouterr().out
    assert "CL:0000236" in told
    assert "Validation on" in told
    assert "Test on" in told
    card = (model / "card.md").read_text(encoding="utf-8")
    assert "| B cell |" in card
    assert "SHA-256 of counts and labels" in card
    assert not list(tmp_path.glob("*.training"))

    fresh = small_world.cells(40, seed=2, noise=0.4)
    fresh.write_h5ad(other)
    assert annotate(other, model) == 0
    back = anndata.read_h5ad(tmp_path / "other_cellingua" / "other.annotated.h5ad")
    assert np.mean(back.obs["cellingua"].astype(str) == fresh.obs["own"]) > 0.9
    assert np.mean(back.obs["cellingua_id"].astype(str) == fresh.obs["truth"]) > 0.9
    summary = json.loads((tmp_path / "other_cellingua" / "summary.json").read_text())
    assert summary["candidates"] == 6
    assert summary["provenance"]["candidates"]["origin"] == "model"
    assert summary["provenance"]["model"]["tuned"]["method"] == "classifier"
    # Other words than its own classes are still read.
    assert annotate(other, model, "--labels", "B cell; monocyte") == 0
    summary = json.loads((tmp_path / "other_cellingua" / "summary.json").read_text())
    assert summary["provenance"]["candidates"]["labels"] == ["B cell", "monocyte"]
    assert main(["embed", str(other), "-o", str(tmp_path / "e.h5ad"), "--model", str(model), "--quiet"]) == 0
    assert anndata.read_h5ad(tmp_path / "e.h5ad").obsm["X_langcell"].shape == (40, small_world.WIDTH)


def test_the_base_may_go(labelled: Path, small_model_folder: Path, tmp_path: Path) -> None:
    import shutil

    base = tmp_path / "base"
    shutil.copytree(small_model_folder, base)
    assert tune(labelled, tmp_path / "mine", base, "--quiet") == 0
    shutil.rmtree(base)
    (tmp_path / "mine").rename(tmp_path / "moved")
    assert annotate(labelled, tmp_path / "moved") == 0


def test_a_method_without_texts_refuses_other_labels(
    labelled: Path, small_model_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = tmp_path / "full"
    assert tune(labelled, model, small_model_folder, "--method", "full", "--epochs", "1", "--quiet") == 0
    before = everything(tmp_path)
    for more in (["--labels", "B cell; T cell"], ["--tissue", "blood"]):
        assert annotate(labelled, model, *more) == 2
        assert "tuned with the method 'full'" in capsys.readouterr().err
    assert everything(tmp_path) == before
    assert annotate(labelled, model) == 0


def test_a_tuned_cellm_names_cells(labelled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base, model = tmp_path / "base", tmp_path / "mine"
    save_cellm(base, tiny_cellm.parts(rows=small_world.rows_of_genes()))
    assert annotate(labelled, base) == 2
    assert "finetune" in capsys.readouterr().err
    assert tune(labelled, model, base, "--method", "cellm", "--epochs", "1", "--quiet") == 0
    assert annotate(labelled, model) == 0
    back = anndata.read_h5ad(labelled.parent / "cells_cellingua" / "cells.annotated.h5ad")
    assert "X_cellm" in back.obsm
    assert "X_langcell" not in back.obsm
    assert set(back.obs["cellingua"]) <= {
        *small_world.LABELS,
        "unknown",
        "lymphocyte",
        "T cell",
        "mononuclear leukocyte",
    }
    assert annotate(labelled, model, "--labels", "B cell; T cell") == 2


def test_it_says_when_it_is_worse(
    labelled: Path, small_model_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = tmp_path / "mine"
    more = ["--method", "langcell_ce", "--epochs", "1", "--learning-rate", "1e-7"]
    assert tune(labelled, model, small_model_folder, *more) == 0
    assert "WORSE than the frozen classifier" in capsys.readouterr().out
    assert "worse than the frozen classifier" in (model / "card.md").read_text(encoding="utf-8")
    assert main(["annotate", str(labelled), "--model", str(model), "--no-report"]) == 0
    assert "worse than the frozen classifier" in capsys.readouterr().err
    summary = json.loads((labelled.parent / "cells_cellingua" / "summary.json").read_text())
    assert summary["provenance"]["model"]["tuned"]["comparison"]["worse"] is True


@pytest.mark.parametrize(("column", "left_out", "classes"), [("holes", 15, 6), ("vague", 12, 6), ("leiden", 0, 6)])
def test_labels_of_every_kind(
    labelled: Path, small_model_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    column: str, left_out: int, classes: int,
) -> None:  # fmt: skip
    assert tune(labelled, tmp_path / "mine", small_model_folder, "--json", "--quiet", column=column) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["without_label"] == left_out
    assert len(told["classes"]) == classes
    assert told["cells"] == 60 - left_out
    if column == "leiden":
        assert list(told["classes"]) == [str(number) for number in range(6)]
    if column == "vague":
        assert told["no_type"] == {"doublet": 12}


@pytest.mark.parametrize(
    ("column", "more", "says"),
    [
        ("celltpye", [], "celltype"),
        ("none", [], "No cell has a label"),
        ("one", [], "one class only"),
        ("score", [], "holds numbers"),
        ("rare", ["--test-share", "0.2"], "has one cell"),
        ("rare", ["--method", "full", "--validation-share", "0.2"], "has one cell"),
        ("rare", ["--validation-share", "0.2"], "has one cell"),
        ("celltype", ["--donor-key", "donro"], "no column 'donro'"),
        ("celltype", ["--test-share", "1.5"], "test share"),
        ("celltype", ["--method", "cellm"], "CellLM"),
        ("celltype", ["--epochs", "0"], "epochs"),
        ("celltype", ["--seed", "-1"], "seed"),
    ],
)
def test_what_is_wrong_is_told_and_nothing_is_written(
    labelled: Path, small_model_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    column: str, more: list[str], says: str,
) -> None:  # fmt: skip
    before = everything(tmp_path)
    assert tune(labelled, tmp_path / "mine", small_model_folder, "--quiet", *more, column=column) == 2
    told = capsys.readouterr()
    assert says in told.err
    assert "Traceback" not in told.err
    assert told.out == ""
    assert everything(tmp_path) == before


def test_a_file_without_counts_is_refused(
    labelled: Path, small_model_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scaled = anndata.read_h5ad(labelled)
    scaled.X = np.asarray(scaled.X.todense()) - 1.5
    scaled.write_h5ad(tmp_path / "scaled.h5ad")
    before = everything(tmp_path)
    assert tune(tmp_path / "scaled.h5ad", tmp_path / "mine", small_model_folder, "--quiet") == 2
    assert everything(tmp_path) == before
    assert capsys.readouterr().err.startswith("cellingua: ")


def test_an_output_that_is_there_is_kept(labelled: Path, small_model_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "mine"
    out.mkdir()
    (out / "precious.txt").write_text("mine")
    assert tune(labelled, out, small_model_folder, "--quiet") == 2
    assert (out / "precious.txt").read_text() == "mine"
    assert tune(labelled, out, small_model_folder, "--quiet", "--force") == 0
    assert not (out / "precious.txt").exists()


def test_a_run_that_was_interrupted_leaves_no_model_and_goes_on(
    labelled: Path, small_model_folder: Path, tmp_path: Path
) -> None:
    more = ["--method", "full", "--epochs", "3", "--learning-rate", "0.001", "--quiet"]
    with interrupted():
        assert tune(labelled, tmp_path / "cut", small_model_folder, *more) == 130
    assert not (tmp_path / "cut").exists()
    assert (tmp_path / "cut.training").is_dir()
    assert tune(labelled, tmp_path / "cut", small_model_folder, *more) == 0
    assert not (tmp_path / "cut.training").exists()
    assert tune(labelled, tmp_path / "whole", small_model_folder, *more) == 0
    for file in ("weights.safetensors", "head.safetensors"):
        assert (tmp_path / "cut" / file).read_bytes() == (tmp_path / "whole" / file).read_bytes()


def test_the_same_call_gives_the_same_model(labelled: Path, small_model_folder: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        assert tune(labelled, tmp_path / name / "mine", small_model_folder, "--quiet") == 0
    first, second = everything(tmp_path / "a"), everything(tmp_path / "b")
    assert first.keys() == second.keys()
    assert [name for name in first if first[name] != second[name]] == []


def test_labels_that_would_break_a_page_or_a_path_are_only_text(
    small_model_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    awkward = ["<script>alert(1)</script>", "../../etc/passwd", "a|b", "two\nlines", "ünïcode ✓", "x" * 300]
    cells = small_world.cells(60, seed=1, noise=0.3)
    codes = dict(zip(small_world.LABELS, awkward, strict=True))
    cells.obs["celltype"] = [codes[name] for name in cells.obs["own"]]
    cells.write_h5ad(tmp_path / "cells.h5ad")
    assert tune(tmp_path / "cells.h5ad", tmp_path / "mine", small_model_folder) == 0
    assert "\nlines" not in capsys.readouterr().out
    assert "<script>" not in (tmp_path / "mine" / "card.md").read_text(encoding="utf-8")
    assert main(["annotate", str(tmp_path / "cells.h5ad"), "--model", str(tmp_path / "mine"), "--quiet"]) == 0
    page = (tmp_path / "cells_cellingua" / "report.html").read_text(encoding="utf-8")
    assert "<script>alert(1)" not in page
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cells.h5ad", "cells_cellingua", "mine"]
