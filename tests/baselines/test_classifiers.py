"""Every baseline: what all promise, and each against its definition or scikit-learn."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from scipy.sparse import csr_matrix

from cellingua.baselines.celltypist_method import CellTypistMethod
from cellingua.baselines.centroid import NearestCentroid
from cellingua.baselines.form import Baseline, predicted
from cellingua.baselines.logistic import LogisticRegression
from cellingua.baselines.majority import Majority
from cellingua.baselines.neighbours import Neighbours
from cellingua.baselines.normalise import Components, log_normalised
from cellingua.core.errors import InputError

GENES = 300
EVERY: dict[str, Callable[[], Baseline]] = {
    "majority": Majority,
    "logistic": LogisticRegression,
    "logistic on components": lambda: LogisticRegression(components=5),
    "neighbours": Neighbours,
    "neighbours, euclid": lambda: Neighbours(3, "euclid"),
    "neighbours on components": lambda: Neighbours(components=10),
    "centroid": NearestCentroid,
    "celltypist": CellTypistMethod,
}
LEARN = [name for name in EVERY if name != "majority"]


def planted(n: int, seed: int, classes: str = "abc") -> tuple[csr_matrix, np.ndarray]:
    """Return counts of `n` cells and the class that each was drawn from; the same classes for every seed."""
    profiles = np.random.default_rng(5).gamma(0.4, 2.0, (len(classes), GENES))
    rng = np.random.default_rng(seed)
    codes = np.concatenate([np.arange(len(classes)), rng.integers(0, len(classes), n - len(classes))])
    depth = rng.uniform(0.3, 1.5, (n, 1))
    return csr_matrix(rng.poisson(profiles[codes] * depth).astype(np.float32)), np.array(list(classes))[codes]


@pytest.fixture(params=EVERY, ids=list(EVERY))
def made(request: pytest.FixtureRequest) -> Callable[[], Baseline]:
    return EVERY[request.param]


def test_probabilities_belong_to_a_cell_alone(made: Callable[[], Baseline]) -> None:
    counts, labels = planted(40, 0)
    cells, _ = planted(30, 1)
    fitted = made().fit(counts, labels)
    whole = fitted.predict_proba(cells)
    assert whole.shape == (30, 3)
    assert fitted.classes.tolist() == ["a", "b", "c"]
    assert np.allclose(whole.sum(axis=1), 1)
    assert (whole >= 0).all()
    order = np.random.default_rng(2).permutation(30)
    assert np.allclose(fitted.predict_proba(cells[order]), whole[order], atol=1e-9)
    assert np.allclose(np.concatenate([fitted.predict_proba(cells[row]) for row in range(30)]), whole, atol=1e-9)
    assert np.allclose(made().fit(counts, labels).predict_proba(cells), whole, atol=1e-9)


def test_order_of_training_cells_and_unused_genes_change_nothing(made: Callable[[], Baseline]) -> None:
    counts, labels = planted(40, 0)
    cells, _ = planted(30, 1)
    expected = made().fit(counts, labels).predict_proba(cells)
    order = np.random.default_rng(3).permutation(40)
    assert np.allclose(made().fit(counts[order], labels[order]).predict_proba(cells), expected, atol=1e-4)
    if made is not EVERY["centroid"]:  # correlation is over the genes that there are
        wide = [csr_matrix((x.data, x.indices, x.indptr), (x.shape[0], GENES + 50)) for x in (counts, cells)]
        assert np.allclose(made().fit(wide[0], labels).predict_proba(wide[1]), expected, atol=1e-4)


@pytest.mark.parametrize("name", LEARN)
def test_planted_types_are_found(name: str) -> None:
    counts, labels = planted(60, 0)
    cells, truth = planted(80, 1)
    assert np.mean(predicted(EVERY[name]().fit(counts, labels), cells) == truth) > 0.9
    shuffled = np.random.default_rng(4).permutation(truth)
    assert np.mean(predicted(EVERY[name]().fit(counts, labels), cells) == shuffled) < 0.7


def test_one_cell_a_class_is_enough(made: Callable[[], Baseline]) -> None:
    counts, labels = planted(3, 0)
    fitted = made().fit(counts, labels)
    assert np.isfinite(fitted.predict_proba(planted(10, 1)[0])).all()


def test_a_cell_without_counts_has_an_answer(made: Callable[[], Baseline]) -> None:
    counts, labels = planted(20, 0)
    empty = csr_matrix((2, GENES), dtype=np.float32)
    found = made().fit(counts, labels).predict_proba(empty)
    assert np.isfinite(found).all()
    assert np.allclose(found.sum(axis=1), 1)


def test_totals_scale_the_counts(made: Callable[[], Baseline]) -> None:
    """Totals over more columns than are given make a cell shallower; those that equal the row sums change nothing."""
    counts, labels = planted(40, 0)
    totals = np.asarray(counts.sum(axis=1), np.float64).ravel()
    cells, _ = planted(10, 1)
    own = np.asarray(cells.sum(axis=1), np.float64).ravel()
    expected = made().fit(counts, labels).predict_proba(cells)
    assert np.allclose(made().fit(counts, labels, totals).predict_proba(cells, own), expected)
    assert np.allclose(
        made().fit(counts * 3, labels, totals * 3).predict_proba(cells * 2, own * 2), expected, atol=1e-5
    )


def test_what_can_not_be_learned_is_refused(made: Callable[[], Baseline]) -> None:
    counts, labels = planted(10, 0)
    with pytest.raises(InputError, match="one label a cell"):
        made().fit(counts, labels[:-1])
    with pytest.raises(InputError, match="1 of 10 cells have no label"):
        made().fit(counts, np.append(labels[:-1], ""))
    with pytest.raises(InputError, match="at least one cell"):
        made().fit(counts[:0], labels[:0])


def test_majority_is_the_commonest() -> None:
    counts, _ = planted(10, 0)
    fitted = Majority().fit(counts, ["b"] * 6 + ["a"] * 4)
    assert fitted.predict_proba(counts[:2]).tolist() == [[0.4, 0.6], [0.4, 0.6]]
    assert predicted(Majority().fit(counts, list("bababababa")), counts[:1]).tolist() == ["a"]


@pytest.mark.parametrize(("n", "c"), [(30, 1.0), (30, 0.01), (400, 1.0)], ids=["few", "strong penalty", "many cells"])
def test_logistic_regression_is_scikit_learns(n: int, c: float) -> None:
    """Solved in the span of the cells (fewer cells than genes) or on the genes: the same optimum."""
    linear = pytest.importorskip("sklearn.linear_model")
    counts, labels = planted(n, 0)
    cells, _ = planted(50, 1)
    ours = LogisticRegression(c, tolerance=1e-7).fit(counts, labels)
    values = log_normalised(counts).astype(np.float64)
    theirs = linear.LogisticRegression(C=c, tol=1e-7, max_iter=10_000).fit(values, labels)
    assert np.allclose(ours.weights.T, theirs.coef_, atol=2e-3 * np.abs(theirs.coef_).max())
    expected = theirs.predict_proba(log_normalised(cells).astype(np.float64))
    assert np.allclose(ours.predict_proba(cells), expected, atol=1e-3)


def test_two_classes_are_told_apart_as_by_the_symmetric_problem() -> None:
    counts, labels = planted(30, 0, "ab")
    fitted = LogisticRegression(tolerance=1e-8).fit(counts, labels)
    assert np.allclose(fitted.weights[:, 0], -fitted.weights[:, 1], atol=1e-6)


@pytest.mark.parametrize("metric", ["cosine", "euclid"])
@pytest.mark.parametrize("components", [None, 8])
def test_neighbours_are_the_nearest(metric: str, components: int | None) -> None:
    """Against distances written out."""
    counts, labels = planted(45, 0)
    cells, _ = planted(25, 1)
    fitted = Neighbours(5, metric, components).fit(counts, labels)
    x, y = log_normalised(counts), log_normalised(cells)
    if components:
        axes = Components(components).fit(x)
        near, far = axes.transform(x), axes.transform(y)
    else:
        near, far = x.toarray().astype(np.float64), y.toarray().astype(np.float64)
    shares = fitted.predict_proba(cells)
    for row in range(25):
        if metric == "euclid":
            distance = np.linalg.norm(near - far[row], axis=1)
        else:
            distance = 1 - near @ far[row] / (np.linalg.norm(near, axis=1) * np.linalg.norm(far[row]))
        votes = [(labels[np.argsort(distance)[:5]] == name).sum() for name in "abc"]
        # nearness is worth less than a vote: whoever has more neighbours has the larger share
        for a in range(3):
            for b in range(3):
                assert votes[a] <= votes[b] or shares[row, a] > shares[row, b]
        assert (shares[row] > 0).tolist() == [count > 0 for count in votes]


def test_a_draw_of_votes_is_settled_by_nearness() -> None:
    counts = csr_matrix(np.array([[9, 1, 0], [8, 2, 0], [1, 9, 0], [2, 8, 0]], np.float32))
    fitted = Neighbours(4, "cosine").fit(counts, ["b", "b", "a", "a"])
    fitted._used = 4
    cells = csr_matrix(np.array([[7, 3, 0], [3, 7, 0]], np.float32))
    assert predicted(fitted, cells).tolist() == ["b", "a"]


def test_neighbours_are_no_more_than_a_class_has() -> None:
    counts, labels = planted(3, 0)
    shares = Neighbours(5).fit(counts, labels).predict_proba(planted(20, 1)[0])
    assert ((shares == 0) | (shares == 1)).all()


def test_the_centroid_is_compared_by_correlation() -> None:
    counts, labels = planted(40, 0)
    cells, _ = planted(20, 1)
    fitted = NearestCentroid(sharpness=1.0).fit(counts, labels)
    x, y = log_normalised(counts).toarray(), log_normalised(cells).toarray()
    means = np.stack([x[labels == name].mean(axis=0) for name in "abc"])
    correlation = np.corrcoef(np.concatenate([y, means]))[:20, 20:]
    expected = np.exp(correlation) / np.exp(correlation).sum(axis=1, keepdims=True)
    assert np.allclose(fitted.predict_proba(cells), expected, atol=1e-6)


@pytest.mark.parametrize("bad", [{"k": 0}, {"metric": "manhattan"}])
def test_neighbours_refuse_what_is_not_there(bad: dict) -> None:
    with pytest.raises(InputError):
        Neighbours(**bad)
