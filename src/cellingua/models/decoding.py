"""Expression from words: a linear decoder from the joint space to genes, and how well a cell agrees with what it says.

A text's vector says how much a cell of that kind expresses each gene. The decoder's weights are fitted on mean profiles
and real cells. It speaks twice. `agreement` correlates a cell's ranks with what is said of each candidate, over the
genes in which the candidates differ most: evidence from far more genes than have a marker, and of types without any.
`arbitration` decides between siblings: the towers tell lineages apart well, and naive from memory T cells, which differ
in a few dozen genes of thousands, badly. So where two of a cell's likeliest candidates are said to express nearly the
same, the genes that tell these two apart decide. Both are SingleR's idea (Aran et al., Nature Immunology 2019: its
scores and its fine-tuning), with decoded profiles for references. Ranks within the cell let depth and normalisation
drop out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load, save
from scipy.sparse import csr_matrix

from cellingua.cells.genes import load_vocabulary
from cellingua.core.errors import ModelError
from cellingua.measures.rank_correlation import telling_genes, unit_ranks, unit_rows
from cellingua.models.storage import quantise
from cellingua.words.ontology import load_ontology

Floats = NDArray[np.float32]
EACH_WAY = 60  # genes by which either of a pair is higher
LIKELIEST = 5  # candidates of a cell that are compared with one another
ALIKE = 0.9  # correlation of two decoded profiles from which on they are siblings
VARIABLE = 1000  # genes over which a cell is compared with all candidates
_KEYS = ("genes", "terms", "mean", "weights", "scale")


@dataclass(frozen=True)
class Decoded:
    """What the decoder says of some candidates, ready to be compared with cells.

    Attributes
    ----------
    columns
        int64 (g,): genes of the vocabulary.
    place
        int64 (K,): row of `levels` of each candidate; -1 for one of which nothing was seen but words.
    levels
        float32 (k, g): log expression.
    """

    columns: NDArray[np.int64]
    place: NDArray[np.int64]
    levels: Floats

    @cached_property
    def _unit(self) -> Floats:
        return unit_rows(self.levels).astype(np.float32)

    def siblings(self, a: int, b: int) -> bool:
        """Return whether two rows of `levels` are alike enough to be arbitrated between."""
        return bool(self._unit[a] @ self._unit[b] > ALIKE)

    def agreement(self, counts: csr_matrix) -> Floats:
        """Return the rank correlation of each cell with what is said of each candidate, float32 (cells, K).

        Over the genes in which the candidates differ most. A candidate of which nothing was seen but words gets the
        mean of the others, which neither helps nor harms it. A row depends on that cell alone.
        """
        known = self.place >= 0
        out = np.zeros((counts.shape[0], len(self.place)), np.float32)
        if known.sum() < 2 or not len(out):
            return out
        levels = self.levels[self.place[known]]
        genes = np.sort(np.argsort(-levels.std(axis=0), kind="stable")[:VARIABLE])
        said = unit_ranks(levels[:, genes])
        shown = csr_matrix(counts)[:, self.columns[genes]].toarray()
        # Not a matrix product, which may add up a cell's genes in another order when there are more cells.
        found = np.einsum("cg,kg->ck", unit_ranks(shown), said)
        out[:, known] = found
        out[:, ~known] = found.mean(axis=1, keepdims=True)
        return out

    def arbitration(self, counts: csr_matrix, logits: Floats) -> Floats:
        """Return what is added to the logits for a weight of 1, float32 (cells, K).

        For each pair of siblings among a cell's likeliest candidates, one gains what the other loses: the difference
        of their rank correlations with the cell over the genes that tell them apart. A row depends on that cell alone.
        """
        added = np.zeros(logits.shape, np.float32)
        width = min(LIKELIEST, logits.shape[1])
        if not len(added) or width < 2 or not len(self.levels):
            return added
        top = np.argsort(-logits, axis=1, kind="stable")[:, :width]
        shown = csr_matrix(counts)[:, self.columns].toarray()
        for first, second, rows in _pairs(top):
            a, b = int(self.place[first]), int(self.place[second])
            if a >= 0 and b >= 0 and self.siblings(a, b):
                gain = self.preference(shown[rows], a, b) / (width - 1)
                added[rows, first] += gain
                added[rows, second] -= gain
        return added

    def preference(self, shown: NDArray[Any], a: int, b: int) -> Floats:
        """Return how much more cells (n, g) agree with row `a` than with row `b`: float32 (n,), from -2 to 2."""
        genes = telling_genes(self.levels[a], self.levels[b], EACH_WAY)
        said = unit_ranks(self.levels[[a, b]][:, genes]).astype(np.float32)
        cells = unit_ranks(shown[:, genes]).astype(np.float32)
        # Row by row: a matrix product may add up a cell's genes in another order when there are more cells.
        return np.asarray((cells * (said[0] - said[1])).sum(axis=1), np.float32)


def _pairs(top: NDArray[np.int64]) -> Iterator[tuple[int, int, NDArray[np.int64]]]:
    """Yield each pair of candidates that are both among the likeliest of some cells, the lower first, and these."""
    n, width = top.shape
    i, j = np.triu_indices(width, 1)
    low, high = np.minimum(top[:, i], top[:, j]).ravel(), np.maximum(top[:, i], top[:, j]).ravel()
    rows = np.repeat(np.arange(n), len(i))
    order = np.lexsort((rows, high, low))
    low, high, rows = low[order], high[order], rows[order]
    starts = np.flatnonzero(np.r_[True, (low[1:] != low[:-1]) | (high[1:] != high[:-1])])
    for start, stop in zip(starts, [*starts[1:], len(low)], strict=True):
        yield int(low[start]), int(high[start]), rows[start:stop]


@dataclass(frozen=True)
class ExpressionDecoder:
    """Linear map from the joint space to log expression.

    Attributes
    ----------
    genes
        Ensembl ids.
    terms
        Ontology ids that it was fitted on, and their wider terms: only these are arbitrated between.
    mean
        float32 (genes,): log expression of an average cell.
    weights
        float32 (joint, genes).
    """

    genes: tuple[str, ...]
    terms: frozenset[str]
    mean: Floats
    weights: Floats

    @cached_property
    def _columns(self) -> NDArray[np.int64]:
        row_of = {gene: row for row, gene in enumerate(load_vocabulary().ensembl_ids.tolist())}
        return np.array([row_of.get(gene, -1) for gene in self.genes])

    @cached_property
    def wider(self) -> frozenset[str]:
        """Terms of which it knows a kind."""
        ontology = load_ontology("CL")
        return frozenset().union(*(ontology.ancestors(term) for term in self.terms if term in ontology))

    def prepare(self, vectors: Floats, term_ids: Sequence[str | None]) -> Decoded:
        """Return candidates, vectors float32 (K, joint) and their terms, as they are compared with cells."""
        genes = np.flatnonzero(self._columns >= 0)
        known = np.array([term in self.terms for term in term_ids], bool)
        place = np.where(known, np.cumsum(known) - 1, -1)
        levels = self.mean[genes] + vectors[known] @ self.weights[:, genes]
        return Decoded(self._columns[genes], place, np.asarray(levels, np.float32))

    def to_bytes(self) -> bytes:
        """Return the decoder as one safetensors file: the weights in 8 bits with a scale for each gene."""
        text = {"genes": "\n".join(self.genes), "terms": "\n".join(sorted(self.terms))}
        held = {name: torch.frombuffer(bytearray(lines.encode()), dtype=torch.uint8) for name, lines in text.items()}
        steps, scale = quantise(torch.from_numpy(np.ascontiguousarray(self.weights.T)))
        return save(held | {"mean": torch.from_numpy(self.mean).half(), "weights": steps, "scale": scale})

    @classmethod
    def from_bytes(cls, content: bytes, joint: int, where: str) -> ExpressionDecoder:
        """Read what `to_bytes` wrote; `joint` is the width of the joint space.

        Raises
        ------
        ModelError
            It is damaged, or not such a file.
        """
        try:
            held = load(content)
            genes, terms = (tuple(held[key].numpy().tobytes().decode().split("\n")) for key in ("genes", "terms"))
            mean = held["mean"].float().numpy()
            weights = (held["weights"].float() * held["scale"].float()[:, None]).T.contiguous().numpy()
            if mean.shape != (len(genes),) or weights.shape != (joint, len(genes)):
                raise ValueError(f"its arrays are {mean.shape} and {weights.shape} for {len(genes)} genes")
            if not (np.isfinite(mean).all() and np.isfinite(weights).all()):
                raise ValueError("it holds numbers that are not finite")
        except (SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
            raise ModelError(f"{where} can't be read: {error!r}.", f"the arrays {', '.join(_KEYS)}") from error
        return cls(genes, frozenset(terms), mean, weights)


def fit_decoder(
    vectors: Floats, expression: Floats, weight: NDArray[np.floating], *, ridge: float
) -> tuple[Floats, Floats]:
    """Return mean (genes,) and weights (joint, genes) by ridge regression, solved in the span of the terms.

    Parameters
    ----------
    vectors
        (n, joint): the terms' vectors.
    expression
        (n, genes): log expression of each.
    weight
        (n,): how many profiles stand behind each.
    ridge
        Penalty, for a term behind which one profile stands.
    """
    spread = np.sqrt(np.asarray(weight, np.float64))
    mean = (expression * spread[:, None]).sum(axis=0) / spread.sum()
    v = vectors.astype(np.float64)
    dual = np.linalg.solve(v @ v.T + ridge * np.diag(1 / spread), expression - mean)
    return mean.astype(np.float32), (v.T @ dual).astype(np.float32)
