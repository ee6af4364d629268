"""``cellingua texts FILE... -o OUT.tsv``: the text of every cell, from its metadata."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

TEMPLATES = ("langcell", "names", "sentence", "bare")


def add(verbs: argparse._SubParsersAction, common: argparse.ArgumentParser) -> None:
    """Add the verb."""
    parser = verbs.add_parser(
        "texts",
        parents=[common],
        help="write the text of each cell from its metadata",
        description="Write the text of each cell, made from metadata after CELLxGENE's schema (versions 2 to 7; "
        "names or ontology ids) and the definitions of the shipped ontologies: a TSV of file, cell and text.",
    )
    parser.add_argument("files", nargs="+", metavar="FILE", help="h5ad or zarr with CELLxGENE's columns in obs")
    parser.add_argument("-o", "--output", required=True, metavar="OUT.tsv", help="where to write, a line a cell")
    parser.add_argument(
        "--unique",
        metavar="TEXTS.tsv",
        help="write each distinct text once here (number, cells, text), and in OUT its number instead",
    )
    parser.add_argument(
        "--template",
        choices=TEMPLATES,
        default=TEMPLATES[0],
        help="langcell: 'cell type: b cell. <definition>; tissue: ...' (default); names: without definitions; "
        "sentence: 'a b cell, in the blood. <definition of the type>'; bare: 'b cell, blood'",
    )
    parser.add_argument(
        "--definitions", metavar="FILE", help="your own: JSON {id or name: text}, or lines of id or name, tab, text"
    )
    parser.add_argument(
        "--aspects",
        metavar="A,B",
        help="some of: cell type, tissue, organ, development stage, disease, sex, ethnicity, assay "
        "(default: those that the file has)",
    )
    parser.add_argument(
        "--column",
        action="append",
        default=[],
        metavar="ASPECT=NAME",
        help="column that says an aspect; may be repeated; the file's schema version is then not asked for",
    )
    parser.add_argument(
        "--drop", type=float, default=0.0, metavar="P", help="chance of leaving out each aspect but the cell type"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="draw of --drop (default: 0)")
    parser.add_argument("--force", action="store_true", help="replace OUT and TEXTS if they exist")
    parser.add_argument("--quiet", action="store_true", help="say nothing but errors")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Describe the cells of all files, then write."""
    from cellingua.cells.reading import open_cells
    from cellingua.cli.outputs import refuse_same, staged
    from cellingua.core.errors import FileError
    from cellingua.core.files import refuse_overwrite
    from cellingua.tasks.texts import texts_of, what_was_said
    from cellingua.words.definitions import read_definitions
    from cellingua.words.metadata import NAMES, choose_aspects

    output = Path(args.output)
    targets = [output, *([Path(args.unique)] if args.unique else [])]
    if len({target.resolve() for target in targets}) < len(targets):
        raise FileError(f"{output} is named for -o and --unique.", "two files", "another name for one of them")
    for target in targets:
        for source in (*args.files, *([args.definitions] if args.definitions else [])):
            refuse_same(Path(source), target)
        refuse_overwrite(target, force=args.force, file=True)
    own_columns = _columns(args.column)
    aspects = choose_aspects(args.aspects.split(",")) if args.aspects is not None else None
    definitions = read_definitions(args.definitions) if args.definitions else {}
    names = [Path(path).name for path in args.files]
    places: dict[str, int] = {}
    used: set[str] = set()
    described: list[tuple[str, np.ndarray, list[str], np.ndarray]] = []
    for path in args.files:
        with open_cells(path) as cells:
            texts = texts_of(
                cells,
                template=args.template,
                aspects=aspects,
                own_columns=own_columns,
                definitions=definitions,
                drop=args.drop,
                seed=args.seed,
            )
            # Files of one name in several folders are told apart by their paths.
            name = path if names.count(cells.name) > 1 else cells.name
            described.append((name, cells.cell_names, texts.texts, texts.index))
        for text in texts.texts:
            places.setdefault(text, len(places))
        used |= texts.facts.used
        if not args.quiet:
            print("\n".join(what_was_said(cells.name, texts, aspects or NAMES)))
    with staged(targets) as partial:
        _write(described, places, partial[output], partial[targets[1]] if args.unique else None)
    if not args.quiet:
        if definitions:
            print(f"{len(used):,} of {len(definitions):,} of your definitions were used")
        print(f"{sum(len(d[3]) for d in described):,} cells, {len(places):,} distinct texts: {output}")
    return 0


def _columns(pairs: list[str]) -> dict[str, str]:
    """Return aspect -> column of ``--column ASPECT=NAME``."""
    from cellingua.core.errors import ConfigError
    from cellingua.words.metadata import choose_aspects

    found: dict[str, str] = {}
    for pair in pairs:
        aspect, equals, name = pair.partition("=")
        if not equals or not name:
            raise ConfigError(f"--column {pair!r} names no column.", "ASPECT=NAME", "--column 'cell type=NAME'")
        (aspect,) = choose_aspects([aspect])
        if aspect in found:
            raise ConfigError(f"--column names two columns for {aspect!r}.", "one column an aspect")
        found[aspect] = name
    return found


def _write(
    described: list[tuple[str, np.ndarray, list[str], np.ndarray]],
    places: dict[str, int],
    output: Path,
    unique: Path | None,
) -> None:
    """Write a line a cell and, with `unique`, a line a text; neither texts nor names hold tabs or line ends."""
    counts = dict.fromkeys(places, 0)
    with open(output, "w", encoding="utf-8", newline="\n") as out:
        out.write(f"file\tcell\t{'number' if unique else 'text'}\n")
        for name, cells, texts, index in described:
            shown = [str(places[text]) if unique else text for text in texts]
            file = " ".join(name.split())
            for cell, place in zip(cells, index.tolist(), strict=True):
                out.write(f"{file}\t{' '.join(cell.split())}\t{shown[place]}\n")
                counts[texts[place]] += 1
    if unique:
        with open(unique, "w", encoding="utf-8", newline="\n") as out:
            out.write("number\tcells\ttext\n")
            out.writelines(f"{number}\t{counts[text]}\t{text}\n" for text, number in places.items())
