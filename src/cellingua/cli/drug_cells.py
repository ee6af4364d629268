"""``cellingua drug cells FILE``: sensitive or resistant, on labelled cells or from cell lines."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cellingua.cli.options import add_reading, add_running

if TYPE_CHECKING:
    from cellingua.tasks.drug_cells import DrugCells

METHODS = ("classifier", "prototypes", "lora", "full", "langcell", "langcell_ce", "cellm", "scbert")


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
    parser.add_argument("-o", "--output", metavar="OUT.json", help="write all figures")
    parser.add_argument("--force", action="store_true", help="replace OUT if it exists")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    add_running(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Measure one file or folder."""
    from cellingua.core.errors import ConfigError
    from cellingua.core.files import refuse_overwrite, write_json
    from cellingua.core.progress import Console, Silent
    from cellingua.core.runtime import set_threads
    from cellingua.tasks.drug_cells import drug_cells

    for name in ("few", "full"):
        if not 0 < getattr(args, name) < 1:
            raise ConfigError(f"--{name} is {getattr(args, name)}.", "above 0 and below 1")
    if args.output:
        refuse_overwrite(Path(args.output), force=args.force, file=True)
    set_threads(args.threads)
    found = drug_cells(
        args.file,
        args.labels_from,
        table=args.table,
        sensitive=args.sensitive,
        resistant=args.resistant,
        sample_key=args.sample_key,
        model=args.model,
        layer=args.layer,
        few=args.few,
        full=args.full,
        draws=args.draws,
        allow_missing=args.allow_missing,
        device=args.device,
        progress=Silent() if args.quiet else Console(),
        method=args.method,
        seed=args.seed,
    )
    if args.output:
        write_json(Path(args.output), found.to_dict())
    if args.json:
        print(json.dumps(found.to_dict(), indent=1, ensure_ascii=False))
    elif not args.quiet:
        print(text(found))
    return 0


def text(found: DrugCells) -> str:
    """Return the figures for people."""
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
    if found.warnings:
        lines += ["", *(f"! {printable(warning)}" for warning in found.warnings)]
    return "\n".join([*lines, *(printable(note) for note in found.notes)])


def _rows(methods: dict[str, dict[str, Any]]) -> list[str]:
    width = max(len(name) for name in methods)
    lines = [f"  {'':<{width}}  {'F1':>6}  {'macro-F1':>8}  {'AUROC':>6}"]
    for name, value in methods.items():
        said = ["-" if value[key] is None else f"{value[key]:.3f}" for key in ("f1", "macro_f1", "auroc")]
        lines.append(f"  {name:<{width}}  {said[0]:>6}  {said[1]:>8}  {said[2]:>6}")
    return lines
