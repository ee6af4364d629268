"""The example for someone else's towers runs, learns, and is the one that the documentation shows."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "examples" / "engine_two_towers.py"


def test_the_example_runs_and_learns() -> None:
    done = subprocess.run([sys.executable, str(EXAMPLE)], capture_output=True, text=True, check=True)
    losses = [float(found) for found in re.findall(r"loss ([\d.]+)", done.stdout)]
    assert len(losses) == 8
    assert losses[-1] < losses[0] - 1
    assert re.search(r" [1-9]\d* of 64 chunks", done.stdout)


def test_the_documentation_shows_the_example() -> None:
    shown = re.findall(r"```python\n(.*?)```", (ROOT / "docs/engine.md").read_text(encoding="utf-8"), re.DOTALL)
    assert EXAMPLE.read_text(encoding="utf-8") in shown
    assert len(EXAMPLE.read_text(encoding="utf-8").splitlines()) <= 35
