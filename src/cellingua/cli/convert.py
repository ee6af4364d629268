"""``cellingua convert KIND CHECKPOINT OUT``: a released checkpoint as a model folder."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

STORAGES = ("float32", "float16", "int8")


def add(verbs: argparse._SubParsersAction, common: argparse.ArgumentParser) -> None:
    """Add the verb."""
    parser = verbs.add_parser(
        "convert",
        help="make a model folder of a released checkpoint",
        description="Read a released checkpoint and write a model folder that the other commands take with --model. No "
        "code that a checkpoint may hold is ever run.",
        epilog="Example: cellingua convert langcell ckpt/ my_langcell --tokenizer vocab.txt",
    )
    kinds = parser.add_subparsers(dest="kind", metavar="KIND", required=True, help="what the checkpoint is")
    _add_langcell(kinds, common)
    _add_geneformer(kinds, common)
    for kind, label in (("cellm", "CellLM"), ("scbert", "scBERT")):
        _add_binned(kinds, common, kind, label)


def _add_langcell(kinds: argparse._SubParsersAction, common: argparse.ArgumentParser) -> None:
    parser = kinds.add_parser(
        "langcell",
        parents=[common],
        help="LangCell (names and embeds cells)",
        description="Convert LangCell's checkpoint: the folder that holds cell_bert/, text_bert/, cell_proj.bin, "
        "text_proj.bin and ctm_head.bin, or the one that its ckpt/ lies in. Its genes ship with cellingua; "
        "PubMedBERT's vocabulary, with which it reads texts, does not.",
    )
    _add_folders(parser, "DIR", "the released folder")
    parser.add_argument(
        "--tokenizer",
        metavar="PATH",
        help="PubMedBERT's vocab.txt, or a folder with it (default: looked for in text_bert/ and beside it)",
    )
    _add_genes(parser, "default: Geneformer V1's genes, as shipped")
    parser.add_argument(
        "--terms",
        choices=("all", "human", "none"),
        default="all",
        help="terms of the Cell Ontology that the text encoder reads now, once for all, which takes minutes at the "
        "full size (default: all); it reads others each time they are candidates",
    )
    _add_storage(parser)
    parser.add_argument("--quiet", action="store_true", help="no progress")
    parser.set_defaults(run=run)


def _add_geneformer(kinds: argparse._SubParsersAction, common: argparse.ArgumentParser) -> None:
    parser = kinds.add_parser(
        "geneformer",
        parents=[common],
        help="Geneformer (embeds cells)",
        description="Convert a Geneformer of either version: the folder that holds config.json and model.safetensors "
        "or pytorch_model.bin. V1's genes ship with cellingua; V2 needs its own dictionaries.",
    )
    _add_folders(parser, "DIR", "the released folder")
    _add_genes(parser, "default: V1's genes, as shipped; V2 needs them")
    parser.add_argument(
        "--pooling",
        choices=("cls", "mean"),
        help="the state of <cls>, or the mean over the cell's genes (default, as its authors: mean in V1, cls in V2)",
    )
    parser.add_argument(
        "--layer",
        choices=("second-last", "last"),
        default="second-last",
        help="the layer whose states are pooled (default, as its authors: second-last)",
    )
    _add_storage(parser)
    parser.set_defaults(run=run)


def _add_binned(kinds: argparse._SubParsersAction, common: argparse.ArgumentParser, kind: str, label: str) -> None:
    parser = kinds.add_parser(
        kind,
        parents=[common],
        help=f"{label} (embeds cells)",
        description=f"Convert a checkpoint of {label} with the gene list that it was trained with.",
        epilog=f"Example: cellingua convert {kind} ckpt.pth --genes genes.txt my_{kind}",
    )
    _add_folders(parser, "CKPT", "torch file or .safetensors")
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
    parser.set_defaults(run=run)


def _add_folders(parser: argparse.ArgumentParser, name: str, what: str) -> None:
    parser.add_argument("checkpoint", metavar=name, help=what)
    parser.add_argument("output", metavar="OUT", help="folder to make")
    parser.add_argument("--force", action="store_true", help="replace OUT if it is a model folder")


def _add_genes(parser: argparse.ArgumentParser, default: str) -> None:
    parser.add_argument(
        "--dictionaries",
        metavar="PATH",
        help="a folder with token_dictionary*.pkl, gene_median_dictionary*.pkl and, if at hand, "
        f"gene_name_id_dict*.pkl, or a table (ensembl_id, symbol, token, median) as TSV ({default})",
    )


def _add_storage(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--storage", choices=STORAGES, default="float32", help="how weights are stored (default: float32, exact)"
    )


def run(args: argparse.Namespace) -> int:
    """Convert, and print what came of it."""
    out = Path(args.output)
    given = [args.checkpoint, *(getattr(args, name, None) for name in ("genes", "dictionaries", "tokenizer"))]
    _check_places([Path(path) for path in given if path], out, force=args.force)
    print(_convert(args, out).to_text())
    return 0


def _check_places(sources: list[Path], out: Path, *, force: bool) -> None:
    """Refuse what is missing, and an output that would replace something else, before anything is read."""
    from cellingua.core.errors import FileError
    from cellingua.core.files import check_writable, refuse_overwrite
    from cellingua.models.manifest import NAME

    refuse_overwrite(out, force=force)
    if out.exists() and not (out / NAME).is_file():
        raise FileError(f"{out} exists and is no model folder.", "a model folder, or a path that is free")
    for path in sources:
        if not path.exists():
            raise FileError(f"{path} does not exist.", "a checkpoint, and what belongs to it")
        if out.resolve() in (path.resolve(), *path.resolve().parents):
            raise FileError(f"{path} lies in {out}, which would be replaced.", "another folder to write")
    check_writable(out.parent)


def _convert(args: argparse.Namespace, out: Path) -> Any:
    """Call the conversion of the kind; what it returns says in ``to_text`` what it made."""
    from cellingua.core.progress import Console, Silent

    checkpoint = Path(args.checkpoint)
    if args.kind == "langcell":
        from cellingua.models.convert_langcell import convert_langcell

        return convert_langcell(
            checkpoint,
            out,
            dictionaries=_path(args.dictionaries),
            tokenizer=_path(args.tokenizer),
            terms=args.terms,
            storage=args.storage,
            progress=Silent() if args.quiet else Console(),
        )
    if args.kind == "geneformer":
        from cellingua.models.convert_geneformer import convert_geneformer

        return convert_geneformer(
            checkpoint,
            out,
            dictionaries=_path(args.dictionaries),
            pooling=args.pooling,
            last_layer=args.layer == "last",
            storage=args.storage,
        )
    from cellingua.models.convert_cellm import convert_checkpoint

    return convert_checkpoint(
        checkpoint, Path(args.genes), out, args.kind, attention=args.attention, length=args.length, base=args.log
    )


def _path(text: str | None) -> Path | None:
    return None if text is None else Path(text)
