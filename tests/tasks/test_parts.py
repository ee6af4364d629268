"""The parts of annotation, each against a plain twin or a planted truth."""

from __future__ import annotations

import json

import h5py
import numpy as np
import pandas as pd
import pytest
import small_world
from anndata.io import read_elem, write_elem
from scipy import sparse
from sklearn.neighbors import NearestNeighbors

from cellingua.calibration.hierarchy import hierarchy_of, is_answer
from cellingua.calibration.rollup import Hierarchy
from cellingua.cells.counts import CountBlocks
from cellingua.cells.doctor import examine
from cellingua.cells.reading import open_cells
from cellingua.core.progress import Silent
from cellingua.tasks import clusters as room
from cellingua.tasks.agreement import compare, composition
from cellingua.tasks.annotate import unique_names
from cellingua.tasks.clusters import cluster_cells, consensus, mean_probabilities, neighbour_graph
from cellingua.tasks.markers import cluster_markers, cluster_sums
from cellingua.tasks.writing import storable
from cellingua.words.ontology import load_ontology

T_CELL, CD4, CD8, B_CELL = "CL:0000084", "CL:0000624", "CL:0000625", "CL:0000236"


def blobs(n: int = 60, groups: int = 4, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Unit vectors around well separated centres, and the centre of each."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, groups, n)
    points = np.eye(16)[truth] + rng.normal(scale=0.08, size=(n, 16))
    return (points / np.linalg.norm(points, axis=1, keepdims=True)).astype(np.float32), truth


def test_hierarchy_holds_a_term_for_what_lies_below_it() -> None:
    ontology = load_ontology("CL")
    tree, terms = hierarchy_of([CD4, CD8, None, B_CELL], ontology)
    members = tree.members.toarray().astype(bool)
    for row, term in enumerate(terms):
        for column, candidate in enumerate([CD4, CD8, None, B_CELL]):
            below = candidate is not None and (candidate == term or term in ontology.ancestors(candidate))
            assert members[row, column] == below
    assert [terms[k] if k >= 0 else None for k in tree.own] == [CD4, CD8, None, B_CELL]
    # Of the terms that cover both T cells and no B cell, the narrowest alone is kept.
    both = [terms[row] for row in np.flatnonzero((members == [True, True, False, False]).all(axis=1))]
    assert len(both) == 1
    assert all(len(ontology.descendants(both[0])) <= len(ontology.descendants(t)) for t in [T_CELL])


@pytest.mark.parametrize("term", ["CL:0000000", "CL:0000255", "CL:0000151", "CL:0000219", "CL:0000226", "CL:0000393"])
def test_too_general_terms_are_no_answer(term: str) -> None:
    assert not is_answer(term, load_ontology("CL"))


@pytest.mark.parametrize("term", [T_CELL, CD4, "CL:0000988", "CL:0000738", "CL:0000066", "CL:0000540"])
def test_kinds_of_cells_are_answers(term: str) -> None:
    assert is_answer(term, load_ontology("CL"))


def test_neighbours_are_exact() -> None:
    points, _ = blobs()
    graph = neighbour_graph(points, 0)
    assert graph is not None
    truth = NearestNeighbors(n_neighbors=16, metric="cosine", algorithm="brute").fit(points)
    distance, index = truth.kneighbors(points)
    np.testing.assert_allclose(graph.distance, distance[:, 1:], atol=1e-5)
    assert np.mean([set(a) == set(b) for a, b in zip(graph.index, index[:, 1:], strict=True)]) > 0.95


def test_equal_cells_are_not_their_own_neighbours() -> None:
    points = np.repeat(blobs(5)[0], 6, axis=0)
    graph = neighbour_graph(points, 0)
    assert graph is not None
    assert not (graph.index == np.arange(30)[:, None]).any()


def test_clusters_find_planted_groups_and_repeat() -> None:
    points, truth = blobs(200)
    found = cluster_cells(points, neighbour_graph(points, 0), 0)
    for group in range(4):
        assert len(set(found[truth == group])) == 1
    assert (np.diff(np.bincount(found)) <= 0).all()  # largest first
    np.testing.assert_array_equal(found, cluster_cells(points, neighbour_graph(points, 0), 0))


def test_cells_beyond_the_landmarks_join_the_cluster_of_their_kind() -> None:
    points, truth = blobs(300)
    graph = neighbour_graph(points, 3, limit=120)
    assert graph is not None
    assert len(graph.rows) == 120
    found = cluster_cells(points, graph, 0)
    for group in range(4):
        assert len(set(found[truth == group])) == 1
    other = neighbour_graph(points, 3, limit=120)
    assert other is not None
    np.testing.assert_array_equal(graph.rows, other.rows)


def test_cells_without_an_embedding_are_a_cluster_of_their_own() -> None:
    points, _ = blobs(80)
    points[[3, 50]] = 0
    graph = neighbour_graph(points, 0)
    assert graph is not None
    assert 3 not in graph.rows
    found = cluster_cells(points, graph, 0)
    assert found[3] == found[50]
    assert (found == found[3]).sum() == 2


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5])
def test_a_handful_of_cells_is_clustered(n: int) -> None:
    points, _ = blobs(n)
    assert len(cluster_cells(points, neighbour_graph(points, 0), 0)) == n


