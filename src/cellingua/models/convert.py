"""Checkpoints of the BERT family -> our towers. Their names of weights are known here and nowhere else."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError  # the error alone: nothing is unpickled here
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from cellingua.core.errors import ModelError
from cellingua.nn.language import TextTower, TextTowerConfig
from cellingua.nn.transformer import CellTowerConfig

CONFIG = "config.json"
WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")
#: What released files may hold and inference never reads (a trailing dot: the whole family).
IGNORED = ("embeddings.position_ids", "pooler.", "cls.predictions.", "cls.seq_relationship.")
EMBEDDINGS = {
    "word": "embeddings.word_embeddings",
    "token": "embeddings.word_embeddings",
    "position": "embeddings.position_embeddings",
    "segment": "embeddings.token_type_embeddings",
    "norm": "embeddings.LayerNorm",
    "pooler": "pooler.dense",
}
LAYER = {
    "attention.query": "attention.self.query",
    "attention.key": "attention.self.key",
    "attention.value": "attention.self.value",
    "attention.output": "attention.output.dense",
    "attention_norm": "attention.output.LayerNorm",
    "cross.query": "crossattention.self.query",
    "cross.key": "crossattention.self.key",
    "cross.value": "crossattention.self.value",
    "cross.output": "crossattention.output.dense",
    "cross_norm": "crossattention.output.LayerNorm",
    "widen": "intermediate.dense",
    "narrow": "output.dense",
    "feedforward_norm": "output.LayerNorm",
}


def their_name(ours: str) -> str:
    """Return the BERT name of one of our tower weights (``layers.3.widen.weight`` and the like)."""
    stem, _, kind = ours.rpartition(".")
    if not stem.startswith("layers."):
        return f"{EMBEDDINGS[stem]}.{kind}"
    _, number, part = stem.split(".", 2)
    return f"encoder.layer.{number}.{LAYER[part]}.{kind}"


def read_tensors(path: Path, wrapper: str | None = None) -> dict[str, Tensor]:
    """Read a ``.safetensors`` file, or a torch file of tensors alone (no pickled code is ever run).

    `wrapper` is a key that the tensors may lie under, beside other things, as in a saved training run.
    """
    if not path.is_file():
        raise ModelError(f"{path} is missing.", "a file of weights")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about a file that isn't torch's: the error that follows says it better
            held = torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        # torch's own words advise to load it without weights_only, which would run what the file brings along.
        raise ModelError(
            f"{path} can't be read as weights: it is damaged, is no torch file, or holds more than tensors.",
            "an undamaged file of tensors, as torch.save(model.state_dict(), path) or safetensors writes it",
        ) from error
    except (SafetensorError, RuntimeError, EOFError, ValueError, OSError) as error:
        raise ModelError(f"{path} can't be read as weights: {error}", "an undamaged file of tensors") from error
    if wrapper is not None and isinstance(held, Mapping) and wrapper in held:
        held = held[wrapper]
    if not isinstance(held, Mapping) or not all(isinstance(value, Tensor) for value in held.values()):
        raise ModelError(f"{path} is not a table of tensors.", "a torch state dict")
    return dict(held)


def read_bert_folder(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return the configuration and the weights of a BERT folder, a leading ``bert.`` taken off the names."""
    path = folder / CONFIG
    if not path.is_file():
        raise ModelError(f"{path} is missing.", "a folder with config.json and weights")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError, RecursionError) as error:
        raise ModelError(f"{path} is not JSON: {error}.", "a configuration as saved") from error
    if not isinstance(config, dict):
        raise ModelError(f"{path} holds no mapping.", "a configuration as saved")
    found = [folder / name for name in WEIGHT_FILES if (folder / name).is_file()]
    if not found:
        raise ModelError(f"{folder} holds no weights.", " or ".join(WEIGHT_FILES))
    tensors = read_tensors(found[0])
    return config, {_modern(name): tensor for name, tensor in tensors.items()}


def _modern(name: str) -> str:
    """Return a weight's name without ``bert.`` and with today's names of LayerNorm's weights."""
    name = name.removeprefix("bert.")
    for old, new in ((".gamma", ".weight"), (".beta", ".bias")):
        if name.endswith(old):
            name = name.removesuffix(old) + new
    return name


def load_text_tower(
    folder: Path, *, encoder_width: int | None = None, pooling: str = "cls", unit_length: bool = False
) -> TextTower:
    """Load a text tower from the folder of a BERT-family model (PubMedBERT, MiniLM, LangCell's own).

    Our tower has no token types: row 0 of that table is added to every position, which changes nothing. With
    `encoder_width` and a model that has no cross-attention, the tower gets fresh cross-attention whose output
    starts at zero, so that it begins as the plain text encoder.
    """
    config, tensors = read_bert_folder(Path(folder))
    built = text_tower_config(
        config, tensors, Path(folder), encoder_width=encoder_width, pooling=pooling, unit_length=unit_length
    )
    tower = TextTower(built)
    segment = tensors.pop("embeddings.token_type_embeddings.weight", None)
    positions = tensors.get("embeddings.position_embeddings.weight")
    if segment is not None and positions is not None:
        tensors["embeddings.position_embeddings.weight"] = positions + segment[0]
    fresh: dict[str, Tensor] = {}
    if encoder_width is not None and not any(".crossattention." in name for name in tensors):
        fresh = {their_name(n): t for n, t in tower.state_dict().items() if ".cross" in n}
        for name, tensor in fresh.items():
            if ".output.dense." in name:
                tensor.zero_()
    fill(tower, {**tensors, **fresh}, Path(folder), their_name)
    return tower.eval()


