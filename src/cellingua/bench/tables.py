"""Results as tables: for a terminal, for Markdown, and as a picture."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from cellingua.bench.candidates import TITLES
from cellingua.bench.learned import FIRST_SEED, LEARNED
from cellingua.bench.zeroshot import ZERO_SHOT
from cellingua.cells.wording import printable
from cellingua.core.files import atomic_path

NAMES: Mapping[str, str] = {method.name: method.title for method in (*LEARNED, *ZERO_SHOT)}
OURS = frozenset(method.name for method in (*ZERO_SHOT, *LEARNED) if method.ours)
PROTOCOLS = {
    "share": "80/20, each type divided",
    "donors": "80/20 by whole donors",
    "folds": "5 stratified folds, pooled",
}
HEAD = ("", "accuracy", "macro-F1", "weighted F1", "lineage", "steps off", "macro-F1, smoothed")
Run = Mapping[str, Any]
Figures = Mapping[str, Any]


def asked(question: str) -> str:
    """Return how a question is called in a title."""
    if question.startswith("few:"):
        n = int(question[4:])
        return f"{n} cell{'' if n == 1 else 's'} a type"
    return PROTOCOLS.get(question, TITLES.get(question, question))


def called(method: str, zero_shot: bool) -> str:
    """Return how a method is called; the model is tuned where cells were labelled."""
    own = {m.name: m.title for m in (ZERO_SHOT if zero_shot else LEARNED)}
    return own.get(method, method)


def groups(result: Figures) -> list[tuple[str, str, list[Run]]]:
    """Return (set, question, runs) in the order in which they were measured."""
    found: dict[tuple[str, str], list[Run]] = {}
    for run in result["runs"]:
        found.setdefault((run["set"], run["question"]), []).append(run)
    return [(name, question, runs) for (name, question), runs in found.items()]


def titled(result: Figures, name: str, question: str) -> str:
    """Return the title of a table."""
    about = result["sets"][name]
    what = f"{printable(about['title'])}, {asked(question)} ({about['cells']:,} cells, {about['types']} types)"
    if about["zero_shot"] or not is_zero_shot(question):
        return what
    return (
        f"{what}\n{'NOT zero-shot' if about['in_training'] else 'Not known to be zero-shot'}: {printable(about['why'])}"
    )


def row(run: Run, zero_shot: bool) -> list[str]:
    """Return one line: the interval of macro-F1 beside it, a dash for what can't be measured."""
    low, high = run["intervals"]["macro_f1"]
    calm = run.get("smoothed") or {}
    return [
        called(run["method"], zero_shot),
        figure(run["accuracy"]),
        f"{figure(run['macro_f1'])} ({figure(low)} to {figure(high)})",
        figure(run["weighted_f1"]),
        figure(run["lineage_accuracy"]),
        figure(run["error_distance"], 1),
        figure(calm.get("macro_f1")),
    ]


def figure(value: float | None, digits: int = 3) -> str:
    """Return a number as it is shown."""
    return "–" if value is None else f"{value:.{digits}f}"


def is_zero_shot(question: str) -> bool:
    """Return whether a question is asked without labelled cells."""
    return question in TITLES


def text(result: Figures) -> str:
    """Return all tables for a terminal, with what was left out and why."""
    parts = []
    for name, question, runs in groups(result):
        lines = [list(HEAD), *(row(run, is_zero_shot(question)) for run in runs)]
        widths = [max(len(line[place]) for line in lines) for place in range(len(HEAD))]
        shown = [aligned(line, widths) for line in lines]
        parts.append("\n".join([titled(result, name, question), *shown, verdict(runs)]))
    told = dict.fromkeys((entry["method"], entry["reason"]) for entry in result["skipped"])
    if told:
        reasons = [f"{NAMES.get(method, 'this question')}: {printable(reason)}" for method, reason in told]
        parts.append("Left out:\n  " + "\n  ".join(reasons))
    return "\n\n".join(parts)


def aligned(line: Sequence[str], widths: Sequence[int]) -> str:
    """Return a line of a table, the first cell to the left and the others to the right."""
    first, *others = (cell.rjust(width) for cell, width in zip(line, widths, strict=True))
    return "  ".join([first.strip().ljust(widths[0]), *others]).rstrip()


def winner(runs: Sequence[Run]) -> tuple[str, float] | None:
    """Return the best baseline by macro-F1 and how far it is above the model; None without either."""
    ours = max((run["macro_f1"] for run in runs if run["method"] == "model"), default=None)
    others = [run for run in runs if run["method"] not in OURS]
    if not others or ours is None:
        return None
    best = max(others, key=lambda run: run["macro_f1"])
    return best["method"], best["macro_f1"] - ours


