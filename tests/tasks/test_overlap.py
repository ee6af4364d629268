"""Has the model seen these cells? By hash, by id, by name, by fingerprints, in any form; and not by chance."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import small_world
from anndata import AnnData
from awkward_files import write_10x_folder, write_10x_h5
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csc_matrix, csr_matrix
from scipy.stats import binom

from cellingua.cells.counts import CountBlocks
from cellingua.cells.doctor import examine
from cellingua.cells.fingerprint import load_lists
from cellingua.cells.genes import load_vocabulary
from cellingua.cells.reading import open_cells
from cellingua.core.files import sha256_file
from cellingua.models.bundle import load_bundle
from cellingua.models.manifest import read_manifest, write_manifest
from cellingua.models.model import LangCellModel
from cellingua.models.seen import DataSet, Seen, record
from cellingua.models.shelf import load_annotator
from cellingua.tasks.annotate import annotate
from cellingua.tasks.finetune import finetune
from cellingua.tasks.overlap import Overlap, chance_of, overlap, overlap_of_counts

GENES = len(load_vocabulary())
EXTRA = np.setdiff1d(np.flatnonzero(load_lists().list_of >= 0), small_world.rows_of_genes())


def world(n: int, seed: int) -> AnnData:
    """Return cells of the small world that also express the genes of the lists."""
    vocabulary, cells = load_vocabulary(), small_world.cells(n, seed)
    more = np.random.default_rng(seed + 500).poisson(0.7, (n, len(EXTRA))).astype(np.float32)
    var = pd.concat(
        [cells.var, pd.DataFrame({"gene_ids": vocabulary.ensembl_ids[EXTRA]}, index=vocabulary.symbols[EXTRA])]
    )
    return AnnData(csr_matrix(np.hstack([cells.X.toarray(), more])), cells.obs, var)


def blocks_of(source: AnnData | Path) -> CountBlocks:
    """Return the counts of a file."""
    cells = open_cells(source)
    return CountBlocks(cells, examine(cells))


def counts_of(source: AnnData | Path) -> csr_matrix:
    """Return the counts of a small file on the vocabulary's genes."""
    return next(blocks_of(source).blocks()).counts


def knowing(folder: Path, base: Path, seen: Seen) -> LangCellModel:
    """Return the small model as one that saw this."""
    shutil.copytree(base, folder)
    seen.save(folder)
    optional = frozenset(name for name, entry in read_manifest(base).files.items() if entry.optional)
    write_manifest(folder, optional)
    return load_bundle(folder)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, small_model_folder: Path) -> LangCellModel:
    """A model that saw sixty cells of a study."""
    study = DataSet("study", cells=60, donors=("donor 1",), other_ids=("GSE1234",))
    seen = record([study, DataSet("atlas", "profiles", "cd" * 32)], counts_of(world(60, 1)))
    return knowing(tmp_path_factory.mktemp("knowing") / "model", small_model_folder, seen)