def cell_tower_config(
    config: Mapping[str, Any], tensors: Mapping[str, Tensor], where: Path, *, cls_token: int
) -> CellTowerConfig:
    """Translate a BERT ``config.json`` of a cell encoder, after comparing it with the weights.

    `cls_token` is the row of ``<cls>``; what has none never reads it.
    """
    segments = config.get("type_vocab_size", 2)
    if not _is_size(segments):
        raise ModelError(f"{where / CONFIG}: type_vocab_size is {segments!r}.", "a number above 0")
    return CellTowerConfig(cls_token=cls_token, segments=segments, **sizes(config, tensors, where))


def text_tower_config(
    config: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    where: Path,
    *,
    encoder_width: int | None = None,
    pooling: str = "cls",
    unit_length: bool = False,
) -> TextTowerConfig:
    """Translate a BERT ``config.json`` of a text encoder, after comparing it with the weights."""
    common = sizes(config, tensors, where)
    return TextTowerConfig(encoder_width=encoder_width, pooling=pooling, unit_length=unit_length, **common)


SIZES = {
    "vocabulary": "vocab_size",
    "layers": "num_hidden_layers",
    "width": "hidden_size",
    "heads": "num_attention_heads",
    "feedforward": "intermediate_size",
    "positions": "max_position_embeddings",
}
OTHERS = {
    "activation": "hidden_act",
    "eps": "layer_norm_eps",
    "dropout": "hidden_dropout_prob",
    "attention_dropout": "attention_probs_dropout_prob",
}
#: Our size -> the weight that shows it, and the axis.
SHOWN_BY = {
    "vocabulary": ("embeddings.word_embeddings.weight", 0),
    "width": ("embeddings.word_embeddings.weight", 1),
    "positions": ("embeddings.position_embeddings.weight", 0),
    "feedforward": ("encoder.layer.0.intermediate.dense.weight", 0),
}


def sizes(config: Mapping[str, Any], tensors: Mapping[str, Tensor], where: Path) -> dict[str, Any]:
    """Return the settings of a BERT by our names; sizes are numbers that the weights bear out.

    Compared before anything is built: a wrong number would ask for more memory than there is.
    """
    keys = {**SIZES, **OTHERS}
    missing = [theirs for theirs in keys.values() if theirs not in config]
    if missing:
        raise ModelError(f"{where / CONFIG} lacks {', '.join(missing)}.", "the configuration of a BERT model")
    kind = config.get("position_embedding_type", "absolute")
    if kind != "absolute":
        raise ModelError(f"{where} has {kind!r} positions.", "absolute, learned positions")
    if config["hidden_act"] not in ("relu", "gelu"):
        raise ModelError(f"{where} uses the activation {config['hidden_act']!r}.", "relu or gelu")
    held = {ours: config[theirs] for ours, theirs in keys.items()}
    for ours, value in held.items():
        real = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1
        if not (_is_size(value) if ours in SIZES else ours == "activation" or real):
            raise ModelError(f"{where / CONFIG}: {keys[ours]} is {value!r}.", "a number of a BERT model")
    if held["width"] % held["heads"]:
        raise ModelError(f"{where / CONFIG}: {held['heads']} heads and a width of {held['width']}.", "whole heads")
    for ours, (name, axis) in SHOWN_BY.items():
        shape = tuple(tensors[name].shape) if name in tensors else ()
        if len(shape) == 2 and shape[axis] != held[ours]:
            raise ModelError(
                f"{where}: {name!r} has the shape {shape}.", f"{keys[ours]} {held[ours]:,}, as in {CONFIG}"
            )
    layers = {name.split(".")[2] for name in tensors if name.startswith("encoder.layer.")}
    if held["layers"] > len(layers):
        raise ModelError(f"{where} holds {len(layers)} layers.", f"{held['layers']:,}, as in {CONFIG}")
    return held


def _is_size(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


@contextmanager
def storable(where: Path) -> Iterator[None]:
    """Say what to do about a weight that a smaller number type can't hold."""
    try:
        yield
    except ValueError as error:
        raise ModelError(f"{where}: {error}.", "weights that fit the storage", "float32 storage") from error


def fill(
    module: nn.Module,
    tensors: Mapping[str, Tensor],
    where: Path,
    rename: Callable[[str], str],
    ignored: tuple[str, ...] = IGNORED,
) -> None:
    """Copy `tensors` into `module`; every weight must be there once, with its shape, and none may be left over.

    Parameters
    ----------
    module
        What is filled, in place; it may be on the meta device.
    tensors
        By the names that `rename` gives to ours.
    where
        For messages.
    rename
        Our name -> the name in `tensors`.
    ignored
        What names of weights that may be left over begin with.
    """
    wanted = module.state_dict()
    names = {ours: rename(ours) for ours in wanted}
    for ours, theirs in names.items():
        if theirs not in tensors:
            raise ModelError(f"{where} lacks the weight {theirs!r}.", f"{len(wanted)} weights of this architecture")
        if tensors[theirs].shape != wanted[ours].shape:
            raise ModelError(
                f"{where}: {theirs!r} has the shape {tuple(tensors[theirs].shape)}.",
                f"{tuple(wanted[ours].shape)}, from its configuration",
            )
        if not bool(torch.isfinite(tensors[theirs]).all()):
            raise ModelError(f"{where}: {theirs!r} holds values that are not finite.", "finite weights")
    known = set(names.values())
    unknown = sorted(name for name in tensors if name not in known and not name.startswith(ignored))
    if unknown:
        raise ModelError(f"{where} holds the unknown weight {unknown[0]!r}.", "the weights of this architecture")
    # Assigned, not copied: the module may be on the meta device, and a large one is not held twice.
    module.load_state_dict({ours: tensors[theirs].to(torch.float32) for ours, theirs in names.items()}, assign=True)
