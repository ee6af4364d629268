"""``cellingua models``: what models there are."""

from __future__ import annotations

import argparse
import json


def add(verbs: argparse._SubParsersAction, common: argparse.ArgumentParser) -> None:
    """Add the verb."""
    parser = verbs.add_parser("models", parents=[common], help="list the models", description="List the models.")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print a line a model: name, size, description."""
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
