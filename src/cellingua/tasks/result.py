"""What `annotate` returns."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from cellingua.cells.diagnosis import Diagnosis
from cellingua.tasks.clusters import ClusterRow, Graph
from cellingua.tasks.scoring import Scores
from cellingua.words.candidates import Candidates


@dataclass(frozen=True, repr=False)
class Annotation:
    """The answer for n cells.

    Attributes
    ----------
    names
        Names of the cells, unique (see `renamed`).
    labels, term_ids
        object (n,): the label of each cell (``"unknown"`` where there is none) and its Cell Ontology id (``""``
        where there is none).
    probability
        float32 (n,): calibrated probability of the label, over the candidates.
    runner_up
        object (n,): the second label; for a cell that was rolled up or is unknown, the likeliest single candidate.
    status
        object (n,): ``named``, ``rolled_up`` or ``unknown``.
    scores
        All that the model said: embedding, likeliest candidates, counts and genes of each cell.
    candidates
        What was chosen from.
    cluster
        object (n,): name of each cell's cluster.
    clusters
        A row a cluster, largest first.
    diagnosis
        What the doctor said.
    provenance
        JSON-able: model, hash, parameters, candidates, versions.
    samples, own
        object (n,) or None: the values of the sample key, and one's own labels.
    graph
        Neighbours among the cells that were drawn for clustering and for the map; None for a handful of cells.
    renamed
        How many repeated names were made unique.
    embedding_key
        Key of ``obsm`` for the embedding: ``X_cellm`` where a tuned CellLM answered.
    smoothed, in_sample
        object (n,) or None: the label of each cell with its neighbours' help, and corrected for the composition of its
        sample; on request.
    """

    names: np.ndarray
    labels: np.ndarray
    term_ids: np.ndarray
    probability: np.ndarray
    runner_up: np.ndarray
    status: np.ndarray
    scores: Scores
    candidates: Candidates
    cluster: np.ndarray
    clusters: list[ClusterRow]
    diagnosis: Diagnosis
    provenance: dict[str, Any]
    samples: np.ndarray | None = None
    own: np.ndarray | None = None
    graph: Graph | None = field(default=None)
    renamed: int = 0
    embedding_key: str = "X_langcell"
    smoothed: np.ndarray | None = None
    in_sample: np.ndarray | None = None

    @property
    def n_cells(self) -> int:
        """Number of cells."""
        return len(self.labels)

    @property
    def embedding(self) -> np.ndarray:
        """float32 (n, d): joint space, unit length."""
        return self.scores.embedding

    @property
    def unknown(self) -> np.ndarray | None:
        """float32 (n,): how likely each cell is of none of the candidates; None where the model can't tell."""
        return self.scores.unknown

    def on_request(self) -> dict[str, np.ndarray]:
        """Return the columns that were asked for, by the end of their name."""
        columns = {"smoothed": self.smoothed, "in_sample": self.in_sample}
        if self.provenance["parameters"].get("error_rate") is not None:
            columns = {"unknown": self.unknown, **columns}
        return {name: values for name, values in columns.items() if values is not None}

    @property
    def best(self) -> np.ndarray:
        """int64 (n,): the likeliest single candidate of each cell, whatever its status."""
        return self.scores.decisions.best

    @property
    def cluster_label(self) -> np.ndarray:
        """object (n,): the consensus label of each cell's cluster."""
        table = {row.name: row.label for row in self.clusters}
        return np.array([table[name] for name in self.cluster], dtype=object)

    def shares(self) -> dict[str, float]:
        """Return the share of cells of each status."""
        return {name: float(np.mean(self.status == name)) for name in ("named", "rolled_up", "unknown")}

    def counts(self) -> list[tuple[str, int]]:
        """Return the labels with their number of cells, most frequent first, ``unknown`` last."""
        counted = Counter(self.labels.tolist())
        unknown = counted.pop("unknown", 0)
        ranked = sorted(counted.items(), key=lambda item: (-item[1], item[0]))
        return [*ranked, ("unknown", unknown)] if unknown else ranked

    def to_frame(self) -> pd.DataFrame:
        """Return a row a cell with the columns that are also written to files."""
        columns: dict[str, Sequence[Any] | np.ndarray] = {
            "label": self.labels,
            "term_id": self.term_ids,
            "probability": self.probability,
            "runner_up": self.runner_up,
            "status": self.status,
            "cluster": self.cluster,
            "cluster_label": self.cluster_label,
            **self.on_request(),
        }
        return pd.DataFrame(columns, index=pd.Index(self.names, name="cell"))

    def __repr__(self) -> str:
        shares = self.shares()
        lines = [
            f"Annotation of {self.n_cells:,} cells with {self.provenance['model']['name']}, "
            f"{len(self.candidates.labels):,} candidates",
            f"named {shares['named']:.0%}, rolled up {shares['rolled_up']:.0%}, unknown {shares['unknown']:.0%}; "
            f"median probability {np.median(self.probability):.2f}; {len(self.clusters)} clusters",
        ]
        width = max((len(label) for label, _ in self.counts()[:8]), default=0)
        lines += [f"  {label:<{width}}  {count:>7,}" for label, count in self.counts()[:8]]
        hidden = len(self.counts()) - 8
        return "\n".join([*lines, f"  and {hidden} more labels"] if hidden > 0 else lines)
