"""``cellingua convert`` and what comes after it: embeddings by a CellLM."""

from __future__ import annotations

from pathlib import Path

import anndata
import numpy as np
import pytest
import small_world
import tiny_cellm as tiny
import torch

from cellingua.cells.genes import load_vocabulary
from cellingua.cli.main import main
from cellingua.models.cellm_bundle import save_cellm
from cellingua.models.shelf import load_any


class Trap:
    """Would write a file if unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (exec, (f"open({str(self.path)!r}, 'w').close()",))


@pytest.fixture
def paths(tmp_path: Path) -> tuple[str, str, str]:
    """A checkpoint, its gene list, and a folder to be."""
    folder = tmp_path / "in"
    folder.mkdir()
    torch.save({"model_state_dict": tiny.checkpoint(tiny.module("compat"))}, folder / "ckpt.pth")
    genes = load_vocabulary().ensembl_ids[tiny.vocabulary_rows()]
    (folder / "genes.txt").write_text("\n".join(genes), encoding="utf-8")
    return str(folder / "ckpt.pth"), str(folder / "genes.txt"), str(tmp_path / "out" / "mine")


def call(paths: tuple[str, str, str], *more: str) -> list[str]:
    return ["convert", "cellm", paths[0], "--genes", paths[1], paths[2], "--length", str(tiny.LENGTH), *more]


def left(paths: tuple[str, str, str]) -> list[str]:
    """Return what lies where the folder was to be."""
    parent = Path(paths[2]).parent
    return sorted(path.name for path in parent.iterdir()) if parent.exists() else []


def test_convert_then_nothing_is_replaced_unasked(
    paths: tuple[str, str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(call(paths)) == 0
    assert "80 of 80 genes found" in capsys.readouterr().out
    before = load_any(paths[2]).hash
    assert main(call(paths)) == 2
    assert "exists already" in capsys.readouterr().err
    assert main(call(paths, "--force", "--log", "e", "--attention", "favor")) == 0
    again = load_any(paths[2])
    assert again.hash != before
    assert left(paths) == ["mine"]


def test_force_replaces_models_only(paths: tuple[str, str, str], capsys: pytest.CaptureFixture[str]) -> None:
    out = Path(paths[2])
    out.mkdir(parents=True)
    (out / "thesis.txt").write_text("years of work", encoding="utf-8")
    assert main(call(paths, "--force")) == 2
    assert "no model folder" in capsys.readouterr().err
    assert (out / "thesis.txt").read_text(encoding="utf-8") == "years of work"


def test_a_source_inside_the_output_is_kept(paths: tuple[str, str, str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(call(paths)) == 0
    inside = Path(paths[2]) / "ckpt.pth"
    inside.write_bytes(Path(paths[0]).read_bytes())
    assert main(call((str(inside), *paths[1:]), "--force")) == 2
    assert "would be replaced" in capsys.readouterr().err
    assert inside.exists()


@pytest.mark.parametrize("damage", ["truncated", "code", "empty", "text", "other", "short list", "no list", "none"])
def test_bad_input_exits_2_and_writes_nothing(
    paths: tuple[str, str, str], damage: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint, genes = Path(paths[0]), Path(paths[1])
    whole = checkpoint.read_bytes()
    if damage == "truncated":
        checkpoint.write_bytes(whole[: len(whole) // 2])
    elif damage == "code":
        torch.save({"model_state_dict": Trap(tmp_path / "ran")}, checkpoint)
    elif damage == "empty":
        checkpoint.write_bytes(b"")
    elif damage == "text":
        checkpoint.write_text("<html>log in first</html>", encoding="utf-8")
    elif damage == "other":
        torch.save({"encoder.layer.0.weight": torch.zeros(3)}, checkpoint)
    elif damage == "short list":
        genes.write_text("CD8A\nCD4\n", encoding="utf-8")
    elif damage == "no list":
        genes.unlink()
    else:
        checkpoint.unlink()
    assert main(call(paths)) == 2
    said = capsys.readouterr().err
    assert "Expected" in said
    assert "unexpected" not in said
    assert not (tmp_path / "ran").exists()
    assert left(paths) == []


@pytest.fixture
def cellm(tmp_path: Path) -> Path:
    """A tiny CellLM of the genes of the small world."""
    save_cellm(tmp_path / "cellm", tiny.parts(rows=small_world.rows_of_genes()))
    return tmp_path / "cellm"


def test_embed_writes_x_cellm(file: Path, cellm: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out.h5ad"
    assert main(["embed", str(file), "-o", str(out), "--model", str(cellm)]) == 0
    captured = capsys.readouterr()
    assert "X_cellm" in captured.out
    assert "more than 40 tokens" in captured.err
    back = anndata.read_h5ad(out)
    assert list(back.obsm) == ["X_cellm"]
    assert back.obsm["X_cellm"].shape == (40, 16)
    assert np.ptp(back.obsm["X_cellm"], axis=0).max() > 0.01
    assert main(["embed", str(out), "-o", str(tmp_path / "b.h5ad"), "--model", str(cellm), "--quiet"]) == 2
    assert "X_cellm" in capsys.readouterr().err


def test_annotate_refuses_a_model_without_words(
    file: Path, cellm: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["annotate", str(file), "--model", str(cellm), "--out-dir", str(tmp_path / "o"), "--quiet"]) == 2
    assert "knows no words" in capsys.readouterr().err
