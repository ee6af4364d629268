"""A model as one folder, and back.

::

    config.json           format_version, kind, name, description, the architecture
    weights.safetensors   cell tower, cell projection, match head
    text.safetensors      text tower and text projection (optional; read when a text is first encoded)
    tokenizer/tokenizer.json
    genes.tsv.gz          ensembl_id, symbol, token, median
    terms.safetensors     ids and vectors of the ontology's terms, and which the model saw more of than words
    evidence.safetensors  the marker channel (optional in a model, verified where there)
    decoder.safetensors   what a text says that a cell expresses (optional in a model, verified where there)
    calibration.json
    card.md
    seen.json, seen.filter   what it was trained on (optional: see `cellingua.models.seen`)
    head.json, head.safetensors   classes of its own, in a tuned model (see `cellingua.models.tuned`)
    manifest.json         size and SHA-256 of each file

Nothing in it is code, and nothing is pickled. Every file is checked against the manifest before it is read.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from cellingua.core.errors import ModelError
from cellingua.core.files import write_json, write_text
from cellingua.models.decoding import ExpressionDecoder
from cellingua.models.evidence import MarkerEvidence
from cellingua.models.folder import CONFIG, GENES, LANGCELL, WEIGHTS, open_folder, write_folder
from cellingua.models.gene_table import GeneTable, read_gene_table
from cellingua.models.inputs import Evidence
from cellingua.models.langcell import LangCellConfig, LangCellModule
from cellingua.models.manifest import Manifest
from cellingua.models.model import LangCellModel
from cellingua.models.seen import Seen
from cellingua.models.storage import assign, pack, shapes_only, unpack
from cellingua.models.tuned import read_head
from cellingua.nn.precision import converted
from cellingua.nn.transformer import CellTower
from cellingua.words.wordpiece import WordPiece, from_json

TEXT, TOKENIZER = "text.safetensors", "tokenizer/tokenizer.json"
TERMS, CALIBRATION, EVIDENCE = "terms.safetensors", "calibration.json", "evidence.safetensors"
DECODER = "decoder.safetensors"
REQUIRED = (CONFIG, WEIGHTS, GENES, TERMS, CALIBRATION)
TEXT_SIDE = ("text_tower.", "text_projection.")


@dataclass(frozen=True)
class BundleParts:
    """What a bundle is made of.

    Parameters
    ----------
    name, description
        For people; the description is one line.
    module
        The trained weights.
    genes
        Genes, tokens and medians.
    pieces
        The tokeniser of the text tower.
    term_ids, term_vectors
        Terms with a stored vector, and float32 (n, joint), unit length.
    calibration
        ``{"temperature": 1.0}`` and what other rooms add.
    card
        The model card, in Markdown.
    evidence
        The second channel, or None.
    decoder
        The third, or None.
    supported
        Terms of which the model saw a profile, markers or cells.
    seen
        What it was trained on, None where that is not known.
    """

    name: str
    description: str
    module: LangCellModule
    genes: GeneTable
    pieces: WordPiece
    term_ids: list[str]
    term_vectors: NDArray[np.float32]
    calibration: dict[str, Any] = field(default_factory=lambda: {"temperature": 1.0})
    card: str = ""
    evidence: Evidence | None = None
    decoder: ExpressionDecoder | None = None
    supported: frozenset[str] = frozenset()
    seen: Seen | None = None


def save_bundle(folder: Path, parts: BundleParts, *, storage: str = "float16", text_storage: str | None = None) -> None:
    """Write a model folder; it appears complete or not at all, and replaces one that is there.

    Parameters
    ----------
    folder
        Where.
    parts
        What.
    storage, text_storage
        ``float32``, ``float16`` or ``int8``, for the cell side and the text side (by default the same).
    """
    if len(parts.term_ids) != len(parts.term_vectors):
        raise ValueError(f"{len(parts.term_ids)} terms and {len(parts.term_vectors)} vectors")
    weights = parts.module.state_dict()
    text = {name: tensor for name, tensor in weights.items() if name.startswith(TEXT_SIDE)}
    cell = {name: tensor for name, tensor in weights.items() if name not in text}

    def more(partial: Path) -> None:
        (partial / "tokenizer").mkdir()
        write_json(partial / CALIBRATION, parts.calibration)
        write_text(partial / TOKENIZER, parts.pieces.to_json())
        (partial / TEXT).write_bytes(pack(text, text_storage or storage))
        (partial / TERMS).write_bytes(pack_terms(parts.term_ids, parts.term_vectors, parts.supported))
        if isinstance(parts.evidence, MarkerEvidence):
            (partial / EVIDENCE).write_bytes(parts.evidence.to_bytes())
        if parts.decoder is not None:
            (partial / DECODER).write_bytes(parts.decoder.to_bytes())

    config, optional = parts.module.config, frozenset({TEXT, TOKENIZER})
    write_folder(folder, LANGCELL, parts, config, cell, storage, more=more, optional=optional)


def load_bundle(folder: Path, device: str = "cpu", precision: str = "auto") -> LangCellModel:
    """Load a model folder.

    The text side is read when a text is first encoded: naming cells with the terms that have a stored vector
    needs none of it. With the precision ``int8``, the cell tower is kept in 8 bits only, and can't be tuned.

    Raises
    ------
    ModelError
        A file is missing, damaged, or does not fit the others; the first one is named.
    """
    folder = Path(folder)
    manifest, held, config = open_folder(folder, LANGCELL, REQUIRED, LangCellConfig)
    module = _shapes(config)
    _assign_side(module, unpack(folder / WEIGHTS), folder / WEIGHTS, text=False)
    _to(module, device, text=False)
    if precision == "int8" and isinstance(module.cell_tower, CellTower):
        module.cell_tower = converted(module.cell_tower, precision)
    term_ids, vectors, supported = _unpack_terms(folder / TERMS, config.joint_width)
    model = LangCellModel(
        name=held["name"],
        hash=manifest.hash,
        config=config,
        module=module.eval(),
        genes=read_gene_table(folder / GENES),
        term_ids=term_ids,
        term_vectors=vectors,
        load_text=lambda: _load_text(module, manifest, device),
        calibration=_read_calibration(folder / CALIBRATION),
        device=device,
        evidence=_read_evidence(folder / EVIDENCE) if EVIDENCE in manifest.files else None,
        decoder=_read_decoder(folder / DECODER, config.joint_width) if DECODER in manifest.files else None,
        supported=supported,
        folder=folder,
        precision=precision,
    )
    model.head = read_head(manifest, model)
    return model


def _read_evidence(path: Path) -> MarkerEvidence:
    return MarkerEvidence.from_bytes(path.read_bytes(), str(path))


def _read_decoder(path: Path, joint: int) -> ExpressionDecoder:
    return ExpressionDecoder.from_bytes(path.read_bytes(), joint, str(path))


def _shapes(config: LangCellConfig) -> LangCellModule:
    """Return the module on the meta device: shapes without memory."""
    with shapes_only():
        return LangCellModule(config).requires_grad_(False)


def _assign_side(module: LangCellModule, tensors: dict[str, Tensor], path: Path, *, text: bool) -> None:
    """Fill one side of the module, part by part, and refuse what belongs to no part."""
    parts = {name: part for name, part in module.named_children() if f"{name}.".startswith(TEXT_SIDE) == text}
    for name, part in parts.items():
        prefix = f"{name}."
        assign(part, {key.removeprefix(prefix): t for key, t in tensors.items() if key.startswith(prefix)}, path)
    unknown = [key for key in tensors if key.split(".", 1)[0] not in parts]
    if unknown:
        raise ModelError(f"{path} holds the unknown weight {unknown[0]!r}.", "the weights that config.json describes")


def _to(module: LangCellModule, device: str, *, text: bool) -> None:
    """Move one side to `device`: the other may still be on the meta device, which can't be moved."""
    for name, part in module.named_children():
        if f"{name}.".startswith(TEXT_SIDE) == text:
            part.requires_grad_(False).to(device)


