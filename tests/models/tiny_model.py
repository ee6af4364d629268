"""A tiny model with random weights, for the tests of this folder."""

from __future__ import annotations

import numpy as np
import torch
from tokenizers import BertWordPieceTokenizer
from torch import nn

from cellingua.cells.ranked import RankedCells
from cellingua.models.bundle import BundleParts
from cellingua.models.gene_table import GeneTable
from cellingua.models.langcell import LangCellConfig, LangCellModule
from cellingua.nn.bag import GatedBagConfig
from cellingua.nn.language import TextTowerConfig
from cellingua.nn.transformer import CellTowerConfig
from cellingua.words.wordpiece import WordPiece

GENES = 40
TERMS = ["CL:0000236", "CL:0000084", "CL:0000576"]
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "cell", "type", ":", "b", "t", ".", "mono", "##cyte", "##s"]


def pieces() -> WordPiece:
    """Return a tokeniser of a few words."""
    made = BertWordPieceTokenizer(vocab={word: row for row, word in enumerate(WORDS)})
    return WordPiece(made._tokenizer, "tiny")


def genes(first: str = "ENSG") -> GeneTable:
    """Return genes with tokens 2 and up."""
    ids = np.array([f"{first}{row:011d}" for row in range(GENES)])
    medians = np.linspace(0.5, 3.3, GENES)
    return GeneTable(
        ids, np.array([f"G{row}" for row in range(GENES)]), np.arange(2, GENES + 2, dtype=np.int32), medians
    )


def module(kind: str = "bag") -> LangCellModule:
    """Return towers of 40 genes and 14 words with weights that differ from their start."""
    torch.manual_seed(0)
    text = TextTowerConfig(len(WORDS), 1, 32, 2, 48, 16, encoder_width=32 if kind == "bert" else None)
    if kind == "bert":
        cell = CellTowerConfig(GENES + 3, GENES + 2, 1, 32, 2, 48, 20)
        config = LangCellConfig("bert", text, bert=cell, joint_width=32, token_limit=19, match_head=True)
    else:
        bag = GatedBagConfig(GENES + 2, 32, 40, 32, 4)
        config = LangCellConfig("bag", text, bag=bag, joint_width=32, token_limit=None, text_limit=16, text_adapter=40)
    made = LangCellModule(config)
    for parameter in made.parameters():
        nn.init.normal_(parameter, std=0.2)
    return made.eval()


def parts(kind: str = "bag") -> BundleParts:
    """Return a whole bundle."""
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(len(TERMS), 32)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return BundleParts(
        "tiny", "random weights", module(kind), genes(), pieces(), TERMS, vectors, {"temperature": 2.0}, "# Tiny\n"
    )


def ranked(sizes: tuple[int, ...] = (5, 0, 12, 1, 18)) -> RankedCells:
    """Return cells of these many genes."""
    rng = np.random.default_rng(1)
    indptr = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    tokens = np.concatenate([rng.permutation(GENES)[:size] + 2 for size in sizes]).astype(np.int32)
    values = np.concatenate([np.sort(rng.exponential(2, size))[::-1] for size in sizes]).astype(np.float32)
    return RankedCells(indptr, tokens, values)
