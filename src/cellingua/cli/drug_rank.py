"""``cellingua drug rank`` and ``cellingua drug predict``: which drugs may work on a line, a tumour, a cluster."""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cellingua.core.errors import FileError, InputError

if TYPE_CHECKING:
    from cellingua.core.progress import Progress
    from cellingua.models.drug_model import DrugModel
    from cellingua.tasks.drug_answer import DrugOptions
    from cellingua.tasks.drug_result import DrugResult

MODEL = "drug_mini"
ORDERS = ("percentile", "difference", "ic50")
LEVELS = (0.5, 0.8, 0.9, 0.95)
ENDINGS = tuple(
    f"{ending}{packed}"
    for ending in (".h5ad", ".zarr", ".h5", ".mtx", ".csv", ".tsv", ".txt", ".tab", ".parquet")
    for packed in (".gz", "")
)


def add_rank(kinds: argparse._SubParsersAction, common: argparse.ArgumentParser) -> None:
    """Add ``rank``."""
    parser = kinds.add_parser(
        "rank",
        parents=[common],
        help="rank drugs for each cluster, line or tumour, with a report",
        description="Rank drugs for each cluster of a file of cells (pseudo-bulk), or each line of a table. Results go "
        "to NAME_drugs/ beside the file: a report with a heat map, a table, and a summary for programs. Without a "
        "FILE: for the lung tumour that ships with the package, into the current folder. For research, not for "
        "clinical use.",
        epilog="Example: cellingua drug rank tumour.h5ad --cluster-key cell_type",
    )
    parser.add_argument(
        "file", nargs="?", metavar="FILE",
        help="cells (h5ad, zarr, 10x .h5, mtx folder) or a table, lines x genes (csv, tsv, parquet); default: a "
        "shipped lung adenocarcinoma",
    )  # fmt: skip
    add_input(parser)
    parser.add_argument("--per-cell", action="store_true", help="also predict each cell, into NAME.drugs.h5ad")
    parser.add_argument(
        "--by", choices=ORDERS, default="percentile",
        help="percentile (default): which share of the training lines is predicted to be more sensitive; difference: "
        "from the drug's mean in ln IC50; ic50: potency, by which drugs that kill every line come first",
    )  # fmt: skip
    parser.add_argument("--top", type=int, default=8, metavar="N", help="drugs that are printed a sample (default: 8)")
    out = parser.add_argument_group("output")
    out.add_argument("--out-dir", metavar="DIR", help="where NAME_drugs/ goes (default: beside FILE)")
    out.add_argument("--report", action=argparse.BooleanOptionalAction, default=True, help="write report and figure")
    out.add_argument("--list", action="store_true", help="list the drugs that the model knows, and do nothing else")
    add_running(parser)
    parser.set_defaults(run=run_rank)


def add_predict(kinds: argparse._SubParsersAction, common: argparse.ArgumentParser) -> None:
    """Add ``predict``."""
    parser = kinds.add_parser(
        "predict",
        parents=[common],
        help="predict responses as a table, one row a sample and drug",
        description="Predict ln IC50 and IC50 in µM of samples and drugs, as one table. For research, not for clinical "
        "use.",
        epilog="Example: cellingua drug predict lines.csv --drugs 'Erlotinib; Trametinib' -o predicted.tsv",
    )
    parser.add_argument("file", metavar="FILE", help="cells, or a table, lines x genes")
    add_input(parser)
    parser.add_argument("-o", "--output", required=True, metavar="OUT.tsv", help="the table")
    add_running(parser)
    parser.set_defaults(run=run_predict, per_cell=False, by="percentile")


def add_input(parser: argparse.ArgumentParser) -> None:
    """Add which rows belong together, how they are read, and which drugs."""
    which = parser.add_argument_group("which rows belong together (one of them for a file of cells)")
    which.add_argument("--cluster-key", metavar="K", help="column of obs: each of its labels is a pseudo-bulk")
    which.add_argument("--whole", action="store_true", help="all cells are one sample, such as one culture")
    which.add_argument("--bulk", action="store_true", help="each row is a line or a tumour, in any unit")
    reading = parser.add_argument_group("reading")
    reading.add_argument("--genes-in-rows", action="store_true", help="the table has one row a gene")
    reading.add_argument("--layer", metavar="L", help="layer that holds the counts (default: found by the doctor)")
    reading.add_argument("--model", default=MODEL, metavar="M", help=f"name or folder of a drug model ({MODEL})")
    drugs = parser.add_argument_group("drugs (default: all that the model knows)")
    drugs.add_argument("--drugs", metavar="FILE|LIST", help='a file with one name a line, or "a; b; c"')
    drugs.add_argument(
        "--smiles", metavar="FILE",
        help="drugs that are new to the model: a table with the columns drug and smiles (needs cellingua[drug]); "
        "alone, only these are asked about",
    )  # fmt: skip
    drugs.add_argument("--salts", choices=("keep", "strip"), default="keep", help="fragments of a SMILES (keep)")
    parser.add_argument("--level", type=float, choices=LEVELS, default=0.9, help="of the ranges (default: 0.9)")


