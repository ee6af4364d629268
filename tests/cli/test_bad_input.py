"""What is wrong at the command line, for every verb that reads cells: exit code 2, one message, nothing written."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
import small_world
from folders import everything, refused

from cellingua.cli.main import main

Call = Callable[[Path, Path], list[str]]


@pytest.fixture
def verbs(small_model_folder: Path) -> dict[str, Call]:
    """Verb -> its arguments for an input and a place for the output."""
    model = ["--model", str(small_model_folder), "--quiet"]
    return {
        "annotate": lambda source, out: ["annotate", str(source), "-o", str(out), "--labels", "B cell; T cell", *model],
        "embed": lambda source, out: ["embed", str(source), "-o", str(out), *model],
        "texts": lambda source, out: ["texts", str(source), "-o", str(out), "--quiet"],
        "doctor": lambda source, out: ["doctor", str(source), "--json"],
    }


@pytest.fixture
def good(tmp_path: Path) -> Path:
    """An h5ad that every verb reads, alone in its folder."""
    cells = small_world.cells(30)
    cells.obs = pd.DataFrame({"cell_type": ["B cell"] * 30}, index=cells.obs_names)
    path = tmp_path / "data" / "cells.h5ad"
    path.parent.mkdir()
    cells.write_h5ad(path)
    return path


def cut(share: float) -> Callable[[Path], Path]:
    """Return what cuts a file short."""

    def spoil(path: Path) -> Path:
        path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
        return path

    return spoil


def replaced(content: bytes, name: str = "cells.h5ad") -> Callable[[Path], Path]:
    """Return what writes something else."""

    def spoil(path: Path) -> Path:
        path.unlink()
        (path.parent / name).write_bytes(content)
        return path.parent / name

    return spoil


def without(*groups: str) -> Callable[[Path], Path]:
    """Return what takes groups out of an HDF5 file."""

    def spoil(path: Path) -> Path:
        with h5py.File(path, "r+") as handle:
            for group in groups:
                del handle[group]
        return path

    return spoil


def broken_zarr(path: Path) -> Path:
    """Write a zarr store whose table of cells is gone."""
    store = small_world.write_zarr(small_world.cells(5), path.parent / "a.zarr")
    for inside in sorted((store / "obs").rglob("*"), reverse=True):
        inside.unlink() if inside.is_file() else inside.rmdir()
    return store


def obs_of_another_length(path: Path) -> Path:
    """Take a row from the table of cells."""
    with h5py.File(path, "r+") as handle:
        index = handle["obs"].attrs["_index"]
        held = handle["obs"][index]
        names = (held["values"] if isinstance(held, h5py.Group) else held)[:-1]
        del handle["obs"]
        group = handle.create_group("obs")
        group.attrs.update(
            {"encoding-type": "dataframe", "encoding-version": "0.2.0", "_index": "_index", "column-order": []}
        )
        group["_index"] = names
        group["_index"].attrs.update({"encoding-type": "string-array", "encoding-version": "0.2.0"})
    return path


def folder_of_nothing(path: Path) -> Path:
    """Make a folder that is neither zarr nor 10x."""
    (path.parent / "outs").mkdir()
    return path.parent / "outs"


SPOILT: dict[str, tuple[Callable[[Path], Path], str]] = {
    "missing": (lambda path: path.parent / "none.h5ad", "does not exist"),
    "missing folder": (lambda path: path.parent / "no" / "none.h5ad", "does not exist"),
    "empty": (replaced(b""), "is empty"),
    "cut at half": (cut(0.5), "cut short"),
    "cut near the end": (cut(0.99), "could not be read"),
    "cut within the head": (replaced(b"\x89HDF\r\n\x1a\n"), "could not be read"),
    "a page of a website": (replaced(b"<!DOCTYPE html><html>Not found</html>"), "first bytes"),
    "gzipped": (replaced(b"\x1f\x8b\x08\x00rest"), "gunzip"),
    "a table": (replaced(b"cell,gene\n1,2\n", "cells.csv"), "read_csv"),
    "without cells": (without("obs"), "not an AnnData"),
    "without genes": (without("var"), "not an AnnData"),
    "without anything": (without("obs", "var", "X"), "not an AnnData"),
    "a zarr store without cells": (broken_zarr, "could not be read"),
    "cells and values of other numbers": (obs_of_another_length, "29"),
    "a folder": (folder_of_nothing, "is a folder"),
}


@pytest.mark.parametrize("kind", SPOILT)
@pytest.mark.parametrize("verb", ["annotate", "embed", "texts", "doctor"])
def test_a_spoilt_input_exits_2_and_leaves_nothing(
    verb: str,
    kind: str,
    verbs: dict[str, Call],
    good: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    spoil, says = SPOILT[kind]
    source = spoil(good)
    shown = refused(verbs[verb](source, tmp_path / "out" / "result"), tmp_path, capsys)
    assert says in shown
    assert source.name in shown


def there(out: Path) -> Path:
    """Put a file where the output would go."""
    out.write_text("mine")
    return out


def a_folder(out: Path) -> Path:
    """Put a folder there, with something in it."""
    out.mkdir()
    (out / "note.txt").write_text("mine")
    return out


def below_a_file(out: Path) -> Path:
    """Name a place below a file."""
    out.write_text("mine")
    return out / "inside.tsv"


OUTPUTS: dict[str, tuple[Callable[[Path], Path], list[str], str]] = {
    "exists": (there, [], "exists already"),
    "is a folder": (a_folder, [], "folder"),
    "is a folder, by force": (a_folder, ["--force"], "folder"),
    "below a file": (below_a_file, [], "note"),
    "below a file, by force": (below_a_file, ["--force"], "note"),
    "in a place that can't be made": (lambda out: Path("/proc/nothing/here/out.tsv"), [], "/proc/nothing"),
}


@pytest.mark.parametrize("kind", OUTPUTS)
@pytest.mark.parametrize("verb", ["annotate", "embed", "texts"])
def test_a_bad_output_exits_2_and_leaves_everything_as_it_was(
    verb: str,
    kind: str,
    verbs: dict[str, Call],
    good: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    make, more, says = OUTPUTS[kind]
    out = make(tmp_path / "note.h5ad")
    assert says in refused([*verbs[verb](good, out), *more], tmp_path, capsys)


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write everywhere")
@pytest.mark.parametrize("verb", ["annotate", "embed", "texts"])
def test_an_output_that_may_not_be_written_exits_2(
    verb: str, verbs: dict[str, Call], good: Path, tmp_path: Path
) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o500)
    assert main(verbs[verb](good, closed / "out.h5ad")) == 2
    assert not list(closed.iterdir())


LIMITED = """
import resource, sys
from cellingua.cli.main import main
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), resource.RLIM_INFINITY))
sys.exit(main(sys.argv[2:]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="sets a limit on file sizes")
@pytest.mark.parametrize("unique", [False, True])
def test_texts_on_a_full_disk_exit_1_and_leave_nothing(tmp_path: Path, unique: bool) -> None:
    """A file that may not grow fails as a full disk does; with ``--unique`` it's the first of two that fails."""
    n = 2000
    obs = pd.DataFrame({"cell_type": ["B cell"] * n}, index=[f"a long name of a cell, number {i}" for i in range(n)])
    anndata.AnnData(np.ones((n, 1), np.float32), obs, pd.DataFrame(index=["A"])).write_h5ad(tmp_path / "a.h5ad")
    before = everything(tmp_path)
    command = [sys.executable, "-c", LIMITED, "9000", "texts", str(tmp_path / "a.h5ad")]
    command += ["-o", str(tmp_path / "new" / "out.tsv"), *(["--unique", str(tmp_path / "t.tsv")] if unique else [])]
    done = subprocess.run([*command, "--quiet"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 1, done.stderr
    assert "disk is full" in done.stderr
    assert "Traceback" not in done.stderr
    assert everything(tmp_path) == before
