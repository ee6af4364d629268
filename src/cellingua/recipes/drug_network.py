"""The recipe of the network: what stands for a line, settings for each question, and a plain fit and predict.

Settings were chosen on validation pairs of TGSA's splits; the other tables use them unchanged.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cellingua.baselines.deepcdr import DeepCDRStyle
from cellingua.baselines.drug_form import components, scaled
from cellingua.core.errors import InputError
from cellingua.models.drug_network import DrugNetwork, NetworkConfig, Watch
from cellingua.molecules.graph import graphs
from cellingua.molecules.smiles import Molecule
from cellingua.recipes.drug_tables import Question

Floats = NDArray[np.float64]
COMPONENTS = 256
#: What is asked decides what may be taken off and who may have numbers of their own.
SETTINGS = {
    "unseen_lines": NetworkConfig(level="drug", own_drugs=True),
    "random_pairs": NetworkConfig(level="both", own_drugs=True, own_lines=True),
    "unseen_drugs": NetworkConfig(level="line", own_drugs=False, epochs=10, within=0.0),
}
#: DeepCDR's and TGDRP's own way: nothing is taken off, a plain squared error, no weight decay.
AS_RELEASED = NetworkConfig(level="none", own_drugs=False, within=0.0, decay=0.0, scaling="each")
DEEPCDR = AS_RELEASED


def expression_components(tables: Sequence[Floats], learned: NDArray[np.bool_], number: int = COMPONENTS) -> Floats:
    """Return leading components of expression (L, number): the encoder without a language model.

    Parameters
    ----------
    tables
        Each float (L, F), NaN where absent; scaled on the learned lines and put side by side.
    learned
        bool (L,): the lines that axes and scales come from.
    """
    z = np.concatenate([scaled(table, learned) for table in tables], axis=1)
    return components(z, learned, min(number, int(learned.sum()) - 1))


def expression_of(question: Question, learned: NDArray[np.bool_]) -> Floats:
    """Return the components of the expression tables that a question's data have."""
    names = [name for name in ("wide", "expression") if name in question.data.tables]
    return expression_components([question.data.tables[name] for name in names], learned)


class PlainNetwork:
    """Expression and molecules in, ln(IC50 / µM) out: the network for who has a table of responses.

    Parameters
    ----------
    config
        By default the settings for new lines.
    seeds
        One network each; their mean is the answer.
    """

    def __init__(self, config: NetworkConfig | None = None, seeds: Sequence[int] = (0, 1, 2)) -> None:
        if not seeds:
            raise InputError("No seed was given.", "at least one")
        self.config, self.seeds = config or SETTINGS["unseen_lines"], tuple(seeds)
        self._networks: list[DrugNetwork] = []
        self._molecules: list[Molecule] = []
        self._mean: Floats
        self._sd: Floats
        self._centre: Floats
        self._axes: Floats

    def fit(
        self, expression: Floats, grid: Floats, molecules: Sequence[Molecule], watch: Watch | None = None
    ) -> PlainNetwork:
        """Learn.

        Parameters
        ----------
        expression
            float (L, G), NaN where a gene is absent.
        grid
            float (L, D): ln(IC50 / µM), NaN where nothing was measured.
        molecules
            D of them.
        watch
            Called after each epoch with its number and mean loss.
        """
        learned = np.isfinite(grid).any(axis=1)
        if learned.sum() < 3:
            raise InputError(f"{int(learned.sum())} lines have a response.", "at least 3")
        self._molecules = list(molecules)
        rows = expression[learned]
        there = np.isfinite(rows)
        count = np.maximum(there.sum(axis=0), 1)
        self._mean = np.where(there, rows, 0.0).sum(axis=0) / count
        self._sd = np.sqrt(np.where(there, (rows - self._mean) ** 2, 0.0).sum(axis=0) / count)
        z = self._scaled(rows)
        self._centre = z.mean(axis=0)
        axes = np.linalg.svd(z - self._centre, full_matrices=False)[2]
        self._axes = axes[: min(COMPONENTS, len(rows) - 1)].T
        atoms = graphs(self._molecules)
        self._networks = [
            DrugNetwork(self.config, seed).fit(grid[learned], self._states(rows), atoms, watch) for seed in self.seeds
        ]
        return self

    def predict(self, expression: Floats) -> tuple[Floats, Floats]:
        """Return predictions (m, D) for new lines, and the deviation between the networks (0 of a single one)."""
        if not self._networks:
            raise InputError("The network was not fitted.", "", "fit")
        states, atoms = self._states(expression), graphs(self._molecules)
        said = np.array([network.predict_lines(states, atoms) for network in self._networks])
        return said.mean(axis=0), said.std(axis=0)

    def _scaled(self, expression: Floats) -> Floats:
        z = np.where(self._sd > 1e-8, (expression - self._mean) / np.maximum(self._sd, 1e-8), 0.0)
        return np.clip(np.where(np.isfinite(z), z, 0.0), -5.0, 5.0)

    def _states(self, expression: Floats) -> Floats:
        return (self._scaled(expression) - self._centre) @ self._axes


def deepcdr(config: NetworkConfig = DEEPCDR, seed: int = 0) -> DrugNetwork:
    """Return an unfitted network in DeepCDR's style."""
    return DrugNetwork(config, seed, DeepCDRStyle)
