"""Fine-tuning: a model and labelled cells in, a model with classes of its own out."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from cellingua.calibration.rollup import softmax
from cellingua.core.errors import InputError
from cellingua.core.progress import Progress, Silent
from cellingua.measures.classification import accuracy, macro_f1
from cellingua.models.inputs import Counts, Rows
from cellingua.models.model import LangCellModel
from cellingua.models.tuned import ClassHead
from cellingua.recipes.finetune_config import TRAINED, WORDS, FinetuneConfig, LabelledCells
from cellingua.recipes.finetune_frozen import (
    Classes,
    Linear,
    States,
    best_temperature,
    fit_classifier,
    fit_prototypes,
    read_classes,
    read_states,
)
from cellingua.recipes.finetune_judge import TEMPERATURE, by_folds, compare, figures
from cellingua.recipes.finetune_run import held_out, train_towers

if TYPE_CHECKING:
    from cellingua.models.tuned import Model

ROWS = 2048
GIVEN = "the validation cells that were given"


@dataclass
class Tuned:
    """A tuned model.

    Attributes
    ----------
    model
        The base model with its head; for a trained method its tower is the tuned one.
    head
        Its classes.
    history
        A line for each validation of a trained method.
    comparison
        ``{"on": how it was judged, "cells": n, METHOD: figures, "classifier": figures, "worse": bool}``; empty where
        nothing could be held out.
    facts
        What it was tuned on, as JSON values.
    cells_changed, texts_changed
        Which towers were tuned.
    folder
        Where training keeps its checkpoints until `clean`.
    """

    model: Model
    head: ClassHead
    history: list[dict[str, float]] = field(default_factory=list)
    comparison: dict[str, Any] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    cells_changed: bool = False
    texts_changed: bool = False
    folder: Path | None = None

    def clean(self) -> None:
        """Remove the checkpoints: the tuned model is saved."""
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def classes(self) -> list[str]:
        """The labels, in the order of the columns of `probabilities`."""
        return list(self.head.classes)

    def probabilities(self, block: Counts) -> NDArray[np.float32]:
        """Return the calibrated probability of each class in each cell, float32 (cells, classes)."""
        parts = [self.head.answer(self.model, part)[1] for part in _blocks(block)]
        return softmax(np.concatenate(parts))


def _blocks(block: Counts) -> list[Rows]:
    n = block.counts.shape[0]
    starts = range(0, max(n, 1), ROWS)
    return [Rows.of(block, slice(start, start + ROWS)) for start in starts]


def tune(
    model: Model,
    cells: LabelledCells,
    config: FinetuneConfig,
    *,
    validation: LabelledCells | None = None,
    folder: Path | None = None,
    progress: Progress | None = None,
) -> Tuned:
    """Tune a model on labelled cells; the model that is given stays as it is.

    Parameters
    ----------
    model
        LangCell or CellLM.
    cells
        At least two classes, one cell of each or more; cells without a label are left out and counted.
    config
        See `FinetuneConfig`.
    validation
        Cells to judge and calibrate by. By default a frozen method is judged by folds of `cells` (of donors where
        there are two or more), and then fitted on all of them; a trained method holds cells out of training (see
        `FinetuneConfig.validation_share`).
    folder
        Where a trained method keeps its checkpoints: the same call resumes from them. None keeps nothing.

    Raises
    ------
    InputError
        No label, one class only, or a method that this model can't do.
    """
    progress = progress or Silent()
    kept = cells.labelled()
    check(model, kept, config)
    progress.step("Reading the labelled cells", len(kept))
    classes = read_classes(model, kept.labels, config.tissue)
    facts = describe(cells, kept, classes)
    held = None if validation is None else _of_known_classes(validation.labelled(), classes)
    if config.method in TRAINED:
        return train_method(model, kept, classes, config, held, facts, folder, progress)
    return tune_frozen(model, kept, classes, config, held, facts)


def check(model: Model, kept: LabelledCells, config: FinetuneConfig) -> None:
    """Refuse what can't be tuned on."""
    found = sorted(set(kept.labels))
    if not found:
        raise InputError("No cell has a label.", "labelled cells", "another column")
    if len(found) == 1:
        raise InputError(f"There is one class only: {found[0]!r}.", "at least two classes", "another column")
    if config.method in WORDS and not isinstance(model, LangCellModel):
        raise InputError(
            f"The method {config.method!r} needs a model that knows words, and {model.name} knows none.",
            "a LangCell model",
            "--method classifier",
        )
    if isinstance(model, LangCellModel) and model.config.cell_kind == "bert" and model.precision == "int8":
        raise InputError(
            f"{model.name} was loaded in int8, which keeps no weights that could be tuned and saved.",
            "a model loaded in another precision",
            "precision='auto'",
        )


def describe(cells: LabelledCells, kept: LabelledCells, classes: Classes) -> dict[str, Any]:
    """Return what a model is tuned on, as JSON values."""
    per_class = Counter(kept.labels)
    donors = None if kept.donors is None else dict(sorted(Counter(kept.donors).items()))
    return {
        "cells": len(kept),
        "without_label": len(cells) - len(kept),
        "per_class": {name: per_class[name] for name in classes.labels},
        "donors": donors,
    }


