"""The report: one self-contained HTML file that opens from an e-mail."""

from __future__ import annotations

import base64
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import BaseLoader, Environment, StrictUndefined, Template
from markupsafe import Markup

from cellingua.report.methods import LIMITS, REFERENCES, methods_text
from cellingua.report.palette import colours_for
from cellingua.report.points import embedded_json, map_data
from cellingua.tasks.agreement import Agreement, composition
from cellingua.tasks.result import Annotation
from cellingua.tasks.summary import agreement_of, look_again

MAX_LABELS = 24  # bars in the composition, and columns of the confusion
MAX_SAMPLES = 60
MAX_CLUSTERS = 150
READING_LINES = 200


def render(result: Annotation, title: str, rows: np.ndarray, points: np.ndarray, figures: list[Path]) -> str:
    """Return the report as HTML.

    Parameters
    ----------
    title
        Name of what was annotated, such as the file's name.
    rows, points
        The cells of the map and where they lie, as `report.points.layout_of` gives.
    figures
        Static PNG figures, which are put into the page.

    Notes
    -----
    Every text of the input (labels, names, genes) is escaped by the template or set as text by the script.
    """
    colours = dict(zip(*_label_colours(result), strict=True))
    agreement = agreement_of(result)
    return template("report.html").render(
        title=title,
        css=Markup(part("report.css")),
        js=Markup(part("report.js")),
        data=Markup(embedded_json(map_data(result, rows, points))),
        has_map=len(rows) > 0,
        drawn=len(rows),
        cells=result.n_cells,
        n_labels=sum(label != "unknown" for label, _ in result.counts()),
        shares=result.shares(),
        median=float(np.median(result.probability)),
        model=result.provenance["model"],
        candidates=len(result.candidates.labels),
        origin=result.candidates.origin,
        reading=list(result.candidates.reading)[:READING_LINES],
        renamed=result.renamed,
        diagnosis=result.diagnosis,
        seen=result.provenance.get("seen"),
        bars=_bars(result, colours),
        samples=_samples(result, colours),
        sample_key=result.provenance["parameters"]["sample_key"],
        clusters=result.clusters[:MAX_CLUSTERS],
        n_clusters=len(result.clusters),
        cluster_key=result.provenance["parameters"]["cluster_key"],
        colours=colours,
        agreement=agreement,
        confusion=_confusion(agreement) if agreement else None,
        again=look_again(result),
        methods=methods_text(result),
        references=REFERENCES,
        limits=LIMITS,
        figures=[(path.name, base64.b64encode(path.read_bytes()).decode("ascii")) for path in figures],
        version=result.provenance["versions"].get("cellingua", ""),
    )


def _label_colours(result: Annotation) -> tuple[list[str], list[str]]:
    names = [label for label, _ in result.counts()]
    return names, colours_for(names)


def _bars(result: Annotation, colours: dict[str, str]) -> list[dict[str, Any]]:
    """Return the most frequent labels with count, share and width; the rest as one line."""
    counts = result.counts()
    shown, rest = counts[:MAX_LABELS], counts[MAX_LABELS:]
    lines: list[dict[str, Any]] = [{"label": label, "cells": n, "colour": colours[label]} for label, n in shown]
    if rest:
        lines.append({
            "label": f"{len(rest)} more labels", "cells": sum(n for _, n in rest), "colour": "var(--faint)",
        })  # fmt: skip
    most = max((line["cells"] for line in lines), default=1)
    return [
        {**line, "share": line["cells"] / max(result.n_cells, 1), "width": 100 * line["cells"] / most} for line in lines
    ]


def _samples(result: Annotation, colours: dict[str, str]) -> list[dict[str, Any]]:
    """Return one stacked bar a sample; empty without a sample key."""
    if result.samples is None:
        return []
    order = {label: place for place, (label, _) in enumerate(result.counts())}
    lines = []
    for sample, n, counts in composition(result.samples, result.labels)[:MAX_SAMPLES]:
        parts = sorted(counts, key=lambda item: order[item[0]])
        lines.append(
            {
                "sample": sample or "(missing)",
                "cells": n,
                "parts": [{"label": label, "cells": k, "share": k / n, "colour": colours[label]} for label, k in parts],
            }
        )
    return lines


def _confusion(agreement: Agreement) -> dict[str, Any]:
    """Return the confusion as rows of shares, with rare labels joined."""
    table, columns = agreement.table, list(agreement.given)
    if len(columns) > MAX_LABELS:
        joined = table[:, MAX_LABELS - 1 :].sum(axis=1, keepdims=True)
        table = np.hstack([table[:, : MAX_LABELS - 1], joined])
        columns = [*columns[: MAX_LABELS - 1], f"{len(columns) - MAX_LABELS + 1} more"]
    rows = []
    for place, label in enumerate(agreement.own[:MAX_SAMPLES]):
        total = max(int(table[place].sum()), 1)
        cells = [{"n": int(n), "share": int(n) / total} for n in table[place]]
        rows.append({"label": label, "term": agreement.terms[place], "cells": cells, "total": total})
    return {"columns": columns, "rows": rows, "hidden": max(len(agreement.own) - MAX_SAMPLES, 0)}


@cache
def template(name: str) -> Template:
    """Return a page of ``templates/``; everything that is put into it is escaped."""
    environment = Environment(
        loader=BaseLoader(), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["percent"] = lambda value: f"{100 * value:.1f} %"
    environment.filters["whole"] = lambda value: f"{100 * value:.0f} %"
    environment.filters["thousands"] = lambda value: f"{value:,}"
    return environment.from_string(part(name))


def part(name: str) -> str:
    """Return the text of a file of ``templates/``."""
    return (files("cellingua.report") / "templates" / name).read_text(encoding="utf-8")
