"""``cellingua models``: what models there are, and the card of one."""

from __future__ import annotations

import argparse
import json
from typing import Any


def add(verbs: argparse._SubParsersAction, common: argparse.ArgumentParser) -> None:
    """Add the verb."""
    parser = verbs.add_parser(
        "models",
        parents=[common],
        help="list the models, or show the card of one",
        description="List the models; with a NAME, show its card and what it was trained on.",
    )
    parser.add_argument("name", nargs="?", metavar="NAME", help="a model's name, or its folder")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print a line a model (name, size, description), or the card of one."""
    if args.name is not None:
        return show(args.name, as_json=args.json)
    from cellingua.models.shelf import list_models

    found = list_models()
    if args.json:
        rows = [{"name": m.name, "bytes": m.size, "description": m.description, "folder": str(m.folder)} for m in found]
        print(json.dumps(rows, indent=1, ensure_ascii=False))
        return 0
    for model in found:
        print(f"{model.name:<20} {model.size / 1e6:6.1f} MB  {model.description}")
    if not found:
        print("No model is installed with the package; give the folder of one with --model.")
    return 0


def show(name: str, *, as_json: bool) -> int:
    """Print a model's card and a line on what it saw; as JSON also every data set. No weight is read."""
    from cellingua.cells.wording import printable
    from cellingua.core.config import to_dict
    from cellingua.models.folder import CARD, read_config
    from cellingua.models.manifest import read_manifest
    from cellingua.models.seen import read_seen, told_in_short
    from cellingua.models.shelf import find_model

    folder = find_model(name)
    manifest, config, seen = read_manifest(folder), read_config(folder), read_seen(folder)
    card = manifest.verified(CARD).read_text(encoding="utf-8") if CARD in manifest.files else ""
    if as_json:
        told: dict[str, Any] = {"name": config["name"], "kind": config["kind"], "bytes": manifest.size}
        told |= {"hash": manifest.hash, "description": config["description"], "folder": str(folder), "card": card}
        told["seen"] = None
        if seen is not None:
            told["seen"] = {"complete": seen.complete, "cells": seen.cells}
            told["seen"]["data_sets"] = [to_dict(held) for held in seen.data_sets]
        print(json.dumps(told, indent=1, ensure_ascii=False))
        return 0
    for line in card.splitlines():  # free text of a folder that anybody made
        print(printable(line))
    print(f"{printable(str(config['name']))}: {manifest.size / 1e6:.1f} MB, manifest {manifest.hash}.")
    print(told_in_short(seen))
    return 0
