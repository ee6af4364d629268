"""Which genes of a sample a predicted drug response rests on.

Integrated gradients (Sundararajan et al. 2017, equation 1; captum) between the sample and typical lines, drawn from the
model's own distribution of lines. The effects of all genes add up to the prediction less what the model says of these
lines on average, in ln µM: a negative effect speaks for sensitivity. The network takes genes to factors by a linear
map, so the gradients are taken at the factors and handed down, which is the same and some hundred times quicker.

What carries a prediction is no mechanism: genes that go together share what either of them says. `delete_genes` tells
how much an explanation is worth: the prediction without its first genes against the prediction without as many others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cellingua.core.errors import InputError
from cellingua.models.drug_expression import Samples
from cellingua.models.drug_model import DrugModel
from cellingua.models.drug_molecules import from_alike
from cellingua.nn.response import ResponseNetwork

if TYPE_CHECKING:
    from cellingua.molecules.smiles import Molecule

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]
#: Typical lines, and points of the path from each.
REFERENCES, STEPS = 32, 32


@dataclass(frozen=True)
class GeneEffects:
    """What each gene adds to predictions; ln(IC50 / µM).

    Attributes
    ----------
    samples, drugs
        m and q names; molecules that the model was not trained on stand behind its own drugs.
    genes
        str (G,): symbols.
    effect
        float64 (m, q, G): 0 where the gene is absent.
    z
        float64 (m, G): expression against training lines, in deviations; 0 where absent.
    there
        bool (m, G).
    value, reference
        float64 (m, q): the prediction, and the mean prediction of typical lines in the same genes.
    answers
        What answers: factors to predictions.
    """

    samples: list[str]
    drugs: list[str]
    genes: NDArray[np.str_]
    effect: Floats
    z: Floats
    there: Mask
    value: Floats
    reference: Floats
    answers: Asked

    def unexplained(self) -> Floats:
        """Return (m, q): the prediction less the reference and all effects; not 0 as a sum has finitely many steps."""
        return np.asarray(self.value - self.reference - self.effect.sum(axis=2))

    def order(self, sample: int, drug: int) -> NDArray[np.int64]:
        """Return the genes that are there, those first that move the prediction most; ties by name."""
        there = np.flatnonzero(self.there[sample])
        return there[np.lexsort((self.genes[there], -np.abs(self.effect[sample, drug, there])))]


@dataclass(frozen=True)
class Deletion:
    """How far predictions move towards the reference when parts are taken away; ln(IC50 / µM), larger is farther.

    Attributes
    ----------
    counts
        How many parts were taken.
    explained, random
        float64 (c,): the parts that an explanation puts first; as many drawn at random, the mean of all draws.
    spread
        float64 (c,): standard deviation over draws.
    """

    counts: list[int]
    explained: Floats
    random: Floats
    spread: Floats


class Asked(nn.Module):
    """Factors to the answers asked for: an affine map behind that of the network.

    Parameters
    ----------
    network
        Of the model.
    weights, offset
        (q, D) and (q,): how each answer is made of the responses to known drugs.
    """

    def __init__(self, network: ResponseNetwork, weights: Tensor, offset: Tensor) -> None:
        super().__init__()
        self.network, self.weights, self.offset = network, weights, offset

    def forward(self, factors: Tensor) -> Tensor:
        """Return (n, q) from factors (n, factors)."""
        out: Tensor = self.network.respond(factors) @ self.weights.T + self.offset
        return out


def asked(model: DrugModel, drugs: Sequence[str] | None, molecules: Sequence[Molecule] = ()) -> tuple[list[str], Asked]:
    """Return the names of what is asked for, known drugs before new molecules, and the module that answers."""
    columns = [] if molecules and not drugs else model.columns(drugs or None).tolist()
    weights, offset = np.eye(len(model.drugs))[columns], np.zeros(len(columns))
    if molecules:
        # A new drug is an affine function of the known ones: their response to nothing, and to each of them alone.
        probes = np.concatenate([np.zeros((1, len(model.drugs))), np.eye(len(model.drugs))])
        said, _ = from_alike(model, probes, molecules)
        weights, offset = np.concatenate([weights, (said[1:] - said[0]).T]), np.concatenate([offset, said[0]])
    names = [model.drugs[column].name for column in columns] + [molecule.name for molecule in molecules]
    return names, Asked(model.network, torch.from_numpy(weights), torch.from_numpy(offset))


def typical_lines(network: ResponseNetwork, count: int = REFERENCES) -> Floats:
    """Return float64 (count, G): standardised expression drawn from the model's factors and noise; always the same."""
    rng = np.random.default_rng(0)
    loadings, noise = network.loadings.numpy(), network.noise.numpy()
    hidden = rng.normal(size=(count, loadings.shape[1])) @ loadings.T
    return np.asarray(hidden + rng.normal(size=(count, len(noise))) * np.sqrt(noise))


def influence(network: ResponseNetwork, there: Mask) -> Floats:
    """Return float64 (factors, G): the linear map from genes that are there to factors, 0 for the absent."""
    known = torch.from_numpy(there)
    scaled = (network.loadings[known] / network.noise[known][:, None]).T
    out = np.zeros((scaled.shape[0], len(there)))
    out[:, there] = torch.linalg.solve(network.precision(known), scaled).numpy()
    return out