def _load_text(module: LangCellModule, manifest: Manifest, device: str) -> WordPiece:
    """Fill the text side and return its tokeniser."""
    path = manifest.verified(TEXT)
    pieces = from_json(manifest.verified(TOKENIZER).read_text(encoding="utf-8"), str(manifest.folder / TOKENIZER))
    rows = module.config.text.vocabulary
    if len(pieces) > rows:
        raise ModelError(
            f"{manifest.folder / TOKENIZER} has {len(pieces):,} pieces, and the text tower {rows:,} rows.",
            "no more pieces than rows",
        )
    _assign_side(module, unpack(path), path, text=True)
    _to(module, device, text=True)
    module.eval()
    return pieces


def pack_terms(term_ids: list[str], vectors: NDArray[np.float32], supported: frozenset[str]) -> bytes:
    """Return ids (UTF-8, a line each), float16 vectors and uint8 support as one safetensors file."""
    ids = np.frombuffer("\n".join(term_ids).encode("utf-8"), dtype=np.uint8)
    return save(
        {
            "ids": torch.from_numpy(ids.copy()),
            "vectors": torch.from_numpy(vectors).to(torch.float16),
            "supported": torch.tensor([term in supported for term in term_ids], dtype=torch.uint8),
        }
    )


def _unpack_terms(path: Path, joint: int) -> tuple[list[str], NDArray[np.float32], frozenset[str]]:
    """Return ids, unit vectors float32 (n, joint), and the ids of which the model saw more than words."""
    try:
        held = load_file(path)
        ids = held["ids"].numpy().tobytes().decode("utf-8").split("\n")
        vectors = held["vectors"].to(torch.float32)
        supported = held["supported"].tolist()
    except (SafetensorError, KeyError, UnicodeDecodeError, OSError) as error:
        raise ModelError(f"{path} can't be read: {error!r}.", "ids and vectors of terms") from error
    ids = [term for term in ids if term]
    fits = vectors.shape == (len(ids), joint) and len(supported) == len(ids)
    if not fits or not bool(torch.isfinite(vectors).all()):
        raise ModelError(
            f"{path} holds {len(ids):,} ids and vectors of the shape {tuple(vectors.shape)}.",
            f"a finite vector of {joint} values for each id",
        )
    # Rounding to float16 takes them off unit length by up to a few ten thousandths.
    known = frozenset(term for term, seen in zip(ids, supported, strict=True) if seen)
    return ids, torch.nn.functional.normalize(vectors, dim=-1).numpy(), known


def _read_calibration(path: Path) -> dict[str, Any]:
    try:
        held = json.loads(path.read_text(encoding="utf-8"))
        if not float(held.get("temperature", 1.0)) > 0:
            raise ValueError("its temperature is not above 0")
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise ModelError(f"{path} can't be read: {error}.", "a mapping with a temperature above 0") from error
    return held
