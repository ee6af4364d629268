"""Prepare a corpus once: files of cells of any total size to shuffled shards, in bounded memory, resumable.

First each file is read in order and its cells are kept aside in the stored form; then blocks of neighbours are dealt
out over the whole corpus at random, as many as a shard holds, and the cells of a shard are shuffled. What is finished
(a file, a shard) is never done again; until the end this takes twice the space.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from cellingua.cells.collections import CellSet
from cellingua.cells.corpus import COLUMNS, FORMAT, INDEX, Corpus, genes_digest, is_corpus, open_corpus, read_corpus
from cellingua.cells.counts import CountBlocks
from cellingua.cells.doctor import examine
from cellingua.cells.genes import load_vocabulary
from cellingua.cells.leakage import find_matches
from cellingua.cells.reading import open_cells
from cellingua.cells.shards import EncodedCells, encode, join, open_shard, read_index, write_shard
from cellingua.cells.sources import DONOR, FILE
from cellingua.cells.survey import LabelColumn, SurveyedFile, survey
from cellingua.core.config import to_dict
from cellingua.core.errors import ConfigError, CountsError, FileError
from cellingua.core.files import check_writable, sha256_file, write_json
from cellingua.core.progress import Progress, Silent

WORK = "work"
_ROWS = 2048  # read at a time
_GATHER = 1024  # cells permuted at a time


@dataclass(frozen=True)
class CorpusConfig:
    """How a corpus is made.

    Parameters
    ----------
    labels
        Label columns as `LabelColumn.parse` reads them.
    donor_column
        Column of ``obs`` with the donor; donors of different files are different donors.
    layer
        Layer with the counts; None lets the doctor find it.
    min_genes
        Cells with fewer genes of the vocabulary are left out.
    seed
        Of the shuffle.
    block
        Neighbours of a file that stay together until the cells of a shard are shuffled.
    shard_values
        About so many stored counts go into a shard; memory follows it (about ten bytes each).
    """

    labels: tuple[str, ...] = ()
    donor_column: str = "donor_id"
    layer: str | None = None
    min_genes: int = 1
    seed: int = 0
    block: int = 32
    shard_values: int = 32_000_000

    def label_columns(self) -> list[LabelColumn]:
        """Return the label columns, or raise `LabelError` where one is wrong or named twice."""
        labels = [LabelColumn.parse(text) for text in self.labels]
        names = [label.name for label in labels]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise ConfigError(f"The label column {twice!r} is named twice.", "one name a label")
        return labels


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
            reader = _Reader(file, number, labels, config, categories, reference)
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


class _Reader:
    """Reads one file into pieces of stored form, in the order of the file."""

    def __init__(
        self,
        file: SurveyedFile,
        number: int,
        labels: Sequence[LabelColumn],
        config: CorpusConfig,
        categories: dict[str, list[str]],
        reference: CellSet | None,
    ) -> None:
        self.file, self.number, self.labels, self.config = file, number, labels, config
        self.code_of = {name: {value: code for code, value in enumerate(values)} for name, values in categories.items()}
        self.reference = reference
        self.left_out = {"too few genes": 0, "evaluation cells": 0}

    def run(self, folder: Path, progress: Progress) -> dict[str, Any]:
        """Write the pieces of the file and return what is to be known of them."""
        shutil.rmtree(folder, ignore_errors=True)  # what a killed run left of this file
        folder.mkdir(parents=True)
        pieces: list[dict[str, Any]] = []
        waiting: list[EncodedCells] = []
        values = 0
        for part in self._parts(progress):
            waiting.append(part)
            values += len(part.genes)
            if values >= self.config.shard_values:
                pieces.append(_write_piece(folder, len(pieces), waiting))
                waiting, values = [], 0
        if waiting:
            pieces.append(_write_piece(folder, len(pieces), waiting))
        digest = sha256_file(self.file.path) if self.file.path.is_file() else None
        return {"pieces": pieces, "left_out": self.left_out, "sha256": digest}

    def _parts(self, progress: Progress) -> Iterator[EncodedCells]:
        with open_cells(self.file.path) as cells:
            codes = self._codes(cells.obs)
            names = np.asarray(cells.obs.index, dtype=np.str_) if self.reference is not None else None
            for block in CountBlocks(cells, examine(cells, layer=self.config.layer)).blocks(_ROWS):
                rows = np.arange(block.start, block.stop)
                kept = self._kept(block.counts, block.n_genes, None if names is None else names[rows])
                if kept.any():
                    counts = csr_matrix(block.counts[kept])
                    yield encode(counts, block.totals[kept], codes[rows[kept]], rows[kept])
                progress.advance(len(rows))

    def _codes(self, obs: Any) -> NDArray[np.int32]:
        columns = [np.full(len(obs), self.number)]
        donors = LabelColumn(DONOR, (self.config.donor_column,)).values(obs)
        columns.append(np.array([self.code_of[DONOR][f"{self.file.name}/{donor}"] for donor in donors.tolist()]))
        for label in self.labels:
            known = {**self.code_of[label.name], "": -1}
            columns.append(np.array([known[value] for value in label.values(obs).tolist()]))
        return np.stack(columns, axis=1).astype(np.int32)

    def _kept(
        self, counts: csr_matrix, n_genes: NDArray[np.int64], names: NDArray[np.str_] | None
    ) -> NDArray[np.bool_]:
        kept = np.asarray(n_genes >= max(1, self.config.min_genes))
        self.left_out["too few genes"] += int((~kept).sum())
        if self.reference is not None and names is not None and kept.any():
            rows = np.flatnonzero(kept)
            found = find_matches(csr_matrix(counts[rows]), names[rows], self.reference.counts, self.reference.names)
            kept[rows[found.refused]] = False
            self.left_out["evaluation cells"] += int(found.refused.sum())
        return kept


def _write_piece(folder: Path, number: int, parts: list[EncodedCells]) -> dict[str, Any]:
    path = folder / f"piece-{number:05d}"
    index = write_shard(path, join(parts))
    return {"path": f"{folder.name}/{path.name}", "cells": index["cells"], "values": index["values"]}


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
        parts += [held.slice(at, min(at + config.block, len(held))) for at in start[owner == piece].tolist()]
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
