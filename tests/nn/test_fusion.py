"""The fusion network: a table at once is a table pair by pair, and nothing new has numbers of its own."""

from __future__ import annotations

import pytest
import torch

from cellingua.core.errors import ConfigError
from cellingua.nn.fusion import FusionConfig, FusionNetwork, GraphTensors

ATOMS, CELL = 6, 5


def molecules(sizes: tuple[int, ...] = (4, 1, 3), seed: int = 0) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Return chains of atoms: features and bonds of each."""
    draw = torch.Generator().manual_seed(seed)
    made = []
    for size in sizes:
        ends = [(a, a + 1) for a in range(size - 1)]
        edges = torch.tensor([*ends, *((b, a) for a, b in ends)], dtype=torch.int64).reshape(-1, 2).T
        made.append((torch.randn(size, ATOMS, generator=draw), edges))
    return made


def together(parts: list[tuple[torch.Tensor, torch.Tensor]]) -> GraphTensors:
    first = torch.tensor([0, *torch.tensor([len(atoms) for atoms, _ in parts]).cumsum(0)[:-1].tolist()])
    return GraphTensors(
        torch.cat([atoms for atoms, _ in parts]),
        torch.cat([edges + start for (_, edges), start in zip(parts, first, strict=True)], dim=1),
        torch.repeat_interleave(torch.arange(len(parts)), torch.tensor([len(atoms) for atoms, _ in parts])),
        len(parts),
    )


def network(drugs: int = 3, lines: int = 4) -> FusionNetwork:
    torch.manual_seed(0)
    made = FusionNetwork(FusionConfig(CELL, drugs, lines, ATOMS, molecule=8, hidden=7, joint=6, meet=5, last=4))
    for norm in made.molecules.bns_drug:
        norm.running_mean.uniform_(-1, 1)  # type: ignore[union-attr, operator]
        norm.running_var.uniform_(0.5, 2)  # type: ignore[union-attr, operator]
    return made.eval()


@torch.no_grad()
def test_the_table_is_what_each_pair_is_alone() -> None:
    made, parts, cells = network(), molecules(), torch.randn(4, CELL)
    lines, drugs = torch.tensor([2, -1, 0, 3]), torch.tensor([1, -1, 0])
    whole = made(cells, together(parts), lines, drugs)
    assert whole.shape == (4, 3)
    for i in range(4):
        for j in range(3):
            alone = made(cells[i : i + 1], together([parts[j]]), lines[i : i + 1], drugs[j : j + 1])
            torch.testing.assert_close(alone[0, 0], whole[i, j], atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_the_joint_layer_is_a_layer_on_both_side_by_side() -> None:
    made = network()
    cells, drugs = torch.randn(4, 6), torch.randn(3, 6)
    joined = torch.cat([cells[:, None, :].expand(4, 3, 6), drugs[None, :, :].expand(4, 3, 6)], dim=2)
    weight = torch.cat([made.from_cell.weight, made.from_drug.weight], dim=1)
    plain = made.after(torch.nn.functional.linear(joined, weight, made.from_cell.bias)).squeeze(-1)
    plain = plain + torch.einsum("ik,jk->ij", cells, drugs) / 6**0.5 + made.alone(drugs).T
    torch.testing.assert_close(made.meet(cells, drugs), plain, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_what_is_new_has_no_numbers_of_its_own() -> None:
    made, graphs, cells = network(), together(molecules()), torch.randn(4, CELL)
    new = made(cells, graphs, torch.full((4,), -1), torch.full((3,), -1))
    assert torch.equal(new, made(cells, graphs))
    assert not torch.allclose(new, made(cells, graphs, torch.arange(4), torch.arange(3)))
    made.own_drugs = made.own_lines = None
    torch.testing.assert_close(new, made(cells, graphs, torch.arange(4), torch.arange(3)))


def test_impossible_sizes_are_refused() -> None:
    with pytest.raises(ConfigError, match="width"):
        FusionConfig(0)
    with pytest.raises(ConfigError, match="dropout"):
        FusionConfig(3, dropout=1.0)