def forms(cells: AnnData, folder: Path) -> dict[str, AnnData | Path]:
    """Return the cells as files of all kinds, and cut and turned in memory."""
    rng = np.random.default_rng(0)
    common = np.asarray((cells.X > 0).mean(axis=0)).ravel() > 0.05
    integers, dense, columns = cells.copy(), cells.copy(), cells.copy()
    integers.X, dense.X, columns.X = cells.X.astype(np.uint16), cells.X.toarray(), csc_matrix(cells.X)
    cells.write_h5ad(folder / "a.h5ad")
    return {
        "h5ad": folder / "a.h5ad",
        "zarr": small_world.write_zarr(cells, folder / "b.zarr"),
        "10x h5": write_10x_h5(folder / "c.h5", cells),
        "10x mtx": write_10x_folder(folder / "d", cells),
        "integers": integers,
        "dense": dense,
        "columns": columns,
        "genes in another order": cells[:, rng.permutation(cells.n_vars)].copy(),
        "cells in another order": cells[rng.permutation(cells.n_obs)].copy(),
        "half of the cells": cells[: cells.n_obs // 2].copy(),
        "rare genes dropped": cells[:, common].copy(),
        "names are ids": AnnData(cells.X, cells.obs, pd.DataFrame(index=cells.var["gene_ids"] + ".3")),
    }


def test_seen_cells_are_known_in_every_form(model: LangCellModel, tmp_path: Path) -> None:
    for form, source in forms(world(60, 1), tmp_path).items():
        found = overlap(model, blocks_of(source))
        assert (found.by_cells, found.known, found.zero_shot) == (True, True, False), form
        assert found.hits >= 0.9 * found.compared > 0, form
        assert "zero-shot" in found.sentence()
    for form, source in forms(world(60, 2), tmp_path).items():
        found = overlap(model, blocks_of(source))
        assert (found.known, found.zero_shot) == (False, True), form
        assert found.compared >= 30, form
        assert "beyond chance" in found.sentence()


def test_some_seen_cells_among_many_others_are_enough(model: LangCellModel) -> None:
    counts = np.vstack([world(300, 3).X.toarray(), world(60, 1).X.toarray()[:8]])
    mixed = AnnData(csr_matrix(counts), var=world(1, 3).var)
    found = overlap(model, blocks_of(mixed))
    assert found.hits >= 8
    assert found.by_cells
    assert found.p_value < 1e-6


def test_a_repeated_cell_is_one_piece_of_evidence(model: LangCellModel) -> None:
    one = counts_of(world(60, 1))[np.zeros(50, int)]
    found = overlap_of_counts(model, csr_matrix(one))
    assert (found.cells, found.compared, found.hits) == (50, 1, 1)
    assert not found.by_cells


def test_blocks_counts_and_annotate_say_the_same(model: LangCellModel) -> None:
    cells = world(60, 1)
    expected = overlap(model, blocks_of(cells))
    assert overlap_of_counts(model, counts_of(cells)) == expected
    result = annotate(cells, small_world.LABELS, model=model)
    assert result.provenance["seen"] == expected.to_dict()
    assert cells.uns["cellingua"]["seen"]["known"]


def test_the_file_itself_is_known_by_its_hash(tmp_path: Path, small_model_folder: Path) -> None:
    path = tmp_path / "renamed.h5ad"
    world(30, 7).write_h5ad(path)
    study = DataSet("study", sha256=sha256_file(path), size=path.stat().st_size, cells=0)
    empty = csr_matrix((0, GENES))
    found = overlap(knowing(tmp_path / "m", small_model_folder, record([study], empty)), blocks_of(path))
    assert (found.data_sets, found.how, found.hits, found.known) == (("study",), "hash", 0, True)
    unsized = DataSet("study", sha256=sha256_file(path))
    assert overlap(knowing(tmp_path / "n", small_model_folder, record([unsized], empty)), blocks_of(path)).how == "hash"
    other = DataSet("study", sha256=sha256_file(path), size=path.stat().st_size + 1)
    assert not overlap(knowing(tmp_path / "o", small_model_folder, record([other], empty)), blocks_of(path)).known


def test_an_accession_is_an_id_and_a_name_yields_to_the_cells(model: LangCellModel, tmp_path: Path) -> None:
    new = world(60, 9)
    new.write_h5ad(tmp_path / "GSE1234_filtered.h5ad")
    found = overlap(model, blocks_of(tmp_path / "GSE1234_filtered.h5ad"))
    assert (found.data_sets, found.how, found.hits) == (("study",), "id", 0)
    assert not found.zero_shot
    titled = new.copy()
    titled.uns["title"] = "All cells of GSE1234"
    titled.obs["donor_id"] = "donor 1"
    assert overlap(model, blocks_of(titled)).how == "id"
    assert overlap(model, blocks_of(titled)).donors == ("donor 1",)
    column = new.copy()
    column.obs["accession"] = "GSE1234"
    assert overlap(model, blocks_of(column)).how == "id"
    longer = new.copy()
    longer.uns["title"] = "GSE12345"
    assert not overlap(model, blocks_of(longer)).known
    new.write_h5ad(tmp_path / "study.h5ad")  # the same name, and sixty cells that speak against it
    assert not overlap(model, blocks_of(tmp_path / "study.h5ad")).known
    new[:5].write_h5ad(tmp_path / "Study.h5ad")
    assert overlap(model, blocks_of(tmp_path / "Study.h5ad")).how == "name"
    new[:5].write_h5ad(tmp_path / "atlas.h5ad")  # a data set of mean profiles has no cells
    assert not overlap(model, blocks_of(tmp_path / "atlas.h5ad")).known


def test_a_model_that_is_silent_says_so(small_model: LangCellModel) -> None:
    found = overlap(small_model, blocks_of(world(10, 1)))
    assert not found.recorded
    assert not found.known
    assert not found.zero_shot
    assert "not known what small_world saw" in found.sentence()
    assert annotate(world(10, 1), small_world.LABELS, model=small_model).provenance["seen"]["recorded"] is False


def test_cells_that_show_too_little_are_not_compared(model: LangCellModel) -> None:
    cells = small_world.cells(12, 0)
    found = overlap(model, blocks_of(cells[:, :100].copy()))
    assert found.compared == 0
    assert not found.known
    assert "too few counts" in found.sentence()


@pytest.mark.parametrize("output", [True, False])
def test_a_tuned_model_knows_what_it_was_tuned_on(model: LangCellModel, tmp_path: Path, output: bool) -> None:
    path = tmp_path / "mine.h5ad"
    world(80, 21).write_h5ad(path)
    target = tmp_path / "tuned" if output else None
    tuned = finetune(path, "own", target, model=model, method="classifier", test_share=0.25, donor_key="batch")
    known = overlap(tuned.model, blocks_of(path))
    assert known.known
    assert not known.zero_shot
    if output:
        assert (known.data_sets, known.how) == (("mine",), "hash")
        assert overlap(load_annotator(tmp_path / "tuned"), blocks_of(path)) == known
    assert overlap(tuned.model, blocks_of(world(60, 1))).by_cells  # what its base saw
    assert not overlap(tuned.model, blocks_of(world(60, 22))).known
    assert not overlap(model, blocks_of(path)).known  # the base was not tuned


def test_a_model_tuned_from_a_silent_one_is_never_zero_shot(small_model: LangCellModel) -> None:
    tuned = finetune(world(60, 31), "own", model=small_model, method="classifier")
    found = overlap(tuned.model, blocks_of(world(60, 32)))
    assert found.recorded
    assert not found.complete
    assert not found.known
    assert not found.zero_shot
    assert "base" in found.sentence()
    assert overlap(tuned.model, blocks_of(world(60, 31))).by_cells


@given(st.integers(0, 40), st.integers(1, 400), st.floats(1e-6, 0.05))
@settings(max_examples=60)
def test_the_tail_is_that_of_the_binomial_distribution(hits: int, n: int, rate: float) -> None:
    hits = min(hits, n)
    assert chance_of(hits, np.full(n, rate)) == pytest.approx(binom.sf(hits - 1, n, rate), rel=1e-6, abs=1e-300)


def test_what_is_told_is_json() -> None:
    told = Overlap("m", recorded=True, data_sets=("a",), how="name", cells=3).to_dict()
    assert told["known"] is True
    assert told["zero_shot"] is False
    assert told["data_sets"] == ["a"]
    assert "name of the file" in told["told"]
