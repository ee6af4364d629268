"""Sensitive or resistant, on a user's labelled cells: what a model learns from them, and what of it is the sample."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from anndata import AnnData
from numpy.typing import NDArray

from cellingua.cells.diagnosis import Diagnosis
from cellingua.cells.doctor import examine
from cellingua.cells.downloads import open_downloads
from cellingua.cells.reading import CellFile, open_cells
from cellingua.core.errors import InputError
from cellingua.core.progress import Progress, Silent
from cellingua.core.runtime import pick_device
from cellingua.measures.ranking import auroc
from cellingua.models.drug_bundle import DEFAULT, load_drug_model
from cellingua.models.shelf import load_any
from cellingua.recipes.drug_cells import (
    DRAWS,
    FEW,
    FULL,
    label_by_sample,
    left_out_samples,
    random_draws,
    samples_told_apart,
    scorers,
)
from cellingua.recipes.finetune import check
from cellingua.recipes.finetune_config import FinetuneConfig, LabelledCells
from cellingua.tasks.drug_answer import known_drugs
from cellingua.tasks.drug_labels import positives
from cellingua.tasks.drug_samples import cell_blocks
from cellingua.tasks.finetune import read_labelled
from cellingua.tasks.options import MODEL

if TYPE_CHECKING:
    from cellingua.models.drug_model import DrugModel
    from cellingua.models.tuned import Model

FEW_CELLS = 5  # of a label to learn from, below which the draw itself decides much


@dataclass
class DrugCells:
    """What was measured on labelled cells.

    Attributes
    ----------
    facts
        The file, the labels, the model.
    few, full
        See `cellingua.recipes.drug_cells.random_draws`.
    samples
        See `cellingua.recipes.drug_cells.left_out_samples`; empty without samples.
    label_by_sample, told_apart
        See the functions of these names there; empty without samples.
    shipped
        What a drug model says of the same cells, which saw none of them: ``drug``, ``model``, ``auroc`` and how far
        the cells are from its lines; empty where no drug was named.
    warnings, notes
        Sentences: what makes the figures worth less than they look, and what else is to be known.
    """

    facts: dict[str, Any]
    few: dict[str, Any]
    full: dict[str, Any]
    samples: dict[str, Any] = field(default_factory=dict)
    label_by_sample: dict[str, Any] = field(default_factory=dict)
    told_apart: dict[str, Any] = field(default_factory=dict)
    shipped: dict[str, Any] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON values."""
        return {
            "facts": self.facts,
            "few_shot": self.few,
            "full": self.full,
            "samples_left_out": self.samples,
            "label_by_sample": self.label_by_sample,
            "samples_of_one_label": self.told_apart,
            "drug_model": self.shipped,
            "warnings": self.warnings,
            "notes": self.notes,
        }


def drug_cells(
    cells: AnnData | CellFile | str | Path,
    labels_from: str = "label",
    *,
    table: str | Path | None = None,
    sensitive: str | None = None,
    resistant: str | None = None,
    sample_key: str | None = None,
    model: str | Path | Model | None = MODEL,
    layer: str | None = None,
    few: float = FEW,
    full: float = FULL,
    draws: int = DRAWS,
    drug: str | None = None,
    drug_model: str | Path | DrugModel = DEFAULT,
    allow_missing: bool = False,
    device: str = "auto",
    progress: Progress | None = None,
    **settings: Any,
) -> DrugCells:
    """Measure how well sensitive cells are told from resistant ones, after CellLM's protocols and beside controls.

    Parameters
    ----------
    cells
        An AnnData, a file, or with `table` a folder of downloaded files; nothing is written into it.
    labels_from
        Column of ``obs`` with the labels (with `table`: its column ``label``).
    table
        A table of barcode, label and sample, for a folder: see `cellingua.cells.downloads.open_downloads`.
    sensitive, resistant
        The label that means each; found by themselves where they are called so, or 1 and 0. Cells with any other
        label are left out and counted.
    sample_key
        Column of ``obs`` with the sample, donor or culture dish of each cell (with `table`: its column ``sample``).
        Without it nothing can be said of what the sample explains, and a warning says so.
    model
        Name of a model, its folder, or a loaded one; None measures the logistic regression alone.
    layer
        Layer that holds the counts; by default they are looked for.
    few, full
        Shares of each label that are learned from.
    draws
        Random draws of each.
    drug
        The drug that the labels are about: a drug model's prediction for it is then judged on the same labels.
    drug_model
        That model, by name, folder, or loaded.
    allow_missing
        With `table`: leave out rows whose barcode no file has.
    device
        ``auto``, ``cpu``, ``cuda`` or ``mps``, for a model that isn't loaded yet.
    progress
        Where to report.
    settings
        ``method``, ``seed`` and more: see `cellingua.recipes.finetune_config.FinetuneConfig`. Methods that train a
        tower are tuned anew for every draw.

    Raises
    ------
    InputError
        The cells can't be used, there are no labels or one alone, or it isn't clear which label means sensitive.
    """
    config, progress = FinetuneConfig(**settings), progress or Silent()
    notes: list[str] = []
    if table is not None:
        if isinstance(cells, AnnData | CellFile):
            raise InputError("A table of barcodes goes with a folder of files.", "the path of a folder")
        opened = open_downloads(cells, table, allow_missing=allow_missing)
        cells, notes, labels_from, sample_key = opened.cells, opened.notes, "label", "sample"
    source = cells if isinstance(cells, CellFile) else open_cells(cells)
    diagnosis = examine(source, layer=layer)
    labelled, facts = read_labelled(source, diagnosis, labels_from, sample_key, progress)
    rows, truth, told = positives(labelled.labels, labels_from, sensitive, resistant)
    two, positive = labelled.take(rows), told["means"]["sensitive"]
    shipped = {} if drug is None else judge_drug_model(source, diagnosis, drug, drug_model, rows, truth)
    if isinstance(model, str | Path):
        model = load_any(model, device=pick_device(device).name)
    if model is not None:
        check(model, two, config)
    found = measure(two, positive, model, config, few=few, full=full, draws=draws, progress=progress)
    found.shipped = shipped
    found.facts = {**facts, **told, **found.facts, "without_label": len(labelled) - len(labelled.labelled())}
    found.warnings = [finding.text for finding in diagnosis.findings if finding.level == "warning"] + found.warnings
    found.notes = notes + [finding.text for finding in diagnosis.findings if finding.code == "fractional"]
    return found


