"""Tools on an AnnData, such as ``cellingua.tl.annotate`` and ``cellingua.tl.finetune``."""

from __future__ import annotations

from cellingua.tasks.annotate import annotate
from cellingua.tasks.drug_cells import drug_cells
from cellingua.tasks.drug_explain import drug_explain
from cellingua.tasks.drug_fit import drug_evaluate, drug_fit
from cellingua.tasks.drug_rank import drug_predict, drug_rank
from cellingua.tasks.drug_transfer import drug_transfer
from cellingua.tasks.embed import embed
from cellingua.tasks.finetune import finetune
from cellingua.tasks.texts import texts

__all__ = [
    "annotate",
    "drug_cells",
    "drug_evaluate",
    "drug_explain",
    "drug_fit",
    "drug_predict",
    "drug_rank",
    "drug_transfer",
    "embed",
    "finetune",
    "texts",
]
