"""Prepare a corpus once: files of cells of any total size to shuffled shards, in bounded memory, resumable.

First each file is read in order and its cells are kept aside in the stored form; then blocks of neighbours are dealt
out over the whole corpus at random, as many as a shard holds, and the cells of a shard are shuffled. What is finished
(a file, a shard) is never done again; until the end this takes twice the space.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellingua.cells.collections import CellSet
from cellingua.cells.corpus import COLUMNS, FORMAT, INDEX, Corpus, genes_digest, is_corpus, open_corpus, read_corpus
from cellingua.cells.genes import load_vocabulary
from cellingua.cells.pieces import FileReader
from cellingua.cells.shards import EncodedCells, join, open_shard, read_index, write_shard
from cellingua.cells.sources import DONOR, FILE
from cellingua.cells.survey import CorpusConfig, LabelColumn, SurveyedFile, survey
from cellingua.core.config import to_dict
from cellingua.core.errors import ConfigError, CountsError, FileError
from cellingua.core.files import check_writable, write_json
from cellingua.core.progress import Progress, Silent

WORK = "work"
_GATHER = 1024  # cells permuted at a time


def prepare_corpus(
    sources: Sequence[Path],
    out: Path,
    config: CorpusConfig | None = None,
    *,
    reference: CellSet | None = None,
    skip_bad: bool = False,
    progress: Progress | None = None,
) -> Corpus:
    """Write the shards of a corpus into `out`, or open them where they are there already.

    Parameters
    ----------
    sources
        Files of cells (h5ad, zarr, 10x), and folders that hold some at any depth.
    out
        A folder of its own. A run that was stopped goes on where it was.
    config
        See `CorpusConfig`.
    reference
        Evaluation cells: a cell that is one of them is left out (see `cellingua.cells.leakage`).
    skip_bad
        Leave out files that the doctor refuses, instead of stopping.
    progress
        Where to report.

    Raises
    ------
    FileError
        Nothing is readable, or a file is refused; all of them are listed.
    LabelError
        A label column is missing or has one value.
    ConfigError
        `out` holds a corpus of other files or of another configuration.
    OutputError
        The disk is full; what is finished stays, and the same call goes on.
    """
    config, progress = config or CorpusConfig(), progress or Silent()
    labels = config.label_columns()
    files, refused = survey(sources, labels, config.donor_column, config.layer, skip_bad=skip_bad, progress=progress)
    for name, reason in refused.items():
        progress.say(f"Left out: {name}: {reason}")
    plan = _plan(files, config, reference)
    if is_corpus(out):
        _same_plan(out, plan)
        shutil.rmtree(out / WORK, ignore_errors=True)
        return open_corpus(out)
    check_writable(out)
    _start_work(out, plan, progress)
    categories = _categories(files, labels)
    done = _keep_aside(out / WORK, files, labels, config, categories, reference, progress)
    pieces = [piece for held in done for piece in held["pieces"]]
    if not any(piece["cells"] for piece in pieces):
        raise CountsError("No cell is left to train on.", f"cells with {config.min_genes:,} genes or more")
    shards = _deal(out, pieces, config, progress)
    _finish(out, plan, categories, files, done, refused, shards)
    shutil.rmtree(out / WORK)
    return open_corpus(out)


def _plan(files: Sequence[SurveyedFile], config: CorpusConfig, reference: CellSet | None) -> dict[str, Any]:
    """Return all that the shards follow from, as JSON values."""
    guard = None
    if reference is not None:
        digest = hashlib.sha256("\n".join(reference.names.tolist()).encode())
        digest.update(reference.counts.data.tobytes())
        guard = digest.hexdigest()
    plan = {
        "format": FORMAT,
        "genes": genes_digest(),
        "config": to_dict(config),
        "reference": guard,
        "files": [file.key() for file in files],
    }
    held: dict[str, Any] = json.loads(json.dumps(plan))
    return held


def _same_plan(out: Path, plan: dict[str, Any]) -> None:
    made = read_corpus(out)["plan"]
    for key in plan:
        if made[key] != plan[key]:
            was, now = made[key], plan[key]
            if isinstance(was, dict):
                key, was, now = next((f"{key}.{k}", was.get(k), now[k]) for k in now if was.get(k) != now[k])
            if isinstance(was, list) and key == "files":
                was = [file for file in was if file not in now][:1] or "fewer files"
                now = [file for file in plan[key] if file not in made[key]][:1] or "fewer files"
            raise ConfigError(
                f"{out} holds a corpus that was made with {key} = {was!r}; now it is {now!r}.",
                "the same files and configuration",
                "another folder for the prepared corpus, or remove that one",
            )


def _start_work(out: Path, plan: dict[str, Any], progress: Progress) -> None:
    """Keep what an equal run has done; remove what another one has."""
    path = out / WORK / "plan.json"
    if path.is_file():
        try:
            if json.loads(path.read_text(encoding="utf-8")) == plan:
                progress.say("Going on where an earlier preparation was stopped.")
                return
        except ValueError:
            pass
        progress.say("An unfinished preparation of other files or with another configuration is removed.")
    for name in (WORK, "shards"):
        shutil.rmtree(out / name, ignore_errors=True)
        (out / name).mkdir(parents=True)
    write_json(path, plan)


def _categories(files: Sequence[SurveyedFile], labels: Sequence[LabelColumn]) -> dict[str, list[str]]:
    """Return the values of each column; a donor is called by its file and its name there."""
    donors = [f"{file.name}/{donor}" for file in files for donor in (*file.labels[DONOR], "")]
    found = {FILE: [file.name for file in files], DONOR: donors}
    for label in labels:
        found[label.name] = sorted({value for file in files for value in file.labels[label.name]})
    return found


def _keep_aside(
    work: Path,
    files: Sequence[SurveyedFile],
    labels: Sequence[LabelColumn],
    config: CorpusConfig,
    categories: dict[str, list[str]],
    reference: CellSet | None,
    progress: Progress,
) -> list[dict[str, Any]]:
    """Read each file once; return what is known of each: its pieces, and how many cells were left out and why."""
    progress.step("Reading the cells", sum(file.n_cells for file in files))
    done = []
    for number, file in enumerate(files):
        marker = work / f"file-{number:05d}.json"
        held = _finished(work, marker)
        if held is None:
            reader = FileReader(file, number, labels, config, categories, reference)
            held = reader.run(work / f"file-{number:05d}", progress)
            write_json(marker, held)
        else:
            progress.advance(file.n_cells)
        done.append(held)
    return done


def _finished(work: Path, marker: Path) -> dict[str, Any] | None:
    try:
        held: dict[str, Any] = json.loads(marker.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    whole = all(read_index(work / piece["path"]) is not None for piece in held["pieces"])
    return held if whole else None


def _deal(
    out: Path, pieces: Sequence[dict[str, Any]], config: CorpusConfig, progress: Progress
) -> list[dict[str, Any]]:
    """Deal blocks of all pieces out over the shards; shards that are there already stay."""
    starts = [np.arange(0, piece["cells"], config.block) for piece in pieces]
    owner = np.repeat(np.arange(len(pieces)), [len(part) for part in starts])
    start = np.concatenate(starts)
    order = np.random.default_rng([config.seed, 1]).permutation(len(start))
    cells, values = sum(piece["cells"] for piece in pieces), sum(piece["values"] for piece in pieces)
    n_shards = max(1, min(round(values / config.shard_values), len(order)))
    progress.step("Shuffling into shards", cells)
    shards = []
    for number, chosen in enumerate(np.array_split(order, n_shards)):
        path = out / "shards" / f"shard-{number:05d}"
        index = read_index(path)
        if index is None:
            chosen = np.sort(chosen)  # neighbours in a piece are read one after the other
            index = write_shard(path, _shuffled(out / WORK, pieces, owner[chosen], start[chosen], config, number))
        shards.append({"name": path.name, **{key: index[key] for key in ("cells", "values", "bytes", "sha256")}})
        progress.advance(index["cells"])
    return shards


def _shuffled(
    work: Path,
    pieces: Sequence[dict[str, Any]],
    owner: NDArray[np.int64],
    start: NDArray[np.int64],
    config: CorpusConfig,
    number: int,
) -> EncodedCells:
    """Return the cells of the blocks of one shard, shuffled."""
    parts = []
    for piece in np.unique(owner):
        held = open_shard(work / pieces[piece]["path"])
        spans = [(at, min(at + config.block, len(held.cells))) for at in start[owner == piece].tolist()]
        for span in spans:
            held.expect(*span)
        parts += [held.cells.slice(*span) for span in spans]
    together = join(parts)
    del parts
    order = np.random.default_rng([config.seed, 2, number]).permutation(len(together))
    return join([together.take(order[at : at + _GATHER]) for at in range(0, len(order), _GATHER)])


def _finish(
    out: Path,
    plan: dict[str, Any],
    categories: dict[str, list[str]],
    files: Sequence[SurveyedFile],
    done: Sequence[dict[str, Any]],
    refused: dict[str, str],
    shards: Sequence[dict[str, Any]],
) -> None:
    """Write the index: from then on the corpus is there."""
    digest = hashlib.sha256(json.dumps([*categories.items()]).encode())
    digest.update("".join(shard["sha256"] for shard in shards).encode())
    told = [
        {
            "name": file.name,
            "cells": file.n_cells,
            "kept": sum(piece["cells"] for piece in held["pieces"]),
            "left_out": held["left_out"],
            "sha256": held["sha256"],
            "notes": list(file.notes),
        }
        for file, held in zip(files, done, strict=True)
    ]
    empty = [file["name"] for file in told if not file["cells"]]
    if empty:
        raise FileError(f"{empty[0]} has no cell.", "cells")
    index = {
        "format": FORMAT,
        "genes": genes_digest(),
        "n_genes": len(load_vocabulary()),
        "cells": sum(shard["cells"] for shard in shards),
        "values": sum(shard["values"] for shard in shards),
        "digest": digest.hexdigest(),
        COLUMNS: categories,
        "files": told,
        "refused": refused,
        "shards": list(shards),
        "plan": plan,
    }
    write_json(out / INDEX, index)
