"""Draw ``docs/drug_deletion.svg`` from the JSON that ``make bench-drug-explain`` wrote: deletion beside chance.

    python scripts/draw_drug_explain.py [--results FILE] [--out FILE]

Without a result nothing is drawn.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from cellingua.report.palette import COLOURS, GREY

ROOT = Path(__file__).resolve().parents[1]
#: Key of the figures, title, what is counted.
PANELS = (
    ("genes absent", "genes, as if not measured", "genes deleted (of 5,776)"),
    ("genes average", "genes, made average", "genes deleted (of 5,776)"),
    ("atoms", "atoms of new molecules", "share of the atoms left out"),
)


def draw(figures: dict[str, Any], out: Path) -> None:
    """Write the picture; the same figures give the same bytes."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "cellingua"
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, len(PANELS), figsize=(9.6, 3.0), layout="constrained")
    for axes, (key, title, counted) in zip(panels, PANELS, strict=True):
        parts = [float(part) for part in figures[key]]
        for name, label, colour, style in (
            ("first", "those an explanation puts first", COLOURS[0], "-"),
            ("random", "as many at random", GREY, "--"),
        ):
            axes.plot(parts, [row[name] for row in figures[key].values()], style, color=colour, marker="o", label=label)
        if max(parts) > 1:
            axes.set_xscale("log")
            axes.set_xticks(parts, [f"{part:g}" for part in parts], fontsize=7)
            axes.minorticks_off()
        axes.axhline(0, color="#444444", linewidth=0.6)
        axes.set_title(title, fontsize=9)
        axes.set_xlabel(counted.replace("5,776", f"{figures['genes of the model']:,}"), fontsize=8)
        axes.tick_params(labelsize=7)
    panels[0].set_ylabel("share of the way to\nwhat typical lines get", fontsize=8)
    panels[0].legend(fontsize=7, frameon=False)
    figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None})
    pyplot.close(figure)


def main() -> int:
    """Draw, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks" / "results" / "drug_explain.json")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "drug_deletion.svg")
    arguments = parser.parse_args()
    if not arguments.results.is_file():
        print(f"{arguments.results} is not there: make bench-drug-explain writes it.", file=sys.stderr)
        return 0
    draw(json.loads(arguments.results.read_text(encoding="utf-8"))["figures"], arguments.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
