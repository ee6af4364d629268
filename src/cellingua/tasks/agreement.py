"""Agreement with one's own labels, and composition by sample."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np

from cellingua.calibration.hierarchy import is_kind_of
from cellingua.words.naming import name_label
from cellingua.words.ontology import Ontology


@dataclass(frozen=True)
class Agreement:
    """One's own labels against the given ones.

    Attributes
    ----------
    key
        The column of one's own labels.
    own, given
        Labels, most frequent first.
    table
        int64 (own, given): numbers of cells.
    terms
        The Cell Ontology term that each own label was read as, ``""`` where it was not.
    exact
        Share of the cells with a readable own label whose answer is that very term.
    related
        The same, where a wider or a narrower term also counts.
    n_compared
        Number of cells with a readable own label.
    """

    key: str
    own: tuple[str, ...]
    given: tuple[str, ...]
    table: np.ndarray
    terms: tuple[str, ...]
    exact: float | None
    related: float | None
    n_compared: int


def compare(
    key: str,
    own: np.ndarray,
    labels: np.ndarray,
    term_ids: np.ndarray,
    ontology: Ontology,
    *,
    tissue: str | None = None,
) -> Agreement:
    """Return the confusion of `own` with `labels` (object (n,) each), and the agreement by Cell Ontology term.

    An own label and a given one agree if they are the same text, the same term, or (`related`) one lies below the
    other. Cells whose own label is missing are left out.
    """
    present = np.array([value != "" for value in own], dtype=bool)
    rows, columns = _by_size(own[present]), _by_size(labels[present])
    table = np.zeros((len(rows), len(columns)), dtype=np.int64)
    row_of, column_of = {v: i for i, v in enumerate(rows)}, {v: i for i, v in enumerate(columns)}
    pairs = Counter(zip(own[present].tolist(), labels[present].tolist(), term_ids[present].tolist(), strict=True))
    read = {label: _term(label, ontology, tissue) for label in rows}
    exact = related = compared = 0
    for (mine, given, term), count in pairs.items():
        table[row_of[mine], column_of[given]] += count
        if not read[mine] and mine not in column_of:
            continue
        compared += count
        same = mine == given or (bool(term) and term == read[mine])
        exact += count * same
        related += count * (same or are_related(term, read[mine], ontology))
    return Agreement(
        key, rows, columns, table, tuple(read[label] for label in rows),
        exact / compared if compared else None, related / compared if compared else None, compared,
    )  # fmt: skip


def composition(samples: np.ndarray | None, labels: np.ndarray) -> list[tuple[str, int, list[tuple[str, int]]]]:
    """Return (sample, cells, [(label, cells), ...]) by name of sample; one row without a sample key."""
    if samples is None:
        return [("all cells", len(labels), Counter(labels.tolist()).most_common())]
    found = []
    for sample in sorted(set(samples.tolist())):
        inside = labels[samples == sample]
        found.append((str(sample), len(inside), Counter(inside.tolist()).most_common()))
    return found


def _by_size(values: np.ndarray) -> tuple[str, ...]:
    """Return the distinct values, most frequent first, then by name."""
    return tuple(value for value, _ in sorted(Counter(values.tolist()).items(), key=lambda item: (-item[1], item[0])))


def _term(label: str, ontology: Ontology, tissue: str | None) -> str:
    """Return the id of the Cell Ontology term that `label` is read as, or ``""``."""
    term = name_label(label, tissue=tissue).term_id if label.strip() else None
    return term if term is not None and term in ontology else ""


def are_related(a: str, b: str, ontology: Ontology) -> bool:
    """Return whether one of two terms lies below the other, as answers are rolled up; False for no term."""
    if a not in ontology or b not in ontology:
        return False
    return is_kind_of(a, b, ontology) or is_kind_of(b, a, ontology)
