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


def from_alike(model: DrugModel, known: Floats, molecules: Sequence[Molecule]) -> tuple[Floats, Floats]:
    """Return predictions (m, n) for n molecules and their deviations, from those (m, D) of the known drugs.

    Raises
    ------
    InputError
        The model knows too few molecules.
    """
    has = np.array([bool(drug.smiles) for drug in model.drugs])
    if model.new_drugs is None or not has.any():
        raise InputError(
            f"{model.name} learned from no molecules, so it can't predict new ones.", "a model with SMILES of its drugs"
        )
    drugs = [drug for drug in model.drugs if drug.smiles]
    tried = read_molecules([d.name for d in drugs], [d.smiles for d in drugs])
    whole = likeness([*tried, *molecules])
    inner, cross = whole[: len(tried), : len(tried)], whole[len(tried) :, : len(tried)]
    mean = np.array([drug.mean for drug in drugs])
    departures = known[:, has] - mean
    new = model.new_drugs
    level = mean.mean() + smoother(inner, cross, new.level_penalty) @ (mean - mean.mean())
    centre = departures.mean(axis=1, keepdims=True)
    value = level + centre + (departures - centre) @ smoother(inner, cross, new.line_penalty).T
    own = float(np.sqrt(np.mean(model.left_out.sd[has] ** 2)))
    sd = float(np.sqrt(new.level_sd**2 + new.line_sd**2 + own**2))
    return value, np.full(value.shape, sd)
