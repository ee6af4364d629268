"""Geneformer of both versions: converting, pooling, invariances, and what is refused."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from released import random_tower, some_genes, write_bert, write_dictionaries
from scipy.sparse import csr_matrix

from cellingua.cells.genes import collapse, load_vocabulary
from cellingua.core.errors import ConfigError, GeneError, InputError, ModelError
from cellingua.models.convert_geneformer import V1_ROWS, convert_geneformer
from cellingua.models.gene_dictionaries import shipped_genes
from cellingua.models.geneformer import CLS, EOS, GeneformerModel, load_geneformer
from cellingua.models.shelf import load_any, load_model
from cellingua.nn.transformer import CellTower, CellTowerConfig

GENES = 60


@dataclass
class Block:
    """Counts over the vocabulary."""

    counts: csr_matrix
    totals: np.ndarray


def tower_of(version: str) -> CellTower:
    rows, positions = (V1_ROWS, 24) if version == "V1" else (GENES + 4, 40)
    return random_tower(CellTowerConfig(rows, 0, 3, 8, 2, 12, positions))


def convert(folder: Path, version: str, **options: object) -> GeneformerModel:
    tower = tower_of(version)
    write_bert(folder / "in", tower)
    given = write_dictionaries(folder / "genes", some_genes(GENES)) if version == "V2" else None
    convert_geneformer(folder / "in", folder / "out", dictionaries=given, **options)  # type: ignore[arg-type]
    return load_geneformer(folder / "out", precision="float32")


def block(model: GeneformerModel, sizes: tuple[int, ...] = (5, 0, 17, 1, 30, 60)) -> Block:
    """Return cells of these many of the model's genes."""
    rng = np.random.default_rng(2)
    tokens, _ = model.genes.columns(load_vocabulary().ensembl_ids)
    known = np.flatnonzero(tokens >= 0)
    counts = np.zeros((len(sizes), len(tokens)), np.float32)
    for row, size in enumerate(sizes):
        counts[row, rng.choice(known, size, replace=False)] = rng.integers(1, 50, size)
    return Block(csr_matrix(counts), counts.sum(axis=1, dtype=np.float64) + 7)


@torch.no_grad()
def plainly(model: GeneformerModel, cell: np.ndarray) -> np.ndarray:
    """Return the embedding of one cell by the layers of the tower, one after the other."""
    tower, config = model.tower, model.config
    genes = cell.tolist()
    line = torch.tensor([[CLS, *genes, EOS] if config.framed else genes])
    states = tower.norm(tower.token(line) + tower.position.weight[: line.shape[1]] + tower.segment.weight[0])
    for layer in list(tower.layers)[: len(tower.layers) - (not config.last_layer)]:
        states = layer(states, None)
    if config.pooling == "cls":
        return states[0, 0].numpy()
    return (states[0, 1:-1] if config.framed else states[0]).mean(dim=0).numpy()


@pytest.mark.parametrize(
    ("version", "options"),
    [
        ("V1", {}),
        ("V1", {"last_layer": True}),
        ("V2", {}),
        ("V2", {"pooling": "mean"}),
        ("V2", {"last_layer": True}),
    ],
)
def test_embeddings_equal_a_plain_pass(tmp_path: Path, version: str, options: dict[str, object]) -> None:
    model = convert(tmp_path, version, **options)
    assert model.config.pooling == options.get("pooling", {"V1": "mean", "V2": "cls"}[version])
    assert model.config.token_limit == {"V1": 24, "V2": 38}[version]
    ranked = model.tokenise(block(model))
    assert np.diff(ranked.indptr).tolist() == [min(size, model.config.token_limit) for size in (5, 0, 17, 1, 30, 60)]
    found = model.encode_cells(ranked)
    for row in range(len(ranked)):
        cell = ranked.cell(row)
        expected = plainly(model, cell) if len(cell) else np.zeros(8)
        np.testing.assert_allclose(found[row], expected, atol=2e-6)


