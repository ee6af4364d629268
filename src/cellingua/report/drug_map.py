"""The heat map of clusters x drugs: which drugs are shown, in which order, and the colour of each field.

A field's number is the percentile among training lines, and its colour says the same: blue for more sensitive than
most, orange for more resistant, nothing in the middle. Both hues differ in lightness too, for any colour vision.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy.cluster.hierarchy import leaves_list, linkage

from cellingua.report.figures import short
from cellingua.tasks.drug_result import DrugResult

MOST_DRUGS, LETTERS = 36, 28
#: Sensitive, middle, resistant.
BLUE, MIDDLE, ORANGE = "#2f6690", "#f4f2ee", "#d98a3d"


def shown_drugs(result: DrugResult, most: int = MOST_DRUGS) -> NDArray[np.int64]:
    """Return the drugs of the heat map: the first of every sample, as many of each as fit, like beside like."""
    orders = [result.order(sample) for sample in range(len(result.samples))]
    chosen: list[int] = []
    for rank in range(len(result.drugs)):
        new = [int(drug) for drug in dict.fromkeys(order[rank] for order in orders) if drug not in chosen]
        if len(chosen) + len(new) > most and chosen:
            break
        chosen += new
    picked = np.array(chosen[:most], dtype=np.int64)
    if len(orders) < 2 or len(picked) < 3:
        return picked
    values = np.nan_to_num(result.answer.percentile[:, picked].T, nan=50.0)
    return picked[leaves_list(linkage(values, method="average", optimal_ordering=True))]


def rows_of(result: DrugResult, drugs: NDArray[np.int64]) -> list[dict[str, Any]]:
    """Return the fields of the heat map, a row a drug."""
    apart, answer = result.told_apart(), result.answer
    rows = []
    for drug in drugs:
        fields = []
        for sample in range(len(result.samples)):
            percentile = float(answer.percentile[sample, drug])
            known = bool(np.isfinite(percentile))
            off = (percentile - 50.0) / 50.0 if known else 0.0
            fields.append({
                "percentile": round(percentile) if known else None,
                "side": "s" if off < 0 else "r",
                "strength": round(min(abs(off), 1.0) ** 1.5 * 0.85, 3),
                "strong": abs(off) ** 1.5 * 0.85 > 0.5,
                "apart": bool(apart[sample, drug]),
                "value": float(answer.value[sample, drug]),
                "um": float(np.exp(answer.value[sample, drug])),
            })  # fmt: skip
        mean = float(answer.drug_mean[drug])
        rows.append({"drug": result.drugs[drug], "fields": fields, "mean_um": float(np.exp(mean))})
    return rows


def heat_figure(result: DrugResult, drugs: NDArray[np.int64]) -> Figure:
    """Return the same heat map as a static figure, drugs in rows."""
    values = result.answer.percentile[:, drugs].T
    names = [short(result.drugs[drug], LETTERS) for drug in drugs]
    samples = [short(name, LETTERS) for name in result.samples]
    figure = Figure(figsize=(2.6 + 0.62 * max(len(samples), 3), 1.7 + 0.24 * max(len(names), 4)), layout="constrained")
    axes = figure.subplots()
    colours = LinearSegmentedColormap.from_list("percentile", (BLUE, MIDDLE, ORANGE))
    drawn = axes.imshow(np.ma.masked_invalid(values), cmap=colours, vmin=0, vmax=100, aspect="auto")
    axes.set_xticks(range(len(samples)), samples, rotation=40, ha="right", fontsize=8)
    axes.set_yticks(range(len(names)), names, fontsize=8)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    if len(samples) <= 20:
        for row, column in np.argwhere(np.isfinite(values)):
            dark = values[row, column] < 22
            axes.text(column, row, f"{values[row, column]:.0f}", ha="center", va="center", fontsize=7,
                      color="white" if dark else "#1d2430")  # fmt: skip
    bar = figure.colorbar(drawn, ax=axes, shrink=0.6, aspect=22, pad=0.03)
    bar.set_label("percentile among training lines (low = sensitive)", fontsize=8)
    bar.ax.tick_params(labelsize=7)
    bar.outline.set_visible(False)  # type: ignore[operator]
    axes.set_title("Research only, not for clinical use", fontsize=8, color="#777777", loc="left")
    return figure
