"""Tools on an AnnData: ``cellingua.tl.annotate`` and ``cellingua.tl.embed``."""

from __future__ import annotations

from cellingua.tasks.annotate import annotate
from cellingua.tasks.embed import embed
from cellingua.tasks.texts import texts

__all__ = ["annotate", "embed", "texts"]
