"""Pseudo-cells: counts drawn from the mean profile of a cell type, as a sequencer would have drawn them.

A profile says what an average cell of a type expresses; a model must learn from single cells, which show a
few thousand molecules each, on a platform with its own gene biases, in a soup of other cells' RNA. What is drawn
here carries those effects, so that profiles can train a model of cells.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix


@dataclass(frozen=True)
class SimulateConfig:
    """How pseudo-cells are drawn.

    Parameters
    ----------
    depth
        Median molecules a cell.
    depth_spread
        Standard deviation of the log of the depth.
    gene_dropout
        Up to this share of genes is silenced, another random set in each cell (drawn uniformly from 0).
    platform_noise
        Standard deviation of the log of a gene's platform bias.
    platforms
        Number of platforms in one call.
    ambient
        Mean share of molecules from the mean of the profile's study.
    mixing
        How often two profiles of one type are mixed in random parts.
    panel
        How often all but a random panel of genes is silenced.
    panel_genes
        Fewest genes of a panel, and one more than the most.
    marker_share
        Share of molecules on markers in a pseudo-cell that is made from markers.
    """

    depth: float = 3000.0
    depth_spread: float = 0.6
    gene_dropout: float = 0.4
    platform_noise: float = 0.6
    platforms: int = 6
    ambient: float = 0.06
    mixing: float = 0.5
    panel: float = 0.1
    panel_genes: tuple[int, int] = (700, 3000)
    marker_share: float = 0.08


@dataclass(frozen=True)
class ProfileSet:
    """Mean profiles of cell types.

    Attributes
    ----------
    expression
        float32 (profiles, genes): shares of the molecules, rows sum to 1; 0 where not measured.
    measured
        bool (profiles, genes).
    terms
        Ontology id of each profile.
    studies
        Study of each profile.
    """

    expression: NDArray[np.float32]
    measured: NDArray[np.bool_]
    terms: NDArray[np.str_]
    studies: NDArray[np.str_]

    def __len__(self) -> int:
        return len(self.terms)

    def take(self, rows: NDArray[np.integer] | NDArray[np.bool_]) -> ProfileSet:
        """Return some of the profiles."""
        return ProfileSet(self.expression[rows], self.measured[rows], self.terms[rows], self.studies[rows])


class Simulator:
    """Draws pseudo-cells from profiles and from markers.

    Parameters
    ----------
    profiles
        Where cells are drawn from.
    markers
        Ontology id -> genes (columns), best first.
    ancestors
        Ontology id -> ids of wider terms, nearest first: a type that has markers and no profile is drawn over
        the profile of the nearest wider type that has one.
    config
        See `SimulateConfig`.
    """

    def __init__(
        self,
        profiles: ProfileSet,
        markers: Mapping[str, NDArray[np.integer]],
        ancestors: Mapping[str, Sequence[str]],
        config: SimulateConfig,
    ) -> None:
        self.config = config
        self.profiles = profiles
        self.markers = markers
        self.rows = {str(term): np.flatnonzero(profiles.terms == term) for term in np.unique(profiles.terms)}
        self.terms = sorted(self.rows)
        # Types with many profiles are better known, but not in proportion to how often they were measured.
        weight = np.array([len(self.rows[term]) for term in self.terms]) ** 0.5
        self._chance = weight / weight.sum()
        self._mean = profiles.expression.mean(axis=0)
        self._study_mean = {
            study: profiles.expression[profiles.studies == study].mean(axis=0) for study in np.unique(profiles.studies)
        }
        self.marker_terms = sorted(markers)
        self._base = {
            term: next((wider for wider in (term, *ancestors.get(term, ())) if wider in self.rows), None)
            for term in self.marker_terms
        }

    def from_profiles(
        self, n: int, rng: np.random.Generator, terms: Sequence[str] | None = None
    ) -> tuple[csr_matrix, list[str]]:
        """Draw `n` cells of `terms` (all by default): counts float32 CSR (n, genes), and the term of each."""
        chosen = (
            [terms[i] for i in rng.integers(len(terms), size=n)]
            if terms is not None
            else [self.terms[i] for i in rng.choice(len(self.terms), size=n, p=self._chance)]
        )
        return self._draw([self._profile_shares(term, rng) for term in chosen], rng), chosen

    def from_markers(self, n: int, rng: np.random.Generator) -> tuple[csr_matrix, list[str]]:
        """Draw `n` cells of types that have markers: a wider type's profile with the markers raised."""
        chosen = [self.marker_terms[i] for i in rng.integers(len(self.marker_terms), size=n)]
        return self._draw([self._marker_shares(term, rng) for term in chosen], rng), chosen

    def _profile_shares(self, term: str, rng: np.random.Generator) -> NDArray[np.float32]:
        rows = self.rows[term]
        first, second = rows[rng.integers(len(rows), size=2)]
        expression, measured = self.profiles.expression, self.profiles.measured
        shares = expression[first]
        if first != second and rng.random() < self.config.mixing:
            part = np.float32(rng.random())
            both = measured[first] & measured[second]
            shares = np.where(both, part * expression[first] + (1 - part) * expression[second], 0)
        ambient = np.float32(rng.random() * 2 * self.config.ambient)
        return (1 - ambient) * shares + ambient * self._study_mean[self.profiles.studies[first]]

    def _marker_shares(self, term: str, rng: np.random.Generator) -> NDArray[np.float32]:
        base = self._base[term]
        shares = self._mean
        if base is not None:
            rows = self.rows[base]
            shares = 0.5 * shares + 0.5 * self.profiles.expression[rows[rng.integers(len(rows))]]
        genes = self.markers[term]
        genes = genes[rng.random(len(genes)) < 0.7]
        if not len(genes):
            return shares
        raised = np.zeros_like(shares)
        raised[genes] = 1.0 / np.arange(2, 2 + len(genes))
        part = np.float32(self.config.marker_share * rng.uniform(0.5, 2.0))
        return (1 - part) * shares + part * raised / raised.sum()

    def _draw(self, shares: list[NDArray[np.float32]], rng: np.random.Generator) -> csr_matrix:
        """Draw molecules: platform bias, silenced genes, depth, then a multinomial by inversion."""
        c = self.config
        n_genes = self.profiles.expression.shape[1]
        bias = np.exp(rng.normal(0, c.platform_noise, (c.platforms, n_genes))).astype(np.float32)
        indptr, columns, data = [0], [np.empty(0, np.int64)], [np.empty(0, np.float32)]
        for row in shares:
            row = row * bias[rng.integers(c.platforms)]
            row = row * (rng.random(n_genes, dtype=np.float32) >= rng.random() * c.gene_dropout)
            if rng.random() < c.panel:
                fewest, most = c.panel_genes
                size = min(int(rng.integers(fewest, max(most, fewest + 1))), n_genes)
                panel = np.zeros(n_genes, bool)
                panel[rng.choice(n_genes, size, replace=False)] = True
                row = row * panel
            depth = int(np.clip(c.depth * np.exp(rng.normal(0, c.depth_spread)), 200, 30_000))
            cumulative = np.cumsum(row, dtype=np.float64)
            genes = np.searchsorted(cumulative, rng.random(depth) * cumulative[-1], side="right")
            genes = genes[genes < n_genes]  # a cell whose panel holds nothing that it expresses stays empty
            found, counts = np.unique(genes, return_counts=True)
            columns.append(found)
            data.append(counts.astype(np.float32))
            indptr.append(indptr[-1] + len(found))
        return csr_matrix((np.concatenate(data), np.concatenate(columns), indptr), shape=(len(shares), n_genes))


def thin(counts: csr_matrix, rng: np.random.Generator, *, gene_dropout: float = 0.3) -> csr_matrix:
    """Return real cells as another experiment might have seen them: fewer molecules, some genes not measured.

    One share of genes is silenced for the whole minibatch, and half of the minibatches lose up to 60 % of their
    molecules (each kept with the same chance).
    """
    kept = rng.random(counts.shape[1]) >= rng.random() * gene_dropout
    data = np.where(kept[counts.indices], counts.data, 0)
    if rng.random() < 0.5:
        share = rng.uniform(0.4, 1.0)
        data = rng.binomial(np.minimum(np.rint(data), 2**31 - 1).astype(np.int64), share)
    thinned = csr_matrix((data.astype(np.float32), counts.indices.copy(), counts.indptr.copy()), counts.shape)
    thinned.eliminate_zeros()
    return thinned
