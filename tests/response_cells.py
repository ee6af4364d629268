"""Cells with a planted response and planted samples, so that a test knows what is response and what is sample."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pandas as pd
from anndata import AnnData
from awkward_files import human_genes
from scipy.sparse import csr_matrix

GENES, SHIFTED = 300, 12


def cells(
    n: int = 160, *, samples: int = 4, response: float = 1.2, batch: float = 1.5, equal: bool = False, seed: int = 0
) -> AnnData:
    """Return cells with ``label`` (sensitive, resistant), ``number`` (1, 0) and ``sample`` in obs.

    Parameters
    ----------
    response, batch
        How far the genes of the response, and those of each sample, are up, as a logarithm.
    equal
        A sample holds cells of one label alone.
    """
    rng = np.random.default_rng(seed)
    symbols, ids = human_genes(GENES)
    level = rng.gamma(1.0, 2.0, GENES) + 0.5
    sample = np.arange(n) % samples
    sensitive = sample % 2 == 0 if equal else rng.random(n) < 0.5
    logs = np.zeros((n, GENES))
    logs[sensitive, 30 : 30 + SHIFTED] += response
    for number in range(samples):
        start = 60 + SHIFTED * number
        logs[sample == number, start : start + SHIFTED] += batch
    counts = rng.poisson(level * np.exp(logs) * rng.lognormal(0, 0.2, (n, 1)))
    counts[:, 0] += 1
    obs = pd.DataFrame(
        {
            "label": np.where(sensitive, "sensitive", "resistant"),
            "number": sensitive.astype(int),
            "sample": [f"S{number}" for number in sample],
        },
        index=[f"cell{number}-1" for number in range(n)],
    )
    return AnnData(csr_matrix(counts.astype(np.float32)), obs, pd.DataFrame({"gene_ids": ids}, index=symbols))


def write_table(path: Path, adata: AnnData, *, sample: bool = True, separator: str = ",") -> Path:
    """Write barcode, label and sample of the cells."""
    columns = ["label", "sample"] if sample else ["label"]
    text = adata.obs[columns].to_csv(sep=separator, index_label="barcode")
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def write_text(
    path: Path, adata: AnnData, *, genes_in_rows: bool = True, separator: str = "\t", corner: bool = True,
    quotes: bool = False, beside: bool = False,
) -> Path:  # fmt: skip
    """Write the counts as text."""
    quote = '"' if quotes else ""
    values = adata.X.toarray().astype(int)
    rows, columns = (adata.obs_names, adata.var_names) if not genes_in_rows else (adata.var_names, adata.obs_names)
    table = values.T if genes_in_rows else values
    head = [f"{quote}{name}{quote}" for name in columns]
    more = ["about"] if beside else []
    lines = [separator.join([*(["name"] if corner else []), *more, *head])]
    for name, line in zip(rows, table, strict=True):
        lines.append(separator.join([f"{quote}{name}{quote}", *(["text"] if beside else []), *map(str, line.tolist())]))
    text = ("\n".join(lines) + "\n").encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)
    return path