@pytest.mark.parametrize("version", ["V1", "V2"])
def test_a_cell_does_not_depend_on_its_company(tmp_path: Path, version: str) -> None:
    model = convert(tmp_path, version)
    ranked = model.tokenise(block(model))
    whole = model.encode_cells(ranked)
    order = np.random.default_rng(0).permutation(len(ranked))
    np.testing.assert_array_equal(model.encode_cells(ranked.take(order), batch_size=2), whole[order])
    for row in range(len(ranked)):
        np.testing.assert_array_equal(model.encode_cells(ranked.take(np.array([row])))[0], whole[row])


def test_groups_on_an_accelerator_say_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = convert(tmp_path, "V2")
    ranked = model.tokenise(block(model))
    alone = model.encode_cells(ranked)
    lengths = np.diff(ranked.indptr)
    rows = [row for row in np.argsort(-lengths) if lengths[row]]
    monkeypatch.setattr(GeneformerModel, "_groups", lambda *_: iter([rows[:3], rows[3:]]))
    np.testing.assert_allclose(model.encode_cells(ranked), alone, atol=2e-6)


@pytest.mark.parametrize("prefix", ["", "bert."])
@pytest.mark.parametrize("safe", [True, False])
def test_prefix_head_and_kind_of_file_change_nothing(tmp_path: Path, prefix: str, safe: bool) -> None:
    tower = tower_of("V2")
    heads = {
        "cls.predictions.bias": torch.zeros(3),
        "cls.predictions.transform.dense.weight": torch.zeros(8, 8),
        f"{prefix}pooler.dense.weight": torch.zeros(8, 8),
        f"{prefix}embeddings.position_ids": torch.arange(40)[None],
        "classifier.weight": torch.zeros(3, 8),
    }
    write_bert(tmp_path / "in", tower, prefix=prefix, more=heads, safe=safe)
    genes = write_dictionaries(tmp_path / "genes", some_genes(GENES), suffix="_gc104M")
    done = convert_geneformer(tmp_path / "in", tmp_path / "out", dictionaries=genes)
    assert "classifier in the checkpoint was left out" in done.to_text()
    for name, tensor in load_geneformer(tmp_path / "out").tower.state_dict().items():
        torch.testing.assert_close(tensor, tower.state_dict()[name], atol=0, rtol=0)


def test_a_table_does_what_dictionaries_do(tmp_path: Path) -> None:
    model = convert(tmp_path, "V2")
    table = some_genes(GENES)
    lines = ["ensembl_id\tsymbol\ttoken\tmedian"]
    lines += [
        f"{gene}\t{symbol}\t{token}\t{float(median)!r}"
        for gene, symbol, token, median in zip(
            table.ensembl_ids, table.symbols, table.tokens, table.medians, strict=True
        )
    ]
    (tmp_path / "genes.tsv").write_text("\n".join(lines), encoding="utf-8")
    convert_geneformer(tmp_path / "in", tmp_path / "other", dictionaries=tmp_path / "genes.tsv")
    other = load_geneformer(tmp_path / "other", precision="float32")
    cells = model.tokenise(block(model))
    np.testing.assert_array_equal(other.encode_cells(cells), model.encode_cells(cells))


def test_columns_of_one_gene_are_summed_before_ranking(tmp_path: Path) -> None:
    """Geneformer V2 sums the counts of columns that map to one id."""
    model = convert(tmp_path, "V2")
    gene, other = model.genes.ensembl_ids[:2]
    vocabulary = load_vocabulary()
    names = [str(gene), str(other), f"{gene}.7"]
    match = vocabulary.resolve(names)
    counts = collapse(csr_matrix(np.array([[30, 50, 30]], np.float32)), match)
    medians = dict(zip(model.genes.ensembl_ids, model.genes.medians, strict=True))
    ranked = model.tokenise(Block(counts, np.array([110.0])))
    values = {int(model.genes.tokens[0]): 60 / medians[gene], int(model.genes.tokens[1]): 50 / medians[other]}
    assert ranked.tokens.tolist() == sorted(values, key=lambda token: -values[token])


def test_bfloat16_is_near(tmp_path: Path) -> None:
    model = convert(tmp_path, "V2")
    ranked = model.tokenise(block(model))
    exact = model.encode_cells(ranked)
    low = load_geneformer(tmp_path / "out", precision="bfloat16").encode_cells(ranked)
    assert np.abs(low - exact).max() < 0.1 * np.abs(exact).max()
    assert np.abs(low - exact).max() > 0


