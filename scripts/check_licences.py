"""Check the licences of everything that a plain installation of cellingua brings along.

    python scripts/check_licences.py [--markdown]

Follows the requirements of the installed package (no extras, no groups) through the installed distributions, reads
the licence that each one states about itself, and exits with 1 where one is of the GPL family, states none, or is
not installed. A linking exception, such as GCC's for its run-time library, is allowed. ``--markdown`` prints the table
of ``docs/dependencies.md``.
"""

from __future__ import annotations

import argparse
import re
import sys
from importlib import metadata

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = "cellingua"
COPYLEFT = re.compile(r"\b[AL]?GPL|GNU (Affero|Lesser|Library|General)", re.IGNORECASE)
EXCEPTION = re.compile(r"L?GPL[-\w.+]* WITH GCC-exception[-\w.]*", re.IGNORECASE)
NOT_STATED = ""


def closure(root: str) -> tuple[dict[str, list[str]], list[str]]:
    """Return what `root` needs, name -> names that need it, and the names that aren't installed."""
    needed: dict[str, list[str]] = {}
    missing: list[str] = []
    waiting = [(root, frozenset[str]())]
    seen: set[tuple[str, frozenset[str]]] = set()
    while waiting:
        name, extras = waiting.pop()
        if (name, extras) in seen:
            continue
        seen.add((name, extras))
        try:
            lines = metadata.requires(name) or []
        except metadata.PackageNotFoundError:
            missing.append(name)
            continue
        for line in lines:
            wanted = Requirement(line)
            marker = wanted.marker
            if marker and not any(marker.evaluate({"extra": extra}) for extra in ("", *extras)):
                continue
            below = canonicalize_name(wanted.name)
            if name not in needed.setdefault(below, []):
                needed[below].append(name)
            waiting.append((below, frozenset(wanted.extras)))
    return needed, missing


def licence_of(name: str) -> str:
    """Return the licence that a distribution states: its SPDX expression, its classifiers, or its text's first line."""
    held = metadata.metadata(name)
    if "License-Expression" in held:
        return str(held["License-Expression"])
    classifiers = [line.split("::")[-1].strip() for line in held.get_all("Classifier") or [] if "License ::" in line]
    text = " ".join(str(held.json.get("license", "")).split())
    if text and len(text) < 80 and text.lower() != "unknown":
        return text
    if classifiers:
        return "; ".join(classifiers)
    return re.split(r"\bCopyright\b", text)[0].strip()[:80] or _from_file(name)


def _from_file(name: str) -> str:
    """Return the first line with words of a distribution's licence file, for those that state nothing else."""
    for path in metadata.files(name) or []:
        if re.fullmatch(r"licen[cs]e(\.\w+)?", path.name, re.IGNORECASE) and ".dist-info" in str(path):
            lines = path.read_text(encoding="utf-8").splitlines()
            return next((line.strip() for line in lines if line.strip()), NOT_STATED)
    return NOT_STATED


def is_copyleft(licence: str) -> bool:
    """Return whether a licence is of the GPL family, exceptions for linking aside."""
    return bool(COPYLEFT.search(EXCEPTION.sub("", licence)))


def main() -> int:
    """Print the table; return 1 where something can't be allowed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--markdown", action="store_true", help="print a Markdown table without versions")
    args = parser.parse_args()
    needed, missing = closure(ROOT)
    rows = [(name, licence_of(name), needed[name]) for name in sorted(needed) if name not in missing]
    if args.markdown:
        print("| distribution | licence that it states | needed by |\n|---|---|---|")
    for name, licence, parents in rows:
        by = ", ".join(sorted(parents))
        print(f"| {name} | {licence} | {by} |" if args.markdown else f"{name:<22} {licence:<60} {by}")
    refused = [f"{name}: {licence}" for name, licence, _ in rows if is_copyleft(licence)]
    unstated = [name for name, licence, _ in rows if licence == NOT_STATED]
    for title, names in (("GPL family", refused), ("no licence stated", unstated), ("not installed", missing)):
        if names:
            print(f"{title}: {'; '.join(names)}", file=sys.stderr)
    print(f"{len(rows)} distributions, {len(refused)} of the GPL family", file=sys.stderr)
    return 1 if refused or unstated or missing else 0


if __name__ == "__main__":
    sys.exit(main())
