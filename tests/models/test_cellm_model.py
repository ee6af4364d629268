"""CellLM as a model: counts in, embeddings out, saved and loaded; what a row depends on."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny_cellm as tiny
import tiny_model
import torch

from cellingua.cells.binned import BinConfig, bin_cells
from cellingua.core.errors import ConfigError, InputError, ModelError
from cellingua.core.files import sha256_file
from cellingua.models.bundle import save_bundle
from cellingua.models.cellm import CellLMConfig, CellLMModel, CellLMModule
from cellingua.models.cellm_bundle import load_cellm, numbered_genes, save_cellm
from cellingua.models.langcell import count_parameters
from cellingua.models.model import LangCellModel
from cellingua.models.shelf import list_models, load_any, load_model
from cellingua.nn.performer import PerformerConfig


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a tiny CellLM, float32."""
    save_cellm(tmp_path / "shelf" / "tiny_cellm", tiny.parts(), storage="float32")
    return tmp_path / "shelf" / "tiny_cellm"


def model(attention: str = "favor") -> CellLMModel:
    parts = tiny.parts(attention)
    return CellLMModel("tiny", "0" * 16, parts.module.config, parts.module, parts.genes)


def test_columns_go_to_the_models_genes_in_its_order() -> None:
    made, block = model(), tiny.block()
    dense = block.counts[:, tiny.vocabulary_rows()].toarray()
    np.testing.assert_array_equal(made.select(block.counts).toarray(), dense)
    found = made.bin(block)
    from_dense = bin_cells(type(block.counts)(dense), None, made.config.bins)
    for name in ("indptr", "tokens", "genes", "truncated"):
        np.testing.assert_array_equal(getattr(found, name), getattr(from_dense, name))
    assert found.truncated.any()
    assert found.lengths.max() == tiny.LENGTH - 1
    every = replace(made.config, bins=replace(made.config.bins, total="all"))
    other = CellLMModel("tiny", "", every, CellLMModule(every), made.genes).bin(block)
    assert not np.array_equal(other.tokens, found.tokens)


@pytest.mark.parametrize("attention", ["favor", "exact", "compat"])
@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_a_row_depends_on_its_cell_alone(attention: str, pooling: str) -> None:
    made = model("favor")
    if attention != "favor":
        other = tiny.module(attention)
        made = CellLMModel("tiny", "", other.config, other, made.genes)
    binned = made.bin(tiny.block(20))
    whole = made.encode_cells(binned, pooling=pooling)
    assert whole.dtype == np.float32
    assert whole.shape == (20, made.width)
    assert np.ptp(whole[1:], axis=0).max() > 0.05
    for size in (1, 3, 7):
        np.testing.assert_allclose(made.encode_cells(binned, size, pooling=pooling), whole, atol=1e-5)
    order = np.random.default_rng(0).permutation(20)
    np.testing.assert_allclose(made.encode_cells(binned.take(order), pooling=pooling), whole[order], atol=1e-5)
    alone = np.concatenate([made.encode_cells(made.bin(one), pooling=pooling) for one in singles(20)])
    np.testing.assert_allclose(alone, whole, atol=1e-5)


def singles(cells: int) -> list:
    block = tiny.block(cells)
    return [
        replace(block, start=i, stop=i + 1, counts=block.counts[i], totals=block.totals[i : i + 1])
        for i in range(cells)
    ]


@torch.no_grad()
def test_compat_gives_what_the_encoder_gives_a_cell_alone() -> None:
    other = tiny.module("compat")
    made = CellLMModel("tiny", "", other.config, other, tiny.parts().genes)
    binned = made.bin(tiny.block())
    performer = other.performer
    alone = [performer(performer.batch(binned.take(np.array([i])))).cls.numpy() for i in range(len(binned))]
    np.testing.assert_allclose(made.encode_cells(binned), np.concatenate(alone), atol=1e-5)


def test_groups_stay_within_the_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    made = model("favor")
    monkeypatch.setattr("cellingua.models.cellm.TOKEN_BUDGET", 100)
    lengths = made.bin(tiny.block(20)).lengths
    groups = list(made.groups(lengths, 8))
    assert sorted(np.concatenate(groups).tolist()) == list(range(20))
    for rows in groups:
        assert len(rows) <= 8
        assert len(rows) == 1 or len(rows) * (lengths[rows].max() + 2) <= 100
    assert max(len(rows) for rows in groups) > 2
    exact = tiny.module("exact")
    monkeypatch.setattr("cellingua.models.cellm.PAIR_BUDGET", 42 * 42)
    squares = CellLMModel("tiny", "", exact.config, exact, made.genes)
    assert max(len(rows) * (lengths[rows].max() + 2) ** 2 for rows in squares.groups(lengths, 8)) <= 42 * 42


