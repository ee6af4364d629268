"""One file of a corpus read into pieces of stored form, in the order of the file."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from cellingua.cells.collections import CellSet
from cellingua.cells.counts import CountBlocks
from cellingua.cells.doctor import examine
from cellingua.cells.leakage import find_matches
from cellingua.cells.reading import open_cells
from cellingua.cells.shards import EncodedCells, encode, join, write_shard
from cellingua.cells.sources import DONOR
from cellingua.cells.survey import CorpusConfig, LabelColumn, SurveyedFile
from cellingua.core.files import sha256_file
from cellingua.core.progress import Progress

_ROWS = 2048  # read at a time


class FileReader:
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
        self.file, self.number, self.labels = file, number, labels
        self.donor_column, self.layer = config.donor_column, config.layer
        self.min_genes, self.piece_values = config.min_genes, config.shard_values
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
            if values >= self.piece_values:
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
            for block in CountBlocks(cells, examine(cells, layer=self.layer)).blocks(_ROWS):
                rows = np.arange(block.start, block.stop)
                kept = self._kept(block.counts, block.n_genes, None if names is None else names[rows])
                if kept.any():
                    counts = csr_matrix(block.counts[kept])
                    yield encode(counts, block.totals[kept], codes[rows[kept]], rows[kept])
                progress.advance(len(rows))

    def _codes(self, obs: Any) -> NDArray[np.int32]:
        columns = [np.full(len(obs), self.number)]
        donors = LabelColumn(DONOR, (self.donor_column,)).values(obs)
        columns.append(np.array([self.code_of[DONOR][f"{self.file.name}/{donor}"] for donor in donors.tolist()]))
        for label in self.labels:
            known = {**self.code_of[label.name], "": -1}
            columns.append(np.array([known[value] for value in label.values(obs).tolist()]))
        return np.stack(columns, axis=1).astype(np.int32)

    def _kept(
        self, counts: csr_matrix, n_genes: NDArray[np.int64], names: NDArray[np.str_] | None
    ) -> NDArray[np.bool_]:
        kept = np.asarray(n_genes >= max(1, self.min_genes))
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
