"""What language models of cells make of bulk profiles of cell lines: one state a line, computed once and kept.

A bulk profile has no counts. Its genes are put in order within the line, and the k-th smallest of n becomes the k-th
smallest of n typical expression values (counts per 10,000, one fixed scale for all encoders): a quantile mapping that
keeps the order of the genes and nothing else, so units and platforms do not matter. A gene that the table lacks is
absent, not zero; a line depends on itself alone.

Bulk expresses most genes. CellLM as released keeps the first genes of its vocabulary where there are too many; here
the highest values are kept (``top``).
"""

from __future__ import annotations

import gzip
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from cellingua.cells.genes import load_vocabulary
from cellingua.core.errors import InputError
from cellingua.models.cellm import CellLMModel, CellLMModule
from cellingua.models.inputs import Rows
from cellingua.models.langcell import LangCellModule
from cellingua.models.model import LangCellModel

Floats = NDArray[np.float64]
Encoder = CellLMModel | LangCellModel
#: Genes of a line that CellLM sees, the highest; more cost time squared and told nothing more on validation lines.
SEEN_GENES = 511
TOTAL = 1e4
TYPICAL = Path(__file__).resolve().parents[1] / "data" / "genes" / "typical_values.txt.gz"


def typical_values(number: int) -> Floats:
    """Return `number` ascending typical expression values, counts per 10,000: quantiles of the fixed scale."""
    scale = _scale()
    return np.interp((np.arange(number) + 0.5) / max(number, 1), (np.arange(len(scale)) + 0.5) / len(scale), scale)


@lru_cache(maxsize=1)
def _scale() -> Floats:
    return np.array(gzip.decompress(TYPICAL.read_bytes()).split(), dtype=np.float64)


def as_cells(values: Floats, genes: NDArray[np.str_], encoder: Encoder) -> Rows:
    """Return profiles as a block of cells over the vocabulary's genes, quantile-mapped.

    Parameters
    ----------
    values
        float (m, G): any scale that orders the genes of a line; NaN where absent.
    genes
        str (G,): symbols or Ensembl ids. Of columns of one gene the first counts.
    encoder
        Whose genes are kept.

    Raises
    ------
    InputError
        None of the genes is the encoder's.
    """
    if values.ndim != 2 or values.shape[1] != len(genes):
        raise InputError(f"Profiles of the shape {values.shape} with {len(genes)} genes.", "lines x genes")
    vocabulary = load_vocabulary()
    place = vocabulary.resolve([str(gene) for gene in genes]).index
    first = np.zeros(len(genes), bool)
    first[np.unique(place, return_index=True)[1]] = True
    kept = np.flatnonzero(first & (place >= 0) & (encoder.genes.on_vocabulary[0][place] >= 0))
    if not len(kept):
        raise InputError(f"None of {len(genes):,} genes is one of {encoder.name}.", "human symbols or Ensembl ids")
    rows, columns, data = [], [], []
    for row, profile in enumerate(values[:, kept]):
        there = np.flatnonzero(np.isfinite(profile))
        # Equal values stand in the order of the vocabulary, so that the order of a table's columns decides nothing.
        order = np.lexsort((place[kept[there]], profile[there]))
        rows.append(np.full(len(there), row))
        columns.append(place[kept[there[order]]])
        data.append(typical_values(len(there)))
    shape = (len(values), len(vocabulary))
    counts = csr_matrix((np.concatenate(data), (np.concatenate(rows), np.concatenate(columns))), shape=shape)
    counts.sort_indices()
    return Rows(counts, np.full(len(values), TOTAL))


def line_states(values: Floats, genes: NDArray[np.str_], encoder: Encoder) -> Floats:
    """Return float64 (m, width): the state of each line; NaN for a line without any value.

    Of a CellLM the state of CLS and the mean over genes side by side, of a LangCell the tower's pooled state.
    """
    there = np.isfinite(values).any(axis=1)
    cells = as_cells(values[there], genes, encoder)
    if isinstance(encoder, CellLMModel):
        seeing = with_length(encoder, SEEN_GENES)
        binned = seeing.bin(cells)
        made = np.concatenate([seeing.encode_cells(binned, pooling=pooling) for pooling in ("cls", "mean")], axis=1)
    else:
        made = encoder.encode_cells(encoder.tokenise(cells), state="cls")
    out = np.full((len(values), made.shape[1]), np.nan)
    out[there] = made
    return out


def with_length(encoder: CellLMModel, genes: int) -> CellLMModel:
    """Return the same model, reading the `genes` highest genes of a cell."""
    bins = replace(encoder.config.bins, length=genes + 1, beyond="top")
    return replace(encoder, config=replace(encoder.config, bins=bins))


def untrained(encoder: Encoder, seed: int = 0) -> Encoder:
    """Return the same network with random weights, its table of genes included."""
    torch.manual_seed(seed)
    if isinstance(encoder, CellLMModel):
        return replace(encoder, name=f"{encoder.name}, random", module=CellLMModule(encoder.config).eval())
    return replace(encoder, name=f"{encoder.name}, random", module=LangCellModule(encoder.config).eval())


@torch.inference_mode()
def token_states(values: Floats, genes: NDArray[np.str_], encoder: CellLMModel) -> Floats:
    """Return what TGDRP reads of each line, float64 (m, T (1 + width)): T gene numbers, then T states.

    T is `SEEN_GENES` + 1, for CLS, whose number is one above the last gene's. Where a line has fewer tokens, the
    number is -1 and the state 0; a line without any value has no token at all.
    """
    tokens, width = SEEN_GENES + 1, encoder.width
    out = np.zeros((len(values), tokens * (1 + width)))
    out[:, :tokens] = -1
    there = np.flatnonzero(np.isfinite(values).any(axis=1))
    seeing = with_length(encoder, SEEN_GENES)
    binned = seeing.bin(as_cells(values[there], genes, encoder))
    performer = seeing.module.performer
    for rows in seeing.groups(binned.lengths, 64):
        batch = performer.batch(binned.take(rows))
        hidden = performer(batch, together=False).hidden
        number = torch.where(batch.mask, batch.genes, -1).numpy()
        out[there[rows], : number.shape[1]] = number
        place = tokens + np.arange(hidden.shape[1] * width)
        out[np.ix_(there[rows], place)] = (hidden * batch.mask[:, :, None]).reshape(len(rows), -1).numpy()
    return out