def add_running(parser: argparse.ArgumentParser) -> None:
    """Add how loudly to run, and whether results that exist are replaced."""
    parser.add_argument("--force", action="store_true", help="replace results that exist")
    parser.add_argument("--json", action="store_true", help="print the summary as JSON")
    parser.add_argument("--threads", type=int, metavar="N", help="processor threads (default: all)")
    parser.add_argument("--quiet", action="store_true", help="print nothing but errors")


@dataclass(frozen=True)
class DrugOutputs:
    """The files that a ranking writes; `cells` and `report` are None where they were not asked for."""

    folder: Path
    table: Path
    summary: Path
    report: Path | None
    cells: Path | None

    @property
    def files(self) -> list[Path]:
        """The files of fixed name."""
        return [path for path in (self.table, self.summary, self.report, self.cells) if path is not None]


def run_rank(args: argparse.Namespace) -> int:
    """Rank drugs for one input."""
    from cellingua.cli.outputs import staged
    from cellingua.core.progress import Console, Silent
    from cellingua.core.runtime import set_threads
    from cellingua.models.drug_bundle import load_drug_model
    from cellingua.tasks.drug_rank import SAMPLE_KEY, sample_path

    if args.top < 1:
        raise InputError(f"{args.top} drugs were asked for.", "1 or more")
    set_threads(args.threads)
    if args.list:
        return _list(load_drug_model(args.model))
    shipped = args.file is None
    source = sample_path() if shipped else Path(args.file)
    if shipped and not (args.cluster_key or args.whole or args.bulk):
        args.cluster_key = SAMPLE_KEY
    places = outputs_for(source, args.out_dir or (str(Path.cwd()) if shipped else None), args.report, args.per_cell)
    _check(source, places, force=args.force)
    model = load_drug_model(args.model)
    options = _options(args, model)
    progress: Progress = Silent() if args.quiet else Console()
    figures = places.folder / "figures"
    with staged([*places.files, *([figures] if places.report else [])]) as partial:
        result, summary = _ranked(source, model, options, args, places, partial, progress)
        if places.report:
            from cellingua.report.drug_page import write_drug_report

            progress.step("Drawing the report")
            page = write_drug_report(result, model, source.name, partial[figures], shipped=shipped)
            partial[places.report].write_text(page, encoding="utf-8")
        result.to_frame().to_csv(partial[places.table], sep="\t", float_format="%.5g", index=False)
        text = json.dumps(summary, indent=1, ensure_ascii=False) + "\n"
        partial[places.summary].write_text(text, encoding="utf-8")
    if args.json:
        print(json.dumps(summary, indent=1, ensure_ascii=False))
    elif not args.quiet:
        from cellingua.cli.drug_text import ranking_text

        print(ranking_text(result, args.top, summary["written"], shipped=shipped))
    return 0


def _ranked(
    source: Path, model: DrugModel, options: DrugOptions, args: argparse.Namespace, places: DrugOutputs,
    partial: dict[Path, Path], progress: Progress,
) -> tuple[DrugResult, dict[str, Any]]:  # fmt: skip
    """Return the result and its summary; write each cell's predictions where they were asked for."""
    from cellingua.cells.doctor import examine
    from cellingua.cells.reading import open_cells
    from cellingua.tasks.drug_answer import answer
    from cellingua.tasks.drug_rank import KEY
    from cellingua.tasks.drug_tables import is_table
    from cellingua.tasks.writing import storable, write_annotated

    diagnosis: dict[str, Any] | None = None
    if is_table(source):
        result = answer(source, model, options, progress=progress)
    else:
        with open_cells(source) as cells:
            found = None
            if not options.bulk and (options.cluster_key or options.whole):
                progress.step("Examining the file")
                found = examine(cells, layer=options.layer)
                diagnosis = found.to_dict()
            result = answer(cells, model, options, diagnosis=found, progress=progress)
            if places.cells is not None and result.cells is not None:
                progress.step("Writing each cell's predictions")
                write_annotated(
                    cells, partial[places.cells], columns={}, obsm={KEY: result.cells.ln_ic50},
                    uns={KEY: storable({**result.provenance, "drugs": result.drugs})},
                )  # fmt: skip
    for note in (*result.set.notes, *result.notes):
        progress.say(note)
    names = {"table": places.table, "summary": places.summary, "report": places.report, "cells": places.cells}
    written = {name: str(path) for name, path in names.items() if path is not None}
    return result, {"file": str(source), **result.summary(args.top), "diagnosis": diagnosis, "written": written}


