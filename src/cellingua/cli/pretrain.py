"""``cellingua pretrain RECIPE``: train a model from a folder of data."""

from __future__ import annotations

import argparse
from pathlib import Path

RECIPES = ("langcell",)


def add(verbs: argparse._SubParsersAction, common: argparse.ArgumentParser) -> None:
    """Add the verb."""
    parser = verbs.add_parser(
        "pretrain",
        parents=[common],
        help="train a model",
        description="Train a model on a folder of cells, mean profiles and marker genes. A run that was stopped "
        "resumes with the same call.",
        epilog="Example: cellingua pretrain langcell --data data/cells --text-tower text_tower -o runs/mine",
    )
    parser.add_argument("recipe", choices=RECIPES, help="what to train")
    parser.add_argument("--preset", default="langcell_mini", metavar="NAME", help="shipped configuration")
    parser.add_argument("--config", metavar="FILE", help="your own configuration as JSON, instead of a preset")
    kept_out = "corpus/, profiles/, markers/, and evaluation/ with cells that must not be trained on"
    parser.add_argument("--data", required=True, metavar="DIR", help=kept_out)
    parser.add_argument(
        "--text-tower", required=True, metavar="DIR|NAME", help="a prepared text tower, a BERT folder, or a hub name"
    )
    parser.add_argument("-o", "--output", required=True, metavar="DIR", help="checkpoints, logs and the model")
    parser.add_argument("--steps", type=int, metavar="N", help="train for N steps instead of the configuration's")
    parser.add_argument("--seed", type=int, metavar="N", help="another seed than the configuration's")
    parser.add_argument("--threads", type=int, metavar="N", help="threads (default: all cores this process may use)")
    parser.add_argument("--quiet", action="store_true", help="no progress")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Train, and print where the model is."""
    import json
    from dataclasses import replace

    from cellingua.core.config import from_dict, to_dict
    from cellingua.core.errors import ConfigError, FileError
    from cellingua.core.files import check_writable
    from cellingua.core.progress import Console, Silent
    from cellingua.core.runtime import set_threads
    from cellingua.recipes.langcell import RecipeConfig, preset
    from cellingua.recipes.langcell import run as train

    data, out = Path(args.data), Path(args.output)
    if not data.is_dir():
        raise FileError(f"{data} is not a folder.", "a folder with corpus/, profiles/ and markers/")
    check_writable(out)
    set_threads(args.threads)
    if args.config:
        try:
            config = from_dict(RecipeConfig, json.loads(Path(args.config).read_text(encoding="utf-8")))
        except (OSError, ValueError) as error:
            raise ConfigError(f"{args.config} can't be read: {error}.", "a configuration as JSON") from error
    else:
        config = preset(args.preset)
    changed = {"steps": args.steps, "seed": args.seed}
    config = replace(config, train=replace(config.train, **{k: v for k, v in changed.items() if v is not None}))
    progress = Silent() if args.quiet else Console()
    progress.say(json.dumps(to_dict(config), indent=1))
    print(train(config, data, out, args.text_tower, progress))
    return 0
