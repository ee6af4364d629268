"""Draw ``docs/fewshot.svg`` from the JSON that ``make bench-fewshot`` wrote: macro-F1 against cells a type, set by set.

    python scripts/draw_fewshot.py [--results FILE] [--out FILE]

The band is one standard deviation over draws. Without a result nothing is drawn.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path
from typing import Any

from cellingua.report.palette import COLOURS, GREY

ROOT = Path(__file__).resolve().parents[1]
#: Method (its title, without notes), colour, line style; what comes first lies on top.
LINES = (
    ("ours: classifier (default)", COLOURS[0], "-"),
    ("ours: prototypes", COLOURS[3], "-"),
    ("ours: no labels", COLOURS[4], ":"),
    ("logistic regression", COLOURS[1], "--"),
    ("k-NN", COLOURS[2], "--"),
    ("majority", GREY, ":"),
)
AVERAGE = "mean, all sets"
UNSEEN = "mean, sets the model has not seen"
TABLE = re.compile(r"Macro-F1, (\d+) cells? a type")

Curve = list[tuple[int, float, float]]


def curves(figures: dict[str, Any]) -> dict[str, dict[str, Curve]]:
    """Return row -> method -> (cells a type, mean, deviation), from the tables of a result."""
    found: dict[str, dict[str, Curve]] = {}
    for title, rows in figures["tables"].items():
        match = TABLE.fullmatch(title)
        for row, cells in rows.items() if match else ():
            for method, cell in cells.items():
                if match and cell and cell[0] is not None:
                    found.setdefault(row, {}).setdefault(method, []).append((int(match[1]), cell[0], cell[1] or 0.0))
    return {row: {name: sorted(curve) for name, curve in methods.items()} for row, methods in found.items()}


def panels(found: dict[str, dict[str, Curve]]) -> list[str]:
    """Return the rows that are drawn: the sets in their order, then the averages."""
    last = [row for row in (UNSEEN, AVERAGE) if row in found]
    return [row for row in found if row not in last] + last


def draw(found: dict[str, dict[str, Curve]], out: Path) -> None:
    """Write the picture; the same figures give the same bytes."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "cellingua"
    from matplotlib import pyplot

    rows = panels(found)
    across = min(4, len(rows))
    down = -(-len(rows) // across)
    figure, grid = pyplot.subplots(
        down, across, figsize=(3.1 * across, 2.7 * down + 0.6), sharey=True, squeeze=False, layout="constrained"
    )
    handles: dict[str, Any] = {}
    for axes, row in zip(grid.flat, rows, strict=False):
        ticks = sorted({n for curve in found[row].values() for n, _, _ in curve})
        for depth, (method, colour, style) in enumerate(LINES):
            curve = found[row].get(method)
            if not curve:
                continue
            n, mean, deviation = zip(*curve, strict=True)
            low, high = ([m + sign * d for m, d in zip(mean, deviation, strict=True)] for sign in (-1, 1))
            axes.fill_between(n, low, high, color=colour, alpha=0.15, linewidth=0, zorder=5 - depth)
            (handles[method],) = axes.plot(
                n, mean, style, color=colour, marker="o", markersize=3, linewidth=1.6, zorder=20 - depth
            )
        axes.set_xscale("log")
        axes.set_xticks(ticks, [str(n) for n in ticks])
        axes.minorticks_off()
        axes.set_ylim(0, 1.02)
        axes.set_title(row.replace("mean, ", "Mean, "), fontsize=9)
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    for axes in list(grid.flat)[len(rows) :]:
        axes.set_visible(False)
    figure.supxlabel("cells of each type to learn from", fontsize=9)
    figure.supylabel("macro-F1", fontsize=9)
    figure.legend(
        list(handles.values()), list(handles), loc="outside upper center", ncols=6, frameon=False, fontsize=8.5
    )
    figure.savefig(out, metadata={"Date": None})
    pyplot.close(figure)


def main() -> int:
    """Draw the picture where there is a result."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks" / "results" / "fewshot.json")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "fewshot.svg")
    args = parser.parse_args()
    if not args.results.is_file():
        print("nothing drawn: run `make bench-fewshot` first")
        return 0
    found = curves(json.loads(args.results.read_text(encoding="utf-8"))["figures"])
    draw(found, args.out)
    print(f"drawn: {args.out.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
