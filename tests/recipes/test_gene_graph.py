"""Gene graphs: edge lists of several forms, the autoencoder on planted communities, tables and their gaps."""

from __future__ import annotations

import builtins
import gzip
from pathlib import Path

import numpy as np
import pytest
import torch

from cellingua.core.errors import ConfigError, FileError, InputError
from cellingua.recipes.gene_graph import (
    GeneVectors,
    Graph,
    GraphAutoencoder,
    GraphConfig,
    gene_rows,
    load_gene_vectors,
    neighbourhood_features,
    read_edges,
    run,
    save_gene_vectors,
    train_gene_graph,
)

SMALL = GraphConfig(width=16, heads=2, features=16, epochs=60, learning_rate=5e-3)


def communities(groups: int = 3, size: int = 20, seed: int = 0) -> Graph:
    """Random edges within groups of genes, and a few between them."""
    rng = np.random.default_rng(seed)
    group = np.repeat(np.arange(groups), size)
    chance = np.where(group[:, None] == group[None, :], 0.4, 0.01)
    upper = np.triu(rng.random(chance.shape) < chance, 1)
    one_way = np.stack(np.nonzero(upper)).astype(np.int64)
    return Graph([f"G{i}" for i in range(len(group))], np.concatenate([one_way, one_way[::-1]], axis=1))


@pytest.fixture
def geometric() -> None:
    pytest.importorskip("torch_geometric", reason="the extra 'graph' is not installed")


def test_two_columns_three_columns_and_named_columns_are_one_graph(tmp_path: Path) -> None:
    two = tmp_path / "two.tsv"
    two.write_text("B\tA\nA\tB\nB\tC\nC\tC\n\n", encoding="utf-8")
    graph = read_edges(two)
    assert graph.names == ["A", "B", "C"]
    assert sorted(map(tuple, graph.edges.T.tolist())) == [(0, 1), (1, 0), (1, 2), (2, 1)]
    three = tmp_path / "three.tsv.gz"
    with gzip.open(three, "wt", encoding="utf-8") as handle:
        handle.write("A\tB\t900\nB\tC\t800\nA\tC\t300\n")
    assert np.array_equal(read_edges(three, least=700).edges, graph.edges)
    assert read_edges(three).edges.shape == (2, 6)
    named = tmp_path / "named.tsv"
    named.write_text("score\tx\ty\n0.9\t0\t1\n0.9\t1\t2\n0.1\t0\t2\n", encoding="utf-8")
    again = read_edges(named, columns=("x", "y"), score="score", least=0.5, names=["A", "B", "C"])
    assert (again.names, again.edges.tolist()) == (graph.names, graph.edges.tolist())


@pytest.mark.parametrize(
    ("text", "options", "says"),
    [
        ("A\n", {}, "line 1 has 1 columns"),
        ("A\tB\tmany\n", {"least": 1.0}, "line 1 has no score"),
        ("A\tB\n", {"least": 1.0}, "line 1 has no score"),
        ("A\tA\n", {}, "no edge"),
        ("A\tB\t1\n", {"least": 5.0}, "no edge"),
        ("a\tb\nA\tB\n", {"columns": ("a", "c")}, "lacks the column 'c'"),
        ("0\t7\n", {"names": ["A", "B"]}, "names the gene '7'"),
        ("0\t-1\n", {"names": ["A", "B"]}, "names the gene '-1'"),
    ],
)
def test_what_is_no_edge_list_is_told(tmp_path: Path, text: str, options: dict, says: str) -> None:
    path = tmp_path / "edges.tsv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(FileError, match=says):
        read_edges(path, **options)


def test_a_missing_or_damaged_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="can't be read"):
        read_edges(tmp_path / "none.tsv")
    (tmp_path / "bad.tsv.gz").write_bytes(b"\x1f\x8bnothing")
    with pytest.raises(FileError, match="can't be read"):
        read_edges(tmp_path / "bad.tsv.gz")


def test_features_are_those_of_a_dense_product() -> None:
    graph = communities(2, 8)
    n = len(graph.names)
    adjacency = torch.eye(n)
    adjacency[graph.edges[1], graph.edges[0]] = 1.0
    projection = torch.randn(n, 12, generator=torch.Generator().manual_seed(3))
    dense = (adjacency / adjacency.sum(0).sqrt()) @ projection
    expected = dense / dense.norm(dim=1, keepdim=True)
    assert torch.allclose(neighbourhood_features(graph, 12, 3), expected, atol=1e-6)


@pytest.mark.usefixtures("geometric")
def test_genes_of_a_community_come_together() -> None:
    graph = communities()
    table = train_gene_graph(graph, SMALL)
    x = table.vectors - table.vectors.mean(0)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    same = np.repeat(np.arange(3), 20)[:, None] == np.repeat(np.arange(3), 20)[None, :]
    np.fill_diagonal(same, False)
    cosine = x @ x.T
    assert cosine[same].mean() > 0.5
    assert cosine[~same & ~np.eye(60, dtype=bool)].mean() < 0.1
    assert np.array_equal(train_gene_graph(graph, SMALL).vectors, table.vectors)


@pytest.mark.usefixtures("geometric")
def test_a_run_writes_what_it_trained(tmp_path: Path) -> None:
    short = GraphConfig(width=16, heads=2, features=16, epochs=3)
    held = load_gene_vectors(run(communities(), tmp_path / "table.safetensors", short))
    assert np.array_equal(held.vectors, train_gene_graph(communities(), short).vectors)
    assert held.names[:2] == ["G0", "G1"]


