"""What is measured, and how often."""

from __future__ import annotations

from dataclasses import dataclass

from cellingua.bench.candidates import CONTROLS, KINDS
from cellingua.bench.learned import LEARNED
from cellingua.bench.zeroshot import ZERO_SHOT
from cellingua.core.errors import InputError

TASKS = {
    "zero-shot": "names without a labelled cell: true labels, types of the tissue, or all types as candidates",
    "controls": "the same from texts alone: definitions, names, definitions of other types, random words",
    "few-shot": "names after a few labelled cells of each type (5 unless told otherwise)",
    "fine-tuned": "names after 80 % of the cells were labelled; where there are donors, also after 80 % of these",
}
DRAWS = 5
FEWEST = 2  # cells of a type, where cells are divided


@dataclass(frozen=True)
class Plan:
    """What is measured, and how often.

    Attributes
    ----------
    task
        One of `TASKS`.
    candidates
        Of a zero-shot task: some of ``terms``, ``labels``, ``tissue``, ``ontology``.
    protocols
        Of a task that learns: ``few:N``, ``share``, ``donors``, ``folds``; empty for those of the task.
    methods
        Names of the methods to run; empty for all.
    draws
        Seeds: draws of cells, or of what is learned from.
    fewest
        Types of fewer cells are left out of a task that learns.
    seed
        Of intervals, graphs and controls.
    """

    task: str
    candidates: tuple[str, ...] = ()
    protocols: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()
    draws: int = DRAWS
    fewest: int = FEWEST
    seed: int = 0

    def __post_init__(self) -> None:
        if self.task not in TASKS:
            raise InputError(f"There is no task {self.task!r}.", "one of: " + ", ".join(TASKS))
        wrong = [kind for kind in self.candidates if kind not in (*KINDS, *CONTROLS)]
        if wrong:
            raise InputError(f"There are no candidates {wrong[0]!r}.", "some of: " + ", ".join(KINDS))
        unknown = sorted(set(self.methods) - {method.name for method in (*ZERO_SHOT, *LEARNED)})
        if unknown:
            raise InputError(
                f"There is no method {unknown[0]!r}.", "some of: " + ", ".join(m.name for m in (*ZERO_SHOT, *LEARNED))
            )
        if self.draws < 1 or self.fewest < 1 or self.seed < 0:
            raise InputError(
                f"{self.draws} draws, {self.fewest} cells and the seed {self.seed} were asked for.",
                "at least one draw, at least one cell, a seed from 0",
            )
