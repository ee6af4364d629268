"""From single runs to tables: mean and spread over draws, for each set and on average over sets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.fewshot_methods import METHODS
from benchmarks.fewshot_protocols import FEW, PROTOCOLS
from benchmarks.fewshot_sets import FAMILY

Run = Mapping[str, Any]
#: Mean and sample standard deviation over draws; no deviation where there is one draw, nothing where there is none.
Cell = list[float] | list[float | None] | None
Table = dict[str, dict[str, Cell]]
ALL, UNSEEN = "all sets", "sets the model has not seen"


def spread(values: Sequence[float]) -> Cell:
    """Return [mean, sample standard deviation] of some values, rounded for showing."""
    if not len(values):
        return None
    deviation = round(float(np.std(values, ddof=1)), 4) if len(values) > 1 else None
    return [round(float(np.mean(values)), 4), deviation]


def of_set(runs: Sequence[Run], figure: str, protocol: str, name: str, method: str) -> Cell:
    """Return one cell of a table: a method on a set."""
    return spread(
        [run[figure] for run in runs if (run["protocol"], run["set"], run["method"]) == (protocol, name, method)]
    )


def average(runs: Sequence[Run], figure: str, protocol: str, method: str, names: Sequence[str]) -> Cell:
    """Return mean and spread, over draws, of the mean over sets.

    Each draw gives one mean over sets, in which the tasks of one file (`FAMILY`) count as one set. A draw that is
    missing on one of the sets is left out, so that every mean is over the same sets.
    """
    per_draw: dict[int, dict[str, float]] = {}
    for run in runs:
        if run["protocol"] == protocol and run["method"] == method and run["set"] in names:
            per_draw.setdefault(run["draw"], {})[run["set"]] = run[figure]
    means = []
    for _, held in sorted(per_draw.items()):
        if set(held) == set(names):
            families: dict[str, list[float]] = {}
            for name, value in held.items():
                families.setdefault(FAMILY.get(name, name), []).append(value)
            means.append(float(np.mean([np.mean(values) for values in families.values()])))
    return spread(means)


def titled(protocol: str) -> str:
    """Return how a protocol is called in a title."""
    if protocol in {str(n) for n in FEW}:
        return f"{protocol} cell{'' if protocol == '1' else 's'} a type"
    return f"{protocol} to learn from and to judge"


def tables(runs: Sequence[Run], sets: Mapping[str, str], seen: Sequence[str]) -> dict[str, Table]:
    """Return every table by its title.

    Parameters
    ----------
    runs
        One mapping each: ``set``, ``protocol``, ``draw``, ``method``, ``macro_f1``, ``accuracy``.
    sets
        Name -> title, in the order of the rows.
    seen
        Names of the sets that the model was trained on.
    """
    done = {run["method"] for run in runs}
    shown = [method for method in METHODS if method.name in done]
    unseen = [name for name in sets if name not in seen]
    groups = {UNSEEN: unseen, ALL: list(sets)}

    def on_sets(figure: str, protocol: str) -> Table:
        rows: Table = {}
        for name, title in sets.items():
            note = " (in training)" if name in seen else ""
            rows[title + note] = {m.title: of_set(runs, figure, protocol, name, m.name) for m in shown}
        for title, names in groups.items():
            rows[f"mean, {title}"] = {m.title: average(runs, figure, protocol, m.name, names) for m in shown}
        return rows

    protocols = [protocol for protocol in PROTOCOLS if any(run["protocol"] == protocol for run in runs)]
    found = {}
    for figure, called in (("macro_f1", "Macro-F1"), ("accuracy", "Accuracy")):
        for title, names in groups.items():
            found[f"{called}, mean over {title}"] = {
                titled(protocol): {m.title: average(runs, figure, protocol, m.name, names) for m in shown}
                for protocol in protocols
            }
    found |= {f"Macro-F1, {titled(protocol)}": on_sets("macro_f1", protocol) for protocol in protocols}
    return found
