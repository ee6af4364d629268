"""How many labels of published data sets resolve to their curated term, on labels set aside before the rules.

Run as ``make bench-labels`` or ``python -m benchmarks.bench_labels``. The labels and their split are described in
``benchmarks/label_split.py``. Compared with reading a label by exact name, and by name or synonym in any case. Writes
``benchmarks/results/labels.json`` and exits 0 only where the bar holds: at least 95 % of at least 200 labels set aside.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

from benchmarks.common import at_least, write_result
from benchmarks.label_split import SHIPPED, LabelRow, collect, digest, is_set_aside, read_shipped
from cellingua.words.naming import name_label
from cellingua.words.ontology import Ontology, load_ontology

HERE = Path(__file__).resolve().parent

BAR, LEAST = 0.95, 200
FULL_DIGEST = "574076d2a02822bbcd32aa6801b2e0ce61e1c15fc8813b5415adeaf55203c160"
REVIEW = HERE / "data" / "labels_reviewed.tsv"
Reader = Callable[[str, str], str | None]


def by_rules(label: str, tissue: str) -> str | None:
    """Read a label with `cellingua.words.naming`."""
    return name_label(label, tissue=tissue or None).term_id


def baselines() -> dict[str, Reader]:
    """Return the simpler readers: exact name, and name or synonym whatever the case."""
    ontology = load_ontology("CL")
    names = {ontology.name(i): i for i in ontology.ids}
    return {
        "exact name": lambda label, tissue: names.get(label),
        "name or synonym, any case": lambda label, tissue: ontology.find(label),
    }


def near(ontology: Ontology, found: str | None, wanted: Iterable[str]) -> bool:
    """Return whether a term is the one wanted, its parent or its child."""
    if found is None:
        return False
    return any(w == found or w in ontology.parents(found) or found in ontology.parents(w) for w in wanted)


def score(rows: list[LabelRow], reader: Reader) -> dict[str, float | int]:
    """Return the counts of one reader over rows."""
    ontology = load_ontology("CL")
    right = close = none = other = 0
    for row in rows:
        wanted = [i for i in row.term_id.split("|") if i in ontology]
        found = reader(row.label, row.tissue)
        is_right = found is None if row.term_id == "none" else found in wanted
        right += is_right
        close += is_right or near(ontology, found, wanted)
        none += found is None
        other += found is not None and not (is_right or near(ontology, found, wanted))
    n = max(len(rows), 1)
    return {
        "labels": len(rows),
        "right": right,
        "right_share": round(right / n, 4),
        "within_one_step": close,
        "within_one_step_share": round(close / n, 4),
        "free_text": none,
        "other_term": other,
    }


def _digest(label: str, tissue: str) -> str:
    """Return what a label stands as in the review where its text may not be shipped."""
    return "sha256:" + hashlib.sha256(f"{label}\t{tissue}".encode()).hexdigest()


def apply_review(rows: list[LabelRow]) -> tuple[list[LabelRow], int]:
    """Return rows with the ids of the blind review where there is one, and how many those are.

    The review (label, tissue, term_id) was made by somebody who saw labels, tissues and the ids of the sources, and
    neither the rules nor what they answer. Several ids that are equally right are joined by ``|``; ``none`` says
    that the label names no one type, and that staying free text is right. A label that may not be shipped stands as
    ``sha256:`` of label, tab and tissue.
    """
    if not REVIEW.exists():
        return rows, 0
    with open(REVIEW, encoding="utf-8") as handle:
        lines = [line.rstrip("\n").split("\t") for line in handle if line.strip() and not line.startswith("#")]
    reviewed = {line[0] if line[0].startswith("sha256:") else _digest(line[0], line[1]): line[2] for line in lines[1:]}
    out = []
    for row in rows:
        term = reviewed.get(_digest(row.label, row.tissue), row.term_id)
        out.append(LabelRow(row.label, row.tissue, term, row.source, row.licence))
    return out, len(reviewed)


def measure(shared: Path) -> dict:
    """Return all figures."""
    full = (shared / "data" / "cells").is_dir()
    rows = collect(shared) if full else []
    aside = [row for row in rows if is_set_aside(row.label)] if full else read_shipped()
    if full and digest(aside) != FULL_DIGEST:
        raise SystemExit(f"the labels set aside have changed: {digest(aside)}, expected {FULL_DIGEST}")
    reviewed, n_reviewed = apply_review(aside)
    groups = {
        "set aside": reviewed,
        "set aside, ids as in the sources": aside,
        "set aside, sources with curated ids": [r for r in aside if not r.source.endswith(".parquet")],
        "set aside, profiles (ids by name rules)": [r for r in aside if r.source.endswith(".parquet")],
        "development": [row for row in rows if not is_set_aside(row.label)],
        "development, sources with curated ids": [
            r for r in rows if not is_set_aside(r.label) and not r.source.endswith(".parquet")
        ],
    }
    figures: dict = {}
    for group, members in groups.items():
        if members:
            figures[group] = {"rules": score(members, by_rules)}
            figures[group] |= {name: score(members, reader) for name, reader in baselines().items()}
    kinds = Counter(name_label(row.label, tissue=row.tissue or None).how for row in aside)
    figures["how"] = dict(sorted(kinds.items()))
    figures["reviewed_ids"] = n_reviewed
    figures["labels_read"] = "all" if full else "those that may be shipped (no shared data folder)"
    figures["set_aside_sha256"] = digest(aside)
    return figures


def show(figures: dict) -> None:
    """Print the table of readers."""
    print(f"{'labels':<42}{'reader':<28}{'n':>5}{'right':>8}{'one step':>10}{'none':>6}{'other':>7}")
    for group, readers in figures.items():
        for reader, s in readers.items() if isinstance(readers, dict) and "rules" in readers else ():
            print(
                f"{group:<42}{reader:<28}{s['labels']:>5}{s['right_share']:>8.1%}"
                f"{s['within_one_step_share']:>10.1%}{s['free_text']:>6}{s['other_term']:>7}"
            )


def main() -> int:
    """Measure, print, write the result, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shared", type=Path, default=HERE.parent.parent / "shared")
    parser.add_argument("--sheet", type=Path, help="write labels and tissues for a blind review, and stop")
    arguments = parser.parse_args()
    if arguments.sheet:
        aside = [row for row in collect(arguments.shared) if is_set_aside(row.label)]
        lines = ["label\ttissue\tterm_id"] + [f"{row.label}\t{row.tissue}\t" for row in aside]
        arguments.sheet.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return 0
    figures = measure(arguments.shared)
    show(figures)
    rules = figures["set aside"]["rules"]
    bars = {"share_right": at_least(rules["right_share"], BAR), "labels": at_least(rules["labels"], LEAST)}
    return write_result("labels", figures, bars, data=[p for p in (SHIPPED, REVIEW) if p.exists()])


if __name__ == "__main__":
    sys.exit(main())
