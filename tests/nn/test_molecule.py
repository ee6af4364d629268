"""The molecule encoder against torch-geometric, and what must not change a molecule."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from cellingua.nn.molecule import MoleculeEncoder, ResponseHead

FEATURES, WIDTH = 11, 8


def some_graphs(seed: int = 0, sizes: tuple[int, ...] = (5, 1, 7)) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return atoms, edges in both directions, and owners of random trees; the second is one atom without a bond."""
    draw = torch.Generator().manual_seed(seed)
    atoms = torch.randn(sum(sizes), FEATURES, generator=draw)
    edges, first = [], 0
    for size in sizes:
        for atom in range(1, size):
            other = int(torch.randint(0, atom, (1,), generator=draw))
            edges += [(first + atom, first + other), (first + other, first + atom)]
        first += size
    owner = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    return atoms, torch.tensor(edges).T.contiguous(), owner


def encoder(seed: int = 0) -> MoleculeEncoder:
    torch.manual_seed(seed)
    made = MoleculeEncoder(FEATURES, WIDTH)
    for norm in made.bns_drug:
        nn.init.uniform_(norm.weight, 0.5, 1.5)  # type: ignore[arg-type]
        norm.running_mean.uniform_(-1, 1)  # type: ignore[union-attr, operator]
        norm.running_var.uniform_(0.5, 2)  # type: ignore[union-attr, operator]
    return made


@pytest.mark.parametrize("training", [False, True])
def test_equal_to_torch_geometric_with_the_same_weights(training: bool) -> None:
    geometric = pytest.importorskip("torch_geometric.nn")
    ours = encoder().train(training)

    class Theirs(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            sizes = [FEATURES, WIDTH, WIDTH]
            self.convs_drug = nn.ModuleList(
                geometric.GINConv(nn.Sequential(nn.Linear(size, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH)))
                for size in sizes
            )
            self.bns_drug = nn.ModuleList(nn.BatchNorm1d(WIDTH) for _ in sizes)

        def forward(self, x: torch.Tensor, edges: torch.Tensor, owner: torch.Tensor) -> torch.Tensor:
            states = []
            for conv, norm in zip(self.convs_drug, self.bns_drug, strict=True):
                x = norm(torch.relu(conv(x, edges)))
                states.append(x)
            return geometric.global_max_pool(torch.cat(states, dim=1), owner)

    theirs = Theirs().train(training)
    theirs.load_state_dict(ours.state_dict(), strict=True)
    atoms, edges, owner = some_graphs()
    expected = theirs(atoms, edges, owner)
    found = ours(atoms, edges, owner, 3)
    assert found.shape == (3, 3 * WIDTH)
    assert torch.allclose(found, expected, atol=1e-6)
    # Gradients differ only in how atoms that tie for the largest value share one; they are compared before the pooling.
    smooth, other = ours.convs_drug[0](atoms, edges).sum(), theirs.convs_drug[0](atoms, edges).sum()
    mine = torch.autograd.grad(smooth, list(ours.convs_drug[0].parameters()))
    expected = torch.autograd.grad(other, list(theirs.convs_drug[0].parameters()))
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(mine, expected, strict=True))


def test_a_molecule_does_not_depend_on_company_or_on_the_order_of_its_atoms() -> None:
    made = encoder().eval()
    atoms, edges, owner = some_graphs()
    together = made(atoms, edges, owner, 3)
    kept = edges[0] >= 6
    alone = made(atoms[6:], edges[:, kept] - 6, torch.zeros(7, dtype=torch.int64), 1)
    assert torch.allclose(together[2:], alone, atol=1e-6)
    order = torch.randperm(7, generator=torch.Generator().manual_seed(1))
    place = torch.argsort(order)
    turned = made(atoms[6:][order], place[edges[:, kept] - 6], torch.zeros(7, dtype=torch.int64), 1)
    assert torch.allclose(turned, alone, atol=1e-6)
    no_bond = made(atoms[5:6], torch.zeros(2, 0, dtype=torch.int64), torch.zeros(1, dtype=torch.int64), 1)
    assert torch.allclose(no_bond, together[1:2], atol=1e-6)


def test_the_released_names_are_there() -> None:
    names = set(MoleculeEncoder().state_dict())
    assert {"convs_drug.0.nn.0.weight", "convs_drug.2.nn.2.bias", "convs_drug.1.eps", "bns_drug.2.running_var"} <= names
    assert MoleculeEncoder().convs_drug[0].nn[0].weight.shape == (128, 77)  # type: ignore[index, union-attr]
    assert MoleculeEncoder().width == 384


def test_a_pair_does_not_depend_on_other_pairs() -> None:
    torch.manual_seed(0)
    head = ResponseHead(6, 5, hidden=16, width=4).eval()
    cells, molecules = torch.randn(4, 6), torch.randn(3, 5)
    cell, molecule = torch.tensor([0, 3, 3, 1]), torch.tensor([2, 0, 1, 2])
    out = head(cells, molecules, cell, molecule)
    assert out.shape == (4,)
    for row in range(4):
        one = torch.zeros(1, dtype=torch.int64)
        alone = head(cells[cell[row]][None], molecules[molecule[row]][None], one, one)
        assert torch.allclose(alone, out[row : row + 1], atol=1e-6)
