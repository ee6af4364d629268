"""Marker evidence: a second channel beside the towers that asks whether a type's known markers are up.

The score of a term in a cell is a weighted sum over its marker genes of log-normalised expression in units of
that gene's spread, less what a cell with as many genes would score by chance, in units of how much chance varies.
All statistics are stored with the model; nothing is estimated from the file that is being named.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load, save
from scipy.sparse import csc_matrix, csr_matrix

from cellingua.cells.genes import load_vocabulary
from cellingua.core.errors import ModelError

Floats = NDArray[np.float32]
TOP = 20  # markers used of each term
CLIP = 6.0  # one gene never speaks louder than this many spreads
SPREAD_FLOOR = 0.15  # of log1p(counts per 10,000): rare genes would otherwise have no spread at all
_KEYS = ("terms", "genes", "indptr", "rows", "weights", "spread", "intercept", "slope", "scale", "strength")


@dataclass(frozen=True)
class MarkerEvidence:
    """Marker scores, ready to use.

    Attributes
    ----------
    terms
        Ontology ids that have markers.
    genes
        Ensembl ids that are a marker of some term.
    weights
        CSC float32 (genes, terms), columns of unit length.
    spread
        float32 (genes,): spread of log1p(counts per 10,000) over the background.
    intercept, slope, scale
        float32 (terms,): chance score as a line in log(genes expressed + 50), and its spread.
    strength
        What a score of 1 adds to a logit.
    """

    terms: tuple[str, ...]
    genes: tuple[str, ...]
    weights: csc_matrix
    spread: Floats
    intercept: Floats
    slope: Floats
    scale: Floats
    strength: float

    @cached_property
    def _columns(self) -> NDArray[np.int64]:
        row_of = {gene: row for row, gene in enumerate(load_vocabulary().ensembl_ids.tolist())}
        return np.array([row_of.get(gene, -1) for gene in self.genes])

    @cached_property
    def _place(self) -> dict[str, int]:
        return {term: place for place, term in enumerate(self.terms)}

    def score(self, block: Any, term_ids: Sequence[str | None], unmarked: float = 0.0) -> Floats:
        """Return what is added to the logits.

        Parameters
        ----------
        block
            Has `counts`, CSR (cells, vocabulary), and `totals` (cells,).
        term_ids
            The candidates; None, or a term without markers, gets `unmarked`.
        unmarked
            0 is what a cell scores by chance. It is too little where the other candidates have markers: of these the
            highest counts, and a cell of a type without any would seldom be given it.

        Returns
        -------
        ndarray
            float32 (cells, candidates); a row depends on that cell alone.
        """
        held = np.array([self._place.get(term or "", -1) for term in term_ids])
        out = np.full((block.counts.shape[0], len(held)), unmarked, np.float32)
        known = np.flatnonzero(held >= 0)
        if len(known):
            out[:, known] = self.strength * self._standard(block.counts, block.totals, held[known])
        return out

    def knows(self, term_ids: Sequence[str | None]) -> NDArray[np.bool_]:
        """Return bool (terms,): whether there are markers of each."""
        return np.array([(term or "") in self._place for term in term_ids], bool)

    def _standard(self, counts: csr_matrix, totals: NDArray[np.floating], terms: NDArray[np.int64]) -> Floats:
        """Return standardised scores (cells, terms)."""
        known = self._columns >= 0
        values = expression(csr_matrix(counts[:, self._columns[known]]), totals)
        values = _in_spreads(values, self.spread[known])
        raw = np.asarray((values @ self.weights[known][:, terms]).todense())
        depth = log_genes(counts)[:, None]
        chance = self.intercept[terms] + self.slope[terms] * depth
        return ((raw - chance) / self.scale[terms]).astype(np.float32)

    def to_bytes(self) -> bytes:
        """Return the channel as one safetensors file."""
        w = self.weights
        arrays = {
            "terms": np.frombuffer("\n".join(self.terms).encode(), np.uint8).copy(),
            "genes": np.frombuffer("\n".join(self.genes).encode(), np.uint8).copy(),
            "indptr": w.indptr.astype(np.int32),
            "rows": w.indices.astype(np.int32),
            "weights": w.data.astype(np.float16),
            "spread": self.spread,
            "intercept": self.intercept,
            "slope": self.slope,
            "scale": self.scale,
            "strength": np.array([self.strength], np.float32),
        }
        return save({name: torch.from_numpy(array) for name, array in arrays.items()})

    @classmethod
    def from_bytes(cls, content: bytes, where: str) -> MarkerEvidence:
        """Read what `to_bytes` wrote.

        Raises
        ------
        ModelError
            It is damaged, or not such a file.
        """
        try:
            held = {name: tensor.numpy() for name, tensor in load(content).items()}
            terms, genes = (tuple(held[key].tobytes().decode().split("\n")) for key in ("terms", "genes"))
            shape = (len(genes), len(terms))
            triple = (held["weights"].astype(np.float32), held["rows"], held["indptr"])
            weights = csc_matrix(triple, shape=shape)
            weights.check_format(full_check=True)  # a row out of range would be read from beyond the arrays
            spread, intercept, slope, scale = (
                held[key].astype(np.float32) for key in ("spread", "intercept", "slope", "scale")
            )
            (strength,) = held["strength"].tolist()
            sizes = [len(spread), len(intercept), len(slope), len(scale)]
            if sizes != [len(genes), *[len(terms)] * 3] or not (spread > 0).all() or not (scale > 0).all():
                raise ValueError("its arrays do not fit each other")
            if not all(np.isfinite(array).all() for array in (weights.data, spread, intercept, slope, scale, strength)):
                raise ValueError("it holds numbers that are not finite")
            return cls(terms, genes, weights, spread, intercept, slope, scale, strength)
        except (SafetensorError, KeyError, TypeError, ValueError) as error:
            raise ModelError(f"{where} can't be read: {error!r}.", f"the arrays {', '.join(_KEYS)}") from error


def expression(counts: csr_matrix, totals: NDArray[np.floating]) -> csr_matrix:
    """Return log1p of counts per 10,000 of `totals`, float32 CSR."""
    scale = np.divide(1e4, totals, out=np.zeros(len(totals)), where=np.asarray(totals) > 0)
    data = np.log1p(counts.data * np.repeat(scale, np.diff(counts.indptr))).astype(np.float32)
    return csr_matrix((data, counts.indices, counts.indptr), counts.shape)


def log_genes(counts: csr_matrix) -> Floats:
    """Return log(genes expressed + 50), float32 (cells,): how much a cell had the chance to show."""
    return np.log(counts.getnnz(axis=1) + 50.0).astype(np.float32)


def _in_spreads(values: csr_matrix, spread: Floats) -> csr_matrix:
    data = np.minimum(values.data / spread[values.indices], CLIP).astype(np.float32)
    return csr_matrix((data, values.indices, values.indptr), values.shape)


def marker_weights(markers: Mapping[str, NDArray[np.integer]], n_genes: int) -> csc_matrix:
    """Return CSC float32 (genes, terms): rarer markers and better-ranked ones weigh more; unit columns."""
    used = {term: rows[:TOP] for term, rows in markers.items()}
    frequency = np.bincount(np.concatenate(list(used.values())), minlength=n_genes)
    rarity = np.log(1 + len(used) / (1 + frequency))
    indptr, indices, data = [0], [], []
    for rows in used.values():
        weight = rarity[rows] / np.sqrt(np.log2(np.arange(2, 2 + len(rows))))
        order = np.argsort(rows)
        indices.append(rows[order])
        data.append((weight / np.sqrt((weight**2).sum()))[order].astype(np.float32))
        indptr.append(indptr[-1] + len(rows))
    triple = (np.concatenate(data), np.concatenate(indices), indptr)
    return csc_matrix(triple, shape=(n_genes, len(used)), dtype=np.float32)


def fit_evidence(
    markers: Mapping[str, NDArray[np.integer]],
    background: csr_matrix,
    totals: NDArray[np.floating],
    *,
    strength: float,
) -> MarkerEvidence:
    """Estimate the statistics of chance from background cells of many types.

    Parameters
    ----------
    markers
        Ontology id -> rows of the vocabulary, best first.
    background
        CSR (cells, vocabulary) of counts.
    totals
        (cells,).
    strength
        What a score of 1 adds to a logit.
    """
    vocabulary = load_vocabulary()
    weights = marker_weights(markers, len(vocabulary))
    values = expression(background, totals)
    mean = np.asarray(values.mean(axis=0)).ravel()
    square = np.asarray(values.multiply(values).mean(axis=0)).ravel()
    spread = (np.sqrt(np.maximum(square - mean**2, 0)) + SPREAD_FLOOR).astype(np.float32)
    raw = np.asarray((_in_spreads(values, spread) @ weights).todense())
    depth = log_genes(background).astype(np.float64)
    design = np.stack([np.ones_like(depth), depth], axis=1)
    line = np.linalg.lstsq(design, raw, rcond=None)[0]
    scale = (raw - design @ line).std(axis=0) + 1e-3
    used = np.flatnonzero(weights.getnnz(axis=1))
    return MarkerEvidence(
        tuple(markers),
        tuple(vocabulary.ensembl_ids[used].tolist()),
        csc_matrix(weights[used]),
        spread[used],
        line[0].astype(np.float32),
        line[1].astype(np.float32),
        scale.astype(np.float32),
        strength,
    )
