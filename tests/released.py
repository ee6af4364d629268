"""Released-format checkpoints and gene dictionaries of random content, for the tests of converting."""

from __future__ import annotations

import io
import json
import pickle
import types
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import nn

from cellingua.cells.genes import load_vocabulary
from cellingua.models.convert import their_name
from cellingua.models.gene_table import GeneTable
from cellingua.nn.language import TextTower, TextTowerConfig
from cellingua.nn.transformer import CellTower, CellTowerConfig

try:
    from numpy._core.multiarray import scalar
except ImportError:  # NumPy 1
    from numpy.core.multiarray import scalar


def config_of(config: CellTowerConfig) -> dict[str, Any]:
    """Return the ``config.json`` of a cell tower."""
    return {
        "model_type": "bert",
        "vocab_size": config.vocabulary,
        "num_hidden_layers": config.layers,
        "hidden_size": config.width,
        "num_attention_heads": config.heads,
        "intermediate_size": config.feedforward,
        "max_position_embeddings": config.positions,
        "type_vocab_size": config.segments,
        "hidden_act": config.activation,
        "layer_norm_eps": config.eps,
        "hidden_dropout_prob": config.dropout,
        "attention_probs_dropout_prob": config.attention_dropout,
        "pad_token_id": 0,
    }


def random_tower(config: CellTowerConfig) -> CellTower:
    """Return a tower whose weights are far from their start, so that a mistake shows."""
    torch.manual_seed(0)
    tower = CellTower(config)
    for parameter in tower.parameters():
        nn.init.normal_(parameter, std=0.3)
    return tower.requires_grad_(False).eval()


def write_bert(
    folder: Path, tower: CellTower, *, prefix: str = "", more: dict[str, torch.Tensor] | None = None, safe: bool = True
) -> Path:
    """Write a tower as the folder of a Hugging Face BERT, with `more` weights beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config_of(tower.config)), encoding="utf-8")
    held = {prefix + their_name(name): tensor.clone() for name, tensor in tower.state_dict().items()} | (more or {})
    if safe:
        save_file(held, folder / "model.safetensors")
    else:
        torch.save(held, folder / "pytorch_model.bin")
    return folder


WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "cell", "type", ":", ".", ";", "b", "t", "a", "of", "lymphocyte"]


def write_langcell(folder: Path, *, extra_rows: int = 2, safe: bool = True) -> Path:
    """Write a tiny checkpoint in LangCell's released form, its vocabulary in ``text_bert``; return its folder."""
    cell = random_tower(CellTowerConfig(25_427, 25_426, 2, 8, 2, 12, 40))
    write_bert(folder / "cell_bert", cell, prefix="bert.", safe=safe)
    config = TextTowerConfig(len(WORDS) + extra_rows, 2, 16, 2, 24, 64, encoder_width=8, pooler=True)
    text = TextTower(config)
    for parameter in text.parameters():
        nn.init.normal_(parameter, std=0.3)
    (folder / "text_bert").mkdir()
    held = config_of(CellTowerConfig(config.vocabulary, 0, 2, 16, 2, 24, 64, activation="gelu"))
    (folder / "text_bert" / "config.json").write_text(json.dumps({**held, "encoder_width": 8}), encoding="utf-8")
    weights = {their_name(name): tensor.detach().clone() for name, tensor in text.state_dict().items()}
    save_file({**weights, "embeddings.position_ids": torch.arange(64)[None]}, folder / "text_bert/model.safetensors")
    (folder / "text_bert" / "vocab.txt").write_text("\n".join(WORDS), encoding="utf-8")
    for name, (rows, columns) in {"cell_proj": (32, 8), "text_proj": (32, 16), "ctm_head": (2, 16)}.items():
        head = {"weight": torch.randn(rows, columns), "bias": torch.randn(rows)}
        torch.save(head, folder / f"{name}.bin")
    return folder


def some_genes(number: int, first_token: int = 4) -> GeneTable:
    """Return a table of known human genes."""
    vocabulary = load_vocabulary()
    rows = np.sort(np.random.default_rng(0).choice(len(vocabulary), number, replace=False))
    medians = np.random.default_rng(1).uniform(0.5, 4.0, number)
    tokens = np.arange(first_token, first_token + number, dtype=np.int32)
    return GeneTable(vocabulary.ensembl_ids[rows], vocabulary.symbols[rows], tokens, medians)


class _OldNames(pickle._Pickler):
    """Pickles NumPy's scalars under the name that NumPy 1 gave them, as the authors' files have it."""

    def save_global(self, obj: Any, name: str | None = None) -> None:
        if obj is not scalar:
            super().save_global(obj, name)  # type: ignore[misc]
            return
        self.save("numpy.core.multiarray")  # type: ignore[attr-defined]
        self.save("scalar")  # type: ignore[attr-defined]
        self.write(pickle.STACK_GLOBAL)  # type: ignore[attr-defined]
        self.memoize(obj)  # type: ignore[attr-defined]

    dispatch = {**pickle._Pickler.dispatch, types.BuiltinFunctionType: save_global}  # noqa: RUF012


def pickled(held: dict[str, Any]) -> bytes:
    """Return a dictionary as the authors' programs pickle it."""
    buffer = io.BytesIO()
    _OldNames(buffer, 4).dump(held)
    return buffer.getvalue()


def write_dictionaries(folder: Path, table: GeneTable, *, suffix: str = "", names: bool = True) -> Path:
    """Write a table as Geneformer's pickles; with four special tokens where the genes begin at 4."""
    folder.mkdir(parents=True, exist_ok=True)
    special = ("<pad>", "<mask>", "<cls>", "<eos>")[: int(table.tokens.min())]
    genes = [str(gene) for gene in table.ensembl_ids]
    tokens = {name: number for number, name in enumerate(special)}
    tokens |= {gene: np.int16(token) for gene, token in zip(genes, table.tokens, strict=True)}
    medians = {gene: np.float64(median) for gene, median in zip(genes, table.medians, strict=True)}
    (folder / f"token_dictionary{suffix}.pkl").write_bytes(pickled(tokens))
    (folder / f"gene_median_dictionary{suffix}.pkl").write_bytes(pickled(medians))
    if names:
        held = {str(symbol): gene for symbol, gene in zip(table.symbols, genes, strict=True) if symbol}
        (folder / f"gene_name_id_dict{suffix}.pkl").write_bytes(pickled(held))
    return folder
