"""``cellingua convert KIND CKPT --genes FILE OUT``: a released checkpoint as a model folder."""

from __future__ import annotations

import argparse
from pathlib import Path

KINDS = ("cellm", "scbert")


def add(verbs: argparse._SubParsersAction, common: argparse.ArgumentParser) -> None:
    """Add the verb."""
    parser = verbs.add_parser(
        "convert",
        parents=[common],
        help="make a model folder of a released checkpoint",
        description="Read a released checkpoint of CellLM or scBERT and the gene list that it was trained with, and "
        "write a model folder that cellingua embed takes. No code that a checkpoint may hold is ever run.",
        epilog="Example: cellingua convert cellm ckpt.pth --genes genes.txt my_cellm",
    )
    parser.add_argument("kind", choices=KINDS, help="what the checkpoint is")
    parser.add_argument("checkpoint", metavar="CKPT", help="torch file or .safetensors")
    parser.add_argument("output", metavar="OUT", help="folder to make")
    parser.add_argument(
        "--genes",
        required=True,
        metavar="FILE",
        help="gene list of the checkpoint, in its order: a symbol or Ensembl id a line",
    )
    parser.add_argument(
        "--attention",
        choices=("compat", "favor"),
        default="compat",
        help="compat (default): as the released code, in which padding counts; favor: without padding",
    )
    parser.add_argument(
        "--length", type=int, default=6000, metavar="N", help="tokens that CellLM padded cells to (default: 6000)"
    )
    parser.add_argument("--log", choices=("2", "e"), default="2", help="base of the values' logarithm (default: 2)")
    parser.add_argument("--force", action="store_true", help="replace OUT if it is a model folder")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Convert, and print what came of it."""
    from cellingua.core.errors import FileError
    from cellingua.core.files import check_writable, refuse_overwrite
    from cellingua.models.convert_cellm import convert_checkpoint
    from cellingua.models.manifest import NAME

    checkpoint, genes, out = Path(args.checkpoint), Path(args.genes), Path(args.output)
    refuse_overwrite(out, force=args.force)
    if out.exists() and not (out / NAME).is_file():
        raise FileError(f"{out} exists and is no model folder.", "a model folder, or a path that is free")
    for path in (checkpoint, genes):
        if not path.is_file():
            raise FileError(f"{path} is not a file.", "a checkpoint and its gene list")
        if out.resolve() in path.resolve().parents:
            raise FileError(f"{path} lies in {out}, which would be replaced.", "another folder to write")
    check_writable(out.parent)
    done = convert_checkpoint(
        checkpoint, genes, out, args.kind, attention=args.attention, length=args.length, base=args.log
    )
    print(done.to_text())
    return 0
