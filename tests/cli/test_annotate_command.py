"""``cellingua annotate`` as a user meets it: what it writes, what it keeps, and what it leaves behind when it fails."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
import small_world

from cellingua.cli.main import main

LABELS = "; ".join(small_world.LABELS)


def everything(folder: Path) -> dict[str, bytes]:
    """Return every file below a folder with its contents, and folders with a mark."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else b"<folder>"
        for path in sorted(folder.rglob("*"))
    }


def run(file: Path, model: Path, *more: str, labels: str = LABELS) -> int:
    return main(["annotate", str(file), "--model", str(model), "--labels", labels, "--quiet", *more])


def test_everything_is_written(file: Path, small_model_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = main([
        "annotate", str(file), "--model", str(small_model_folder), "--labels", LABELS,
        "--compare-to", "own", "--sample-key", "batch",
    ])  # fmt: skip
    assert code == 0
    folder = file.parent / "cells_cellingua"
    assert sorted(everything(folder)) == [
        "cells.annotated.h5ad", "cells.labels.tsv", "figures", "figures/composition.png", "figures/umap_label.png",
        "figures/umap_probability.png", "report.html", "summary.json",
    ]  # fmt: skip
    back = anndata.read_h5ad(folder / "cells.annotated.h5ad")
    assert (back.X != small_world.cells(40).X).nnz == 0
    assert np.mean(back.obs["cellingua_id"].astype(str) == back.obs["truth"].astype(str)) > 0.9
    table = pd.read_csv(folder / "cells.labels.tsv", sep="\t", index_col=0, keep_default_na=False)
    assert list(table["label"]) == list(back.obs["cellingua"].astype(str))
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["cells"] == 40
    shown = capsys.readouterr()
    assert str(folder / "report.html") in shown.out
    assert "agreement with own" in shown.out
    assert "read as" in shown.err  # how each label was read
    assert "\r" not in shown.err


def test_json_is_json_and_quiet_is_quiet(
    file: Path, small_model_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(file, small_model_folder, "--json", "--no-report") == 0
    shown = capsys.readouterr()
    assert json.loads(shown.out)["cells"] == 40
    assert shown.err == ""
    assert not (file.parent / "cells_cellingua" / "report.html").exists()
    assert run(file, small_model_folder, "--force", "--no-report") == 0
    assert capsys.readouterr().out == ""


def test_results_are_kept_without_force(
    file: Path, small_model_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = file.parent / "cells_cellingua"
    folder.mkdir()
    (folder / "report.html").write_text("mine")
    (folder / "notes.txt").write_text("mine too")
    before = everything(file.parent)
    assert run(file, small_model_folder) == 2
    assert everything(file.parent) == before
    assert "--force" in capsys.readouterr().err
    assert run(file, small_model_folder, "--force") == 0
    assert (folder / "notes.txt").read_text() == "mine too"
    assert (folder / "report.html").read_text() != "mine"


def test_output_and_folder_are_where_one_says(file: Path, small_model_folder: Path, tmp_path: Path) -> None:
    before = everything(file.parent)
    target = tmp_path / "new" / "deep" / "out.h5ad"
    assert run(file, small_model_folder, "-o", str(target), "--out-dir", str(tmp_path / "other")) == 0
    assert anndata.read_h5ad(target).n_obs == 40
    assert (tmp_path / "other" / "cells_cellingua" / "report.html").exists()
    assert everything(file.parent) == before


def test_the_input_is_never_replaced(file: Path, small_model_folder: Path) -> None:
    before = everything(file.parent)
    assert run(file, small_model_folder, "-o", str(file), "--force") == 2
    assert everything(file.parent) == before


def test_several_files_and_one_of_them_bad(
    file: Path, small_model_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = file.parent / "bad.h5ad"
    bad.write_bytes(file.read_bytes()[:3000])
    command = ["annotate", str(bad), str(file), "--model", str(small_model_folder), "--labels", LABELS]
    code = main([*command, "--json", "--no-report"])
    assert code == 2
    found = json.loads(capsys.readouterr().out)
    assert "bad.h5ad" in found[0]["error"]
    assert found[1]["cells"] == 40
    assert not (file.parent / "bad_cellingua").exists()


def test_two_files_never_share_a_place(file: Path, small_model_folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "elsewhere" / "cells.h5ad"
    other.parent.mkdir()
    other.write_bytes(file.read_bytes())
    out = tmp_path / "out"
    command = ["annotate", str(file), str(other), "--model", str(small_model_folder), "--labels", LABELS]
    assert main([*command, "--out-dir", str(out)]) == 2
    assert main([*command, "-o", str(tmp_path / "a.h5ad")]) == 2
    assert not out.exists()


def test_an_annotated_file_is_annotated_again_only_under_another_key(
    file: Path, small_model_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(file, small_model_folder, "--no-report") == 0
    again = file.parent / "cells_cellingua" / "cells.annotated.h5ad"
    capsys.readouterr()
    assert run(again, small_model_folder, "--no-report") == 2
    assert "exists already" in capsys.readouterr().err
    assert run(again, small_model_folder, "--no-report", "--force") == 0


def test_repeated_names_are_made_unique_and_it_says_so(
    file: Path, small_model_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with h5py.File(file, "r+") as opened:
        index = opened["obs"].attrs["_index"]
        held = opened["obs"][index]
        values = held["values"] if isinstance(held, h5py.Group) else held  # a group from anndata 0.13 on
        values[1] = values[0]
    code = main(["annotate", str(file), "--model", str(small_model_folder), "--labels", LABELS, "--no-report"])
    assert code == 0
    assert "made unique" in capsys.readouterr().err
    back = anndata.read_h5ad(file.parent / "cells_cellingua" / "cells.annotated.h5ad")
    assert back.obs_names.is_unique
    assert list(back.obs_names[:2]) == ["cell0", "cell0-1"]


def test_a_10x_folder_and_a_zarr_store(file: Path, small_model_folder: Path, tmp_path: Path) -> None:
    import scipy.io

    cells = small_world.cells(25)
    folder = tmp_path / "tenx"
    folder.mkdir()
    scipy.io.mmwrite(folder / "matrix.mtx", cells.X.T.astype(int))
    (folder / "barcodes.tsv").write_text("\n".join(cells.obs_names) + "\n")
    rows = [f"{gene}\t{name}\tGene Expression" for name, gene in cells.var["gene_ids"].items()]
    (folder / "features.tsv").write_text("\n".join(rows) + "\n")
    store = small_world.write_zarr(cells, tmp_path / "a.zarr")
    for path in (folder, store):
        assert run(path, small_model_folder, "--no-report") == 0
        name = path.stem
        back = anndata.read_h5ad(tmp_path / f"{name}_cellingua" / f"{name}.annotated.h5ad")
        assert (back.X != cells.X).nnz == 0
        assert np.mean(back.obs["cellingua_id"].astype(str).to_numpy() == cells.obs["truth"].to_numpy()) > 0.9


def test_labels_from_a_file(file: Path, small_model_folder: Path, tmp_path: Path) -> None:
    listed = tmp_path / "labels.txt"
    listed.write_text("\n".join(small_world.LABELS[1:]) + "\n")
    assert run(file, small_model_folder, "--no-report", "--label", "B cell", labels=str(listed)) == 0
    summary = json.loads((file.parent / "cells_cellingua" / "summary.json").read_text())
    assert summary["candidates"] == 6


def spoil(kind: str, file: Path) -> list[str]:
    """Make the call wrong in one way and return the further arguments."""
    cells = small_world.cells(20)
    if kind == "missing":
        file.unlink()
    elif kind == "no h5ad":
        file.write_text("cell,gene\n1,2\n")
    elif kind == "truncated":
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    elif kind == "no cells":
        cells[:0].copy().write_h5ad(file)
    elif kind == "no genes":
        cells[:, :0].copy().write_h5ad(file)
    elif kind == "unknown genes":
        cells.var = pd.DataFrame(index=[f"thing{number}" for number in range(cells.n_vars)])
        cells.write_h5ad(file)
    elif kind == "no counts":
        cells.X = cells.X.toarray() - cells.X.toarray().mean(axis=0)
        cells.write_h5ad(file)
    return {
        "bad id": ["--label", "CL:9999999"],
        "bad tissue": ["--tissue", "panceras"],
        "empty label": ["--label", " "],
        "repeated label": ["--label", "B cell"],
        "bad model": ["--model", "no_such_model"],
        "bad device": ["--device", "gpu7"],
        "bad threads": ["--threads", "0"],
        "bad seed": ["--seed", "-1"],
        "bad column": ["--sample-key", "nope"],
        "bad layer": ["--layer", "nope"],
    }.get(kind, [])


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("missing", "does not exist"),
        ("no h5ad", "h5ad"),
        ("truncated", "could not be read"),
        ("no cells", "no cells"),
        ("no genes", "no genes"),
        ("unknown genes", "genes"),
        ("no counts", "counts"),
        ("bad id", "CL:9999999"),
        ("bad tissue", "pancreas"),
        ("empty label", "empty"),
        ("repeated label", "B cell"),
        ("bad model", "no_such_model"),
        ("bad device", "gpu7"),
        ("bad threads", "0 threads"),
        ("bad seed", "-1"),
        ("bad column", "nope"),
        ("bad layer", "nope"),
    ],
)
def test_bad_input_exits_2_and_leaves_nothing(
    file: Path, small_model_folder: Path, capsys: pytest.CaptureFixture[str], kind: str, says: str, tmp_path: Path
) -> None:
    more = spoil(kind, file)
    before = everything(tmp_path)
    labels = " " if kind == "bad tissue" else LABELS
    arguments = ["annotate", str(file), "--model", str(small_model_folder), "--quiet", *more]
    arguments += [] if kind == "bad tissue" else ["--labels", labels]
    assert main(arguments) == 2
    shown = capsys.readouterr()
    assert says in shown.err
    assert "Traceback" not in shown.err
    assert len(shown.err.splitlines()) <= 6
    assert shown.out == ""
    assert everything(tmp_path) == before


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write everywhere")
def test_an_unwritable_folder_is_refused(file: Path, small_model_folder: Path) -> None:
    file.parent.chmod(0o500)
    try:
        assert run(file, small_model_folder) == 2
    finally:
        file.parent.chmod(0o700)


def test_a_folder_that_cannot_be_made_is_refused(
    file: Path, small_model_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(file, small_model_folder, "--out-dir", "/proc/nothing/here") == 2
    assert "/proc/nothing" in capsys.readouterr().err


def test_an_unexpected_error_is_one_line(
    file: Path, small_model_folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import cellingua.tasks.annotate as room

    def fail(*_: object, **__: object) -> None:
        raise ValueError("planted")

    monkeypatch.setattr(room, "neighbour_graph", fail)
    before = everything(file.parent)
    assert run(file, small_model_folder) == 1
    shown = capsys.readouterr().err
    assert "planted" in shown
    assert "--debug" in shown
    assert "Traceback" not in shown
    assert everything(file.parent) == before
    assert run(file, small_model_folder, "--debug") == 1
    assert "Traceback" in capsys.readouterr().err


LIMITED = """
import resource, sys
from cellingua.cli.main import main
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), resource.RLIM_INFINITY))
sys.exit(main(sys.argv[2:]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="sets a limit on file sizes")
@pytest.mark.parametrize("limit", [20_000, 300_000])
def test_a_full_disk_exits_1_and_leaves_nothing(file: Path, small_model_folder: Path, limit: int) -> None:
    # A file that may not grow fails as a full disk does; the small limit stops the copy, the other what follows.
    before = everything(file.parent)
    command = [sys.executable, "-c", LIMITED, str(limit), "annotate", str(file), "--model", str(small_model_folder)]
    done = subprocess.run([*command, "--labels", LABELS, "--quiet"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 1, done.stderr
    assert "disk is full" in done.stderr
    assert "Traceback" not in done.stderr
    assert everything(file.parent) == before


SLOW = """
import sys, time
import cellingua.tasks.annotate as room
def wait(*a, **k):
    print("working", flush=True)
    time.sleep(60)
room.neighbour_graph = wait
from cellingua.cli.main import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.skipif(os.name != "posix", reason="signals")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupted_leaves_nothing(file: Path, small_model_folder: Path, number: int, code: int) -> None:
    before = everything(file.parent)
    command = [sys.executable, "-c", SLOW, "annotate", str(file), "--model", str(small_model_folder), "--quiet"]
    with subprocess.Popen(
        [*command, "--labels", LABELS],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        # A test run in a shell's background ignores SIGINT, and so would what it starts.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"working\n"
        assert len(everything(file.parent)) > len(before)  # work lies aside, so that there is something to leave
        time.sleep(0.1)
        process.send_signal(number)
        _, errors = process.communicate(timeout=300)
    assert process.returncode == code
    assert b"Traceback" not in errors
    assert everything(file.parent) == before
