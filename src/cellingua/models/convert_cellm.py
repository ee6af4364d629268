"""Released checkpoints of CellLM and scBERT -> our encoder, and a model folder with the user's gene list.

The files hold no gene names, so the list that a checkpoint was trained with has to come along. Their names of weights
are known here and nowhere else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from cellingua.cells.binned import BinConfig
from cellingua.cells.genes import load_vocabulary
from cellingua.core.errors import FileError, GeneError, ModelError
from cellingua.models.cellm import CellLMConfig, CellLMModule
from cellingua.models.cellm_bundle import CellLMParts, numbered_genes, save_cellm
from cellingua.models.convert import fill, read_tensors
from cellingua.models.gene_table import GeneTable
from cellingua.nn.gene_head import AnnotationHead
from cellingua.nn.performer import PerformerConfig

#: Rows of the token table, and rows of the gene table beyond the genes.
RELEASED = {"cellm": ("CellLM", 8, 2), "scbert": ("scBERT", 7, 1)}
WRAPPER = "model_state_dict"
COUNTER = "performer.calls_since_last_redraw"
LENGTH = 6000
OUTSIDE = {"token": "token_emb", "gene": "pos_emb.emb", "norm": "norm", "to_logits": "to_out"}
LAYER = {
    "attention_norm": "0.norm",
    "attention.query": "0.fn.to_q",
    "attention.key": "0.fn.to_k",
    "attention.value": "0.fn.to_v",
    "attention.output": "0.fn.to_out",
    "feedforward_norm": "1.norm",
    "widen": "1.fn.fn.w1",
    "narrow": "1.fn.fn.w2",
}
#: Heads: in OpenBioMed's files, and in scBERT's own, where the head stands in for the output layer.
HEADS = (
    {"scores.score": "conv", "first": "pred_head.1", "second": "pred_head.4", "last": "pred_head.7"},
    {"scores.score": "to_out.conv1", "first": "to_out.fc1", "second": "to_out.fc2", "last": "to_out.fc3"},
)
MINIMUM_SHARE = 0.5


def their_name(ours: str) -> str:
    """Return the released name of a weight of our encoder (``layers.3.widen.weight`` and the like)."""
    if not ours.startswith("layers."):
        stem, _, kind = ours.rpartition(".")
        return f"{OUTSIDE[stem]}.{kind}"
    _, number, part = ours.split(".", 2)
    start = f"performer.net.layers.{number}."
    if part == "attention.features":
        return start + "0.fn.fast_attention.projection_matrix"
    stem, _, kind = part.rpartition(".")
    return f"{start}{LAYER[stem]}.{kind}"


def load_cellm_checkpoint(
    path: Path, kind: str = "cellm", *, attention: str = "compat", length: int = LENGTH, bins: BinConfig | None = None
) -> CellLMModule:
    """Load a released checkpoint.

    Parameters
    ----------
    path
        ``.safetensors``, or a torch file: the weights themselves or under ``model_state_dict``; names may begin with
        ``module.``. The gene table may be float32 or float64.
    kind
        ``cellm`` or ``scbert``.
    attention
        ``compat`` gives what the released code gives; ``favor`` leaves padding out.
    length
        Length that CellLM's cells were padded to, CLS included. scBERT's cells hold every gene.
    bins
        How counts became tokens; by default scBERT's normalisation (log base 2 of counts per 10,000).

    Returns
    -------
    CellLMModule
        In evaluation mode, without a head. A fine-tuned file, in which a head stands in for the output layer, gives
        an encoder without that layer; see `load_annotation_head` for the head.

    Raises
    ------
    ModelError
        The file is damaged, of another model, or a weight is missing, unknown, or of another shape.
    """
    path = Path(path)
    tensors = {name: t for name, t in _read(path).items() if name != COUNTER}
    head = set(_head_names(tensors).values())
    tensors = {name: t for name, t in tensors.items() if name.rpartition(".")[0] not in head}
    performer = _performer_config(tensors, path, kind, attention, length)
    limit = None if performer.every_gene else length
    bins = bins or BinConfig(bins=performer.tokens - (2 if performer.every_gene else 3), length=limit)
    module = CellLMModule(CellLMConfig(performer, bins, discrimination=False, gene_table=f"released {kind}"))
    fill(module.performer, tensors, path, their_name, ignored=())
    table = tensors[their_name("gene.weight")]
    if table.dtype == torch.float64:  # rounded after the sum with the token, as in the released code
        module.performer.gene = nn.Embedding.from_pretrained(table)
    return module.requires_grad_(False).eval()


def load_annotation_head(path: Path, *, by_slot: bool = False) -> AnnotationHead:
    """Load the cell-type head of a fine-tuned file, or of a file with a head alone.

    Parameters
    ----------
    path
        As in `load_cellm_checkpoint`. Names are ``conv, pred_head.1/4/7`` or ``to_out.conv1, fc1, fc2, fc3``.
    by_slot
        The head of CellLM's first release (2023-04), which reads the k-th token at place k.

    Raises
    ------
    ModelError
        There is no such head, or its weights do not fit each other.
    """
    path = Path(path)
    tensors = _read(path)
    names = _head_names(tensors)
    if not names:
        raise ModelError(f"{path} holds no cell-type head.", " or ".join(", ".join(head.values()) for head in HEADS))
    held = {name: t for name, t in tensors.items() if name.rpartition(".")[0] in names.values()}
    missing = [f"{stem}.weight" for stem in names.values() if f"{stem}.weight" not in held]
    if missing:
        raise ModelError(f"{path} lacks the weight {missing[0]!r}.", "a whole head")
    score = f"{names['scores.score']}.weight"
    held[score] = held[score].reshape(1, -1)
    shapes = {part: tuple(held[f"{stem}.weight"].shape) for part, stem in names.items()}
    if any(len(shape) != 2 for shape in shapes.values()):
        raise ModelError(f"{path}: the head's weights have the shapes {list(shapes.values())}.", "matrices")
    head = AnnotationHead(
        shapes["scores.score"][1],
        shapes["first"][1],
        (shapes["first"][0], shapes["second"][0]),
        shapes["last"][0],
        by_slot=by_slot,
    )
    fill(head, held, path, lambda ours: f"{names[ours.rpartition('.')[0]]}.{ours.rpartition('.')[2]}", ())
    return head.requires_grad_(False).eval()


def read_gene_list(path: Path) -> list[str]:
    """Read one symbol or Ensembl id a line; empty lines at the end are passed over.

    Raises
    ------
    FileError
        The file can't be read as text, is empty, or a line in its middle is.
    """
    try:
        names = [line.strip() for line in Path(path).read_text(encoding="utf-8-sig").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise FileError(f"{path} can't be read: {error}.", "a text file, one gene a line") from error
    while names and not names[-1]:
        names.pop()
    if not names:
        raise FileError(f"{path} holds no gene.", "one symbol or Ensembl id a line, in the order of the checkpoint")
    if "" in names:
        raise FileError(f"{path}: line {names.index('') + 1:,} is empty.", "a gene on every line")
    return names


def resolve_genes(names: list[str]) -> tuple[GeneTable, dict[str, int]]:
    """Return the genes of a list, numbered by its lines, and how many were found.

    A line that names no known gene keeps its number and is never seen in a cell; so does the second of two lines
    that name one gene.

    Raises
    ------
    GeneError
        Fewer than half of the lines name a known human gene.
    """
    vocabulary = load_vocabulary()
    match = vocabulary.resolve(names)
    lines = np.flatnonzero(match.index >= 0)
    if len(lines) < MINIMUM_SHARE * len(names):
        raise GeneError(
            f"{len(lines):,} of the {len(names):,} lines of the gene list name a human gene.",
            "symbols or Ensembl ids of human genes, one a line",
        )
    rows, first = np.unique(match.index[lines], return_index=True)
    order = np.argsort(first)
    rows, kept = rows[order], lines[first[order]]
    table = numbered_genes(vocabulary.ensembl_ids[rows], vocabulary.symbols[rows], kept)
    told = {"listed": len(names), "found": len(rows), "repeated": len(lines) - len(rows)}
    return table, told | {"unknown": len(names) - len(lines)}


@dataclass(frozen=True)
class Conversion:
    """What `convert_checkpoint` made: the folder, the parameters of the encoder, and counts of genes."""

    folder: Path
    parameters: int
    genes: dict[str, int]
    has_head: bool

    def to_text(self) -> str:
        """Return it in a few lines."""
        lines = [
            f"{self.folder}: {self.parameters:,} parameters, {self.genes['found']:,} of {self.genes['listed']:,} "
            f"genes found ({self.genes['unknown']:,} unknown, {self.genes['repeated']:,} repeated)."
        ]
        if self.has_head:
            lines.append("The cell-type head in the checkpoint was left out: the folder holds the encoder.")
        return "\n".join(lines)


def convert_checkpoint(
    checkpoint: Path,
    genes: Path,
    out: Path,
    kind: str = "cellm",
    *,
    attention: str = "compat",
    length: int = LENGTH,
    base: str = "2",
) -> Conversion:
    """Turn a released checkpoint and its gene list into a model folder (float32).

    Parameters
    ----------
    checkpoint, kind, attention, length
        As in `load_cellm_checkpoint`.
    genes
        The gene list that the checkpoint was trained with, in its order: see `read_gene_list`.
    out
        The folder, made or replaced.
    base
        Base of the logarithm of the expression values, ``2`` or ``e``.

    Raises
    ------
    InputError
        The checkpoint or the list can't be used, or they do not fit each other. Nothing is written then.
    """
    names = read_gene_list(genes)
    bins = BinConfig(base=base, length=None if kind == "scbert" else length)
    module = load_cellm_checkpoint(checkpoint, kind, attention=attention, length=length, bins=bins)
    size = module.config.performer.genes
    if len(names) != size:
        rows = module.config.performer.gene_rows
        special = "CLS and padding" if kind == "cellm" else "the last slot"
        raise GeneError(
            f"{genes} names {len(names):,} genes, and the gene table of {checkpoint} has {rows:,} rows.",
            f"{size:,} genes: a row for each and {rows - size} for {special}",
            "the gene list that the checkpoint was trained with, in its order",
        )
    table, told = resolve_genes(names)
    label = RELEASED[kind][0]
    description = f"{label}, converted from {Path(checkpoint).name}; {told['found']:,} of {size:,} genes named"
    card = (
        f"# {label}, converted\n\nMade by `cellingua convert` from a released checkpoint and a gene list of "
        f"{size:,} lines, of which {told['found']:,} name a known gene. Attention: {attention}. "
        f"Values: log base {base} of counts per 10,000 of the listed genes.\n"
    )
    save_cellm(out, CellLMParts(Path(out).name, description, module, table, card), storage="float32")
    parameters = sum(weight.numel() for weight in module.performer.parameters())
    return Conversion(Path(out), parameters, told, bool(_head_names(_read(Path(checkpoint)))))


def _read(path: Path) -> dict[str, Tensor]:
    tensors = read_tensors(path, WRAPPER)
    if tensors and all(name.startswith("module.") for name in tensors):
        tensors = {name.removeprefix("module."): tensor for name, tensor in tensors.items()}
    return tensors


def _head_names(tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """Return our name -> theirs of the parts of the cell-type head in a file, or nothing where there is none."""
    stems = {name.rpartition(".")[0] for name in tensors}
    return next((head for head in HEADS if stems & set(head.values())), {})


def _performer_config(
    tensors: Mapping[str, Tensor], path: Path, kind: str, attention: str, length: int
) -> PerformerConfig:
    """Derive every size from the shapes of the weights."""
    label, rows, special = RELEASED[kind]
    shapes = {}
    for ours in ("token.weight", "gene.weight", "layers.0.attention.query.weight", "layers.0.attention.features",
                 "layers.0.widen.weight"):  # fmt: skip
        theirs = their_name(ours)
        if theirs not in tensors:
            raise ModelError(f"{path} lacks the weight {theirs!r}: it is no checkpoint of {label}.", f"{label}'s file")
        shapes[ours] = tuple(tensors[theirs].shape)
        if len(shapes[ours]) != 2:
            raise ModelError(f"{path}: {theirs!r} has the shape {shapes[ours]}.", "a matrix")
    tokens, width = shapes["token.weight"]
    inner = shapes["layers.0.attention.query.weight"][0]
    count, size = shapes["layers.0.attention.features"]
    wide = shapes["layers.0.widen.weight"][0]
    if tokens != rows:
        other = next((k for k, known in RELEASED.items() if known[1] == tokens), None)
        hint = f"kind {other!r}" if other else ""
        raise ModelError(f"{path} has {tokens} expression tokens.", f"{rows}, as {label} has", hint)
    if inner % size or wide % width or shapes["gene.weight"][0] <= special:
        raise ModelError(f"{path}: the shapes {list(shapes.values())} do not fit each other.", f"{label}'s sizes")
    layers = {name.split(".")[3] for name in tensors if name.startswith("performer.net.layers.")}
    every_gene = kind == "scbert"
    return PerformerConfig(
        shapes["gene.weight"][0] - special,
        tokens,
        width,
        layers=len(layers),
        heads=inner // size,
        head_width=size,
        features=count,
        ff_mult=wide // width,
        attention=attention,
        padded_length=length if attention == "compat" and not every_gene else None,
        every_gene=every_gene,
        logits="to_out.weight" in tensors,
    )
