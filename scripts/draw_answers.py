"""Draw ``docs/reliability.svg`` and ``docs/risk_coverage.svg`` from the JSON that ``make bench-calibration`` wrote.

    python scripts/draw_answers.py [--results FILE] [--out FOLDER]

Each set that was left out is a thin line, all together the thick one. Without a result nothing is drawn.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from cellingua.report.palette import COLOURS, GREY

ROOT = Path(__file__).resolve().parents[1]
ALL = "all sets"


def draw(curves: dict[str, Any], x: str, y: str, labels: tuple[str, str], out: Path) -> None:
    """Write one picture; the same figures give the same bytes."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "cellingua"
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6.8, 3.6), layout="constrained")
    if x == "confidence":
        axes.plot([0, 1], [0, 1], ":", color=GREY, linewidth=1, label="as stated")
    for place, (name, curve) in enumerate((name, curves[name]) for name in curves if name != ALL):
        axes.plot(curve[x], curve[y], color=COLOURS[(place + 1) % len(COLOURS)], linewidth=0.9, alpha=0.8, label=name)
    whole = curves[ALL]
    axes.plot(whole[x], whole[y], color=COLOURS[0], linewidth=2.2, marker="o", markersize=2.5, label=ALL)
    axes.set_xlim(0, 1.01)
    axes.set_ylim(0, 1.02)
    axes.set_xlabel(labels[0], fontsize=9)
    axes.set_ylabel(labels[1], fontsize=9)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside right upper", frameon=False, fontsize=7)
    figure.savefig(out, metadata={"Date": None})
    pyplot.close(figure)


def main() -> int:
    """Draw the pictures where there is a result."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks" / "results" / "calibration.json")
    parser.add_argument("--out", type=Path, default=ROOT / "docs")
    args = parser.parse_args()
    if not args.results.is_file():
        print("nothing drawn: run `make bench-calibration` first")
        return 0
    curves = json.loads(args.results.read_text(encoding="utf-8"))["figures"]["curves"][0]
    stated = ("probability that was stated", "share of these answers that is right")
    draw(curves, "confidence", "accuracy", stated, args.out / "reliability.svg")
    risk = ("share of cells answered, the surest first", "share of these answers that is wrong")
    draw(curves, "share", "risk", risk, args.out / "risk_coverage.svg")
    print("drawn: reliability.svg, risk_coverage.svg")
    return 0


if __name__ == "__main__":
    sys.exit(main())
