"""``cellingua pretrain RECIPE``: train a model, from a corpus, or LangCell also from a data folder."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cellingua.cells.corpus import Corpus
    from cellingua.core.progress import Progress
    from cellingua.training.place import Place

#: Recipes that train on a corpus: name -> module, configuration class and preset. The module has ``preset(name)`` and
#: ``run(config, corpus, out, *, progress, place, tensorboard)``, which returns the model's folder.
CORPUS_RECIPES = {
    "cellm": ("cellingua.recipes.cellm", "CellLMRecipeConfig", "cellm_mini"),
    "langcell": ("cellingua.recipes.langcell_corpus", "CorpusRecipeConfig", "langcell_paper"),
}
RECIPES = ("langcell", "cellm")


def add(verbs: argparse._SubParsersAction, common: argparse.ArgumentParser) -> None:
    """Add the verb."""
    parser = verbs.add_parser(
        "pretrain",
        parents=[common],
        help="train a model",
        description="Train a model: cellm on a corpus, files of cells of any total size, which are prepared once; "
        "langcell on a corpus too (its label columns give the texts), or the small model on a folder of cells, mean "
        "profiles and marker genes (--data). A run that was stopped resumes with the same call; "
        "Ctrl-C and SIGTERM finish the step and save it.",
        epilog="Example: cellingua pretrain cellm --corpus files/ --label-columns cancer=disease -o runs/mine",
    )
    parser.add_argument("recipe", choices=RECIPES, help="what to train")
    parser.add_argument("--preset", metavar="NAME", help="shipped configuration (default: RECIPE_mini or _paper)")
    parser.add_argument("--config", metavar="FILE", help="your own configuration as JSON, instead of a preset")
    parser.add_argument("-o", "--output", required=True, metavar="DIR", help="checkpoints, logs and the model")
    parser.add_argument("--steps", type=int, metavar="N", help="train for N steps, N at most in each stage")
    parser.add_argument("--batch", type=int, metavar="N", help="cells of a minibatch instead of the configuration's")
    parser.add_argument("--seed", type=int, metavar="N", help="another seed than the configuration's")
    parser.add_argument("--resume", action="store_true", help="stop where there is no checkpoint to go on from")
    parser.add_argument("--quiet", action="store_true", help="no progress")
    _add_langcell(parser.add_argument_group("langcell"))
    _add_corpus(parser.add_argument_group("corpus"))
    _add_devices(parser.add_argument_group("devices"))
    parser.set_defaults(run=run)


def _add_langcell(group: argparse._ArgumentGroup) -> None:
    kept_out = "instead of a corpus: corpus/, profiles/, markers/, and evaluation/ with cells to keep out"
    group.add_argument("--data", metavar="DIR", help=kept_out)
    group.add_argument("--text-tower", metavar="DIR|NAME", help="a prepared text tower, a BERT folder, or a hub name")


def _add_corpus(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--corpus",
        nargs="+",
        metavar="PATH",
        help="h5ad, zarr and 10x files, folders that hold some, or a folder that was prepared before",
    )
    group.add_argument("--prepared", metavar="DIR", help="where the corpus is prepared (default: OUTPUT/corpus)")
    group.add_argument("--prepare-only", action="store_true", help="prepare the corpus and don't train")
    group.add_argument(
        "--label-columns",
        nargs="+",
        default=[],
        metavar="LABEL",
        help="labels from obs: COLUMN, NAME=COLUMN, or NAME=COLUMN|COLUMN (the first that knows a cell)",
    )
    group.add_argument("--donor-column", default="donor_id", metavar="COLUMN", help="donor in obs (default: donor_id)")
    group.add_argument("--layer", metavar="L", help="layer that holds raw counts (default: found by the doctor)")
    group.add_argument("--min-genes", type=int, default=1, metavar="N", help="leave out cells with fewer genes")
    group.add_argument("--reference", metavar="DIR", help="h5ad files of evaluation cells, which are left out")
    group.add_argument("--skip-bad", action="store_true", help="leave out files that can't be used")
    group.add_argument(
        "--gene-vectors", metavar="FILE", help="start the gene table from these, as recipes.gene_graph writes them"
    )


def _add_devices(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--device", default="cpu", help="cpu (default), auto, cuda, cuda:N or mps")
    group.add_argument("--devices", type=int, default=1, metavar="N", help="processes a machine (default: 1)")
    group.add_argument("--nodes", type=int, default=1, metavar="N", help="machines (default: 1)")
    group.add_argument("--strategy", choices=("ddp", "fsdp"), default="ddp", help="with several processes")
    group.add_argument("--precision", choices=("float32", "bf16", "float64"), help="instead of the configuration's")
    group.add_argument("--threads", type=int, metavar="N", help="threads (default: all cores this process may use)")
    group.add_argument("--tensorboard", action="store_true", help="write TensorBoard's events beside log.jsonl")


def run(args: argparse.Namespace) -> int:
    """Train, and print where the model is."""
    from cellingua.core.errors import ConfigError
    from cellingua.core.files import check_writable
    from cellingua.core.progress import Console, Silent
    from cellingua.core.runtime import set_threads

    out = Path(args.output)
    _check_call(args)
    if args.resume and not list(out.rglob("checkpoint/run.json")):
        raise ConfigError(f"{out} has no checkpoint to resume.", "the output of a run that was stopped", "no --resume")
    check_writable(out)
    threads = set_threads(args.threads)
    if args.threads is None and args.devices > 1:
        set_threads(max(1, threads // args.devices))  # processes of one machine share its cores
    if args.data:
        progress = Silent() if args.quiet else Console()
        print(_langcell(args, out, progress))
        return 0
    from cellingua.training.place import PlaceConfig, make_place

    place = make_place(PlaceConfig(args.device, args.devices, args.nodes, args.strategy), args.precision or "float32")
    progress = Silent() if args.quiet or place.rank else Console()
    if args.prepare_only:
        print(_corpus(args, out, place, progress).folder)
        return 0
    recipe, config = _recipe(args, progress)  # before the corpus, which may take hours: a wrong name is told at once
    given: dict[str, Any] = {}
    if args.text_tower:
        from cellingua.models.text_sources import load_text_source

        given = {"text": load_text_source(args.text_tower)}
    if args.gene_vectors:
        from dataclasses import replace

        from cellingua.recipes.gene_graph import load_gene_vectors

        config, given = replace(config, gene_start="table"), {"table": load_gene_vectors(Path(args.gene_vectors))}
    corpus = _corpus(args, out, place, progress)
    model = recipe.run(config, corpus, out, progress=progress, place=place, tensorboard=args.tensorboard, **given)
    if place.rank == 0:
        print(model)
    return 0


def _check_call(args: argparse.Namespace) -> None:
    """Raise `ConfigError` where an option is missing, or belongs to another recipe."""
    from cellingua.core.errors import ConfigError

    needed: tuple[str, ...] = ("corpus",)
    others: tuple[str, ...] = ("data", "text_tower") if args.recipe == "cellm" else ("gene_vectors",)
    called = args.recipe
    if args.recipe == "langcell" and args.data:
        called = "langcell --data"
        needed, others = ("text_tower",), ("corpus", "prepared", "label_columns", "reference", "gene_vectors")
    see = "see cellingua pretrain --help"
    for name in needed:
        if not getattr(args, name):
            instead = " or --data" if called == "langcell" else ""
            raise ConfigError(f"{called} needs --{name.replace('_', '-')}{instead}.", see)
    for name in others:
        if getattr(args, name):
            raise ConfigError(f"{called} does not take --{name.replace('_', '-')}.", see)
    if args.data and (args.devices, args.nodes) != (1, 1):
        raise ConfigError("langcell --data trains in one process.", "--devices 1 --nodes 1")


def _config(
    args: argparse.Namespace, kind: type, preset: Callable[[str], Any], default: str, progress: Progress
) -> Any:
    """Return the configuration of the call, and show it."""
    import json
    import math
    from dataclasses import replace

    from cellingua.core.config import from_dict, to_dict
    from cellingua.core.errors import ConfigError

    config: Any
    if args.config:
        try:
            config = from_dict(kind, json.loads(Path(args.config).read_text(encoding="utf-8")))
        except (OSError, ValueError) as error:
            raise ConfigError(f"{args.config} can't be read: {error}.", "a configuration as JSON") from error
    else:
        config = preset(args.preset or default)
    changed = {"steps": args.steps, "seed": args.seed, "precision": args.precision}
    train = replace(config.train, **{key: value for key, value in changed.items() if value is not None})
    config = replace(config, train=train)
    if args.batch is not None:
        blocks = {"block": math.gcd(args.batch, config.block)} if hasattr(config, "block") else {}
        config = replace(config, batch=args.batch, **blocks)
    for stage in ("first", "second"):
        held = getattr(config, stage, None)
        if args.steps is not None and held is not None:
            config = replace(config, **{stage: replace(held, steps=min(held.steps, args.steps))})
    progress.say(json.dumps(to_dict(config), indent=1))
    return config


def _langcell(args: argparse.Namespace, out: Path, progress: Progress) -> Path:
    from cellingua.core.errors import FileError
    from cellingua.recipes.langcell import RecipeConfig, preset
    from cellingua.recipes.langcell import run as train

    data = Path(args.data)
    if not data.is_dir():
        raise FileError(f"{data} is not a folder.", "a folder with corpus/, profiles/ and markers/")
    config = _config(args, RecipeConfig, preset, "langcell_mini", progress)
    return train(config, data, out, args.text_tower, progress)


def _corpus(args: argparse.Namespace, out: Path, place: Place, progress: Progress) -> Corpus:
    """Return the corpus; the first process prepares it where it isn't yet."""
    from cellingua.cells.collections import read_cells
    from cellingua.cells.corpus import is_corpus, open_corpus
    from cellingua.cells.prepare import CorpusConfig, prepare_corpus

    sources = [Path(source) for source in args.corpus]
    if len(sources) == 1 and is_corpus(sources[0]):
        folder = sources[0]
    else:
        folder = Path(args.prepared) if args.prepared else out / "corpus"
        config = CorpusConfig(tuple(args.label_columns), args.donor_column, args.layer, args.min_genes)

        def prepare() -> None:
            reference = read_cells(Path(args.reference), progress) if args.reference else None
            prepare_corpus(sources, folder, config, reference=reference, skip_bad=args.skip_bad, progress=progress)

        place.first(prepare)
    corpus = open_corpus(folder)
    progress.say(corpus.summary())
    return corpus


def _recipe(args: argparse.Namespace, progress: Progress) -> tuple[Any, Any]:
    """Return the recipe's module, and its configuration."""
    import importlib

    module, kind, default = CORPUS_RECIPES[args.recipe]
    recipe = importlib.import_module(module)
    return recipe, _config(args, getattr(recipe, kind), recipe.preset, default, progress)
