"""The other verbs, and what every verb owes its user."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import anndata
import numpy as np
import pytest
import small_world

import cellingua
from cellingua.cli.main import main

PROBE = """
import sys
sys.argv = ["cellingua", *{arguments}]
from cellingua.cli.main import main
try:
    main()
except SystemExit as stop:
    assert stop.code == 0, stop.code
heavy = {{"torch", "anndata", "pandas", "numpy", "scipy", "matplotlib", "sklearn", "h5py", "jinja2"}}
print("HEAVY", sorted(heavy & set(sys.modules)))
"""


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["annotate", "--help"], ["doctor", "--help"]])
def test_help_loads_nothing_heavy(arguments: list[str]) -> None:
    code = PROBE.format(arguments=arguments)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=True)
    assert "HEAVY []" in done.stdout


def test_importing_the_package_loads_nothing_heavy() -> None:
    code = "import sys, cellingua; print([m for m in ('torch', 'anndata', 'numpy', 'pandas') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=True)
    assert done.stdout.strip() == "[]"


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["--version"])
    assert stop.value.code == 0
    assert cellingua.__version__ in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [[], ["anotate"], ["annotate"], ["embed", "a.h5ad"], ["annotate", "a", "--nope"]])
def test_a_wrong_call_exits_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    assert "usage" in capsys.readouterr().err


def test_doctor_says_what_a_file_holds(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", str(file)]) == 0
    assert "cells.h5ad" in capsys.readouterr().out
    assert main(["doctor", str(file), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found[0]["n_cells"] == 40
    assert not found[0]["refused"]


def test_doctor_refuses_with_2(file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mouse = small_world.cells(10)
    mouse.var_names = [name.capitalize() for name in mouse.var_names]
    del mouse.var["gene_ids"]
    mouse.write_h5ad(tmp_path / "mouse.h5ad")
    assert main(["doctor", str(tmp_path / "mouse.h5ad")]) == 2
    assert "mouse" in capsys.readouterr().out
    assert main(["doctor", str(tmp_path / "none.h5ad")]) == 2
    assert main(["doctor", str(tmp_path / "none.h5ad"), str(file), "--json"]) == 2
    assert len(json.loads(capsys.readouterr().out)) == 2


@pytest.mark.parametrize(("state", "key"), [("joint", "X_langcell"), ("cls", "X_langcell_cls")])
def test_embed_writes_a_copy(
    file: Path, small_model_folder: Path, tmp_path: Path, state: str, key: str, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.h5ad"
    command = ["embed", str(file), "-o", str(out), "--state", state, "--model", str(small_model_folder), "--quiet"]
    assert main(command) == 0
    back = anndata.read_h5ad(out)
    assert back.obsm[key].shape[0] == 40
    assert np.isfinite(back.obsm[key]).all()
    assert back.uns[key]["model"] == "small_world"
    assert len(back.uns[key]["hash"]) == 16
    assert main(command) == 2
    assert "exists already" in capsys.readouterr().err
    assert main([*command, "--force"]) == 0
    assert main(["embed", str(out), "-o", str(tmp_path / "b.h5ad"), *command[4:]]) == 2  # the key is there
    assert not (tmp_path / "b.h5ad").exists()


def test_embed_never_replaces_its_input(file: Path, small_model_folder: Path) -> None:
    before = file.read_bytes()
    assert main(["embed", str(file), "-o", str(file), "--model", str(small_model_folder), "--force"]) == 2
    assert file.read_bytes() == before


def test_models_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "--json"]) == 0
    for row in json.loads(capsys.readouterr().out):
        assert {"name", "bytes", "description", "folder"} <= set(row)
    assert main(["models"]) == 0
    assert capsys.readouterr().out


def test_a_closed_pipe_is_quiet(file: Path) -> None:
    command = f"{sys.executable} -m cellingua.cli.main doctor {file} {file} {file} --json | head -c 10"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=300)
    assert done.stderr == ""


def test_the_card_of_a_model_is_shown(small_model_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "cellm_mini"]) == 0
    shown = capsys.readouterr().out
    assert "## Intended use" in shown
    assert "It saw 16,458 cells of 21 data sets." in shown
    assert main(["models", "cellm_mini", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["seen"]["cells"] == 16458
    assert told["card"].startswith("# cellm_mini")
    assert {"id", "sha256", "donors"} <= set(told["seen"]["data_sets"][0])
    assert main(["models", str(small_model_folder)]) == 0
    assert "It is not known what it saw." in capsys.readouterr().out
    assert main(["models", "no_such_model"]) == 2
