"""What cells and texts are to each other: right, wrong, or neither, and how close in the ontology.

A cell whose text is another cell's is not its negative; a wider or narrower type is neither right nor wrong. What a
loss makes of that is a choice: see `RELATIONS`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cellingua.engine.losses import InfoNCE, MultiPositive
from cellingua.words.ontology import load_ontology

#: How a contrast takes the relations.
RELATIONS = {
    "instances": "every other pair is a negative, as in the plain InfoNCE",
    "masked": "each cell's own is right alone; pairs of one text, and of wider or narrower types, are left out",
    "multi_positive": "all pairs of one text are right, evenly; wider and narrower types are left out",
    "ontology": "a soft target: a pair weighs decay ** distance in the ontology, to a horizon; nothing is left out",
}


def related_terms(terms: Sequence[str]) -> NDArray[np.bool_]:
    """Return bool (terms, terms): is one an ancestor of the other? Ids that the ontology lacks are related to none."""
    ontology = load_ontology("CL")
    row_of = {term: row for row, term in enumerate(terms)}
    related = np.zeros((len(terms), len(terms)), bool)
    for row, term in enumerate(terms):
        if term in ontology:
            wider = [row_of[other] for other in ontology.ancestors(term) if other in row_of]
            related[row, wider] = True
            related[wider, row] = True
    return related


def closeness_of_terms(terms: Sequence[str], decay: float, horizon: int) -> NDArray[np.float32]:
    """Return ``decay ** distance``, float32 (terms, terms): 1 for a term itself, 0 beyond `horizon` steps.

    The distance is that of the shortest path over is-a relations, up and down. scCello (Yuan et al., NeurIPS 2024)
    takes closeness from random walks over the same graph; this is simpler, and has the same order near a term.
    """
    ontology = load_ontology("CL")
    row_of = {term: row for row, term in enumerate(terms)}
    close = np.zeros((len(terms), len(terms)), np.float32)
    for row, term in enumerate(terms):
        close[row, row] = 1.0
        seen = front = {term} if term in ontology else set()
        for steps in range(1, horizon + 1):
            near = {other for one in front for other in (*ontology.parents(one), *ontology.children(one))}
            front = near - seen
            seen = seen | front
            close[row, [row_of[other] for other in front if other in row_of]] = decay**steps
    return close


@dataclass(frozen=True)
class Related:
    """The relations of a minibatch's cells with some columns: its texts, or its cells again.

    Attributes
    ----------
    right
        bool (B, M): the column is, or says, what the cell is.
    unclear
        bool (B, M): neither right nor wrong; never a right one.
    close
        float (B, M) closeness, above 0 where `right`; or None.
    """

    right: Tensor
    unclear: Tensor
    close: Tensor | None = None

    @property
    def wrong(self) -> Tensor:
        """bool (B, M): for sure."""
        return ~(self.right | self.unclear)


@dataclass(frozen=True)
class Kinds:
    """Types, and what they are to each other; a minibatch's texts and cells are told by their rows.

    Attributes
    ----------
    related
        bool (types, types).
    close
        float32 (types, types), or None.
    """

    related: Tensor
    close: Tensor | None = None

    @classmethod
    def of(cls, terms: Sequence[str], decay: float | None = None, horizon: int = 2) -> Kinds:
        """Return the relations of some types; closeness where a `decay` is given."""
        close = None if decay is None else torch.from_numpy(closeness_of_terms(terms, decay, horizon))
        return cls(torch.from_numpy(related_terms(terms)), close)

    def compare(
        self, text_a: Tensor, type_a: Tensor, text_b: Tensor, type_b: Tensor, *, unknown_unclear: bool = False
    ) -> Related:
        """Return the relations of rows `a` with columns `b`.

        Parameters
        ----------
        text_a, type_a
            int64 (B,): the text and the type of each row; -1 where there is none.
        text_b, type_b
            int64 (M,).
        unknown_unclear
            Whether a pair is unclear where the type of one is not known, as it is with texts; else it is wrong.

        Notes
        -----
        Two of one type whose texts differ (one says the tissue, the other doesn't) are unclear: the text of one may
        be true of the other.
        """
        right = (text_a[:, None] == text_b[None, :]) & (text_a >= 0)[:, None]
        known = (type_a >= 0)[:, None] & (type_b >= 0)[None, :]
        same = known & (type_a[:, None] == type_b[None, :])
        unclear = (known & self.related[type_a[:, None], type_b[None, :]]) | same
        unclear = (unclear | ~known if unknown_unclear else unclear) & ~right
        close = None
        if self.close is not None:
            close = torch.where(known, self.close[type_a[:, None], type_b[None, :]], 0.0)
            close = torch.where(right, 1.0, close)
        return Related(right, unclear, close)


def contrast(
    relation: str, temperature: float, symmetric: bool, related: Related | None
) -> Callable[[Tensor, Tensor], Tensor]:
    """Return a loss of `a` (N, d) and `b` (M, d), unit rows.

    Parameters
    ----------
    relation
        One of `RELATIONS`. With ``instances`` and ``masked``, row i of `a` belongs to row i of `b`.
    temperature, symmetric
        See `cellingua.engine.losses.MultiPositive`.
    related
        Of the rows with the columns; not needed with ``instances``.
    """
    if relation == "instances":
        return InfoNCE(temperature, symmetric)
    assert related is not None
    if relation == "multi_positive":
        return MultiPositive(related.right, related.unclear, temperature, symmetric)
    if relation == "ontology":
        assert related.close is not None
        return MultiPositive(related.close, None, temperature, symmetric)
    own = torch.zeros_like(related.right)
    own.fill_diagonal_(True)
    return MultiPositive(own, (related.right | related.unclear) & ~own, temperature, symmetric)
