"""``cellingua drug explain`` and ``cl.tl.drug_explain``: what is written, what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import drug_world
import pandas as pd
import pytest

pytest.importorskip("captum")
pytest.importorskip("rdkit")

from cellingua import tl
from cellingua.cli.main import main
from cellingua.models.drug_bundle import save_drug_model

SMILES = "drug\tsmiles\n<b>odd $name</b>\tCOCCOc1cc2ncnc(Nc3cccc(Cl)c3)c2cc1OC\n"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model that knows molecules, lines, new drugs and cells."""
    made = tmp_path_factory.mktemp("explain")
    save_drug_model(made / "model", drug_world.model_with_molecules())
    drug_world.expression(slice(48, 54)).to_csv(made / "lines.csv", index=False)
    (made / "new.tsv").write_text(SMILES)
    drug_world.cells().write_h5ad(made / "cells.h5ad")
    return made


def words(place: Path, *more: str) -> list[str]:
    return ["drug", "explain", *more, "--model", str(place / "model"), "--quiet"]


def test_tables_pictures_and_checks_are_written(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    call = words(place, str(place / "lines.csv"), "--drugs", "erlotinib", "--smiles", str(place / "new.tsv"))
    call += ["--sample", "LINE-50", "--top", "7", "--out-dir", str(tmp_path), "--json"]
    assert main(call) == 0
    printed = json.loads(capsys.readouterr().out)
    out = tmp_path / "lines_drugs_explained"
    assert json.loads((out / "explanation.json").read_text()) == printed
    assert printed["research_only"]
    genes = pd.read_csv(out / "genes.tsv", sep="\t")
    assert len(genes) == 2 * 7
    assert set(genes["drug"]) == {"Erlotinib", "<b>odd $name</b>"}
    assert (genes["effect_ln_ic50"] < 0).eq(genes["speaks_for"] == "sensitive").all()
    known, unknown = printed["predictions"]
    assert abs(known["unexplained_ln_ic50"]) < 1e-4
    assert known["deletion"]["average"]["moved_by_first"] > known["deletion"]["average"]["moved_by_random"]
    assert "atoms" not in known
    atoms = pd.read_csv(out / "atoms.tsv", sep="\t")
    assert atoms["effect_ln_ic50"].tolist() == pytest.approx(unknown["atoms"], rel=1e-4)
    assert sorted(path.name for path in out.rglob("*")) == [
        "atoms", "atoms.tsv", "drug_1_sample_1.svg", "explanation.json", "genes.svg", "genes.tsv",
    ]  # fmt: skip
    assert "<b>" not in (out / "genes.svg").read_text()
    assert main(call) == 2
    assert "exists already" in capsys.readouterr().err


def test_clusters_are_explained_and_said_in_words(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    call = words(place, str(place / "cells.h5ad"), "--cluster-key", "cluster", "--sample", "b", "--drugs", "Cisplatin")
    call[-1:] = []  # not quiet: people read it
    assert main([*call, "--out-dir", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "b, Cisplatin: ln IC50" in said
    assert "random genes" in said
    assert "not for treatment" in said
    told = tl.drug_explain(
        drug_world.cells(), ["cisplatin"], samples=["b"], model=place / "model", cluster_key="cluster"
    )
    written = pd.read_csv(tmp_path / "cells_drugs_explained" / "genes.tsv", sep="\t")
    assert told.to_frame()["gene"].tolist() == written["gene"].tolist()


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ((), "No drug was named"),
        (("--drugs", "erlotinob"), "erlotinob"),
        (("--drugs", "erlotinib", "--sample", "nobody"), "nobody"),
        (("--drugs", "erlotinib", "--top", "0"), "0 genes"),
        (("--drugs", "erlotinib", "--smiles", "BAD"), "BAD"),
        (("--drugs", "; ".join(drug_world.DRUGS), "--genes-in-rows"), "genes"),
    ],
)
def test_bad_calls_write_nothing(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture, more: tuple[str, ...], said: str
) -> None:
    assert main(words(place, str(place / "lines.csv"), *more, "--out-dir", str(tmp_path))) == 2
    captured = capsys.readouterr()
    assert said in captured.err
    assert "Traceback" not in captured.err
    assert list(tmp_path.iterdir()) == []
