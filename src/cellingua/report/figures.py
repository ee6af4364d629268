"""Static figures: the map by label and by probability, and the composition."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from cellingua.report.palette import RAMP, colours_for
from cellingua.tasks.agreement import composition
from cellingua.tasks.result import Annotation

SHOWN = 24  # labels in a legend
SAMPLES = 60  # bars of the composition
DPI = 130


def draw_figures(result: Annotation, rows: np.ndarray, points: np.ndarray, folder: Path) -> list[Path]:
    """Write ``umap_label.png``, ``umap_probability.png``, ``composition.png`` to `folder`; return the paths.

    Parameters
    ----------
    rows, points
        The cells of the map and where they lie, int64 (m,) and float32 (m, 2). Without any the maps are left out.
    """
    folder.mkdir(parents=True, exist_ok=True)
    drawn = {"composition.png": composition_figure(result)}
    if len(rows):
        drawn = {
            "umap_label.png": label_figure(result.labels[rows], points, [label for label, _ in result.counts()]),
            "umap_probability.png": probability_figure(result.probability[rows], points),
            **drawn,
        }
    for name, figure in drawn.items():
        save(figure, folder / name)
    return [folder / name for name in drawn]


def save(figure: Figure, path: Path) -> None:
    """Write a figure as PNG, the same bytes for the same figure."""
    with warnings.catch_warnings():
        # The shipped font lacks some scripts (Chinese, Arabic): a box in a figure is no reason to alarm a user.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font", category=UserWarning)
        figure.savefig(path, dpi=DPI, metadata={"Software": None})


def label_figure(labels: np.ndarray, points: np.ndarray, names: list[str]) -> Figure:
    """Return the map with a colour a label, most frequent labels in the legend."""
    figure, axes = _map_axes(9.2)
    colours = dict(zip(names, colours_for(names), strict=True))
    axes.scatter(points[:, 0], points[:, 1], s=_size(len(points)), c=[colours[v] for v in labels], linewidths=0)
    present = set(labels.tolist())
    shown = [name for name in names if name in present]
    for name in shown[:SHOWN]:
        axes.scatter([], [], s=28, color=colours[name], label=short(name), linewidths=0)
    if len(shown) > SHOWN:
        axes.scatter([], [], s=0, label=f"and {len(shown) - SHOWN} more")
    _legend(axes)
    return figure


def probability_figure(probability: np.ndarray, points: np.ndarray) -> Figure:
    """Return the map coloured by the probability of the label, 0 to 1."""
    figure, axes = _map_axes(7.0)
    drawn = axes.scatter(
        points[:, 0], points[:, 1], s=_size(len(points)), c=probability, vmin=0, vmax=1, linewidths=0,
        cmap=LinearSegmentedColormap.from_list("probability", RAMP),
    )  # fmt: skip
    bar = figure.colorbar(drawn, ax=axes, shrink=0.5, aspect=18, pad=0.02)
    bar.set_label("probability of the label")
    bar.outline.set_visible(False)  # type: ignore[operator]
    return figure


def composition_figure(result: Annotation) -> Figure:
    """Return stacked bars of the most frequent labels, one bar a sample; the rest is left white."""
    table = composition(result.samples, result.labels)[:SAMPLES]
    names = [label for label, _ in result.counts()]
    colours = colours_for(names)
    # High enough for the bars, and for the legend beside them.
    height = max(1.9 + 0.42 * len(table), 0.9 + 0.2 * min(len(names), SHOWN))
    thick = min(0.7, 0.7 * len(table) / (height - 1))
    figure = Figure(figsize=(9.2, height), layout="constrained")
    axes = figure.subplots()
    left = np.zeros(len(table))
    for name, colour in list(zip(names, colours, strict=True))[:SHOWN]:
        share = np.array([dict(counts).get(name, 0) / max(n, 1) for _, n, counts in table])
        axes.barh(
            range(len(table)), share, left=left, height=thick, color=colour, label=short(name), edgecolor="white",
            linewidth=0.4,
        )  # fmt: skip
        left += share
    if len(names) > SHOWN:
        axes.barh(0, 0, color="none", label=f"and {len(names) - SHOWN} more")
    axes.set_yticks(range(len(table)), [short(f"{sample or '(missing)'} ({n:,})") for sample, n, _ in table])
    axes.set_ylim(len(table) - 0.5, -0.5)
    axes.set_xlim(0, 1)
    axes.set_xlabel("share of cells")
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(left=False)
    _legend(axes)
    return figure


def _map_axes(width: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, 5.6), layout="constrained")
    axes = figure.subplots()
    axes.set_aspect("equal", adjustable="datalim")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_xlabel("UMAP 1", loc="left", color="#777777", fontsize=9)
    axes.set_ylabel("UMAP 2", loc="bottom", color="#777777", fontsize=9)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("#cccccc")
    return figure, axes


def _legend(axes: Axes) -> None:
    settings: dict[str, Any] = {"frameon": False, "fontsize": 8.5, "handletextpad": 0.4, "labelspacing": 0.45}
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), **settings)


def _size(count: int) -> float:
    return float(np.clip(24_000 / max(count, 1), 1.5, 26))


def short(text: str, limit: int = 44) -> str:
    """Return text for a figure: one line, shortened, and with ``$`` as a plain sign (no mathematics)."""
    line = " ".join(text.split())
    line = line if len(line) <= limit else f"{line[: limit - 1]}…"
    # A leading underscore would hide the label from a legend.
    return ("\u200b" + line if line.startswith("_") else line).replace("$", r"\$")