def test_mean_probabilities_equal_a_loop() -> None:
    rng = np.random.default_rng(0)
    codes, index = rng.integers(0, 3, 20), np.array([rng.permutation(9)[:4] for _ in range(20)])
    value = rng.random((20, 4)).astype(np.float32)
    full = np.zeros((20, 9))
    np.put_along_axis(full, index, value, axis=1)
    expected = np.stack([full[codes == group].mean(axis=0) for group in range(3)])
    np.testing.assert_allclose(mean_probabilities(codes, 3, 9, index, value), expected, atol=1e-6)


def test_consensus_names_rolls_up_or_says_unknown() -> None:
    means = np.array([[0.8, 0.1, 0.1], [0.45, 0.45, 0.1], [0.34, 0.0, 0.33]])
    tree = Hierarchy(sparse.csr_matrix([[1.0, 1.0, 0.0]]), np.array([5]), np.array([-1, -1, -1]))
    names = [("CD4", CD4), ("CD8", CD8), ("B", B_CELL)]
    found = consensus(means, tree, [("T cell", T_CELL)], names, 0.5)
    assert [(label, term, status) for label, term, status, _, _ in found] == [
        ("CD4", CD4, "named"),
        ("T cell", T_CELL, "rolled_up"),
        ("unknown", "", "unknown"),
    ]
    assert [name for name, _ in found[0][4]] == ["CD8", "B"]
    assert [name for name, _ in found[1][4]] == ["CD4", "CD8"]


def test_cluster_sums_equal_scanpys_normalisation() -> None:
    import scanpy as sc

    cells = small_world.cells(40)
    codes = np.arange(40) % 3
    with open_cells(cells) as opened:
        sums, shown = cluster_sums(CountBlocks(opened, examine(opened)), codes, 3, Silent())
    sc.pp.normalize_total(cells, target_sum=1e4)
    sc.pp.log1p(cells)
    rows = small_world.rows_of_genes()
    for group in range(3):
        values = cells.X[codes == group]
        np.testing.assert_allclose(sums[group, rows], np.asarray(values.sum(axis=0)).ravel(), rtol=1e-4)
        np.testing.assert_array_equal(shown[group, rows], np.asarray((values > 0).sum(axis=0)).ravel())


def test_markers_are_the_planted_ones() -> None:
    from cellingua.cells.genes import load_vocabulary

    cells = small_world.cells(150)
    kinds = list(small_world.TYPES)
    codes = np.array([kinds.index(term) for term in cells.obs["truth"]])
    symbols = np.asarray(load_vocabulary().symbols)
    with open_cells(cells) as opened:
        found = cluster_markers(CountBlocks(opened, examine(opened)), codes, symbols, Silent())
    rows = small_world.rows_of_genes()
    for number, genes in enumerate(found):
        planted = set(symbols[rows[20 + 25 * number : 20 + 25 * (number + 1)]])
        shared = set(symbols[rows[20 + 25 * 7 : 20 + 25 * 8]]) if number in (1, 2) else set()
        assert len(genes) == 5
        assert set(genes) <= planted | shared


def test_one_cluster_has_no_markers() -> None:
    cells = small_world.cells(10)
    with open_cells(cells) as opened:
        blocks = CountBlocks(opened, examine(opened))
        assert cluster_markers(blocks, np.zeros(10, dtype=int), np.array([]), Silent()) == [()]


def test_agreement_by_term() -> None:
    own = np.array(["B cells", "B cells", "CD4 T", "my cells", ""], dtype=object)
    labels = np.array(["B cell", "T cell", "T cell", "B cell", "B cell"], dtype=object)
    terms = np.array([B_CELL, T_CELL, T_CELL, B_CELL, B_CELL], dtype=object)
    found = compare("mine", own, labels, terms, load_ontology("CL"))
    assert found.n_compared == 3  # neither the label that is no term, nor the missing one
    assert found.exact == pytest.approx(1 / 3)
    assert found.related == pytest.approx(2 / 3)  # a T cell is a wider answer for a CD4 T cell
    assert found.table.sum() == 4
    assert found.own[0] == "B cells"


def test_agreement_where_no_label_can_be_read() -> None:
    found = compare("mine", np.array(["qwx"], dtype=object), np.array(["B cell"], dtype=object),
                    np.array([B_CELL], dtype=object), load_ontology("CL"))  # fmt: skip
    assert found.exact is None


def test_composition_adds_up() -> None:
    samples = np.array(["b", "a", "b", "b"], dtype=object)
    labels = np.array(["x", "x", "y", "y"], dtype=object)
    assert composition(samples, labels) == [("a", 1, [("x", 1)]), ("b", 3, [("y", 2), ("x", 1)])]
    assert composition(None, labels)[0][1] == 4


def test_unique_names_avoid_names_that_exist() -> None:
    names, changed = unique_names(pd.Index(["a", "a", "a-1", "b", "a"]))
    assert names.tolist() == ["a", "a-2", "a-1", "b", "a-3"]
    assert changed == 2
    assert unique_names(pd.Index(["a", "b"]))[1] == 0


def test_provenance_survives_an_h5ad(tmp_path: object) -> None:
    value = {
        "a": None, "b": [], "c": ["x", "é"], "d": [1, 2], "e": [{"k": 1}], "f": {"g/h": True}, "i": 0.5,
    }  # fmt: skip
    with h5py.File(f"{tmp_path}/a.h5", "w") as file:
        write_elem(file, "u", storable(value))
        back = read_elem(file["u"])
    assert back["a"] == ""
    assert back["c"].tolist() == ["x", "é"]
    assert json.loads(back["e"]) == [{"k": 1}]
    assert back["f"]["g|h"]


def test_landmarks_are_20_000() -> None:
    assert room.LANDMARKS == 20_000
