"""Trained arms of the drug benchmarks: what each network answers to the test pairs, stored by hash.

``python -m benchmarks.drug_arms [--runs DIR] [--minutes M] [--only TEXT]`` trains what is not there yet, the most
telling arms first, and can be stopped and started at any time. An arm's key is the SHA-256 of its settings, its
encoder (with the hash of its model), its seed and its question (the hash of the split); a file holds the answers in
float32, and ``arms.json`` the key and the SHA-256 of each file, by which `benchmarks.bench_drug_all` knows them again.
Settings were chosen on validation pairs; arms learn from training and validation pairs, those named ``train`` from
training pairs alone and answer the validation pairs, which is where ranges are learned from.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from benchmarks.common import shared_folder
from cellingua.baselines.deepcdr import DeepCDRStyle
from cellingua.baselines.tgdrp import builder
from cellingua.core.files import sha256_file, write_json
from cellingua.core.progress import Console, Progress
from cellingua.core.runtime import set_threads
from cellingua.models.cellm import CellLMModel
from cellingua.models.drug_network import DrugNetwork, NetworkConfig
from cellingua.models.shelf import find_model, load_any
from cellingua.molecules.graph import graphs
from cellingua.recipes.drug_network import AS_RELEASED, SETTINGS, expression_of
from cellingua.recipes.drug_states import TYPICAL, line_states, token_states, untrained
from cellingua.recipes.drug_tables import Question, questions
from cellingua.recipes.drug_tuned import TowerTuning, tuned_states

Floats = NDArray[np.float64]
STORED = Path(__file__).resolve().parent / "arms" / "drug"
LIST = "arms.json"
ENCODERS = ("expression", "cellm_mini", "cellm_random", "langcell_mini", "langcell_random", "expression+cellm_mini")
#: Towers tuned on the lines that are learned from: all weights, LoRA's corrections, and all weights from random ones.
TUNED = {
    "cellm_tuned": TowerTuning(),
    "cellm_lora": TowerTuning(rate=3e-3, rank=8),
    "cellm_scratch": TowerTuning(),
}
SEEDS = (0, 1, 2, 3, 4)
#: Raised when code that an answer depends on changes.
VERSION = 1


@dataclass(frozen=True)
class Arm:
    """One trained network.

    Attributes
    ----------
    question
        Its name: table and kind.
    method
        ``network``, ``deepcdr`` or ``tgdrp``.
    encoder
        What stands for a line.
    seed
        Of the network.
    learn
        ``all`` (training and validation pairs; answers test pairs) or ``train`` (answers validation pairs).
    """

    question: str
    method: str
    encoder: str
    seed: int = 0
    learn: str = "all"

    @property
    def name(self) -> str:
        """The name of its file."""
        parts = [*self.question.split("/"), self.method, self.encoder, str(self.seed)]
        return "-".join([*parts, "train"] if self.learn == "train" else parts)

    @property
    def config(self) -> NetworkConfig:
        """How it is trained."""
        kind = self.question.split("/")[1]
        if self.method == "deepcdr":
            return replace(AS_RELEASED, epochs=30)
        if self.method == "tgdrp":
            return replace(AS_RELEASED, scaling="none", lines=24, rate=1e-3, epochs=12)
        if self.encoder.startswith(("cellm", "langcell")):
            return replace(SETTINGS[kind], scaling="each")  # states are no components: chosen on validation lines
        return SETTINGS[kind]

    def key(self, question: Question) -> str:
        """Return what tells it from every other arm."""
        told = {"arm": asdict(self), "config": asdict(self.config), "split": question.digest, "version": VERSION}
        if self.encoder != "expression":
            told["encoder"] = encoder_digest(self.encoder)
        if self.encoder in TUNED:
            told["tuning"] = asdict(TUNED[self.encoder])
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


def arms() -> Iterator[Arm]:
    """Yield all arms, the most telling first."""
    lines, pairs, drugs = "tgsa/unseen_lines", "tgsa/random_pairs", "tgsa/unseen_drugs"
    for seed in SEEDS:
        for encoder in ENCODERS:
            yield Arm(lines, "network", encoder, seed)
    for seed in SEEDS[:3]:
        for encoder in TUNED:
            yield Arm(lines, "network", encoder, seed)
    for question in (pairs, drugs):
        for encoder in ("expression", "cellm_mini"):
            yield Arm(question, "network", encoder)
    for question in (lines, pairs, drugs):
        yield Arm(question, "deepcdr", "expression")
        yield Arm(question, "network", "expression", 0, "train")
    for table in ("deepcdr", "gdsc2", "gdsc1", "gdsc1_to_gdsc2"):
        for kind in ("unseen_lines", "random_pairs"):
            yield Arm(f"{table}/{kind}", "network", "expression")
            yield Arm(f"{table}/{kind}", "deepcdr", "expression")
    for encoder in ("cellm_mini", "cellm_random"):
        yield Arm(lines, "tgdrp", encoder)
    for seed in SEEDS[1:]:
        for question in (pairs, drugs):
            yield Arm(question, "network", "expression", seed)


@lru_cache(maxsize=8)
def encoder_digest(encoder: str) -> str:
    """Return the SHA-256 of what states of lines follow from: the scale, genes, sizes and, if trained, weights."""
    held = [sha256_file(TYPICAL)]
    for one in encoder.split("+"):
        if one != "expression":
            kind, trained = one.split("_")
            drawn = trained in ("random", "scratch")
            names = ("config.json", "genes.tsv.gz", *(() if drawn else ("weights.safetensors",)))
            held += [sha256_file(find_model(f"{kind}_mini") / name) for name in names]
    return hashlib.sha256("".join(held).encode()).hexdigest()


@lru_cache(maxsize=1)
def table_questions(table: str) -> dict[str, Question]:
    """Return the questions of a table, the last one kept."""
    return {question.name: question for question in questions(shared_folder() / "data" / "drug", (table,))}


def encoded(question: Question, encoder: str, learned: NDArray[np.bool_], cache: Path) -> Floats:
    """Return what stands for the lines (L, F); states of language models are computed once and kept in `cache`."""
    if encoder == "expression":
        return expression_of(question, learned)
    if "+" in encoder:
        parts = [encoded(question, one, learned, cache) for one in encoder.split("+")]
        return np.concatenate([_same_size(part, learned) for part in parts], axis=1)
    return _states(question, encoder, cache)


def _states(question: Question, encoder: str, cache: Path, *, tokens: bool = False) -> Floats:
    name = f"{question.table}-{encoder}{'-tokens' if tokens else ''}-{encoder_digest(encoder)[:8]}.safetensors"
    path = cache / name
    if not path.is_file():
        kind, trained = encoder.split("_")
        model = load_any(f"{kind}_mini")
        assert not hasattr(model, "layers")  # a Geneformer has no part here
        model = model if trained == "mini" else untrained(model)  # type: ignore[type-var, arg-type]
        made = (token_states if tokens else line_states)(
            question.data.tables["wide"],
            question.data.genes,
            model,  # type: ignore[arg-type]
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file({"states": made.astype(np.float32)}, path)
    return load_file(path)["states"].astype(np.float64)


def tuned(question: Question, arm: Arm, grid: Floats) -> Floats:
    """Return what stands for the lines (L, F) after the tower was tuned on what `grid` holds."""
    model: Any = load_any("cellm_mini")
    if arm.encoder == "cellm_scratch":
        model = untrained(model, arm.seed)
    assert isinstance(model, CellLMModel)
    tables = question.data
    return tuned_states(model, tables.tables["wide"], tables.genes, grid, TUNED[arm.encoder], arm.seed)


def _same_size(states: Floats, learned: NDArray[np.bool_]) -> Floats:
    """Return states whose variances over the learned lines sum to 1, so that one table does not drown another."""
    rows = states[learned]
    return (states - np.nanmean(rows, axis=0)) / np.sqrt(np.nanvar(rows, axis=0).sum())


def train(arm: Arm, question: Question, cache: Path) -> Floats:
    """Train an arm and return its answers to the pairs that it is asked."""
    grid = question.grid if arm.learn == "all" else question.chosen
    assert grid is not None
    learned = np.asarray(np.isfinite(grid).any(axis=1))
    molecules = graphs(question.data.molecules)
    if arm.method == "tgdrp":
        cells = _states(question, arm.encoder, cache, tokens=True)
        model = load_any("cellm_mini")
        assert isinstance(model, CellLMModel)
        genes, width = model.config.performer.genes, model.config.performer.width
        network = DrugNetwork(arm.config, arm.seed, builder(genes, cells.shape[1] // (width + 1), width))
    else:
        cells = tuned(question, arm, grid) if arm.encoder in TUNED else encoded(question, arm.encoder, learned, cache)
        build = {"build": DeepCDRStyle} if arm.method == "deepcdr" else {}
        network = DrugNetwork(arm.config, arm.seed, **build)  # type: ignore[arg-type]
    said = network.fit(grid, cells, molecules).predict(cells, molecules)
    if arm.learn == "all":
        return said[question.line, question.drug]
    return said[held_out(question)]


def held_out(question: Question) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return line and drug of the validation pairs."""
    assert question.chosen is not None
    line, drug = np.nonzero(np.isfinite(question.grid) & ~np.isfinite(question.chosen))
    return line, drug


