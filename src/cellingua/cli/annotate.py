"""``cellingua annotate FILE``: names for every cell, an annotated h5ad, a table and a report."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cellingua.cli.options import add_precision, add_reading, add_running
from cellingua.core.errors import CellinguaError, FileError, InputError

if TYPE_CHECKING:
    from cellingua.cli.outputs import Outputs
    from cellingua.core.progress import Progress
    from cellingua.models.tuned import Model
    from cellingua.tasks.options import AnnotateOptions, Labels
    from cellingua.tasks.result import Annotation
    from cellingua.words.candidates import Candidates

MATCH_TOP = 8
SHOWN = 12  # labels in the printed table


def add(verbs: argparse._SubParsersAction, common: argparse.ArgumentParser) -> None:
    """Add the verb."""
    parser = verbs.add_parser(
        "annotate",
        parents=[common],
        help="name the cells of a file",
        description="Name every cell of a file. Results go to NAME_cellingua/ beside the file: an annotated "
        "h5ad, a table, a report, figures, and a summary for programs.",
        epilog='Example: cellingua annotate cells.h5ad --labels "B cell; T cell; monocyte"',
    )
    parser.add_argument("files", nargs="+", metavar="FILE", help="h5ad, zarr, 10x .h5, or a 10x mtx folder")
    what = parser.add_argument_group("candidates (default: the whole Cell Ontology, or a tuned model's own classes)")
    what.add_argument("--label", action="append", metavar="L", help="a name, CL id or free text; repeatable")
    what.add_argument("--labels", metavar="FILE|LIST", help='a file (one a line, tab, description) or "a; b; c"')
    what.add_argument("--tissue", metavar="T", help="UBERON name or id: its types, or how to read ambiguous labels")
    add_reading(parser)
    add_precision(parser)
    answers = parser.add_argument_group("answers (default: a probability of one half, alone or with all kinds of it)")
    answers.add_argument(
        "--error-rate", type=float, metavar="E",
        help="share of cells that may be left without a right answer, such as 0.05: each cell gets the narrowest term "
        "that keeps it, and is unknown where none does or where it seems to be of none of the candidates",
    )  # fmt: skip
    answers.add_argument(
        "--smooth", action="store_true", help="also write KEY_smoothed: answers helped by neighbouring cells"
    )
    answers.add_argument(
        "--in-sample", action="store_true",
        help="also write KEY_in_sample: answers corrected for the composition of the sample (see --sample-key)",
    )  # fmt: skip
    match = parser.add_argument_group("matching (default: names by similarity alone)")
    match.add_argument(
        "--match",
        nargs="?",
        const="ours",
        choices=("ours", "compat"),
        help="also read each cell together with the texts of its likeliest candidates (a model with a match head); "
        "compat combines the scores as the released LangCell does",
    )
    match.add_argument(
        "--match-top", type=int, default=MATCH_TOP, metavar="K",
        help=f"candidates of a cell that are matched; 0 for all (default: {MATCH_TOP})",
    )  # fmt: skip
    columns = parser.add_argument_group("columns of obs")
    columns.add_argument("--cluster-key", metavar="K", help="clusters to name, instead of computed ones")
    columns.add_argument("--sample-key", metavar="K", help="samples, for the composition")
    columns.add_argument("--compare-to", metavar="K", help="your own labels, for agreement and confusion")
    columns.add_argument(
        "--key-added", default="cellingua", metavar="K", help="first part of the keys that are written"
    )
    out = parser.add_argument_group("output")
    out.add_argument("-o", "--output", metavar="OUT.h5ad", help="path of the annotated h5ad (one FILE only)")
    out.add_argument("--out-dir", metavar="DIR", help="where NAME_cellingua/ goes (default: beside FILE)")
    out.add_argument(
        "--report", action=argparse.BooleanOptionalAction, default=True, help="write report.html and figures"
    )
    out.add_argument("--json", action="store_true", help="print the summary as JSON")
    out.add_argument("--force", action="store_true", help="replace results, and keys, that exist")
    out.add_argument("--seed", type=int, default=0, metavar="N", help="for clusters and the map (default: 0)")
    add_running(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Annotate each file; with several, a file that fails does not stop the others."""
    from cellingua.cli.outputs import check_outputs, outputs_for
    from cellingua.core.progress import Console, Silent
    from cellingua.core.runtime import pick_device, set_threads
    from cellingua.models.shelf import load_annotator
    from cellingua.tasks.answering import answering_of
    from cellingua.tasks.options import AnnotateOptions, check_matching, choose_candidates, own_classes

    if args.output and len(args.files) > 1:
        raise InputError("-o names one file, and there are several inputs.", "one FILE with -o", "--out-dir instead")
    if args.seed < 0:
        raise InputError(f"The seed is {args.seed}.", "a whole number from 0")
    sources = [Path(name) for name in args.files]
    outputs = [outputs_for(s, output=args.output, out_dir=args.out_dir, report=args.report) for s in sources]
    check_outputs(sources, outputs, force=args.force)
    set_threads(args.threads)
    labels = read_labels(args.label, args.labels)
    candidates = choose_candidates(labels, args.tissue)
    options = AnnotateOptions(
        labels, args.tissue, args.layer, args.key_added, args.cluster_key, args.sample_key, args.compare_to,
        args.force, args.seed, args.match, args.match_top, args.error_rate, args.smooth, args.in_sample,
    )  # fmt: skip
    progress: Progress = Silent() if args.quiet else Console()
    model = load_annotator(args.model, device=pick_device(args.device).name, precision=args.precision)
    candidates = own_classes(model, candidates, labels, args.tissue)
    check_matching(model, candidates, options)
    if options.error_rate is not None:
        answering_of(model, candidates, options.error_rate, options.match)  # refuses before anything is read
    if not args.quiet:
        _say_reading(candidates, progress)
    code, summaries = 0, []
    for source, places in zip(sources, outputs, strict=True):
        try:
            summary = annotate_file(source, places, candidates, model, options, progress)
        except CellinguaError as error:
            if len(sources) == 1:
                raise
            progress.say(f"{source}: {error}")
            summaries.append({"file": str(source), "error": str(error)})
            code = max(code, error.exit_code)
            continue
        summaries.append(summary)
        if not args.quiet and not args.json:
            print(_text(summary))
    if args.json:
        print(json.dumps(summaries if len(sources) > 1 else summaries[0], indent=1, ensure_ascii=False))
    return code


