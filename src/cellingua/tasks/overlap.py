"""Has the model seen these cells? Told before a figure on them is called zero-shot.

Three signs, each enough: the file is one that the model was trained on (SHA-256), it carries the id of a data set that
the model was trained on (an archive's accession in its name, title or obs; its own name only where the cells do not
speak against it), or more of its cells carry a fingerprint of the model's filter than chance explains.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from scipy.special import betainc

from cellingua.cells.counts import CountBlock, CountBlocks
from cellingua.cells.diagnosis import Diagnosis
from cellingua.cells.fingerprint import fingerprints
from cellingua.cells.reading import CellFile
from cellingua.core.files import sha256_file
from cellingua.models.seen import CELLS, DataSet, Seen, seen_by
from cellingua.recipes.seen import ACCESSION

if TYPE_CHECKING:
    from cellingua.models.tuned import Model

#: A share of hits that is less likely than this by chance is no chance.
P_VALUE = 1e-6
#: Two different cells may agree on a whole list. That is rarer than the filter's own mistakes (`make bench-leakage`
#: finds none among cells of other data sets), and is added to them so that it never passes for a sign.
ALIKE = 1e-4
#: A data set's own name is no sign where this many of the file's cells were compared and none is known.
SPEAK = 20
ROWS = 2048
_COLUMNS = ("dataset_id", "dataset", "accession", "study", "study_id", "gse", "series")
_TEXTS = ("title", "dataset_id", "accession", "citation", "source", "study", "geo", "doi", "schema_reference")
_MOST_TEXT, _MOST_VALUES = 2000, 50
_UUID = re.compile(r"\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b")


@dataclass(frozen=True)
class Overlap:
    """What is known of cells and model.

    Attributes
    ----------
    model
        Name of the model.
    recorded
        Whether the model says what it saw at all.
    complete
        Whether it says all of it: a tuned model's base may be silent.
    data_sets, how
        Known data sets that the file is, and the sign: ``hash``, ``id``, ``name``, or ``""``.
    cells, compared, hits
        Cells, those with a fingerprint (alike ones once), and those with one that the model has seen.
    expected, p_value
        Hits that chance explains, and the chance of at least so many.
    donors
        Donors of the file that a known data set names too.
    """

    model: str
    recorded: bool
    complete: bool = True
    data_sets: tuple[str, ...] = ()
    how: str = ""
    cells: int = 0
    compared: int = 0
    hits: int = 0
    expected: float = 0.0
    p_value: float = 1.0
    donors: tuple[str, ...] = ()

    @property
    def by_cells(self) -> bool:
        """Are there more known cells than chance explains?"""
        return self.hits > 0 and self.p_value < P_VALUE

    @property
    def known(self) -> bool:
        """Has the model seen these cells, or their data set?"""
        return bool(self.data_sets) or self.by_cells

    @property
    def zero_shot(self) -> bool:
        """May a figure on these cells be called zero-shot? Only where all that the model saw is known."""
        return self.recorded and self.complete and not self.known

    def sentence(self) -> str:
        """Return one line for people; names of data sets are those of the model's folder, as written there."""
        if not self.recorded:
            return f"It is not known what {self.model} saw in training, so these cells may be among it."
        told = f"{self.hits:,} of {self.compared:,} comparable cells"
        if self.data_sets:
            how = {"hash": "this very file", "id": "the id of the data set", "name": "the name of the file"}[self.how]
            named = ", ".join(self.data_sets[:3])
            cells = f"; {told} are known" if self.hits else ""
            return f"{self.model} was trained on these data: {named} (by {how}{cells}). No figure here is zero-shot."
        if self.by_cells:
            return (
                f"{self.model} has seen cells of this file in training: {told} are known, {self.expected:.1f} would be "
                "by chance. No figure here is zero-shot."
            )
        rest = "" if self.complete else " What its base was trained on is not known."
        if not self.compared:
            return f"None of these cells can be compared with what {self.model} saw: too few counts.{rest}"
        return f"None of {self.compared:,} comparable cells is known to {self.model} beyond chance.{rest}"

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        held = asdict(self) | {"known": self.known, "zero_shot": self.zero_shot, "told": self.sentence()}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in held.items()}