def test_it_knows_no_words(tmp_path: Path) -> None:
    convert(tmp_path, "V2")
    assert isinstance(load_any(tmp_path / "out"), GeneformerModel)
    with pytest.raises(ModelError, match="is a Geneformer, which embeds cells and knows no words"):
        load_model(tmp_path / "out")


def assert_refused(folder: Path, message: str, kind: type[InputError] = GeneError, **options: object) -> None:
    with pytest.raises(kind, match=message):
        convert_geneformer(folder / "in", folder / "out", **options)  # type: ignore[arg-type]
    assert not (folder / "out").exists()


def test_v2_without_dictionaries_and_with_wrong_ones(tmp_path: Path) -> None:
    write_bert(tmp_path / "in", tower_of("V2"))
    assert_refused(tmp_path, "has 64 tokens, not Geneformer V1's number, and no dictionaries were given")
    wrong = write_dictionaries(tmp_path / "short", some_genes(GENES - 1))
    assert_refused(tmp_path, "has 63 tokens, and .* 64 rows", dictionaries=wrong)
    without = write_dictionaries(tmp_path / "v1", some_genes(GENES + 2, first_token=2))
    convert_geneformer(tmp_path / "in", tmp_path / "as_v1", dictionaries=without)
    assert not load_geneformer(tmp_path / "as_v1").config.framed
    assert_refused(tmp_path, r"has no <cls>", ConfigError, dictionaries=without, pooling="cls")


def test_other_encoders_are_told_apart(tmp_path: Path) -> None:
    config = tower_of("V2").config
    write_bert(tmp_path / "in", random_tower(replace(config, vocabulary=25_427)))
    assert_refused(tmp_path, "25,427 tokens, as LangCell's cell encoder has")
    write_bert(tmp_path / "in", random_tower(replace(config, vocabulary=20_275)))
    assert_refused(tmp_path, "Geneformer V2's number")
    name = "encoder.layer.0.crossattention.self.key.weight"
    write_bert(tmp_path / "in", tower_of("V2"), more={name: torch.zeros(8, 8)})
    assert_refused(tmp_path, "LangCell's text encoder", ModelError)


@pytest.mark.parametrize("key", ["vocab_size", "num_hidden_layers", "hidden_size", "max_position_embeddings"])
@pytest.mark.parametrize("value", [10**12, -1, 0, "8", None, True, 1.5])
def test_sizes_are_compared_before_anything_is_built(tmp_path: Path, key: str, value: object) -> None:
    genes = write_dictionaries(tmp_path / "genes", some_genes(GENES))
    path = write_bert(tmp_path / "in", tower_of("V2")) / "config.json"
    held = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**held, key: value}), encoding="utf-8")
    assert_refused(tmp_path, f"{key}|Expected: 1,000,000,000,000, as in config.json", ModelError, dictionaries=genes)


def test_a_smaller_file_is_near(tmp_path: Path) -> None:
    model = convert(tmp_path, "V2")
    ranked = model.tokenise(block(model))
    convert_geneformer(tmp_path / "in", tmp_path / "small", dictionaries=tmp_path / "genes", storage="float16")
    small = load_geneformer(tmp_path / "small", precision="float32").encode_cells(ranked)
    exact = model.encode_cells(ranked)
    assert 0 < np.abs(small - exact).max() < 0.01 * np.abs(exact).max()


def test_a_weight_that_float16_can_not_hold(tmp_path: Path) -> None:
    tower = tower_of("V2")
    tower.norm.weight[0] = 1e30
    write_bert(tmp_path / "in", tower)
    genes = write_dictionaries(tmp_path / "genes", some_genes(GENES))
    assert_refused(tmp_path, "is not finite in float16", ModelError, dictionaries=genes, storage="float16")


def test_v1_uses_the_shipped_genes(tmp_path: Path) -> None:
    model = convert(tmp_path, "V1")
    table = shipped_genes().table
    np.testing.assert_array_equal(model.genes.tokens, table.tokens)
    np.testing.assert_array_equal(model.genes.medians, table.medians)
    assert model.genes.ensembl_ids[0] == "ENSG00000000003"