def verdict(runs: Sequence[Run]) -> str:
    """Return the line that says which baseline is best, and whether it wins."""
    best = winner(runs)
    if best is None:
        return ""
    method, ahead = best
    if ahead > 0:
        return f"A baseline WINS: {NAMES[method]}, macro-F1 {ahead:.3f} above the model."
    return f"Best baseline: {NAMES[method]}, macro-F1 {-ahead:.3f} below the model."


def summary(result: Figures, question: str) -> str:
    """Return macro-F1 of every method on every set as Markdown, for one question; the best of a row is bold."""
    names, methods, values = matrix(result, question, lambda run: run["macro_f1"])
    if not names:
        return ""
    lines = [["", *(called(method, is_zero_shot(question)) for method in methods)], ["---"] * (len(methods) + 1)]
    for name, line in zip(names, values, strict=True):
        about = result["sets"][name]
        note = " (in training)" if about["in_training"] else ""
        best = max((value for value in line if value is not None), default=None)
        shown = [f"**{figure(value)}**" if value is not None and value == best else figure(value) for value in line]
        lines.append([escaped(f"{about['title']}, {about['types']} types{note}"), *shown])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def markdown(result: Figures) -> str:
    """Return all tables as Markdown."""
    parts = []
    for name, question, runs in groups(result):
        lines = [list(HEAD), ["---"] * len(HEAD), *(row(run, is_zero_shot(question)) for run in runs)]
        body = "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
        parts.append(f"{escaped(titled(result, name, question))}\n\n{body}\n\n{verdict(runs)}".rstrip())
    return "\n\n".join(parts)


def escaped(value: str) -> str:
    """Return text of a file so that Markdown shows it as it is, and nothing in it is HTML."""
    for mark, instead in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ("|", "\\|"), ("`", "\\`"), ("*", "\\*")):
        value = value.replace(mark, instead)
    return value


def matrix(
    result: Figures, question: str, value: Callable[[Run], float | None]
) -> tuple[list[str], list[str], list[list[float | None]]]:
    """Return sets, methods and their values for one question: the summary over sets."""
    held = [group for group in groups(result) if group[1] == question]
    methods = [m.name for m in (ZERO_SHOT if is_zero_shot(question) else LEARNED)]
    there = {(run["set"], run["method"]): value(run) for _, _, runs in held for run in runs}
    shown = [method for method in methods if any((name, method) in there for name, _, _ in held)]
    names = [name for name, _, _ in held]
    return names, shown, [[there.get((name, method)) for method in shown] for name in names]


def picture(result: Figures, question: str, path: Path) -> None:
    """Draw macro-F1 of every method on every set, with its interval, as a PNG or SVG.

    Sets that the model was trained on are left out, unless there are no others.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    every, methods, _ = matrix(result, question, lambda run: run["macro_f1"])
    names = [name for name in every if not result["sets"][name]["in_training"]] or every
    by = {(run["set"], run["method"]): run for run in result["runs"] if run["question"] == question}
    drawn = Figure(figsize=(8.0, 1.3 + 0.16 * len(names) * (len(methods) + 1)), layout="constrained")
    axes = drawn.add_subplot()
    step = 1.0 / (len(methods) + 1)
    for place, method in enumerate(methods):
        at = [(row, by[name, method]) for row, name in enumerate(names) if (name, method) in by]
        values = [run["macro_f1"] for _, run in at]
        bounds = [run["intervals"]["macro_f1"] for _, run in at]
        spread = [
            [max(v - low, 0.0) for v, (low, _) in zip(values, bounds, strict=True)],
            [max(high - v, 0.0) for v, (_, high) in zip(values, bounds, strict=True)],
        ]
        axes.barh([row + place * step for row, _ in at], values, height=step, xerr=spread, color=f"C{place % 10}",
                  error_kw={"lw": 0.6}, label=called(method, is_zero_shot(question)))  # fmt: skip
    titles = [
        result["sets"][name]["title"] + (" (in training)" if result["sets"][name]["in_training"] else "")
        for name in names
    ]
    axes.set_yticks([row + 0.5 - step for row in range(len(names))], titles)
    axes.set_ylim(len(names) - step, -step)
    axes.set_xlim(0, 1)
    axes.set_xlabel(f"macro-F1, {asked(question)}; seeds from {FIRST_SEED}")
    drawn.legend(fontsize="small", loc="outside upper center", ncols=3, frameon=False)
    kind = path.suffix.removeprefix(".") or "png"
    with rc_context({"svg.hashsalt": "cellingua"}), atomic_path(path) as partial:  # the same figures, the same bytes
        drawn.savefig(partial, format=kind, metadata={"Date": None} if kind == "svg" else None)
