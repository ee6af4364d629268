"""Gene embeddings from a graph of genes, such as protein interactions: a masked graph autoencoder (GraphMAE).

CellLM's gene table is made this way (specification §3). Half of the nodes lose their features; a graph attention
encoder and a one-layer decoder must say what they were, from what is around them (Hou et al. 2022, KDD). The features
are a seeded random projection of each node's neighbourhood, since proteins carry none of their own.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, TextIO, cast

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from cellingua.core.errors import ConfigError, FileError, InputError
from cellingua.core.files import atomic_path
from cellingua.core.progress import Progress, Silent


@dataclass(frozen=True)
class GraphConfig:
    """How the table is made.

    Parameters
    ----------
    width
        Of the embeddings; a multiple of `heads`.
    heads, layers
        Of the encoder.
    features
        Width of the random projection that is predicted.
    mask
        Share of nodes whose features are hidden in each epoch.
    gamma
        Exponent of the scaled cosine error: above 1, easy nodes count less.
    epochs, learning_rate, seed
        Full-batch steps of Adam.
    """

    width: int = 512
    heads: int = 4
    layers: int = 2
    features: int = 256
    mask: float = 0.5
    gamma: float = 2.0
    epochs: int = 1000
    learning_rate: float = 1e-3
    seed: int = 0

    def __post_init__(self) -> None:
        if self.heads < 1 or self.layers < 1 or self.width % self.heads:
            raise ConfigError(f"{self.layers} layers of {self.heads} heads can't share a width of {self.width}.")
        if not 0 < self.mask < 1:
            raise ConfigError(f"The share of hidden nodes is {self.mask:g}.", "above 0 and below 1", "0.5")


@dataclass(frozen=True)
class Graph:
    """An undirected graph.

    Attributes
    ----------
    names
        Of the nodes: genes, as the file writes them.
    edges
        int64 (2, 2E): both directions of each edge once, no self-loop.
    """

    names: list[str]
    edges: NDArray[np.int64]


@dataclass(frozen=True)
class GeneVectors:
    """A vector for each of some genes: float32 (n, width)."""

    names: list[str]
    vectors: NDArray[np.float32]


def read_edges(
    path: Path,
    *,
    columns: tuple[str, str] | None = None,
    score: str | None = None,
    least: float | None = None,
    names: Sequence[str] | None = None,
) -> Graph:
    """Read an edge list: tab-separated, plain or gzip, two columns of genes and perhaps one of scores.

    Parameters
    ----------
    path
        The file.
    columns
        Names of the two gene columns in the header. None: there is no header, and the genes stand first.
    score
        Name of the column of scores; without a header the third column, where there is one.
    least
        Edges of a lower score are left out (STRING: 700).
    names
        Where the columns hold numbers of genes (from 0) instead of names: what they stand for.

    Raises
    ------
    FileError
        The file is missing, a line has too few columns, a score is no number, or no edge is left.
    """
    try:
        with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as handle:
            pairs = _pairs(cast(TextIO, handle), path, columns, score, least)
    except (OSError, UnicodeDecodeError, EOFError) as error:
        raise FileError(f"{path} can't be read: {error}.", "a tab-separated edge list") from error
    if names is not None:
        pairs = {(_named(a, names, path), _named(b, names, path)) for a, b in pairs}
    kept = sorted({(min(a, b), max(a, b)) for a, b in pairs if a != b})
    if not kept:
        raise FileError(f"{path} has no edge between two genes{'' if least is None else f' of score {least:g}'}.")
    genes = sorted({gene for pair in kept for gene in pair})
    row = {gene: index for index, gene in enumerate(genes)}
    one_way = np.array([[row[a], row[b]] for a, b in kept], dtype=np.int64).T
    return Graph(genes, np.concatenate([one_way, one_way[::-1]], axis=1))


def _pairs(
    handle: TextIO, path: Path, columns: tuple[str, str] | None, score: str | None, least: float | None
) -> set[tuple[str, str]]:
    places, scored = [0, 1], 2
    if columns is not None:
        head = handle.readline().rstrip("\r\n").split("\t")
        wanted = [*columns, *([score] if score else [])]
        lacking = [name for name in wanted if name not in head]
        if lacking:
            raise FileError(f"{path} lacks the column {lacking[0]!r}.", ", ".join(head[:6]))
        places, scored = [head.index(name) for name in columns], head.index(score) if score else -1
    found = set()
    for number, line in enumerate(handle, start=1 if columns is None else 2):
        fields = line.rstrip("\r\n").split("\t")
        if not line.strip():
            continue
        if len(fields) <= max(places):
            raise FileError(f"{path}, line {number} has {len(fields)} columns.", "two genes, separated by a tab")
        if least is not None and scored >= 0:
            try:
                if float(fields[scored]) < least:
                    continue
            except (ValueError, IndexError) as error:
                raise FileError(f"{path}, line {number} has no score.", "a number as the third column") from error
        found.add((fields[places[0]].strip(), fields[places[1]].strip()))
    return found


def _named(field: str, names: Sequence[str], path: Path) -> str:
    if not field.isdecimal() or int(field) >= len(names):
        raise FileError(f"{path} names the gene {field!r}.", f"a number below {len(names)}")
    return names[int(field)]


def neighbourhood_features(graph: Graph, width: int, seed: int) -> Tensor:
    """Return float32 (n, width), unit rows: each node's neighbourhood under a random projection.

    Rows of the adjacency with self-loops, each neighbour weighted by ``1 / sqrt(degree)``, times a normal matrix: two
    genes with the same partners get the same features, and the projection keeps angles.
    """
    n = len(graph.names)
    generator = torch.Generator().manual_seed(seed)
    projection = torch.randn(n, width, generator=generator)
    source, target = torch.from_numpy(graph.edges)
    degree = torch.bincount(target, minlength=n).float() + 1
    carried = projection / degree.sqrt()[:, None]
    return functional.normalize(carried.index_add(0, target, carried[source]), dim=1)


def _attention_layer() -> type[nn.Module]:
    """Return torch-geometric's graph attention layer, or say how to get it."""
    try:
        from torch_geometric.nn import GATConv
    except ImportError as error:
        raise InputError(
            f"Gene graphs need torch-geometric, which can't be imported: {error}.",
            "the extra 'graph'",
            "pip install 'cellingua[graph]'",
        ) from error
    return cast("type[nn.Module]", GATConv)


