"""What a model was trained on, as two files of its folder.

::

    seen.json     data sets (id, kind, hash and size of the file, cells, donors, other ids), the hash of the gene lists
                  that fingerprints are taken over, whether this is all, and the parameters of each part of the filter
    seen.filter   fingerprints of the cells: the parts one behind the other

A model that was tuned carries what its base saw, and adds a part for the cells it was tuned on. No count, label or
name of a cell is in either file; names of data sets and of donors are.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from cellingua.cells.fingerprint import Fingerprints, fingerprints, load_lists
from cellingua.cells.print_filter import MOST_BITS, PrintFilter, build_filter
from cellingua.core.config import from_dict, to_dict
from cellingua.core.errors import ConfigError, ModelError
from cellingua.core.files import write_json
from cellingua.models.manifest import Manifest, read_manifest

if TYPE_CHECKING:
    from cellingua.models.tuned import Model

SEEN, FILTER = "seen.json", "seen.filter"
VERSION = 1
#: Bits of the first part: 16 lists at 2**-14 are below 0.1 % even for a cell with a fingerprint over each list. Each
#: further part has a bit more, so that all together never reach twice the first.
BITS = 14
CELLS = "cells"
KINDS = (CELLS, "profiles", "markers", "texts")
#: Fingerprints of so many cells are stored; of more, as many are drawn.
MOST_CELLS = 500_000


@dataclass(frozen=True)
class DataSet:
    """One source that a model was trained on.

    Attributes
    ----------
    id
        Its name: of a file, without its ending.
    kind
        One of `KINDS`.
    sha256, size
        Of the file as it was read; ``""`` and 0 where they are not known.
    cells
        Cells that were trained on.
    donors
        Donors of these, as the file names them.
    other_ids
        Accessions and ids in archives.
    """

    id: str
    kind: str = CELLS
    sha256: str = ""
    size: int = 0
    cells: int = 0
    donors: tuple[str, ...] = ()
    other_ids: tuple[str, ...] = ()


@dataclass(frozen=True)
class Part:
    """The parameters of one part of the filter.

    Attributes
    ----------
    prints
        Distinct fingerprints in it.
    bits
        A fingerprint that is not in it passes with a chance of at most ``2**-bits``.
    cells, printed
        Cells that were trained on, and cells with a fingerprint in it: the others show too little, or were not drawn.
    """

    prints: int
    bits: int
    cells: int
    printed: int


@dataclass(frozen=True)
class _Held:
    """The form of ``seen.json``."""

    format_version: int
    gene_lists: str
    complete: bool
    data_sets: tuple[DataSet, ...]
    filter: tuple[Part, ...]


@dataclass(frozen=True)
class Seen:
    """What a model was trained on.

    Attributes
    ----------
    data_sets
        Every source.
    parts, filters
        The filter: parameters and fingerprints of each part.
    complete
        False where a tuned model's base does not say what it saw.
    gene_lists
        Hash of the lists that the fingerprints are taken over.
    """

    data_sets: tuple[DataSet, ...]
    parts: tuple[Part, ...] = ()
    filters: tuple[PrintFilter, ...] = field(default=(), repr=False)
    complete: bool = True
    gene_lists: str = field(default_factory=lambda: load_lists().hash)

    @property
    def comparable(self) -> bool:
        """Were the fingerprints taken over the lists of this version?"""
        return self.gene_lists == load_lists().hash

    @property
    def cells(self) -> int:
        """Cells that were trained on."""
        return sum(part.cells for part in self.parts)

    def hits(self, prints: Fingerprints) -> NDArray[np.bool_]:
        """Return bool (n,): which cells have a fingerprint in the filter."""
        found = np.zeros(len(prints), bool)
        for held in self.filters:
            found |= (held.contains(prints.values) & prints.there).any(axis=1)
        return found

    def chances(self, prints: Fingerprints) -> NDArray[np.float64]:
        """Return float64 (n,): the chance that the filter takes a cell for a seen one by mistake; 0 without prints."""
        lookups = prints.there.sum(axis=1)
        missed = np.ones(len(prints))
        for held in self.filters:
            missed *= (1 - held.rate) ** lookups
        return 1 - missed

    def save(self, folder: Path) -> None:
        """Write both files into a model's folder (before its manifest is made)."""
        write_json(folder / SEEN, to_dict(_Held(VERSION, self.gene_lists, self.complete, self.data_sets, self.parts)))
        (folder / FILTER).write_bytes(b"".join(held.to_bytes() for held in self.filters))


