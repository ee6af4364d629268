"""``cellingua bench TASK --data FILE``: a model beside the baselines, on the same cells and the same labels."""

from __future__ import annotations

import argparse
from pathlib import Path

from cellingua.cli.options import add_reading, add_running

#: Task -> what it is; `cellingua.bench.plan` has the same, and a test compares (help loads nothing heavy).
TASKS = ("zero-shot", "controls", "few-shot", "fine-tuned")
NO_MODEL = "none"


def add(verbs: argparse._SubParsersAction, common: argparse.ArgumentParser) -> None:
    """Add the verb."""
    parser = verbs.add_parser(
        "bench",
        parents=[common],
        help="measure a model beside baselines",
        description="Measure a model and, on the same cells and the same labels, the baselines: majority, marker "
        "scoring, profile correlation, logistic regression, k-NN, PCA + linear, CellTypist's method, scANVI where it "
        "is installed, an untrained tower. Tables are printed; -o writes everything as JSON.",
        epilog="Example: cellingua bench zero-shot --data labelled.h5ad --labels-from celltype -o bench.json",
    )
    parser.add_argument(
        "task",
        choices=TASKS,
        metavar="TASK",
        help="zero-shot (no labelled cell), controls (the same from other texts), few-shot (some cells of each type), "
        "fine-tuned (80 %% of the cells, and of the donors)",
    )
    parser.add_argument("-o", "--output", metavar="JSON", help="file for the result")
    parser.add_argument("--force", action="store_true", help="replace the output if it exists")
    parser.add_argument("--json", action="store_true", help="print the result as JSON instead of tables")
    add_reading(parser)
    what = parser.add_argument_group("data")
    what.add_argument(
        "--data", required=True, metavar="PATH", help="a labelled file (h5ad, zarr, 10x), or a folder of data sets"
    )
    what.add_argument("--labels-from", default="", metavar="COLUMN", help="column of obs with the labels of a file")
    what.add_argument("--tissue", metavar="T", help="where the cells of a file come from (UBERON name or id)")
    what.add_argument("--donor-key", metavar="COLUMN", help="column of obs with the donors, which are then divided")
    what.add_argument("--sets", nargs="+", default=[], metavar="SET", help="some of the sets of a folder, by name")
    what.add_argument("--profiles", metavar="DIR", help="folder with profiles/, for profile correlation")
    how = parser.add_argument_group("how")
    how.add_argument(
        "--candidates", nargs="+", default=[], metavar="C", help="zero-shot: some of terms, labels, tissue, ontology"
    )
    how.add_argument(
        "--protocols", nargs="+", default=[], metavar="P",
        help="few-shot and fine-tuned: some of few:N, share (80/20), donors (80/20 by donor), folds (5, pooled)",
    )  # fmt: skip
    how.add_argument("--methods", nargs="+", default=[], metavar="M", help="some of the methods (default: all)")
    how.add_argument("--draws", type=int, default=5, metavar="N", help="draws of cells and splits (default: 5)")
    how.add_argument("--seed", type=int, default=0, metavar="N", help="of intervals and graphs (default: 0)")
    add_running(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Measure, print the tables, write the result."""
    import json

    from cellingua.bench.run import measure
    from cellingua.bench.tables import text
    from cellingua.cli.outputs import refuse_same
    from cellingua.core.files import check_writable, refuse_overwrite, write_json
    from cellingua.core.progress import Console, Silent
    from cellingua.core.runtime import set_threads

    output = Path(args.output) if args.output else None
    if output is not None:
        refuse_same(Path(args.data), output)
        refuse_overwrite(output, force=args.force, file=True)
        # A folder that is not there yet is made when there is something to write.
        check_writable(next(folder for folder in output.absolute().parents if folder.is_dir()))
    set_threads(args.threads)
    result = measure(
        args.task, args.data, model=None if args.model == NO_MODEL else args.model, sets=args.sets,
        labels_from=args.labels_from, tissue=args.tissue, donor_key=args.donor_key, layer=args.layer,
        profiles=args.profiles, candidates=args.candidates, protocols=args.protocols, methods=args.methods,
        draws=args.draws, seed=args.seed, device=args.device, progress=Silent() if args.quiet else Console(),
    )  # fmt: skip
    if output is not None:
        output.parent.mkdir(parents=True, exist_ok=True)
        write_json(output, result)
    if args.json:
        print(json.dumps(result, indent=1, ensure_ascii=False))
    elif not args.quiet:
        print(text(result))
    return 0
