"""CellLM with and without its contrastive part: uniformity, spectrum and linear probes, beside PCA and no training.

``python -m benchmarks.bench_pretrain [--runs DIR]`` scores the arms that `benchmarks.pretrain_arms` trained, after
their hashes were compared with its list. Probes are on studies that no arm has seen. Which way the effect goes is a
finding, not a bar: the bars are that the arms are those listed and trained on what they should be.
"""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, vstack
from sklearn.decomposition import PCA

from benchmarks.common import Bars, shared_folder, write_result
from benchmarks.pretrain_arms import ARMS, EVALUATION, LIST, SEEDS, STORED, UNSEEN, UNTRAINED, open_training_corpus
from benchmarks.pretrain_probe import (
    COMPONENTS,
    Study,
    Task,
    fixed,
    majority,
    pca_on_training,
    probe,
    read_study,
    tasks_of,
)
from cellingua.baselines.normalise import log_normalised
from cellingua.cells.corpus import Corpus
from cellingua.core.progress import Console
from cellingua.core.runtime import set_threads
from cellingua.measures.geometry import (
    effective_rank,
    mean_cosine,
    participation_ratio,
    spectrum,
    uniformity,
    unit_rows,
)
from cellingua.models.cellm import CellLMModel
from cellingua.models.cellm_bundle import load_cellm
from cellingua.models.manifest import read_manifest

#: Studies with curated labels that the arms were trained on: the probes of whole studies learn from them too.
SEEN = ("breast_flex_demo", "kim_luad_t34", "he_liver_20")
GEOMETRY_CELLS, SHOWN = 2_000, 16
PRETRAINING_CELLS = 6_000  # that the fixed PCA is fitted on
MOST_MEGABYTES = 8.0


def read_studies() -> dict[str, Study]:
    """Return the probes' studies, by name."""
    cells = shared_folder() / "data" / "cells"
    paths = [cells / "corpus" / name for name in UNSEEN] + [cells / "corpus" / f"{name}.h5ad" for name in SEEN]
    paths += [cells / "evaluation" / f"{name}.h5ad" for name in EVALUATION]
    return {path.stem: read_study(path) for path in paths}


def load_arms(runs: Path) -> tuple[dict[str, CellLMModel], dict[str, Any]]:
    """Return the models and the list that they were compared with; exits with code 2 where one differs."""
    path = runs / LIST
    if not path.is_file():
        print(f"{path} is not there. Train the arms first: make train-cellm-ablation", file=sys.stderr)
        raise SystemExit(2)
    listed = json.loads(path.read_text(encoding="utf-8"))
    models = {}
    for name in (f"{arm}_{seed}" for seed in SEEDS for arm in (UNTRAINED, *ARMS)):
        folder = runs / name / "cellm_mini"
        if name not in listed["arms"] or read_manifest(folder).hash != listed["arms"][name]:
            print(f"{folder} is not the arm {name} that {path} lists.", file=sys.stderr)
            raise SystemExit(2)
        models[name] = load_cellm(folder)  # compares every file with the manifest
    return models, listed


def embed(model: CellLMModel, studies: dict[str, Study]) -> NDArray[np.float32]:
    """Return the states of CLS of all cells, studies one after the other."""
    return np.concatenate([model.encode_cells(model.bin(study)) for study in studies.values()])


def geometry_of(vectors: NDArray[np.floating], rows: NDArray[np.int64]) -> dict[str, Any]:
    """Return the measures of the cells `rows`."""
    unit = unit_rows(vectors[rows])
    shares = spectrum(unit)
    return {
        "uniformity": uniformity(unit),
        "mean_cosine": mean_cosine(unit),
        "effective_rank": effective_rank(unit),
        "participation": participation_ratio(unit),
        "spectrum_1": float(shares[0]),
        "spectrum_8": float(shares[:8].sum()),
        "spectrum": [round(float(share), 5) for share in shares[:SHOWN]],
    }


