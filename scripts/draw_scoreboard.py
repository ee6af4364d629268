"""Draw ``docs/scoreboard.svg`` from the JSON that ``make scoreboard`` wrote: macro-F1 of every method, set by set.

    python scripts/draw_scoreboard.py [--results FILE] [--out FILE]

Zero-shot, the types of each set as candidates, with 95 % intervals over cells. Without a result nothing is drawn.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def main() -> int:
    """Draw the picture; the same figures give the same bytes."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks" / "results" / "scoreboard.json")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "scoreboard.svg")
    args = parser.parse_args()
    if not args.results.is_file():
        print(f"{args.results} is not there: nothing to draw (make scoreboard)")
        return 0
    from cellingua.bench.tables import picture

    held = json.loads(args.results.read_text(encoding="utf-8"))
    picture(held["figures"]["result"], "terms", args.out)
    print(f"written: {args.out.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
