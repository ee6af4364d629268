"""What fine-tuning adds to a model: classes of its own, and a head that reads a cell for them.

Two files more in the model's folder::

    head.json             kind, classes, ontology ids and texts of the classes, method, calibration, facts
    head.safetensors      the head's weights

The tower in the same folder is the one that was tuned, so such a folder is a model like any other.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from cellingua.core.errors import ModelError
from cellingua.core.files import write_json
from cellingua.models.evidence import expression
from cellingua.models.inputs import Counts
from cellingua.models.manifest import Manifest
from cellingua.models.model import LangCellModel
from cellingua.models.seen import Seen
from cellingua.nn.batch import BinnedBatch
from cellingua.nn.gene_head import AnnotationHead
from cellingua.nn.heads import unit

if TYPE_CHECKING:
    from cellingua.models.cellm import CellLMModel
    from cellingua.models.geneformer import GeneformerModel

    Model: TypeAlias = LangCellModel | CellLMModel | GeneformerModel

Floats = NDArray[np.float32]
HEAD, HEAD_WEIGHTS = "head.json", "head.safetensors"
VERSION = 1
BATCH = 256
_KEYS = ("format_version", "kind", "method", "classes", "term_ids", "texts", "keeps_texts", "temperature", "facts")


@dataclass(frozen=True)
class Reading:
    """What the base model and the file say of n cells, as a head takes it.

    Attributes
    ----------
    pooled
        float32 (n, width): the tower's own state.
    joint
        float32 (n, joint), unit length; of width 0 for a model without words.
    expression
        float32 (n, genes): log1p of counts per 10,000 of the head's genes.
    evidence
        float32 (n, classes): of the markers of the classes' terms; 0 where the model has no such channel.
    """

    pooled: Tensor
    joint: Tensor
    expression: Tensor
    evidence: Tensor


class LinearHead(nn.Module):
    """Sum of linear maps of the joint vector, the tower's state and the expression of some genes, and of the evidence.

    Parameters
    ----------
    joint, pooled, genes
        Width of each part; 0 leaves it out.
    classes
        Number of classes.
    hidden
        Width of a tanh layer between state and classes (BERT's pooler); 0 for none.
    """

    kind = "linear"
    rows: Tensor

    def __init__(self, joint: int, pooled: int, genes: int, classes: int, hidden: int = 0) -> None:
        super().__init__()
        self.pooler = nn.Linear(pooled, hidden) if hidden else None
        self.joint = nn.Parameter(torch.zeros(joint, classes))
        self.pooled = nn.Parameter(torch.zeros(hidden or pooled, classes))
        self.expression = nn.Parameter(torch.zeros(genes, classes))
        self.bias = nn.Parameter(torch.zeros(classes))
        self.evidence = nn.Parameter(torch.zeros(()))
        #: int64 (genes,): rows of the vocabulary whose expression is read.
        self.register_buffer("rows", torch.zeros(genes, dtype=torch.int64))

    def logits(self, reading: Reading) -> Tensor:
        """Return (n, classes)."""
        out = self.bias + self.evidence * reading.evidence
        if self.joint.shape[0]:
            out = out + reading.joint @ self.joint
        if self.pooled.shape[0]:
            state = reading.pooled if self.pooler is None else torch.tanh(self.pooler(reading.pooled))
            out = out + state @ self.pooled
        if self.expression.shape[0]:
            out = out + reading.expression @ self.expression
        return out


class GeneHead(nn.Module):
    """CellLM's and scBERT's annotation head on the states of all tokens: see `cellingua.nn.gene_head`."""

    kind = "genes"

    def __init__(self, head: AnnotationHead) -> None:
        super().__init__()
        self.head = head

    def scored(self, hidden: Tensor, batch: BinnedBatch) -> Tensor:
        """Return (B, classes) from the states (B, L, width) of a batch."""
        return self.head(hidden, batch)

    def answer(self, model: CellLMModel, block: Counts) -> tuple[Floats, Floats, NDArray[np.int64]]:
        """Return the state of CLS, the logits and the tokens of each cell of a block; the encoder runs once."""
        binned = model.bin(block)
        lengths = np.asarray(binned.lengths, np.int64)
        performer = model.module.performer
        pooled = np.zeros((len(binned), model.width), np.float32)
        logits = np.zeros((len(binned), self.head.last.out_features), np.float32)
        for rows in model.groups(lengths, BATCH):
            batch = performer.batch(binned.take(rows))
            states = performer(batch, together=False)
            pooled[rows] = states.cls.float().cpu().numpy()
            logits[rows] = self.scored(states.hidden, batch).float().cpu().numpy()
        pooled[lengths == 0] = 0.0
        return pooled, logits, lengths


@dataclass
class ClassHead:
    """The classes of a tuned model.

    Attributes
    ----------
    module
        Reads a cell.
    classes
        The labels, sorted, verbatim.
    term_ids
        Cell Ontology id of each, or None.
    texts
        Text of each class where the method has used one, else ``""``.
    method
        How it was tuned.
    keeps_texts
        Whether cells may still be compared with any text: the joint space is the base model's, or was tuned as one.
    temperature
        Divides the logits.
    facts
        JSON values: figures of its validation, and whether it was worse than the frozen classifier.
    seen
        What the tuned model saw, until it is saved: its folder says so afterwards.
    """

    module: nn.Module
    classes: tuple[str, ...]
    term_ids: tuple[str | None, ...]
    texts: tuple[str, ...]
    method: str
    keeps_texts: bool
    temperature: float = 1.0
    facts: dict[str, Any] = field(default_factory=dict)
    seen: Seen | None = None

    @torch.inference_mode()
    def answer(self, model: Model, block: Counts) -> tuple[Floats, Floats, NDArray[np.int64]]:
        """Name the cells of a block.

        Returns
        -------
        embedding
            float32 (cells, width): the joint vector, unit length; the state of a model without words. 0 for a cell
            without a single token.
        logits
            float32 (cells, classes), calibrated; a row depends on that cell alone.
        tokens
            int64 (cells,): tokens of each cell.
        """
        if isinstance(self.module, GeneHead):
            embedding, logits, tokens = self.module.answer(cast("CellLMModel", model), block)
            return embedding, np.asarray(logits / np.float32(self.temperature), np.float32), tokens
        embedding, reading, tokens = read(model, block, self)
        logits = self.module.logits(reading).float().cpu().numpy()  # type: ignore[operator]
        return embedding, np.asarray(logits / np.float32(self.temperature), np.float32), tokens

    def save(self, folder: Path) -> None:
        """Write both files into a model's folder (before its manifest is made)."""
        held = (VERSION, getattr(self.module, "kind", ""), self.method, list(self.classes), list(self.term_ids),
                list(self.texts), self.keeps_texts, self.temperature, self.facts)  # fmt: skip
        write_json(folder / HEAD, dict(zip(_KEYS, held, strict=True)))
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in self.module.state_dict().items()}
        (folder / HEAD_WEIGHTS).write_bytes(save(tensors))


