"""The card of a tuned model: what it came from, what it was tuned on, how, and how well."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cellingua.recipes.card_parts import how, plain, table

MOST_ROWS = 200


def write_tuned_card(
    name: str,
    base: Mapping[str, Any],
    facts: Mapping[str, Any],
    comparison: Mapping[str, Any],
    history: Sequence[Mapping[str, float]],
) -> str:
    """Return the card in Markdown; every figure in it was computed in this run.

    Parameters
    ----------
    base
        ``name`` and ``hash`` of the model that was tuned, and the first lines of its own card.
    facts
        What it was tuned on and how: see `cellingua.recipes.finetune`.
    comparison
        See `cellingua.recipes.finetune.Tuned`.
    history
        Lines of the validation.
    """
    donors = facts.get("donors")
    left = f" {facts['without_label']:,} cells without a label were left out." if facts["without_label"] else ""
    parts = [
        f"# {plain(name)}",
        f"{plain(str(base['name']))} (SHA-256 {base['hash']}…), tuned to {len(facts['per_class'])} classes.",
        "## What it was tuned on",
        f"{facts['cells']:,} labelled cells{f' of {len(donors)} donors' if donors else ''}, SHA-256 of counts and "
        f"labels {facts.get('data_hash', 'not taken')}.{left}",
        table(["class", "cells"], [[label, f"{n:,}"] for label, n in list(facts["per_class"].items())[:MOST_ROWS]]),
    ]
    if donors:
        rows = [[donor or "(none)", f"{n:,}"] for donor, n in list(donors.items())[:MOST_ROWS]]
        parts += ["Donors:", table(["donor", "cells"], rows)]
    parts += ["## Validation", told(comparison)]
    if facts.get("test"):
        test = facts["test"]
        parts += ["## Test", f"{test['cells']:,} cells that took no part in tuning ({test['on']}):", _figures(test)]
    if history:
        shown = [history[0], *history[1:-1][-6:], history[-1]] if len(history) > 8 else list(history)
        keys = list(shown[0])
        parts += ["## While it was tuned", table(keys, [[f"{line[key]:g}" for key in keys] for line in shown])]
    parts += [
        *how(facts.get("config", {}), "Tuned"),
        "## Intended use",
        "Research on human single cells like those that it was tuned on. It names its own classes and no others: a "
        "cell of a type that it has not met is given one of them, or left unknown. Not for diagnosis or any clinical "
        "decision.",
    ]
    return "\n\n".join(parts) + "\n"


def told(comparison: Mapping[str, Any]) -> str:
    """Return what the validation said, with a plain word where the frozen classifier was better."""
    if not comparison:
        return "None: no cell could be held out. Its probabilities are not calibrated on cells of its own."
    lines = [f"{comparison['cells']:,} held-out cells ({comparison['on']}):", _figures(comparison)]
    if comparison["worse"]:
        lines.append("**It was worse than the frozen classifier on its own validation.**")
    return "\n\n".join(lines)


def _figures(scores: Mapping[str, Any]) -> str:
    rows = [
        [name, *(f"{value[key]:.3f}" for key in ("accuracy", "macro_f1", "log_loss"))]
        for name, value in scores.items()
        if isinstance(value, Mapping)
    ]
    return table(["method", "accuracy", "macro-F1", "log loss"], rows)
