"""What a model has seen: is it told in every form, and is nothing else told?

    python -m benchmarks.bench_leakage [--cells 20000]

The filter is that of the bundled `cellm_mini`, which saw cells of every corpus file. Every file is turned into what a
user may hold (other orders and types of numbers; rare genes, mitochondrial and ribosomal genes dropped; half of the
cells; one cell in fifty among cells that were not seen; cut to its variable genes, or to the genes of another panel),
small ones also into other formats, and judged by its cells alone: no name, id or hash is given. Cells that were not
seen are the evaluation sets, pseudo-cells drawn from mean profiles, and cells as like those of the corpus as can be:
within each of its files the counts of every gene are dealt out anew. False alarms are counted over files of many sizes
drawn from them. Seen cells that lost a tenth of their molecules are shown too, without a bar: they are seen cells, and
a list that lost none still tells them.

Bars: at most 0.1 % of cells not seen pass in each of the three; every seen set is told in every form that keeps its
common genes, and in every format; no evaluation set and no drawn file is told. Cuts to variable genes and to other
panels are shown without a bar: how many cells are left to compare depends on the cut.
"""

from __future__ import annotations

import argparse
import gzip
import tempfile
import warnings
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from time import perf_counter

import h5py
import numpy as np
import pandas as pd
from anndata import AnnData
from scipy.io import mmwrite
from scipy.sparse import csc_matrix, csr_matrix, vstack

from benchmarks.common import shared_folder, write_result
from cellingua.cells.collections import CellSet, read_cells, read_markers, read_profiles
from cellingua.cells.counts import CountBlocks
from cellingua.cells.doctor import examine
from cellingua.cells.fingerprint import fingerprints, load_lists
from cellingua.cells.genes import load_vocabulary
from cellingua.cells.reading import open_cells
from cellingua.cells.simulate import SimulateConfig, Simulator
from cellingua.models.seen import CELLS, FILTER, SEEN, Seen, seen_by
from cellingua.models.shelf import Model, find_model, load_any
from cellingua.recipes.material import reviewed_labels
from cellingua.tasks.overlap import Overlap, overlap, overlap_of_counts

SEED = 0
MODEL = "cellm_mini"
VARIABLE = 2000
FALSE_RATE = 1e-3
FILES = 400  # drawn from cells that were not seen
SMALL = 600  # cells of a set that is written in all formats
Cut = Callable[[csr_matrix, np.random.Generator], csr_matrix]


def only(counts: csr_matrix, genes: np.ndarray) -> csr_matrix:
    """Return counts with all other genes absent."""
    cut = csr_matrix(counts.multiply(genes.astype(np.float32)[None, :]))
    cut.eliminate_zeros()
    return cut


