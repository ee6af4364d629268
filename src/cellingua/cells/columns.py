"""Which columns of `var` name the genes."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import pandas as pd

from cellingua.cells.genes import Vocabulary

_ID = re.compile(r"ENS[A-Z]{0,4}G[R\d]\d{10}", re.IGNORECASE)
_PREFIX = re.compile(r"(GRC[A-Za-z]\d+(?:-\d{4}-[A-Z])?|hg\d\d|human)_+", re.IGNORECASE)
_SAMPLE = 2000


@dataclass(frozen=True)
class GeneNames:
    """Names of the columns.

    Attributes
    ----------
    names
        Symbols where there are any, else ids.
    ids
        Ensembl ids, or None.
    source
        Where they come from, for people: "var index" or "var['gene_ids'] and var index".
    """

    names: list[str]
    ids: list[str] | None
    source: str


def _texts(values: pd.Index | pd.Series) -> list[str]:
    return ["" if value is None or value != value else str(value).strip() for value in values.tolist()]


def gene_names(var: pd.DataFrame, vocabulary: Vocabulary) -> GeneNames:
    """Find the index or column of `var` that holds Ensembl ids, and the one that holds most known symbols.

    All text columns are tried (``gene_ids``, ``feature_name``, ``gene_symbols`` or whatever they are called),
    on up to 2,000 rows spread over the table.
    """
    step = max(1, len(var) // _SAMPLE)
    sources: dict[str, pd.Index | pd.Series] = {"var index": var.index}
    for column in var.columns:
        values: Any = var[column]
        if isinstance(values, pd.Series) and (
            values.dtype == object or isinstance(values.dtype, pd.CategoricalDtype | pd.StringDtype)
        ):
            sources[f"var['{column}']"] = values
    identified, named = {}, {}
    for source, held in sources.items():
        sample = _texts(held[::step])
        identified[source] = sum(_ID.search(text) is not None for text in sample) / max(1, len(sample))
        distinct = {_PREFIX.sub("", text) for text in sample}
        # Symbols are distinct; a column of biotypes or chromosomes is not.
        rows = {vocabulary.row_of_name(text)[0] for text in distinct if text and not _ID.match(text)}
        named[source] = len(rows - {-1})
    best_id = max(identified, key=lambda source: identified[source])
    best_name = max(named, key=lambda source: named[source])
    ids = _texts(sources[best_id]) if identified[best_id] > 0.3 else None
    if ids is None:
        return GeneNames(_texts(sources[best_name]), None, best_name)
    if named[best_name] == 0 or best_name == best_id:
        return GeneNames(ids, ids, best_id)
    return GeneNames(_texts(sources[best_name]), ids, f"{best_id} and {best_name}")
