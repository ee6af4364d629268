"""Expression of samples, from any table, as numbers that the drug model was trained on.

Arrays, counts and TPM have nothing in common but the order of the genes within a sample. So a sample is taken as the
ranks of its genes, among those that the model knows and the sample has; the ranks are given the values that a training
line's genes of these ranks would have (quantiles of the mixture of the genes' own distributions), and each gene is
then standardised by its mean and deviation over training lines. A gene that is absent is absent: the ranks are those
of the rest, and the quantiles, too.

Platforms differ gene by gene (an array's probes differ in affinity, a count follows the length of a transcript). A
model may therefore know more than one platform, each with means and deviations of its own, and takes for every sample
the one that makes it likelier.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri
from scipy.stats import rankdata

from cellingua.cells.genes import load_vocabulary
from cellingua.core.errors import GeneError, InputError

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]
#: Largest standardised value; beyond it an outlier would speak for all other genes.
LIMIT = 5.0
#: Points at which the mixture's distribution is known; between them it is a straight line.
GRID = np.linspace(-5.0, 5.0, 801)


@dataclass(frozen=True)
class Samples:
    """Expression of samples as a table gives it.

    Attributes
    ----------
    names
        m names.
    genes
        str (G,): symbols or Ensembl ids.
    values
        float (m, G) in any unit that keeps the order of the genes within a sample: counts, TPM, their logarithms,
        array intensities. NaN where a gene is absent.
    counts
        Where they are known, raw counts (m, G): they are what a sample's depth is taken from.
    """

    names: list[str]
    genes: NDArray[np.str_]
    values: Floats
    counts: Floats | None = None

    def __post_init__(self) -> None:
        if self.values.shape != (len(self.names), len(self.genes)):
            raise InputError(
                f"A table of {self.values.shape} was given for {len(self.names):,} samples and {len(self.genes):,} "
                "genes.",
                "one row a sample, one column a gene",
            )
        if np.isinf(self.values).any():
            raise InputError("The table of expression holds an infinite value.", "numbers, and NaN where absent")

    def take(self, rows: NDArray[np.integer] | slice) -> Samples:
        """Return some of the samples."""
        names = list(np.array(self.names, dtype=object)[rows])
        return Samples(names, self.genes, self.values[rows], None if self.counts is None else self.counts[rows])


@dataclass(frozen=True)
class Platform:
    """How one way to measure sees the genes.

    Attributes
    ----------
    name
        Such as ``array`` or ``counts``.
    mean, sd
        float64 (G,): of each gene over lines, in normal scores within a sample.
    trust
        float64 (G,), 0 to 1: how far a deviation on this platform is one on the platform of the training lines (the
        correlation of the two over lines that were measured on both). A gene of trust 0 is absent here.
    """

    name: str
    mean: Floats
    sd: Floats
    trust: Floats

    def standardise(self, shares: Floats, genes: NDArray[np.int64]) -> Floats:
        """Return z (m, g) from shares of ranks (m, g) among genes at these places."""
        return self._deviations(shares, genes) * self.trust[genes]

    def likelihood(self, shares: Floats, genes: NDArray[np.int64]) -> Floats:
        """Return the mean logarithm of the likelihood (m,) of such samples' genes, each by itself."""
        return np.asarray((-0.5 * self._deviations(shares, genes) ** 2 - np.log(self.sd[genes])).mean(axis=1))

    def _deviations(self, shares: Floats, genes: NDArray[np.int64]) -> Floats:
        mean, sd = self.mean[genes], self.sd[genes]
        return np.clip((mixture_quantiles(shares, mean, sd) - mean) / sd, -LIMIT, LIMIT)


@dataclass(frozen=True)
class Standardised:
    """Samples in the model's genes.

    Attributes
    ----------
    z
        float64 (m, G), 0 where absent.
    there
        bool (m, G).
    platform
        int64 (m,): which platform each was taken for.
    """

    z: Floats
    there: Mask
    platform: NDArray[np.int64]


