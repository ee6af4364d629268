"""Tables of results: what they show, what they say of baselines that win, and nothing of a file's text as markup."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cellingua.bench.tables import escaped, groups, markdown, matrix, picture, text, verdict


def run(method: str, f1: float, name: str = "one", question: str = "terms") -> dict[str, Any]:
    """Return one measured run."""
    return {
        "set": name, "question": question, "method": method, "cells": 100, "candidates": 3, "accuracy": f1,
        "macro_f1": f1, "weighted_f1": f1, "lineage_accuracy": None, "error_distance": None,
        "intervals": {"macro_f1": [f1 - 0.02, f1 + 0.02]}, "per_class": {},
        "smoothed": {"macro_f1": f1 + 0.01}, "draws": {"accuracy": [f1], "macro_f1": [f1]},
    }  # fmt: skip


def result(**titles: str) -> dict[str, Any]:
    """Return a result of two sets; the model wins on the first and loses on the second."""
    about = {"cells": 100, "types": 3, "in_training": False, "zero_shot": True, "why": ""}
    return {
        "sets": {name: {**about, "title": titles.get(name, name)} for name in ("one", "two")},
        "runs": [run("model", 0.8), run("markers", 0.7), run("model", 0.5, "two"), run("majority", 0.6, "two")],
        "skipped": [{"set": "one", "question": "terms", "method": "profiles", "reason": "no tables"}] * 2,
    }


def test_a_baseline_that_wins_is_named() -> None:
    held = result()
    shown = text(held)
    assert "Best baseline: marker scoring (cellconsensus), macro-F1 0.100 below the model." in shown
    assert "A baseline WINS: majority, macro-F1 0.100 above the model." in shown
    assert shown.count("no tables") == 1
    assert "0.800 (0.780 to 0.820)" in shown
    assert verdict([run("model", 0.5)]) == ""
    assert verdict([run("model", 0.5, question="share"), run("zero_shot", 0.9, question="share")]) == ""


def test_methods_are_called_what_they_are_where_cells_were_labelled() -> None:
    held = result()
    held["runs"] = [run("model", 0.8, question="share"), run("untrained", 0.3, question="few:1")]
    shown = text(held)
    assert "model, tuned (classifier)" in shown
    assert "untrained tower + linear" in shown
    assert "1 cell a type" in shown
    assert "80/20, each type divided" in shown


def test_titles_of_files_are_data() -> None:
    held = result(one="<script>|`a`*\x1b[31m")
    for shown in (text(held), markdown(held)):
        assert "\x1b" not in shown
    assert "<script>" not in markdown(held)
    assert escaped("a|b") == "a\\|b"


def test_markdown_and_matrix_hold_the_same_figures(tmp_path: Path) -> None:
    held = result()
    assert len(groups(held)) == 2
    names, methods, values = matrix(held, "terms", lambda one: one["macro_f1"])
    assert (names, methods) == (["one", "two"], ["model", "markers", "majority"])
    assert values == [[0.8, 0.7, None], [0.5, None, 0.6]]
    assert "| majority | 0.600 |" in markdown(held)
    held["sets"]["two"] |= {"in_training": True, "zero_shot": False, "why": "seen"}
    assert "NOT zero-shot: seen" in markdown(held)
    for name in ("a.png", "b.svg"):
        picture(held, "terms", tmp_path / name)
        assert (tmp_path / name).stat().st_size > 1000
