"""DeepCDR's convolution against torch-geometric, TGDRP's vector against the release, and tables against pairs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from cellingua.baselines.deepcdr import DeepCDRStyle, GraphConvolution
from cellingua.baselines.tgdrp import TGDRP, builder
from cellingua.nn.fusion import FusionConfig, GraphTensors


def two_molecules() -> GraphTensors:
    """Return a chain of three atoms and a single one."""
    edges = torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]])
    return GraphTensors(
        torch.randn(4, 5, generator=torch.Generator().manual_seed(0)), edges, torch.tensor([0, 0, 0, 1]), 2
    )


def one(graphs: GraphTensors, number: int) -> GraphTensors:
    kept = graphs.molecule == number
    edges = graphs.edges[:, kept[graphs.edges[0]]] - int(kept.nonzero()[0])
    return GraphTensors(graphs.atoms[kept], edges, torch.zeros(int(kept.sum()), dtype=torch.int64), 1)


def test_the_convolution_is_torch_geometrics() -> None:
    geometric = pytest.importorskip("torch_geometric.nn")
    graphs = two_molecules()
    ours, theirs = GraphConvolution(5, 3), geometric.GCNConv(5, 3)
    theirs.load_state_dict({"lin.weight": ours.lin.weight, "bias": ours.bias})
    torch.testing.assert_close(ours(graphs.atoms, graphs.edges), theirs(graphs.atoms, graphs.edges))


@torch.no_grad()
@pytest.mark.parametrize("kind", ["deepcdr", "tgdrp"])
def test_a_table_is_its_pairs(kind: str) -> None:
    torch.manual_seed(0)
    graphs = two_molecules()
    made: nn.Module
    if kind == "deepcdr":
        made, cells = DeepCDRStyle(FusionConfig(6, atoms=5)), torch.randn(3, 6)
    else:
        made = TGDRP(4, 3, 2, atoms=5, hidden=7, joint=6, molecule=8)
        numbers = torch.tensor([[4.0, 0, 2], [4, 1, -1], [4, 3, 0]])
        cells = torch.cat([numbers, torch.randn(3, 6)], dim=1)
    made.eval()
    whole = made(cells, graphs)
    assert whole.shape == (3, 2)
    for i in range(3):
        for j in range(2):
            torch.testing.assert_close(made(cells[i : i + 1], one(graphs, j))[0, 0], whole[i, j], atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_the_gene_vector_is_the_releases(shared: Path) -> None:
    folder = shared / "data" / "parity" / "cellm_tiny"
    tokens = np.load(folder / "tokens.npz")
    states = torch.from_numpy(np.load(folder / "encoder_batch12.npz")["encodings"])
    weights = load_file(folder / "drp_pooler.safetensors")
    made = builder(300, 64, 32)(FusionConfig(1))
    made.conv.score.load_state_dict({"weight": weights["conv.weight"].view(1, -1), "bias": weights["conv.bias"]})
    number = torch.from_numpy(np.where(tokens["mask"], tokens["gene_pos"], -1)).float()
    found = made.gene_vector(torch.cat([number, states.reshape(12, -1)], dim=1))
    expected = torch.from_numpy(np.load(folder / "drp_pooler.npz")["gene_vector"])
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)  # the fixture's own tolerance


def test_sizes_are_those_of_the_release() -> None:
    made = TGDRP(19_379, 2, 512)
    assert [tuple(p.shape) for p in made.head.cell_emb.parameters()] == [(1024, 19_380), (1024,), (256, 1024), (256,)]
    assert made.molecules.width == 384