@torch.inference_mode()
def read(model: Model, block: Counts, head: ClassHead) -> tuple[Floats, Reading, NDArray[np.int64]]:
    """Return the embedding of a block of cells, what a linear head reads of it, and the cells' tokens."""
    pooled, joint, tokens = encode(model, block)
    rows = getattr(head.module, "rows", torch.zeros(0, dtype=torch.int64)).cpu().numpy()
    reading = Reading(
        torch.from_numpy(pooled),
        torch.from_numpy(joint),
        torch.from_numpy(gene_levels(block, rows)),
        torch.from_numpy(evidence_of(model, block, head.term_ids)),
    )
    return (joint if joint.shape[1] else pooled), reading, tokens


@torch.inference_mode()
def encode(model: Model, block: Counts) -> tuple[Floats, Floats, NDArray[np.int64]]:
    """Return the state (n, width) and the joint vector (n, joint; of width 0 without words) of each cell, and tokens.

    Both are 0 for a cell without a single token. The tower runs once.
    """
    if not isinstance(model, LangCellModel):
        pooled, lengths = _encode_wordless(model, block)
        pooled[lengths == 0] = 0.0
        return pooled, np.zeros((len(pooled), 0), np.float32), lengths
    ranked = model.tokenise(block)
    lengths = np.diff(ranked.indptr).astype(np.int64)
    pooled = np.asarray(model.encode_cells(ranked, state="cls"), np.float32)
    joint = unit(model.module.cell_projection(torch.from_numpy(pooled).to(model.device))).float().cpu().numpy()
    pooled[lengths == 0] = joint[lengths == 0] = 0.0
    return pooled, joint, lengths


def _encode_wordless(model: Any, block: Counts) -> tuple[Floats, NDArray[np.int64]]:
    """Return the state of each cell and its tokens, for a CellLM (bins) or a Geneformer (ranks)."""
    if hasattr(model, "bin"):
        binned = model.bin(block)
        return np.asarray(model.encode_cells(binned), np.float32), np.asarray(binned.lengths, np.int64)
    ranked = model.tokenise(block)
    return np.asarray(model.encode_cells(ranked), np.float32), np.diff(ranked.indptr).astype(np.int64)