def tune_frozen(
    model: Model,
    cells: LabelledCells,
    classes: Classes,
    config: FinetuneConfig,
    validation: LabelledCells | None,
    facts: dict[str, Any],
) -> Tuned:
    """Fit a method that leaves the tower as it is; judge it first, by folds or on `validation`."""
    states = read_states(model, cells, classes)
    fit = fitter(config, config.method, model, classes)
    compared = {config.method: fit, "classifier": fitter(config, "classifier", model, classes)}
    if validation is not None:
        held = read_states(model, validation, classes)
        judged = {name: made(states).logits(held) for name, made in compared.items()}
        truth, told = held.truth, GIVEN
    else:
        judged, truth, told = by_folds(states, cells, compared, config)
    usual = TEMPERATURE[config.method]
    temperature = best_temperature(judged[config.method], truth, usual) if len(truth) else usual
    comparison = compare(judged, truth, config.method, told, temperature) if len(truth) else {}
    words = isinstance(model, LangCellModel)
    head = make_head(fit(states).module(), classes, config.method, words, temperature, comparison, facts)
    return Tuned(replace(model, head=head), head, [], comparison, facts)


def make_head(
    module: nn.Module,
    classes: Classes,
    method: str,
    keeps_texts: bool,
    temperature: float,
    comparison: dict[str, Any],
    facts: dict[str, Any],
) -> ClassHead:
    """Return the head of a tuned model."""
    told = {"comparison": comparison, **facts}
    return ClassHead(
        module, classes.labels, classes.term_ids, classes.texts, method, keeps_texts, temperature, told
    )  # fmt: skip


def train_method(
    model: Model,
    cells: LabelledCells,
    classes: Classes,
    config: FinetuneConfig,
    validation: LabelledCells | None,
    facts: dict[str, Any],
    folder: Path | None,
    progress: Progress,
) -> Tuned:
    """Tune weights on the training loop, judged on cells that are held out, beside the frozen classifier."""
    split, told = (None, GIVEN) if validation is not None else held_out(cells, config)
    used, held = cells, validation
    if split is not None:
        used, held = cells.take(split.train), cells.take(split.test) if len(split.test) else None
    states = read_states(model, used, classes)
    plain = fit_classifier(model, states, classes, config.class_weights or "balanced", config.seed)
    run = train_towers(model, used, held, classes, config, states, plain, folder, progress)
    comparison: dict[str, Any] = {}
    temperature = 1.0
    if held is not None:
        frozen = read_states(model, held, classes)
        judged = {config.method: run.held_logits, "classifier": plain.logits(frozen)}
        temperature = best_temperature(run.held_logits, frozen.truth)
        comparison = compare(judged, frozen.truth, config.method, told, temperature)
    facts |= {"validation": told, "trained_on": len(used)}
    tuned, module, texts = run.net.finished(model)
    named = classes if texts is None else replace(classes, texts=texts)
    head = make_head(module.cpu().eval(), named, config.method, run.net.keeps_texts, temperature, comparison, facts)
    head.module.requires_grad_(False).to("cpu" if getattr(module, "kind", "") == "linear" else model.device)
    changed = run.net.cells_changed, run.net.texts_changed
    return Tuned(replace(tuned, head=head), head, run.history, comparison, facts, *changed, folder)


def fitter(config: FinetuneConfig, method: str, model: Model, classes: Classes) -> Callable[[States], Linear]:
    """Return what fits a frozen method on states."""
    weights = config.class_weights or "balanced"
    if method == "prototypes":
        assert isinstance(model, LangCellModel)  # by check
        return lambda states: fit_prototypes(model, states, classes)
    return lambda states: fit_classifier(model, states, classes, weights, config.seed)


def judge(tuned: Tuned, cells: LabelledCells) -> dict[str, Any]:
    """Return the figures of a tuned model on cells that took no part in tuning, as JSON values.

    Cells of a class that it does not have are judged too: they can't be right.
    """
    place = {name: number for number, name in enumerate(tuned.classes)}
    logits = np.log(tuned.probabilities(cells) + 1e-12)
    truth = np.array([place.get(label, -1) for label in cells.labels])
    known = truth >= 0
    found: dict[str, Any] = {"cells": len(truth), "of_unknown_classes": int((~known).sum())}
    if known.any():
        guess = logits.argmax(axis=1)
        scores = figures(logits[known], truth[known], 1.0)
        found[tuned.head.method] = scores | {
            "accuracy": round(accuracy(truth, guess), 4),
            "macro_f1": round(macro_f1(truth, guess), 4),
        }
    return found


def _of_known_classes(cells: LabelledCells, classes: Classes) -> LabelledCells:
    known = set(classes.labels)
    rows = np.array([label in known for label in cells.labels], dtype=bool)
    if not rows.any():
        raise InputError("No validation cell has a class that was tuned on.", "the same labels in both")
    return cells.take(rows)
