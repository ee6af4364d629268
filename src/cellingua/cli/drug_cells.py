"""``cellingua drug cells FILE``: sensitive or resistant, on labelled cells or from cell lines."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cellingua.cli.drug_fit import add_response_options, response_options
from cellingua.cli.options import add_reading, add_running

if TYPE_CHECKING:
    from cellingua.core.progress import Progress
    from cellingua.tasks.drug_cells import DrugCells
    from cellingua.tasks.drug_transfer import DrugTransfer

METHODS = ("classifier", "prototypes", "lora", "full", "langcell", "langcell_ce", "cellm", "scbert")
TRANSFER = ("strong ridge", "ridge", "classifier", "random forest")


def add_cells(verbs: argparse._SubParsersAction, common: argparse.ArgumentParser) -> None:
    """Add ``cells`` to the verbs of ``cellingua drug``."""
    parser = verbs.add_parser(
        "cells",
        parents=[common],
        help="how well labelled cells are told sensitive from resistant",
        description="Learn sensitive or resistant from 5 % (few-shot) and 80 % (full) of labelled cells, as CellLM "
        "reports it, beside a logistic regression and with whole samples left out; and say where the label is the "
        "sample. FILE may be a folder of downloaded files (10x triplets, text matrices) with --table.",
        epilog="Example: cellingua drug cells labelled.h5ad --labels-from response --sample-key sample",
    )
    parser.add_argument("file", metavar="FILE", help="h5ad, zarr, 10x .h5, a 10x mtx folder; with --table a folder")
    parser.add_argument("--labels-from", default="label", metavar="COLUMN", help="column of obs (default: label)")
    parser.add_argument("--table", metavar="TABLE", help="barcode, label and sample of each cell, for a folder")
    parser.add_argument("--allow-missing", action="store_true", help="leave out rows whose barcode no file has")
    parser.add_argument("--sensitive", metavar="LABEL", help="the label that means sensitive (default: found)")
    parser.add_argument("--resistant", metavar="LABEL", help="the label that means resistant (default: found)")
    parser.add_argument("--sample-key", metavar="COLUMN", help="column of obs with the sample or donor of each cell")
    add_reading(parser)
    how = parser.add_argument_group("protocol")
    how.add_argument("--method", choices=METHODS, default="classifier", help="of tuning (default: classifier)")
    how.add_argument("--few", type=float, default=0.05, metavar="S", help="share learned from (default: 0.05)")
    how.add_argument("--full", type=float, default=0.8, metavar="S", help="share learned from (default: 0.8)")
    how.add_argument("--draws", type=int, default=10, metavar="N", help="random draws of each (default: 10)")
    how.add_argument("--seed", type=int, default=0, metavar="N", help="of everything random (default: 0)")
    bulk = parser.add_argument_group("without a labelled cell (labels serve to judge alone)")
    bulk.add_argument("--drug", action="append", default=[], metavar="D", help="what the labels are about; repeatable")
    bulk.add_argument("--drug-model", default="drug_mini", metavar="M", help="what predicts it (default: drug_mini)")
    bulk.add_argument("--lines", metavar="TABLE", help="expression of cell lines to learn from instead, lines x genes")
    bulk.add_argument("--responses", metavar="TABLE", help="theirs: one row a measurement: line, drug and IC50")
    bulk.add_argument("--transfer", choices=TRANSFER, default=TRANSFER[0], help=f"how (default: {TRANSFER[0]})")
    bulk.add_argument(
        "--as-is", action="store_true", help="the cells hold z-scores, no counts: scored by --lines alone"
    )
    bulk.add_argument("--scores", metavar="OUT.tsv", help="with --lines: write the score of each cell")
    add_response_options(bulk)
    parser.add_argument("-o", "--output", metavar="OUT.json", help="write all figures")
    parser.add_argument("--force", action="store_true", help="replace OUT if it exists")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    add_running(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Measure one file or folder."""
    from cellingua.cli.outputs import staged
    from cellingua.core.files import refuse_overwrite, write_json
    from cellingua.core.progress import Console, Silent
    from cellingua.core.runtime import set_threads

    _check(args)
    targets = [Path(name) for name in (args.output, args.scores) if name]
    for target in targets:
        refuse_overwrite(target, force=args.force, file=True)
    set_threads(args.threads)
    progress = Silent() if args.quiet else Console()
    with staged(targets) as partial:
        found, moved = _measured(args, progress)
        figures = ({} if found is None else found.to_dict()) | (
            {} if moved is None else {"from_lines": moved.to_dict()}
        )
        if args.output:
            write_json(partial[Path(args.output)], figures)
        if args.scores and moved is not None:
            moved.scores.to_csv(partial[Path(args.scores)], sep="\t", index_label="cell", float_format="%.6g")
    if args.json:
        print(json.dumps(figures, indent=1, ensure_ascii=False))
    elif not args.quiet:
        print(text(found, moved))
    return 0


