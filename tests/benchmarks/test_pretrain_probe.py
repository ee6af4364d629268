"""The probes of the CellLM benchmark: folds that leak nothing, wide types, scores."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from scipy.sparse import csr_matrix

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def probes(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module, from the repository's root."""
    pytest.importorskip("sklearn")
    monkeypatch.syspath_prepend(str(ROOT))
    return importlib.import_module("benchmarks.pretrain_probe")


def test_folds_leave_out_whole_groups_and_cover_every_cell_once(probes: ModuleType) -> None:
    groups = np.repeat([f"d{i}" for i in range(7)], 3)
    for n in (3, 7, 99):
        folds = probes.group_folds(groups, n)
        assert len(folds) == min(n, 7)
        assert sum(test.astype(int) for _, test in folds).tolist() == [1] * 21
        for train, test in folds:
            assert not set(groups[train]) & set(groups[test])
            assert (train | test).all()


def test_wide_types_follow_the_ontology(probes: ModuleType) -> None:
    told = dict.fromkeys(["CL:0000624", "CL:0000980", "CL:0000860", "CL:0000057", "unknown", "CL:0001064"])
    assert probes.wide_types(list(told)).tolist() == ["T cell", "B lineage", "myeloid", "stromal", "", ""]


def test_a_probe_learns_from_training_rows_alone(probes: ModuleType) -> None:
    rng = np.random.default_rng(0)
    truth = np.array(["a", "b"])[rng.integers(0, 2, 80)]
    vectors = rng.normal(size=(80, 3)) + 4 * (truth == "a")[:, None]
    folds = probes.group_folds(np.arange(80).astype(str), 4)
    task = probes.Task("t", np.arange(80), truth, folds)
    assert probes.probe(task, probes.fixed(vectors))["accuracy"] > 0.95
    assert probes.probe(task, probes.fixed(rng.normal(size=(80, 3))))["accuracy"] < 0.75
    seen: list[set[int]] = []

    def watched(train: np.ndarray, test: np.ndarray) -> tuple:
        assert not set(train) & set(test)
        seen.append(set(test))
        return vectors[train], vectors[test]

    probes.probe(task, watched)
    assert set.union(*seen) == set(range(80))


def test_the_components_are_fitted_without_the_test_cells(probes: ModuleType) -> None:
    rng = np.random.default_rng(1)
    values = csr_matrix(rng.poisson(1.0, (60, 90)).astype(np.float32))
    other = values.tolil()
    other[50:] = 9.0
    for train, test in [(np.arange(40), np.arange(40, 50))]:
        plain = probes.pca_on_training(values)(train, test)
        again = probes.pca_on_training(csr_matrix(other))(train, test)
        for a, b in zip(plain, again, strict=True):
            assert a.shape[1] == 39
            assert np.allclose(a, b)


def test_the_commonest_class_scores_what_it_must(probes: ModuleType) -> None:
    truth = np.array(["a"] * 6 + ["b"] * 2)
    half = np.arange(8) % 2 == 0
    task = probes.Task("t", np.arange(8), truth, [(half, ~half), (~half, half)])
    found = probes.majority(task)
    assert found["accuracy"] == 0.75
    assert found["balanced_accuracy"] == 0.5
