"""The report on drugs: one self-contained HTML file, the answer first, with what is needed to judge it."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from cellingua.models.drug_model import STRANGE, DrugModel
from cellingua.report.drug_map import heat_figure, rows_of, shown_drugs
from cellingua.report.figures import save
from cellingua.report.page import part, template
from cellingua.tasks.drug_result import DOSE, ORDERS, DrugResult, fold, um

FIRST = 10  # drugs of each sample in the list; fewer where there are many samples
MOST_SAMPLES = 40  # that are listed; the table has all
OPEN = 4  # samples whose lists are open
COLUMNS = 40  # of the heat map

LIMITS = (
    "For research only, not for diagnosis or treatment. The model learned from cancer cell lines in a dish: no blood "
    "supply, no immune system, no metabolism, no toxicity, and none of a drug's doses in a patient. A cluster of "
    "tumour cells is not a cell line, and how well predictions carry over from lines to tumours was not measured. Most "
    "of the difference between predicted IC50s is the drug, not the sample: compare with the drug's mean. Normal cells "
    "get numbers too; they say little."
)
REFERENCES = (
    "Iorio F, Knijnenburg TA, Vis DJ, et al. A Landscape of Pharmacogenomic Interactions in Cancer. Cell 2016; "
    "166:740-754.",
    "Zhu Y, Ouyang Z, Chen W, et al. TGSA: protein-protein association-based twin graph neural networks for drug "
    "response prediction with similarity augmentation. Bioinformatics 2022; 38:461-468.",
)


def write_drug_report(result: DrugResult, model: DrugModel, title: str, figures: Path, *, shipped: bool = False) -> str:
    """Draw the static figure into a folder and return the page as HTML.

    Parameters
    ----------
    title
        Name of what was read, such as the file's.
    figures
        Folder for the figure.
    shipped
        The sample is the one that comes with the package.

    Notes
    -----
    Names of samples, drugs and files are data: the template escapes every one.
    """
    drugs = shown_drugs(result)
    figures.mkdir(parents=True, exist_ok=True)
    path = figures / "drug_heatmap.png"
    save(heat_figure(result, drugs), path)
    facts = model.facts
    return template("drug.html").render(
        title=title,
        shipped=shipped,
        css=Markup(part("report.css") + part("drug.css")),
        n_samples=len(result.samples),
        n_drugs=len(result.drugs),
        kind={"lines": "lines", "clusters": "clusters", "whole": "sample"}[result.set.kind],
        key=result.set.key,
        by=result.by,
        order=ORDERS[result.by],
        level=result.level,
        model=model,
        facts=facts,
        far=[name for name, said in zip(result.samples, result.answer.warnings, strict=True) if STRANGE in said],
        samples=[_sample(result, sample) for sample in range(min(len(result.samples), MOST_SAMPLES))],
        columns=_columns(result),
        rows=[{**row, "fields": row["fields"][:COLUMNS]} for row in rows_of(result, drugs)],
        hidden_columns=max(len(result.samples) - COLUMNS, 0),
        told=int((result.told_apart() != 0).sum()),
        pairs=len(result.samples) * len(result.drugs),
        notes=[*result.set.notes, *result.notes],
        cells=_cells(result),
        methods=methods_text(result, model),
        references=REFERENCES if model.name == "drug_mini" else (),
        limits=LIMITS,
        figure=base64.b64encode(path.read_bytes()).decode("ascii"),
        version=result.provenance["versions"].get("cellingua", ""),
        um=um,
        dose=f"{DOSE:g}",
        fold=fold,
    )


def methods_text(result: DrugResult, model: DrugModel) -> str:
    """Return the paragraph for a methods section, in the past tense."""
    left, versions = model.facts.get("left_out") or {}, result.provenance["versions"]
    what = {
        "lines": f"{len(result.samples):,} expression profiles",
        "clusters": f"pseudo-bulk profiles (summed counts) of {len(result.samples):,} groups of cells ("
        f"“{result.set.key}”)",
        "whole": "one pseudo-bulk profile (summed counts of all cells)",
    }[result.set.kind]
    measured = (
        f" On lines left out of training its predictions correlated with measured values at {left['pearson']:.3f} over "
        f"all pairs and, at the median, {left['pearson_within_drug']:.3f} within a drug (RMSE {left['rmse']:.2f} in ln "
        "µM)."
        if left
        else ""
    )
    return (
        f"Drug responses were predicted with cellingua {versions.get('cellingua', '')} and its model {model.name} "
        f"(SHA-256 {model.hash[:16]}…), trained on {model.facts.get('pairs', 0):,} pairs of "
        f"{model.facts.get('lines', 0):,} cell lines and {len(model.drugs):,} drugs, from the ranks of genes within "
        f"each of {what}.{measured} Ranges are conformal at {result.level:.0%}, calibrated on lines left out; "
        "percentiles are among predictions for training lines that were left out. Drugs were ordered "
        f"{ORDERS[result.by].split(':')[0]}."
    )


def _columns(result: DrugResult) -> list[dict[str, Any]]:
    """Return the heads of the heat map's columns."""
    return [
        {
            "name": name,
            "cells": None if result.set.cells is None else int(result.set.cells[sample]),
            "distance": float(result.answer.distance[sample]),
            "times": float(result.answer.times[sample]),
            "far": STRANGE in result.answer.warnings[sample],
            "warned": bool(result.warnings(sample)),
        }
        for sample, name in enumerate(result.samples[:COLUMNS])
    ]


