"""Drugs that were never tried, predicted from the tried ones that they are alike to.

Two ridge regressions on how alike molecules are (`molecules.smiles.likeness`), drugs as rows: one of the drugs' means,
and one of how a sample's response departs from each drug's mean. The second says more, as how sensitive a line is to
everything carries over; the first is nearly a guess, and the range says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cellingua.core.errors import InputError
from cellingua.models.drug_ridge import fit_components
from cellingua.molecules.smiles import Molecule, likeness, read_molecules

if TYPE_CHECKING:
    from cellingua.models.drug_model import DrugModel, NewDrugs

Floats = NDArray[np.float64]
PENALTIES = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)


def smoother(inner: Floats, cross: Floats, penalty: float) -> Floats:
    """Return weights (n, D) by which values of D known drugs, less their mean, make those of n new ones.

    Parameters
    ----------
    inner, cross
        (D, D) and (n, D): how alike known drugs are to each other, and new ones to them.
    penalty
        Of the ridge regression.
    """
    return np.asarray(np.linalg.solve(inner + penalty * np.eye(len(inner)), cross.T).T)


def learn(inner: Floats, mean: Floats, departures: Floats) -> NewDrugs:
    """Choose penalties and measure errors by leaving each drug out.

    Parameters
    ----------
    inner
        (D, D): how alike the drugs are.
    mean
        (D,): of each drug.
    departures
        (n, D): of predictions from it.
    """
    from cellingua.models.drug_model import NewDrugs

    chosen = []
    for table in (mean[:, None], departures.T):
        losses = []
        for penalty in PENALTIES:
            # One component at a time would be another model for each sample; here one penalty serves all.
            fitted = fit_components(inner, table, penalties=(penalty,))
            losses.append(float(np.mean((table - fitted.left_out) ** 2)))
        best = int(np.argmin(losses))
        chosen.append((PENALTIES[best], float(np.sqrt(losses[best]))))
    return NewDrugs(chosen[0][0], chosen[1][0], chosen[0][1], chosen[1][1])


def tried(model: DrugModel) -> list[Molecule]:
    """Return the molecules of the model's drugs, of those that have one.

    Raises
    ------
    InputError
        The model knows too few molecules.
    """
    known = [drug for drug in model.drugs if drug.smiles]
    if model.new_drugs is None or not known:
        raise InputError(
            f"{model.name} learned from no molecules, so it can't predict new ones.", "a model with SMILES of its drugs"
        )
    return read_molecules([d.name for d in known], [d.smiles for d in known])


def from_alike(model: DrugModel, known: Floats, molecules: Sequence[Molecule]) -> tuple[Floats, Floats]:
    """Return predictions (m, n) for n molecules and their deviations, from those (m, D) of the known drugs.

    Raises
    ------
    InputError
        The model knows too few molecules.
    """
    old = tried(model)
    whole = likeness([*old, *molecules])
    value = of_likeness(model, known, whole[: len(old), : len(old)], whole[len(old) :, : len(old)])
    new, has = model.new_drugs, np.array([bool(drug.smiles) for drug in model.drugs])
    assert new is not None
    own = float(np.sqrt(np.mean(model.left_out.sd[has] ** 2)))
    sd = float(np.sqrt(new.level_sd**2 + new.line_sd**2 + own**2))
    return value, np.full(value.shape, sd)


def of_likeness(model: DrugModel, known: Floats, inner: Floats, cross: Floats) -> Floats:
    """Return predictions (m, n) for n molecules that are alike to the model's as `cross` says.

    Parameters
    ----------
    known
        (m, D): predictions for the model's drugs, T of which have a molecule.
    inner, cross
        (T, T) and (n, T): how alike those are to each other, and the n to them.
    """
    new, has = model.new_drugs, np.array([bool(drug.smiles) for drug in model.drugs])
    assert new is not None
    mean = np.array([drug.mean for drug in model.drugs])[has]
    departures = known[:, has] - mean
    level = mean.mean() + smoother(inner, cross, new.level_penalty) @ (mean - mean.mean())
    centre = departures.mean(axis=1, keepdims=True)
    return np.asarray(level + centre + (departures - centre) @ smoother(inner, cross, new.line_penalty).T)
