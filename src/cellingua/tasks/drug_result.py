"""What is said of samples and drugs: predictions with everything that is needed to judge them, and their order.

A drug with a low predicted IC50 is no match: most such drugs kill every line. So drugs are ordered by where a sample
stands among lines for that drug (`percentile`), or by how far its prediction is from the drug's own mean, and the mean
is always shown beside it. A sample that is sensitive to everything has a low `general`: the median of its percentiles
over all drugs of the model, whatever drugs were asked for.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cellingua.core.errors import InputError
from cellingua.models.drug_model import FEW, STRANGE, THIN, DrugAnswer
from cellingua.tasks.drug_samples import SampleSet

Floats = NDArray[np.float64]
#: Order -> what it says, for people.
ORDERS = {
    "percentile": "by percentile: which share of the training lines is predicted to be more sensitive to the drug",
    "difference": "by difference: predicted ln IC50 minus the mean of the drug over training lines",
    "ic50": "by predicted IC50, the same drugs for nearly every sample: most of this order is the drug, not the sample",
}
#: What the model's warnings mean, for people.
MEANINGS = {
    FEW: "few genes: it has less than half of the model's genes",
    STRANGE: "unlike a cancer line: further from the training lines than 99 % of them, as normal cells are; nothing "
    "was measured on its like",
    THIN: "few counts: fewer than 1,000 molecules of the model's genes",
}
#: µM: the highest dose of many screens. A drug predicted above it hardly does anything, whatever its percentile.
DOSE = 10.0
#: A sample whose median percentile is beyond these is sensitive, or resistant, to nearly everything.
GENERAL = (25.0, 75.0)


@dataclass(frozen=True)
class CellSpread:
    """Predictions for single cells, and how those of each sample spread.

    Attributes
    ----------
    ln_ic50
        float32 (n, D): ln(IC50 / µM) of each cell.
    low, median, high
        float64 (m, D): quantiles 0.1, 0.5 and 0.9 over the cells of each sample.
    far
        float64 (m,): share of each sample's cells that are further from the training lines than 95 % of lines are.
    """

    ln_ic50: NDArray[np.float32]
    low: Floats
    median: Floats
    high: Floats
    far: Floats


@dataclass(frozen=True)
class DrugResult:
    """Predictions for samples and drugs.

    Attributes
    ----------
    set
        What was asked about.
    answer
        What the model says: see `models.drug_model.DrugAnswer`.
    general
        float64 (m,): the median percentile of each sample over all drugs of the model.
    by
        The order, a key of `ORDERS`.
    level
        Of the ranges, such as 0.9.
    cells
        Predictions for single cells, where they were asked for.
    provenance
        Model, hash, parameters, versions.
    """

    set: SampleSet
    answer: DrugAnswer
    general: Floats
    by: str
    level: float
    provenance: dict[str, Any]
    cells: CellSpread | None = None
    notes: tuple[str, ...] = field(default=())

    @property
    def samples(self) -> list[str]:
        """Names of the samples."""
        return list(self.answer.samples)

    @property
    def drugs(self) -> list[str]:
        """Names of the drugs."""
        return list(self.answer.drugs)

    @property
    def difference(self) -> Floats:
        """Predicted ln IC50 minus the drug's mean, float64 (m, D)."""
        return np.asarray(self.answer.value - self.answer.drug_mean[None, :])

    def told_apart(self) -> NDArray[np.int64]:
        """Return (m, D): -1 where the whole range is below the drug's mean, 1 where it is above, else 0."""
        mean = self.answer.drug_mean[None, :]
        below, above = self.answer.high < mean, self.answer.low > mean
        return np.where(below, -1, np.where(above, 1, 0)).astype(np.int64)

    def order(self, sample: int, by: str | None = None) -> NDArray[np.int64]:
        """Return the drugs, int64 (D,), the likeliest to work on a sample first; ties go by difference, then name."""
        keys: dict[str, Callable[[], Floats]] = {
            "percentile": lambda: self.answer.percentile[sample],
            "difference": lambda: self.difference[sample],
            "ic50": lambda: self.answer.value[sample],
        }
        first = keys[checked_order(by or self.by)]()
        names = np.array(self.drugs, dtype=np.str_)
        # A drug that was never tried has neither mean nor percentile, and stands behind those that have.
        ties = self.answer.value[sample], np.nan_to_num(self.difference[sample], nan=np.inf)
        return np.lexsort((names, *ties, np.nan_to_num(first, nan=np.inf)))

    def warnings(self, sample: int) -> list[str]:
        """Return what to beware of in a sample: the model's warnings, few cells, sensitive to everything."""
        said = [MEANINGS.get(text, text) for text in self.answer.warnings[sample]]
        said += self.set.own_warnings()[sample]
        if self.general[sample] <= GENERAL[0]:
            said.append("sensitive to most drugs: the order between drugs says more than the percentiles")
        elif self.general[sample] >= GENERAL[1]:
            said.append("resistant to most drugs: the order between drugs says more than the percentiles")
        return said

    def potent(self, sample: int, most: int = 5) -> NDArray[np.int64]:
        """Return the drugs of lowest predicted IC50 that are no match: potent on the sample as on any other line.

        These are drugs for which the sample is not among the most sensitive quarter of the training lines.
        """
        percentile = self.answer.percentile[sample]
        order = self.order(sample, "ic50")
        common = order[np.nan_to_num(percentile[order], nan=0.0) >= 25.0]
        below = common[self.answer.value[sample, common] < np.nanmedian(self.answer.drug_mean)]
        return np.asarray(below[:most])

    def to_frame(self) -> pd.DataFrame:
        """Return a row a sample and drug, samples in their order, drugs by rank."""
        answer, parts = self.answer, []
        apart = np.array(["", "above the drug mean", "below the drug mean"], dtype=object)[self.told_apart()]
        for sample, name in enumerate(self.samples):
            order = self.order(sample)
            value, low, high = (table[sample, order] for table in (answer.value, answer.low, answer.high))
            columns: dict[str, Any] = {
                "sample": name,
                "rank": np.arange(1, len(order) + 1),
                "drug": np.array(self.drugs, dtype=object)[order],
                "ln_ic50": value,
                "ln_ic50_low": low,
                "ln_ic50_high": high,
                "ic50_um": np.exp(value),
                "ic50_um_low": np.exp(low),
                "ic50_um_high": np.exp(high),
                "percentile": answer.percentile[sample, order],
                "drug_mean_ln_ic50": answer.drug_mean[order],
                "drug_mean_ic50_um": np.exp(answer.drug_mean[order]),
                "difference": self.difference[sample, order],
                "range_lies": apart[sample, order],
                "weak": np.exp(value) > DOSE,
                "distance": answer.distance[sample],
                "distance_times": answer.times[sample],
                "coverage": answer.coverage[sample],
                "general": self.general[sample],
                "warnings": "; ".join(self.warnings(sample)),
            }
            if self.set.cells is not None:
                columns["cells"] = int(self.set.cells[sample])
            if self.cells is not None:
                columns |= {
                    "cells_ln_ic50_q10": self.cells.low[sample, order],
                    "cells_ln_ic50_median": self.cells.median[sample, order],
                    "cells_ln_ic50_q90": self.cells.high[sample, order],
                }
            parts.append(pd.DataFrame(columns))
        return pd.concat(parts, ignore_index=True)

    def summary(self, top: int = 10) -> dict[str, Any]:
        """Return the figures for programs: each sample with its first `top` drugs."""
        rows = []
        for sample, name in enumerate(self.samples):
            rows.append(
                {
                    "sample": name,
                    "cells": None if self.set.cells is None else int(self.set.cells[sample]),
                    "distance": _json(self.answer.distance[sample]),
                    "distance_times": _json(self.answer.times[sample]),
                    "coverage": _json(self.answer.coverage[sample]),
                    "general": _json(self.general[sample]),
                    "warnings": self.warnings(sample),
                    "drugs": [self.entry(sample, int(drug)) for drug in self.order(sample)[:top]],
                }
            )
        return {
            "research_only": True,
            "order": self.by,
            "order_means": ORDERS[self.by],
            "level": self.level,
            "n_drugs": len(self.drugs),
            "notes": [*self.set.notes, *self.notes],
            "samples": rows,
            "provenance": self.provenance,
        }

    def entry(self, sample: int, drug: int) -> dict[str, Any]:
        """Return what is said of one sample and one drug as JSON values; None where the model can't say."""
        answer = self.answer
        value, low, high = (float(table[sample, drug]) for table in (answer.value, answer.low, answer.high))
        mean = float(answer.drug_mean[drug])
        return {
            "drug": self.drugs[drug],
            "ln_ic50": _json(value),
            "ln_ic50_range": [_json(low), _json(high)],
            "ic50_um": _json(np.exp(value)),
            "ic50_um_range": [_json(np.exp(low)), _json(np.exp(high))],
            "percentile": _json(answer.percentile[sample, drug]),
            "drug_mean_ln_ic50": _json(mean),
            "drug_mean_ic50_um": _json(np.exp(mean)),
            "difference": _json(value - mean),
            "told_apart": bool(self.told_apart()[sample, drug]),
            "weak": bool(np.exp(value) > DOSE),
        }


def checked_order(by: str) -> str:
    """Return `by`, or refuse an order that does not exist."""
    if by not in ORDERS:
        raise InputError(f"There is no order {by!r}.", f"one of {', '.join(ORDERS)}")
    return by


def um(value: float) -> str:
    """Return a concentration in µM with three digits, as people write them; – where there is none."""
    if not np.isfinite(value):
        return "–"
    if value >= 10_000:
        return "> 10,000"
    if value < 1e-5:
        return "< 0.00001"
    digits = max(0, 2 - int(np.floor(np.log10(value))))
    return f"{value:,.{digits}f}" if value < 1000 else f"{value:,.0f}"


def fold(difference: float) -> str:
    """Return a difference of ln IC50 as a ratio: "3.2x lower"."""
    if not np.isfinite(difference):
        return "–"
    ratio = float(np.exp(abs(difference)))
    if ratio < 1.05:
        return "same"
    shown = f"{ratio:.1f}" if ratio < 100 else f"{ratio:,.0f}"
    return f"{shown}x {'lower' if difference < 0 else 'higher'}"


def _json(value: Any) -> float | None:
    """Return a number with six digits, None where there is none."""
    return float(f"{float(value):.6g}") if np.isfinite(value) else None