def record(data_sets: Iterable[DataSet], counts: csr_matrix | Iterable[csr_matrix], base: Seen | None = None) -> Seen:
    """Return what a model saw.

    Parameters
    ----------
    data_sets
        Where the cells came from, and sources without cells (profiles, markers, texts).
    counts
        The cells it is trained on: CSR (cells, vocabulary), raw counts, as one matrix or in blocks.
    base
        What the model saw before, for one that is tuned.
    """
    sets = tuple(data_sets)
    blocks = [counts] if isinstance(counts, csr_matrix) else counts
    chosen, printed, seen = [], 0, 0
    for block in blocks:
        prints = fingerprints(block)
        stored = prints.stored()
        chosen.append(np.unique(prints.values[stored]))
        printed += int(stored.any(axis=1).sum())
        seen += len(prints)
    cells = max(seen, sum(held.cells for held in sets))
    before = Seen(()) if base is None else base
    bits = min(BITS + len(before.parts), MOST_BITS)
    held = build_filter(np.concatenate(chosen) if chosen else np.zeros(0, np.uint64), bits)
    part = Part(len(held), bits, cells, printed)
    return replace(
        before,
        data_sets=(*before.data_sets, *sets),
        parts=(*before.parts, part),
        filters=(*before.filters, held),
    )


def read_seen(folder: Path) -> Seen | None:
    """Read what a model saw from its folder, both files checked against the manifest; None where it does not say.

    Raises
    ------
    ModelError
        A file is missing, damaged, or not of this form.
    """
    manifest = read_manifest(Path(folder))
    if SEEN not in manifest.files and FILTER not in manifest.files:
        return None
    return _read(manifest)


def _read(manifest: Manifest) -> Seen:
    path, packed = manifest.verified(SEEN), manifest.verified(FILTER).read_bytes()
    try:
        told: Any = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(told, dict) or told.get("format_version") != VERSION:
            raise ValueError(f"it is not of format version {VERSION}")
        held = from_dict(_Held, told)
        filters, start = [], 0
        for part in held.filter:
            if part.prints < 0 or not 0 < part.bits <= MOST_BITS:
                raise ValueError(f"a part of {part.prints} fingerprints with {part.bits} bits")
            stop = start + PrintFilter.size_of(part.prints, part.bits)
            filters.append(PrintFilter.from_bytes(packed[start:stop], part.prints, part.bits))
            start = stop
        if start != len(packed):
            raise ValueError(f"{FILTER} has {len(packed):,} bytes, where its parts take {start:,}")
    except (ConfigError, OSError, TypeError, ValueError) as error:
        reason = error.found if isinstance(error, ConfigError) else str(error)
        raise ModelError(f"{path} can't be read: {reason}.", f"{SEEN} and {FILTER} as they were saved") from error
    return Seen(held.data_sets, held.filter, tuple(filters), held.complete, held.gene_lists)


def seen_by(model: Model) -> Seen | None:
    """Return what a loaded model saw, None where it is not known; its folder is read when this is first asked for.

    Raises
    ------
    ModelError
        As `read_seen`.
    """
    if model.head is not None and model.head.seen is not None:
        return model.head.seen  # tuned, and not yet a folder
    return None if model.folder is None else _read_once(model.folder, model.hash)


@functools.lru_cache(maxsize=8)
def _read_once(folder: Path, manifest_hash: str) -> Seen | None:
    """`read_seen`, once for each content of a folder."""
    return read_seen(folder)


def tuned_on(base: Seen | None, data_set: DataSet, counts: csr_matrix) -> Seen:
    """Return what a tuned model saw: what its base saw, and the cells it was tuned on."""
    before = Seen((), complete=False) if base is None else base
    if not before.comparable:  # fingerprints over two kinds of lists can't lie in one filter
        before = replace(before, parts=(), filters=(), complete=False, gene_lists=load_lists().hash)
    return record([data_set], counts, before)


def drawn_cells(n: int, seed: int = 0) -> NDArray[np.int64]:
    """Return the rows of n cells whose fingerprints are stored, in order: all, or `MOST_CELLS` drawn at random."""
    if n <= MOST_CELLS:
        return np.arange(n)
    return np.sort(np.random.default_rng([seed, 51]).permutation(n)[:MOST_CELLS])


def told_in_short(seen: Seen | None) -> str:
    """Return a line for people."""
    if seen is None:
        return "It is not known what it saw."
    cells: Sequence[DataSet] = [held for held in seen.data_sets if held.kind == CELLS]
    more = "" if seen.complete else "; what its base saw is not known"
    return f"It saw {seen.cells:,} cells of {len(cells):,} data sets{more}."