@pytest.mark.usefixtures("geometric")
def test_a_hidden_node_is_told_from_its_neighbours_alone() -> None:
    graph = communities()
    torch.manual_seed(0)
    model = GraphAutoencoder(SMALL)
    features = neighbourhood_features(graph, 16, 0).requires_grad_(True)
    hidden = torch.zeros(60, dtype=torch.bool)
    hidden[[4, 30]] = True
    seen = torch.where(hidden[:, None], model.hidden_node, features)
    model.encode(seen, torch.from_numpy(graph.edges)).sum().backward()
    assert features.grad is not None
    assert (features.grad[hidden] == 0).all()
    assert (features.grad[~hidden] != 0).any()


@pytest.mark.usefixtures("geometric")
def test_the_loss_is_the_scaled_cosine_error_and_falls() -> None:
    graph = communities()
    edges, features = torch.from_numpy(graph.edges), neighbourhood_features(graph, 16, 0)
    torch.manual_seed(0)
    model = GraphAutoencoder(SMALL)
    hidden = torch.arange(60) % 2 == 0
    optimiser = torch.optim.Adam(model.parameters(), lr=5e-3)
    losses = []
    for _ in range(60):
        optimiser.zero_grad()
        loss = model.loss(features, edges, hidden)
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.5 * losses[0]
    assert all(0 <= value <= 4 for value in losses)


def test_without_the_extra_the_error_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = builtins.__import__

    def none(name: str, *arguments: object, **options: object) -> object:
        if name.startswith("torch_geometric"):
            raise ImportError("No module named 'torch_geometric'")
        return plain(name, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(builtins, "__import__", none)
    with pytest.raises(InputError, match=r"cellingua\[graph\]"):
        train_gene_graph(communities(), SMALL)


def test_genes_without_an_edge_get_the_mean_and_a_little_noise() -> None:
    rng = np.random.default_rng(0)
    table = GeneVectors(["A", "B", "C"], rng.normal(3.0, 1.0, (3, 64)).astype(np.float32))
    rows = gene_rows(table, ["C", "X", "A", "Y"], seed=1)
    assert np.array_equal(rows[[0, 2]], table.vectors[[2, 0]])
    mean = table.vectors.mean(0)
    assert 0 < np.abs(rows[1] - mean).max() < 0.6
    assert not np.array_equal(rows[1], rows[3])
    assert np.array_equal(gene_rows(table, ["C", "X", "A", "Y"], seed=1), rows)
    scaled = gene_rows(table, ["C", "X", "A"], deviation=0.02)
    assert scaled.std(axis=1).mean() == pytest.approx(0.02, rel=1e-5)
    with pytest.raises(InputError, match="none of the model's genes"):
        gene_rows(table, ["X"])


def test_a_table_goes_to_disk_and_back_and_damage_is_told(tmp_path: Path) -> None:
    table = GeneVectors(["A\n", "B"], np.ones((2, 4), np.float32))
    path = tmp_path / "genes.safetensors"
    save_gene_vectors(path, table, SMALL)
    again = load_gene_vectors(path)
    assert again.names == table.names
    assert np.array_equal(again.vectors, table.vectors)
    save_gene_vectors(path, GeneVectors(["A"], table.vectors))
    with pytest.raises(FileError, match="no table"):
        load_gene_vectors(path)
    path.write_bytes(b"nothing")
    with pytest.raises(FileError, match="can't be read"):
        load_gene_vectors(path)


@pytest.mark.parametrize("bad", [{"width": 10, "heads": 4}, {"heads": 0}, {"layers": 0}, {"mask": 0.0}, {"mask": 1.0}])
def test_a_configuration_that_cannot_be_is_refused(bad: dict) -> None:
    with pytest.raises(ConfigError):
        GraphConfig(**bad)


@pytest.mark.usefixtures("geometric")
def test_the_protein_graph_at_hand_is_read_and_trained(shared: Path) -> None:
    """Partners that were never shown are nearer than strangers, after a few epochs on the rest of the graph."""
    folder = shared / "data" / "drug" / "tgsa"
    symbols = np.load(folder / "line_features.npz")["symbols"].tolist()
    options = {"columns": ("from_index", "to_index"), "score": "threshold", "names": symbols}
    graph = read_edges(folder / "ppi_edges.tsv.gz", least=0.95, **options)
    wide = read_edges(folder / "ppi_edges.tsv.gz", **options)
    assert 400 < len(graph.names) <= 706
    assert wide.edges.shape[1] > graph.edges.shape[1]
    forward = graph.edges[:, graph.edges[0] < graph.edges[1]]
    shown = np.random.default_rng(0).random(forward.shape[1]) < 0.9
    rest = Graph(graph.names, np.concatenate([forward[:, shown], forward[::-1, shown]], axis=1))
    x = train_gene_graph(rest, GraphConfig(width=32, heads=4, features=64, epochs=60, learning_rate=5e-3)).vectors
    x = x - x.mean(0)
    x /= np.linalg.norm(x, axis=1, keepdims=True) + 1e-9
    cosine = x @ x.T
    unlinked = np.ones_like(cosine, bool)
    unlinked[graph.edges[0], graph.edges[1]] = False
    np.fill_diagonal(unlinked, False)
    partners, strangers = cosine[forward[0, ~shown], forward[1, ~shown]], cosine[unlinked]
    nearer = np.searchsorted(np.sort(strangers), partners).mean() / len(strangers)  # AUROC
    assert nearer > 0.75