def measure(
    cells: LabelledCells,
    positive: str,
    model: Model | None,
    config: FinetuneConfig,
    *,
    few: float = FEW,
    full: float = FULL,
    draws: int = DRAWS,
    progress: Progress | None = None,
) -> DrugCells:
    """Measure cells of two labels: the part of `drug_cells` that comes after reading.

    Parameters
    ----------
    cells
        Of two labels; ``donors`` holds the samples, where they are known.
    positive
        The label that means sensitive.
    """
    truth = np.array([label == positive for label in cells.labels])
    compared = scorers(model, cells, positive, config)
    found = DrugCells(
        {
            "sensitive": int(truth.sum()),
            "resistant": int((~truth).sum()),
            "model": None if model is None else {"name": model.name, "hash": model.hash, "method": config.method},
        },
        random_draws(compared, truth, few, draws, config.seed, progress),
        random_draws(compared, truth, full, draws, config.seed, progress),
    )
    if cells.donors is not None:
        samples = np.array([donor or "(none)" for donor in cells.donors], dtype=np.str_)
        found.label_by_sample = label_by_sample(truth, samples)
        found.samples = left_out_samples(compared, truth, samples, config.seed, progress)
        found.told_apart = samples_told_apart(cells, truth, samples, few, config.seed)
    found.warnings = warnings_of(found)
    return found


def judge_drug_model(
    cells: CellFile,
    diagnosis: Diagnosis,
    drug: str,
    model: str | Path | DrugModel,
    rows: NDArray[np.int64],
    truth: NDArray[np.bool_],
) -> dict[str, Any]:
    """Return how well a drug model, which saw no labelled cell, tells sensitive cells from resistant ones.

    Each cell is answered by itself; the score is minus the predicted ln IC50.
    """
    loaded = load_drug_model(model) if isinstance(model, str | Path) else model
    (name,) = known_drugs(loaded, [drug])
    diagnosis.raise_if_refused()
    answers = [loaded.predict(samples, [name]) for _, _, samples in cell_blocks(cells, diagnosis)]
    value = np.concatenate([answer.value[:, 0] for answer in answers])[rows]
    distance = np.concatenate([answer.distance for answer in answers])[rows]
    return {
        "drug": name,
        "model": loaded.name,
        "auroc": round(auroc(truth, -value), 4),
        "distance_from_lines": round(float(np.median(distance)), 1),
    }


def warnings_of(found: DrugCells) -> list[str]:
    """Return, in plain words, what makes the figures worth less than they look."""
    out = []
    if not found.label_by_sample:
        out.append(
            "No samples were given: if a sample holds cells of one label alone, these figures measure how well samples "
            "are told apart. Name the column with --sample-key."
        )
    elif len(found.label_by_sample["samples"]) == 1:
        out.append("All cells are of one sample: nothing here says whether the figures hold in another.")
    elif found.label_by_sample["equal"]:
        n = len(found.label_by_sample["samples"])
        out.append(
            f"The label equals the sample: each of the {n} samples holds sensitive or resistant cells alone. A random "
            "draw then measures how well samples are told apart, by response, batch or anything else; only the figures "
            "of samples left out say something about response."
        )
    elif found.label_by_sample["accuracy"] > 0.9:
        out.append(
            f"The sample nearly says the label: calling each cell what most of its sample are is right for "
            f"{found.label_by_sample['accuracy']:.0%} of the cells."
        )
    apart = found.told_apart.get("auroc")
    if apart is not None and apart >= 0.7:
        out.append(
            f"Two samples of the same label are told apart with an AUROC of {apart:.2f} after {found.few['share']:.0%} "
            "of their cells: the random draws measure the sample at least in part."
        )
    if found.samples and not found.samples["methods"]:
        out.append(f"No sample could be left out: {found.samples['reason']}")
    elif found.samples.get("not_judged"):
        out.append(
            f"{found.samples['not_judged']:,} cells could not be judged with their sample left out, because the other "
            "samples hold one label alone."
        )
    learned = found.few["learned_from"]
    if min(learned.values()) < FEW_CELLS:
        out.append(
            f"Few-shot here means {learned['sensitive']} sensitive and {learned['resistant']} resistant cells: the "
            "spread over the draws is large."
        )
    return out
