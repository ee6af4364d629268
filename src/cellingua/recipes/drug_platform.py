"""How another way to measure sees the genes, from lines that were measured on both.

The training lines come from arrays, users' samples from sequencing. A gene's mean there is its mean here and the mean
difference of lines that were measured on both; its deviation is that of all lines there; and how far the one follows
the other is their correlation, drawn towards that of all genes, as the lines on both are few.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from cellingua.core.errors import InputError
from cellingua.models.drug_expression import GeneScale, Platform, Samples, in_genes, normal_scores
from cellingua.models.drug_model import DrugModel

Floats = NDArray[np.float64]
#: Lines on both platforms that are needed; a gene's own correlation counts as that of this many lines more.
LEAST, DRAWN = 8, 10
LEAST_TRUST, LEAST_SD = 0.15, 0.05
FOLDS = 5


def second_platform(scale: GeneScale, here: Samples, there: Samples, name: str) -> Platform:
    """Learn a platform.

    Parameters
    ----------
    scale
        With the training lines' platform first.
    here
        Training lines.
    there
        Lines on the other platform; those that are named as in `here` are on both.

    Raises
    ------
    InputError
        Too few lines are on both.
    """
    at = {line: row for row, line in enumerate(here.names)}
    both = [(at[line], row) for row, line in enumerate(there.names) if line in at]
    if len(both) < LEAST:
        raise InputError(f"{len(both)} lines were measured on both platforms.", f"at least {LEAST}")
    values = [in_genes(samples, scale.symbols, scale.ensembl_ids) for samples in (here, there)]
    shared = np.flatnonzero(np.isfinite(values[0]).all(axis=0) & np.isfinite(values[1]).all(axis=0))
    ours, theirs = (normal_scores(table[:, shared]) for table in values)
    first, second = np.array(both).T
    gap = (theirs[second] - ours[first]).mean(axis=0)
    alike = _correlation(ours[first], theirs[second])
    typical = float(np.median(alike))
    alike = (len(both) * alike + DRAWN * typical) / (len(both) + DRAWN)
    mean, sd, trust = scale.platforms[0].mean.copy(), scale.platforms[0].sd.copy(), np.zeros(len(scale))
    # Lines on both are some of all lines: the gap is taken where the same biology stands on both sides.
    mean[shared] = ours.mean(axis=0) + gap
    sd[shared] = np.maximum(theirs.std(axis=0), LEAST_SD)
    trust[shared] = np.where(alike >= LEAST_TRUST, np.minimum(alike, 1.0), 0.0)
    return Platform(name, mean, sd, trust)


def with_platform(
    model: DrugModel, here: Samples, there: Samples, name: str, seed: int = 0
) -> tuple[GeneScale, Floats]:
    """Return a model's scale with a further platform, and hundredths of how far lines of that platform are.

    Each line's distance is measured with a platform that was learned without it. The lines are too few for the tail of
    their distances to be counted: the logarithms are taken as normal.
    """
    order = np.random.default_rng(seed).permutation(len(there.names))
    far = []
    for fold in np.array_split(order, FOLDS):
        rest = np.setdiff1d(order, fold)
        platform = second_platform(model.scale, here, there.take(rest), name)
        seen, factors = replace(model, scale=replace(model.scale, platforms=(platform,))).seen(there.take(fold))
        far.append(model.far(seen, factors))
    logs = np.log(np.concatenate(far))
    shares = np.clip(np.linspace(0.0, 1.0, 101), 1e-3, 1 - 1e-3)
    whole = second_platform(model.scale, here, there, name)
    scale = replace(model.scale, platforms=(*model.scale.platforms, whole))
    return scale, np.exp(logs.mean() + logs.std() * ndtri(shares))


def _correlation(a: Floats, b: Floats) -> Floats:
    """Return the correlation of each column of two tables; 0 without any spread."""
    a, b = a - a.mean(axis=0), b - b.mean(axis=0)
    size = np.sqrt((a**2).sum(axis=0) * (b**2).sum(axis=0))
    return np.divide((a * b).sum(axis=0), size, out=np.zeros(a.shape[1]), where=size > 1e-12)
