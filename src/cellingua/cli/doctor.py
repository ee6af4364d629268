"""``cellingua doctor FILE``: what a file holds, and whether it can be used."""

from __future__ import annotations

import argparse
import json

from cellingua.core.errors import CellinguaError


def add(verbs: argparse._SubParsersAction, common: argparse.ArgumentParser) -> None:
    """Add the verb."""
    parser = verbs.add_parser(
        "doctor",
        parents=[common],
        help="examine a file of cells",
        description="Say what a file of cells holds: where the counts are, which genes are known, what to beware of.",
        epilog="Exit code 2 if a file can't be used.",
    )
    parser.add_argument("files", nargs="+", metavar="FILE", help="h5ad, zarr, 10x .h5, or a 10x mtx folder")
    parser.add_argument("--layer", metavar="L", help="layer that holds raw counts")
    parser.add_argument("--json", action="store_true", help="print JSON: a list with one entry a file")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the diagnosis of each file; return 2 if one is refused."""
    from cellingua.cells.doctor import examine
    from cellingua.cells.reading import open_cells

    code, found = 0, []
    for place, path in enumerate(args.files):
        try:
            with open_cells(path) as cells:
                diagnosis = examine(cells, layer=args.layer)
        except CellinguaError as error:
            if len(args.files) == 1:
                raise
            code = max(code, error.exit_code)
            found.append({"name": path, "error": str(error)})
            if not args.json:
                print(("\n" if place else "") + f"{path}: {error}")
            continue
        code = max(code, 2 if diagnosis.refused else 0)
        found.append(diagnosis.to_dict())
        if not args.json:
            print(("\n" if place else "") + diagnosis.to_text())
    if args.json:
        print(json.dumps(found, indent=1, ensure_ascii=False))
    return code
