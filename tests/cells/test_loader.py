"""Minibatches follow from seed and step; the thread that reads ahead changes nothing."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
import small_world
from hypothesis import given
from hypothesis import strategies as st
from plain_source import Numbers

from cellingua.cells.corpus import Corpus
from cellingua.cells.loader import Loader, LoaderConfig
from cellingua.cells.prepare import CorpusConfig, prepare_corpus
from cellingua.cells.scdataset import ScDatasetSource, as_scdataset
from cellingua.cells.shards import EncodedCells, encode, join, open_shard, write_shard
from cellingua.cells.sources import CellRows
from cellingua.core.errors import ConfigError, FileError


def places(step: int, rows: CellRows) -> list[int]:
    return rows.places.tolist()


@given(
    n=st.integers(20, 300),
    block=st.sampled_from([1, 2, 5]),
    per_batch=st.integers(1, 4),
    seed=st.integers(0, 5),
    step=st.integers(0, 200),
)
def test_an_epoch_shows_no_cell_twice(n: int, block: int, per_batch: int, seed: int, step: int) -> None:
    loader = Loader(Numbers(n), LoaderConfig(block * per_batch, block, seed), places, ahead=0)
    first = step // loader.steps_per_epoch * loader.steps_per_epoch
    epoch = [loader.draw(first + i) for i in range(loader.steps_per_epoch)]
    seen = [cell for batch in epoch for cell in batch]
    assert len(set(seen)) == len(seen) > n - block * (per_batch + 1)
    assert all(len(batch) == block * per_batch for batch in epoch)
    assert loader.draw(step) == epoch[step - first]


def test_any_step_at_any_time_and_ahead_or_not() -> None:
    config = LoaderConfig(12, 4, seed=7)
    plain = Loader(Numbers(100), config, places, ahead=0)
    with Loader(Numbers(100), config, places, ahead=3) as loader:
        for step in [0, 1, 2, 3, 9, 10, 4, 4, 30, 29, 0]:
            assert loader.draw(step) == plain.draw(step)
    assert plain.draw(0) != plain.draw(plain.steps_per_epoch)
    assert plain.draw(0) != Loader(Numbers(100), LoaderConfig(12, 4, seed=8), places, ahead=0).draw(0)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("cellingua-loader")]


def test_only_some_rows() -> None:
    rows = np.flatnonzero(np.arange(100) % 3)
    loader = Loader(Numbers(100), LoaderConfig(8, 4), places, rows=rows, ahead=0)
    seen = {cell for step in range(30) for cell in loader.draw(step)}
    assert seen == set(rows.tolist())


def test_processes_share_a_minibatch() -> None:
    config = LoaderConfig(12, 4)
    whole = Loader(Numbers(100), config, places, ahead=0).draw(5)
    parts = [Loader(Numbers(100), config, places, ahead=0, rank=rank, world=3).draw(5) for rank in range(3)]
    assert [cell for part in parts for cell in part] == whole


def test_an_error_in_the_thread_is_raised_here() -> None:
    def fail(step: int, rows: CellRows) -> None:
        raise FileError(f"step {step}")

    with Loader(Numbers(100), LoaderConfig(12, 4), fail) as loader, pytest.raises(FileError, match="step 2"):
        loader.draw(2)


@pytest.mark.parametrize(
    ("n", "config", "world"),
    [
        (5, LoaderConfig(8, 4), 1),
        (100, LoaderConfig(8, 3), 1),
        (100, LoaderConfig(0, 1), 1),
        (99, LoaderConfig(2, 1), 3),
    ],
)
def test_what_does_not_fit_is_told(n: int, config: LoaderConfig, world: int) -> None:
    with pytest.raises(ConfigError):
        Loader(Numbers(n), config, places, world=world)


@st.composite
def encoded(draw: st.DrawFn) -> tuple[np.ndarray, EncodedCells]:
    """Draw a small matrix with small, large and fractional values, and its stored form."""
    n, genes = draw(st.integers(0, 6)), 7
    values = st.sampled_from([0, 0, 0, 1, 2, 254, 255, 256, 70_000, 0.5, 1.25, 3e8])
    dense = np.array([[draw(values) for _ in range(genes)] for _ in range(n)], np.float32).reshape(n, genes)
    counts = small_world.csr_matrix(dense)
    return dense, encode(counts, dense.sum(axis=1), np.arange(2 * n).reshape(n, 2), np.arange(n) + 5)


@given(st.data())
def test_what_is_stored_comes_back(data: st.DataObject) -> None:
    dense, cells = data.draw(encoded())
    np.testing.assert_array_equal(cells.counts(7).toarray(), dense)
    rows = np.array(data.draw(st.lists(st.integers(0, max(0, len(dense) - 1)), max_size=8)) if len(dense) else [], int)
    np.testing.assert_array_equal(cells.take(rows).counts(7).toarray(), dense[rows])
    np.testing.assert_array_equal(cells.take(rows).places, cells.places[rows])
    start = data.draw(st.integers(0, len(dense)))
    stop = data.draw(st.integers(start, len(dense)))
    part = cells.slice(start, stop)
    np.testing.assert_array_equal(part.counts(7).toarray(), dense[start:stop])
    other_dense, other = data.draw(encoded())
    together = join([part, other, cells])
    np.testing.assert_array_equal(together.counts(7).toarray(), np.concatenate([dense[start:stop], other_dense, dense]))
    np.testing.assert_array_equal(together.codes, np.concatenate([part.codes, other.codes, cells.codes]))


def test_a_shard_is_mapped_back(tmp_path: Path) -> None:
    dense = np.array([[0, 3, 300], [1, 0, 0.5]], np.float32)
    cells = encode(small_world.csr_matrix(dense), dense.sum(axis=1), np.zeros((2, 2)), np.array([8, 9]))
    index = write_shard(tmp_path / "s", cells)
    held = open_shard(tmp_path / "s")
    held.expect(0, len(held.cells))
    back = held.cells
    np.testing.assert_array_equal(back.counts(3).toarray(), dense)
    assert not back.genes.flags.writeable
    assert index["bytes"] == (tmp_path / "s.bin").stat().st_size
    assert sorted(path.name for path in tmp_path.iterdir()) == ["s.bin", "s.json"]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """A corpus of one file."""
    folder = tmp_path_factory.mktemp("one")
    adata = small_world.cells(60, 4)
    adata.write_h5ad(folder / "a.h5ad")
    return prepare_corpus([folder / "a.h5ad"], folder / "out", CorpusConfig(block=4, shard_values=4000))


def test_scdataset_draws_from_a_source(corpus: Corpus) -> None:
    pytest.importorskip("scdataset")
    source = ScDatasetSource(corpus, fetch=2)
    assert len(source) == 60
    rows = np.array([5, 3, 5, 40])
    np.testing.assert_array_equal(source.read(rows).places, corpus.read(rows).places)
    assert (source.read(rows).counts != corpus.read(rows).counts).nnz == 0
    epochs = [[block.places.tolist() for block in source.blocks(1, epoch, 8)] for epoch in (0, 0, 1)]
    assert epochs[0] == epochs[1] != epochs[2]
    for epoch in epochs:
        assert sorted(cell for block in epoch for cell in block) == list(range(60))
    batches = list(as_scdataset(corpus, batch=16, block=4, drop_last=True))
    assert [len(batch) for batch in batches] == [16, 16, 16]
    with Loader(source, LoaderConfig(8, 4), places) as loader:
        assert loader.draw(1) == Loader(corpus, LoaderConfig(8, 4), places, ahead=0).draw(1)


def test_without_scdataset_it_is_said(corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "scdataset", None)
    with pytest.raises(ConfigError, match="not installed"):
        ScDatasetSource(corpus)