class Comparison:
    """Cells compared with what a model saw, a block at a time; of each cell a few bytes are kept.

    Parameters
    ----------
    model
        The model; where it does not say what it saw, nothing is compared.
    n
        Number of cells.
    """

    def __init__(self, model: Model, n: int) -> None:
        self.name, self.n = model.name, n
        self.seen = seen_by(model)
        self.able = self.seen is not None and self.seen.comparable
        kept = n if self.able else 0
        self._done, self._hit = np.zeros(kept, bool), np.zeros(kept, bool)
        self._chance, self._key = np.zeros(kept, np.float32), np.zeros(kept, np.uint64)

    def add(self, counts: csr_matrix, start: int) -> None:
        """Compare the cells from `start` on: CSR (cells, vocabulary), raw counts; what was compared is left out."""
        rows = slice(start, start + counts.shape[0])
        if self.seen is None or not self.able or self._done[rows].all():
            return
        prints = fingerprints(counts)
        self._hit[rows], self._chance[rows] = self.seen.hits(prints), self.seen.chances(prints)
        # Cells that are alike on all lists have one key: a repeated cell is one piece of evidence, not several.
        self._key[rows] = prints.values.sum(axis=1, dtype=np.uint64)
        self._done[rows] = True

    def tell(self, path: Path | None, ids: Iterable[str] = (), donors: Iterable[str] = ()) -> Overlap:
        """Return what the cells say that were added, and the file's hash, ids and name.

        Parameters
        ----------
        path
            The file, None for cells in memory.
        ids
            Accessions that it carries.
        donors
            Its donors.
        """
        if self.seen is None:
            return Overlap(self.name, recorded=False, cells=self.n)
        there = np.flatnonzero(self._done & (self._chance > 0))
        there = there[np.unique(self._key[there], return_index=True)[1]]
        chances, hits = self._chance[there].astype(np.float64) + ALIKE, int(self._hit[there].sum())
        known, how = find_data_sets(self.seen, path, ids)
        if how == "name" and not hits and len(there) >= SPEAK:
            known, how = [], ""
        named = {donor for data_set in known for donor in data_set.donors}
        return Overlap(
            model=self.name,
            recorded=True,
            complete=self.seen.complete and self.seen.comparable,
            data_sets=tuple(data_set.id for data_set in known),
            how=how,
            cells=self.n,
            compared=len(there),
            hits=hits,
            expected=round(float(chances.sum()), 4),
            p_value=chance_of(hits, chances),
            donors=tuple(sorted(named & set(donors)))[:_MOST_VALUES],
        )


class WatchedBlocks(CountBlocks):
    """Counts of a file that are compared with what a model saw as they are read: no second pass over the file.

    Parameters
    ----------
    cells, diagnosis
        As `CountBlocks` takes them.
    model
        The model.
    """

    def __init__(self, cells: CellFile, diagnosis: Diagnosis, model: Model) -> None:
        super().__init__(cells, diagnosis)
        self._compared = Comparison(model, cells.n_cells)

    def block(self, start: int, stop: int) -> CountBlock:
        """Return the counts of the cells `start` to `stop` (exclusive)."""
        block = super().block(start, stop)
        self._compared.add(block.counts, start)
        return block

    def overlap(self) -> Overlap:
        """Return what the cells that were read so far say, and the file's own hash, ids and name."""
        donors = self.cells.obs["donor_id"].astype(str).unique().tolist() if "donor_id" in self.cells.obs else []
        return self._compared.tell(self.cells.path, ids_of(self.cells), donors)