def without_rare(counts: csr_matrix, rng: np.random.Generator) -> csr_matrix:
    """Return counts without genes in fewer than one cell of a hundred, and at least three."""
    return only(counts, counts.getnnz(axis=0) >= max(3, counts.shape[0] // 100))


def without_noise(counts: csr_matrix, rng: np.random.Generator) -> csr_matrix:
    """Return counts without mitochondrial and ribosomal genes and MALAT1."""
    symbols = load_vocabulary().symbols
    dropped = [s.startswith(("MT-", "RPL", "RPS")) or s == "MALAT1" for s in symbols.tolist()]
    return only(counts, ~np.array(dropped))


def half(counts: csr_matrix, rng: np.random.Generator) -> csr_matrix:
    """Return half of the cells, in another order."""
    return csr_matrix(counts[rng.permutation(counts.shape[0])[: max(1, counts.shape[0] // 2)]])


def variable(counts: csr_matrix, rng: np.random.Generator) -> csr_matrix:
    """Return the 2,000 genes whose variance is furthest above what their mean lets expect (a parabola in logs)."""
    mean = np.asarray(counts.mean(axis=0)).ravel()
    spread = np.asarray(counts.multiply(counts).mean(axis=0)).ravel() - mean**2
    varies = np.flatnonzero(spread > 0)
    x, y = np.log10(mean[varies]), np.log10(spread[varies])
    above = y - np.polyval(np.polyfit(x, y, 2), x)
    genes = np.zeros(counts.shape[1], bool)
    genes[varies[np.argsort(-above, kind="stable")[:VARIABLE]]] = True
    return only(counts, genes)


BARRED: dict[str, Cut] = {
    "as it is": lambda counts, rng: counts,
    "rare genes dropped": without_rare,
    "mitochondrial and ribosomal genes dropped": without_noise,
    "half of the cells": half,
}


def dealt_anew(corpus: CellSet, rng: np.random.Generator) -> csr_matrix:
    """Return new cells: within each file, the counts of each gene of the lists go to cells drawn at random."""
    listed = load_lists().list_of >= 0
    parts = []
    for name in np.unique(corpus.files):
        columns = csc_matrix(only(corpus.counts[corpus.files == name], listed))
        rows = [rng.permutation(columns.shape[0])[: b - a] for a, b in pairwise(columns.indptr.tolist())]
        parts.append(csr_matrix(csc_matrix((columns.data, np.concatenate(rows), columns.indptr), columns.shape)))
    return csr_matrix(vstack(parts))


def thinned(counts: csr_matrix, rng: np.random.Generator) -> csr_matrix:
    """Return the cells after each molecule was lost with a chance of a tenth."""
    data = rng.binomial(np.rint(counts.data).astype(np.int64), 0.9).astype(np.float32)
    lost = csr_matrix((data, counts.indices.copy(), counts.indptr.copy()), counts.shape)
    lost.eliminate_zeros()
    return lost


def simulated(data: Path, n: int, rng: np.random.Generator) -> csr_matrix:
    """Return pseudo-cells from the mean profiles."""
    profiles = read_profiles(data / "profiles", reviewed_labels())
    markers = read_markers(data / "markers" / "cellconsensus_top40.parquet")
    return Simulator(profiles, markers, {term: [] for term in markers}, SimulateConfig()).from_profiles(n, rng)[0]


def passed(seen: Seen, counts: csr_matrix) -> tuple[int, int, float]:
    """Return cells that pass, cells that can be compared, and how many should pass by the filter's own account."""
    prints = fingerprints(counts)
    return int(seen.hits(prints).sum()), int(prints.there.any(axis=1).sum()), float(seen.chances(prints).sum())


def as_adata(counts: csr_matrix) -> AnnData:
    """Return counts as an AnnData of the genes that are there."""
    vocabulary = load_vocabulary()
    genes = np.flatnonzero(counts.getnnz(axis=0) > 0)
    var = pd.DataFrame({"gene_ids": vocabulary.ensembl_ids[genes]}, index=vocabulary.symbols[genes])
    var.index = pd.Index([f"{name or 'gene'}{'' if n == 0 else f'-{n}'}" for name, n in _numbered(var.index)])
    obs = pd.DataFrame(index=[f"cell{row}" for row in range(counts.shape[0])])
    return AnnData(csr_matrix(counts[:, genes]), obs, var)


def _numbered(names: pd.Index) -> list[tuple[str, int]]:
    used: dict[str, int] = {}
    return [(name, used.update({name: used.get(name, -1) + 1}) or used[name]) for name in names.tolist()]


def write_forms(adata: AnnData, folder: Path, rng: np.random.Generator) -> dict[str, Path]:
    """Write the cells in all formats, genes in another order, and return the files by format."""
    adata = adata[:, rng.permutation(adata.n_vars)].copy()
    adata.write_h5ad(folder / "a.h5ad")
    dense = AnnData(adata.X.toarray().astype(np.float64), adata.obs, adata.var)  # zeros that are stored
    dense.write_h5ad(folder / "b.h5ad")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Writing zarr v2", category=UserWarning)
        adata.write_zarr(folder / "c.zarr")
    ids, names, cells = adata.var["gene_ids"].tolist(), adata.var_names.tolist(), adata.obs_names.tolist()
    (folder / "mtx").mkdir()
    mmwrite(folder / "mtx" / "matrix.mtx", csc_matrix(adata.X.T.astype(np.int64)))
    features = "".join(f"{i}\t{n}\tGene Expression\n" for i, n in zip(ids, names, strict=True))
    (folder / "mtx" / "features.tsv.gz").write_bytes(gzip.compress(features.encode()))
    (folder / "mtx" / "barcodes.tsv.gz").write_bytes(gzip.compress("\n".join(cells).encode()))
    with h5py.File(folder / "d.h5", "w") as handle:
        matrix, counts = handle.create_group("matrix"), csr_matrix(adata.X)
        matrix["data"], matrix["indices"] = counts.data.astype(np.int32), counts.indices.astype(np.int64)
        matrix["indptr"], matrix["shape"] = counts.indptr.astype(np.int64), np.array(counts.shape[::-1])
        matrix["barcodes"] = np.array(cells, "S")
        features_group = matrix.create_group("features")
        features_group["id"], features_group["name"] = np.array(ids, "S"), np.array(names, "S")
        features_group["feature_type"] = np.array(["Gene Expression"] * len(ids), "S")
    return {
        "h5ad": folder / "a.h5ad",
        "h5ad, dense float64": folder / "b.h5ad",
        "zarr": folder / "c.zarr",
        "10x mtx": folder / "mtx",
        "10x h5": folder / "d.h5",
    }


def of_file(model: Model, path: Path) -> Overlap:
    """Return the overlap of a file."""
    with open_cells(path) as cells:
        return overlap(model, CountBlocks(cells, examine(cells)))


def share(found: Overlap) -> float:
    """Return the share of a file's cells that are known."""
    return round(found.hits / found.cells, 4)


def seen_sets(model: Model, corpus: CellSet, strange: csr_matrix, rng: np.random.Generator) -> dict[str, dict]:
    """Return for each seen file and each form: told, and the share of its cells that is known."""
    panels = {name: corpus.counts[corpus.files == name] for name in np.unique(corpus.files) if "panel" in name}
    panels = {name: counts.getnnz(axis=0) > 0 for name, counts in panels.items()}
    seen = seen_by(model)
    assert seen is not None
    result: dict[str, dict] = {}
    for data_set in seen.data_sets:
        if data_set.kind != CELLS:
            continue
        counts = csr_matrix(corpus.counts[corpus.files == data_set.id])
        forms = {name: cut(counts, rng) for name, cut in BARRED.items()}
        few = rng.permutation(counts.shape[0])[: max(5, counts.shape[0] // 50)]
        others = strange[rng.permutation(strange.shape[0])[: 49 * len(few)]]
        forms["one in fifty"] = csr_matrix(vstack([others, counts[few]]))
        if counts.shape[0] >= 100 and (counts.getnnz(axis=0) > 0).sum() > VARIABLE:
            forms["2,000 variable genes"] = variable(counts, rng)
        forms |= {f"genes of {name}": only(counts, genes) for name, genes in panels.items() if name != data_set.id}
        found = {name: overlap_of_counts(model, form) for name, form in forms.items()}
        result[data_set.id] = {name: {"told": one.by_cells, "known": share(one)} for name, one in found.items()}
    return result


def formats(model: Model, corpus: CellSet, rng: np.random.Generator) -> dict[str, dict]:
    """Return the same for the files that small sets are written to."""
    result: dict[str, dict] = {}
    for name in np.unique(corpus.files):
        counts = csr_matrix(corpus.counts[corpus.files == name])
        if counts.shape[0] > SMALL:
            continue
        with tempfile.TemporaryDirectory() as folder:
            paths = write_forms(as_adata(counts), Path(folder), rng)
            found = {kind: of_file(model, path) for kind, path in paths.items()}
        result[str(name)] = {kind: {"told": one.by_cells, "known": share(one)} for kind, one in found.items()}
    return result


def false_alarms(model: Model, strange: dict[str, csr_matrix], rng: np.random.Generator) -> tuple[int, float]:
    """Return how many drawn files of cells that were not seen are told, and the smallest p of all."""
    told, least = 0, 1.0
    kinds = list(strange)
    for number in range(FILES):
        counts = strange[kinds[number % len(kinds)]]
        size = int(np.exp(rng.uniform(np.log(20), np.log(min(5000, counts.shape[0])))))
        found = overlap_of_counts(model, csr_matrix(counts[rng.permutation(counts.shape[0])[:size]]))
        told, least = told + found.known, min(least, found.p_value)
    return told, least


def main() -> int:
    """Run and write ``benchmarks/results/leakage.json``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, default=20_000, help="pseudo-cells")
    args = parser.parse_args()
    data, rng = shared_folder() / "data" / "cells", np.random.default_rng(SEED)
    model = load_any(MODEL)
    seen = seen_by(model)
    assert seen is not None  # the shipped model says what it saw
    corpus, evaluation = read_cells(data / "corpus"), read_cells(data / "evaluation")
    strange = {
        "evaluation": evaluation.counts,
        "simulated": simulated(data, args.cells, rng),
        "dealt anew": dealt_anew(corpus, rng),
    }
    lost, compared, _ = passed(seen, thinned(corpus.counts, rng))
    rates = {name: passed(seen, counts) for name, counts in strange.items()}
    judged = {path.stem: of_file(model, path) for path in sorted((data / "evaluation").glob("*.h5ad"))}
    sets, written = seen_sets(model, corpus, evaluation.counts, rng), formats(model, corpus, rng)
    alarms, least = false_alarms(model, strange, rng)
    barred = [*BARRED, "one in fifty"]
    missed = sorted(f"{name}: {form}" for name, forms in sets.items() for form in barred if not forms[form]["told"])
    missed += sorted(f"{name}: {kind}" for name, kinds in written.items() for kind in kinds if not kinds[kind]["told"])
    cut = [form["told"] for forms in sets.values() for name, form in forms.items() if name == "2,000 variable genes"]
    other = [form["told"] for forms in sets.values() for name, form in forms.items() if name.startswith("genes of")]
    started = perf_counter()
    fingerprints(corpus.counts)
    bars = {
        f"cells not seen that pass, {name}": {
            "value": round(hits / n, 6), "bar": f"<= {FALSE_RATE:g}", "ok": hits / n <= FALSE_RATE,
        }
        for name, (hits, n, _) in rates.items()
    }  # fmt: skip
    bars |= {
        "seen sets missed": {"value": missed or 0, "bar": "none", "ok": not missed},
        "evaluation sets told": {
            "value": [name for name, one in judged.items() if one.known] or 0, "bar": "none",
            "ok": not any(one.known for one in judged.values()),
        },
        "drawn files told": {"value": alarms, "bar": "none", "ok": alarms == 0},
    }  # fmt: skip
    folder = find_model(MODEL)
    figures = {
        "model": MODEL,
        "cells seen": seen.cells,
        "seen sets": len(sets),
        "bytes of the filter": (folder / FILTER).stat().st_size,
        "bytes of seen.json": (folder / SEEN).stat().st_size,
        "fingerprints": sum(part.prints for part in seen.parts),
        "cells not seen": {
            name: {"cells": strange[name].shape[0], "compared": n, "pass": hits, "expected": round(expected, 2)}
            for name, (hits, n, expected) in rates.items()
        },
        "known of seen cells that lost a tenth of their molecules": round(lost / compared, 4),
        "told when cut to 2,000 variable genes": f"{sum(cut)} of {len(cut)}",
        "told when cut to the genes of another panel": f"{sum(other)} of {len(other)}",
        "drawn files": FILES,
        "smallest p of a drawn file": least,
        "microseconds a cell": round((perf_counter() - started) / len(corpus) * 1e6, 1),
        "evaluation sets": {
            name: {"compared": one.compared, "hits": one.hits, "expected": one.expected, "p": one.p_value}
            for name, one in judged.items()
        },
        "sets": sets,
        "formats": written,
    }
    used = [*sorted((data / "corpus").glob("*.h5ad")), *sorted((data / "evaluation").glob("*.h5ad"))]
    return write_result("leakage", figures, bars, seeds={"all": SEED}, data=used)


if __name__ == "__main__":
    raise SystemExit(main())
