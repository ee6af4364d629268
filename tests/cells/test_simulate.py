"""Pseudo-cells: what is drawn carries the effects that the configuration names, and nothing else."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import csr_matrix

from cellingua.cells.simulate import ProfileSet, SimulateConfig, Simulator, thin

GENES = 400
TERMS = ("CL:a", "CL:b", "CL:c")
#: Nothing but a profile and a sequencer of one depth.
PLAIN = SimulateConfig(
    depth=2000, depth_spread=0, gene_dropout=0, platform_noise=0, platforms=1, ambient=0, mixing=0, panel=0
)


def profiles(studies: tuple[str, ...] = ("one", "one", "two", "two", "one")) -> ProfileSet:
    """Return two profiles of two types and one of a third; the last tenth of genes is unmeasured in study two."""
    level = np.random.default_rng(0).gamma(0.5, 1.0, (5, GENES)).astype(np.float32)
    measured = np.ones((5, GENES), bool)
    measured[np.array(studies) == "two", -GENES // 10 :] = False
    level[~measured] = 0
    level /= level.sum(axis=1, keepdims=True)
    return ProfileSet(level, measured, np.array([*TERMS[:2], *TERMS[:2], TERMS[2]]), np.array(studies))


def markers() -> dict[str, np.ndarray]:
    """Return markers of a type with a profile, of one below such a type, and of one that stands alone."""
    return {TERMS[0]: np.arange(0, 10), "CL:a1": np.arange(10, 20), "CL:z": np.arange(20, 30)}


def simulator(config: SimulateConfig = PLAIN) -> Simulator:
    return Simulator(profiles(), markers(), {"CL:a1": ["CL:middle", TERMS[0], TERMS[1]]}, config)


def totals(counts: csr_matrix) -> np.ndarray:
    return np.asarray(counts.sum(axis=1)).ravel()


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_depth_is_log_normal_about_its_median() -> None:
    counts, _ = simulator(replace(PLAIN, depth_spread=0.5)).from_profiles(1500, rng())
    logs = np.log(totals(counts))
    assert np.exp(np.median(logs)) == pytest.approx(2000, rel=0.06)
    assert logs.std() == pytest.approx(0.5, rel=0.08)
    assert set(totals(simulator().from_profiles(5, rng())[0])) == {2000}


def test_depth_stays_within_reason() -> None:
    counts, _ = simulator(replace(PLAIN, depth_spread=4)).from_profiles(80, rng())
    assert totals(counts).min() == 200
    assert totals(counts).max() == 30_000


@given(seed=st.integers(0, 2**32 - 1), n=st.integers(0, 6))
def test_what_is_drawn_is_counts_and_the_seed_decides(seed: int, n: int) -> None:
    made = simulator(replace(SimulateConfig(), depth=300, panel=0.5, panel_genes=(3, 50)))
    for draw in (made.from_profiles, made.from_markers):
        counts, terms = draw(n, rng(seed))
        again, same = draw(n, rng(seed))
        assert counts.shape == (n, GENES)
        assert counts.dtype == np.float32
        assert counts.has_canonical_format
        assert terms == same
        assert len(terms) == n
        assert (counts != again).nnz == 0
        assert (counts.data >= 1).all()
        np.testing.assert_array_equal(counts.data, np.rint(counts.data))


def test_another_seed_draws_other_cells() -> None:
    made = simulator(SimulateConfig())
    assert (made.from_profiles(3, rng(1))[0] != made.from_profiles(3, rng(2))[0]).nnz > 0


def test_a_pseudo_cell_looks_like_its_profile() -> None:
    held = profiles()
    counts, terms = simulator(replace(PLAIN, depth=20_000)).from_profiles(60, rng())
    found = np.corrcoef(counts.toarray(), held.expression)[:60, 60:]
    nearest = held.terms[found.argmax(axis=1)]
    assert nearest.tolist() == terms
    assert found.max(axis=1).min() > 0.97
    assert set(terms) == set(TERMS)


def test_terms_can_be_chosen() -> None:
    _, terms = simulator().from_profiles(20, rng(), terms=[TERMS[2]])
    assert terms == [TERMS[2]] * 20


def test_types_with_many_profiles_are_drawn_more_often_but_not_in_proportion() -> None:
    _, terms = simulator(replace(PLAIN, depth=200)).from_profiles(4000, rng())
    share = terms.count(TERMS[0]) / terms.count(TERMS[2])
    assert share == pytest.approx(2**0.5, rel=0.15)


def test_genes_that_are_not_measured_stay_silent_in_a_mixture() -> None:
    made = simulator(replace(PLAIN, mixing=1.0))
    mixed = made._profile_shares
    seen = np.array([mixed(TERMS[0], rng(seed)) for seed in range(40)])
    both = profiles().expression[[0, 2]]
    ends = seen[:, -GENES // 10 :].any(axis=1)
    pure = np.array([np.allclose(row, both[0]) or np.allclose(row, both[1]) for row in seen])
    assert (pure | ~ends).all()
    inside = (seen[:, : -GENES // 10] >= both[:, : -GENES // 10].min(axis=0) - 1e-9) & (
        seen[:, : -GENES // 10] <= both[:, : -GENES // 10].max(axis=0) + 1e-9
    )
    assert inside.all()
    assert 0.2 < pure.mean() < 0.8


def test_genes_are_silenced() -> None:
    deep = replace(PLAIN, depth=30_000)
    loud = np.flatnonzero(profiles().expression[4] > 1e-3)
    plain, _ = simulator(deep).from_profiles(60, rng(), [TERMS[2]])
    silenced, _ = simulator(replace(deep, gene_dropout=0.8)).from_profiles(60, rng(), [TERMS[2]])
    assert (plain[:, loud].toarray() > 0).all()
    share = (silenced[:, loud].toarray() == 0).mean(axis=1)
    assert share.mean() == pytest.approx(0.4, abs=0.08)
    assert share.min() < 0.1
    assert 0.65 < share.max() <= 0.9


def test_a_panel_leaves_so_many_genes() -> None:
    made = simulator(replace(PLAIN, depth=30_000, panel=1.0, panel_genes=(30, 41)))
    counts, _ = made.from_profiles(60, rng())
    assert counts.getnnz(axis=1).max() <= 40
    assert counts.getnnz(axis=1).min() >= 10
    fixed = simulator(replace(PLAIN, panel=1.0, panel_genes=(12, 12)))
    assert fixed.from_profiles(20, rng())[0].getnnz(axis=1).max() <= 12
    wide = simulator(replace(PLAIN, panel=1.0, panel_genes=(10**6, 10**6 + 1)))
    assert (wide.from_profiles(3, rng())[0].getnnz(axis=1) > 100).all()


def test_an_empty_panel_makes_an_empty_cell() -> None:
    made = simulator(replace(PLAIN, panel=1.0, panel_genes=(0, 1)))
    for draw in (made.from_profiles, made.from_markers):
        counts, terms = draw(7, rng())
        assert counts.nnz == 0
        assert len(terms) == counts.shape[0] == 7


def test_the_soup_is_the_mean_of_the_study() -> None:
    made = simulator(replace(PLAIN, ambient=0.5))
    held = profiles()
    shares = made._profile_shares(TERMS[2], rng(4))
    soup = held.expression[held.studies == "one"].mean(axis=0)
    part = np.linalg.lstsq(np.stack([held.expression[4], soup], axis=1), shares, rcond=None)[0]
    assert part.sum() == pytest.approx(1, abs=1e-4)
    assert 0 < part[1] < 1
    np.testing.assert_allclose(part[0] * held.expression[4] + part[1] * soup, shares, atol=1e-6)


def test_platforms_differ_by_gene() -> None:
    deep = replace(PLAIN, depth=30_000)
    expected = profiles().expression[4]
    loud = np.flatnonzero(expected > 2e-3)
    drawn = [
        simulator(replace(deep, platform_noise=noise)).from_profiles(1, rng(3), [TERMS[2]])[0].toarray()[0, loud]
        for noise in (0.0, 0.6)
    ]
    spread = [np.log(cell / 30_000 / expected[loud]).std() for cell in drawn]
    assert spread[0] < 0.15
    assert spread[1] == pytest.approx(0.6, abs=0.15)


def test_markers_are_raised_best_first() -> None:
    made = simulator(replace(PLAIN, depth=20_000, marker_share=0.2))
    counts, terms = made.from_markers(300, rng())
    shares = counts.toarray() / totals(counts)[:, None]
    assert set(terms) == set(markers())
    for term, genes in markers().items():
        mine = np.array([name == term for name in terms])
        others = shares[~mine][:, genes].sum(axis=1)
        assert shares[mine][:, genes].sum(axis=1).min() > 0.09
        assert shares[mine][:, genes].sum(axis=1).mean() > others.mean() + 0.1
        raised = shares[mine][:, genes].mean(axis=0) - shares[~mine][:, genes].mean(axis=0)
        assert raised[0] > raised[4] > 0
        # Each marker is left out of three cells in ten.
        assert 0 < (shares[mine][:, genes[0]] < 0.02).mean() < 0.6


def test_markers_lie_over_the_nearest_wider_profile() -> None:
    held = profiles()
    counts, terms = simulator(replace(PLAIN, depth=30_000, marker_share=0.0)).from_markers(90, rng())
    likeness = np.corrcoef(counts.toarray(), held.expression)[:90, 90:]
    for term, base in ((TERMS[0], TERMS[0]), ("CL:a1", TERMS[0])):
        mine = np.array([name == term for name in terms])
        assert (held.terms[likeness[mine].argmax(axis=1)] == base).all()
    alone = counts.toarray()[np.array([name == "CL:z" for name in terms])]
    assert np.corrcoef(alone.sum(axis=0), held.expression.mean(axis=0))[0, 1] > 0.99


def cells(draw: st.DrawFn) -> csr_matrix:
    rows, columns = draw(st.integers(0, 6)), draw(st.integers(1, 30))
    values = draw(st.lists(st.sampled_from([0, 0, 1, 2, 7, 500]), min_size=rows * columns, max_size=rows * columns))
    return csr_matrix(np.array(values, np.float32).reshape(rows, columns))


@given(counts=st.composite(cells)(), seed=st.integers(0, 2**32 - 1))
def test_thinning_never_adds_a_count(counts: csr_matrix, seed: int) -> None:
    before = counts.copy()
    thinned = thin(counts, rng(seed))
    assert (counts != before).nnz == 0
    assert thinned.shape == counts.shape
    assert thinned.dtype == np.float32
    assert (thinned.data >= 1).all()
    assert (thinned.toarray() <= counts.toarray()).all()
    assert (thin(counts, rng(seed)) != thinned).nnz == 0


def test_thinning_silences_genes_and_takes_molecules() -> None:
    counts = csr_matrix(np.full((40, 300), 50, np.float32))
    kept, taken = [], []
    for seed in range(60):
        thinned = thin(counts, rng(seed), gene_dropout=0.5).toarray()
        silent = (thinned == 0).all(axis=0)
        assert (thinned[:, ~silent] > 0).all()
        kept.append(1 - silent.mean())
        taken.append(thinned[:, ~silent].mean() / 50)
    assert np.mean(kept) == pytest.approx(0.75, abs=0.06)
    assert min(kept) > 0.4
    assert 0.3 < np.mean(np.array(taken) == 1.0) < 0.7
    assert 0.35 < min(taken) < 0.6