def overlap(model: Model, blocks: CountBlocks) -> Overlap:
    """Return whether the model has seen these cells; the file is read once.

    Parameters
    ----------
    model
        A loaded model.
    blocks
        The counts of a file or an AnnData.

    Raises
    ------
    ModelError
        The model's ``seen.json`` or ``seen.filter`` is damaged.
    """
    watched = WatchedBlocks(blocks.cells, blocks.diagnosis, model)
    if watched._compared.able:
        for _ in watched.blocks(ROWS):
            pass
    return watched.overlap()


def overlap_of_counts(
    model: Model, counts: csr_matrix, *, path: Path | None = None, donors: Iterable[str] = ()
) -> Overlap:
    """`overlap` of counts that are in memory already.

    Parameters
    ----------
    model
        A loaded model.
    counts
        CSR (cells, vocabulary), raw counts on the vocabulary's genes.
    path
        The file that they are from, for its hash and the ids in its name.
    donors
        Its donors.
    """
    compared = Comparison(model, counts.shape[0])
    for start in range(0, counts.shape[0], ROWS):
        compared.add(csr_matrix(counts[start : start + ROWS]), start)
    return compared.tell(path, [] if path is None else _ids_in([_words(path)]), donors)


def chance_of(hits: int, chances: NDArray[np.float64]) -> float:
    """Return the chance of at least so many hits by mistake.

    Parameters
    ----------
    hits
        Cells that hit.
    chances
        float64 (n,): the chance of each cell; the tail is that of the binomial distribution with their mean, which
        is at least that of their sum (Hoeffding 1956, for more hits than expected).
    """
    n = len(chances)
    if not hits:
        return 1.0
    return float(betainc(hits, n - hits + 1, min(float(chances.mean()), 1.0)))


def find_data_sets(seen: Seen, path: Path | None, ids: Iterable[str]) -> tuple[list[DataSet], str]:
    """Return the model's data sets that a file is, and the sign: ``hash``, ``id``, ``name``, or ``""``.

    The file is hashed only where its size is that of a data set (or a data set's size is not known).
    """
    sets = [held for held in seen.data_sets if held.kind == CELLS]
    if path is not None and path.is_file():
        size = path.stat().st_size
        near = {held.sha256: held for held in sets if held.sha256 and held.size in (0, size)}
        found = near.get(sha256_file(path)) if near else None
        if found is not None:
            return [found], "hash"
    carried = set(ids)
    known = [held for held in sets if carried & set(held.other_ids)]
    if known:
        return known, "id"
    stem = "" if path is None else path.name.lower().split(".")[0]
    known = [held for held in sets if stem and held.id.lower() == stem]
    return known, "name" if known else ""


def ids_of(cells: CellFile) -> list[str]:
    """Return the accessions and CELLxGENE ids that a file carries: in its name, the texts of uns, columns of obs."""
    texts = [] if cells.path is None else [_words(cells.path)]
    texts += list(_uns_texts(cells))
    for column in cells.obs.columns:
        if str(column).lower() in _COLUMNS:
            texts += [str(value) for value in cells.obs[column].drop_duplicates()[:_MOST_VALUES]]
    return _ids_in(texts)


def _words(path: Path) -> str:
    return path.name.replace("_", " ")


def _ids_in(texts: Iterable[str]) -> list[str]:
    whole = " ".join(text[:_MOST_TEXT] for text in texts)
    return sorted({*ACCESSION.findall(whole), *_UUID.findall(whole.lower())})


def _uns_texts(cells: CellFile) -> Iterator[str]:
    """Yield the texts of uns that may name a data set; what can't be read says nothing."""
    source: Any = cells.source
    try:
        uns = source.uns if cells.kind == "AnnData" else source["uns"] if cells.kind in ("h5ad", "zarr") else {}
        for name in _TEXTS:
            if name in uns:
                value = uns[name]
                value = value if isinstance(value, str) else value[()]
                yield value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
    except (KeyError, TypeError, ValueError, OSError, AttributeError):
        return