class GraphAutoencoder(nn.Module):
    """Graph attention encoder and decoder with masked nodes.

    Parameters
    ----------
    config
        See `GraphConfig`.
    """

    def __init__(self, config: GraphConfig) -> None:
        super().__init__()
        layer: Any = _attention_layer()
        self.config = config
        sizes = [config.features] + [config.width] * config.layers
        self.encoder = nn.ModuleList(layer(a, b // config.heads, heads=config.heads) for a, b in pairwise(sizes))
        self.activation = nn.ModuleList(nn.PReLU() for _ in self.encoder)
        self.between = nn.Linear(config.width, config.width, bias=False)
        self.decoder = layer(config.width, config.features, heads=1)
        self.hidden_node = nn.Parameter(torch.zeros(1, config.features))

    def encode(self, features: Tensor, edges: Tensor) -> Tensor:
        """Return the codes of all nodes, (n, width)."""
        codes = features
        for layer, activation in zip(self.encoder, self.activation, strict=True):
            codes = activation(layer(codes, edges))
        return codes

    def loss(self, features: Tensor, edges: Tensor, hidden: Tensor) -> Tensor:
        """Return the scaled cosine error of the nodes in `hidden`, bool (n,)."""
        seen = torch.where(hidden[:, None], self.hidden_node, features)
        codes = self.between(self.encode(seen, edges))
        # Masked again: a node must be told from its neighbours' codes, never from its own.
        told = self.decoder(codes.masked_fill(hidden[:, None], 0.0), edges)
        cosine = functional.cosine_similarity(told[hidden], features[hidden], dim=1)
        return ((1 - cosine).clamp(min=0) ** self.config.gamma).mean()


def train_gene_graph(graph: Graph, config: GraphConfig, progress: Progress | None = None) -> GeneVectors:
    """Train the autoencoder on the whole graph and return a vector for each gene in it.

    Raises
    ------
    InputError
        torch-geometric is not installed.
    """
    progress = progress or Silent()
    torch.manual_seed(config.seed)
    model = GraphAutoencoder(config)
    features = neighbourhood_features(graph, config.features, config.seed)
    edges = torch.from_numpy(graph.edges)
    n = len(graph.names)
    optimiser = torch.optim.Adam(model.parameters(), lr=config.learning_rate)
    generator = torch.Generator().manual_seed(config.seed + 1)
    progress.step(f"Gene graph of {n:,} genes", config.epochs)
    for _ in range(config.epochs):
        hidden = torch.zeros(n, dtype=torch.bool)
        hidden[torch.randperm(n, generator=generator)[: max(1, round(config.mask * n))]] = True
        optimiser.zero_grad(set_to_none=True)
        model.loss(features, edges, hidden).backward()
        optimiser.step()
        progress.advance()
    with torch.no_grad():
        vectors = model.eval().encode(features, edges)
    return GeneVectors(list(graph.names), np.asarray(vectors.float().numpy()))


def run(graph: Graph, out: Path, config: GraphConfig | None = None, progress: Progress | None = None) -> Path:
    """Train on `graph` and write the table to the file `out`; return it. See `load_gene_vectors`."""
    config = config or GraphConfig()
    save_gene_vectors(out, train_gene_graph(graph, config, progress), config)
    return out


def gene_rows(
    table: GeneVectors, genes: Sequence[str], *, deviation: float | None = None, noise: float = 0.1, seed: int = 0
) -> NDArray[np.float32]:
    """Return a row for each of `genes`, (len(genes), width), to start a model's gene table from.

    Parameters
    ----------
    table
        Made by `train_gene_graph`, or a user's own.
    genes
        The model's genes, named as in the table. One that the table lacks gets the mean of the table and a little
        seeded noise: never zero, for a zero row is the padding (§3.4).
    deviation
        Standard deviation that rows are scaled to on average, about that of the token embedding; None keeps them.
    noise
        Standard deviation of the noise, in units of the table's own deviation about its mean.

    Raises
    ------
    InputError
        The table knows none of the genes.
    """
    row = {name: index for index, name in enumerate(table.names)}
    places = np.array([row.get(gene, -1) for gene in genes])
    if not (places >= 0).any():
        raise InputError("The table of gene vectors names none of the model's genes.", "names of the same kind")
    mean = table.vectors.mean(axis=0)
    spread = float((table.vectors - mean).std())
    rng = np.random.default_rng(seed)
    rows = mean + rng.normal(0.0, noise * spread, (len(genes), len(mean)))
    rows[places >= 0] = table.vectors[places[places >= 0]]
    if deviation is not None:
        rows *= deviation / max(float(rows.std(axis=1).mean()), 1e-12)
    return rows.astype(np.float32)


def save_gene_vectors(path: Path, table: GeneVectors, config: GraphConfig | None = None) -> None:
    """Write a table as one safetensors file."""
    names = np.frombuffer(json.dumps(table.names).encode("utf-8"), dtype=np.uint8).copy()
    told = {"config": json.dumps(config.__dict__)} if config is not None else {}
    with atomic_path(path) as partial:
        save_file({"names": torch.from_numpy(names), "vectors": torch.from_numpy(table.vectors)}, partial, told)


def load_gene_vectors(path: Path) -> GeneVectors:
    """Read a table that `save_gene_vectors` wrote.

    Raises
    ------
    FileError
        The file is missing, damaged, or no such table.
    """
    try:
        held = load_file(path)
        names = json.loads(held["names"].numpy().tobytes().decode("utf-8"))
        vectors = held["vectors"].float().numpy()
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise FileError(f"{path} can't be read: {error!r}.", "a table of gene vectors") from error
    if vectors.ndim != 2 or not isinstance(names, list) or len(names) != len(vectors) or not np.isfinite(vectors).all():
        raise FileError(f"{path} is no table of gene vectors.", "a name and a finite vector for each gene")
    return GeneVectors([str(name) for name in names], vectors)