def run_predict(args: argparse.Namespace) -> int:
    """Predict one input."""
    from cellingua.cli.outputs import refuse_same
    from cellingua.core.files import atomic_path, check_writable, refuse_overwrite
    from cellingua.core.progress import Console, Silent
    from cellingua.core.runtime import set_threads
    from cellingua.models.drug_bundle import load_drug_model
    from cellingua.tasks.drug_answer import answer
    from cellingua.tasks.drug_rank import in_given_order

    set_threads(args.threads)
    source, output = Path(args.file), Path(args.output)
    refuse_same(source, output)
    refuse_overwrite(output, force=args.force, file=True)
    model = load_drug_model(args.model)
    progress: Progress = Silent() if args.quiet else Console()
    result = answer(source, model, _options(args, model), progress=progress)
    for note in result.set.notes:
        progress.say(note)
    if not output.parent.is_dir():
        check_writable(output.parent)
    try:
        with atomic_path(output) as partial:
            in_given_order(result).to_csv(partial, sep="\t", float_format="%.5g", index=False)
    except OSError as error:
        raise FileError(f"{output} can't be written ({error.strerror}).", "a path that you may write to") from error
    if args.json:
        print(json.dumps({"file": str(source), **result.summary(), "written": {"table": str(output)}}, indent=1))
    elif not args.quiet:
        from cellingua.cli.drug_text import predicted_text

        print(predicted_text(result, output))
    return 0


def outputs_for(source: Path, out_dir: str | None, report: bool, per_cell: bool) -> DrugOutputs:
    """Return where the results for `source` go: ``NAME_drugs/`` beside it, or in `out_dir`."""
    import os

    from cellingua.cli.outputs import stem_of

    absolute = Path(os.path.abspath(source))
    name = stem_of(absolute, ENDINGS)
    folder = (Path(out_dir) if out_dir else absolute.parent) / f"{name}_drugs"
    return DrugOutputs(
        folder, folder / f"{name}.drugs.tsv", folder / "summary.json", folder / "report.html" if report else None,
        folder / f"{name}.drugs.h5ad" if per_cell else None,
    )  # fmt: skip


def _check(source: Path, places: DrugOutputs, *, force: bool) -> None:
    """Refuse what can't or must not be written, before any work is done."""
    from cellingua.cli.outputs import refuse_same
    from cellingua.core.files import refuse_overwrite

    for path in places.files:
        refuse_same(source, path)
        refuse_overwrite(path, force=force, file=True)
    if places.folder.exists() and not places.folder.is_dir():
        raise FileError(f"{places.folder} is a file.", "a folder for the results", "another --out-dir")


def _options(args: argparse.Namespace, model: DrugModel) -> DrugOptions:
    """Return the options of a call; unknown drugs and unreadable SMILES are refused here, before anything is read."""
    from cellingua.tasks.drug_answer import DrugOptions, known_drugs, refuse_mixed
    from cellingua.tasks.drug_pairs import read_smiles

    molecules = tuple(read_smiles(args.smiles, salts=args.salts)) if args.smiles else ()
    drugs = None if args.drugs is None else tuple(known_drugs(model, names_of(args.drugs)))
    if drugs is None and molecules:
        drugs = ()
    options = DrugOptions(
        args.cluster_key, args.whole, args.bulk, args.genes_in_rows, args.layer, drugs, molecules, args.by, args.level,
        args.per_cell,
    )  # fmt: skip
    refuse_mixed(options)
    return options


def names_of(text: str) -> list[str]:
    """Return names from a file with one a line, or from a list."""
    from cellingua.cli.annotate import is_file

    path = Path(text)
    if is_file(path):
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
        names = [line.split("\t")[0].strip() for line in lines]
    else:
        names = [part.strip() for part in (text.split(";") if ";" in text else text.split(","))]
    names = [name for name in names if name]
    if not names:
        raise InputError(f"No drug is named in {text!r}.", "names of drugs", "a file with one a line, or 'a; b; c'")
    return names


def _list(model: DrugModel) -> int:
    """Print the drugs that a model knows."""
    from cellingua.cells.wording import printable

    width = max(len(drug.name) for drug in model.drugs)
    print(f"{'drug':<{width}}  {'lines':>5}  {'mean ln IC50':>12}  {'sd':>5}")
    for drug in sorted(model.drugs, key=lambda one: one.name.lower()):
        print(f"{printable(drug.name):<{width}}  {drug.pairs:>5,}  {drug.mean:>12.2f}  {drug.sd:>5.2f}")
    return 0
