"""What a model saw: written with it, read back the same, refused where it was touched, carried on by tuned models."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny_model as tiny
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_matrix

from cellingua.cells.fingerprint import fingerprints, load_lists
from cellingua.cells.genes import load_vocabulary
from cellingua.core.errors import ModelError
from cellingua.models.bundle import load_bundle, save_bundle
from cellingua.models.manifest import write_manifest
from cellingua.models.seen import (
    BITS,
    FILTER,
    SEEN,
    DataSet,
    Seen,
    drawn_cells,
    read_seen,
    record,
    seen_by,
    told_in_short,
    tuned_on,
)

GENES = len(load_vocabulary())
LISTED = np.flatnonzero(load_lists().list_of >= 0)
NORTH = DataSet("north", sha256="ab" * 32, size=7, cells=30, donors=("n1", "n2"), other_ids=("GSE1234",))


def cells(n: int, seed: int) -> csr_matrix:
    """Return n cells that express every gene of the lists now and then."""
    counts = np.zeros((n, GENES), np.float32)
    counts[:, LISTED] = np.random.default_rng(seed).poisson(0.7, (n, len(LISTED)))
    return csr_matrix(counts)


def bundle(folder: Path, seen: Seen | None) -> Path:
    """Save a tiny model that saw this."""
    save_bundle(folder, replace(tiny.parts(), seen=seen), storage="float32")
    return folder


@pytest.fixture
def north(tmp_path: Path) -> Path:
    """The folder of a model that saw thirty cells."""
    return bundle(tmp_path / "north", record([NORTH], cells(30, 1)))


@given(st.integers(0, 40), st.integers(0, 99))
@settings(max_examples=15)
def test_what_went_in_is_told_and_little_else(n: int, seed: int) -> None:
    counts = cells(n, seed)
    seen = record([NORTH], counts)
    assert seen.hits(fingerprints(counts)).all()
    strange = fingerprints(cells(50, seed + 1000))
    assert seen.hits(strange).sum() <= 1
    assert seen.chances(strange).max() <= 1e-3
    none = fingerprints(csr_matrix((3, GENES)))
    assert not seen.hits(none).any()
    assert not seen.chances(none).any()


def test_a_folder_gives_back_what_was_saved(north: Path) -> None:
    seen = read_seen(north)
    assert seen is not None
    assert seen.data_sets == (NORTH,)
    assert seen.complete
    assert seen.cells == 30
    assert seen.hits(fingerprints(cells(30, 1))).all()
    held = json.loads((north / SEEN).read_text())
    assert held["gene_lists"] == load_lists().hash
    assert held["filter"] == [{"prints": seen.parts[0].prints, "bits": BITS, "cells": 30, "printed": 30}]
    model = load_bundle(north)
    known = seen_by(model)
    assert known is not None
    assert known is seen_by(model)
    assert (known.data_sets, known.parts) == (seen.data_sets, seen.parts)
    assert "30 cells of 1 data sets" in told_in_short(seen)


def test_blocks_and_order_give_the_same_bytes(tmp_path: Path) -> None:
    counts = cells(25, 3)
    order = np.random.default_rng(0).permutation(25)
    for name, given_ in {
        "whole": counts,
        "blocks": [csr_matrix(counts[:9]), csr_matrix(counts[9:])],
        "order": csr_matrix(counts[order]),
    }.items():
        (tmp_path / name).mkdir()
        record([NORTH], given_).save(tmp_path / name)
    first = (tmp_path / "whole" / FILTER).read_bytes()
    assert first == (tmp_path / "blocks" / FILTER).read_bytes() == (tmp_path / "order" / FILTER).read_bytes()


def test_a_model_without_it_is_not_known(tmp_path: Path) -> None:
    folder = bundle(tmp_path / "silent", None)
    assert read_seen(folder) is None
    assert seen_by(load_bundle(folder)) is None
    assert seen_by(replace(load_bundle(folder), folder=None)) is None
    assert "not known" in told_in_short(None)


def test_it_is_read_when_it_is_asked_for_and_checked_then(north: Path) -> None:
    model = load_bundle(north)
    with open(north / FILTER, "r+b") as handle:
        handle.write(b"\xff")
    with pytest.raises(ModelError, match=r"seen\.filter has the SHA-256"):
        seen_by(model)


@pytest.mark.parametrize("name", [SEEN, FILTER])
def test_a_file_that_is_gone_cut_or_changed_is_named(north: Path, name: str) -> None:
    content = (north / name).read_bytes()
    (north / name).write_bytes(content[:-1])
    with pytest.raises(ModelError, match=name):
        load_bundle(north)
    (north / name).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(ModelError, match="SHA-256"):
        read_seen(north)
    (north / name).unlink()
    with pytest.raises(ModelError, match="missing"):
        read_seen(north)


def test_one_file_without_the_other_is_refused(north: Path) -> None:
    (north / FILTER).unlink()
    write_manifest(north)
    with pytest.raises(ModelError, match=FILTER):
        read_seen(north)


FAULTS: dict[str, tuple[Callable[[dict], object], str]] = {
    "another version": (lambda held: held.update(format_version=2), "version"),
    "an unknown key": (lambda held: held.update(extra=1), "extra"),
    "no data sets": (lambda held: held.pop("data_sets"), "data_sets"),
    "more prints than bytes": (lambda held: held["filter"][0].update(prints=held["filter"][0]["prints"] + 8), "bytes"),
    "fewer prints than bytes": (lambda held: held["filter"][0].update(prints=3), "read"),
    "other bits": (lambda held: held["filter"][0].update(bits=BITS - 1), "read"),
    "no bits": (lambda held: held["filter"][0].update(bits=0), "bits"),
    "too many bits": (lambda held: held["filter"][0].update(bits=64), "bits"),
    "below zero": (lambda held: held["filter"][0].update(prints=-1), "fingerprints"),
    "no number": (lambda held: held["filter"][0].update(prints="many"), "read"),
    "no parts": (lambda held: held.update(filter=[]), "bytes"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_tampered_parameters_are_refused_though_the_manifest_is_right(north: Path, fault: str) -> None:
    change, said = FAULTS[fault]
    held = json.loads((north / SEEN).read_text())
    change(held)
    (north / SEEN).write_text(json.dumps(held))
    write_manifest(north)
    with pytest.raises(ModelError, match=said):
        read_seen(north)


def test_a_tuned_model_carries_its_base_and_adds_its_own(north: Path) -> None:
    base = read_seen(north)
    south = DataSet("south", cells=20)
    tuned = tuned_on(base, south, cells(20, 2))
    assert [one.id for one in tuned.data_sets] == ["north", "south"]
    assert tuned.complete
    assert tuned.cells == 50
    assert [part.bits for part in tuned.parts] == [BITS, BITS + 1]
    assert tuned.hits(fingerprints(cells(30, 1))).all()
    assert tuned.hits(fingerprints(cells(20, 2))).all()
    again = read_seen(bundle(north.with_name("tuned"), tuned))
    assert again is not None
    assert again.parts == tuned.parts
    assert again.hits(fingerprints(cells(30, 1))).all()
    assert again.hits(fingerprints(cells(20, 2))).all()
    silent = tuned_on(None, south, cells(20, 2))
    assert not silent.complete
    assert "base" in told_in_short(silent)


def test_prints_over_other_lists_are_not_compared_nor_mixed(north: Path) -> None:
    base = read_seen(north)
    assert base is not None
    old = replace(base, gene_lists="0" * 64)
    assert not old.comparable
    tuned = tuned_on(old, DataSet("south", cells=20), cells(20, 2))
    assert tuned.comparable
    assert len(tuned.parts) == 1
    assert not tuned.complete
    assert not tuned.hits(fingerprints(cells(30, 1))).any()


def test_of_very_many_cells_some_are_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    assert drawn_cells(5).tolist() == [0, 1, 2, 3, 4]
    monkeypatch.setattr("cellingua.models.seen.MOST_CELLS", 10)
    rows = drawn_cells(100)
    assert len(np.unique(rows)) == 10
    assert (np.diff(rows) > 0).all()
    assert np.array_equal(rows, drawn_cells(100))
    seen = record([DataSet("many", cells=100)], cells(10, 0))
    assert seen.cells == 100
    assert seen.parts[0].printed == 10
