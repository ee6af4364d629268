"""``cellingua embed FILE -o OUT``: the embedding of every cell, in a copy of the file."""

from __future__ import annotations

import argparse
from pathlib import Path

from cellingua.cli.options import add_precision, add_reading, add_running


def add(verbs: argparse._SubParsersAction, common: argparse.ArgumentParser) -> None:
    """Add the verb."""
    parser = verbs.add_parser(
        "embed",
        parents=[common],
        help="write embeddings of cells",
        description="Write a copy of the file with an embedding of every cell in obsm: X_langcell (joint space, "
        "unit length, comparable with texts) or X_langcell_cls (the cell tower's own state); with a CellLM, "
        "X_cellm; with a Geneformer, X_geneformer.",
    )
    parser.add_argument("file", metavar="FILE", help="h5ad, zarr, 10x .h5, or a 10x mtx folder")
    parser.add_argument("-o", "--output", required=True, metavar="OUT.h5ad", help="where to write")
    parser.add_argument(
        "--state", choices=("joint", "cls"), default="joint", help="LangCell's state (default: joint); others have one"
    )
    add_reading(parser)
    add_precision(parser)
    parser.add_argument("--force", action="store_true", help="replace OUT, and the key, if they exist")
    add_running(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Embed the cells of one file."""
    from cellingua.cells.doctor import examine
    from cellingua.cells.reading import open_cells
    from cellingua.cli.outputs import refuse_same, staged
    from cellingua.core.files import refuse_overwrite
    from cellingua.core.progress import Console, Silent
    from cellingua.core.runtime import pick_device, set_threads
    from cellingua.models.shelf import load_any
    from cellingua.tasks.annotate import unique_names
    from cellingua.tasks.embed import embed_cells, embedding_key, embedding_provenance, precision_of
    from cellingua.tasks.writing import check_file_embedding, write_annotated

    output = Path(args.output)
    refuse_same(Path(args.file), output)
    refuse_overwrite(output, force=args.force, file=True)
    set_threads(args.threads)
    progress = Silent() if args.quiet else Console()
    with open_cells(args.file) as cells:
        diagnosis = examine(cells, layer=args.layer)
        diagnosis.raise_if_refused()
        model = load_any(args.model, device=pick_device(args.device).name, precision=args.precision)
        key = embedding_key(args.state, model)
        check_file_embedding(cells, key, overwrite=args.force)
        with staged([output]) as partial:
            values = embed_cells(cells, diagnosis, model, args.state, progress)
            names, renamed = unique_names(cells.obs.index)
            write_annotated(
                cells,
                partial[output],
                columns={},
                obsm={key: values},
                uns={key: embedding_provenance(model, diagnosis)},
                names=names if renamed else None,
            )
    if not args.quiet:
        read_in = precision_of(model)
        print(f"{len(values):,} cells, obsm[{key!r}] of width {values.shape[1]}: {output}")
        print(f"read in {read_in.name}: {read_in.reason}")
    return 0
