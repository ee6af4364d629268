"""A small world that can be named right: six planted cell types, and a real model trained on them in a second.

The model is a `LangCellModel` like any other, saved and loaded as a folder; only its size and its data are small.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from anndata import AnnData
from scipy.sparse import csr_matrix
from tokenizers import BertWordPieceTokenizer
from torch.nn import functional

from cellingua.cells.genes import load_vocabulary
from cellingua.cells.ranked import rank_tokens
from cellingua.models.bundle import BundleParts, load_bundle, save_bundle
from cellingua.models.gene_table import GeneTable
from cellingua.models.langcell import LangCellConfig, LangCellModule
from cellingua.models.model import LangCellModel
from cellingua.nn.bag import GatedBagConfig
from cellingua.nn.batch import CellBatch
from cellingua.nn.language import TextTowerConfig
from cellingua.words.ontology import load_ontology
from cellingua.words.wordpiece import WordPiece

TYPES = {
    "CL:0000236": "B cell",
    "CL:0000624": "CD4-positive, alpha-beta T cell",
    "CL:0000625": "CD8-positive, alpha-beta T cell",
    "CL:0000576": "monocyte",
    "CL:0000115": "endothelial cell",
    "CL:0000171": "pancreatic A cell",
}
LABELS = list(TYPES.values())
N_GENES, MARKERS, WIDTH = 500, 25, 32
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "cell", "type", ":", "b", "t", ".", "mono", "##cyte", "##s"]


def rows_of_genes() -> np.ndarray:
    """Return the rows of the vocabulary that this world expresses: coding genes with a symbol, ACTB among them."""
    vocabulary = load_vocabulary()
    coding = np.flatnonzero(vocabulary.biotypes == "protein_coding")
    named = coding[~np.char.startswith(vocabulary.symbols[coding], "ENSG")]
    chosen = np.random.default_rng(7).permutation(named)[:N_GENES]
    chosen[0] = np.flatnonzero(vocabulary.symbols == "ACTB")[0]
    return np.unique(chosen)


def profiles() -> np.ndarray:
    """Return mean counts of the six types, float64 (6, genes); CD4 and CD8 T cells share half of their markers."""
    level = np.random.default_rng(3).gamma(0.6, 1.2, len(rows_of_genes()))
    means = np.tile(level, (len(TYPES), 1))
    for number in range(len(TYPES)):
        means[number, 20 + MARKERS * number : 20 + MARKERS * (number + 1)] += 12
    shared = slice(20 + MARKERS * 7, 20 + MARKERS * 8)
    means[1:3, shared] += 12
    return means


def cells(n: int = 120, seed: int = 0, *, noise: float = 0.0) -> AnnData:
    """Return `n` cells with whole-number counts, symbols as names, ``truth`` (CL ids), ``own`` and ``batch`` in obs.

    `noise` is the share of every cell's molecules that come from the mean of all types.
    """
    rng = np.random.default_rng(seed)
    means = (1 - noise) * profiles() + noise * profiles().mean(axis=0)
    kind = rng.integers(0, len(TYPES), n)
    depth = rng.lognormal(0, 0.25, (n, 1))
    counts = rng.poisson(means[kind] * depth).astype(np.float32)
    vocabulary, rows = load_vocabulary(), rows_of_genes()
    ids = np.array(list(TYPES))[kind]
    obs = pd.DataFrame(
        {
            "truth": ids,
            "own": [TYPES[term] for term in ids],
            "batch": rng.choice(["donor 1", "donor 2"], n),
        },
        index=[f"cell{number}" for number in range(n)],
    )
    var = pd.DataFrame({"gene_ids": vocabulary.ensembl_ids[rows]}, index=vocabulary.symbols[rows])
    return AnnData(csr_matrix(counts), obs, var)


def write_zarr(adata: AnnData, path: Path) -> Path:
    """Write `adata` as a zarr store and return the path."""
    with warnings.catch_warnings():
        # anndata 0.12 announces that its default zarr format will change; either format is read here.
        warnings.filterwarnings("ignore", message="Writing zarr v2", category=UserWarning)
        adata.write_zarr(path)
    return path


def save_model(folder: Path, *, match: bool = False) -> Path:
    """Train the world's model, save it as a folder, and return the folder.

    With `match` it has token states, texts that look at them, and a match head, all three with random weights.
    """
    ontology = load_ontology("CL")
    vectors = np.random.default_rng(11).normal(size=(len(ontology.ids), WIDTH)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    vocabulary, rows = load_vocabulary(), rows_of_genes()
    genes = GeneTable(
        vocabulary.ensembl_ids[rows],
        vocabulary.symbols[rows],
        np.arange(1, len(rows) + 1, dtype=np.int32),
        np.ones(len(rows)),
    )
    torch.manual_seed(0)
    module = LangCellModule(
        LangCellConfig(
            "bag",
            TextTowerConfig(len(WORDS), 2 if match else 1, 32, 2, 48, 16, encoder_width=16 if match else None),
            bag=GatedBagConfig(
                len(rows) + 1, 32, 48, 32, 4, 0.0, layers=int(match), top=24, layer_width=16, heads=2, feedforward=32
            ),
            joint_width=WIDTH,
            temperature=0.1,
            token_limit=None,
            text_limit=16,
            match_head=match,
        )
    )
    if module.match_head is not None:
        for parameter in (*module.text_tower.parameters(), *module.match_head.parameters()):
            if parameter.dim() > 1:
                torch.nn.init.normal_(parameter, std=0.4)
        torch.nn.init.normal_(module.match_head.weight, std=2.0)
    place = {term: number for number, term in enumerate(ontology.ids)}
    _train(module, torch.from_numpy(vectors[[place[term] for term in TYPES]]))
    pieces = WordPiece(BertWordPieceTokenizer(vocab={word: n for n, word in enumerate(WORDS)})._tokenizer, "small")
    parts = BundleParts(
        "small_world", "six planted types", module, genes, pieces, list(ontology.ids), vectors,
        {"temperature": 1.0, "threshold": 0.5}, "# Small world\n",
    )  # fmt: skip
    save_bundle(folder, parts, storage="float32")
    return folder


def model(folder: Path) -> LangCellModel:
    """Return the model of a folder that `save_model` made."""
    return load_bundle(folder)


def _train(module: LangCellModule, targets: torch.Tensor) -> None:
    """Draw the cells of each type to its vector."""
    sample = cells(240, seed=99)
    counts = csr_matrix(sample.X)
    ranked = rank_tokens(counts, np.arange(1, counts.shape[1] + 1, dtype=np.int32), np.ones(counts.shape[1]))
    batch = CellBatch.from_arrays(ranked.indptr, ranked.tokens, ranked.values)
    truth = torch.tensor([list(TYPES).index(term) for term in sample.obs["truth"]])
    optimiser = torch.optim.Adam(module.parameters(), lr=5e-3)
    module.train()
    for _ in range(60):
        joint, _ = module.cells(batch)
        loss = functional.cross_entropy(joint @ targets.T / 0.1, truth) + (1 - (joint * targets[truth]).sum(1)).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    module.eval()
