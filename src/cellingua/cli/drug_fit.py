"""``cellingua drug fit`` and ``drug evaluate``: a model from one's own tables, and how good one is on them."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cellingua.core.progress import Progress
    from cellingua.tasks.drug_pairs import ResponseOptions

MODEL = "drug_mini"
UNITS = ("ln_um", "log10_um", "log10_m", "pic50", "um", "nm", "m")


def add_fit(kinds: argparse._SubParsersAction, common: argparse.ArgumentParser) -> None:
    """Add ``fit``."""
    parser = kinds.add_parser(
        "fit",
        parents=[common],
        help="fit a model to your own expression and IC50 tables",
        description="Fit a drug model to expression and responses of cell lines, and save it as a folder that the "
        "other drug commands take with --model. How good it is on lines left out is printed and stored with it.",
        epilog="Example: cellingua drug fit lines.csv --responses ic50.csv -o my_drugs",
    )
    _add_tables(parser)
    parser.add_argument("--smiles", metavar="FILE", help="columns drug and smiles: one compound under two names is one "
                        "drug, and new drugs can be predicted (needs cellingua[drug])")  # fmt: skip
    parser.add_argument("--salts", choices=("keep", "strip"), default="keep", help="fragments of a SMILES (keep)")
    parser.add_argument("-o", "--output", required=True, metavar="DIR", help="folder of the model")
    _add_running(parser)
    parser.set_defaults(run=run_fit)


def add_evaluate(kinds: argparse._SubParsersAction, common: argparse.ArgumentParser) -> None:
    """Add ``evaluate``."""
    parser = kinds.add_parser(
        "evaluate",
        parents=[common],
        help="measure a model on lines whose responses are known",
        description="Predict measured pairs of lines and drugs, and compare: over all pairs, within drugs, within "
        "lines, beside what the mean of each drug says; and how many of the ranges hold.",
        epilog="Example: cellingua drug evaluate lines.csv --responses ic50.csv --model my_drugs",
    )
    _add_tables(parser)
    parser.add_argument("--model", default=MODEL, metavar="M", help=f"name or folder of a drug model ({MODEL})")
    parser.add_argument("-o", "--output", metavar="OUT.tsv", help="write each pair with its prediction and range")
    _add_running(parser)
    parser.set_defaults(run=run_evaluate)


def _add_tables(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="EXPRESSION", help="lines x genes: csv, tsv, parquet, or an h5ad of lines")
    parser.add_argument(
        "--responses",
        required=True,
        metavar="TABLE",
        help="one row a measurement: line, drug and IC50 (csv, tsv, parquet)",
    )
    reading = parser.add_argument_group("reading")
    add_response_options(reading)
    reading.add_argument("--layer", metavar="L", help="layer of an h5ad with the expression")


def add_response_options(reading: argparse._ArgumentGroup) -> None:
    """Add how the tables of lines are read: see `response_options`."""
    reading.add_argument("--line-column", default="line", metavar="C", help="of the responses (default: line)")
    reading.add_argument("--drug-column", default="drug", metavar="C", help="of the responses (default: drug)")
    reading.add_argument("--value-column", metavar="C", help="of the responses (default: the one that says IC50)")
    reading.add_argument("--unit", choices=UNITS, help="of the values, where the column's name doesn't say it")
    reading.add_argument(
        "--disagreeing", choices=("refuse", "mean", "drop"), default="refuse",
        help="repeats of a pair more than tenfold apart (default: refuse)",
    )  # fmt: skip
    reading.add_argument(
        "--missing", choices=("refuse", "drop"), default="refuse",
        help="rows whose line has no expression, or whose drug is not known (default: refuse)",
    )  # fmt: skip
    reading.add_argument("--genes-in-rows", action="store_true", help="the table of expression has one row a gene")


def _add_running(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of everything random (default: 0)")
    parser.add_argument("--force", action="store_true", help="replace the output if it exists")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    parser.add_argument("--threads", type=int, metavar="N", help="processor threads (default: all)")
    parser.add_argument("--quiet", action="store_true", help="print nothing but errors")


def run_fit(args: argparse.Namespace) -> int:
    """Fit a model to two tables."""
    from cellingua.core.files import check_writable, refuse_overwrite
    from cellingua.core.progress import Console, Silent
    from cellingua.core.runtime import set_threads
    from cellingua.tasks.drug_fit import drug_fit

    set_threads(args.threads)
    output = Path(args.output)
    refuse_overwrite(output, force=args.force)
    progress: Progress = Silent() if args.quiet else Console()
    if not output.parent.is_dir() and Path(args.file).exists() and Path(args.responses).exists():
        check_writable(output.parent)
    model = drug_fit(
        args.file, args.responses, output, smiles=args.smiles, salts=args.salts, options=response_options(args),
        layer=args.layer, genes_in_rows=args.genes_in_rows, seed=args.seed, overwrite=args.force, progress=progress,
    )  # fmt: skip
    facts = {"model": str(output), "drugs": len(model.drugs), "genes": len(model.genes), **model.facts}
    if args.json:
        print(json.dumps(facts, indent=1, ensure_ascii=False, default=str))
    elif not args.quiet:
        print(_fitted_text(facts, output))
    return 0


def run_evaluate(args: argparse.Namespace) -> int:
    """Measure a model on two tables."""
    from cellingua.cli.drug_text import evaluation_text
    from cellingua.core.files import atomic_path, check_writable, refuse_overwrite
    from cellingua.core.progress import Console, Silent
    from cellingua.core.runtime import set_threads
    from cellingua.tasks.drug_fit import drug_evaluate

    set_threads(args.threads)
    output = Path(args.output) if args.output else None
    if output is not None:
        refuse_overwrite(output, force=args.force, file=True)
    progress: Progress = Silent() if args.quiet else Console()
    found = drug_evaluate(
        args.file, args.responses, model=args.model, options=response_options(args), layer=args.layer,
        genes_in_rows=args.genes_in_rows, seed=args.seed, progress=progress,
    )  # fmt: skip
    if output is not None:
        check_writable(output.parent)
        with atomic_path(output) as partial:
            found.pairs.to_csv(partial, sep="\t", float_format="%.5g", index=False)
    if args.json:
        print(json.dumps(found.to_dict(), indent=1, ensure_ascii=False))
    elif not args.quiet:
        print(evaluation_text(found))
    return 0


def response_options(args: argparse.Namespace) -> ResponseOptions:
    """Return how the table of responses is read."""
    from cellingua.tasks.drug_pairs import ResponseOptions

    return ResponseOptions(
        args.line_column, args.drug_column, args.value_column, args.unit, args.disagreeing, args.missing
    )


def _fitted_text(facts: dict[str, Any], output: Path) -> str:
    """Return what is printed after fitting: sizes, figures on lines left out, the next command."""
    lines = ["", f"{facts['drugs']:,} drugs, {facts.get('lines', 0):,} lines, {facts['genes']:,} genes"]
    left = facts.get("left_out")
    if left:
        lines.append(
            f"on lines left out: Pearson {left['pearson']:.3f}, RMSE {left['rmse']:.3f} (ln µM), median Pearson within "
            f"a drug {left['pearson_within_drug']:.3f}"
        )
    held = facts.get("coverage_left_out", {}).get("0.9")
    if held is not None:
        lines.append(f"of the ranges at 90 % for lines left out, {held:.1%} hold the truth")
    return "\n".join([*lines, "", f"cellingua drug rank FILE --model {output}"])