def gene_levels(block: Counts, rows: NDArray[np.integer]) -> Floats:
    """Return log1p of counts per 10,000 of some rows of the vocabulary, float32 (cells, rows)."""
    if not len(rows):
        return np.zeros((block.counts.shape[0], 0), np.float32)
    return np.asarray(expression(block.counts[:, rows].tocsr(), block.totals).todense(), np.float32)


def evidence_of(model: Model, block: Counts, term_ids: tuple[str | None, ...]) -> Floats:
    """Return what the markers of the classes' terms say, float32 (cells, classes); 0 without such a channel."""
    channel = getattr(model, "evidence", None)
    if channel is None:
        return np.zeros((block.counts.shape[0], len(term_ids)), np.float32)
    return np.asarray(channel.score(block, term_ids), np.float32)


def read_head(manifest: Manifest, model: Model) -> ClassHead | None:
    """Read the head of a model's folder, None where the model was not tuned.

    Raises
    ------
    ModelError
        A file is damaged, of another version, or does not fit the model.
    """
    if HEAD not in manifest.files:
        return None
    folder = manifest.folder
    path = folder / HEAD
    try:
        held = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(held, dict) or sorted(held) != sorted(_KEYS):
            raise ValueError("its keys are others")
        if held["format_version"] != VERSION:
            raise ValueError(f"it is of format version {held['format_version']!r}, and this package reads {VERSION}")
        classes, term_ids, texts = (tuple(held[key]) for key in ("classes", "term_ids", "texts"))
        if len({len(classes), len(term_ids), len(texts)}) != 1 or len(classes) < 2:
            raise ValueError("its classes, ids and texts differ in number")
        if len(set(classes)) < len(classes) or not all(isinstance(name, str) and name for name in classes):
            raise ValueError("a class is empty or there twice")
        temperature = float(held["temperature"])
        if not 0 < temperature < float("inf"):
            raise ValueError(f"its temperature is {temperature}")
        tensors = load_file(folder / HEAD_WEIGHTS)
        module = _rebuilt(str(held["kind"]), tensors, len(classes), model)
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        raise ModelError(f"The head of {folder} can't be read: {error}.", "a tuned model as saved") from error
    return ClassHead(
        module,
        classes,
        term_ids,
        texts,
        str(held["method"]),
        bool(held["keeps_texts"]),
        temperature,
        dict(held["facts"]),
    )


def _rebuilt(kind: str, tensors: Mapping[str, Tensor], classes: int, model: Model) -> nn.Module:
    """Return the module of a kind with its weights, after checking that it fits the classes and the model."""
    if any(not bool(torch.isfinite(tensor).all()) for tensor in tensors.values() if tensor.is_floating_point()):
        raise ValueError("it holds weights that are not finite")
    if kind == GeneHead.kind:
        return _rebuilt_genes(tensors, classes, model)
    if kind != LinearHead.kind:
        raise ValueError(f"it is of the kind {kind!r}, which this package does not know")
    joint, pooled, genes = (tensors[name].shape[0] for name in ("joint", "pooled", "expression"))
    hidden = tensors["pooler.weight"].shape[0] if "pooler.weight" in tensors else 0
    width = tensors["pooler.weight"].shape[1] if hidden else pooled
    own_width, own_joint = widths(model)
    if (width not in (0, own_width)) or joint not in (0, own_joint):
        raise ValueError(f"it reads states of width {width} and {joint}, and the model has {own_width} and {own_joint}")
    module = LinearHead(joint, width, genes, classes, hidden)
    module.load_state_dict(dict(tensors))
    return module.requires_grad_(False).eval()


def _rebuilt_genes(tensors: Mapping[str, Tensor], classes: int, model: Model) -> nn.Module:
    width, own = tensors["head.scores.score.weight"].shape[1], widths(model)[0]
    size, hidden = tensors["head.first.weight"].shape[1], tensors["head.first.weight"].shape[0]
    config = getattr(model.config, "performer", None)
    if config is None or width != own or size != config.genes + 1:
        raise ValueError(f"it reads {size} states of width {width}, which the model does not have")
    with torch.device("meta"):
        module = GeneHead(AnnotationHead(width, size, (hidden, tensors["head.second.weight"].shape[0]), classes))
    module.load_state_dict(dict(tensors), assign=True)
    return module.requires_grad_(False).to(model.device).eval()


def widths(model: Model) -> tuple[int, int]:
    """Return the width of a model's state and of its joint space (0 without words)."""
    return (model.config.cell_width, model.joint_width) if isinstance(model, LangCellModel) else (model.width, 0)
