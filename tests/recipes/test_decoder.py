"""What the expression decoder is fitted on: mean levels of each term, by a plain loop, and the genes that tell."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.sparse import csr_matrix

from cellingua.cells.collections import CellSet
from cellingua.cells.genes import load_vocabulary
from cellingua.cells.simulate import ProfileSet
from cellingua.recipes import decoder as module
from cellingua.recipes.decoder import FLOOR, expression_decoder, mean_levels
from cellingua.recipes.material import Material
from cellingua.recipes.words import WordBank
from cellingua.words.ontology import load_ontology

GENES = 300
TERMS = ["CL:0000084", "CL:0000236", "CL:0000576"]
PANEL, WHOLE, FEW = "panel", "whole", "few"  # files: too few genes; good; good, with too few cells of a type


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LEAST_GENES", 100)
    monkeypatch.setattr(module, "GENES", 60)
    monkeypatch.setattr(module, "MEASURED", 0.5)


def material() -> Material:
    """Return five profiles of which some genes are missing, and cells of three files."""
    rng = np.random.default_rng(0)
    width = len(load_vocabulary())
    expression = np.zeros((5, width), np.float32)
    expression[:, :GENES] = rng.gamma(0.6, 1.0, (5, GENES))
    expression[:, 200:] = 0
    expression[:2, 190:200] = 0  # expressed in three profiles
    expression[:3, 180:190] = 0  # in two
    measured = np.zeros((5, width), bool)
    measured[:, :GENES] = True
    measured[0, :20] = measured[1, 10:30] = False
    measured[:2, 30:40] = measured[4, 30:40] = False  # in two of five: too seldom
    expression[~measured] = 0
    expression /= expression.sum(axis=1, keepdims=True)
    terms = np.array([TERMS[0], TERMS[0], TERMS[1], TERMS[1], TERMS[2]])
    counts = np.zeros((60, width), np.float32)
    counts[:, :GENES] = rng.poisson(2.0, (60, GENES))
    files = np.repeat([PANEL, WHOLE, FEW], 20)
    counts[:20, 60:] = 0
    of = np.where(np.arange(60) % 20 < 12, TERMS[2], TERMS[1])
    of[40:52] = "CL:0000115"  # known from these cells alone
    of[52:56], of[56:] = "CL:0000171", TERMS[0]  # too few of either
    cells = CellSet(csr_matrix(counts), counts.sum(axis=1).astype(np.float64), of, np.ones(60, bool), files, files)
    return Material(cells, ProfileSet(expression, measured, terms, np.array(["A", "B", "A", "B", "A"])), {}, {}, None)


def plain_levels(held: Material, columns: list[int]) -> dict[str, tuple[list[float], float]]:
    """Return term -> mean level of each gene and weight, gene by gene."""
    profiles, cells = held.profiles, held.cells
    level = {
        (row, gene): math.log(profiles.expression[row, gene] * 1e4 + FLOOR)
        for row in range(len(profiles))
        for gene in columns
        if profiles.measured[row, gene]
    }
    parts: dict[str, list[tuple[list[float], float]]] = {}
    for term in set(profiles.terms.tolist()):
        rows = [row for row in range(len(profiles)) if profiles.terms[row] == term]
        said = []
        for gene in columns:
            own = [level[row, gene] for row in rows if (row, gene) in level]
            every = [level[row, gene] for row in range(len(profiles)) if (row, gene) in level]
            said.append(float(np.mean(own or every)))
        parts.setdefault(term, []).append((said, len(rows)))
    for file, term in sorted(set(zip(cells.files.tolist(), cells.terms.tolist(), strict=True))):
        rows = [row for row in range(len(cells)) if (cells.files[row], cells.terms[row]) == (file, term)]
        total = cells.counts[rows].toarray().astype(np.float64).sum(axis=0)
        if file != PANEL and len(rows) >= module.LEAST_CELLS:
            parts.setdefault(term, []).append(
                ([math.log(total[gene] / total.sum() * 1e4 + FLOOR) for gene in columns], 1.0)
            )
    return {
        term: (np.average([p for p, _ in held], axis=0, weights=[w for _, w in held]).tolist(), sum(w for _, w in held))
        for term, held in parts.items()
    }


def test_levels_are_a_plain_mean_over_profiles_and_files() -> None:
    held = material()
    terms, levels, weight, columns = mean_levels(held, 3)
    assert columns.tolist() == [gene for gene in range(200) if not (30 <= gene < 40 or 180 <= gene < 190)]
    expected = plain_levels(held, columns.tolist())
    assert terms == sorted(expected) == sorted([*TERMS, "CL:0000115"])
    np.testing.assert_allclose(levels, [expected[term][0] for term in terms], rtol=1e-5, atol=1e-5)
    assert weight.tolist() == [expected[term][1] for term in terms]
    assert dict(zip(terms, weight.tolist(), strict=True))[TERMS[2]] == 2  # a profile and a file; the panel stays out
    assert levels.dtype == np.float32


def test_the_share_that_must_measure_a_gene_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    for share in (0.1, 0.6, 0.9):
        monkeypatch.setattr(module, "MEASURED", share)
        kept = mean_levels(material(), 1)[3]
        enough = material().profiles.measured.mean(axis=0) > share
        expressed = (material().profiles.expression > 0).any(axis=0)
        np.testing.assert_array_equal(kept, np.flatnonzero(enough & expressed))


def test_the_decoder_takes_the_genes_that_differ_most_and_says_what_it_was_told() -> None:
    held, ontology = material(), load_ontology("CL")
    bank = WordBank(list(ontology.ids), [], np.zeros(0, np.int64), torch.zeros(0, 1), "none")
    vectors = np.random.default_rng(1).normal(size=(len(ontology.ids), 16)).astype(np.float32)
    made = expression_decoder(held, bank, vectors, 3)
    terms, levels, _, columns = mean_levels(held, 3)
    assert made.terms == frozenset(terms).union(*(ontology.ancestors(term) for term in terms))
    spread = dict(zip(load_vocabulary().ensembl_ids[columns].tolist(), levels.std(axis=0).tolist(), strict=True))
    assert len(made.genes) == len(set(made.genes)) == 60
    assert min(spread[gene] for gene in made.genes) >= max(spread[gene] for gene in set(spread) - set(made.genes))
    said = made.prepare(vectors[[ontology.ids.index(term) for term in terms]], terms)
    place = [columns.tolist().index(column) for column in said.columns.tolist()]
    np.testing.assert_allclose(said.levels, levels[:, place], atol=0.01)  # four terms in sixteen dimensions: all fit


def test_a_term_is_taught_as_a_narrower_one_in_cells_and_profiles_alike() -> None:
    held = material()
    taught = held.narrowed({TERMS[2]: "CL:0002057"})
    for before, after in ((held.cells, taught.cells), (held.profiles, taught.profiles)):
        was = before.terms == TERMS[2]
        assert was.any()
        assert (after.terms[was] == "CL:0002057").all()
        assert (after.terms[~was] == before.terms[~was]).all()
    assert taught.markers is held.markers
    assert taught.cells.counts is held.cells.counts