def last_lines(runs: Path, arm: str) -> dict[str, Any]:
    """Return what a run measured of itself before its first and after its last step."""
    lines = [json.loads(line) for line in (runs / arm / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    told = [line for line in lines if "validation" in line]
    seconds = [line["seconds"] for line in lines if "seconds" in line]
    return {
        "steps": told[-1]["step"],
        "seconds": round(seconds[-1]),  # at the last line of losses; other work ran beside some arms
        "before": told[0]["validation"],
        "after": told[-1]["validation"],
    }


def fixed_pca(corpus: Corpus, studies: dict[str, Study], genes: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return all cells on the components of the cells that the arms were trained on, over the model's genes."""
    held = [corpus.categories["file"].index(name) for name in UNSEEN]
    rows = np.flatnonzero(~np.isin(corpus.column("file"), held))
    rows = np.sort(np.random.default_rng(0).permutation(rows)[:PRETRAINING_CELLS])
    trained = log_normalised(csr_matrix(corpus.read(rows).counts))[:, genes].toarray()
    fitted = PCA(COMPONENTS, svd_solver="randomized", random_state=0).fit(trained)
    values = [fitted.transform(log_normalised(study.counts)[:, genes].toarray()) for study in studies.values()]
    return np.concatenate(values)


def summary(per_seed: list[dict[str, float]]) -> dict[str, Any]:
    """Return mean, and smallest and largest, over seeds."""
    told: dict[str, Any] = {}
    for name in per_seed[0]:
        if isinstance(per_seed[0][name], list):
            told[name] = np.round(np.mean([one[name] for one in per_seed], axis=0), 5).tolist()
            continue
        values = [one[name] for one in per_seed]
        told[name] = round(float(np.mean(values)), 4)
        told[f"{name}_range"] = [round(min(values), 4), round(max(values), 4)]
    return told


def score_tasks(
    tasks: list[Task], vectors: dict[str, NDArray[np.floating]], values: csr_matrix, pca: NDArray[np.floating]
) -> dict[str, Any]:
    """Return task -> features -> scores."""
    told: dict[str, Any] = {}
    for task in tasks:
        rows: dict[str, Any] = {
            "cells": len(task.rows),
            "classes": len(np.unique(task.truth)),
            "majority": summary([majority(task)]),
            "pca_training_cells": summary([probe(task, pca_on_training(values))]),
            "pca_pretraining_cells": summary([probe(task, fixed(pca))]),
        }
        for arm in (UNTRAINED, *ARMS):
            rows[arm] = summary([probe(task, fixed(vectors[f"{arm}_{seed}"])) for seed in SEEDS])
        told[task.name] = rows
        shown = {name: row["macro_f1"] for name, row in rows.items() if isinstance(row, dict)}
        print(f"  {task.name}: {shown}", flush=True)
    return told


def short(tasks: dict[str, Any], measure: str) -> dict[str, dict[str, float]]:
    """Return task -> features -> one measure, the mean over seeds."""
    return {
        task: {name: row[measure] for name, row in rows.items() if isinstance(row, dict)}
        for task, rows in tasks.items()
    }


def main() -> int:
    """Verify, embed, score, write; exit 0 where the bars hold."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=Path, default=STORED)
    parser.add_argument("--threads", type=int, default=None)
    args = parser.parse_args()
    set_threads(args.threads)
    warnings.filterwarnings("ignore", message=".*failed to converge.*|y_pred contains classes not in y_true")
    models, listed = load_arms(args.runs)
    corpus = open_training_corpus(args.runs, Console())
    if corpus.digest != listed["corpus"]:
        print(f"The corpus is not the one that the arms in {args.runs} were trained on.", file=sys.stderr)
        return 2
    studies = read_studies()
    vectors = {name: embed(model, studies) for name, model in models.items()}
    sizes = {name: len(study) for name, study in studies.items()}
    files = np.repeat(list(sizes), list(sizes.values()))
    unseen = np.flatnonzero(np.isin(files, [Path(name).stem for name in UNSEEN]))
    rows = np.sort(np.random.default_rng(0).permutation(unseen)[:GEOMETRY_CELLS])
    first = models[f"{UNTRAINED}_{SEEDS[0]}"]
    columns = np.flatnonzero(first._gene_of_column >= 0)
    values = csr_matrix(vstack([log_normalised(study.counts) for study in studies.values()]))
    tasks = score_tasks(tasks_of(studies), vectors, values, fixed_pca(corpus, studies, columns))
    geometry = {
        arm: summary([geometry_of(vectors[f"{arm}_{seed}"], rows) for seed in SEEDS]) for arm in (UNTRAINED, *ARMS)
    }
    runs = {f"{arm}_{seed}": last_lines(args.runs, f"{arm}_{seed}") for seed in SEEDS for arm in ARMS}
    megabytes = max(read_manifest(args.runs / name / "cellm_mini").size for name in models) / 1e6
    trained_on = set(corpus.categories["file"])
    apart = not trained_on & {f"{name}.h5ad" for name in EVALUATION}
    figures = {
        **{f"uniformity_{arm}": geometry[arm]["uniformity"] for arm in geometry},
        **{f"mean_cosine_{arm}": geometry[arm]["mean_cosine"] for arm in geometry},
        **{f"effective_rank_{arm}": geometry[arm]["effective_rank"] for arm in geometry},
        **{f"spectrum_8_{arm}": geometry[arm]["spectrum_8"] for arm in geometry},
        "macro_f1": short(tasks, "macro_f1"),
        "balanced_accuracy": short(tasks, "balanced_accuracy"),
        # Lists are kept for readers of the file, and are not printed as tables.
        "geometry": [{"arm": arm, **found} for arm, found in geometry.items()],
        "probes": [{"task": task, **rows} for task, rows in tasks.items()],
        "runs": [{"arm": arm, **told} for arm, told in runs.items()],
        "arms": [{"arm": arm, "hash": digest} for arm, digest in listed["arms"].items()],
        "corpus": listed["corpus"],
    }
    bars: Bars = {
        "stored arms verified": {"value": len(models), "bar": 9, "ok": len(models) == 9},
        "no evaluation file in the corpus": {"value": apart, "bar": True, "ok": apart},
        "bundle, MB": {
            "value": round(megabytes, 2),
            "bar": f"<= {MOST_MEGABYTES:g}",
            "ok": megabytes <= MOST_MEGABYTES,
        },
    }
    data = [shared_folder() / "data" / "cells" / "corpus" / name for name in UNSEEN]
    return write_result("pretrain", figures, bars, seeds={f"arm {seed}": seed for seed in SEEDS}, data=data)


if __name__ == "__main__":
    sys.exit(main())
