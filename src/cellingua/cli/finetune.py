"""``cellingua finetune FILE --labels-from COLUMN -o MODEL``: a model with classes of your own."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cellingua.cli.options import add_reading, add_running

if TYPE_CHECKING:
    from cellingua.recipes.finetune import Tuned

METHODS = ("classifier", "prototypes", "lora", "full", "langcell", "langcell_ce", "cellm", "scbert")


def add(verbs: argparse._SubParsersAction, common: argparse.ArgumentParser) -> None:
    """Add the verb."""
    parser = verbs.add_parser(
        "finetune",
        parents=[common],
        help="tune a model to your own labels",
        description="Tune a model to the labels of some cells, from one cell a type upwards, and save it as a model "
        "folder that the other commands take with --model. A run that was stopped resumes with the same call.",
        epilog="Example: cellingua finetune labelled.h5ad --labels-from celltype -o my_model",
    )
    parser.add_argument("file", metavar="FILE", help="h5ad, zarr, 10x .h5, or a 10x mtx folder")
    parser.add_argument("--labels-from", required=True, metavar="COLUMN", help="column of obs with the labels")
    parser.add_argument("-o", "--output", required=True, metavar="DIR", help="folder of the tuned model")
    add_reading(parser)
    how = parser.add_argument_group("method")
    how.add_argument(
        "--method",
        choices=METHODS,
        default="classifier",
        help="classifier (default) and prototypes leave the tower as it is; lora (needs peft) and full move it; "
        "langcell, langcell_ce, cellm and scbert are the papers' own",
    )
    how.add_argument("--tissue", metavar="T", help="where the cells come from: how to read ambiguous labels")
    how.add_argument("--class-weights", choices=("balanced", "none", "cellm"), help="default: that of the method")
    how.add_argument("--epochs", type=int, metavar="N", help="at most (default: that of the method)")
    how.add_argument("--batch", type=int, metavar="N", help="cells of a minibatch (default: that of the method)")
    how.add_argument("--learning-rate", type=float, metavar="R", help="default: that of the method")
    how.add_argument("--patience", type=int, metavar="N", help="epochs without a better validation before it stops")
    how.add_argument("--rank", type=int, default=8, metavar="N", help="of lora (default: 8)")
    how.add_argument("--few-shot", action="store_true", help="langcell_ce: freeze all but the classifier, as released")
    how.add_argument("--seed", type=int, default=0, metavar="N", help="of everything random (default: 0)")
    held = parser.add_argument_group("held-out cells (whole donors where there are two or more)")
    held.add_argument("--donor-key", metavar="COLUMN", help="column of obs with the donors")
    held.add_argument("--validation-share", type=float, metavar="S", help="for early stopping and calibration")
    held.add_argument("--test-share", type=float, default=0.0, metavar="S", help="judged at the end (default: none)")
    parser.add_argument("--force", action="store_true", help="replace the output if it exists")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    add_running(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Tune a model to one file."""
    from cellingua.cells.doctor import examine
    from cellingua.cells.reading import open_cells
    from cellingua.core.files import check_writable, refuse_overwrite
    from cellingua.core.progress import Console, Silent
    from cellingua.core.runtime import pick_device, set_threads
    from cellingua.models.shelf import load_any
    from cellingua.recipes.finetune_config import FinetuneConfig
    from cellingua.tasks.finetune import finetune_cells, read_labelled

    output = Path(args.output)
    config = FinetuneConfig(
        args.method, args.seed, args.validation_share, args.tissue, args.class_weights, args.epochs, args.batch,
        args.learning_rate, args.patience, args.few_shot, args.rank,
    )  # fmt: skip
    refuse_overwrite(output, force=args.force)
    set_threads(args.threads)
    progress = Silent() if args.quiet else Console()
    with open_cells(args.file) as cells:
        diagnosis = examine(cells, layer=args.layer)
        labelled, facts = read_labelled(cells, diagnosis, args.labels_from, args.donor_key, progress)
    model = load_any(args.model, device=pick_device(args.device).name)
    if not output.parent.is_dir():
        check_writable(output.parent)
    tuned = finetune_cells(
        labelled, model, config, facts, test_share=args.test_share, output=output, progress=progress
    )  # fmt: skip
    if args.json:
        print(json.dumps(summary(tuned, output), indent=1, ensure_ascii=False))
    elif not args.quiet:
        print(text(tuned, output))
    return 0


def summary(tuned: Tuned, output: Path) -> dict[str, Any]:
    """Return the figures for programs."""
    return {
        "model": str(output),
        "method": tuned.head.method,
        "classes": dict(zip(tuned.head.classes, tuned.head.term_ids, strict=True)),
        "comparison": tuned.comparison,
        **tuned.facts,
    }


def text(tuned: Tuned, output: Path) -> str:
    """Return the figures for people."""
    from cellingua.cells.wording import printable

    facts, comparison = tuned.facts, tuned.comparison
    width = max(len(printable(name)) for name in tuned.classes)
    lines = [f"{'class':<{width}}  {'cells':>7}  term"]
    for name, term in zip(tuned.head.classes, tuned.head.term_ids, strict=True):
        lines.append(f"{printable(name):<{width}}  {facts['per_class'][name]:>7,}  {term or 'free text'}")
    if facts["without_label"]:
        lines.append(f"{facts['without_label']:,} cells without a label were left out.")
    if not comparison:
        lines.append("Not validated: no cell could be held out.")
    else:
        lines += ["", f"Validation on {comparison['cells']:,} cells ({comparison['on']}):"]
        lines += _scores(comparison)
        if comparison["worse"]:
            lines.append(
                "It is WORSE than the frozen classifier on its own validation: --method classifier is advised."
            )
    if "test" in facts:
        lines += ["", f"Test on {facts['test']['cells']:,} cells ({facts['test']['on']}):", *_scores(facts["test"])]
    return "\n".join([*lines, "", f"cellingua annotate FILE --model {output}"])


def _scores(found: dict[str, Any]) -> list[str]:
    return [
        f"  {name}: accuracy {value['accuracy']:.3f}, macro-F1 {value['macro_f1']:.3f}"
        for name, value in found.items()
        if isinstance(value, dict)
    ]
