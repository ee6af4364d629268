"""A corpus on disk holds every cell once, exactly; it is prepared once, in any number of runs; bad files are told."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import anndata
import numpy as np
import pytest
import small_world
from scipy.sparse import csr_matrix

from cellingua.cells import pieces, prepare
from cellingua.cells.collections import read_cells
from cellingua.cells.corpus import Corpus, open_corpus
from cellingua.cells.files_source import FilesSource
from cellingua.cells.prepare import CorpusConfig, prepare_corpus
from cellingua.cells.sources import CellRows, cell_names, normal_or_cancer, rows_of
from cellingua.core.errors import ConfigError, CountsError, FileError, GeneError, InputError, LabelError, OutputError
from cellingua.core.progress import Silent

CONFIG = CorpusConfig(labels=("cancer=is_malignant|disease",), block=4, shard_values=3_000)
CELLS = {"a.h5ad": 37, "deeper/b.zarr": 25, "c.h5ad": 12}


def write(path: Path, n: int, seed: int, **obs: object) -> None:
    """Write a file of cells with some large and some fractional values."""
    adata = small_world.cells(n, seed)
    counts = adata.X.tolil()
    counts[0, 3], counts[1, 4], counts[2, 5] = 70_000, 254, 255
    adata.X = csr_matrix(counts)
    adata.obs_names = [f"cell-{i}" for i in range(n)]
    adata.obs = adata.obs[[]].assign(**obs)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".zarr":
        small_world.write_zarr(adata, path)
    else:
        adata.write_h5ad(path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three files: two kinds, one in a subfolder; cancer is told in two ways."""
    made = tmp_path_factory.mktemp("files")
    third = np.arange(37) % 3
    write(made / "a.h5ad", 37, 1, donor_id=third.astype(str), disease=np.array(["normal", "glioma", "nan"])[third])
    write(made / "deeper/b.zarr", 25, 2, is_malignant=np.arange(25) % 2 == 0, disease="glioma")
    write(made / "c.h5ad", 12, 3, donor_id="7")
    (made / "notes.txt").write_text("not cells")
    return made