def annotate_file(
    source: Path,
    places: Outputs,
    candidates: Candidates,
    model: Model,
    options: AnnotateOptions,
    progress: Progress,
) -> dict[str, Any]:
    """Annotate one file, write its results, and return the summary."""
    from cellingua.cells.doctor import examine
    from cellingua.cells.reading import open_cells
    from cellingua.cli.outputs import staged
    from cellingua.tasks.annotate import annotate_cells
    from cellingua.tasks.embed import embedding_key
    from cellingua.tasks.summary import summarise
    from cellingua.tasks.writing import check_file_keys, result_columns, storable, write_annotated

    with open_cells(source) as cells:
        key = embedding_key("joint", model)
        check_file_keys(cells, options.key_added, overwrite=options.overwrite, embedding=key, more=options.more)
        progress.step("Examining the file")
        diagnosis = examine(cells, layer=options.layer)
        progress.say(diagnosis.to_text())
        diagnosis.raise_if_refused()
        figures = places.folder / "figures"
        targets = [*places.files, *([figures] if places.report else [])]
        with staged(targets) as partial:
            result = annotate_cells(cells, candidates, model, options, diagnosis=diagnosis, progress=progress)
            if result.renamed:
                progress.say(f"{result.renamed:,} repeated cell names were made unique (-1, -2, ... behind them).")
            progress.step("Writing the annotated cells")
            write_annotated(
                cells,
                partial[places.h5ad],
                columns=result_columns(result, options.key_added),
                obsm={result.embedding_key: result.embedding},
                uns={options.key_added: storable(result.provenance)},
                names=result.names if result.renamed else None,
            )
            result.to_frame().to_csv(partial[places.table], sep="\t", float_format="%.4f")
            summary = {"file": str(source), **summarise(result), "written": _written(places)}
            text = json.dumps(summary, indent=1, ensure_ascii=False) + "\n"
            partial[places.summary].write_text(text, encoding="utf-8")
            if places.report:
                progress.step("Drawing the report")
                page = write_report(result, source.name, partial[figures], options.seed)
                partial[places.report].write_text(page, encoding="utf-8")
    return summary


