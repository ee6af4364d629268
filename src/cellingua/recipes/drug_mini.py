"""The recipe for a drug model that ships: expression and responses of lines in, a `DrugModel` out.

Expression is taken as ranks (`models.drug_expression`), turned into factors (`models.drug_factors`), and the table of
responses regressed on them as the field of responses is (`models.drug_field`), through features that have weights
instead of lines. What the model says of its own errors comes from lines that it was fitted without: everything is
fitted again for each fold of lines, from the genes' means on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cellingua.calibration.ranges import LEVELS, Ranges
from cellingua.core.errors import InputError
from cellingua.core.progress import Progress, Silent
from cellingua.models.drug_bundle import as_stored
from cellingua.models.drug_expression import GeneScale, Platform, Samples, in_genes, normal_scores, same_rows
from cellingua.models.drug_factors import fit_factors, with_own
from cellingua.models.drug_field import Band, FieldConfig, ResponseField
from cellingua.models.drug_model import DrugInfo, DrugModel, LeftOut
from cellingua.models.drug_views import View, squared_distances
from cellingua.molecules.response import Responses
from cellingua.molecules.smiles import Molecule
from cellingua.nn.response import ResponseNetwork
from cellingua.recipes.drug_platform import with_platform
from cellingua.recipes.drug_targets import targets

Floats = NDArray[np.float64]
#: A table with less than this is not learned from.
LEAST_LINES, LEAST_VALUES, LEAST_GENES = 12, 8, 50
LEAST_SD = 0.05
SHARES = 41


def _bands(first: tuple[float, ...], second: tuple[float, ...], rest: tuple[float, ...]) -> tuple[Band, ...]:
    """Return bands of (linear, direction, waves, own) weights."""

    def band(weights: tuple[float, ...], start: int, stop: int | None) -> Band:
        names = ("linear", "direction", "waves", "own")
        return Band(
            tuple(View(name, w, scale=False) for name, w in zip(names, weights, strict=True) if w > 0), start, stop
        )

    return band(first, 0, 1), band(second, 1, 6), band(rest, 6, None)


BANDS = FieldConfig(_bands((4.7, 0.5, 1.1, 1.0), (3.5, 0.5, 3.5, 1.0), (1.2, 0.5, 6.0, 1.0)))


@dataclass(frozen=True)
class MiniConfig:
    """What can vary; chosen on lines that are not in the test split.

    Parameters
    ----------
    factors, waves
        Sizes of the network.
    width
        Of the radial kernel that the waves approach, in median distances of lines.
    field
        Bands with the views ``linear``, ``direction``, ``waves`` and ``own``.
    own
        Share of the factors' scores that genes known to carry responses have by themselves (`recipes.drug_targets`).
        None: a fifth made five folds of lines worse (Pearson 0.8914 against 0.8936), whatever the field gains by them.
    folds
        Of lines, for what is measured on lines left out.
    """

    factors: int = 200
    waves: int = 1024
    width: float = 1.0
    field: FieldConfig = BANDS
    own: float = 0.0
    folds: int = 5


@dataclass(frozen=True)
class Learned:
    """Aligned tables to learn from.

    Attributes
    ----------
    expression
        n lines.
    grid
        float64 (n, D), NaN where nothing was measured.
    beside
        float64 (n, E): further drugs, not predicted.
    """

    expression: Samples
    grid: Floats
    beside: Floats | None = None

    def take(self, rows: NDArray[np.int64]) -> Learned:
        """Return some of the lines."""
        return Learned(self.expression.take(rows), self.grid[rows], None if self.beside is None else self.beside[rows])


def fit(
    expression: Samples,
    responses: Responses,
    molecules: Sequence[Molecule] | None = None,
    *,
    seed: int = 0,
    progress: Progress | None = None,
    config: MiniConfig | None = None,
    name: str = "drug model",
) -> DrugModel:
    """Fit a drug model to a user's own tables.

    Parameters
    ----------
    expression
        Of lines; those that have responses are learned from.
    responses
        By name of line and drug.
    molecules
        Of the drugs, matched by name, for drugs that are new; without them the model knows its own drugs only.
    seed
        Of folds and waves.
    config
        By default `MiniConfig`.

    Raises
    ------
    InputError
        Too few lines have both, or a line stands twice.
    """
    if len(set(expression.names)) < len(expression.names):
        twice = next(n for n in expression.names if expression.names.count(n) > 1)
        raise InputError(f"The line {twice!r} stands twice in the table of expression.", "each line once")
    at = {name: row for row, name in enumerate(expression.names)}
    rows = np.array([at.get(str(line), -1) for line in responses.lines], dtype=np.int64)
    if (rows >= 0).sum() < LEAST_LINES:
        raise InputError(
            f"{int((rows >= 0).sum())} lines have both expression and responses.",
            f"at least {LEAST_LINES} lines named alike in both tables",
            "other names, or turning the table of expression if its lines are columns",
        )
    grid = responses.grid()[rows >= 0]
    kept = np.isfinite(grid).sum(axis=0) >= LEAST_VALUES
    if not kept.any():
        raise InputError("No drug was measured on enough lines with expression.", f"{LEAST_VALUES} lines a drug")
    grid = grid[:, kept]
    some = np.isfinite(grid).any(axis=1)
    learned = Learned(expression.take(rows[rows >= 0][some]), grid[some])
    drugs = [str(d) for d in responses.drugs[kept]]
    return fit_learned(
        learned, drugs, molecules, seed=seed, progress=progress, config=config or MiniConfig(), name=name
    )


def fit_learned(
    learned: Learned,
    drugs: list[str],
    molecules: Sequence[Molecule] | None = None,
    *,
    seed: int = 0,
    progress: Progress | None = None,
    config: MiniConfig,
    name: str,
    description: str = "drug responses from expression",
    other: tuple[str, Samples] | None = None,
) -> DrugModel:
    """Fit a model to aligned tables: see `fit`.

    Parameters
    ----------
    other
        Name and samples of another platform, lines named as those that are learned from: see
        `recipes.drug_platform`.
    """
    progress = progress or Silent()
    n = len(learned.grid)
    folds = np.array_split(np.random.default_rng(seed).permutation(n), min(config.folds, n))
    progress.step("fitting without each fold of lines", len(folds) + 1)
    left, distances = np.full(learned.grid.shape, np.nan), np.full(n, np.nan)
    for fold in folds:
        rest = np.sort(np.setdiff1d(np.arange(n), fold))
        part = _fit_once(learned.take(rest), drugs, config, seed)
        seen, factors = part.seen(learned.expression.take(fold))
        left[fold], distances[fold] = part.respond(factors), part.far(seen, factors)
        progress.advance()
    whole = _fit_once(learned, drugs, config, seed)
    progress.advance()
    quantiles = [np.quantile(distances, np.linspace(0.0, 1.0, 101))]
    if other is not None:
        scale, far = with_platform(whole, learned.expression, other[1], other[0], seed)
        whole, quantiles = replace(whole, scale=scale), [*quantiles, far]
    measured, facts = _left_out(learned.grid, left, np.stack(quantiles), folds)
    by_name = {molecule.name: molecule for molecule in molecules or []}
    infos = [_info(drug, learned.grid[:, at], by_name.get(drug)) for at, drug in enumerate(drugs)]
    new = None
    if sum(bool(info.smiles) for info in infos) >= LEAST_VALUES:
        from cellingua.models.drug_molecules import learn
        from cellingua.molecules.smiles import likeness

        has = [at for at, info in enumerate(infos) if info.smiles]
        mean = np.array([infos[at].mean for at in has])
        new = learn(likeness([by_name[drugs[at]] for at in has]), mean, left[:, has] - mean)
    return as_stored(
        DrugModel(
            name=name,
            description=description,
            drugs=infos,
            scale=whole.scale,
            network=whole.network,
            left_out=measured,
            new_drugs=new,
            facts={"lines": n, "pairs": int(np.isfinite(learned.grid).sum()), **facts},
        )
    )


def _fit_once(learned: Learned, drugs: list[str], config: MiniConfig, seed: int) -> DrugModel:
    """Return a model without what is measured on lines left out."""
    scale = fit_scale(learned.expression)
    seen = scale.standardise(learned.expression)
    found = fit_factors(seen.z, config.factors)
    shared = found.loadings.shape[1]
    if config.own > 0:
        found = with_own(found, targets(scale.symbols), config.own)
    genes, factors = found.loadings.shape
    network = ResponseNetwork(genes, factors, config.waves, len(drugs)).double()
    rng = np.random.default_rng(seed)
    fill(network, loadings=found.loadings, noise=found.noise, length=found.length)
    with torch.no_grad():
        hidden = network.factors(torch.from_numpy(seen.z), torch.from_numpy(seen.there)).numpy()
    scores = hidden * found.length
    gaps = squared_distances(scores, scores)[np.triu_indices(len(scores), 1)]
    width = float(np.median(gaps)) * config.width
    # exp(-gap / width) is the mean of cosines whose frequencies have this deviation.
    fill(
        network,
        frequencies=rng.normal(size=(factors, config.waves)) * np.sqrt(2.0 / width),
        phases=rng.uniform(0, 2 * np.pi, config.waves),
    )
    length = np.linalg.norm(scores, axis=1, keepdims=True)
    with torch.no_grad():
        waves = network.waves(torch.from_numpy(scores)).numpy()
    tables = {
        "linear": scores[:, :shared],
        "direction": scores / np.maximum(length, 1e-9),
        "waves": waves,
        "own": scores[:, shared:],
    }
    field = _without(config.field, [name for name, table in tables.items() if not table.shape[1]])
    weights, offset = ResponseField(field).fit(learned.grid, tables, learned.beside).primal()
    fill(
        network,
        linear=np.concatenate([weights["linear"], weights.get("own", np.zeros((0, len(drugs))))]),
        direction=weights["direction"],
        waved=weights["waves"],
        offset=offset,
    )
    shares = np.linspace(0.0, 1.0, SHARES)
    left = LeftOut(
        np.ones(len(drugs)), np.tile(shares, (len(drugs), 1)), np.linspace(0, 1, 101)[None], Ranges({0.9: 1.645}, 0)
    )
    infos = [DrugInfo(drug, "", "", 0, 0.0, 1.0) for drug in drugs]
    return DrugModel("part", "", infos, scale, network.requires_grad_(False).eval(), left)


def _without(config: FieldConfig, names: list[str]) -> FieldConfig:
    """Return the configuration without views of some names."""
    bands = (replace(band, views=tuple(v for v in band.views if v.name not in names)) for band in config.bands)
    return replace(config, bands=tuple(bands))


def fill(network: ResponseNetwork, **values: Floats) -> None:
    """Give the network's tensors values; one row stands for all."""
    for name, value in values.items():
        held = getattr(network, name)
        held.copy_(torch.from_numpy(np.broadcast_to(value, held.shape).copy()))


