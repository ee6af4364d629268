"""Which pairs are learned from, which choose, and which judge: five questions, five splits, and files that keep them.

======================  =============================================================================================
`random_pairs`          fills holes of a table whose lines and drugs are all known: says almost nothing about encoders
`unseen_lines`          a new cell line; strata such as tissue are divided alike
`unseen_tissues`        a line of a tissue without any line to learn from
`unseen_drugs`          a molecule whose scaffold was never seen
`unseen_both`           new lines and new drugs at once; pairs of a new line with a known drug (or the other way
                        round) are left out
======================  =============================================================================================

A split is decided by its seed and by names: the order of a file decides nothing. `check_split` proves the promise of
its kind on the pairs themselves, and `read_split` refuses a file whose pairs are not those it was made for.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellingua.core.errors import FileError, InputError
from cellingua.core.files import write_text
from cellingua.molecules.response import Responses

ROLES = ("train", "val", "test")
OUT = "out"
#: What no two roles may share in a split of each kind.
APART: Mapping[str, tuple[str, ...]] = {
    "random_pairs": (),
    "unseen_lines": ("line",),
    "unseen_tissues": ("line", "tissue"),
    "unseen_drugs": ("drug", "scaffold"),
    "unseen_both": ("line", "drug", "scaffold"),
}
KINDS = tuple(APART)
Shares = tuple[float, float, float]
Groups = Mapping[str, str]


@dataclass(frozen=True)
class PairSplit:
    """The role of each pair.

    Attributes
    ----------
    kind
        One of `KINDS`.
    role
        str (n,): ``train``, ``val``, ``test``, or ``out`` for a pair that has no part in it.
    seed
        What it was drawn with; None for a split that came from elsewhere.
    """

    kind: str
    role: NDArray[np.str_]
    seed: int | None = None

    def rows(self, *roles: str) -> NDArray[np.int64]:
        """Return the numbers of the pairs in any of `roles`, ascending."""
        return np.flatnonzero(np.isin(self.role, roles))


def random_pairs(pairs: Responses, seed: int, *, shares: Shares = (0.8, 0.1, 0.1)) -> PairSplit:
    """Divide the pairs of each line in the same proportion (of a line with few pairs as nearly as it goes)."""
    _check_shares(shares)
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(pairs))
    order = order[np.argsort(pairs.line[order], kind="stable")]
    # One walk over the pairs, line after line: a running share gives each line its own and the whole the right sum.
    ends = np.cumsum(shares)[:2]
    starts = np.concatenate([[0], np.cumsum(np.bincount(pairs.line, minlength=len(pairs.lines)))])[pairs.line[order]]
    sizes = np.bincount(pairs.line, minlength=len(pairs.lines))[pairs.line[order]]
    place = (np.arange(len(pairs)) - starts + rng.random(len(pairs.lines))[pairs.line[order]]) / sizes % 1.0
    role = np.empty(len(pairs), dtype="<U5")
    role[order] = np.array(ROLES)[np.searchsorted(ends, place, side="right")]
    return PairSplit("random_pairs", role, seed)


def unseen_lines(
    pairs: Responses, seed: int, *, strata: Groups | None = None, shares: Shares = (0.6, 0.2, 0.2)
) -> PairSplit:
    """Divide the lines; with `strata` (line -> tissue) each stratum is divided alike, small ones together."""
    names = _named(pairs.lines, strata, "line") if strata else np.zeros(len(pairs.lines), "<U1")
    return PairSplit("unseen_lines", _dealt(names, seed, shares)[pairs.line], seed)


def unseen_tissues(pairs: Responses, tissues: Groups, seed: int, *, shares: Shares = (0.6, 0.2, 0.2)) -> PairSplit:
    """Divide whole tissues (line -> tissue) by their pairs."""
    role = _whole_groups(_named(pairs.lines, tissues, "line"), pairs.line, seed, shares)
    return PairSplit("unseen_tissues", role[pairs.line], seed)


def unseen_drugs(pairs: Responses, scaffolds: Groups, seed: int, *, shares: Shares = (0.6, 0.2, 0.2)) -> PairSplit:
    """Divide whole scaffolds (drug -> scaffold) by their drugs; a drug without a ring is a scaffold of its own."""
    role = _whole_groups(_scaffold_names(pairs, scaffolds), np.arange(len(pairs.drugs)), seed, shares)
    return PairSplit("unseen_drugs", role[pairs.drug], seed)


def unseen_both(
    pairs: Responses,
    scaffolds: Groups,
    seed: int,
    *,
    strata: Groups | None = None,
    shares: Shares = (0.6, 0.2, 0.2),
) -> PairSplit:
    """Divide lines and scaffolds; a pair has a role where its line and its drug have the same, else it is out."""
    line = unseen_lines(pairs, seed, strata=strata, shares=shares).role
    drug = unseen_drugs(pairs, scaffolds, seed, shares=shares).role
    return PairSplit("unseen_both", np.where(line == drug, line, OUT), seed)


def stored_split(kind: str, role: Sequence[str] | NDArray[Any]) -> PairSplit:
    """Return a split that came with its data: one role a pair."""
    split = PairSplit(kind, np.asarray(role, dtype=np.str_))
    unknown = sorted(set(split.role.tolist()) - {*ROLES, OUT})
    if kind not in APART or unknown:
        raise InputError(f"A split of kind {kind!r} with the roles {', '.join([*ROLES, *unknown])}.",
                         f"kinds: {', '.join(KINDS)}; roles: {', '.join((*ROLES, OUT))}")  # fmt: skip
    return split


def check_split(
    split: PairSplit, pairs: Responses, *, tissues: Groups | None = None, scaffolds: Groups | None = None
) -> None:
    """Prove that a split keeps the promise of its kind; tissues and scaffolds are checked where they are given.

    Raises
    ------
    InputError
        Its length is not that of the pairs, a role is empty, or two roles share what their kind keeps apart.
    """
    if len(split.role) != len(pairs):
        raise InputError(f"A split of {len(split.role):,} pairs was given {len(pairs):,}.", "the pairs it was made for")
    empty = [role for role in ROLES if not (split.role == role).any()]
    if empty:
        raise InputError(f"No pair is in {', '.join(empty)}.", "pairs in train, val and test", "fewer strata or groups")
    names = {"line": pairs.lines[pairs.line], "drug": pairs.drugs[pairs.drug]}
    if tissues is not None:
        names["tissue"] = _named(pairs.lines, tissues, "line")[pairs.line]
    if scaffolds is not None:
        names["scaffold"] = _scaffold_names(pairs, scaffolds)[pairs.drug]
    for what in APART[split.kind]:
        if what not in names:
            continue
        seen: dict[str, str] = {}
        for role in ROLES:
            for name in np.unique(names[what][split.role == role]):
                if seen.setdefault(str(name), role) != role:
                    raise InputError(f"The {what} {name} is in {seen[str(name)]} and in {role}.",
                                     f"no {what} in two roles ({split.kind})")  # fmt: skip


def digest(split: PairSplit, pairs: Responses) -> str:
    """Return the SHA-256 of kind, names and roles: what two people compare before they compare figures."""
    return hashlib.sha256(_body(split, pairs).encode()).hexdigest()


def write_split(path: Path, split: PairSplit, pairs: Responses) -> str:
    """Write a split as text: a line of JSON after ``#``, then line, drug and role of each pair. Returns its hash."""
    found = digest(split, pairs)
    head = {"kind": split.kind, "seed": split.seed, "pairs": len(pairs), "sha256": found}
    write_text(path, "#" + json.dumps(head) + "\n" + _body(split, pairs))
    return found


