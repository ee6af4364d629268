"""Arms of the drug benchmarks: known by key and hash, and trained on what they may see."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmarks.bench_drug_all import baselines, plain, ranges, same_pair, scores, seeds_apart, trained, tried
from benchmarks.drug_arms import Arm, arms, held_out, store, stored
from cellingua.molecules.response import Responses
from cellingua.molecules.smiles import Molecule
from cellingua.molecules.splits import unseen_lines
from cellingua.recipes.drug_data import DrugData
from cellingua.recipes.drug_tables import Question, asked

LINES, DRUGS = 60, 6


@pytest.fixture
def question() -> Question:
    """Return unseen lines of a small table whose responses follow its expression."""
    rng = np.random.default_rng(0)
    wide = rng.normal(size=(LINES, 12))
    value = (wide[:, :2] @ rng.normal(size=(2, DRUGS)) + rng.normal(0, 2, DRUGS)).ravel()
    line, drug = np.repeat(np.arange(LINES), DRUGS), np.tile(np.arange(DRUGS), LINES)
    names = np.array([f"line{i:02d}" for i in range(LINES)]), np.array([f"drug{i}" for i in range(DRUGS)])
    pairs = Responses(*names, line, drug, value)
    molecules = [Molecule(f"drug{i}", "C" * (i + 1), f"key{i}", 1, "") for i in range(DRUGS)]
    data = DrugData(
        pairs, {"unseen_lines": unseen_lines(pairs, 0)}, molecules, {"wide": wide},
        np.array([f"g{i}" for i in range(12)]), pd.DataFrame(), pd.DataFrame(),
    )  # fmt: skip
    return asked("tgsa", data, "unseen_lines")


def test_a_question_learns_and_asks_what_its_split_says(question: Question) -> None:
    asked_lines, learned = set(question.line.tolist()), np.isfinite(question.grid).any(axis=1)
    assert not learned[list(asked_lines)].any()
    line, drug = held_out(question)
    assert question.chosen is not None
    assert np.isnan(question.chosen[line, drug]).all()
    assert np.isfinite(question.grid[line, drug]).all()
    split = question.data.splits["unseen_lines"]
    assert len(line) == len(split.rows("val"))
    assert len(question.truth) == len(split.rows("test"))


def test_each_arm_is_named_once() -> None:
    names = [arm.name for arm in arms()]
    assert len(set(names)) == len(names)


def test_answers_are_known_by_key_and_hash(question: Question, tmp_path: Path) -> None:
    arm, answers = Arm(question.name, "network", "expression"), np.arange(len(question.truth), dtype=float)
    assert stored(arm, question, tmp_path) is None
    store(arm, question, answers, 1.0, tmp_path)
    assert np.array_equal(stored(arm, question, tmp_path), answers)
    assert stored(replace(arm, seed=1), question, tmp_path) is None
    assert stored(arm, replace(question, digest="of another split"), tmp_path) is None
    path = tmp_path / f"{arm.name}.safetensors"
    held = path.read_bytes()
    path.write_bytes(held[:-1] + bytes([held[-1] ^ 1]))
    assert stored(arm, question, tmp_path) is None


def test_every_baseline_answers_and_is_scored(question: Question) -> None:
    known_names = set(baselines(question))
    assert known_names == set(baselines(replace(question, kind="random_pairs"))) - {"matrix factorisation, no features"}
    perfect = scores(question, question.truth, 5)
    assert perfect["pearson"] == 1
    assert perfect["rmse"] == 0
    assert perfect["pearson in a drug"] == 1


def test_the_other_screens_own_values_go_before_a_guess(question: Question) -> None:
    found = same_pair(question)
    there = np.isfinite(question.grid)
    assert np.array_equal(found[there], question.grid[there])
    assert np.isfinite(found).all()


def test_ranges_come_from_lines_that_the_network_had_not_seen(question: Question, tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    line, drug = held_out(question)
    said = question.grid[line, drug] + rng.normal(size=len(line))
    store(Arm(question.name, "network", "expression", 0, "train"), question, said, 1.0, tmp_path)
    answers = (question.truth + rng.normal(size=len(question.truth)))[None]
    found = ranges(question, answers, tmp_path)
    assert 0.75 < found["covered at 0.9"] <= 1
    assert ranges(replace(question, chosen=None), answers, tmp_path) == {}
    assert seeds_apart(question, [answers[0], answers[0]])["rmse"].endswith("± 0.0000")


def test_a_question_is_measured_whole(question: Question, tmp_path: Path) -> None:
    pytest.importorskip("rdkit")
    rows = plain(question, 2, ("trees",))
    assert list(rows) == [name for name in (*baselines(question), "field") if "trees" not in name]
    assert rows["field"]["rmse"] < rows["drug mean"]["rmse"]
    assert {tuple(row) for row in rows.values()} == {tuple(rows["field"])}
    store(Arm(question.name, "network", "expression"), question, question.truth, 1.0, tmp_path)
    found, _, missing = trained(question, 0, tmp_path)
    assert [(name, row["rmse"]) for name, row in found.items()] == [("fusion network, expression", 0.0)]
    wanted = [arm.name for arm in arms() if arm.question == question.name and arm.learn == "all"]
    assert sorted([*missing, Arm(question.name, "network", "expression").name]) == sorted(wanted)


def test_what_was_tried_has_its_measures() -> None:
    for settings in tried().values():
        for measures in settings.values():
            assert -1 <= float(measures["pearson"]) <= 1
            assert measures["rmse"] == "–" or float(measures["rmse"]) > 0  # where none was written down
