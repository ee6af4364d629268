"""``cellingua texts``: what it writes, and that it writes nothing where something is wrong."""

from __future__ import annotations

from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
import small_world
from awkward_files import write_10x_folder

from cellingua.cli import texts
from cellingua.cli.main import main
from cellingua.words.describing import TEMPLATES, describe_cell


@pytest.fixture
def cells(tmp_path: Path) -> Path:
    """An h5ad of six cells after CELLxGENE's schema."""
    obs = pd.DataFrame(
        {
            "cell_type": ["B cell", "monocyte", "B cell", "blorb", "monocyte", "B cell"],
            "tissue": ["blood"] * 6,
            "sex": ["male", "male", "male", "female", "male", "female"],
        },
        index=[f"cell{i}" for i in range(6)],
    ).astype("category")
    path = tmp_path / "cells.h5ad"
    var = pd.DataFrame(index=["A", "B"])
    anndata.AnnData(np.ones((6, 2), dtype=np.float32), obs, var, uns={"schema_version": "5.2.0"}).write_h5ad(path)
    return path


def rows(path: Path) -> list[list[str]]:
    return [line.split("\t") for line in path.read_text(encoding="utf-8").split("\n")[:-1]]


def test_the_choices_are_the_templates() -> None:
    assert tuple(TEMPLATES) == texts.TEMPLATES


def test_every_cell_has_its_text(cells: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "texts.tsv"
    assert main(["texts", str(cells), "-o", str(out)]) == 0
    obs = anndata.read_h5ad(cells).obs
    expected = [["cells.h5ad", name, describe_cell(row)] for name, row in obs.to_dict("index").items()]
    assert rows(out) == [["file", "cell", "text"], *expected]
    told = capsys.readouterr().out
    assert "1 labels of 1 cells are in no ontology, kept as they are: 'blorb'" in told
    assert "no column for: development stage" in told
    before = out.read_bytes()
    assert main(["texts", str(cells), "-o", str(out)]) == 2
    assert "exists already" in capsys.readouterr().err
    assert main(["texts", str(cells), "-o", str(out), "--force", "--quiet"]) == 0
    assert capsys.readouterr().out == ""
    assert out.read_bytes() == before


def test_unique_texts_and_numbers_say_the_same(cells: Path, tmp_path: Path) -> None:
    plain, out, unique = (tmp_path / name for name in ("plain.tsv", "out.tsv", "unique.tsv"))
    common = ["texts", str(cells), str(cells), "--template", "names", "--drop", "0.5", "--seed", "2", "--quiet"]
    assert main([*common, "-o", str(plain)]) == 0
    assert main([*common, "-o", str(out), "--unique", str(unique)]) == 0
    once = {number: (int(count), text) for number, count, text in rows(unique)[1:]}
    assert [once[number][1] for _, _, number in rows(out)[1:]] == [text for _, _, text in rows(plain)[1:]]
    assert sum(count for count, _ in once.values()) == 12
    assert len({text for _, text in once.values()}) == len(once)


def test_own_definitions_and_aspects(cells: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own = tmp_path / "own.tsv"
    own.write_text("blorb\tA new type.\nnever\tseen\n", encoding="utf-8")
    out = tmp_path / "out.tsv"
    call = ["texts", str(cells), "-o", str(out), "--definitions", str(own), "--aspects", "cell type"]
    assert main(call) == 0
    assert rows(out)[4][2] == "cell type: blorb. a new type.; "
    assert "1 of 2 of your definitions" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--aspects", "disease"], "no column disease"),
        (["--aspects", "colour"], "no aspect 'colour'"),
        (["--column", "cell type=nope"], "no column nope"),
        (["--column", "cell type"], "names no column"),
        (["--column", "sex=sex", "--column", "sex=tissue"], "two columns"),
        (["--drop", "2"], "a chance"),
        (["--definitions", "own.json"], "defined twice"),
        (["--definitions", "none.json"], "can't be read"),
        (["--unique", "out.tsv"], "two files"),
        (["--unique", "cells.h5ad", "--force"], "the input itself"),
    ],
)
def test_what_is_wrong_exits_2_and_writes_nothing(
    cells: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    says: str,
) -> None:
    monkeypatch.chdir(cells.parent)
    Path("own.json").write_text('{"a": "1", "a": "2"}', encoding="utf-8")
    before = {path.name: path.read_bytes() for path in cells.parent.iterdir()}
    assert main(["texts", "cells.h5ad", "-o", "out.tsv", *options]) == 2
    assert says in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in cells.parent.iterdir()} == before