def read_split(path: Path, pairs: Responses) -> PairSplit:
    """Read a split for these pairs.

    Raises
    ------
    FileError
        The file is missing, was changed since it was written, or belongs to other pairs.
    """
    try:
        head_line, body = path.read_text(encoding="utf-8").split("\n", 1)
        head = json.loads(head_line.removeprefix("#"))
        rows = [row.split("\t") for row in body.splitlines()[1:]]
        split = PairSplit(str(head["kind"]), np.array([row[2] for row in rows], dtype=np.str_), head["seed"])
        sha = hashlib.sha256(body.encode()).hexdigest()
    except (OSError, ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        raise FileError(f"{path} is not a split of pairs ({error}).", "a file that write_split wrote") from error
    if sha != head.get("sha256") or split.kind not in APART:
        raise FileError(f"{path} was changed since it was written: its hash is not the one it states.",
                        f"SHA-256 {head.get('sha256')}")  # fmt: skip
    theirs = [(row[0], row[1]) for row in rows]
    ours = list(zip(pairs.lines[pairs.line].tolist(), pairs.drugs[pairs.drug].tolist(), strict=True))
    if theirs != ours:
        raise FileError(f"{path} divides {len(theirs):,} other pairs than these {len(ours):,}.",
                        "the same lines and drugs, repeats averaged")  # fmt: skip
    return split


def _body(split: PairSplit, pairs: Responses) -> str:
    rows = zip(pairs.lines[pairs.line], pairs.drugs[pairs.drug], split.role, strict=True)
    return "\n".join([f"line\tdrug\t{split.kind}", *(f"{a}\t{b}\t{c}" for a, b, c in rows)]) + "\n"


def _dealt(strata: NDArray[np.str_], seed: int, shares: Shares) -> NDArray[np.str_]:
    """Return a role for each member, each stratum divided alike; members of small strata follow one another."""
    _check_shares(shares)
    order = np.random.default_rng(seed).permutation(len(strata))
    order = order[np.argsort(strata[order], kind="stable")]
    # Low-discrepancy places: any stretch of the walk, and so every stratum, holds the shares as nearly as it can.
    place = (np.arange(len(strata)) * 0.6180339887498949 + 0.5) % 1.0
    ranked = np.empty(len(strata))
    ranked[np.argsort(place, kind="stable")] = (np.arange(len(strata)) + 0.5) / len(strata)
    role = np.empty(len(strata), dtype="<U5")
    role[order] = np.array(ROLES)[np.searchsorted(np.cumsum(shares)[:2], ranked, side="right")]
    return role


def _whole_groups(groups: NDArray[np.str_], member: NDArray[np.int64], seed: int, shares: Shares) -> NDArray[np.str_]:
    """Return a role for each entry of `groups`: groups in random order go to the role that lacks most of its share."""
    _check_shares(shares)
    names, codes = np.unique(groups, return_inverse=True)
    if len(names) < len(ROLES):
        raise InputError(f"There are {len(names)} groups.", f"at least {len(ROLES)}: one for each role")
    sizes = np.bincount(codes[member], minlength=len(names)).astype(float)
    order = np.random.default_rng(seed).permutation(len(names))
    wanted, held = np.array(shares) * sizes.sum(), np.zeros(len(ROLES))
    role = np.zeros(len(names), np.int64)
    for done, group in enumerate(order):
        bare = np.flatnonzero(held == 0)
        # The last groups go to roles that have none yet, so that no role stays empty.
        left = bare if len(bare) and len(order) - done <= len(bare) else np.arange(len(ROLES))
        role[group] = left[np.argmax(((wanted - held) / wanted)[left])]
        held[role[group]] += max(sizes[group], 1e-9)
    return np.array(ROLES)[role][codes]


def _named(names: NDArray[np.str_], groups: Groups, what: str) -> NDArray[np.str_]:
    missing = [str(name) for name in names if not groups.get(str(name))]
    if missing:
        raise InputError(f"{len(missing):,} {what}s have no group: {', '.join(missing[:5])}.", f"one for each {what}")
    return np.array([groups[str(name)] for name in names], dtype=np.str_)


def _scaffold_names(pairs: Responses, scaffolds: Groups) -> NDArray[np.str_]:
    missing = [str(name) for name in pairs.drugs if str(name) not in scaffolds]
    if missing:
        raise InputError(f"{len(missing):,} drugs have no scaffold: {', '.join(missing[:5])}.", "one for each drug")
    return np.array([scaffolds[str(name)] or f"(no ring: {name})" for name in pairs.drugs], dtype=np.str_)


def _check_shares(shares: Shares) -> None:
    if len(shares) != 3 or min(shares) <= 0 or abs(sum(shares) - 1) > 1e-9:
        raise InputError(f"Shares of {shares} were asked for.", "three above 0 whose sum is 1, such as (0.8, 0.1, 0.1)")
