"""``cellingua drug``: what is written and said, and what is refused with exit code 2 and nothing written."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import anndata
import drug_world
import numpy as np
import pandas as pd
import pytest
import small_world
from folders import refused

from cellingua.cli.main import main
from cellingua.models.drug_bundle import load_drug_model

HOSTILE = "<script>alert(1)</script>"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a small model."""
    return drug_world.folder(tmp_path_factory.mktemp("drugs") / "small")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A folder with a table of six lines, responses of all lines, and cells with clusters."""
    folder = tmp_path / "data"
    folder.mkdir()
    drug_world.expression(slice(48, 64)).to_csv(folder / "lines.csv", index=False)
    drug_world.measured(slice(48, 64)).to_csv(folder / "ic50.tsv", sep="\t", index=False)
    drug_world.cells(60).write_h5ad(folder / "cells.h5ad")
    return folder


def test_rank_of_clusters_writes_table_summary_report_and_cells(
    data: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    call = ["drug", "rank", str(data / "cells.h5ad"), "--cluster-key", "cluster", "--model", str(model)]
    assert main([*call, "--per-cell", "--top", "3"]) == 0
    shown = capsys.readouterr().out
    for said in ("Research only", "IC50 µM", "ln IC50", "percentile", "drug mean µM", "excludes the drug's mean"):
        assert said in shown
    folder = data / "cells_drugs"
    assert sorted(path.name for path in folder.iterdir()) == [
        "cells.drugs.h5ad", "cells.drugs.tsv", "figures", "report.html", "summary.json",
    ]  # fmt: skip
    table = pd.read_csv(folder / "cells.drugs.tsv", sep="\t")
    assert len(table) == 3 * len(drug_world.DRUGS)
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    assert summary["research_only"] is True
    assert summary["order"] == "percentile"
    assert [row["sample"] for row in summary["samples"]] == ["a", "b", "c"]
    first = summary["samples"][0]["drugs"][0]
    assert first["drug"] == table.loc[0, "drug"]
    assert first["ln_ic50"] == pytest.approx(table.loc[0, "ln_ic50"], rel=1e-3)
    written = anndata.read_h5ad(folder / "cells.drugs.h5ad")
    assert written.obsm["cellingua_drugs"].shape == (60, len(drug_world.DRUGS))
    assert set(written.uns["cellingua_drugs"]["drugs"]) == set(drug_world.DRUGS)
    np.testing.assert_array_equal(written.X.toarray(), drug_world.cells(60).X.toarray())
    assert main([*call, "--quiet"]) == 2
    assert "exists already" in capsys.readouterr().err
    assert main([*call, "--quiet", "--force", "--no-report"]) == 0
    assert capsys.readouterr().out == ""


def test_rank_of_lines_and_predict_say_the_same(data: Path, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, options = str(data / "lines.csv"), ["--model", str(model), "--quiet"]
    assert main(["drug", "rank", source, "--no-report", *options]) == 0
    out = data / "new" / "predicted.tsv"
    asked = "\n".join(["Torin 2", "erlotinib"])
    (data / "drugs.txt").write_text(asked, encoding="utf-8")
    assert main(["drug", "predict", source, "-o", str(out), "--drugs", str(data / "drugs.txt"), *options]) == 0
    assert not list((data / "lines_drugs").glob("*.html"))
    ranks = pd.read_csv(data / "lines_drugs" / "lines.drugs.tsv", sep="\t").set_index(["sample", "drug"])
    said = pd.read_csv(out, sep="\t").set_index(["sample", "drug"])
    assert len(said) == 2 * 16
    pd.testing.assert_series_equal(said["ln_ic50"], ranks.loc[said.index, "ln_ic50"])
    assert main(["drug", "rank", source, "--json", "--force", "--drugs", "Torin 2, Erlotinib", *options]) == 0
    assert json.loads(capsys.readouterr().out)["n_drugs"] == 2


def test_the_drugs_of_a_model_are_listed(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["drug", "rank", "--list", "--model", str(model)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[0] for line in lines[1:]] == sorted(drug_world.DRUGS, key=str.lower)


def test_without_a_file_the_tumour_that_ships_is_ranked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the model that ships where it is there; the small one shares too few genes with the tumour's."""
    from cellingua.models.shelf import BUNDLED

    if not (BUNDLED / "drug_mini" / "config.json").is_file():
        pytest.skip("the bundled drug model is not in this checkout")
    monkeypatch.chdir(tmp_path)
    assert main(["drug", "rank", "--top", "2"]) == 0
    shown = capsys.readouterr().out
    assert "ships with cellingua" in shown
    assert shown.count("unlike a cancer line") >= 3  # B, T and myeloid cells at least
    assert (tmp_path / "kim_luad_tumour_drugs" / "report.html").is_file()


