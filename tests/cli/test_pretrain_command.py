"""`cellingua pretrain` on a corpus: from files to a folder, with whatever a user may do wrong."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import anndata
import numpy as np
import pytest
import small_world
import torch
from torch import Tensor, nn

from cellingua.cells.corpus import Corpus, open_corpus
from cellingua.cells.loader import Loader, LoaderConfig
from cellingua.cells.sources import CellRows, cell_names
from cellingua.cli import pretrain
from cellingua.cli.main import main
from cellingua.core.progress import Progress
from cellingua.training.loop import TrainConfig, Watch, train
from cellingua.training.place import Place


@dataclass(frozen=True)
class ToyConfig:
    """A recipe that learns the mean of each gene."""

    name: str = "toy"
    batch: int = 8
    train: TrainConfig = field(default_factory=lambda: TrainConfig(6, checkpoint_every=2))


def toy_run(
    config: ToyConfig, corpus: Corpus, out: Path, *, progress: Progress, place: Place, tensorboard: bool
) -> Path:
    """Train and write the folder."""
    torch.manual_seed(0)
    net = nn.Linear(1, corpus.n_genes, bias=False)

    def make(step: int, rows: CellRows) -> Tensor:
        return torch.from_numpy(np.log1p(rows.counts.toarray()))

    with Loader(corpus, LoaderConfig(config.batch, 4, config.train.seed), make) as loader:

        def losses_of(step: int) -> Mapping[str, Tensor]:
            wanted = loader.draw(step)
            return {"error": (net(torch.ones(1, 1, dtype=wanted.dtype)) - wanted).square().mean()}

        watch = Watch(cells_of=lambda step: cell_names(corpus, loader.rows(step)), batch=config.batch)
        train(net, losses_of, config.train, folder=out, run={"corpus": corpus.digest}, progress=progress, watch=watch)
    (out / config.name).mkdir(exist_ok=True)
    return out / config.name


@pytest.fixture(autouse=True)
def _toy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the recipe be the toy one."""
    module: Any = ModuleType("toy_recipe")
    module.ToyConfig, module.preset, module.run = ToyConfig, lambda name: ToyConfig(), toy_run
    monkeypatch.setitem(sys.modules, "toy_recipe", module)
    monkeypatch.setitem(pretrain.CORPUS_RECIPES, "cellm", ("toy_recipe", "ToyConfig", "toy"))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two files with a label."""
    folder = tmp_path_factory.mktemp("files")
    for seed, name in enumerate(("a", "b")):
        adata = small_world.cells(24, seed)
        adata.obs["disease"] = ["normal", "glioma"] * 12
        adata.write_h5ad(folder / f"{name}.h5ad")
    return folder


def test_langcell_trains_on_a_corpus(files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = {
        "name": "small",
        "description": "For a test.",
        "cell": {
            "vocabulary": 3,
            "cls_token": 2,
            "layers": 1,
            "width": 8,
            "heads": 2,
            "feedforward": 8,
            "positions": 12,
        },
        "text": {"vocabulary": 18000, "layers": 1, "width": 8, "heads": 2, "feedforward": 8, "positions": 12},
        "joint_width": 6,
        "genes": "corpus",
        "texts": {"templates": ["names"], "limit": 12},
        "terms": "seen",
        "first": {"steps": 9},
        "batch": 16,
        "train": {"steps": 9, "checkpoint_every": 2},
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    words = ["--corpus", files, "--label-columns", "cell_type=truth", "--config", tmp_path / "config.json"]
    words += ["--steps", 2, "--batch", 6, "--quiet", "-o", tmp_path / "out"]
    assert main(["pretrain", "langcell", *map(str, words)]) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "out" / "small")
    for stage in ("first", "second"):
        run = json.loads((tmp_path / "out" / stage / "checkpoint" / "run.json").read_text())
        assert run["step"] == 2
        assert (run["config"]["recipe"]["batch"], run["config"]["recipe"]["block"]) == (6, 2)
    # Without a column that says the type, nothing can be said of a cell.
    assert main(["pretrain", "langcell", "--corpus", str(files), "-o", str(tmp_path / "none"), "--quiet"]) == 2
    assert "--label-columns" in capsys.readouterr().err


def call(*words: object) -> int:
    return main(["pretrain", "cellm", *map(str, words)])


def test_from_files_to_a_model(files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    words = ["--corpus", files, "--label-columns", "cancer=disease", "-o", out]
    assert call(*words, "--steps", 4) == 0
    told = capsys.readouterr()
    assert told.out.strip() == str(out / "toy")
    assert "48 cells of 2 files" in told.err
    corpus = open_corpus(out / "corpus")
    assert corpus.categories["cancer"] == ("glioma", "normal")
    assert json.loads((out / "checkpoint" / "run.json").read_text())["step"] == 4
    # Another number of steps is another configuration, and what differs is shown.
    assert call(*words, "--steps", 5, "--quiet") == 2
    assert "train.steps = 4, and this run has 5" in capsys.readouterr().err
    assert call(*words, "--steps", 4, "--quiet", "--resume") == 0
    # A prepared corpus can be named itself, for another run.
    assert call("--corpus", out / "corpus", "-o", tmp_path / "other", "--quiet", "--seed", 3) == 0
    assert not (tmp_path / "other" / "corpus").exists()
    assert call(*words[:-1], tmp_path / "third", "--prepared", out / "corpus", "--quiet") == 0
    lines = [json.loads(line) for line in (tmp_path / "third" / "log.jsonl").read_text().splitlines()]
    assert lines[0]["cells_per_second"] > 0


def test_a_corpus_can_be_prepared_alone(files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert call("--corpus", files / "a.h5ad", "--prepared", tmp_path / "made", "-o", out, "--prepare-only") == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "made")
    assert len(open_corpus(tmp_path / "made")) == 24
    assert not (out / "checkpoint").exists()


def test_a_configuration_of_ones_own(files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "mine.json"
    config.write_text('{"batch": 16, "train": {"steps": 3}}')
    words = ["--corpus", files, "-o", tmp_path / "out", "--config", config, "--quiet"]
    assert call(*words) == 0
    assert json.loads((tmp_path / "out" / "checkpoint" / "run.json").read_text())["step"] == 3
    for content, says in (('{"batches": 16}', "did you mean 'batch'"), ("{", "can't be read"), ("", "can't be read")):
        config.write_text(content)
        assert call(*words) == 2
        assert says in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--corpus", "{empty}"], "there is no file of cells"),
        (["--corpus", "{files}/none.h5ad"], "does not exist"),
        (["--corpus", "{files}", "--label-columns", "tissue"], "No file has the column 'tissue'"),
        (["--corpus", "{files}", "--label-columns", "same=same"], "No file has the column 'same'"),
        (["--corpus", "{mouse}"], "genes are of mouse"),
        (["--corpus", "{files}", "{mouse}"], "1 of 3 files can't be used"),
        (["--corpus", "{files}", "--resume"], "no checkpoint to resume"),
        (["--corpus", "{files}", "--min-genes", "100000"], "No cell is left"),
        (["--corpus", "{files}", "--data", "x"], "does not take --data"),
        (["--data", "x"], "needs --corpus"),
        (["--corpus", "{files}", "--device", "cuda:77"], "not usable here"),
        (["--corpus", "{files}", "--config", "{empty}"], "can't be read"),
    ],
)
def test_a_wrong_call_exits_with_2_and_leaves_nothing(
    files: Path, tmp_path: Path, words: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    mouse = small_world.cells(10)
    mouse.var_names = [name.capitalize() for name in mouse.var_names]
    del mouse.var["gene_ids"]
    mouse.write_h5ad(tmp_path / "mouse.h5ad")
    places = {"files": files, "empty": tmp_path / "empty", "mouse": tmp_path / "mouse.h5ad"}
    assert call(*(word.format(**places) for word in words), "-o", tmp_path / "out", "--quiet") == 2
    told = capsys.readouterr().err
    assert says in told
    assert "Traceback" not in told
    assert not (tmp_path / "out" / "checkpoint").exists()
    assert not (tmp_path / "out" / "corpus" / "corpus.json").exists()


def test_bad_files_are_skipped_on_request(files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "cut.h5ad").write_bytes((files / "a.h5ad").read_bytes()[:4000])
    words = ["--corpus", files, tmp_path / "cut.h5ad", "-o", tmp_path / "out", "--prepare-only"]
    assert call(*words) == 2
    assert "--skip-bad" in capsys.readouterr().err
    assert call(*words, "--skip-bad") == 0
    assert "Left out: cut.h5ad" in capsys.readouterr().err


def test_reference_cells_are_left_out(files: Path, tmp_path: Path) -> None:
    (tmp_path / "judge").mkdir()
    judge = anndata.read_h5ad(files / "a.h5ad")[:3].copy()
    judge.obs_names = [f"ACGTACGTACGT-{i}" for i in range(3)]
    judge.write_h5ad(tmp_path / "judge" / "judge.h5ad")
    own = anndata.read_h5ad(files / "a.h5ad")
    own.obs_names = [f"ACGTACGTACGT-{i}" for i in range(24)]
    own.write_h5ad(tmp_path / "own.h5ad")
    words = ["--corpus", tmp_path / "own.h5ad", "-o", tmp_path / "out", "--quiet", "--prepare-only"]
    assert call(*words, "--reference", tmp_path / "judge") == 0
    assert len(open_corpus(tmp_path / "out" / "corpus")) == 21


STARTED = """
import sys
sys.path[:0] = sys.argv[1:3]
import test_pretrain_command as here
from types import ModuleType
from cellingua.cli import pretrain
from cellingua.cli.main import main
module = ModuleType("toy_recipe")
module.ToyConfig, module.preset, module.run = here.ToyConfig, lambda name: here.ToyConfig(), here.toy_run
sys.modules["toy_recipe"] = module
pretrain.CORPUS_RECIPES["cellm"] = ("toy_recipe", "ToyConfig", "toy")
sys.exit(main(sys.argv[3:]))
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_saves_and_says_so(files: Path, tmp_path: Path, number: int, code: int) -> None:
    here = Path(__file__).parent
    words = ["pretrain", "cellm", "--corpus", str(files), "-o", str(tmp_path), "--steps", "100000"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", STARTED, str(here), str(here.parent), *words]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as run:
        while not (tmp_path / "checkpoint" / "run.json").is_file() and run.poll() is None:
            time.sleep(0.02)
        run.send_signal(number)
        _, told = run.communicate(timeout=120)
    assert run.returncode == code, told
    step = json.loads((tmp_path / "checkpoint" / "run.json").read_text())["step"]
    assert "Traceback" not in told
    assert step > 0
    assert f"the checkpoint of step {step:,} is kept" in told


def test_langcell_keeps_its_own_options(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words, says in (
        ([], "needs --corpus or --data"),
        (["--corpus", tmp_path, "--gene-vectors", "x"], "does not take --gene-vectors"),
        (["--data", tmp_path], "needs --text-tower"),
        (["--data", tmp_path, "--text-tower", "x", "--corpus", tmp_path], "does not take --corpus"),
        (["--data", tmp_path / "none", "--text-tower", "x"], "is not a folder"),
        (["--data", tmp_path, "--text-tower", "x", "--devices", 2], "one process"),
    ):
        assert main(["pretrain", "langcell", *map(str, words), "-o", str(tmp_path / "out")]) == 2
        assert says in capsys.readouterr().err
