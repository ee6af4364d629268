"""The released LangCell, from token ids to match logits, against arrays of the authors' own code."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from cellingua.cells.ranked import RankedCells
from cellingua.models.bundle import BundleParts, load_bundle, save_bundle
from cellingua.models.convert_langcell import load_released
from cellingua.models.gene_table import read_gene_table
from cellingua.models.langcell import LangCellModule
from cellingua.nn.batch import CellBatch
from cellingua.words.wordpiece import LANGCELL_PIECES, WordPiece, read_wordpiece


@pytest.fixture(scope="module")
def folder(shared: Path) -> Path:
    return shared / "data" / "parity" / "langcell_tiny"


@pytest.fixture(scope="module")
def released(folder: Path) -> LangCellModule:
    return load_released(folder / "ckpt")


@pytest.fixture(scope="module")
def pieces(folder: Path) -> WordPiece:
    found = read_wordpiece(folder / "text_tokenizer")
    found.add_special(LANGCELL_PIECES)
    return found


@pytest.fixture(scope="module")
def batch(folder: Path) -> CellBatch:
    held = np.load(folder / "expected" / "tokens.npz")
    return CellBatch.from_arrays(held["ranked_indptr"], held["ranked"])


@pytest.fixture(scope="module")
def texts(folder: Path) -> list[str]:
    held = json.loads((folder / "input" / "texts.json").read_text(encoding="utf-8"))
    return list(held["texts"])


def read(folder: Path, name: str) -> dict[str, np.ndarray]:
    with np.load(folder / "expected" / f"{name}.npz") as held:
        return dict(held)


def ragged(flat: np.ndarray, indptr: np.ndarray) -> list[np.ndarray]:
    return [flat[a:b] for a, b in itertools.pairwise(indptr)]


def test_model_input(folder: Path, released: LangCellModule, batch: CellBatch) -> None:
    held = read(folder, "tokens")
    tower = released.config.bert
    assert tower is not None
    tokens, mask = batch.padded(tower.positions, first=tower.cls_token)
    expected = ragged(held["model_input"], held["model_input_indptr"])
    for row, seen, wanted in zip(tokens.numpy(), mask.numpy(), expected, strict=True):
        np.testing.assert_array_equal(row[seen], wanted)
        assert not row[~seen].any()


@torch.no_grad()
def test_cells(folder: Path, released: LangCellModule, batch: CellBatch) -> None:
    held = read(folder, "cells")
    embedding, states = released.cells(batch)
    assert states.hidden is not None
    assert states.mask is not None
    np.testing.assert_allclose(states.pooled.numpy(), held["cls_hidden"], atol=2e-5, rtol=0)
    projected = released.cell_projection(states.pooled)
    np.testing.assert_allclose(projected.numpy(), held["projected"], atol=2e-5, rtol=0)
    np.testing.assert_allclose(embedding.numpy(), held["embedding"], atol=2e-6, rtol=0)
    index = json.loads((folder / "expected" / "index.json").read_text(encoding="utf-8"))
    short = index["short_cells_for_last_hidden"]
    rows = [states.hidden[i][states.mask[i]].numpy() for i in map(index["cells"].index, short)]
    np.testing.assert_allclose(np.concatenate(rows), held["last_hidden"].reshape(-1, 16), atol=5e-5, rtol=0)


def test_text_ids(folder: Path, pieces: WordPiece, texts: list[str]) -> None:
    held = read(folder, "texts")
    ids, mask = pieces.encode(texts, max_length=512)
    for row, seen, wanted in zip(ids, mask, ragged(held["input_ids"], held["input_ids_indptr"]), strict=True):
        np.testing.assert_array_equal(row[seen], wanted)


@torch.no_grad()
def test_texts(folder: Path, released: LangCellModule, pieces: WordPiece, texts: list[str]) -> None:
    held = read(folder, "texts")
    ids, mask = (torch.from_numpy(x) for x in pieces.encode(texts))
    states = released.text_tower(ids, mask)
    np.testing.assert_allclose(states.pooled.numpy(), held["cls_hidden"], atol=1e-5, rtol=0)
    np.testing.assert_allclose(released.texts(ids, mask).numpy(), held["embedding"], atol=2e-6, rtol=0)
    rows = [states.hidden[i][mask[i]].numpy() for i in held["last_hidden_text"].tolist()]
    np.testing.assert_allclose(np.concatenate(rows), held["last_hidden"].reshape(-1, 32), atol=2e-5, rtol=0)


@torch.no_grad()
def test_scores(folder: Path, released: LangCellModule, pieces: WordPiece, batch: CellBatch, texts: list[str]) -> None:
    held = read(folder, "zeroshot")
    ids, mask = (torch.from_numpy(x) for x in pieces.encode(texts))
    embedding, states = released.cells(batch)
    scores = released.similarity(embedding, released.texts(ids, mask))
    np.testing.assert_allclose(scores.numpy(), held["sim_over_temperature"], atol=2e-5, rtol=0)
    logits = released.match_logits(states, ids, mask)
    np.testing.assert_allclose(logits.numpy(), held["match_logits"], atol=3e-4, rtol=0)
    probability = logits.softmax(dim=-1)[:, :, 1]
    combined = 0.1 * scores.softmax(dim=-1) + 0.9 * probability.softmax(dim=-1)
    np.testing.assert_allclose(combined.numpy(), held["combined_alpha01"], atol=5e-6, rtol=0)
    np.testing.assert_array_equal(combined.argmax(dim=-1).numpy(), held["pred_alpha01"])


def test_released_model_as_a_bundle(
    shared: Path,
    tmp_path: Path,
    folder: Path,
    released: LangCellModule,
    pieces: WordPiece,
    batch: CellBatch,
    texts: list[str],
) -> None:
    genes = read_gene_table(shared / "data" / "official" / "langcell_genes.tsv.gz")
    assert len(genes) == 25_424
    no_terms = np.empty((0, 256), dtype=np.float32)
    parts = BundleParts("langcell_tiny", "parity", released, genes, pieces, [], no_terms)
    save_bundle(tmp_path / "m", parts, storage="float32")
    model = load_bundle(tmp_path / "m", precision="float32")
    ranked = RankedCells(
        batch.offsets.numpy(), batch.tokens.numpy().astype(np.int32), np.ones(len(batch.tokens), np.float32)
    )
    held = read(folder, "cells")
    np.testing.assert_allclose(model.encode_cells(ranked), held["embedding"], atol=2e-6, rtol=0)
    np.testing.assert_allclose(model.encode_cells(ranked, state="cls"), held["cls_hidden"], atol=2e-5, rtol=0)
    np.testing.assert_allclose(model.encode_texts(texts), read(folder, "texts")["embedding"], atol=2e-6, rtol=0)