@dataclass(frozen=True)
class GeneScale:
    """The model's genes and platforms.

    Attributes
    ----------
    symbols, ensembl_ids
        str (G,); an id may be empty.
    platforms
        At least one; the first is that of the training lines.
    """

    symbols: NDArray[np.str_]
    ensembl_ids: NDArray[np.str_]
    platforms: tuple[Platform, ...]

    def __len__(self) -> int:
        return len(self.symbols)

    def standardise(self, samples: Samples) -> Standardised:
        """Return samples in the model's genes, each by itself.

        Raises
        ------
        GeneError
            The samples have none of the model's genes.
        """
        values = in_genes(samples, self.symbols, self.ensembl_ids)
        z, there = np.zeros(values.shape), np.isfinite(values)
        platform = np.zeros(len(values), dtype=np.int64)
        patterns, which = same_rows(there)
        for number, pattern in enumerate(patterns):
            rows, genes = np.flatnonzero(which == number), np.flatnonzero(pattern)
            if not len(genes):
                continue
            shares = rank_shares(values[np.ix_(rows, genes)])
            platform[rows] = self._nearest(shares, genes)
            for one, seen in enumerate(self.platforms):
                mine = platform[rows] == one
                if mine.any():
                    z[np.ix_(rows[mine], genes)] = seen.standardise(shares[mine], genes)
                    there[rows[mine]] &= seen.trust > 0
        return Standardised(np.where(there, z, 0.0), there, platform)

    def _nearest(self, shares: Floats, genes: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the platform that makes each sample likeliest, from its shares of ranks (m, g)."""
        if len(self.platforms) == 1:
            return np.zeros(len(shares), dtype=np.int64)
        return np.asarray(np.argmax([seen.likelihood(shares, genes) for seen in self.platforms], axis=0), np.int64)


def same_rows(there: Mask) -> tuple[Mask, NDArray[np.int64]]:
    """Return the distinct rows of a mask (k, G), and which of them each row is (m,)."""
    packed = np.packbits(there, axis=1)  # an eighth to sort
    _, first, which = np.unique(packed, axis=0, return_index=True, return_inverse=True)
    return there[first], which.reshape(-1)


def rank_shares(values: Floats) -> Floats:
    """Return ranks within each row as shares between 0 and 1, ties shared: (rank - 1/2) / genes."""
    return np.asarray((rankdata(values, axis=1) - 0.5) / values.shape[1], dtype=np.float64)


def normal_scores(values: Floats) -> Floats:
    """Return ranks within each row as quantiles of the normal distribution."""
    return np.asarray(ndtri(rank_shares(values)))


def mixture_quantiles(shares: Floats, mean: Floats, sd: Floats) -> Floats:
    """Return the values below which such shares of a mixture of normal distributions lie, one a gene, all alike."""
    below = np.zeros(len(GRID))
    for start in range(0, len(mean), 512):  # no table of all genes at all points
        part = slice(start, start + 512)
        below += ndtr((GRID[:, None] - mean[part][None]) / sd[part][None]).sum(axis=1)
    # Strictly rising, so that the inverse is one.
    below = below / len(mean) + np.arange(len(GRID)) * 1e-12
    return np.interp(shares, below, GRID)


def in_genes(samples: Samples, symbols: NDArray[np.str_], ensembl_ids: NDArray[np.str_]) -> Floats:
    """Return float64 (m, G): the samples' values of the model's genes, NaN where absent.

    Columns are found by symbol, Ensembl id or an older name (see `cells.genes`); several columns of one gene are added,
    as counts of its transcripts are.

    Raises
    ------
    GeneError
        None of the columns is a gene of the model.
    """
    place = {str(symbol): at for at, symbol in enumerate(symbols)}
    names = [str(gene).strip() for gene in samples.genes]
    to = np.array([place.get(name, -1) for name in names], dtype=np.int64)
    vocabulary = load_vocabulary()
    mine = _rows(symbols, ensembl_ids)
    if (to < 0).any():
        at = {int(row): number for number, row in enumerate(mine) if row >= 0}
        taken = set(to[to >= 0].tolist())
        rest = np.flatnonzero(to < 0)
        rows = vocabulary.resolve(names).index
        for column in rest:
            found = at.get(int(rows[column]), -1)
            if found not in taken:
                to[column] = found
    known = to >= 0
    if not known.any():
        raise GeneError(
            f"None of the {len(names):,} genes is known to the model; the first is {names[0]!r}."
            if names
            else "The table has no gene.",
            "human genes as symbols or Ensembl ids",
            "turning the table, if genes are its rows",
        )
    out = np.full((len(samples.names), len(symbols)), np.nan)
    columns, places = np.flatnonzero(known), to[known]
    first = np.unique(places, return_index=True)[1]
    out[:, places[first]] = samples.values[:, columns[first]]
    for extra in np.setdiff1d(np.arange(len(places)), first):
        more = samples.values[:, columns[extra]]
        here = out[:, places[extra]]
        out[:, places[extra]] = np.where(np.isfinite(here), here + np.where(np.isfinite(more), more, 0.0), more)
    return out


def _rows(symbols: NDArray[np.str_], ensembl_ids: NDArray[np.str_]) -> NDArray[np.int64]:
    """Return the row of the vocabulary of each gene, -1 where it has none: by id, where there is one, else by name."""
    vocabulary = load_vocabulary()
    by_id = np.array([vocabulary.row_of_id(str(one)) if one else -1 for one in ensembl_ids], dtype=np.int64)
    if (by_id >= 0).all():
        return by_id
    return np.where(by_id >= 0, by_id, vocabulary.resolve([str(s) for s in symbols]).index)
