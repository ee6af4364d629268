"""A tiny data folder that a recipe trains on: real files in the layout of `cellingua.cells.collections`.

Six planted types (those of `small_world`) in two studies' worth of profiles, two files of cells (one curated, one
with gaps that a machine's labels fill), markers, and evaluation cells, one of which was planted in the corpus.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import small_world
import torch
from safetensors.torch import save
from scipy.sparse import csr_matrix
from tokenizers import BertWordPieceTokenizer

from cellingua.cells.genes import load_vocabulary
from cellingua.core.config import to_dict
from cellingua.core.files import write_json
from cellingua.nn.language import TextTower, TextTowerConfig

TERM = "cell_type_ontology_term_id"
STUDIES = ("North", "South")
CURATED, MIXED, EVALUATION = "curated", "mixed", "judge"
PLANTED = "TTTTTTTTTTTTTTTT-1"  # a cell of the curated file that is also an evaluation cell


def barcodes(n: int, seed: int) -> list[str]:
    """Return names such as 10x gives them."""
    rng = np.random.default_rng(seed)
    return ["".join(letters) + "-1" for letters in rng.choice(list("ACGT"), (n, 16))]


def write_folder(folder: Path, *, cells: int = 48, evaluation: bool = True) -> Path:
    """Write the whole folder and return it."""
    write_cells(folder, cells, evaluation=evaluation)
    write_profiles(folder / "profiles")
    write_markers(folder / "markers")
    return folder


def write_cells(folder: Path, cells: int, *, evaluation: bool) -> None:
    """Write ``corpus/`` and, if asked, ``evaluation/``."""
    curated, mixed, judge = (small_world.cells(cells, seed) for seed in (21, 22, 23))
    for seed, adata in enumerate((curated, mixed, judge)):
        adata.obs_names = barcodes(cells, seed)
    curated.obs_names = [PLANTED, *curated.obs_names[1:]]
    judge.obs_names = [PLANTED, *judge.obs_names[1:]]
    judge.X = csr_matrix(np.concatenate([curated.X[:1].toarray(), judge.X[1:].toarray()]))
    curated.obs = pd.DataFrame({TERM: curated.obs["truth"]}, index=curated.obs_names)
    # Of four cells: one has a curated label and a machine's other one, one a sure machine label, one an unsure
    # one, one none at all.
    truth = mixed.obs["truth"].to_numpy()
    kind = np.arange(cells) % 4
    mixed.obs = pd.DataFrame(
        {
            TERM: np.where(kind == 0, truth, "unknown"),
            "pseudo_label_ontology_term_id": np.where(kind == 3, "", np.where(kind == 0, "CL:0000000", truth)),
            "pseudo_label_confident": kind != 2,
        },
        index=mixed.obs_names,
    )
    (folder / "corpus").mkdir(parents=True)
    curated.write_h5ad(folder / "corpus" / f"{CURATED}.h5ad")
    mixed.write_h5ad(folder / "corpus" / f"{MIXED}.h5ad")
    if evaluation:
        (folder / "evaluation").mkdir()
        judge.obs = pd.DataFrame(index=judge.obs_names)
        judge.write_h5ad(folder / "evaluation" / f"{EVALUATION}.h5ad")


def write_profiles(folder: Path) -> None:
    """Write a parquet file a study, and the table that names their columns; the second study has fewer genes."""
    folder.mkdir(parents=True, exist_ok=True)
    ids = load_vocabulary().ensembl_ids[small_world.rows_of_genes()]
    rows = []
    for number, study in enumerate(STUDIES):
        noise = np.random.default_rng(number).lognormal(0, 0.2, (len(small_world.TYPES), len(ids)))
        means = small_world.profiles() * noise
        if number:
            means[:, ::10] = np.nan
        levels = np.log1p(means / np.nansum(means, axis=1, keepdims=True) * 1e6).astype(np.float32)
        names = [f"{study}_{place}" for place in range(len(small_world.TYPES))]
        table = pd.DataFrame(levels.T, index=pd.Index(ids, name="ensembl_id"), columns=names)
        stranger = pd.DataFrame(1.0, index=["ENSG99999999999"], columns=names, dtype=np.float32)
        pd.concat([table, stranger]).to_parquet(folder / f"{study}.parquet")
        for name, (term, label) in zip(names, small_world.TYPES.items(), strict=True):
            rows.append((name, f"{study}.parquet", study, label, term))
    columns = ["profile_id", "file", "set", "source_label", TERM]
    pd.DataFrame(rows, columns=columns).to_csv(folder / "profiles_meta.tsv", sep="\t", index=False)


def markers() -> dict[str, list[str]]:
    """Return the planted markers of each type, Ensembl ids, best first."""
    ids = load_vocabulary().ensembl_ids[small_world.rows_of_genes()]
    size = small_world.MARKERS
    return {
        term: ids[20 + size * number : 20 + size * (number + 1)].tolist()
        for number, term in enumerate(small_world.TYPES)
    }


def write_markers(folder: Path) -> None:
    """Write the table of markers, shuffled, with a gene that nobody knows and one that is named twice."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for term, genes in markers().items():
        rows += [(term, gene, rank) for rank, gene in enumerate(genes, start=1)]
        rows += [(term, "ENSG99999999999", 2), (term, genes[0], 99)]
    table = pd.DataFrame(rows, columns=[TERM, "ensembl_id", "rank"])
    table.sample(frac=1, random_state=0).to_parquet(folder / "cellconsensus_top40.parquet")


def write_text_tower(folder: Path, seed: int = 0) -> Path:
    """Write a text tower of one layer with random weights, in the format of ``scripts/make_text_tower.py``."""
    folder.mkdir(parents=True, exist_ok=True)
    letters = [chr(code) for code in range(33, 127) if not chr(code).isupper()]
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "cell", "type", *letters, *(f"##{x}" for x in letters)]
    torch.manual_seed(seed)
    tower = TextTower(TextTowerConfig(len(words), 1, 16, 2, 24, 128, pooling="mean"))
    tokenizer = BertWordPieceTokenizer(vocab={word: row for row, word in enumerate(words)})
    weights = {name: tensor.contiguous() for name, tensor in tower.state_dict().items()}
    (folder / "text.safetensors").write_bytes(save(weights))
    tokenizer.save(str(folder / "tokenizer.json"))
    write_json(folder / "tower.json", to_dict(tower.config))
    return folder