def _sample(result: DrugResult, sample: int) -> dict[str, Any]:
    """Return what is listed of a sample: its first drugs, and potent ones that are no match."""
    first = FIRST if len(result.samples) <= 8 else 6
    listed = result.order(sample)[:first]
    potent = result.potent(sample)
    axis = _axis(result, sample, np.concatenate([listed, potent]))
    return {
        "name": result.samples[sample],
        "cells": None if result.set.cells is None else int(result.set.cells[sample]),
        "coverage": float(result.answer.coverage[sample]),
        "distance": float(result.answer.distance[sample]),
        "times": float(result.answer.times[sample]),
        "general": float(result.general[sample]),
        "warnings": result.warnings(sample),
        "told": int((result.told_apart()[sample] != 0).sum()),
        "open": sample < OPEN,
        "drugs": [_drug(result, sample, int(drug), axis) for drug in listed],
        "potent": [_drug(result, sample, int(drug), axis) for drug in potent],
        "axis": [um(float(np.exp(end))) for end in axis],
        "ticks": _ticks(axis),
    }


def _axis(result: DrugResult, sample: int, drugs: np.ndarray) -> tuple[float, float]:
    """Return the ends, in ln µM, of the axis that all ranges of a sample's list are drawn on."""
    values = np.concatenate(
        [result.answer.low[sample, drugs], result.answer.high[sample, drugs], result.answer.drug_mean[drugs]]
    )
    values = values[np.isfinite(values)]
    if not len(values):
        return -5.0, 5.0
    # Whole powers of ten, so that ticks are numbers that people know.
    ten = np.log(10)
    return float(np.floor(values.min() / ten) * ten), float(np.ceil(values.max() / ten) * ten)


def _ticks(axis: tuple[float, float]) -> list[dict[str, Any]]:
    """Return powers of ten on the axis with their places in percent."""
    low, high = (round(end / np.log(10)) for end in axis)
    step = max(1, int(np.ceil((high - low) / 6)))
    return [
        {"at": 100 * (power - low) / max(high - low, 1), "text": f"{10.0**power:,.10g}"}
        for power in range(low, high + 1, step)
    ]


def _drug(result: DrugResult, sample: int, drug: int, axis: tuple[float, float]) -> dict[str, Any]:
    answer = result.answer
    value, low, high = (float(table[sample, drug]) for table in (answer.value, answer.low, answer.high))
    mean = float(answer.drug_mean[drug])

    def place(x: float) -> float:
        return float(np.clip(100 * (x - axis[0]) / max(axis[1] - axis[0], 1e-9), 0, 100))

    percentile = float(answer.percentile[sample, drug])
    return {
        "name": result.drugs[drug],
        "value": value,
        "um": um(float(np.exp(value))),
        "low": um(float(np.exp(low))),
        "high": um(float(np.exp(high))),
        "percentile": round(percentile) if np.isfinite(percentile) else None,
        "mean": um(float(np.exp(mean))),
        "fold": fold(value - mean),
        "apart": bool(result.told_apart()[sample, drug]),
        "weak": bool(np.exp(value) > DOSE),
        "left": place(low),
        "width": place(high) - place(low),
        "dot": place(value),
        "tick": place(mean) if np.isfinite(mean) else None,
    }


def _cells(result: DrugResult) -> list[dict[str, Any]]:
    """Return how the single cells of each sample spread around its pseudo-bulk, for its first drugs."""
    if result.cells is None:
        return []
    rows = []
    for sample in range(min(len(result.samples), MOST_SAMPLES)):
        for drug in result.order(sample)[:3]:
            spread = [
                float(table[sample, drug]) for table in (result.cells.low, result.cells.median, result.cells.high)
            ]
            rows.append({
                "sample": result.samples[sample],
                "drug": result.drugs[drug],
                "bulk": float(result.answer.value[sample, drug]),
                "spread": spread if np.isfinite(spread).all() else None,
                "far": float(result.cells.far[sample]),
            })  # fmt: skip
    return rows