def test_saved_and_loaded(folder: Path) -> None:
    parts, loaded = tiny.parts(), load_cellm(folder)
    assert (loaded.name, loaded.config, loaded.folder) == ("tiny_cellm", parts.module.config, folder)
    assert loaded.hash == sha256_file(folder / "manifest.json")[:16]
    np.testing.assert_array_equal(loaded.genes.ensembl_ids, parts.genes.ensembl_ids)
    state = loaded.module.state_dict()
    for name, tensor in parts.module.state_dict().items():
        torch.testing.assert_close(state[name], tensor, atol=0, rtol=0)
    assert not loaded.module.training
    binned = loaded.bin(tiny.block())
    fresh = CellLMModel("", "", parts.module.config, parts.module, parts.genes)
    np.testing.assert_array_equal(loaded.encode_cells(binned), fresh.encode_cells(fresh.bin(tiny.block())))


def test_in_16_bits_it_is_nearly_the_same(folder: Path, tmp_path: Path) -> None:
    save_cellm(tmp_path / "half", tiny.parts())
    half, full = load_cellm(tmp_path / "half"), load_cellm(folder)
    assert (tmp_path / "half" / "weights.safetensors").stat().st_size < 0.7 * (
        folder / "weights.safetensors"
    ).stat().st_size
    binned = full.bin(tiny.block())
    a, b = half.encode_cells(binned), full.encode_cells(binned)
    assert 0 < np.abs(a - b).max() < 0.01


def test_on_a_shelf_beside_langcell(folder: Path) -> None:
    shelf = folder.parent

    save_bundle(shelf / "tiny", tiny_model.parts(), storage="float32")
    assert [info.name for info in list_models(shelf)] == ["tiny", "tiny_cellm"]
    assert isinstance(load_any("tiny_cellm", shelf=shelf), CellLMModel)
    assert isinstance(load_any("tiny", shelf=shelf), LangCellModel)
    assert isinstance(load_any(folder), CellLMModel)
    with pytest.raises(ModelError, match="knows no words"):
        load_model("tiny_cellm", shelf=shelf)
    with pytest.raises(ModelError, match="kind 'langcell'"):
        load_cellm(shelf / "tiny")


def damage(folder: Path, change: dict) -> None:
    """Change the configuration and bring the manifest into line."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config["model"]["performer"].update(change)
    text = json.dumps(config)
    (folder / "config.json").write_text(text, encoding="utf-8")
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    manifest["files"]["config.json"].update(sha256=sha256_file(folder / "config.json"), size=len(text.encode()))
    (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"widht": 3}, "no key 'widht'"),
        ({"width": 17}, "shape"),
        ({"layers": 3}, "lacks the weight"),
        ({"layers": 1}, "unknown weight"),
        ({"attention": "linear"}, "attention is 'linear'"),
        ({"tokens": 9}, "highest bin"),
        ({"genes": 60}, "shape"),
    ],
)
def test_a_configuration_that_does_not_fit(folder: Path, change: dict, message: str) -> None:
    damage(folder, change)
    with pytest.raises(ModelError, match=message):
        load_any(folder)


@pytest.mark.parametrize("name", ["weights.safetensors", "genes.tsv.gz", "config.json"])
def test_a_damaged_or_missing_file_is_named(folder: Path, name: str) -> None:
    whole = (folder / name).read_bytes()
    (folder / name).write_bytes(whole[:-1] + b"!")
    with pytest.raises(ModelError, match=name):
        load_cellm(folder)
    (folder / name).unlink()
    with pytest.raises(ModelError, match=name):
        load_cellm(folder)


def test_genes_beyond_the_encoder_are_refused() -> None:
    parts = tiny.parts()
    genes = numbered_genes(parts.genes.ensembl_ids, parts.genes.symbols, np.arange(1, tiny.GENES + 1))
    with pytest.raises(ModelError, match="gene number 80"):
        CellLMModel("tiny", "", parts.module.config, parts.module, genes)


def test_sizes_and_heads() -> None:
    with torch.device("meta"):
        paper = CellLMModule.paper()
    assert count_parameters(paper.performer) == 51_926_536
    assert CellLMConfig.paper(attention="compat").performer.padded_length == 6000
    made = tiny.module()
    assert made.discrimination(torch.zeros(3, 16)).shape == (3,)
    assert made.logits(torch.zeros(3, 2, 16)).shape == (3, 2, 8)
    with pytest.raises(ValueError, match="no head"):
        tiny.module(discrimination=False).discrimination(torch.zeros(3, 16))
    mini = CellLMModule(CellLMConfig.mini(500))
    assert mini.config.performer.dropout > 0
    states = mini(mini.performer.batch(model().bin(tiny.block())))
    assert states.cls.shape == (9, 128)


def test_settings_that_do_not_fit_each_other() -> None:
    with pytest.raises(ConfigError, match="8 tokens"):
        CellLMConfig(PerformerConfig(10), BinConfig(bins=6))
    with pytest.raises(ConfigError, match="padded to 50"):
        CellLMConfig(PerformerConfig(10, attention="compat", padded_length=50))
    with pytest.raises(InputError, match="pooling"):
        model().encode_cells(model().bin(tiny.block()), pooling="max")
