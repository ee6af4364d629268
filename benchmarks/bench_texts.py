"""The texts of a million cells from their metadata: seconds, memory, and against a plain loop over the cells.

Run as ``make bench-texts`` or ``python -m benchmarks.bench_texts``. The metadata are synthetic: rows of real ontology
ids and names after CELLxGENE's schema (a few hundred cell types, tissues and organs, stages, diseases, of which some
cells have two, free text that no ontology knows, values that are missing), drawn with the skew of an atlas. Two tables
are described: one study (600 distinct rows) and an atlas (30,000 distinct rows), as categorical columns, as an h5ad
gives them, and as plain ones.

The plain loop is `cellingua.words.describing.describe_cell` cell by cell, which reads every aspect of every cell anew
from the same shipped tables. It runs on a sample of the same cells, in turns with the whole, and its time for the
million is **extrapolated** from that sample; the texts of the sample must be the same, letter for letter. Seconds of
the first call in a fresh process hold the reading of the ontologies.

Writes ``benchmarks/results/texts.json``, and exits 0 only where the bars hold.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import anndata
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from benchmarks.common import ROOT, at_least, below, write_result
from cellingua.words.aspects import organs
from cellingua.words.describing import CellTexts, describe_cell, describe_cells, draw_texts
from cellingua.words.metadata import ASPECTS, FIELD, ID
from cellingua.words.ontology import PREFIXES, load_ontology

SECONDS, TIMES, MEMORY = 10.0, 50.0, 1.0  # bars: of the first call, against the loop, GB above the table itself
SEED, ROUNDS, SAMPLE = 0, 3, 2000
KINDS = {"study": 600, "atlas": 30_000}
FREE_TEXT = ("cluster 7b", "sorted fraction P3", "plate 12 / well A1")
# How many distinct terms an atlas has of each aspect, in the order of `ASPECTS`.
TERMS = (700, 250, 0, 120, 160, 3, 30, 40)


def terms_of(aspect: str, prefixes: tuple[str, ...], n: int, rng: np.random.Generator) -> list[tuple[str, str]]:
    """Return up to `n` (id, name) of an aspect's ontologies, two diseases or ethnicities of a cell among them."""
    chosen: list[tuple[str, str]] = []
    for place, prefix in enumerate(prefixes):
        ontology = load_ontology(prefix)
        ids = ["PATO:0000383", "PATO:0000384"] if aspect == "sex" else list(ontology.ids)
        share = n if place == 0 else max(1, n // 20)
        chosen += [(i, ontology.name(i)) for i in rng.choice(ids, min(share, len(ids)), replace=False).tolist()]
    if aspect in ("disease", "ethnicity"):
        pairs = [rng.choice(len(chosen), 2, replace=False) for _ in range(max(1, n // 10))]
        chosen += [tuple(" || ".join((chosen[a][k], chosen[b][k])) for k in (0, 1)) for a, b in pairs]  # type: ignore[misc]
    if aspect == "cell type":
        chosen += [("unknown", text) for text in FREE_TEXT]
    return [*chosen, ("unknown", "unknown")]


def distinct_metadata(n: int, rng: np.random.Generator) -> pd.DataFrame:
    """Return `n` rows of ids and names; the organ is said in half of them."""
    columns: dict[str, list[str]] = {}
    for (aspect, field, prefixes), count in zip(ASPECTS, TERMS, strict=True):
        if aspect == "organ":
            uberon = load_ontology("UBERON")
            terms = [(i, uberon.name(i)) for i in organs()[:30]] + [("", "")] * 30
        else:
            terms = terms_of(aspect, prefixes, count, rng)
        weights = 1 / np.arange(1, len(terms) + 1)  # few terms make up most cells
        picked = rng.choice(len(terms), n, p=weights / weights.sum())
        columns[f"{field}{ID}"] = [terms[place][0] for place in picked]
        columns[field] = [terms[place][1] for place in picked]
    return pd.DataFrame(columns)


def table_of(kind: str, cells: int, *, categorical: bool) -> pd.DataFrame:
    """Return the metadata of `cells` cells."""
    rng = np.random.default_rng([SEED, len(kind)])
    rows = distinct_metadata(3 * KINDS[kind], rng).drop_duplicates().head(KINDS[kind])
    weights = 1 / np.arange(1, len(rows) + 1) ** 0.5
    place = rng.choice(len(rows), cells, p=weights / weights.sum())
    place[: len(rows)] = np.arange(len(rows))[:cells]  # every row occurs
    place = rng.permutation(place)
    if categorical:
        return pd.DataFrame({name: rows[name].astype("category").array.take(place) for name in rows})
    return pd.DataFrame({name: rows[name].to_numpy(dtype=object)[place] for name in rows})


def first_call(kind: str, cells: int) -> None:
    """Print seconds and memory of the first call in this process, the ontologies' reading included."""
    table = table_of(kind, cells, categorical=True)
    load_ontology.cache_clear()
    before = peak_from_here()
    start = time.perf_counter()
    describe_cells(table)
    seconds = time.perf_counter() - start
    peak = peak_memory()
    print(json.dumps({"seconds": seconds, "peak_gb": peak, "added_gb": peak - before}))


def peak_from_here() -> float:
    """Forget the peak of this process's memory, where the system can, and return the peak from here on, GB."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    return peak_memory()


def peak_memory() -> float:
    """Return the peak of this process's memory, GB."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1e6
    except (OSError, StopIteration):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def in_a_fresh_process(kind: str, cells: int) -> dict[str, float]:
    """Return what `first_call` prints."""
    command = [sys.executable, "-m", "benchmarks.bench_texts", "--first-call", kind, "--cells", str(cells)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def loop(table: pd.DataFrame, places: NDArray[np.int64]) -> list[str]:
    """Return the texts of some cells by the plain loop."""
    rows: list[dict[str, Any]] = table.iloc[places].astype(object).to_dict("records")  # type: ignore[assignment]
    return [describe_cell(row) for row in rows]


def timed(call: Any) -> tuple[float, Any]:
    """Return seconds and result of a call."""
    start = time.perf_counter()
    found = call()
    return time.perf_counter() - start, found


def measure(kind: str, cells: int, sample: int) -> dict[str, Any]:
    """Return the figures of one table."""
    categorical, plain = (table_of(kind, cells, categorical=c) for c in (True, False))
    places = np.random.default_rng(SEED).choice(cells, min(sample, cells), replace=False)
    describe_cells(categorical.head(1000))  # the ontologies are read
    times: dict[str, list[float]] = {"categorical": [], "plain": [], "loop": []}
    same = True
    for _ in range(ROUNDS):
        seconds, one = timed(lambda: loop(categorical, places))
        times["loop"].append(seconds / len(places) * cells)
        for name, table in (("categorical", categorical), ("plain", plain)):
            seconds, found = timed(lambda table=table: describe_cells(table))
            times[name].append(seconds)
            same &= found.each[places].tolist() == one
    first = in_a_fresh_process(kind, cells)
    return {
        "cells": cells,
        "distinct_rows": len(found.facts.rows),
        "distinct_texts": len(found.texts),
        "seconds_first_call": round(first["seconds"], 2),
        "seconds": round(median(times["categorical"]), 3),
        "seconds_slowest": round(max(times["categorical"]), 3),
        "seconds_plain_columns": round(median(times["plain"]), 3),
        "loop_sample": len(places),
        "loop_seconds_extrapolated": round(median(times["loop"]), 1),
        "times_faster": round(median(a / b for a, b in zip(times["loop"], times["categorical"], strict=True)), 1),
        "texts_equal": same,
        "added_gb": round(first["added_gb"], 3),
        "peak_gb": round(first["peak_gb"], 3),
        "aspects_defined_share": round(defined_share(found), 4),
        "drawn_texts_per_second": round(draw_rate(found)),
    }


def defined_share(found: CellTexts) -> float:
    """Return the share of what is said of all cells that comes with a definition."""
    weights = np.bincount(found.facts.index, minlength=len(found.facts.rows))
    said = sum(n * len(row) for row, n in zip(found.facts.rows, weights, strict=True))
    rows = zip(found.facts.rows, weights, strict=True)
    return float(sum(n * sum(bool(part.definition) for part in row.values()) for row, n in rows) / max(said, 1))


def draw_rate(found: CellTexts, batch: int = 256, steps: int = 40) -> float:
    """Return texts a second drawn for training."""
    rng = np.random.default_rng(SEED)
    batches = [rng.choice(len(found.facts), batch) for _ in range(steps)]
    seconds, _ = timed(lambda: [draw_texts(found.facts, cells, rng) for cells in batches])
    return batch * steps / seconds


def command_line(cells: int) -> dict[str, float]:
    """Return seconds of ``cellingua texts`` on an h5ad of the atlas, reading and writing included."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        table = table_of("atlas", cells, categorical=True)
        table.index = pd.Index([f"cell{place}" for place in range(cells)])
        anndata.AnnData(obs=table, var=pd.DataFrame(index=["ENSG00000141510"])).write_h5ad(folder / "atlas.h5ad")
        del table
        verb = [sys.executable, "-m", "cellingua.cli.main", "texts"]
        command = [*verb, "atlas.h5ad", "-o", "out.tsv", "--unique", "t.tsv"]
        seconds, _ = timed(lambda: subprocess.run(command, cwd=folder, capture_output=True, check=True))
        sizes = {name: (folder / name).stat().st_size / 1e6 for name in ("out.tsv", "t.tsv")}
    return {"seconds": round(seconds, 1), **{f"{name} (MB)": round(size, 1) for name, size in sizes.items()}}


def definitions() -> dict[str, dict[str, float]]:
    """Return how many terms of each shipped ontology have a definition."""
    found = {}
    for prefix in PREFIXES:
        ontology = load_ontology(prefix)
        defined = sum(bool(ontology.definition(i)) for i in ontology.ids)
        found[prefix] = {"terms": len(ontology), "defined": defined, "share": round(defined / len(ontology), 4)}
    return found


def main() -> int:
    """Measure, print, write the result, and return the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--cells", type=int, default=1_000_000)
    parser.add_argument("--sample", type=int, default=SAMPLE, help="cells of the plain loop")
    parser.add_argument("--first-call", choices=KINDS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.first_call:
        first_call(args.first_call, args.cells)
        return 0
    tables = {kind: measure(kind, args.cells, args.sample) for kind in KINDS}
    figures: dict[str, Any] = {
        "loop": "extrapolated from a sample of the same cells",
        "organs": len(organs()),
        "fields": ", ".join(FIELD.values()),
        **tables,
        "command line, atlas": command_line(args.cells),
        "definitions": definitions(),
    }
    bars = {
        "texts_equal": at_least(int(all(held["texts_equal"] for held in tables.values())), 1),
        "seconds_first_call": below(max(held["seconds_first_call"] for held in tables.values()), SECONDS),
        "times_faster_than_loop": at_least(min(held["times_faster"] for held in tables.values()), TIMES),
        "added_gb": below(max(held["added_gb"] for held in tables.values()), MEMORY),
    }
    return write_result("texts", figures, bars, seeds={"table": SEED})


if __name__ == "__main__":
    sys.exit(main())
