"""Measures models beside baselines on labelled cells: ``cellingua bench`` and ``cellingua.bench.measure``."""

from __future__ import annotations

from cellingua.bench.plan import TASKS
from cellingua.bench.run import measure
from cellingua.bench.tables import markdown, text

__all__ = ["TASKS", "markdown", "measure", "text"]