def stored(arm: Arm, question: Question, runs: Path = STORED) -> Floats | None:
    """Return the answers of a trained arm; None where it is not there, is another, or its file was changed."""
    listed = _listed(runs).get(arm.name)
    path = runs / f"{arm.name}.safetensors"
    if (
        listed is None
        or listed["key"] != arm.key(question)
        or not path.is_file()
        or sha256_file(path) != listed["sha256"]
    ):
        return None
    return load_file(path)["answers"].astype(np.float64)


def _listed(runs: Path) -> dict[str, dict[str, str]]:
    return json.loads((runs / LIST).read_text()) if (runs / LIST).is_file() else {}


def store(arm: Arm, question: Question, answers: Floats, seconds: float, runs: Path) -> None:
    """Write an arm's answers and list it."""
    runs.mkdir(parents=True, exist_ok=True)
    path = runs / f"{arm.name}.safetensors"
    save_file({"answers": answers.astype(np.float32)}, path)
    entry = {"key": arm.key(question), "sha256": sha256_file(path), "seconds": round(seconds, 1)}
    write_json(runs / LIST, dict(sorted({**_listed(runs), arm.name: entry}.items())))


def main() -> int:
    """Train what is not there yet."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=Path, default=STORED)
    parser.add_argument("--cache", type=Path, default=Path("cache/drug_states"), help="states of lines are kept here")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="begin no arm after this time")
    parser.add_argument("--only", default="", help="arms whose name holds this text")
    args = parser.parse_args()
    set_threads(1)
    progress: Progress = Console()
    began = time.perf_counter()
    for arm in arms():
        if args.only not in arm.name:
            continue
        question = table_questions(arm.question.split("/")[0])[arm.question]
        if stored(arm, question, args.runs) is not None:
            continue
        if time.perf_counter() - began > 60 * args.minutes:
            progress.say(f"{args.minutes:g} minutes are over; the same command goes on.")
            return 0
        start = time.process_time()
        answers = train(arm, question, args.cache)
        store(arm, question, answers, time.process_time() - start, args.runs)
        progress.say(f"{arm.name}: {time.process_time() - start:.0f} s")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
