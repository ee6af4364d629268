"""Relations of cells and texts: what is right, wrong or neither, and what each contrast makes of that."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from cellingua.recipes.relations import RELATIONS, Kinds, closeness_of_terms, contrast, related_terms
from cellingua.words.ontology import load_ontology

T_CELL, CD4, B_CELL, LYMPHOCYTE = "CL:0000084", "CL:0000624", "CL:0000236", "CL:0000542"
TERMS = [T_CELL, CD4, B_CELL, LYMPHOCYTE, "a name of ours"]


def test_ancestors_and_descendants_are_related() -> None:
    related = related_terms(TERMS)
    ontology = load_ontology("CL")
    for i, one in enumerate(TERMS):
        for j, other in enumerate(TERMS):
            known = one in ontology and other in ontology and one != other
            assert related[i, j] == (known and (ontology.is_a(one, other) or ontology.is_a(other, one)))
    assert related[0, 1]
    assert related[1, 3]
    assert not related[0, 2]
    assert not related[4].any()


def test_closeness_decays_with_the_shortest_path() -> None:
    terms = [T_CELL, *sorted(load_ontology("CL").parents(T_CELL)), B_CELL, "CL:0000540", "ours"]
    close, ontology = closeness_of_terms(terms, 0.5, 3), load_ontology("CL")
    for i, one in enumerate(terms):
        for j, other in enumerate(terms):
            known = one in ontology and other in ontology
            steps = ontology.distance(one, other) if known else (0 if i == j else -1)
            assert close[i, j] == (0.5**steps if 0 <= steps <= 3 else 0.0), (one, other)
    assert close[0, 1] == 0.5


def kinds(decay: float | None = None) -> Kinds:
    return Kinds.of(TERMS, decay)


def test_a_pair_is_right_wrong_or_unclear() -> None:
    # Cells: two with text 0 (T cell), a CD4 (text 1), a B cell (text 2), a T cell in other words (text 3), no text.
    text_of, type_of = torch.tensor([0, 0, 1, 2, 3, -1]), torch.tensor([0, 0, 1, 2, 0, -1])
    texts, types = torch.arange(4), torch.tensor([0, 1, 2, 0])
    assert kinds().compare(text_of, type_of, texts, types).wrong[5].all()
    found = kinds().compare(text_of, type_of, texts, types, unknown_unclear=True)
    assert found.right.int().tolist() == [[1, 0, 0, 0], [1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1], [0] * 4]
    unclear = [[0, 1, 0, 1], [0, 1, 0, 1], [1, 0, 0, 1], [0, 0, 0, 0], [1, 1, 0, 0], [1] * 4]
    assert found.unclear.int().tolist() == unclear
    assert not (found.right & found.unclear).any()
    assert torch.equal(found.wrong, ~(found.right | found.unclear))


def unit(n: int, seed: int) -> torch.Tensor:
    vectors = torch.randn(n, 5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return functional.normalize(vectors, dim=1)


@pytest.mark.parametrize("relation", RELATIONS)
@pytest.mark.parametrize("symmetric", [False, True])
def test_each_contrast_is_the_formula(relation: str, symmetric: bool) -> None:
    type_of = torch.tensor([0, 1, 2, 0, 3])
    text_of = torch.tensor([0, 1, 2, 0, 3])
    related = kinds(0.5).compare(text_of, type_of, text_of, type_of)
    a, b, n = unit(5, 1), unit(5, 2), 5
    logits = a @ b.T / 0.2
    left_out, target = torch.zeros(n, n, dtype=torch.bool), torch.eye(n, dtype=torch.float64)
    if relation == "masked":
        left_out = (related.right | related.unclear) & ~torch.eye(n, dtype=torch.bool)
    elif relation == "multi_positive":
        left_out, target = related.unclear, related.right.double()
    elif relation == "ontology":
        assert related.close is not None
        target = related.close.double()

    def one_way(logits: torch.Tensor, left_out: torch.Tensor, target: torch.Tensor) -> float:
        total = 0.0
        for row in range(n):
            inside = [j for j in range(n) if not left_out[row, j]]
            norm = sum(float(logits[row, j].exp()) for j in inside)
            weights = [float(target[row, j]) for j in inside]
            for j, weight in zip(inside, weights, strict=True):
                total -= weight / sum(weights) * float((logits[row, j].exp() / norm).log()) / n
        return total

    expected = one_way(logits, left_out, target)
    if symmetric:
        expected = 0.5 * (expected + one_way(logits.T, left_out.T, target.T))
    found = contrast(relation, 0.2, symmetric, None if relation == "instances" else related)(a, b)
    assert float(found) == pytest.approx(expected, rel=1e-10)
