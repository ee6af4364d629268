"""Tools on an AnnData, such as ``cellingua.tl.annotate`` and ``cellingua.tl.finetune``."""

from __future__ import annotations

from cellingua.tasks.annotate import annotate
from cellingua.tasks.embed import embed
from cellingua.tasks.finetune import finetune
from cellingua.tasks.texts import texts

__all__ = ["annotate", "embed", "finetune", "texts"]
