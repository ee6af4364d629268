"""The few-shot benchmark: who is learned from and who is judged, tables, what is kept between runs."""

from __future__ import annotations

import importlib
import json
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from scipy.sparse import csr_matrix

from cellingua.cells.counts import CountBlocks
from cellingua.cells.doctor import examine
from cellingua.cells.reading import open_cells

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A way to the benchmark's modules, from the repository's root."""
    monkeypatch.syspath_prepend(str(ROOT))
    return lambda name: importlib.import_module(f"benchmarks.{name}")


def labelled(sets: ModuleType, kind: str = "cells", n: int = 120) -> Any:
    """Return a set of three planted types, one of them rare, over 12 donors or two protocols."""
    rng = np.random.default_rng(0)
    codes = np.concatenate([[0, 1, 2] * 3, rng.choice(3, n - 9, p=[0.6, 0.37, 0.03])])
    profiles = np.random.default_rng(1).gamma(0.5, 2.0, (3, 80))
    counts = csr_matrix(rng.poisson(profiles[codes]).astype(np.float32))
    groups = {
        "cells": np.full(n, ""),
        "donors": np.array([f"d{number % 12}" for number in range(n)]),
        "protocols": np.array(["p", "q"])[np.arange(n) // 3 % 2],
    }[kind]
    totals = np.asarray(counts.sum(axis=1), np.float64).ravel()
    labels = np.array(["B cell", "NK", "mast"])[codes]
    return sets.LabelledSet("made", "Made", counts, totals, labels, groups, kind, False, Path("x"), "blood", "p")


def planted_set(sets: ModuleType) -> Any:
    """Return the cells of the small world as a set."""
    import small_world

    adata = small_world.cells(90, noise=0.2)
    with open_cells(adata) as file:
        block = CountBlocks(file, examine(file)).block(0, 90)
    return sets.LabelledSet(
        "made", "Made", block.counts, block.totals, adata.obs["own"].to_numpy(dtype=np.str_), np.full(90, ""),
        "cells", False, Path("x"), "blood",
    )  # fmt: skip


@pytest.mark.parametrize("kind", ["cells", "donors", "protocols"])
@pytest.mark.parametrize("protocol", ["1", "5", "20", "2:1", "80/20"])
def test_a_division_leaks_nothing_and_judges_every_type(bench: Any, kind: str, protocol: str) -> None:
    protocols = bench("fewshot_protocols")
    cells = labelled(bench("fewshot_sets"), kind)
    seen = set()
    for draw in range(protocols.DRAWS):
        split = protocols.divide(cells, protocol, draw)
        again = protocols.divide(cells, protocol, draw)
        assert (split.train == again.train).all()
        seen.add(tuple(split.train))
        assert not set(split.train) & set(split.test)
        if kind == "cells":
            assert set(cells.labels[split.test]) == set(cells.labels[split.train]) == {"B cell", "NK", "mast"}
            assert len(split.train) + len(split.test) == len(cells)
        else:
            assert not set(cells.groups[split.train]) & set(cells.groups[split.test])
        if kind == "protocols":
            assert set(cells.groups[split.train]) == {"p"}
            assert len(split.test) == (cells.groups == "q").sum()
        if protocol in ("1", "5", "20"):
            sizes = np.unique(cells.labels[split.train], return_counts=True)[1]
            assert sizes.max() == int(protocol)
        else:
            pool = (cells.groups == "p").sum() if kind == "protocols" else len(cells)
            assert abs(len(split.train) / pool - protocols.SHARES[protocol]) < 0.05
    assert len(seen) >= 4


def test_at_most_half_of_a_rare_type_is_learned_from(bench: Any) -> None:
    cells = labelled(bench("fewshot_sets"))
    split = bench("fewshot_protocols").divide(cells, "20", 0)
    rare = cells.labels == "mast"
    assert rare.sum() < 20
    assert (cells.labels[split.train] == "mast").sum() == rare.sum() // 2


def test_types_that_can_not_be_on_both_sides_are_left_out(bench: Any) -> None:
    sets = bench("fewshot_sets")
    cells = labelled(sets, "protocols")
    assert len(sets.without_rare(cells)) == len(cells)
    labels = cells.labels.copy()
    labels[:1] = "lone"
    kept = sets.without_rare(replace(cells, labels=labels))
    assert kept.left_out == ("lone",)
    assert len(kept) == len(cells) - 1
    assert "lone" not in kept.labels


def test_a_mean_is_over_draws_that_every_set_has_and_a_file_counts_once(bench: Any) -> None:
    tables = bench("fewshot_tables")

    def run(name: str, draw: int, value: float) -> dict[str, Any]:
        return {"set": name, "protocol": "5", "draw": draw, "method": "m", "macro_f1": value}

    three = ["baron", "pbmc_3p_to_5p", "pbmc_5p_to_3p"]
    runs = [run("baron", 0, 0.9), run("pbmc_3p_to_5p", 0, 0.2), run("pbmc_5p_to_3p", 0, 0.4), run("baron", 1, 0.5)]
    assert tables.average(runs, "macro_f1", "5", "m", three) == [0.6, None]
    assert tables.average(runs, "macro_f1", "5", "m", ["baron"]) == [0.7, round(float(np.std([0.9, 0.5], ddof=1)), 4)]
    assert tables.average(runs, "macro_f1", "1", "m", three) is None
    assert tables.of_set(runs, "macro_f1", "5", "baron", "m")[0] == 0.7


def test_the_bar_is_the_default_method_against_both_baselines(bench: Any) -> None:
    main = bench("bench_fewshot")

    def run(method: str, value: float) -> dict[str, Any]:
        return {"set": "baron", "protocol": "5", "draw": 0, "method": method, "macro_f1": value}

    runs = [run("classifier", 0.8), run("logistic", 0.7), run("neighbours", 0.85), run("prototypes", 0.9)]
    found = list(main.bars(runs, ["baron"], ["baron"]).values())
    assert [bar["ok"] for bar in found] == [True, False, True, False]
    assert [bar["value"] for bar in found][:2] == [0.1, -0.05]
    assert not any(bar["ok"] for bar in main.bars(runs[1:], ["baron"], ["baron"]).values())


def test_quick_methods_come_first_and_the_bar_before_the_rest(bench: Any) -> None:
    main = bench("bench_fewshot")
    sets = ["baron", "zheng_sorted"]
    todo = list(main.jobs(sets, ["1", "5", "2:1"], 2))
    keys = [(method.name, *rest) for method, *rest in todo]
    assert len(set(keys)) == len(keys)
    slow = [method.slow for method, *_ in todo]
    assert slow == sorted(slow)
    quick = [job for job in todo if not job[0].slow]
    assert len(quick) == sum(not method.slow for method in bench("fewshot_methods").METHODS) * 2 * 3 * 2
    assert [job[2] for job in quick][: len(quick) // 3] == ["5"] * (len(quick) // 3)
    assert [key for key in keys if key[0] == "langcell"] == [("langcell", "zheng_sorted", "5", 0)]


def test_what_was_measured_is_kept_and_a_line_cut_short_is_measured_again(bench: Any, tmp_path: Path) -> None:
    main, methods = bench("bench_fewshot"), bench("fewshot_methods")
    store = main.Store(tmp_path, "abc")
    job = (methods.METHODS[0], "baron", "5", 0)
    assert job not in store
    for draw in (0, 1):
        store.add({"method": job[0].name, "set": "baron", "protocol": "5", "draw": draw, "macro_f1": 0.5})
    assert job in main.Store(tmp_path, "abc")
    assert job not in main.Store(tmp_path, "other code")
    store.path.write_text(store.path.read_text()[:-5])
    again = main.Store(tmp_path, "abc")
    assert job in again
    assert (*job[:3], 1) not in again
    again.add({"method": job[0].name, "set": "baron", "protocol": "5", "draw": 1, "macro_f1": 0.5})
    assert len(main.Store(tmp_path, "abc").runs) == 2
    assert job not in main.Store(tmp_path, "abc", fresh=True)


@pytest.mark.parametrize("method", ["classifier", "prototypes"])
def test_few_cells_are_enough_for_our_methods(bench: Any, small_model: Any, method: str) -> None:
    """The benchmark's short way (one cell of each type stands in for validation) gives the answers of the usual way."""
    from cellingua.recipes.finetune import tune
    from cellingua.recipes.finetune_config import FinetuneConfig, LabelledCells

    sets, methods = bench("fewshot_sets"), bench("fewshot_methods")
    cells = planted_set(sets)
    split = bench("fewshot_protocols").divide(cells, "3", 0)
    chosen = next(one for one in methods.METHODS if one.name == method)
    said = methods.answer(chosen, methods.Prepared(cells), split, small_model, 7)
    known = LabelledCells(cells.counts[split.train], cells.totals[split.train], cells.labels[split.train].tolist())
    tuned = tune(small_model, known, FinetuneConfig(method=method, seed=7, tissue="blood"))
    block = LabelledCells(cells.counts[split.test], cells.totals[split.test], [""] * len(split.test))
    usual = np.array(tuned.classes)[tuned.probabilities(block).argmax(axis=1)]
    assert said.tolist() == usual.tolist()
    assert np.mean(said == cells.labels[split.test]) > 0.8


def test_every_quick_method_answers(bench: Any, small_model: Any) -> None:
    sets, methods, main = bench("fewshot_sets"), bench("fewshot_methods"), bench("bench_fewshot")
    cells = planted_set(sets)
    prepared = methods.Prepared(cells)
    runs = []
    for method in methods.METHODS:
        if not method.slow:
            runs.append(main.measure((method, "made", "5", 0), prepared, small_model))
    scores = {run["method"]: run["macro_f1"] for run in runs}
    assert len({(run["train"], run["test"]) for run in runs}) == 1
    assert all(score > 0.8 for name, score in scores.items() if name != "majority"), scores
    assert scores["majority"] < 0.5
    written = json.dumps(bench("fewshot_tables").tables(runs, {"made": "Made"}, []))
    assert "ours: classifier (default)" in written