def _check(args: argparse.Namespace) -> None:
    from cellingua.core.errors import ConfigError

    for name in ("few", "full"):
        if not 0 < getattr(args, name) < 1:
            raise ConfigError(f"--{name} is {getattr(args, name)}.", "above 0 and below 1")
    if bool(args.lines) != bool(args.responses):
        raise ConfigError("One of --lines and --responses was given.", "expression and responses of the same lines")
    if args.lines and not args.drug:
        raise ConfigError("--lines was given without a drug.", "the drug that the labels are about", "--drug NAME")
    if args.scores and not args.lines:
        raise ConfigError("--scores was given without --lines.", "tables of cell lines to score cells by")
    if args.as_is and not args.lines:
        raise ConfigError("--as-is was given without --lines.", "tables of cell lines: a model reads counts alone")
    if args.lines and args.table:
        raise ConfigError("--lines and --table were both given.", "a file of cells with --lines", "one at a time")
    if len(args.drug) > 1 and not args.lines:
        raise ConfigError(f"{len(args.drug)} drugs were named.", "the one that the labels are about")


def _measured(args: argparse.Namespace, progress: Progress) -> tuple[DrugCells | None, DrugTransfer | None]:
    """Return the figures of labelled cells (None for cells without counts), and those from lines, if there are any."""
    from cellingua.tasks.drug_cells import drug_cells
    from cellingua.tasks.drug_transfer import drug_transfer

    means = {"sensitive": args.sensitive, "resistant": args.resistant}
    moved = None
    if args.lines:
        moved = drug_transfer(
            args.file, args.lines, args.responses, drugs=args.drug, labels_from=args.labels_from, method=args.transfer,
            options=response_options(args), genes_in_rows=args.genes_in_rows, layer=args.layer, as_is=args.as_is,
            seed=args.seed, progress=progress, **means,
        )  # fmt: skip
    if args.as_is:
        return None, moved
    found = drug_cells(
        args.file, args.labels_from, table=args.table, sample_key=args.sample_key, model=args.model, layer=args.layer,
        few=args.few, full=args.full, draws=args.draws, drug=None if args.lines or not args.drug else args.drug[0],
        drug_model=args.drug_model, allow_missing=args.allow_missing, device=args.device, progress=progress,
        method=args.method, seed=args.seed, **means,
    )  # fmt: skip
    return found, moved


def text(found: DrugCells | None, moved: DrugTransfer | None = None) -> str:
    """Return the figures for people."""
    from cellingua.cells.wording import printable

    lines = [] if found is None else _labelled(found)
    if moved is not None:
        lines += ["", f"from cell lines ({moved.facts['method']}, {moved.facts['genes']:,} genes):"]
        lines += [f"  {printable(name)}: AUROC {value:.3f}" for name, value in moved.auroc.items() if value is not None]
        lines += [f"! {printable(warning)}" for warning in moved.warnings]
    if found is not None:
        lines += ["", *(f"! {printable(warning)}" for warning in found.warnings)]
        lines += [printable(note) for note in found.notes]
    return "\n".join(lines).strip("\n")


def _labelled(found: DrugCells) -> list[str]:
    """Return the figures of labelled cells as lines."""
    from cellingua.cells.wording import count_of, printable

    facts = found.facts
    means = {key: printable(label) for key, label in facts["means"].items()}
    lines = [
        f"{count_of(facts['sensitive'], 'sensitive cell')} ({means['sensitive']!r}), "
        f"{count_of(facts['resistant'], 'resistant cell')} ({means['resistant']!r})"
    ]
    if facts["without_label"] or facts["others"]:
        others = sum(facts["others"].values())
        lines.append(f"left out: {facts['without_label']:,} without a label, {others:,} with another one")
    for title, part in (("few-shot", found.few), ("full", found.full)):
        learned = part["learned_from"]
        lines += [
            "",
            f"{title}: learned from {learned['sensitive']:,} + {learned['resistant']:,} cells, drawn at random; mean "
            f"of {part['draws']} draws",
            *_rows(part["methods"]),
        ]
    if found.samples.get("methods"):
        lines += ["", f"samples left out: {count_of(found.samples['judged'], 'cell')} judged"]
        lines += _rows(found.samples["methods"])
    if found.shipped:
        part = found.shipped
        lines += ["", f"{part['model']}, which saw no labelled cell, for {part['drug']}: AUROC {part['auroc']:.3f}"]
    return lines


def _rows(methods: dict[str, dict[str, Any]]) -> list[str]:
    width = max(len(name) for name in methods)
    lines = [f"  {'':<{width}}  {'F1':>6}  {'macro-F1':>8}  {'AUROC':>6}"]
    for name, value in methods.items():
        said = ["-" if value[key] is None else f"{value[key]:.3f}" for key in ("f1", "macro_f1", "auroc")]
        lines.append(f"  {name:<{width}}  {said[0]:>6}  {said[1]:>8}  {said[2]:>6}")
    return lines
