"""Tune a model to the labels of a file or an AnnData, and save it as a model of its own."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from anndata import AnnData
from scipy.sparse import csr_matrix, vstack

from cellingua.cells.counts import CountBlocks
from cellingua.cells.diagnosis import Diagnosis
from cellingua.cells.doctor import examine
from cellingua.cells.reading import CellFile, open_cells
from cellingua.core.errors import InputError
from cellingua.core.files import refuse_overwrite, sha256_file
from cellingua.core.progress import Progress, Silent
from cellingua.core.runtime import pick_device
from cellingua.measures.splits import Split, by_share, groups_by_share
from cellingua.models.seen import CELLS, DataSet, seen_by, tuned_on
from cellingua.models.shelf import load_any
from cellingua.models.tuned_bundle import save_tuned
from cellingua.recipes.finetune import Tuned, judge, tune
from cellingua.recipes.finetune_card import write_tuned_card
from cellingua.recipes.finetune_config import FinetuneConfig, LabelledCells
from cellingua.recipes.seen import ACCESSION, known
from cellingua.tasks.columns import label_column, text_column
from cellingua.tasks.options import MODEL
from cellingua.words.naming import name_label

if TYPE_CHECKING:
    from cellingua.models.tuned import Model


def finetune(
    cells: AnnData | CellFile | str | Path,
    labels_from: str,
    output: str | Path | None = None,
    *,
    model: str | Path | Model = MODEL,
    donor_key: str | None = None,
    layer: str | None = None,
    test_share: float = 0.0,
    overwrite: bool = False,
    device: str = "auto",
    progress: Progress | None = None,
    **settings: Any,
) -> Tuned:
    """Tune a model to the labels of some cells, from one cell a type upwards.

    Parameters
    ----------
    cells
        An AnnData, or a path; nothing is written into it.
    labels_from
        Column of ``obs`` with a label for each cell. Cells without one, or with one that says that nobody knows
        ("unknown", "doublet"), are left out and counted.
    output
        Folder of the tuned model, which every other function takes as ``model``; None keeps it in memory.
    model
        Name of a model, its folder, or a loaded one.
    donor_key
        Column of ``obs`` with the donor of each cell: whole donors are then held out.
    layer
        Layer that holds the counts; by default they are looked for.
    test_share
        Share of the cells (of whole donors where there are any) that takes no part in tuning and is judged at the end.
    overwrite
        Replace `output` if it is there.
    device
        ``auto``, ``cpu``, ``cuda`` or ``mps``, for a model that isn't loaded yet.
    progress
        Where to report.
    settings
        ``method``, ``seed``, ``validation_share``, ``tissue``, ``class_weights``, ``epochs``, ``batch``,
        ``learning_rate``, ``patience``, ``few_shot``, ``rank``: see `cellingua.recipes.finetune_config.FinetuneConfig`.

    Returns
    -------
    Tuned
        ``model`` (for `annotate` and `embed`), ``classes``, ``comparison`` (its own validation beside the frozen
        classifier's), ``facts``.

    Raises
    ------
    InputError
        The cells can't be used, the column is missing or holds no labels, there is one class only, a class has one
        cell where a share is to be held out, or `output` exists and `overwrite` is False.
    """
    config = FinetuneConfig(**settings)
    if output is not None:
        refuse_overwrite(Path(output), force=overwrite)
    source = cells if isinstance(cells, CellFile) else open_cells(cells)
    progress = progress or Silent()
    loaded = load_any(model, device=pick_device(device).name) if isinstance(model, str | Path) else model
    labelled, facts = read_labelled(source, examine(source, layer=layer), labels_from, donor_key, progress)
    return finetune_cells(labelled, loaded, config, facts, test_share=test_share, output=output, progress=progress)


def finetune_cells(
    labelled: LabelledCells,
    model: Model,
    config: FinetuneConfig,
    facts: dict[str, Any],
    *,
    test_share: float = 0.0,
    output: str | Path | None = None,
    progress: Progress | None = None,
) -> Tuned:
    """Tune, judge on the test cells, and save: the part of `finetune` that comes after reading.

    Parameters
    ----------
    facts
        From `read_labelled`.
    """
    progress = progress or Silent()
    kept = labelled.labelled()
    split, told = hold_out(kept, test_share, config.seed)
    workplace = None if output is None else Path(output).with_name(Path(output).name + ".training")
    tuned = tune(model, kept.take(split.train), config, folder=workplace, progress=progress)
    tuned.facts |= {**facts, "without_label": len(labelled) - len(kept), "config": asdict(config)}
    if len(split.test):
        tuned.facts["test"] = {"on": told, **judge(tuned, kept.take(split.test))}
    tuned.head.facts = {**tuned.head.facts, **tuned.facts}
    used = kept.take(split.train)
    tuned.head.seen = tuned_on(seen_by(model), data_set_of(used, facts), used.counts)
    if output is not None:
        save(tuned, Path(output), model)
        tuned.model = load_any(output, device=model.device)
        tuned.head = tuned.model.head or tuned.head
    return tuned


def save(tuned: Tuned, output: Path, base: Model) -> None:
    """Write the tuned model's folder with its card."""
    facts, method = tuned.facts, tuned.head.method
    described = {"name": base.name, "hash": base.hash}
    card = write_tuned_card(output.name, described, facts, tuned.comparison, tuned.history)
    save_tuned(
        output,
        tuned.model,
        name=output.name,
        description=f"{base.name} tuned to {len(tuned.classes)} classes with {facts['cells']:,} cells ({method}).",
        card=card,
        cells_changed=tuned.cells_changed,
        texts_changed=tuned.texts_changed,
    )
    tuned.clean()


def read_labelled(
    cells: CellFile, diagnosis: Diagnosis, labels_from: str, donor_key: str | None, progress: Progress | None = None
) -> tuple[LabelledCells, dict[str, Any]]:
    """Return the cells of an opened file with their labels, and what is to be told of them."""
    diagnosis.raise_if_refused()
    labels = label_column(cells.obs, labels_from)
    donors = [str(donor) for donor in text_column(cells.obs, donor_key)] if donor_key else None
    vague = Counter(label for label in labels if label and name_label(label).how == "no type")
    labels = ["" if label in vague else label for label in labels]
    if not any(labels):
        raise InputError(f"No cell has a label in {labels_from!r}.", "a column with labels", "another column")
    (progress or Silent()).step("Reading the counts", cells.n_cells)
    parts = []
    for block in CountBlocks(cells, diagnosis).blocks():
        # Cells without a label are counted, and their counts are not kept.
        keep = np.array([labels[row] != "" for row in range(block.start, block.stop)], dtype=np.float32)
        parts.append((csr_matrix(block.counts.multiply(keep[:, None])), block.totals))
    counts = csr_matrix(vstack([part[0] for part in parts]))
    counts.eliminate_zeros()
    held = LabelledCells(counts, np.concatenate([part[1] for part in parts]), labels, donors)
    facts: dict[str, Any] = {
        "file": cells.name,
        "labels_from": labels_from,
        "donor_key": donor_key,
        "no_type": dict(vague),
        "data_hash": digest(held),
        "counts": diagnosis.place,
        "file_sha256": "",
        "file_bytes": 0,
    }
    if cells.path is not None and cells.path.is_file():
        facts |= {"file_sha256": sha256_file(cells.path), "file_bytes": cells.path.stat().st_size}
    return held, facts


def data_set_of(cells: LabelledCells, facts: dict[str, Any]) -> DataSet:
    """Return what is written down of the cells that a model was tuned on: see `cellingua.models.seen`."""
    name = str(facts.get("file", ""))
    return DataSet(
        Path(name).name.split(".")[0],
        CELLS,
        str(facts.get("file_sha256", "")),
        int(facts.get("file_bytes", 0)),
        len(cells),
        known(cells.donors or ()),
        tuple(sorted(set(ACCESSION.findall(name)))),
    )


def digest(cells: LabelledCells) -> str:
    """Return the first 16 hexadecimal digits of the SHA-256 of counts and labels."""
    found = hashlib.sha256()
    for array in (cells.counts.indptr.astype(np.int64), cells.counts.indices.astype(np.int64), cells.counts.data):
        found.update(np.ascontiguousarray(array).tobytes())
    found.update("\0".join(cells.labels).encode("utf-8", errors="replace"))
    return found.hexdigest()[:16]


def hold_out(cells: LabelledCells, share: float, seed: int) -> tuple[Split, str]:
    """Return rows to tune on and rows to test on: whole donors where there are two or more, otherwise of each class.

    Raises
    ------
    InputError
        The share is none, or a class has one cell.
    """
    everything = np.arange(len(cells))
    if share == 0:
        return Split(everything, everything[:0]), ""
    if not 0 < share < 1:
        raise InputError(f"The test share is {share}.", "at least 0 and below 1, such as 0.2")
    if cells.donors is not None and len(set(cells.donors)) >= 2:
        return groups_by_share(cells.donors, 1 - share, seed), "whole donors"
    refuse_singles(cells.labels, "a test")
    return by_share(cells.labels, 1 - share, seed), "a share of each class"


def refuse_singles(labels: list[str], what: str) -> None:
    """Raise `InputError` that names a class with one cell, where each class needs two."""
    single = next((label for label, n in sorted(Counter(labels).items()) if n == 1), None)
    if single is not None:
        raise InputError(
            f"The class {single!r} has one cell, and {what} needs another.",
            "two cells of each class, or donors",
            "leaving the class out, or no share for it",
        )