def fit_scale(expression: Samples) -> GeneScale:
    """Return the genes of a table with their means and deviations over its lines, in normal scores within a line.

    Genes that too few lines have, or that never change rank, are left out.

    Raises
    ------
    InputError
        Too few genes are left.
    """
    from cellingua.cells.genes import load_vocabulary

    vocabulary = load_vocabulary()
    rows = vocabulary.resolve([str(gene) for gene in expression.genes]).index
    symbols = np.array(
        [
            str(vocabulary.symbols[row]) if row >= 0 else str(gene)
            for row, gene in zip(rows, expression.genes, strict=True)
        ]
    )
    ids = np.array([str(vocabulary.ensembl_ids[row]) if row >= 0 else "" for row in rows])
    _, first = np.unique(symbols, return_index=True)
    first = np.sort(first)
    symbols, ids = symbols[first], ids[first]
    values = in_genes(expression, symbols, ids)
    scores = np.full(values.shape, np.nan)
    patterns, which = same_rows(np.isfinite(values))
    for number, pattern in enumerate(patterns):
        lines = np.flatnonzero(which == number)
        if pattern.any():
            scores[np.ix_(lines, np.flatnonzero(pattern))] = normal_scores(
                values[np.ix_(lines, np.flatnonzero(pattern))]
            )
    there = np.isfinite(scores)
    count = there.sum(axis=0)
    mean = np.where(there, scores, 0.0).sum(axis=0) / np.maximum(count, 1)
    sd = np.sqrt(np.where(there, (scores - mean) ** 2, 0.0).sum(axis=0) / np.maximum(count, 1))
    kept = (count >= max(3, len(values) // 2)) & (sd > LEAST_SD)
    if kept.sum() < LEAST_GENES:
        raise InputError(
            f"{int(kept.sum())} genes differ between the lines of the table of expression.",
            f"at least {LEAST_GENES} genes that most lines have",
            "a table of lines x genes, not of a panel",
        )
    platform = Platform("training", mean[kept], sd[kept], np.ones(int(kept.sum())))
    return GeneScale(symbols[kept], ids[kept], (platform,))


def _left_out(
    grid: Floats, left: Floats, distances: Floats, folds: list[NDArray[np.int64]]
) -> tuple[LeftOut, dict[str, Any]]:
    """Return what lines left out say, and the coverage of ranges that were learned without each fold."""
    there = np.isfinite(grid)
    line, drug = np.nonzero(there)
    sd = np.sqrt(np.where(there, (grid - left) ** 2, 0.0).sum(axis=0) / np.maximum(there.sum(axis=0), 1))
    sd = np.maximum(sd, LEAST_SD)
    truth, guess = grid[line, drug], left[line, drug]
    ranges = Ranges.fit(truth, guess, sd[drug], line)
    coverage: dict[str, float] = {}
    fold_of = np.empty(len(grid), dtype=np.int64)
    for number, fold in enumerate(folds):
        fold_of[fold] = number
    for level in LEVELS:
        inside = np.zeros(len(truth), dtype=bool)
        for number in range(len(folds)):
            mine = fold_of[line] == number
            others = Ranges.fit(truth[~mine], guess[~mine], sd[drug[~mine]], line[~mine], (level,))
            low, high = others.around(guess[mine], sd[drug[mine]], level)
            inside[mine] = (truth[mine] >= low) & (truth[mine] <= high)
        coverage[f"{level:g}"] = round(float(inside.mean()), 4)
    shares = np.linspace(0.0, 1.0, SHARES)
    measured = LeftOut(sd, np.quantile(left, shares, axis=0).T, distances, ranges)
    from cellingua.measures.regression import pearson, rmse, within

    facts = {
        "coverage_left_out": coverage,
        "left_out": {
            "pearson": round(pearson(truth, guess), 4),
            "rmse": round(rmse(truth, guess), 4),
            "pearson_within_drug": round(within(truth, guess, drug).median, 4),
        },
    }
    return measured, facts


def _info(drug: str, column: Floats, molecule: Molecule | None) -> DrugInfo:
    known = column[np.isfinite(column)]
    smiles, key = ("", "") if molecule is None else (molecule.smiles, molecule.inchikey)
    return DrugInfo(drug, smiles, key, len(known), round(float(known.mean()), 6), round(float(known.std()), 6))