def test_fit_makes_a_model_that_rank_takes_and_evaluate_judges(
    tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train = slice(0, 48)
    drug_world.expression(train).to_csv(tmp_path / "train.csv", index=False)
    long = drug_world.measured(train)
    long["ln_ic50"] = np.exp(long["ln_ic50"]) * 1000
    long = long.rename(columns={"ln_ic50": "IC50 (nM)"})
    long.to_csv(tmp_path / "train_ic50.csv", index=False)
    out = tmp_path / "mine"
    assert main(["drug", "fit", str(tmp_path / "train.csv"), "--responses", str(tmp_path / "train_ic50.csv"), "-o",
                 str(out)]) == 0  # fmt: skip
    shown = capsys.readouterr().out
    assert "on lines left out" in shown
    assert len(load_drug_model(out).drugs) == len(drug_world.DRUGS)
    tables = [str(data / "lines.csv"), "--responses", str(data / "ic50.tsv"), "--model", str(out)]
    assert main(["drug", "evaluate", *tables, "-o", str(tmp_path / "pairs.tsv"), "--json", "--quiet"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["predictors"][0]["within_drug_median"] > 0.8
    assert len(pd.read_csv(tmp_path / "pairs.tsv", sep="\t")) == 16 * len(drug_world.DRUGS)
    assert main(["drug", "evaluate", *tables]) == 0
    assert re.search(r"own drug mean +\d", capsys.readouterr().out)
    assert main(["drug", "rank", str(data / "lines.csv"), "--model", str(out), "--quiet"]) == 0


def lines(change: Callable[[pd.DataFrame], pd.DataFrame]) -> Callable[[Path], None]:
    """Return what rewrites the table of expression."""

    def spoil(data: Path) -> None:
        change(pd.read_csv(data / "lines.csv")).to_csv(data / "lines.csv", index=False)

    return spoil


def pairs(change: Callable[[pd.DataFrame], pd.DataFrame]) -> Callable[[Path], None]:
    """Return what rewrites the table of responses."""

    def spoil(data: Path) -> None:
        change(pd.read_csv(data / "ic50.tsv", sep="\t")).to_csv(data / "ic50.tsv", sep="\t", index=False)

    return spoil


def text_in(column: str, row: int) -> Callable[[pd.DataFrame], pd.DataFrame]:
    """Return what writes text into one field."""

    def change(frame: pd.DataFrame) -> pd.DataFrame:
        frame = frame.astype({column: object})
        frame.loc[row, column] = "n/d"
        return frame

    return change


def as_um(frame: pd.DataFrame) -> pd.DataFrame:
    """Name logarithms as if they were µM: some are below 0, which no concentration is."""
    return frame.rename(columns={"ln_ic50": "IC50_uM"})


def moved(column: str, row: int, value: object) -> Callable[[pd.DataFrame], pd.DataFrame]:
    """Return what writes a value into one field."""

    def change(frame: pd.DataFrame) -> pd.DataFrame:
        frame.loc[row, column] = value
        return frame

    return change


def twice(frame: pd.DataFrame) -> pd.DataFrame:
    """Measure the first pair again, a hundredfold apart."""
    again = frame.iloc[[0]].assign(ln_ic50=frame["ln_ic50"].iloc[0] + np.log(100))
    return pd.concat([frame, again])


def turned(frame: pd.DataFrame) -> pd.DataFrame:
    """Put genes in the rows."""
    return frame.set_index("line").T.rename_axis("gene").reset_index()


EVALUATED: dict[str, tuple[Callable[[Path], None], list[str]]] = {
    "a unit that is not said": (pairs(lambda f: f.rename(columns={"ln_ic50": "response"})), ["IC50", "unit"]),
    "a column that says no unit": (pairs(lambda f: f.rename(columns={"ln_ic50": "ic50"})), ["unit"]),
    "an implausible unit": (pairs(as_um), ["no concentration in um", "--unit"]),
    "a wild unit": (pairs(lambda f: f.assign(ln_ic50=f.ln_ic50 * 1000)), ["ln_um", "--unit"]),
    "repeats that disagree": (pairs(twice), ["LINE-48", "more than once", "drop"]),
    "text for a value": (pairs(text_in("ln_ic50", 4)), ["Row 5", "'ln_ic50'", "'n/d'"]),
    "a line without features": (pairs(moved("line", 6, "HELA")), ["row 7", "'line'", "'HELA'", "no expression"]),
    "a drug that is not known": (pairs(moved("drug", 6, "Aspirin")), ["row 7", "'drug'", "'Aspirin'", "not known"]),
    "no column of lines": (pairs(lambda f: f.rename(columns={"line": "cell"})), ["no column 'line'", "'cell'"]),
    "a table transposed": (lines(turned), ["rows are genes", "--genes-in-rows"]),
    "a line without a value": (
        lines(lambda f: f.assign(**{c: f[c].where(f.index != 2) for c in f.columns[1:]})), ["row 3", "LINE-50"],
    ),
    "too few genes": (lines(lambda f: f.iloc[:, :8]), ["LINE-48", "genes"]),
    "no gene at all": (lines(lambda f: f.set_axis(["line", *(f"g_{n}" for n in range(400))], axis=1)), ["g_0"]),
    "no table": (lambda data: (data / "lines.csv").write_bytes(b"\x00\x01\xff") and None, ["lines.csv"]),
    "no file": (lambda data: (data / "ic50.tsv").unlink(), ["ic50.tsv", "does not exist"]),
}  # fmt: skip


@pytest.mark.parametrize("kind", EVALUATED)
def test_wrong_tables_are_refused_by_row_and_column(
    kind: str, data: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spoil, says = EVALUATED[kind]
    spoil(data)
    tables = [str(data / "lines.csv"), "--responses", str(data / "ic50.tsv"), "--quiet"]
    shown = refused(["drug", "evaluate", *tables, "--model", str(model), "-o", str(data / "o.tsv")], data, capsys)
    for said in says:
        assert said in shown
    if "not known" not in says:  # a fit knows no model
        refused(["drug", "fit", *tables, "-o", str(data / "fitted")], data, capsys)


def test_a_unit_that_is_given_is_taken(data: Path, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tables = [
        str(data / "lines.csv"),
        "--responses",
        str(data / "ic50.tsv"),
        "--quiet",
        "--json",
        "--model",
        str(model),
    ]
    assert main(["drug", "evaluate", *tables]) == 0
    plain = json.loads(capsys.readouterr().out)["predictors"]
    pairs(as_um)(data)
    assert main(["drug", "evaluate", *tables, "--unit", "ln_um"]) == 0
    assert json.loads(capsys.readouterr().out)["predictors"] == plain


def test_rows_that_do_not_fit_may_be_left_out_and_keep_their_numbers(
    data: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pairs(moved("line", 2, "HELA"))(data)
    pairs(moved("drug", 6, "Aspirin"))(data)
    tables = [str(data / "lines.csv"), "--responses", str(data / "ic50.tsv"), "--json", "--quiet"]
    call = ["drug", "evaluate", *tables, "--model", str(model), "--missing", "drop"]
    assert main(call) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["predictors"][0]["pairs"] == 16 * len(drug_world.DRUGS) - 2
    assert any("HELA" in note for note in found["notes"])
    assert any("Aspirin" in note for note in found["notes"])
    pairs(text_in("ln_ic50", 9))(data)
    assert "Row 10 " in refused(call, data, capsys)


def test_a_smiles_that_cannot_be_read_is_named_by_its_row(
    data: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("rdkit")
    (data / "new.tsv").write_text("drug\tsmiles\nfirst\tCCO\nsecond\tC1CC(\n", encoding="utf-8")
    call = ["drug", "rank", str(data / "lines.csv"), "--smiles", str(data / "new.tsv"), "--model", str(model)]
    shown = refused([*call, "--quiet"], data, capsys)
    assert "row 2 (second)" in shown
    tables = [str(data / "lines.csv"), "--responses", str(data / "ic50.tsv"), "--smiles", str(data / "new.tsv")]
    assert "row 2 (second)" in refused(["drug", "fit", *tables, "-o", str(data / "m"), "--quiet"], data, capsys)
    (data / "new.tsv").write_text("drug\tsmiles\nfirst\tCCO\n", encoding="utf-8")
    shown = refused(["drug", "fit", *tables, "-o", str(data / "m"), "--quiet"], data, capsys)
    assert "row 1, column 'drug': 'Erlotinib' has no SMILES" in shown
    (data / "new.tsv").write_text("name\tformula\nfirst\tCCO\n", encoding="utf-8")
    assert "'smiles'" in refused([*call, "--quiet"], data, capsys)


CALLS: dict[str, tuple[list[str], list[str]]] = {
    "cells without labels": (["cells.h5ad"], ["single cells", "cluster", "--whole", "--bulk"]),
    "no such column": (["cells.h5ad", "--cluster-key", "leiden"], ["leiden"]),
    "two ways at once": (["cells.h5ad", "--cluster-key", "cluster", "--whole"], ["one of"]),
    "clusters of a table": (["lines.csv", "--cluster-key", "cluster"], ["no clusters"]),
    "cells of a table": (["lines.csv", "--per-cell"], ["no cells"]),
    "a drug that is not known": (["lines.csv", "--drugs", "Erlotinob"], ["'Erlotinob'", "Erlotinib"]),
    "no drug": (["lines.csv", "--drugs", " ; "], ["No drug"]),
    "no file": (["none.csv"], ["none.csv", "does not exist"]),
    "no cells": (["none.h5ad", "--whole"], ["none.h5ad", "does not exist"]),
    "no model": (["lines.csv", "--model", "nothing_like_it"], ["nothing_like_it"]),
}


@pytest.mark.parametrize("kind", CALLS)
def test_wrong_calls_are_refused(kind: str, data: Path, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (name, *more), says = CALLS[kind]
    more = more if "--model" in more else [*more, "--model", str(model)]
    shown = refused(["drug", "rank", str(data / name), "--quiet", *more], data, capsys)
    for said in says:
        assert said in shown
    if "--per-cell" not in more:
        refused(["drug", "predict", str(data / name), "-o", str(data / "o.tsv"), "--quiet", *more], data, capsys)


def test_a_model_of_cells_is_no_drug_model(
    data: Path, small_model_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    call = ["drug", "rank", str(data / "lines.csv"), "--quiet", "--model", str(small_model_folder)]
    assert "drug" in refused(call, data, capsys)


def test_scaled_cells_are_refused(tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scaled = small_world.cells(30)
    values = scaled.X.toarray()
    scaled.X = (values - values.mean(axis=0)) / (values.std(axis=0) + 1e-3)
    scaled.write_h5ad(tmp_path / "scaled.h5ad")
    call = ["drug", "rank", str(tmp_path / "scaled.h5ad"), "--cluster-key", "own", "--quiet", "--model", str(model)]
    shown = refused(call, tmp_path, capsys)
    assert "scaled.h5ad" in shown
    assert "counts" in shown


def test_names_are_data_never_markup_and_never_paths(
    tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    frame = drug_world.expression(slice(48, 52)).reset_index(drop=True)
    names = [HOSTILE, "../../escape", "a\tb\x1b[31m", "$x_1$"]
    frame["line"] = names
    frame.to_parquet(tmp_path / "lines.parquet", index=False)
    assert main(["drug", "rank", str(tmp_path / "lines.parquet"), "--model", str(model)]) == 0
    shown = capsys.readouterr().out
    assert "\x1b" not in shown
    folder = tmp_path / "lines_drugs"
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert HOSTILE not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert sorted(path.name for path in tmp_path.iterdir()) == ["lines.parquet", "lines_drugs"]
    table = pd.read_csv(folder / "lines.drugs.tsv", sep="\t")
    assert set(table["sample"]) == set(names)
