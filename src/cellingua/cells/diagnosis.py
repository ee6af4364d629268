"""What the doctor found, as data and as text."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellingua.cells.genes import GeneMatch
from cellingua.cells.recovery import Recovery
from cellingua.core.errors import CountsError, GeneError, InputError

LEVELS = ("refusal", "warning", "note", "ok")


@dataclass(frozen=True)
class Finding:
    """One thing the doctor has to say.

    Attributes
    ----------
    level
        "ok", "note", "warning" or "refusal".
    code
        Short name for programs, such as "scaled".
    text, advice
        What was found; what to do about it (may be empty).
    """

    level: str
    code: str
    text: str
    advice: str = ""


@dataclass
class Diagnosis:
    """What a file holds, and how its counts are to be taken.

    Attributes
    ----------
    name, kind, n_cells, n_columns
        The file, its form, and its size (columns of the place of the counts).
    place
        Where the counts are ("" if refused before that was known).
    recovery
        How counts are made from the values there; None where they are counts already.
    match
        The gene of each column of that place; columns outside `keep_columns` are unmapped.
    keep_columns
        bool (n_columns,): False for antibodies, tags, spike-ins and a second genome.
    gene_source
        The column(s) of var whose names were used.
    share_of_counts_mapped
        Share of the counts in kept columns that fall on a gene of the vocabulary (in the cells looked at).
    """

    name: str
    kind: str
    n_cells: int
    n_columns: int
    place: str = ""
    recovery: Recovery | None = None
    match: GeneMatch | None = None
    keep_columns: NDArray[np.bool_] | None = None
    gene_source: str = ""
    species: str = ""
    share_of_counts_mapped: float = 0.0
    cells_examined: int = 0
    findings: list[Finding] = field(default_factory=list)

    def add(self, level: str, code: str, text: str, advice: str = "") -> None:
        """Add a finding."""
        self.findings.append(Finding(level, code, text, advice))

    @property
    def refused(self) -> bool:
        """True if the file can't be used as it is."""
        return any(finding.level == "refusal" for finding in self.findings)

    @property
    def genes_mapped(self) -> int:
        """Number of distinct genes of the vocabulary among the columns."""
        return 0 if self.match is None else self.match.n_genes

    @property
    def taken_as(self) -> str:
        """ "counts", "recovered counts" or "relative expression"."""
        if self.recovery is None:
            return "counts"
        return "recovered counts" if self.recovery.exact else "relative expression"

    def raise_if_refused(self) -> None:
        """Raise the first refusal: `GeneError` where it is about genes or species, else `CountsError`."""
        for finding in self.findings:
            if finding.level == "refusal":
                about_genes = finding.code in ("species", "few_mapped", "no_genes")
                kind: type[InputError] = GeneError if about_genes else CountsError
                expected = (
                    "human genes" if about_genes else "raw counts, or log-normalised values, of at least one cell"
                )
                raise kind(f"{self.name}: {finding.text}", expected, finding.advice)

    def to_dict(self) -> dict[str, Any]:
        """Return what was found as plain JSON values."""
        return {
            "name": self.name,
            "kind": self.kind,
            "n_cells": self.n_cells,
            "n_columns": self.n_columns,
            "place": self.place,
            "values": self.taken_as,
            "recovery": None if self.recovery is None else self.recovery.to_dict(),
            "species": self.species,
            "genes": None if self.match is None else self.match.summary(),
            "gene_source": self.gene_source,
            "columns_kept": None if self.keep_columns is None else int(self.keep_columns.sum()),
            "share_of_counts_mapped": round(self.share_of_counts_mapped, 4),
            "cells_examined": self.cells_examined,
            "refused": self.refused,
            "findings": [vars(finding) for finding in self.findings],
        }

    def to_text(self) -> str:
        """Return what ``cellingua doctor FILE`` prints."""
        from cellingua.cells.wording import diagnosis_text

        return diagnosis_text(self)
