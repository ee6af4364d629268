"""Every table of drug responses with every baseline and every stored arm, in one form.

Run as ``make bench-drug-all`` or ``python -m benchmarks.bench_drug_all``; ``make train-drug-arms`` trains the networks
before. TGSA's three splits, DeepCDR's pairs, GDSC1, GDSC2, and GDSC1 -> GDSC2, each with: global mean, drug mean, drug
+ line, factorisation without features, a ridge regression a drug, boosted trees, DeepCDR's style, the field, and the
fusion network; on TGSA's unseen lines the network once for each encoder of cells, which shows what pre-training adds,
and TGDRP as released. All learn from the same pairs and answer the same test pairs. A figure is taken from stored
answers only where their key and hash are those of the arm; what is missing is named and not measured.

Writes ``benchmarks/results/drug-all.json``. Exits 0 where every baseline of every table was measured and all arms were
there; how good an answer is, is not a bar here: those are of ``bench-drug``.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.common import at_least, shared_folder, write_result
from benchmarks.drug_arms import STORED, Arm, arms, held_out, stored
from cellingua.baselines.additive import Additive
from cellingua.baselines.drug_form import DrugBaseline, Known
from cellingua.baselines.drug_mean import DrugMean, GlobalMean
from cellingua.baselines.drug_ridge import DrugRidge
from cellingua.baselines.drug_trees import DrugTrees
from cellingua.baselines.factorisation import Factorisation
from cellingua.calibration.ranges import Ranges, covered
from cellingua.core.runtime import set_threads
from cellingua.measures.regression import MEASURES, bootstrap, within
from cellingua.models.drug_field import FieldConfig, complete
from cellingua.molecules.smiles import fingerprints, likeness
from cellingua.recipes.drug import FULL
from cellingua.recipes.drug_tables import TABLES, Question, questions

Floats = NDArray[np.float64]
LEVEL = 0.9
TRIED = Path(__file__).resolve().parent / "data" / "drug_tried.tsv"
#: Of GDSC's own pairs the best that another screen of the same pairs can say.
SAME_PAIR = "the same pair in GDSC1, else drug + line"


def scores(question: Question, said: Floats, draws: int) -> dict[str, Any]:
    """Return all measures of answers to the test pairs: over all, within drugs, within lines, with intervals."""
    truth = question.truth
    out: dict[str, Any] = {name: round(f(truth, said), 4) for name, f in MEASURES.items()}
    for name, groups in (("drug", question.drug), ("line", question.line)):
        for measure in ("pearson", "spearman", "rmse"):
            out[f"{measure} in a {name}"] = _number(within(truth, said, groups, measure=MEASURES[measure]).median)
    units = question.drug if question.kind == "unseen_drugs" else question.line
    for name in ("pearson", "rmse"):
        drawn = bootstrap(truth, said, MEASURES[name], units=units, draws=draws) if draws else None
        out[f"{name} interval"] = f"{drawn.low:.4f} to {drawn.high:.4f}" if drawn else None
    return out


def baselines(question: Question) -> Mapping[str, DrugBaseline]:
    """Return the baselines that a question can be asked of."""
    made: dict[str, DrugBaseline] = {
        "global mean": GlobalMean(),
        "drug mean": DrugMean(),
        "drug + line additive": Additive(),
        "matrix factorisation, no features": Factorisation(24, 8.0),
        "ridge a drug, 5,778 genes": DrugRidge(),
        "boosted trees, components of genes and fingerprints": DrugTrees(),
    }
    if question.kind != "random_pairs":
        del made["matrix factorisation, no features"]  # it has no factors for what is new
    if question.kind == "unseen_drugs":
        del made["ridge a drug, 5,778 genes"]
    return made


def field(question: Question) -> Floats:
    """Return the field's full table, from the views that the question's data have."""
    tables = question.data.tables
    bands = tuple(replace(band, views=tuple(view for view in band.views if view.name in tables)) for band in FULL.bands)
    config: FieldConfig = replace(FULL, bands=bands)
    alike = likeness(question.data.molecules) if question.kind == "unseen_drugs" else None
    return complete(question.grid, tables, config, molecules=alike).values


def same_pair(question: Question) -> Floats:
    """Return what the other screen measured on the same pair, and the additive guess where it measured nothing."""
    guess = Additive().complete(question.grid, Known())
    return np.where(np.isfinite(question.grid), question.grid, guess)


def plain(question: Question, draws: int, without: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    """Return method -> scores of what is fitted here."""
    known = Known(question.data.tables["wide"], fingerprints(question.data.molecules).astype(np.float64))
    ways: dict[str, Callable[[], Floats]] = {
        name: (lambda method=method: method.complete(question.grid, known))  # type: ignore[misc]
        for name, method in baselines(question).items()
    }
    if question.table == "gdsc1_to_gdsc2" and question.kind == "random_pairs":
        ways[SAME_PAIR] = lambda: same_pair(question)
    ways["field"] = lambda: field(question)
    out = {}
    for name, way in ways.items():
        if any(text in name for text in without):
            continue
        began = time.perf_counter()
        out[name] = scores(question, way()[question.line, question.drug], draws)
        _say(question, name, out[name], time.perf_counter() - began)
    return out


def trained(
    question: Question, draws: int, runs: Path
) -> tuple[dict[str, dict[str, Any]], dict[str, dict[str, Any]], list[str]]:
    """Return scores of the stored arms (the mean of their seeds as one answer), their spread, and what is missing."""
    groups: dict[tuple[str, str], list[Arm]] = {}
    missing: list[str] = []
    for arm in arms():
        if arm.question == question.name and arm.learn == "all":
            groups.setdefault((arm.method, arm.encoder), []).append(arm)
    rows: dict[str, dict[str, Any]] = {}
    spread: dict[str, dict[str, Any]] = {}
    for (method, encoder), members in groups.items():
        found = [stored(arm, question, runs) for arm in members]
        missing += [arm.name for arm, answers in zip(members, found, strict=True) if answers is None]
        answers = [one for one in found if one is not None]
        if not answers:
            continue
        name = f"{SPOKEN[method]}, {encoder}" + (f" (mean of {len(answers)})" if len(answers) > 1 else "")
        rows[name] = scores(question, np.mean(answers, axis=0), draws)
        _say(question, name, rows[name], 0.0)
        if len(answers) > 1:
            spread[f"{SPOKEN[method]}, {encoder}"] = seeds_apart(question, answers)
        if method == "network" and encoder == "expression":
            spread.setdefault(f"{SPOKEN[method]}, {encoder}", {}).update(ranges(question, np.array(answers), runs))
    return rows, spread, missing


SPOKEN = {"network": "fusion network", "deepcdr": "DeepCDR's style", "tgdrp": "TGDRP as released"}


def seeds_apart(question: Question, answers: list[Floats]) -> dict[str, Any]:
    """Return mean and deviation over seeds of single networks."""
    single = [scores(question, one, 0) for one in answers]
    out: dict[str, Any] = {"seeds": len(answers)}
    for name in ("pearson", "rmse", "pearson in a drug"):
        values = [float(one[name]) for one in single]
        out[name] = f"{np.mean(values):.4f} ± {np.std(values, ddof=1):.4f}"
    return out


def ranges(question: Question, answers: Floats, runs: Path) -> dict[str, Any]:
    """Return how often ranges hold that were learned on validation pairs, from a network that had not seen them."""
    arm = Arm(question.name, "network", "expression", 0, "train")
    said = stored(arm, question, runs) if question.chosen is not None else None
    if said is None:
        return {}
    line, drug = held_out(question)
    truth = question.grid[line, drug]
    if question.kind == "unseen_drugs":
        sd, new, units = np.ones(len(truth)), np.ones(len(question.truth)), drug
    else:
        spread = _by_drug(drug, truth - said, question.grid.shape[1])
        sd, new, units = spread[drug], spread[question.drug], line
    held = Ranges.fit(truth, said, sd, units)
    low, high = held.around(answers.mean(axis=0), new, LEVEL)
    return {
        f"covered at {LEVEL:g}": round(covered(question.truth, low, high), 4),
        "mean width of a range": round(float(np.mean(high - low)), 3),
    }


def _by_drug(drug: NDArray[np.int64], errors: Floats, number: int, prior: float = 10.0) -> Floats:
    """Return the root mean squared error of each drug, drawn to that of all by `prior` pairs."""
    whole = float(np.mean(errors**2))
    squares, count = np.bincount(drug, errors**2, number), np.bincount(drug, minlength=number)
    return np.sqrt((squares + prior * whole) / (count + prior))


def pre_training(question: Question, runs: Path) -> dict[str, dict[str, Any]]:
    """Return what a trained encoder has over random weights, and over plain expression, seed by seed."""
    single: dict[str, list[dict[str, Any]]] = {}
    for arm in arms():
        if arm.question == question.name and arm.method == "network" and arm.learn == "all":
            found = stored(arm, question, runs)
            if found is not None:
                single.setdefault(arm.encoder, []).append(scores(question, found, 0))
    out = {}
    for left, right in (
        ("cellm_mini", "cellm_random"),
        ("langcell_mini", "langcell_random"),
        ("cellm_tuned", "cellm_mini"),
        ("cellm_tuned", "cellm_scratch"),
        ("cellm_lora", "cellm_mini"),
        ("expression+cellm_mini", "expression"),
        ("cellm_mini", "expression"),
        ("langcell_mini", "expression"),
    ):
        pairs = list(zip(single.get(left, []), single.get(right, []), strict=False))
        if len(pairs) < 2:
            continue
        row: dict[str, Any] = {"seeds": len(pairs)}
        for name in ("pearson", "pearson in a drug"):
            gaps = np.array([float(a[name]) - float(b[name]) for a, b in pairs])
            row[name] = f"{gaps.mean():+.4f} ± {gaps.std(ddof=1):.4f}"
        out[f"{left} - {right}"] = row
    return out


def tried() -> dict[str, dict[str, dict[str, str]]]:
    """Return group -> setting -> measures on validation pairs, as they were written down while settings were chosen."""
    out: dict[str, dict[str, dict[str, str]]] = {}
    header, *lines = TRIED.read_text(encoding="utf-8").splitlines()
    for group, what, *values in (line.split("\t") for line in lines):
        out.setdefault(group, {})[what] = dict(zip(header.split("\t")[2:], values, strict=True))
    return out


def _number(value: float) -> float | None:
    return round(value, 4) if np.isfinite(value) else None


def _say(question: Question, name: str, found: Mapping[str, Any], seconds: float) -> None:
    print(
        f"{question.name:<28}{name:<58}{found['pearson']:>8}{found['rmse']:>8}{found['pearson in a drug']:>8}"
        f"{seconds:>7.0f}", flush=True,
    )  # fmt: skip


def main() -> int:
    """Measure, print, write the result, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=Path, default=STORED, help="where the arms are stored")
    parser.add_argument("--tables", nargs="+", default=list(TABLES), choices=TABLES)
    parser.add_argument("--without", nargs="*", default=[], help="leave out methods whose name holds one of these")
    parser.add_argument("--draws", type=int, default=100, help="resamples of the intervals")
    args = parser.parse_args()
    set_threads(1)
    folder = shared_folder() / "data" / "drug"
    figures: dict[str, Any] = {"learned_from": "train and val; settings were chosen on val of TGSA's splits"}
    missing: list[str] = []
    splits: dict[str, str] = {}
    for question in questions(folder, tuple(args.tables)):
        rows, spread, lacking = trained(question, args.draws, args.runs)
        figures[question.name] = {**plain(question, args.draws, tuple(args.without)), **rows}
        if spread:
            figures[f"{question.name}: seeds and ranges"] = spread
        if question.name == "tgsa/unseen_lines":
            figures["what pre-training adds"] = pre_training(question, args.runs)
        missing += lacking
        splits[question.name] = question.digest
    figures["what was tried, on validation pairs"] = tried()
    figures["splits_sha256"] = splits
    figures["missing_arms"] = ", ".join(missing) or "none"
    wanted = sum(1 for arm in arms() if arm.learn == "all" and arm.question.split("/")[0] in args.tables)
    bars = {
        "questions measured": at_least(len(splits), 11),
        "arms that are stored": at_least(wanted - len(missing), wanted),
    }
    files = [folder / "tgsa" / "pairs.parquet", folder / "deepcdr" / "pairs.parquet",
             folder / "gdsc" / "gdsc1.parquet", folder / "gdsc" / "gdsc2.parquet"]  # fmt: skip
    return write_result("drug-all", figures, bars, seeds={"stored draws": 42, "bootstrap": 0}, data=files)


if __name__ == "__main__":
    sys.exit(main())
