"""Splits of pairs: each keeps its promise, follows from names and seed, and survives its file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cellingua.core.errors import FileError, InputError
from cellingua.molecules.response import Responses, read_table, responses
from cellingua.molecules.splits import (
    KINDS,
    OUT,
    ROLES,
    PairSplit,
    check_split,
    digest,
    random_pairs,
    read_split,
    stored_split,
    unseen_both,
    unseen_drugs,
    unseen_lines,
    unseen_tissues,
    write_split,
)


def table(lines: int = 30, drugs: int = 20, holes: float = 0.3, seed: int = 0) -> Responses:
    rng = np.random.default_rng(seed)
    rows = [(f"L{i:02}", f"D{j:02}", rng.normal()) for i in range(lines) for j in range(drugs) if rng.random() > holes]
    return responses(pd.DataFrame(rows, columns=["line", "drug", "ln_ic50"]))[0]


def tissues(pairs: Responses) -> dict[str, str]:
    return {str(name): "ABCDEF"[int(name[1:]) % 6] for name in pairs.lines}


def scaffolds(pairs: Responses) -> dict[str, str]:
    return {str(name): "" if int(name[1:]) % 5 == 0 else f"ring{int(name[1:]) % 7}" for name in pairs.drugs}


def draw(kind: str, pairs: Responses, seed: int) -> PairSplit:
    if kind == "random_pairs":
        return random_pairs(pairs, seed)
    if kind == "unseen_lines":
        return unseen_lines(pairs, seed, strata=tissues(pairs))
    if kind == "unseen_tissues":
        return unseen_tissues(pairs, tissues(pairs), seed)
    if kind == "unseen_drugs":
        return unseen_drugs(pairs, scaffolds(pairs), seed)
    return unseen_both(pairs, scaffolds(pairs), seed, strata=tissues(pairs))


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=25)
@given(seed=st.integers(0, 10_000))
def test_each_split_keeps_what_it_promises(kind: str, seed: int) -> None:
    pairs = table(seed=seed % 7)
    split = draw(kind, pairs, seed)
    check_split(split, pairs, tissues=tissues(pairs), scaffolds=scaffolds(pairs))
    assert split.kind == kind
    # counted once more here, without check_split's own bookkeeping
    by = {role: split.rows(role) for role in ROLES}
    line = {role: set(pairs.line[rows].tolist()) for role, rows in by.items()}
    drug = {role: set(pairs.drug[rows].tolist()) for role, rows in by.items()}
    if kind in ("unseen_lines", "unseen_tissues", "unseen_both"):
        assert len(line["train"] | line["val"] | line["test"]) == sum(map(len, line.values()))
    if kind in ("unseen_drugs", "unseen_both"):
        assert len(drug["train"] | drug["val"] | drug["test"]) == sum(map(len, drug.values()))
    out = (split.role == OUT).sum()
    assert sum(map(len, by.values())) + out == len(pairs)
    assert bool(out) == (kind == "unseen_both")
    assert (draw(kind, pairs, seed).role == split.role).all()


@pytest.mark.parametrize("kind", ["random_pairs", "unseen_lines"])
def test_shares_are_kept_in_every_line_and_stratum(kind: str) -> None:
    pairs = table(60, 40, 0.2)
    split = draw(kind, pairs, 3)
    shares = (0.8, 0.1, 0.1) if kind == "random_pairs" else (0.6, 0.2, 0.2)
    for role, share in zip(ROLES, shares, strict=True):
        assert np.mean(split.role == role) == pytest.approx(share, abs=0.04)
        if kind == "random_pairs":
            each = np.bincount(pairs.line[split.rows(role)], minlength=60) / np.bincount(pairs.line)
            assert np.abs(each - share).max() < 0.06
        else:
            inside = {tissues(pairs)[name] for name in pairs.lines[pairs.line[split.rows(role)]]}
            assert inside == set("ABCDEF")


def test_another_seed_is_another_draw() -> None:
    pairs = table()
    for kind in KINDS:
        assert (draw(kind, pairs, 0).role != draw(kind, pairs, 1).role).any()


def test_a_broken_promise_is_found() -> None:
    pairs = table()
    split = draw("unseen_lines", pairs, 0)
    role = split.role.copy()
    role[split.rows("test")[0]] = "train"
    with pytest.raises(InputError, match="The line L"):
        check_split(PairSplit("unseen_lines", role), pairs)
    whole = draw("unseen_tissues", pairs, 0)
    check_split(PairSplit("unseen_lines", whole.role), pairs)
    with pytest.raises(InputError, match="The tissue"):
        check_split(PairSplit("unseen_tissues", split.role), pairs, tissues=tissues(pairs))
    with pytest.raises(InputError, match="No pair is in val"):
        check_split(PairSplit("random_pairs", np.where(role == "val", "test", role)), pairs)
    with pytest.raises(InputError, match="was given"):
        check_split(split, table(seed=3))


def test_a_split_comes_back_from_its_file_and_a_changed_file_is_refused(tmp_path: Path) -> None:
    pairs = table()
    split = draw("unseen_both", pairs, 5)
    path = tmp_path / "split.tsv"
    found = write_split(path, split, pairs)
    assert found == digest(split, pairs)
    again = read_split(path, pairs)
    assert (again.role == split.role).all()
    assert (again.kind, again.seed) == ("unseen_both", 5)
    with pytest.raises(FileError, match="other pairs"):
        read_split(path, table(seed=1))
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace("\ttest\n", "\ttrain\n", 1), encoding="utf-8")
    with pytest.raises(FileError, match="was changed"):
        read_split(path, pairs)
    path.write_text("nothing", encoding="utf-8")
    with pytest.raises(FileError, match="not a split"):
        read_split(path, pairs)


def test_bad_calls_are_refused() -> None:
    pairs = table(4, 3, 0)
    with pytest.raises(InputError, match="no group: L00"):
        unseen_tissues(pairs, {}, 0)
    with pytest.raises(InputError, match="no scaffold: D00"):
        unseen_drugs(pairs, {}, 0)
    with pytest.raises(InputError, match="1 groups"):
        unseen_tissues(pairs, dict.fromkeys(map(str, pairs.lines), "skin"), 0)
    with pytest.raises(InputError, match="Shares"):
        random_pairs(pairs, 0, shares=(0.5, 0.5, 0.5))
    with pytest.raises(InputError, match="roles"):
        stored_split("random_pairs", ["train", "exam"])


def test_the_stored_splits_keep_their_promises(shared: Path) -> None:
    folder = shared / "data" / "drug" / "tgsa"
    frame = read_table(folder / "pairs.parquet").sort_values(["line", "drug"])
    pairs, _ = responses(frame)
    drugs = pd.read_csv(folder / "drugs.tsv", sep="\t", keep_default_na=False)
    rings = dict(zip(drugs.drug, drugs.scaffold, strict=True))
    for kind, column in (
        ("random_pairs", "split_random"),
        ("unseen_lines", "split_line"),
        ("unseen_drugs", "split_drug"),
    ):
        split = stored_split(kind, frame[column].to_numpy())
        check_split(split, pairs, scaffolds=rings)
        assert len(split.rows("test")) == {"random_pairs": 8_284, "unseen_lines": 16_276, "unseen_drugs": 18_348}[kind]
