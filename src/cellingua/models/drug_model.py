"""The drug model that users have: expression of a sample in, ln(IC50 / µM) of every drug out, and how much to believe.

A parametric model: genes' means, axes and weights, no table of lines. Each answer says what stands beside it: a range
that was measured on lines left out, where the prediction stands among those of the training lines, what the drug's
mean would have said, how far the sample is from the lines that were learned from, and which of its genes are known.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from cellingua.calibration.ranges import Ranges
from cellingua.core.errors import GeneError, InputError
from cellingua.models.drug_expression import GeneScale, Samples, Standardised, same_rows
from cellingua.nn.response import ResponseNetwork

if TYPE_CHECKING:
    from cellingua.molecules.smiles import Molecule

Floats = NDArray[np.float64]
#: Genes of the model that a sample must have to be predicted at all, and the share below which it is warned of.
LEAST_GENES, FEW_GENES = 50, 0.5
#: Percentile of distance above which a sample is unlike the lines, and raw counts below which it is shallow.
UNLIKE, SHALLOW = 99.0, 1000.0
#: Responses nearer than this, in ln(IC50 / µM), are the same.
SAME = 1e-3
FEW, STRANGE, THIN = "few genes", "unlike a cancer line", "few counts"
#: Samples that go through the network at once.
BLOCK = 256


@dataclass(frozen=True)
class DrugInfo:
    """A drug that the model was trained on.

    Attributes
    ----------
    name
        As its table called it.
    smiles, inchikey
        Empty where unknown.
    pairs
        Training lines that it was measured on.
    mean, sd
        Of ln(IC50 / µM) over them.
    """

    name: str
    smiles: str
    inchikey: str
    pairs: int
    mean: float
    sd: float


@dataclass(frozen=True)
class DrugAnswer:
    """Predictions for m samples and D drugs; all float64 (m, D), ln(IC50 / µM), where nothing else is said.

    Attributes
    ----------
    samples, drugs
        Names.
    value
        The prediction; low = sensitive.
    sd
        Its deviation, from errors on lines left out; larger where genes are absent.
    low, high
        The range at `level`.
    level
        Share of such ranges that hold the truth, measured on lines left out.
    percentile
        0 to 100: the prediction among those of left-out training lines for the same drug; low = more sensitive than
        most.
    drug_mean
        (D,): what the mean of the drug says of every sample.
    distance
        (m,): percentile of how far a sample is from the training lines; 100 = farther than all that were left out.
    times
        (m,): how far it is, in distances at which the warning begins; tells samples apart whose percentile is 100.
    coverage
        (m,): share of the model's genes that the sample has.
    warnings
        A list for each sample: `FEW`, `STRANGE`, `THIN`, or none.
    """

    samples: list[str]
    drugs: list[str]
    value: Floats
    sd: Floats
    low: Floats
    high: Floats
    level: float
    percentile: Floats
    drug_mean: Floats
    distance: Floats
    times: Floats
    coverage: Floats
    warnings: list[list[str]]


@dataclass(frozen=True)
class LeftOut:
    """What was measured on training lines, each predicted by a model that had not seen it.

    Attributes
    ----------
    sd
        float64 (D,): deviation of the error for each drug.
    quantiles
        float64 (D, Q): predictions at equally spaced shares from 0 to 1.
    distances
        float64 (P, 101): hundredths of `DrugModel.far` on each platform.
    ranges
        How many deviations a range reaches.
    """

    sd: Floats
    quantiles: Floats
    distances: Floats
    ranges: Ranges


@dataclass(frozen=True)
class NewDrugs:
    """What a drug that was never tried is predicted by: the drugs it is alike to.

    Attributes
    ----------
    level_penalty, line_penalty
        Of the ridge regression of drugs' means, and of how lines differ, on how alike the molecules are.
    level_sd, line_sd
        Deviation of the error of both on drugs left out.
    """

    level_penalty: float
    line_penalty: float
    level_sd: float
    line_sd: float


@dataclass(frozen=True)
class DrugModel:
    """A fitted model.

    Attributes
    ----------
    name, description
        For people.
    drugs
        D of them.
    scale
        Genes, and how expression is standardised.
    network
        In evaluation mode, float64.
    left_out
        What was measured on lines left out.
    new_drugs
        For molecules that it was not trained on; None where it learned from no molecules.
    facts
        What else is known: lines, pairs, coverage as measured.
    card
        The model card, in Markdown.
    """

    name: str
    description: str
    drugs: list[DrugInfo]
    scale: GeneScale
    network: ResponseNetwork
    left_out: LeftOut
    new_drugs: NewDrugs | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    card: str = ""
    hash: str = ""

    @property
    def genes(self) -> NDArray[np.str_]:
        """Symbols of the model's genes, (G,)."""
        return self.scale.symbols

    @property
    def genes_ensembl(self) -> NDArray[np.str_]:
        """Their Ensembl ids, empty where unknown, (G,)."""
        return self.scale.ensembl_ids

    @classmethod
    def load(cls, folder: str | Path) -> DrugModel:
        """Load a model folder, or a model by name: see `models.drug_bundle`."""
        from cellingua.models.drug_bundle import load_drug_model

        return load_drug_model(folder)

    def save(self, folder: Path) -> None:
        """Write a model folder: see `models.drug_bundle`."""
        from cellingua.models.drug_bundle import save_drug_model

        save_drug_model(folder, self)

    def standardise(self, samples: Samples) -> tuple[Floats, NDArray[np.bool_]]:
        """Return z (m, G), 0 where absent, and which genes are there."""
        seen = self.scale.standardise(samples)
        return seen.z, seen.there

    def gradient_module(self) -> nn.Module:
        """Return the network as a module: z float (n, G), there bool (n, G) -> (n, D)."""
        return self.network

    def predict(self, samples: Samples, drugs: Sequence[str] | None = None, *, level: float = 0.9) -> DrugAnswer:
        """Predict known drugs.

        Parameters
        ----------
        samples
            In any unit that keeps the order of genes.
        drugs
            Names; by default all.
        level
            Of the ranges: one of the levels that were measured.

        Raises
        ------
        InputError
            A drug or level is not known.
        GeneError
            A sample has too few of the model's genes.
        """
        columns = self.columns(drugs)
        seen, factors = self.seen(samples)
        value = self.respond(factors)[:, columns]
        sd = np.sqrt(self.left_out.sd[columns] ** 2 + self._absent(seen)[:, columns])
        return self._answer(samples, seen, factors, [self.drugs[c].name for c in columns], value, sd, level, columns)

    def predict_molecules(self, samples: Samples, molecules: Sequence[Molecule], *, level: float = 0.9) -> DrugAnswer:
        """Predict drugs that the model was not trained on, from their molecules; needs RDKit.

        Raises
        ------
        InputError
            The model learned from no molecules.
        """
        from cellingua.models.drug_molecules import from_alike

        seen, factors = self.seen(samples)
        value, sd = from_alike(self, self.respond(factors), list(molecules))
        sd = np.sqrt(sd**2 + self._absent(seen).mean(axis=1, keepdims=True))
        return self._answer(samples, seen, factors, [m.name for m in molecules], value, sd, level, None)

    def columns(self, drugs: Sequence[str] | None) -> NDArray[np.int64]:
        """Return the places of drugs by name."""
        if drugs is None:
            return np.arange(len(self.drugs))
        at = {drug.name: place for place, drug in enumerate(self.drugs)}
        lower = {name.lower(): place for name, place in at.items()}
        places = [at.get(name, lower.get(name.lower(), -1)) for name in drugs]
        if -1 in places or not places:
            missing = next((name for name, place in zip(drugs, places, strict=True) if place < 0), "")
            raise InputError(
                f"The drug {missing!r} is not one that {self.name} was trained on.",
                f"one of its {len(self.drugs)} drugs, such as {self.drugs[0].name}",
                "its SMILES, for a drug that is new to the model",
            )
        return np.array(places, dtype=np.int64)

    def seen(self, samples: Samples) -> tuple[Standardised, Floats]:
        """Return samples in the model's genes, and their factors (m, K).

        Raises
        ------
        GeneError
            A sample has fewer than `LEAST_GENES` of the genes.
        """
        seen = self.scale.standardise(samples)
        count = seen.there.sum(axis=1)
        if len(count) and count.min() < min(LEAST_GENES, len(self.scale)):
            poor = int(np.argmin(count))
            raise GeneError(
                f"The sample {samples.names[poor]!r} has {int(count[poor])} of the model's {len(self.scale):,} genes.",
                f"at least {LEAST_GENES}, and {FEW_GENES:.0%} of them to be believed",
                "the whole table of expression, not a panel",
            )
        factors = [np.zeros((0, self.network.loadings.shape[1]))]
        with torch.no_grad():
            for start in range(0, len(seen.z), BLOCK):
                part = slice(start, start + BLOCK)
                z, there = torch.from_numpy(seen.z[part]), torch.from_numpy(seen.there[part])
                factors.append(self.network.factors(z, there).numpy())
        return seen, np.concatenate(factors)

    def respond(self, factors: Floats) -> Floats:
        """Return ln(IC50 / µM) of all drugs, (m, D), from factors."""
        with torch.no_grad():
            return np.asarray(self.network.respond(torch.from_numpy(factors)).numpy())

    def far(self, seen: Standardised, factors: Floats) -> Floats:
        """Return how badly the factors explain a sample: mean squared rest of its genes over their noise, (m,)."""
        loadings, noise = self.network.loadings.numpy(), self.network.noise.numpy()
        rest = np.where(seen.there, (seen.z - factors @ loadings.T) ** 2 / noise, 0.0)
        return np.asarray(rest.sum(axis=1) / np.maximum(seen.there.sum(axis=1), 1))

    def distance(self, seen: Standardised, factors: Floats) -> tuple[Floats, Floats]:
        """Return `far`, on each sample's platform, as a percentile of lines left out and over that of `UNLIKE`."""
        far = self.far(seen, factors)
        out, times = np.zeros(len(far)), np.zeros(len(far))
        for number, hundredths in enumerate(self.left_out.distances):
            mine = seen.platform == number
            out[mine] = percentiles(far[mine], hundredths)
            times[mine] = far[mine] / hundredths[round(UNLIKE)]
        return out, times

    def _absent(self, seen: Standardised) -> Floats:
        """Return the variance (m, D) that absent genes add: what they leave open about the factors."""
        network = self.network
        # The answer's slope on the factors, as far as it is one for all samples.
        slope = (network.length[:, None] * network.linear).numpy()
        least = np.linalg.inv(network.precision(torch.ones(len(self.scale), dtype=torch.bool)).numpy())
        out = np.zeros((len(seen.z), slope.shape[1]))
        patterns, which = same_rows(seen.there)
        for number, pattern in enumerate(patterns):
            if not pattern.all():
                open_ = np.linalg.inv(network.precision(torch.from_numpy(pattern)).numpy()) - least
                out[which == number] = np.maximum(np.einsum("kd,kl,ld->d", slope, open_, slope), 0.0)
        return out

    def _answer(
        self,
        samples: Samples,
        seen: Standardised,
        factors: Floats,
        drugs: list[str],
        value: Floats,
        sd: Floats,
        level: float,
        columns: NDArray[np.int64] | None,
    ) -> DrugAnswer:
        low, high = self.left_out.ranges.around(value, sd, level)
        mean = np.array([drug.mean for drug in self.drugs])
        if columns is None:
            quantiles = np.repeat(self.left_out.quantiles.mean(axis=0)[None], len(drugs), axis=0)
            means = np.full(len(drugs), mean.mean())
        else:
            quantiles, means = self.left_out.quantiles[columns], mean[columns]
        places = [percentiles(value[:, at], quantiles[at], SAME) for at in range(len(drugs))]
        distance, times = self.distance(seen, factors)
        coverage = seen.there.mean(axis=1)
        return DrugAnswer(
            samples=list(samples.names),
            drugs=drugs,
            value=value,
            sd=sd,
            low=low,
            high=high,
            level=level,
            percentile=np.stack(places, axis=1) if places else np.zeros(value.shape),
            drug_mean=means,
            distance=distance,
            times=times,
            coverage=coverage,
            warnings=_warnings(samples, coverage, distance),
        )


def percentiles(values: Floats, quantiles: Floats, alike: float = 0.0) -> Floats:
    """Return where values (m,) stand among quantiles (Q,) at equally spaced shares, 0 to 100.

    Quantiles nearer than `alike` count as equal to a value, which then stands in their middle: where all lines respond
    alike, every sample is at 50, and rounding decides nothing.
    """
    rising = np.maximum.accumulate(quantiles) + np.arange(len(quantiles)) * 1e-12
    shares = np.linspace(0.0, 100.0, len(quantiles))
    below, above = np.interp(values - alike, rising, shares), np.interp(values + alike, rising, shares)
    return np.asarray((below + above) / 2)


def _warnings(samples: Samples, coverage: Floats, distance: Floats) -> list[list[str]]:
    depth = None if samples.counts is None else np.nansum(samples.counts, axis=1)
    out: list[list[str]] = []
    for row in range(len(coverage)):
        said = []
        if coverage[row] < FEW_GENES:
            said.append(FEW)
        if distance[row] >= UNLIKE:
            said.append(STRANGE)
        if depth is not None and depth[row] < SHALLOW:
            said.append(THIN)
        out.append(said)
    return out
