"""Whether stated error rates and probabilities hold on data sets that were left out.

    python -m benchmarks.bench_calibration

For each labelled set of the corpus: a model that was trained without it (``make train-left-out``), answers calibrated
on the other sets, and the set's own types as candidates. Then the same over the whole ontology, and both on the
evaluation sets with the shipped model and its calibration: as they fall, nothing is fitted to them.

Bars, pooled over the left-out sets: covered at least 1 - rate - 0.02 (covered: the answer is the truth or an ancestor
by the arcs of the Cell Ontology alone; unknown is not covered), expected calibration error at most 0.05.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.answers_judge import (
    RATES,
    error_of,
    from_command_line,
    judge,
    pooled,
    stated_and_right,
)
from benchmarks.common import at_least, write_result
from cellingua.measures.calibration import reliability, risk_coverage
from cellingua.recipes.answers import Prediction

POINTS = 40  # of a risk-coverage curve
FEWEST = 10  # answers in a bin that is drawn


def at_most(value: float, bar: float) -> dict[str, Any]:
    """Return a bar that holds where `value` <= `bar`."""
    return {"value": value, "bar": f"<= {bar:g}", "ok": bool(value <= bar)}


def figures_of(parts: Sequence[Prediction], fitted: Sequence[Mapping[str, Any]], origin: str) -> dict[str, Any]:
    """Return the figures of all sets, by rate and by set, and pooled."""
    found: dict[str, Any] = {}
    for rate in RATES:
        judged = [judge(part, state, rate, origin) for part, state in zip(parts, fitted, strict=True)]
        found[f"rate {rate:g}"] = {
            "all sets": pooled(judged).figures(),
            **{part.name: answer.figures() for part, answer in zip(parts, judged, strict=True)},
        }
    return found


def curves(parts: Sequence[Prediction], fitted: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the reliability diagram and the risk-coverage curves, for the drawing."""
    pairs = {part.name: stated_and_right(part, state) for part, state in zip(parts, fitted, strict=True)}
    stated, right = (np.concatenate(column) for column in zip(*pairs.values(), strict=True))
    held: dict[str, Any] = {}
    for name, (one, other) in {"all sets": (stated, right), **pairs}.items():
        diagram, risks = reliability(one, other, 10), risk_coverage(one, other)
        some = np.unique(np.linspace(0, len(risks.share) - 1, POINTS).astype(int))
        filled = diagram.count >= FEWEST
        held[name] = {
            "confidence": np.round(diagram.confidence[filled], 4).tolist(),
            "accuracy": np.round(diagram.accuracy[filled], 4).tolist(),
            "cells": diagram.count[filled].tolist(),
            "share": np.round(risks.share[some], 4).tolist(),
            "risk": np.round(risks.risk[some], 4).tolist(),
        }
    return held


def errors(parts: Sequence[Prediction], fitted: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Return the expected calibration error of each set."""
    return {part.name: error_of([stated_and_right(part, state)]) for part, state in zip(parts, fitted, strict=True)}


def main() -> int:
    """Measure and write the result."""
    held = from_command_line(__doc__)
    parts, fitted, judged, same = held.parts, held.fitted, held.judged, held.same
    own = figures_of(parts, fitted, "user")
    error = error_of([stated_and_right(part, state) for part, state in zip(parts, fitted, strict=True)])
    bars = {
        f"covered at error rate {rate:g}": at_least(own[f"rate {rate:g}"]["all sets"]["covered"], 1 - rate - 0.02)
        for rate in RATES
    }
    bars["expected calibration error"] = at_most(error, 0.05)
    figures = {
        "left out, own types": own,
        "left out, whole ontology": figures_of(parts, fitted, "ontology"),
        "calibration error, left out": {"all sets": error, **errors(parts, fitted)},
        "evaluation, own types": figures_of(judged, same, "user"),
        "evaluation, whole ontology": figures_of(judged, same, "ontology"),
        "calibration error, evaluation": errors(judged, same),
        "fitted": {key: value for key, value in held.shipped.items() if key != "answers"},
        "curves": [curves(parts, fitted)],
    }
    return write_result("calibration", figures, bars, data=held.files)


if __name__ == "__main__":
    raise SystemExit(main())