def test_missing_labels_are_left_out_and_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    obs = pd.DataFrame(
        {"cell_type": ["B cell", "unknown", None, "doublets"], "sex": ["male", "female", "na", None]},
        index=[f"cell{i}" for i in range(4)],
    )
    path, out = tmp_path / "a.h5ad", tmp_path / "out.tsv"
    anndata.AnnData(np.ones((4, 1), dtype=np.float32), obs, pd.DataFrame(index=["A"])).write_h5ad(path)
    assert main(["texts", str(path), "-o", str(out), "--template", "names"]) == 0
    assert [row[2] for row in rows(out)[1:]] == ["cell type: b cell. sex: male. ", "sex: female. ", "", ""]
    told = capsys.readouterr().out
    assert "cell type: not said for 3 cells" in told
    assert "nothing is known of 2 cells" in told


@pytest.mark.parametrize("version", ["2.0.0", "3.1.0", "5.2.0", "7.0.0"])
def test_the_versions_of_the_schema_say_the_same(version: str, tmp_path: Path) -> None:
    """Version 2 says ``ethnicity``, later ones ``self_reported_ethnicity``; several values are joined in two ways."""
    early = version < "6"
    columns = {
        "cell_type_ontology_term_id": "CL:0000236",
        "tissue_ontology_term_id": "UBERON:0000178",
        "disease_ontology_term_id": "MONDO:0005061" if early else "MONDO:0005061 || MONDO:0005148",
        "ethnicity_ontology_term_id" if version < "3" else "self_reported_ethnicity_ontology_term_id": (
            "HANCESTRO:0005,HANCESTRO:0014" if early else "HANCESTRO:0005 || HANCESTRO:0014"
        ),
        "organism_ontology_term_id": "NCBITaxon:9606",
    }
    obs = pd.DataFrame({name: [value] for name, value in columns.items()}, index=["cell"]).astype("category")
    adata = anndata.AnnData(np.ones((1, 1), dtype=np.float32), obs, pd.DataFrame(index=["A"]))
    adata.uns["schema_version"] = version
    adata.write_h5ad(tmp_path / "a.h5ad")
    assert main(["texts", str(tmp_path / "a.h5ad"), "-o", str(tmp_path / "out.tsv"), "--template", "bare"]) == 0
    (_, (_, _, text)) = rows(tmp_path / "out.tsv")
    parts = text.split(", ")
    assert parts[:2] == ["b cell", "blood"]
    assert ("and" in parts[2]) != early
    assert " and " in parts[3]


def test_zarr_and_files_of_one_name(cells: Path, tmp_path: Path) -> None:
    other = tmp_path / "other" / "cells.h5ad"
    other.parent.mkdir()
    other.write_bytes(cells.read_bytes())
    store = small_world.write_zarr(anndata.read_h5ad(cells), tmp_path / "cells.zarr")
    out = tmp_path / "out.tsv"
    assert main(["texts", str(cells), str(other), str(store), "-o", str(out), "--quiet"]) == 0
    by_file: dict[str, list[str]] = {}
    for file, _, text in rows(out)[1:]:
        by_file.setdefault(file, []).append(text)
    assert list(by_file) == [str(cells), str(other), "cells.zarr"]
    assert by_file[str(cells)] == by_file[str(other)] == by_file["cells.zarr"]


def test_a_file_without_metadata_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_10x_folder(tmp_path / "tenx", small_world.cells(5))
    out = tmp_path / "out.tsv"
    assert main(["texts", str(folder), "-o", str(out)]) == 2
    assert "no column at all" in capsys.readouterr().err
    assert not out.exists()


def test_another_version_and_missing_columns_are_refused(
    cells: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    adata = anndata.read_h5ad(cells)
    adata.uns["schema_version"] = "1.1.0"
    adata.write_h5ad(tmp_path / "old.h5ad")
    out = tmp_path / "out.tsv"
    assert main(["texts", str(cells), str(tmp_path / "old.h5ad"), "-o", str(out)]) == 2
    assert "old.h5ad: The metadata follow version '1.1.0'" in capsys.readouterr().err
    assert not out.exists()
    adata.obs = adata.obs.rename(columns={"cell_type": "celltype"})
    adata.write_h5ad(tmp_path / "named.h5ad")
    call = ["texts", str(tmp_path / "named.h5ad"), "-o", str(out)]
    del adata.uns["schema_version"]
    adata.write_h5ad(tmp_path / "named.h5ad")
    assert main(call) == 2
    assert "They hold: celltype, sex, tissue" in capsys.readouterr().err
    assert not out.exists()
    assert main([*call, "--column", "cell type=celltype"]) == 0
    assert rows(out)[1][2].startswith("cell type: b cell. ")
