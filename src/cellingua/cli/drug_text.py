"""What the drug verbs print: the answer first, with what is needed to judge it."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from cellingua.cells.wording import printable

if TYPE_CHECKING:
    from cellingua.tasks.drug_fit import DrugEvaluation
    from cellingua.tasks.drug_result import DrugResult

WIDTH = 104
SAMPLES = 12  # that are printed; all are in the table
RESEARCH = (
    "Research only. These are predictions from cell lines in a dish: no recommendation for any patient, and no "
    "measurement."
)


def ranking_text(result: DrugResult, top: int, written: Mapping[str, str], *, shipped: bool = False) -> str:
    """Return a ranking for people: each sample with its first drugs, then what kills every line, then the files."""
    from cellingua.tasks.drug_result import ORDERS

    lines = ["", *_wrapped(RESEARCH)]
    if shipped:
        lines += _wrapped("The sample is the lung adenocarcinoma that ships with cellingua (Kim 2020, LUNG_T34).")
    lines += _wrapped(
        f"{len(result.drugs):,} drugs, {ORDERS[result.by]}."
        + (
            " A drug that kills every line is no match, however low its IC50: compare with its mean."
            if result.by != "ic50"
            else ""
        )
    )
    for sample in range(min(len(result.samples), SAMPLES)):
        lines += ["", *_sample(result, sample, top)]
    if len(result.samples) > SAMPLES:
        lines += ["", f"and {len(result.samples) - SAMPLES:,} more samples in the table"]
    lines += ["", *_wrapped(_key(result))]
    return "\n".join([*lines, "", *(f"{name:<8} {path}" for name, path in written.items())])


def predicted_text(result: DrugResult, output: Path) -> str:
    """Return what is printed after predicting: how many, which samples to beware of, and the file."""
    lines = ["", *_wrapped(RESEARCH)]
    lines.append(f"{len(result.samples):,} samples x {len(result.drugs):,} drugs.")
    warned = [sample for sample in range(len(result.samples)) if result.warnings(sample)]
    for sample in warned[:SAMPLES]:
        lines += _wrapped(f"! {printable(result.samples[sample])}: {'; '.join(result.warnings(sample))}")
    if len(warned) > SAMPLES:
        lines.append(f"! and {len(warned) - SAMPLES:,} more samples with warnings, in the table")
    return "\n".join([*lines, "", f"table    {output}"])


def evaluation_text(found: DrugEvaluation) -> str:
    """Return an evaluation for people: the model beside the drug means, coverage, notes."""
    lines = [
        "",
        f"{'':<16}{'Pearson':>9}{'Spearman':>10}{'R2':>8}{'RMSE':>8}{'MAE':>8}{'within drug':>13}{'within line':>13}",
    ]
    for row in found.table.to_dict("records"):
        numbers = (row[name] for name in ("pearson", "spearman", "r2", "rmse", "mae"))
        widths = (9, 10, 8, 8, 8)
        cells = "".join(f"{_number(v):>{w}}" for v, w in zip(numbers, widths, strict=True))
        inside = "".join(f"{_number(row[f'within_{what}_median']):>13}" for what in ("drug", "line"))
        lines.append(f"{row['predictor']:<16}{cells}{inside}")
    spans = ", ".join(f"{name} {low:.3f} to {high:.3f}" for name, (low, high) in found.interval.items())
    held = ", ".join(f"{share:.1%} of the ranges at {level:.0%}" for level, share in found.coverage.items())
    lines += ["", *_wrapped(f"95 % of resamples of whole lines: {spans}.")]
    lines += _wrapped(f"The truth lies in {held}.")
    lines += _wrapped(
        "Within drug and within line: median Pearson inside each of at least 10 pairs. Within a drug a guess by the "
        "drug's mean says nothing (0); 'own drug mean' knows the means of these very answers."
    )
    return "\n".join([*lines, *(line for note in found.notes for line in _wrapped(printable(note)))])


def _sample(result: DrugResult, sample: int, top: int) -> list[str]:
    from cellingua.tasks.drug_result import DOSE, fold, um

    answer = result.answer
    head = printable(result.samples[sample])
    cells = "" if result.set.cells is None else f"{result.set.cells[sample]:,} cells, "
    far = f"distance {answer.distance[sample]:.0f} of 100"
    if answer.times[sample] >= 1:
        far += f", {answer.times[sample]:.1f}x the limit"
    lines = [f"{head}  ({cells}{answer.coverage[sample]:.0%} of the model's genes, {far})"]
    for warning in result.warnings(sample):
        lines += _wrapped(f"! {warning}", "  ")
    order = result.order(sample)[:top]
    apart = result.told_apart()[sample]
    width = max([len(printable(result.drugs[drug])) for drug in order] + [4])
    span = f"range at {result.level:.0%}"
    lines.append(f"  {'drug':<{width}}  {'IC50 µM':>9}  {span:>21}  {'ln IC50':>7}  {'percentile':>10}  "
                 f"{'drug mean µM':>12}  {'against it':>13}")  # fmt: skip
    for drug in order:
        value = float(answer.value[sample, drug])
        low, high = math.exp(answer.low[sample, drug]), math.exp(answer.high[sample, drug])
        percentile = answer.percentile[sample, drug]
        place = f"{percentile:.0f}" if math.isfinite(percentile) else "–"
        against = fold(float(result.difference[sample, drug]))
        marks = [word for word, on in (("clear", apart[drug] != 0), ("weak", math.exp(value) > DOSE)) if on]
        lines.append(
            f"  {printable(result.drugs[drug]):<{width}}  {um(math.exp(value)):>9}  "
            f"{um(low) + ' – ' + um(high):>21}  {value:>7.2f}  {place:>10}  "
            f"{um(math.exp(answer.drug_mean[drug])):>12}  {against:>13}  {' '.join(marks)}".rstrip()
        )
    told = int((apart != 0).sum())
    lines += _wrapped(f"{told:,} of {len(result.drugs):,} drugs have a range that excludes the drug's mean.", "  ")
    return lines


def _key(result: DrugResult) -> str:
    from cellingua.tasks.drug_result import DOSE

    return (
        "percentile: 0 = the most sensitive of the training lines, 100 = the most resistant. against it: predicted "
        "IC50 against the mean of the drug over training lines, which is what one would say without looking at the "
        "sample. "
        f"clear: the range at {result.level:.0%} excludes that mean; otherwise the sample can't be told from an "
        f"average line. weak: predicted above {DOSE:g} µM, the highest dose of many screens, so hardly any effect."
    )


def _number(value: float) -> str:
    return f"{value:.3f}" if math.isfinite(value) else "–"


def _wrapped(text: str, indent: str = "") -> list[str]:
    return textwrap.wrap(text, WIDTH, initial_indent=indent, subsequent_indent=indent + ("  " if indent else ""))
