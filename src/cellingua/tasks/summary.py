"""An annotation in a few JSON values: what the CLI prints and the report shows."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np

from cellingua.tasks.agreement import Agreement, are_related, compare, composition
from cellingua.tasks.result import Annotation
from cellingua.words.ontology import load_ontology


def summarise(result: Annotation) -> dict[str, Any]:
    """Return the annotation's figures as JSON values: cells, shares, labels, clusters, composition, agreement."""
    agreement = agreement_of(result)
    ids = dict(zip(result.labels.tolist(), result.term_ids.tolist(), strict=True))
    return {
        "cells": result.n_cells,
        "candidates": len(result.candidates.labels),
        "shares": {name: round(value, 4) for name, value in result.shares().items()},
        "median_probability": round(float(np.median(result.probability)), 4) if result.n_cells else None,
        "labels": [{"label": label, "term_id": ids[label], "cells": count} for label, count in result.counts()],
        "clusters": [asdict(row) for row in result.clusters],
        "composition": [
            {"sample": sample, "cells": n, "labels": dict(counts)}
            for sample, n, counts in composition(result.samples, result.labels)
        ],
        "agreement": None if agreement is None else _agreement_dict(agreement),
        "error_rate": result.provenance["parameters"].get("error_rate"),
        "notes": list(result.provenance["parameters"].get("notes", ())),
        "reading": list(result.candidates.reading),
        "names_made_unique": result.renamed,
        "provenance": result.provenance,
    }


def agreement_of(result: Annotation) -> Agreement | None:
    """Return the agreement with one's own labels, None where no column of them was named."""
    if result.own is None:
        return None
    parameters = result.provenance["parameters"]
    return compare(
        str(parameters["compare_to"]),
        result.own,
        result.labels,
        result.term_ids,
        load_ontology("CL"),
        tissue=parameters["tissue"],
    )


def look_again(result: Annotation, limit: int = 50) -> list[dict[str, Any]]:
    """Return the cells most worth a second look, at most `limit`, each with the reason.

    First cells that are named against a confident cluster, then named cells of the lowest probability. Cells that
    are unknown say so already and are left out.
    """
    confident = {row.name: row.label for row in result.clusters if row.status == "named" and row.probability >= 0.6}
    answered = result.status != "unknown"
    expected = np.array([confident.get(name, "") for name in result.cluster], dtype=object)
    against = answered & (expected != "") & (expected != result.labels)
    against &= ~_compatible(result, expected)
    doubtful = answered & ~against
    half = limit // 2
    first = _ordered(np.flatnonzero(against), -result.probability)[:half]
    second = _ordered(np.flatnonzero(doubtful), result.probability)[: limit - len(first)]
    rows = []
    for cell, reason in [
        *((c, "differs from its cluster") for c in first),
        *((c, "low probability") for c in second),
    ]:
        rows.append(
            {
                "cell": str(result.names[cell]),
                "label": str(result.labels[cell]),
                "probability": float(result.probability[cell]),
                "runner_up": str(result.runner_up[cell]),
                "cluster": str(result.cluster[cell]),
                "cluster_label": str(expected[cell] or result.cluster_label[cell]),
                "genes": int(result.scores.n_genes[cell]),
                "reason": reason,
            }
        )
    return rows


def _ordered(rows: np.ndarray, value: np.ndarray) -> list[int]:
    """Return `rows` by ascending `value`, ties in order of the file."""
    return [int(row) for row in rows[np.argsort(value[rows], kind="stable")]]


def _compatible(result: Annotation, expected: np.ndarray) -> np.ndarray:
    """Return bool (n,): the cell's term lies above or below its cluster's, so the two do not disagree."""
    ontology = load_ontology("CL")
    terms = {row.label: row.term_id for row in result.clusters}
    known: dict[tuple[str, str], bool] = {}
    found = np.zeros(result.n_cells, dtype=bool)
    for cell in np.flatnonzero(expected != ""):
        pair = (str(result.term_ids[cell]), terms[expected[cell]])
        if pair not in known:
            known[pair] = are_related(*pair, ontology)
        found[cell] = known[pair]
    return found


def _agreement_dict(agreement: Agreement) -> dict[str, Any]:
    """Return an agreement as JSON values."""
    return {
        "key": agreement.key,
        "exact": None if agreement.exact is None else round(agreement.exact, 4),
        "related": None if agreement.related is None else round(agreement.related, 4),
        "cells_compared": agreement.n_compared,
        "own": list(agreement.own),
        "own_terms": list(agreement.terms),
        "given": list(agreement.given),
        "table": agreement.table.tolist(),
    }
