"""Which atoms of a new molecule a predicted drug response rests on.

A molecule that the model was not trained on is predicted from the tried ones that it is like, so its atoms count by the
likeness that they give: Shapley values over atoms left out of its description (Castro et al. 2009; captum's sampling).
They add up to the prediction less that of a molecule that is like none. A known drug has weights of its own, and no
atom takes part in its prediction.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cellingua.models.drug_effects import Deletion, captum_methods
from cellingua.models.drug_expression import Samples
from cellingua.models.drug_model import DrugModel
from cellingua.models.drug_molecules import of_likeness, tried

if TYPE_CHECKING:
    from cellingua.molecules.smiles import Molecule

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]
#: Random orders of the atoms.
ORDERS = 25


@dataclass(frozen=True)
class AtomEffects:
    """What each atom of a new molecule adds to its prediction.

    Attributes
    ----------
    molecule
        The one asked about; atoms are in the order of its SMILES.
    symbols
        Elements, A of them.
    effect
        float64 (m, A): ln(IC50 / µM).
    value, reference
        float64 (m,): of the molecule, and of one that is like none of the tried drugs.
    """

    molecule: Molecule
    symbols: list[str]
    effect: Floats
    value: Floats
    reference: Floats


def atom_effects(model: DrugModel, samples: Samples, molecule: Molecule, *, orders: int = ORDERS) -> AtomEffects:
    """Return what each atom of a molecule adds to its prediction, for each sample (needs RDKit).

    Raises
    ------
    InputError
        The model learned from no molecules; captum is not installed.
    """
    from cellingua.molecules.graph import atom_names

    say = AtomsOut(model, samples, molecule)
    way = captum_methods().ShapleyValueSampling(say.tensor)
    whole = torch.ones(1, say.atoms)
    found = []
    for row in range(len(samples.names)):
        say.row = row
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)  # the same orders for every sample, whichever others are asked about
            found.append(way.attribute(whole, n_samples=orders, perturbations_per_eval=say.atoms)[0].numpy())
    ends = say(np.stack([np.ones(say.atoms, bool), np.zeros(say.atoms, bool)]))
    effect = np.array(found, dtype=np.float64).reshape(-1, say.atoms)
    return AtomEffects(molecule, atom_names(molecule), effect, ends[:, 0], ends[:, 1])


class AtomsOut:
    """Predictions for a molecule of which some atoms are not described.

    Parameters
    ----------
    model, samples, molecule
        What is asked about.
    """

    def __init__(self, model: DrugModel, samples: Samples, molecule: Molecule) -> None:
        from cellingua.molecules.parts import PartialLikeness
        from cellingua.molecules.smiles import likeness

        old = tried(model)
        self._model, self._inner = model, likeness(old)
        self._partial = PartialLikeness(molecule, old)
        self.atoms, self.row = self._partial.atoms, 0
        self._known = model.respond(model.seen(samples)[1])

    def __call__(self, kept: Mask) -> Floats:
        """Return float64 (m, n): predictions where `kept`, bool (n, atoms), are described."""
        return of_likeness(self._model, self._known, self._inner, self._partial(kept))

    def tensor(self, kept: Tensor) -> Tensor:
        """Return float64 (n,) for the sample `row`, as captum asks."""
        alike = self._partial(kept.numpy() > 0.5)
        return torch.from_numpy(of_likeness(self._model, self._known[[self.row]], self._inner, alike)[0])


def delete_atoms(
    model: DrugModel,
    samples: Samples,
    effects: AtomEffects,
    sample: int,
    *,
    counts: Sequence[int] = (3,),
    draws: int = 20,
) -> Deletion:
    """Leave atoms out of a molecule's description, the first of an explanation against as many at random."""
    say = AtomsOut(model, samples, effects.molecule)
    sign = np.sign(effects.value[sample] - effects.reference[sample]) or 1.0
    order = np.argsort(-sign * effects.effect[sample], kind="stable")
    rng = np.random.default_rng(0)
    counts = [min(count, say.atoms) for count in counts]
    masks = np.ones((len(counts), 1 + draws, say.atoms), bool)
    for place, count in enumerate(counts):
        masks[place, 0, order[:count]] = False
        for draw in range(draws):
            masks[place, 1 + draw, rng.choice(say.atoms, count, replace=False)] = False
    said = say(masks.reshape(-1, say.atoms))[sample].reshape(len(counts), 1 + draws)
    moved = sign * (effects.value[sample] - said)
    return Deletion(counts, moved[:, 0], moved[:, 1:].mean(axis=1), moved[:, 1:].std(axis=1))
