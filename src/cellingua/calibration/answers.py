"""What a model's calibration says of answers: the thresholds of error rates, and when a cell is of no candidate."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cellingua.calibration.conformal import ErrorRates
from cellingua.calibration.unknown import OpenSet
from cellingua.core.errors import ModelError


@dataclass(frozen=True)
class Answers:
    """Stored in ``calibration.json`` as ``answers``.

    Attributes
    ----------
    error_rates
        ``user`` for candidates that a user names, ``ontology`` for the whole ontology and tissues.
    open_set
        The score of "none of the candidates", for candidates that a user names.
    sets
        The data sets that what concerns a user's candidates was fitted on.
    """

    error_rates: dict[str, ErrorRates]
    open_set: OpenSet
    sets: tuple[str, ...] = ()

    def of(self, origin: str) -> ErrorRates:
        """Return the thresholds for candidates of an origin (`cellingua.words.candidates.Candidates.origin`)."""
        return self.error_rates["user" if origin == "user" else "ontology"]

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON values."""
        rates = {name: held.to_dict() for name, held in self.error_rates.items()}
        return {"error_rates": rates, "unknown": self.open_set.to_dict(), "sets": list(self.sets)}

    @classmethod
    def from_calibration(cls, calibration: Mapping[str, Any]) -> Answers | None:
        """Return what a model's calibration holds; None where it was made without.

        Raises
        ------
        ModelError
            It is there and can't be read.
        """
        held = calibration.get("answers")
        if held is None:
            return None
        try:
            rates = {name: ErrorRates.from_dict(held["error_rates"][name]) for name in ("user", "ontology")}
            return cls(rates, OpenSet.from_dict(held["unknown"]), tuple(map(str, held.get("sets", ()))))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ModelError(
                f"The model's calibration of answers can't be read: {error!r}.", "calibration.json as it was saved"
            ) from error
