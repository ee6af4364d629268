"""Where a text tower and its tokeniser come from: a prepared folder, a BERT folder, or a name on the hub."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from cellingua.core.config import from_dict
from cellingua.core.errors import ModelError
from cellingua.models.convert import load_text_tower
from cellingua.models.storage import assign, unpack
from cellingua.nn.language import TextTower, TextTowerConfig
from cellingua.words.wordpiece import WordPiece, read_wordpiece

PREPARED = "tower.json"
_PATTERNS = ["config.json", "model.safetensors", "pytorch_model.bin", "vocab.txt", "tokenizer*.json"]


def load_text_source(
    name_or_folder: str | Path, *, encoder_width: int | None = None, pooling: str = "cls"
) -> tuple[TextTower, WordPiece]:
    """Return a text tower and its tokeniser.

    Parameters
    ----------
    name_or_folder
        A folder made by ``scripts/make_text_tower.py`` (it holds ``tower.json``, and the other arguments are not
        used), a folder with a BERT-family model, or such a model's name on the hub (``owner/name``).
    encoder_width
        Width of the cell states for cross-attention, or None for none.
    pooling
        ``cls`` or ``mean``.

    Raises
    ------
    ModelError
        It is neither, it can't be fetched, or what is there does not fit.
    """
    folder = Path(name_or_folder)
    if not folder.is_dir():
        folder = _fetch(str(name_or_folder))
    if not (folder / PREPARED).is_file():
        return load_text_tower(folder, encoder_width=encoder_width, pooling=pooling), read_wordpiece(folder)
    try:
        held = json.loads((folder / PREPARED).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelError(f"{folder / PREPARED} is not JSON: {error}.", "a configuration as saved") from error
    tower = TextTower(from_dict(TextTowerConfig, held))
    assign(tower, unpack(folder / "text.safetensors"), folder / "text.safetensors")
    return tower.eval(), read_wordpiece(folder)


def _fetch(name: str) -> Path:
    """Return the local copy of a model on the hub."""
    hub: Any
    try:
        import huggingface_hub as hub
    except ImportError as error:
        raise ModelError(
            f"{name!r} is not a folder here, and huggingface_hub, which could fetch it, is not installed.",
            "the path of a folder",
            "pip install huggingface_hub, or download the model by hand",
        ) from error
    try:
        return Path(hub.snapshot_download(name, allow_patterns=_PATTERNS))
    except (
        OSError,
        ValueError,
    ) as error:  # the hub's own errors, and httpx's or requests' below them, are OSErrors
        raise ModelError(
            f"{name!r} is not a folder here and could not be fetched: {type(error).__name__}.",
            "the path of a folder, or a name on the hub and a connection",
            "download the model elsewhere and give its folder",
        ) from error
