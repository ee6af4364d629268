"""Measures a model beside its baselines on labelled cells: one result, which holds all that the tables need."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import anndata
import numpy as np
from numpy.typing import NDArray

from cellingua.bench.candidates import CONTROLS, KINDS, TITLES, ask
from cellingua.bench.judge import coordinates
from cellingua.bench.learned import FIRST_SEED, LEARNED, Contest, divide
from cellingua.bench.plan import DRAWS, Plan
from cellingua.bench.record import about, digest, judged_rows, judged_zero_shot, pooled
from cellingua.bench.suites import BenchSet, available, labelled_set, named_set, without_rare
from cellingua.bench.zeroshot import ZERO_SHOT, Method, References, find_references, zero_shot
from cellingua.core.errors import InputError
from cellingua.core.progress import Progress, Silent
from cellingua.core.runtime import hardware, pick_device, versions
from cellingua.models.model import LangCellModel
from cellingua.models.shelf import DEFAULT, Model, load_any

PACKAGES = ("anndata", "numpy", "scipy", "torch")


@dataclass
class Bench:
    """A model, its baselines and what came of them.

    Attributes
    ----------
    model
        None measures the baselines alone.
    known
        Markers and profiles.
    runs, sets, skipped
        One entry for each set, question and method; what each set is; what was left out and why.
    """

    model: Model | None
    known: References
    progress: Progress = field(default_factory=Silent)
    runs: list[dict[str, Any]] = field(default_factory=list)
    sets: dict[str, dict[str, Any]] = field(default_factory=dict)
    skipped: list[dict[str, str]] = field(default_factory=list)
    _last: tuple[tuple[str, int, str], NDArray[np.float32]] | None = field(default=None, repr=False)

    def add(self, cells: BenchSet, plan: Plan) -> None:
        """Measure one set."""
        self.sets.setdefault(cells.name, about(cells, self.model))
        if plan.task in ("zero-shot", "controls"):
            default = CONTROLS if plan.task == "controls" else KINDS
            for kind in plan.candidates or default:
                self._zero_shot(cells, plan, kind)
        else:
            usual = ("few:5",) if plan.task == "few-shot" else ("share", "donors") if cells.donors else ("share",)
            for protocol in plan.protocols or usual:
                self._learned(cells, plan, protocol)

    def _zero_shot(self, cells: BenchSet, plan: Plan, kind: str) -> None:
        try:
            question = ask(cells, kind, seed=plan.seed)
        except InputError as error:
            self._skip(cells.name, kind, "", error.found)
            return
        judged = cells.take(question.rows)
        model = self.model if isinstance(self.model, LangCellModel) else None
        ready, missing = zero_shot(judged, question, model, self.known, seed=plan.seed)
        wanted = ("model",) if kind in CONTROLS else tuple(method.name for method in ZERO_SHOT)
        near = self._near(judged)
        for method in self._chosen(ZERO_SHOT, wanted, plan):
            self.progress.status(f"{method.title}, {TITLES[kind]}, {cells.title}")
            if method.name not in ready:
                self._skip(cells.name, kind, method.name, missing.get(method.name, "this model knows no words"))
                continue
            found = ready[method.name]()
            self.runs.append(
                {
                    "set": cells.name,
                    "question": kind,
                    "method": method.name,
                    **judged_zero_shot(question, found, near, plan),
                }
            )

    def _learned(self, cells: BenchSet, plan: Plan, protocol: str) -> None:
        kept, rare = without_rare(cells, plan.fewest)
        self.sets[cells.name]["left_out_as_rare"] = rare
        try:
            contest = Contest(kept, self.model, self.known)
            draws = [divide(kept, protocol, draw) for draw in range(plan.draws)]
        except InputError as error:
            self._skip(cells.name, protocol, "", error.found)
            return
        near = self._near(kept)
        self.sets[cells.name].setdefault("splits", {})[protocol] = [
            {"seed": FIRST_SEED + draw, "learned": len(splits[0].train), "judged": sum(len(s.test) for s in splits),
             "digest": digest(*(part for s in splits for part in s))}
            for draw, splits in enumerate(draws)
        ]  # fmt: skip
        for method in self._chosen(LEARNED, tuple(method.name for method in LEARNED), plan):
            if method.name in contest.missing:
                self._skip(cells.name, protocol, method.name, contest.missing[method.name])
                continue
            self.progress.status(f"{method.title}, {protocol}, {cells.title}")
            found = []
            try:
                for draw, splits in enumerate(draws):
                    rows, probabilities = contest.answer(method.name, splits, FIRST_SEED + draw)
                    found.append(judged_rows(kept, contest, rows, probabilities, near, plan))
            except InputError as error:
                self._skip(cells.name, protocol, method.name, error.found)
                continue
            self.runs.append({"set": cells.name, "question": protocol, "method": method.name, **pooled(found)})

    def _chosen(self, methods: Sequence[Method], wanted: tuple[str, ...], plan: Plan) -> list[Method]:
        return [method for method in methods if method.name in wanted and method.name in (plan.methods or wanted)]

    def _near(self, cells: BenchSet) -> NDArray[np.float32]:
        """Return the coordinates of cells; those of the last cells are kept for the next question about them."""
        key = (cells.name, len(cells), digest(cells.counts.indptr))
        if self._last is None or self._last[0] != key:
            self._last = (key, coordinates(cells))
        return self._last[1]

    def _skip(self, name: str, question: str, method: str, reason: str) -> None:
        self.skipped.append({"set": name, "question": question, "method": method, "reason": reason})

    def result(self, plan: Plan | None = None) -> dict[str, Any]:
        """Return everything as JSON values."""
        model = {} if self.model is None else {"name": self.model.name, "hash": self.model.hash}
        return {
            "task": plan.task if plan else "",
            "model": model,
            "seeds": {"first split": FIRST_SEED, "draws": plan.draws if plan else 0, "intervals": 0},
            "sets": self.sets,
            "runs": self.runs,
            "skipped": self.skipped,
            "versions": versions(PACKAGES),
            "hardware": hardware(),
        }


def measure(
    task: str,
    data: str | Path | anndata.AnnData | None = None,
    *,
    model: str | Path | Model | None = DEFAULT,
    sets: Sequence[str] = (),
    labels_from: str = "",
    tissue: str | None = None,
    donor_key: str | None = None,
    layer: str | None = None,
    profiles: str | Path | None = None,
    candidates: Sequence[str] = (),
    protocols: Sequence[str] = (),
    methods: Sequence[str] = (),
    draws: int = DRAWS,
    seed: int = 0,
    device: str = "auto",
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Measure a model beside the baselines that critics found strong, on the same cells and the same labels.

    Parameters
    ----------
    task
        ``zero-shot``, ``controls``, ``few-shot`` or ``fine-tuned``.
    data
        A labelled h5ad (or any file that `annotate` reads, or an AnnData) with `labels_from`; or a folder of data
        sets in the layout of `cellingua.cells.collections`.
    model
        Name, folder or a loaded model; None for the baselines alone.
    sets
        Names of sets of the folder; by default all that were kept out of training.
    labels_from, tissue, donor_key, layer
        Of a file: the column of ``obs`` with the labels, where the cells come from, the column with the donors, the
        layer that holds the counts.
    profiles
        Data folder with ``profiles/``; by default `data` where that is one. Without it profile correlation is left out.
    candidates
        Of ``zero-shot``: some of ``terms``, ``labels``, ``tissue``, ``ontology`` (of a file by default ``labels``, and
        the ontology).
    protocols
        Of tasks that learn: some of ``few:N``, ``share``, ``donors``, ``folds``.
    methods
        Some of the methods; by default all.
    draws
        Draws of cells and splits.
    seed
        Of intervals and graphs.
    device
        For a model that isn't loaded yet.
    progress
        Where to report.

    Returns
    -------
    dict
        ``runs`` (a measure for each set, question and method), ``sets`` (with SHA-256, splits and what the model has
        seen), ``skipped`` (with reasons), ``model``, ``versions``, ``hardware``. `cellingua.bench.tables` makes tables
        of it.

    Raises
    ------
    InputError
        There is no such task, set, column or method, or the file can't be used.
    """
    plan = Plan(task, tuple(candidates), tuple(protocols), tuple(methods), draws, seed=seed)
    progress = progress or Silent()
    folder = Path(data) if isinstance(data, str | Path) and Path(data).is_dir() and is_collection(Path(data)) else None
    names: list[str] = []
    read: Iterable[BenchSet]
    if folder is not None:
        names = _names(folder, sets)
        references = _references(profiles, folder)
        read = (named_set(name, folder) for name in names)  # one in memory at a time
    else:
        references = _references(profiles, None)
        read = [_file_of(data, labels_from, sets, tissue, donor_key, layer)]
        if task == "zero-shot" and not candidates:
            plan = replace(plan, candidates=("labels", "tissue", "ontology") if tissue else ("labels", "ontology"))
    loaded = load_any(model, device=pick_device(device).name) if isinstance(model, str | Path) else model
    bench = Bench(loaded, references, progress)
    progress.step("Measuring", len(names) or 1)
    for cells in read:
        bench.add(cells, plan)
        progress.advance()
    if not bench.runs:
        reasons = dict.fromkeys(entry["reason"] for entry in bench.skipped)
        raise InputError("Nothing could be measured. " + " ".join(reasons), "labels that can be read as cell types")
    return bench.result(plan)


