"""The bars of ``bench-zeroshot`` and the scoreboard's list of losses, from figures that are made up."""

from __future__ import annotations

from typing import Any

from benchmarks.bench_zeroshot import BARON, JOINED, LINEAGE, TUMOUR, WANTED, bars, shown
from benchmarks.scoreboard import losses, slim


def run(name: str, question: str, method: str, value: float) -> dict[str, Any]:
    """Return one run whose measures are all the same."""
    keys = ("accuracy", "macro_f1", "weighted_f1", "lineage_accuracy", "error_distance")
    classes = {"T": {"cells": 3, "precision": 1.0, "recall": value, "f1": value}}
    return {"set": name, "question": question, "method": method, "cells": 9, "candidates": 3, "per_class": classes,
            **dict.fromkeys(keys, value)}  # fmt: skip


def made(model: float, rival: float) -> dict[tuple[str, str, str], dict[str, Any]]:
    """Return the runs of a whole benchmark."""
    runs = [run(name, "terms", "model", model) for name in (*WANTED, JOINED, TUMOUR)]
    runs += [run(name, "terms", "markers", rival) for name in (*WANTED, TUMOUR)]
    runs += [run(name, "terms", "majority", 0.1) for name in (*WANTED, TUMOUR)]
    runs += [run(name, "ontology", "model", model) for name in LINEAGE]
    runs += [run(BARON, "folds", "model", model), run(BARON, "folds", "logistic", rival)]
    return {(one["set"], one["question"], one["method"]): one for one in runs}


def test_all_bars_hold_for_a_model_that_is_good_enough_and_not_for_another() -> None:
    joined = {"accuracy": 0.97, "macro_f1": 0.97}
    good = bars(made(0.97, 0.90), joined, 0.95)
    assert len(good) == 2 * len(WANTED) + 4 + 1 + len(WANTED) + 1 + 1 + len(LINEAGE) + 2
    assert all(bar["ok"] for bar in good.values())
    bad = bars(made(0.5, 0.6), {"accuracy": 0.5, "macro_f1": 0.5}, 0.4)
    assert not any(bar["ok"] for bar in bad.values())
    near = bars(made(0.97, 0.95), joined, 0.95)
    assert [name for name, bar in near.items() if not bar["ok"]] == ["macro-F1 above the best baseline, mean"]
    assert near["pbmc3k macro-F1 above markers"]["value"] == 0.02


def test_what_is_written_names_set_question_and_method() -> None:
    held = shown(made(0.9, 0.8))
    assert held["pbmc3k, terms"]["markers"]["macro_f1"] == 0.8
    assert "per_class" not in held["pbmc3k, terms"]["model"]


def test_losses_and_what_is_kept() -> None:
    runs = list(made(0.7, 0.8).values())
    told = losses(runs)
    assert "pbmc3k, terms: markers by 0.100" in told
    assert f"{BARON}, folds: logistic by 0.100" in told
    assert not [line for line in told if "ontology" in line]
    assert losses(list(made(0.8, 0.7).values())) == []
    kept = {(one["question"], one["method"]): one["per_class"] for one in slim(runs)}
    assert kept["terms", "model"] == {"T": [3, 1.0, 0.7, 0.7]}
    assert kept["terms", "markers"] == {}
