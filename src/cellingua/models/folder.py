"""The folder of a model: what every kind has, and the check of all its files.

Each has a configuration of its kind, weights, genes, a card and a manifest.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol, TypeVar

from torch import Tensor, nn

from cellingua.core.config import from_dict, to_dict
from cellingua.core.errors import ConfigError, ModelError
from cellingua.core.files import atomic_folder, write_json, write_text
from cellingua.models.gene_table import GeneTable
from cellingua.models.manifest import Manifest, read_manifest, write_manifest
from cellingua.models.seen import Seen
from cellingua.models.storage import assign, pack, shapes_only, unpack

VERSION = 1
LANGCELL, CELLM, GENEFORMER, DRUG = "langcell", "cellm", "geneformer", "drug"
KINDS = (LANGCELL, CELLM, GENEFORMER, DRUG)
CONFIG, WEIGHTS, GENES, CARD = "config.json", "weights.safetensors", "genes.tsv.gz", "card.md"
KEYS = ("format_version", "kind", "name", "description", "model")

Architecture = TypeVar("Architecture")
Module = TypeVar("Module", bound=nn.Module)


class Parts(Protocol):
    """What every model's parts have."""

    @property
    def name(self) -> str:
        """For people."""

    @property
    def description(self) -> str:
        """One line for people."""

    @property
    def genes(self) -> GeneTable:
        """Genes, tokens and medians."""

    @property
    def card(self) -> str:
        """The model card, in Markdown."""

    @property
    def seen(self) -> Seen | None:
        """What it was trained on, None where that is not known."""


def write_folder(
    folder: Path,
    kind: str,
    parts: Parts,
    architecture: Any,
    weights: Mapping[str, Tensor],
    storage: str,
    *,
    more: Callable[[Path], None] | None = None,
    optional: frozenset[str] = frozenset(),
) -> None:
    """Write a model folder; it appears complete or not at all, and replaces one that is there.

    Parameters
    ----------
    folder, kind, parts
        Where, and what.
    architecture
        A frozen dataclass.
    weights, storage
        For ``weights.safetensors``, as ``float32``, ``float16`` or ``int8``.
    more
        Writes what this kind has besides into the folder that it is given.
    optional
        Files without which the model can be used.
    """
    with atomic_folder(Path(folder)) as partial:
        write_config(partial, kind, parts.name, parts.description, architecture)
        write_text(partial / CARD, parts.card)
        (partial / WEIGHTS).write_bytes(pack(weights, storage))
        (partial / GENES).write_bytes(parts.genes.to_bytes())
        if parts.seen is not None:
            parts.seen.save(partial)
        if more is not None:
            more(partial)
        write_manifest(partial, optional)


def load_weights(folder: Path, make: Callable[[], Module], device: str) -> Module:
    """Return the module that `make` makes with the folder's weights, on a device, in evaluation mode.

    Raises
    ------
    ModelError
        The weights are not those of such a module.
    """
    with shapes_only():
        module = make()
    assign(module, unpack(folder / WEIGHTS), folder / WEIGHTS)
    return module.requires_grad_(False).to(device).eval()


def write_config(folder: Path, kind: str, name: str, description: str, architecture: Any) -> None:
    """Write ``config.json``; `architecture` is a frozen dataclass."""
    held = (VERSION, kind, name, description, to_dict(architecture))
    write_json(folder / CONFIG, dict(zip(KEYS, held, strict=True)))


def read_config(folder: Path, kind: str | None = None) -> dict[str, Any]:
    """Return ``config.json`` of a model folder after checking its version, kind (None: any) and keys."""
    path = folder / CONFIG
    try:
        held = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} can't be read: {error}.", "a configuration as saved") from error
    if not isinstance(held, dict) or held.get("format_version") != VERSION:
        version = held.get("format_version") if isinstance(held, dict) else None
        raise ModelError(f"{path} is of format version {version!r}.", f"version {VERSION}", "another cellingua")
    if held.get("kind") not in (KINDS if kind is None else (kind,)):
        expected = " or ".join(repr(name) for name in (KINDS if kind is None else (kind,)))
        raise ModelError(f"{path} describes a model of kind {held.get('kind')!r}.", expected)
    unknown = sorted(set(held) - set(KEYS))
    missing = [key for key in KEYS if key not in held]
    if unknown or missing:
        what = f"has the unknown key {unknown[0]!r}" if unknown else f"lacks the key {missing[0]!r}"
        raise ModelError(f"{path} {what}.", ", ".join(KEYS))
    return held


def open_folder(
    folder: Path, kind: str, required: tuple[str, ...], architecture: type[Architecture]
) -> tuple[Manifest, dict[str, Any], Architecture]:
    """Return the manifest, ``config.json`` and the architecture, after checking every file that isn't optional.

    Raises
    ------
    ModelError
        A file is missing or damaged, or the folder holds another kind of model; the first one is named.
    """
    manifest = read_manifest(folder)
    manifest.verified(CONFIG)
    held = read_config(folder, kind)
    listed = [name for name, entry in manifest.files.items() if not entry.optional]
    for name in dict.fromkeys([*required, *listed]):
        manifest.verified(name)
    if not isinstance(held["model"], dict):
        raise ModelError(f"{folder / CONFIG}: 'model' is {held['model']!r}.", "a mapping")
    try:
        return manifest, held, from_dict(architecture, held["model"])
    except ConfigError as error:
        raise ModelError(f"{folder / CONFIG}: {error.found}", error.expected, error.try_) from error