def gene_effects(
    model: DrugModel,
    samples: Samples,
    drugs: Sequence[str] | None = None,
    molecules: Sequence[Molecule] = (),
    *,
    references: int = REFERENCES,
    steps: int = STEPS,
) -> GeneEffects:
    """Return what each gene adds to each prediction. Each sample by itself.

    Parameters
    ----------
    samples
        m of them.
    drugs
        Known ones, by name; all where none are named and no molecule is.
    molecules
        That the model was not trained on (needs RDKit).
    references, steps
        Typical lines, and points on the way from each.

    Raises
    ------
    InputError
        A drug is not known; captum is not installed.
    """
    gradients = captum_methods().IntegratedGradients
    names, module = asked(model, drugs, molecules)
    seen, _ = model.seen(samples)
    typical = typical_lines(model.network, references)
    shape = (len(samples.names), len(names))
    effect, value, reference = np.zeros((*shape, len(model.genes))), np.zeros(shape), np.zeros(shape)
    way = gradients(module, multiply_by_inputs=False)
    for row in range(shape[0]):
        z, there = seen.z[row], seen.there[row]
        down = influence(model.network, there)
        here = torch.from_numpy(down @ z)[None]
        start = torch.from_numpy(typical @ down.T)
        away = np.where(there, z[None] - typical, 0.0)
        with torch.no_grad():
            value[row], reference[row] = module(here)[0].numpy(), module(start).mean(dim=0).numpy()
        for place in range(shape[1]):
            slope = way.attribute(here.expand(len(start), -1), baselines=start, target=place, n_steps=steps)
            effect[row, place] = (away * (slope.detach().numpy() @ down)).mean(axis=0)
    return GeneEffects(list(samples.names), names, model.genes, effect, seen.z, seen.there, value, reference, module)


def delete_genes(
    effects: GeneEffects,
    sample: int,
    drug: int,
    *,
    counts: Sequence[int] = (50,),
    draws: int = 20,
    average: bool = False,
) -> Deletion:
    """Take genes from a sample and see how far the prediction moves.

    Those that speak for its departure from the reference go first; beside them as many at random, `draws` times.

    Parameters
    ----------
    effects
        Of `gene_effects`.
    sample, drug
        Which prediction, by number.
    counts
        How many genes to take.
    average
        False: as if they had not been measured, so that genes that go together with them stand in (`nn.response`).
        True: as high as in the average training line, whatever the others say.
    """
    z, there = effects.z[sample], effects.there[sample]
    value = effects.value[sample, drug]
    sign = np.sign(value - effects.reference[sample, drug]) or 1.0
    order = np.lexsort((effects.genes, -sign * effects.effect[sample, drug]))
    order = order[there[order]]
    counts = [min(count, len(order)) for count in counts]
    rng = np.random.default_rng(0)
    # The explanation's own order comes first, then the draws.
    taken = [order[:count] for count in counts]
    taken += [rng.choice(order, count, replace=False) for _ in range(draws) for count in counts]
    without = _made_average if average else _made_absent
    with torch.no_grad():
        factors = without(effects.answers.network, z, there, taken)
        said = effects.answers(factors)[:, drug].numpy().reshape(1 + draws, len(counts))
    moved = sign * (value - said)
    return Deletion(counts, moved[0], moved[1:].mean(axis=0), moved[1:].std(axis=0))


def _made_average(network: ResponseNetwork, z: Floats, there: Mask, taken: Sequence[NDArray[np.int64]]) -> Tensor:
    """Return factors (n, factors) of a sample in which some genes are as in the average training line."""
    rows = np.repeat(z[None], len(taken), axis=0)
    for row, genes in zip(rows, taken, strict=True):
        row[genes] = 0.0
    return network.factors(torch.from_numpy(rows), torch.from_numpy(there).expand(len(rows), -1))


def _made_absent(network: ResponseNetwork, z: Floats, there: Mask, taken: Sequence[NDArray[np.int64]]) -> Tensor:
    """Return factors (n, factors) of a sample without some genes: what these add to both sides is taken off again.

    ``network.factors`` of what is left is the same, and is asked where little is left: to take off nearly all would
    leave rounding. Else it would add up all other genes each time.
    """
    known = torch.from_numpy(there)
    scaled = network.loadings / network.noise[:, None]
    precision, pulled = network.precision(known), torch.from_numpy(z)[known] @ scaled[known]
    found = []
    for genes in map(torch.from_numpy, taken):
        if 2 * len(genes) > int(known.sum()):
            left = known.clone()
            left[genes] = False
            found.append(network.factors(torch.from_numpy(z)[None], left[None])[0])
            continue
        less = network.loadings[genes].T @ scaled[genes]
        found.append(torch.linalg.solve(precision - less, pulled - torch.from_numpy(z)[genes] @ scaled[genes]))
    return torch.stack(found)


def captum_methods() -> Any:
    """Return ``captum.attr``, or say how to get captum."""
    try:
        import captum.attr
    except ModuleNotFoundError as error:
        raise InputError(
            "Explaining a prediction needs captum, which is not installed.", "", "pip install 'cellingua[drug]'"
        ) from error
    return captum.attr