def _names(folder: Path, sets: Sequence[str]) -> list[str]:
    """Return the names of the sets of a folder that are measured."""
    names = list(sets) or available(folder, trained=False)
    if not names:
        raise InputError(f"{folder} has none of the named sets.", "evaluation/*.h5ad", "--data FILE --labels-from C")
    return names


def _file_of(
    data: str | Path | anndata.AnnData | None,
    labels_from: str,
    sets: Sequence[str],
    tissue: str | None,
    donor_key: str | None,
    layer: str | None,
) -> BenchSet:
    """Return a file of cells as a set, or refuse what can't be measured on one."""
    if data is None:
        raise InputError("No data were named.", "a labelled file, or a folder of data sets", "--data FILE")
    if not labels_from:
        raise InputError("The labels of the file were not named.", "a column of obs", "--labels-from COLUMN")
    if sets:
        raise InputError("Sets are named by a folder of data sets alone.", "a file, or sets of a folder", "--data DIR")
    return labelled_set(data, labels_from, tissue=tissue, donor_key=donor_key, layer=layer)


def _references(profiles: str | Path | None, folder: Path | None) -> References:
    """Return markers and profiles, of the folder that was named for them or else of the data's."""
    if profiles is not None and not (Path(profiles) / "profiles" / "profiles_meta.tsv").is_file():
        raise InputError(
            f"{profiles} has no profiles/profiles_meta.tsv.", "a folder of data sets", "another --profiles"
        )
    return find_references(shipped_markers(), Path(profiles) if profiles is not None else folder)


def is_collection(folder: Path) -> bool:
    """Return whether a folder holds data sets, and is not itself one file of cells (zarr, 10x mtx)."""
    return any((folder / part).is_dir() for part in ("evaluation", "corpus", "profiles"))


def shipped_markers() -> Any:
    """Return the evidence channel of the bundled model, which holds the markers; None where it has none."""
    try:
        model = load_any(DEFAULT)
    except InputError:
        return None
    return model.evidence if isinstance(model, LangCellModel) else None
