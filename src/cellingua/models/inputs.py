"""What a model is given: counts, candidates, a second channel; and what it makes of candidates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from cellingua.models.decoding import Decoded

Floats = NDArray[np.float32]


class Counts(Protocol):
    """The part of a block of counts that a model reads: see `cellingua.cells.counts`."""

    @property
    def counts(self) -> Any:
        """CSR (cells, genes of the vocabulary)."""

    @property
    def totals(self) -> Any:
        """float64 (cells,): total over all columns of the file that count."""


@dataclass(frozen=True)
class Rows:
    """Some cells of a block of counts, as a model reads them.

    Attributes
    ----------
    counts
        CSR (cells, genes of the vocabulary).
    totals
        float64 (cells,): total over all columns of the file that count.
    """

    counts: Any
    totals: NDArray[np.float64]

    @classmethod
    def of(cls, block: Counts, rows: NDArray[np.int64] | slice) -> Rows:
        """Return the cells of a block at `rows`."""
        return cls(block.counts[rows], block.totals[rows])


class Evidence(Protocol):
    """A second channel beside the towers: how much the marker genes of a term speak for it in a cell."""

    def score(self, block: Any, term_ids: Sequence[str | None], unmarked: float = 0.0) -> Floats:
        """Return what is added to the logits, float32 (cells, terms); `unmarked` where nothing is known."""

    def knows(self, term_ids: Sequence[str | None]) -> NDArray[np.bool_]:
        """Return bool (terms,): whether it has markers of each."""


class CandidateTexts(Protocol):
    """The part of a list of candidates that a model reads: see `cellingua.words.candidates`."""

    @property
    def term_ids(self) -> Sequence[str | None]:
        """Ontology id of each candidate, None for free text."""

    @property
    def texts(self) -> Sequence[str]:
        """Text of each candidate; empty for one whose term has a stored vector."""

    @property
    def origin(self) -> str:
        """Where they come from: ``user``, or ``ontology`` or ``tissue``."""


@dataclass(frozen=True)
class Prepared:
    """Candidates ready to be compared with cells.

    Attributes
    ----------
    term_ids
        Ontology id of each, or None.
    vectors
        float32 (K, joint).
    prior
        float32 (K,): added to the logits. Among candidates that the user did not name, terms that the model knows
        from words alone carry a handicap.
    temperature
        Divides the logits.
    decoded
        What the model's decoder says that cells of each express; None where it has none or it doesn't count.
    decoded_weight
        What it counts in arbitrating between like candidates.
    agreement_weight
        What a cell's correlation with it counts.
    unmarked
        What a candidate without markers gets in their place.
    evidence_weight
        What the evidence is multiplied by.
    """

    term_ids: tuple[str | None, ...]
    vectors: Floats
    prior: Floats
    temperature: float
    decoded: Decoded | None = None
    decoded_weight: float = 0.0
    agreement_weight: float = 0.0
    unmarked: float = 0.0
    evidence_weight: float = 1.0