def write_report(result: Annotation, title: str, figures: Path, seed: int) -> str:
    """Draw the figures into a folder and return the page."""
    from cellingua.report.figures import draw_figures
    from cellingua.report.page import render
    from cellingua.report.points import layout_of

    rows, points = layout_of(result, seed)
    return render(result, title, rows, points, draw_figures(result, rows, points, figures))


def read_labels(label: list[str] | None, labels: str | None) -> Labels | None:
    """Return the labels of ``--label`` and ``--labels`` together; None where neither was given.

    A list in one text stays one text, because only then is a comma in it looked at.
    """
    from cellingua.words.candidates import read_labels_file

    if labels is None:
        return label
    path = Path(labels)
    if is_file(path):
        return [*read_labels_file(path), *(label or [])]
    if path.suffix in (".txt", ".tsv", ".csv"):
        raise FileError(f"{path} does not exist.", "a file with one label a line", 'or a list: "B cell; T cell"')
    return labels if label is None else [*labels.rstrip("; ").split(";"), *label]


def is_file(path: Path) -> bool:
    """Return whether a path is that of a file; a long list of names is none."""
    try:
        return path.is_file()
    except (OSError, ValueError):  # a long list of labels is no possible file name
        return False


def _say_reading(candidates: Candidates, progress: Progress) -> None:
    """Say how the labels were read, if the user gave any."""
    from cellingua.cells.wording import printable

    for line in candidates.reading:
        progress.say(printable(line))


def _written(places: Outputs) -> dict[str, str]:
    found = {"h5ad": places.h5ad, "table": places.table, "summary": places.summary}
    if places.report:
        found |= {"report": places.report, "figures": places.folder / "figures"}
    return {name: str(path) for name, path in found.items()}


def _text(summary: dict[str, Any]) -> str:
    """Return what is printed at the end: the commonest labels, the shares, and where everything is."""
    from cellingua.cells.wording import printable

    rows = summary["labels"][:SHOWN]
    width = max(len(printable(row["label"])) for row in rows)
    total = max(summary["cells"], 1)
    lines = ["", f"{'label':<{width}}  {'cells':>9}  share"]
    for row in rows:
        label, share = printable(row["label"]), row["cells"] / total
        lines.append(f"{label:<{width}}  {row['cells']:>9,}  {share:5.1%}  {row['term_id']}")
    if len(summary["labels"]) > SHOWN:
        lines.append(f"and {len(summary['labels']) - SHOWN} more labels")
    shares = summary["shares"]
    told = ", ".join(f"{name.replace('_', ' ')} {share:.1%}" for name, share in shares.items())
    median, clusters = summary["median_probability"], len(summary["clusters"])
    lines += ["", f"{told}; median probability {median:.2f}; {clusters} clusters"]
    if summary["error_rate"] is not None:
        lines.append(f"at an error rate of {summary['error_rate']:g}: see status in the table")
    lines += [printable(line) for line in summary["notes"]]
    agreement = summary["agreement"]
    if agreement and agreement["exact"] is not None:
        lines.append(
            f"agreement with {printable(agreement['key'])}: {agreement['exact']:.1%} the same term, "
            f"{agreement['related']:.1%} the same, wider or narrower ({agreement['cells_compared']:,} cells)"
        )
    return "\n".join([*lines, "", *(f"{name:<8} {path}" for name, path in summary["written"].items())])
