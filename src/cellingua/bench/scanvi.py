"""scANVI as a baseline, where scvi-tools is installed; it is no dependency of the package.

Defaults of scvi-tools: `SCVI` on the labelled and the unlabelled cells together, then `SCANVI` from it (Xu et al. 2021,
Mol Syst Biol 17:e9620). The cells that are judged take part without their labels, so it is transductive.
"""

from __future__ import annotations

import importlib
import importlib.util
from typing import Any

import anndata
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.sparse import vstack

from cellingua.bench.suites import BenchSet

PACKAGE = "scvi"
GENES = 2000  # most variable by counts, as its tutorials have it
UNLABELLED = "unlabelled by the benchmark"


def missing() -> str:
    """Return why it is left out, ``""`` where it can run."""
    found = importlib.util.find_spec(PACKAGE) is not None
    return "" if found else "scvi-tools is not installed (pip install scvi-tools)"


def answers(train: BenchSet, test: BenchSet, seed: int) -> tuple[NDArray[np.floating], NDArray[np.str_]]:
    """Return probabilities of the test cells (n, K), and the classes of their columns."""
    scvi: Any = importlib.import_module(PACKAGE)
    scvi.settings.seed = seed
    counts = vstack([train.counts, test.counts]).tocsr()
    counts = counts[:, variable(counts, GENES)]
    labels = [*train.labels.tolist(), *[UNLABELLED] * len(test)]
    obs = pd.DataFrame({"label": labels}, index=[str(row) for row in range(len(labels))])
    cells = anndata.AnnData(counts, obs)
    scvi.model.SCVI.setup_anndata(cells)
    base = scvi.model.SCVI(cells)
    base.train()
    made = scvi.model.SCANVI.from_scvi_model(base, UNLABELLED, labels_key="label")
    made.train()
    found = made.predict(soft=True).iloc[len(train) :]
    return found.to_numpy(np.float64), found.columns.to_numpy(dtype=np.str_)


def variable(counts: Any, most: int) -> NDArray[np.int64]:
    """Return the genes whose counts vary most beyond their mean (variance over mean), int64, at most `most`."""
    mean = np.asarray(counts.mean(axis=0)).ravel()
    square = np.asarray(counts.multiply(counts).mean(axis=0)).ravel()
    ratio = np.where(mean > 0, (square - mean**2) / np.where(mean > 0, mean, 1.0), -1.0)
    return np.sort(np.argsort(-ratio, kind="stable")[:most]).astype(np.int64)
