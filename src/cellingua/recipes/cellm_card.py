"""The card of a CellLM model that a recipe trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cellingua.recipes.card_parts import how, table, values

_SHOWN = (
    "alignment",
    "uniformity",
    "mean_cosine",
    "effective_rank",
    "participation",
    "spectrum_1",
    "spectrum_8",
    "masked_accuracy",
    "majority_bin",
    "discrimination_accuracy",
)


def write_cellm_card(
    config: Mapping[str, Any],
    cells: Mapping[str, int],
    n_genes: int,
    lines: Sequence[Mapping[str, float]],
    facts: Mapping[str, Any],
) -> str:
    """Return the card in Markdown; every figure in it was computed in this run or is in `facts`.

    Parameters
    ----------
    config
        The recipe's.
    cells
        File -> cells that were trained on.
    n_genes
        Genes of the model.
    lines
        The geometry of fixed cells, in the order of the steps.
    facts
        Section heading -> text or JSON value.
    """
    weights = config["weights"]
    parts = [
        f"# {config['name']}",
        config["description"],
        "## What it saw",
        f"{sum(cells.values()):,} cells of {len(cells):,} files, on {n_genes:,} genes:",
        table(["file", "cells"], [[name, f"{n:,}"] for name, n in cells.items()]),
        "## Objectives",
        f"Weights: contrast of two dropout views {weights['contrast']:g}, masked expression {weights['masked']:g}, "
        f"normal or cancer {weights['discrimination']:g}. The label of the last is that of the donor or tissue; across "
        "studies it can be told from the study alone.",
        "## Geometry of fixed cells, before, during and after",
        _geometry(lines),
    ]
    for heading, text in facts.items():
        parts += [f"## {heading}", text if isinstance(text, str) else values(text)]
    parts += [
        *how(config),
        "## Intended use",
        "Research on human single cells: vectors of cells, to be compared, clustered or read by a classifier of one's "
        "own. Not for diagnosis or any clinical decision. A small model of few cells: judge it beside a principal "
        "component analysis of log-normalised counts, which is often as good.",
    ]
    return "\n\n".join(parts) + "\n"


def _geometry(lines: Sequence[Mapping[str, float]]) -> str:
    if not lines:
        return "Not measured."
    shown = [name for name in _SHOWN if any(name in line for line in lines)]
    picked = lines if len(lines) <= 8 else [lines[i * (len(lines) - 1) // 7] for i in range(8)]
    rows = [
        [f"{int(line['step']):,}", *(f"{line[name]:.3f}" if name in line else "" for name in shown)] for line in picked
    ]
    return table(["step", *shown], rows)
