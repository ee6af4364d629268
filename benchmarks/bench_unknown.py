"""Whether cells of a lineage that is not among the candidates are told from the others.

    python -m benchmarks.bench_unknown

Each lineage of a set (all T cells, all monocytes ...) is taken from the candidates in turn; the open-set score of its
cells is compared with that of the cells whose type stayed. Left-out models on left-out sets, the score fitted on the
other sets; then the shipped model on the evaluation sets, as they fall. Bar: mean area under the ROC curve over the
lineages of the left-out sets at least 0.85. Single types are shown beside it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.answers_judge import from_command_line
from benchmarks.common import at_least, write_result
from cellingua.calibration.answers import Answers
from cellingua.measures.calibration import separation
from cellingua.recipes.answers import Prediction, open_cases
from cellingua.words.ontology import load_ontology


def areas(part: Prediction, fitted: Mapping[str, Any], *, single: bool) -> dict[str, dict[str, float]]:
    """Return for each lineage, or each single type, how well its cells are told from the others when it is missing."""
    answers = Answers.from_calibration(fitted)
    assert answers is not None
    ontology = load_ontology("CL")
    groups = {term: [term] for term in part.term_ids} if single else None
    found = {}
    for lineage, case in open_cases(part, float(fitted["temperature"]), groups).items():
        score = answers.open_set.score(case.features)
        unknown = score > answers.open_set.cutoff
        found[ontology.name(lineage)] = {
            "AUROC": round(separation(score, case.missing), 4),
            "cells": int(case.missing.sum()),
            "unknown, of these": round(float(unknown[case.missing].mean()), 4),
            "unknown, of the others": round(float(unknown[~case.missing].mean()), 4),
        }
    return found


def table(parts: Sequence[Prediction], fitted: Sequence[Mapping[str, Any]], *, single: bool) -> dict[str, Any]:
    """Return set -> lineage -> figures."""
    return {part.name: areas(part, state, single=single) for part, state in zip(parts, fitted, strict=True)}


def mean_of(found: Mapping[str, Mapping[str, Mapping[str, float]]]) -> float:
    """Return the mean area over all lineages of all sets."""
    return round(float(np.mean([row["AUROC"] for rows in found.values() for row in rows.values()])), 4)


def main() -> int:
    """Measure and write the result."""
    held = from_command_line(__doc__)
    parts, fitted, judged, same = held.parts, held.fitted, held.judged, held.same
    lineages, single = table(parts, fitted, single=False), table(parts, fitted, single=True)
    others = table(judged, same, single=False)
    figures = {
        "mean AUROC, single types": mean_of(single),
        "mean AUROC, lineages of the evaluation sets": mean_of(others),
        "lineages, left-out sets": lineages,
        "single types, left-out sets": single,
        "lineages, evaluation sets": others,
        "single types, evaluation sets": table(judged, same, single=True),
    }
    bars = {"mean AUROC of unknown, lineages of the left-out sets": at_least(mean_of(lineages), 0.85)}
    return write_result("unknown", figures, bars, data=held.files)


if __name__ == "__main__":
    raise SystemExit(main())