@pytest.fixture(scope="module")
def corpus(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """The corpus of these files."""
    return prepare_corpus([folder], tmp_path_factory.mktemp("corpus") / "out", CONFIG)


def write_by(patch: pytest.MonkeyPatch, work: Callable | None) -> None:
    """Let pieces and shards be written by `work`."""
    for module in (pieces, prepare):
        patch.setattr(module, "write_shard", work)


def by_name(source: object, rows: CellRows) -> dict[tuple[str, int], tuple[list, float, str]]:
    """Return (file, row) -> what is known of the cell."""
    values = source.categories  # type: ignore[attr-defined]
    found = {}
    for i in range(len(rows)):
        cell = rows.counts[i]
        label = int(rows.labels["cancer"][i])
        found[values["file"][rows.labels["file"][i]], int(rows.places[i])] = (
            [cell.indices.tolist(), cell.data.tolist()],
            float(rows.totals[i]),
            values["cancer"][label] if label >= 0 else "",
        )
    return found


def test_every_cell_is_there_once_and_exactly(folder: Path, corpus: Corpus) -> None:
    plain = FilesSource([folder], labels=CONFIG.labels)
    assert len(corpus) == len(plain) == sum(CELLS.values())
    assert set(corpus.categories["file"]) == set(CELLS)
    assert len(corpus.index["shards"]) > 3
    stored = by_name(corpus, corpus.read(np.arange(len(corpus))))
    assert stored == by_name(plain, plain.read(np.arange(len(plain))))
    assert len(stored) == sum(CELLS.values())
    assert max(value for (_, values), _, _ in stored.values() for value in values) == 70_000


def test_labels_come_from_the_first_column_that_knows(corpus: Corpus) -> None:
    rows = corpus.read(np.arange(len(corpus)))
    found = {key: label for key, (_, _, label) in by_name(corpus, rows).items()}
    assert found["a.h5ad", 0] == "normal"
    assert found["a.h5ad", 1] == "glioma"
    assert found["a.h5ad", 2] == ""
    assert found["deeper/b.zarr", 0] == "True"  # is_malignant goes before disease
    assert found["deeper/b.zarr", 1] == "False"
    assert found["c.h5ad", 5] == ""
    classes = normal_or_cancer(corpus, "cancer")
    of = dict(zip(corpus.categories["cancer"], classes.tolist(), strict=False))
    assert of == {"normal": 0, "False": 0, "glioma": 1, "True": 1}
    assert classes[-1] == -1


def test_donors_are_those_of_a_file(corpus: Corpus) -> None:
    rows = rows_of(corpus, "donor", ["a.h5ad/1"])
    held = corpus.read(rows)
    assert {corpus.categories["file"][code] for code in held.labels["file"]} == {"a.h5ad"}
    assert sorted(held.places % 3) == [1] * 12
    assert len(rows_of(corpus, "donor", ["c.h5ad/7"])) == 12
    assert len(rows_of(corpus, "donor", ["deeper/b.zarr/"])) == 25  # no donor is known
    with pytest.raises(LabelError, match="glioma2"):
        rows_of(corpus, "cancer", ["glioma2"])
    with pytest.raises(LabelError, match="no column 'tissue'"):
        rows_of(corpus, "tissue", ["blood"])


def test_rows_are_read_in_any_order(corpus: Corpus) -> None:
    rows = np.random.default_rng(0).integers(len(corpus), size=50)
    one = corpus.read(rows)
    for i, row in enumerate(rows):
        alone = corpus.read(np.array([row]))
        assert (one.counts[i] != alone.counts).nnz == 0
        assert one.places[i] == alone.places[0]
    assert len(corpus.read(np.empty(0, np.int64))) == 0
    with pytest.raises(IndexError):
        corpus.read(np.array([len(corpus)]))
    np.testing.assert_array_equal(corpus.column("file")[rows], one.labels["file"])


def test_blocks_show_every_cell_once_in_another_order_each_epoch(corpus: Corpus) -> None:
    names = [[key for block in corpus.blocks(3, epoch, 8) for key in by_name(corpus, block)] for epoch in (0, 1)]
    assert len(set(names[0])) == len(names[0]) == len(corpus)
    assert sorted(names[0]) == sorted(names[1]) != names[0] != names[1]
    assert names[0] == [key for block in corpus.blocks(3, 0, 8) for key in by_name(corpus, block)]


def test_cells_are_shuffled(corpus: Corpus) -> None:
    files = corpus.column("file")
    changes = (np.diff(files) != 0).mean()
    assert changes > 0.3  # in the order of the files it would be 2 of 73
    other = np.array([int(name.split()[-1]) for name in cell_names(corpus, np.arange(len(corpus)))])
    assert (np.diff(other) == 1).mean() < 0.3


def test_a_prepared_corpus_is_opened_and_not_made_again(
    folder: Path, corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_by(monkeypatch, None)
    again = prepare_corpus([folder], corpus.folder, CONFIG)
    assert again.digest == corpus.digest == open_corpus(corpus.folder).digest
    with pytest.raises(ConfigError, match=r"config\.min_genes = 1; now it is 5"):
        prepare_corpus([folder], corpus.folder, CorpusConfig(CONFIG.labels, block=4, shard_values=3000, min_genes=5))
    with pytest.raises(ConfigError, match="files = "):
        prepare_corpus([folder / "a.h5ad", folder / "deeper"], corpus.folder, CONFIG)


class Killed(BaseException):
    """Stands for the process ending here."""


@pytest.mark.parametrize("at", [0, 1, 2, 4, 6])
def test_a_stopped_preparation_goes_on(folder: Path, corpus: Corpus, tmp_path: Path, at: int) -> None:
    real: Callable = prepare.write_shard
    written: list[str] = []

    def write_until(path: Path, cells: object) -> dict:
        if len(written) == at:
            path.with_suffix(".bin").write_bytes(b"half")  # as a kill between the two files leaves it
            raise Killed
        written.append(path.name)
        return real(path, cells)

    with pytest.MonkeyPatch.context() as patch:
        write_by(patch, write_until)
        with pytest.raises(Killed):
            prepare_corpus([folder], tmp_path / "out", CONFIG)
    with pytest.raises(FileError):
        open_corpus(tmp_path / "out")
    after: list[str] = []

    def write_on(path: Path, cells: object) -> dict:
        after.append(path.name)
        return real(path, cells)

    with pytest.MonkeyPatch.context() as patch:
        write_by(patch, write_on)
        done = prepare_corpus([folder], tmp_path / "out", CONFIG)
    assert done.digest == corpus.digest
    # Nothing that was finished is done again, but for the pieces of the file that was being read.
    shards = [name for name in written if name.startswith("shard")]
    assert not set(shards) & set(after)
    assert not (tmp_path / "out" / "work").exists()
    for path in (corpus.folder / "shards").iterdir():
        assert (done.folder / "shards" / path.name).read_bytes() == path.read_bytes()


def test_a_full_disk_is_told_and_the_same_call_goes_on(
    folder: Path, corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real: Callable = prepare.write_shard
    calls = []

    def full(path: Path, cells: object) -> dict:
        calls.append(path)
        if len(calls) == 5:
            raise OutputError(f"{path} could not be written: No space left on device.")
        return real(path, cells)

    write_by(monkeypatch, full)
    with pytest.raises(OutputError, match="No space"):
        prepare_corpus([folder], tmp_path / "out", CONFIG)
    assert prepare_corpus([folder], tmp_path / "out", CONFIG).digest == corpus.digest


def test_another_unfinished_preparation_is_removed(folder: Path, corpus: Corpus, tmp_path: Path) -> None:
    (tmp_path / "out" / "work").mkdir(parents=True)
    (tmp_path / "out" / "work" / "plan.json").write_text('{"format": 0}')
    (tmp_path / "out" / "work" / "file-00000.json").write_text('{"pieces": [], "left_out": {}, "sha256": null}')
    assert prepare_corpus([folder], tmp_path / "out", CONFIG).digest == corpus.digest


def test_evaluation_cells_are_left_out(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "evaluation").mkdir()
    planted = anndata.read_h5ad(folder / "a.h5ad")[:5].copy()
    planted.obs_names = [f"{'ACGTACGT' * 2}-{i}" for i in range(5)]
    planted.write_h5ad(tmp_path / "evaluation" / "judge.h5ad")
    (tmp_path / "files").mkdir()
    adata = anndata.read_h5ad(folder / "a.h5ad")
    adata.obs_names = [f"{'ACGTACGT' * 2}-{i}" for i in range(len(adata))]
    adata.write_h5ad(tmp_path / "files" / "a.h5ad")
    reference = read_cells(tmp_path / "evaluation")
    made = prepare_corpus([tmp_path / "files"], tmp_path / "out", CorpusConfig(), reference=reference)
    assert len(made) == 37 - 5
    assert made.index["files"][0]["left_out"]["evaluation cells"] == 5
    assert made.read(np.arange(32)).places.min() == 5


def test_cells_with_too_few_genes_are_left_out(tmp_path: Path) -> None:
    adata = small_world.cells(20, 5)
    counts = adata.X.toarray()
    counts[3] = 0
    adata.X = csr_matrix(counts)
    adata.write_h5ad(tmp_path / "a.h5ad")
    made = prepare_corpus([tmp_path / "a.h5ad"], tmp_path / "out")
    assert len(made) == 19
    assert 3 not in made.read(np.arange(19)).places
    genes = np.sort(np.diff(made.read(np.arange(19)).counts.indptr))
    few = prepare_corpus([tmp_path / "a.h5ad"], tmp_path / "few", CorpusConfig(min_genes=int(genes[5])))
    assert len(few) == (genes >= genes[5]).sum() < 19
    with pytest.raises(CountsError, match="No cell is left"):
        prepare_corpus([tmp_path / "a.h5ad"], tmp_path / "none", CorpusConfig(min_genes=100_000))


def mouse(path: Path) -> None:
    """Write cells with mouse symbols."""
    adata = small_world.cells(12, 6)
    adata.var_names = [name.capitalize() for name in adata.var_names]
    del adata.var["gene_ids"]
    adata.write_h5ad(path)


def strange(path: Path) -> None:
    """Write cells with genes that nobody knows."""
    adata = small_world.cells(12, 6)
    adata.var_names = [f"feature{i}" for i in range(adata.n_vars)]
    del adata.var["gene_ids"]
    adata.write_h5ad(path)


def test_bad_files_are_listed_or_left_out(folder: Path, tmp_path: Path) -> None:
    files = tmp_path / "files"
    shutil.copytree(folder, files)
    mouse(files / "mouse.h5ad")
    strange(files / "strange.h5ad")
    (files / "cut.h5ad").write_bytes((folder / "a.h5ad").read_bytes()[:5000])
    with pytest.raises(FileError, match="3 of 6 files") as told:
        prepare_corpus([files], tmp_path / "out", CONFIG)
    for sign in ("mouse.h5ad: ", "genes are of mouse", "strange.h5ad: ", "feature0", "cut.h5ad: ", "--skip-bad"):
        assert sign in str(told.value)
    assert not (tmp_path / "out").exists()
    made = prepare_corpus([files], tmp_path / "out", CONFIG, skip_bad=True)
    assert len(made) == sum(CELLS.values())
    assert set(made.index["refused"]) == {"mouse.h5ad", "strange.h5ad", "cut.h5ad"}


@pytest.mark.parametrize("skip_bad", [False, True])
def test_nothing_readable_is_an_error(tmp_path: Path, skip_bad: bool) -> None:
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(FileError, match="no file of cells"):
        prepare_corpus([tmp_path], tmp_path / "out", skip_bad=skip_bad)
    mouse(tmp_path / "mouse.h5ad")
    with pytest.raises(FileError, match="1 of 1 files"):
        prepare_corpus([tmp_path], tmp_path / "out", skip_bad=skip_bad)
    with pytest.raises(FileError, match="does not exist"):
        prepare_corpus([tmp_path / "nowhere"], tmp_path / "out", skip_bad=skip_bad)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("labels", "says"),
    [
        (("tissue",), "No file has the column 'tissue'"),
        (("cancer=disease|tissue",), "No file has the column 'tissue'"),
        (("donor_id|",), "names no label column"),
        (("file=disease",), "names no label column"),
        (("=disease",), "names no label column"),
    ],
)
def test_a_wrong_label_column_is_told(folder: Path, tmp_path: Path, labels: tuple[str, ...], says: str) -> None:
    with pytest.raises(InputError, match=says):
        prepare_corpus([folder], tmp_path / "out", CorpusConfig(labels))
    assert not (tmp_path / "out").exists()


def test_a_label_with_one_value_is_told(tmp_path: Path) -> None:
    write(tmp_path / "a.h5ad", 10, 1, disease="normal", tissue=["blood", "skin"] * 5, empty="nan")
    for column, says in (("disease", "one value, 'normal'"), ("empty", "no known value")):
        with pytest.raises(LabelError, match=says):
            prepare_corpus([tmp_path / "a.h5ad"], tmp_path / "out", CorpusConfig((column,)))
    made = prepare_corpus([tmp_path / "a.h5ad"], tmp_path / "out", CorpusConfig(("tissue",)))
    with pytest.raises(LabelError, match="mean one class"):
        normal_or_cancer(made, "tissue")
    with pytest.raises(ConfigError, match="twice"):
        prepare_corpus([tmp_path / "a.h5ad"], tmp_path / "b", CorpusConfig(("tissue", "tissue=disease")))


def _edit(path: Path, change: Callable[[dict], object]) -> None:
    index = json.loads(path.read_text())
    change(index)
    path.write_text(json.dumps(index))


@pytest.mark.parametrize("damage", ["cut", "lost", "index lost", "index cut", "genes", "format", "dtype", "list"])
def test_a_damaged_corpus_is_told(corpus: Corpus, tmp_path: Path, damage: str) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(corpus.folder, copy)
    shard = copy / "shards" / "shard-00001.bin"
    if damage == "cut":
        shard.write_bytes(shard.read_bytes()[:-8])
    elif damage == "lost":
        shard.unlink()
    elif damage == "index lost":
        shard.with_suffix(".json").unlink()
    elif damage == "index cut":
        (copy / "corpus.json").write_text('{"format": 1')
    elif damage == "dtype":
        _edit(shard.with_suffix(".json"), lambda index: index["arrays"]["genes"].update(dtype="<i8"))
    elif damage == "list":
        (copy / "corpus.json").write_text("[]")
    else:
        _edit(copy / "corpus.json", lambda index: index.update({damage: "another"}))
    with pytest.raises(FileError):
        open_corpus(copy).read(np.arange(len(corpus)))


def test_files_as_they_are_say_no_to_what_the_doctor_refuses(tmp_path: Path) -> None:
    mouse(tmp_path / "mouse.h5ad")
    with pytest.raises(GeneError, match="mouse"):
        FilesSource([tmp_path / "mouse.h5ad"])


def test_the_shared_corpus_is_prepared_whole(shared: Path, tmp_path: Path) -> None:
    files = ["he_liver_20", "blakeley_blastocyst", "li_cell_lines"]
    sources = [shared / "data/cells/corpus" / f"{name}.h5ad" for name in files]
    made = prepare_corpus(sources, tmp_path / "out", CorpusConfig(("cancer=is_malignant|disease",)), progress=Silent())
    plain = FilesSource(sources, labels=("cancer=is_malignant|disease",))
    assert by_name(made, made.read(np.arange(len(made)))) == by_name(plain, plain.read(np.arange(len(plain))))
