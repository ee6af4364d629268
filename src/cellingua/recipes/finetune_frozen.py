"""Fine-tuning that leaves the model as it is: a logistic head on frozen states, and prototypes mixed with texts.

Both end as one linear head. Constants were chosen on labelled files of the training side, read by a model that had
been trained without them; no evaluation cell played a part.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.sparse import csr_matrix

from cellingua.baselines.softmax_regression import fit_softmax
from cellingua.core.errors import ModelError
from cellingua.models.evidence import expression
from cellingua.models.model import LangCellModel
from cellingua.models.tuned import LinearHead, encode, evidence_of
from cellingua.recipes.finetune_config import LabelledCells, class_weights
from cellingua.words.describing import describe_label
from cellingua.words.naming import name_label

if TYPE_CHECKING:
    from cellingua.models.tuned import Model

Floats = NDArray[np.floating]
ROWS = 2048
GENES = 2000  # whose expression the classifier reads: the most variable among the labelled cells
JOINT, POOLED, EXPRESSION = 0.5, 0.5, 2.0  # mean square of each part of a cell's features
PENALTY = 0.05
WORDS = 0.3  # how much of the zero-shot logits the classifier starts from
TEXT_CELLS = 0.1  # a class's text counts as so many cells of it
CENTROID, MIDDLE_CELLS = 30.0, 4.0  # how much the nearest centroid counts, and how far it is drawn to the middle
EVIDENCE = 0.15  # how much the markers of a prototype's term count
SPREAD = 0.3  # of the logarithm of the temperature, before any cell is judged
MOST_CELLS = 20_000  # that a classifier is fitted on


@dataclass(frozen=True)
class Classes:
    """The classes, and what words say of them.

    Attributes
    ----------
    labels
        Sorted, verbatim.
    term_ids
        Cell Ontology id of each, or None.
    texts
        Text of each; ``""`` where the term's stored vector is used.
    vectors
        float32 (classes, joint), unit length; zeros where there is no text, of width 0 for a model without words.
    """

    labels: tuple[str, ...]
    term_ids: tuple[str | None, ...]
    texts: tuple[str, ...]
    vectors: NDArray[np.float32]


@dataclass(frozen=True)
class States:
    """What a frozen model says of labelled cells; rows are cells.

    Attributes
    ----------
    pooled, joint, evidence
        As in `cellingua.models.tuned.Reading`, float32.
    expression
        CSR float32 (n, vocabulary): log1p of counts per 10,000.
    truth
        int64 (n,): class of each cell.
    """

    pooled: NDArray[np.float32]
    joint: NDArray[np.float32]
    expression: csr_matrix
    evidence: NDArray[np.float32]
    truth: NDArray[np.int64]

    def take(self, rows: NDArray[np.integer]) -> States:
        """Return some of the cells."""
        return States(
            self.pooled[rows],
            self.joint[rows],
            csr_matrix(self.expression[rows]),
            self.evidence[rows],
            self.truth[rows],
        )


@dataclass(frozen=True)
class Linear:
    """A linear head as arrays: see `cellingua.models.tuned.LinearHead`."""

    joint: Floats
    pooled: Floats
    rows: NDArray[np.int64]
    expression: Floats
    bias: Floats
    evidence: float

    def logits(self, states: States) -> NDArray[np.float64]:
        """Return float64 (cells, classes)."""
        out = self.bias + self.evidence * states.evidence.astype(np.float64)
        for values, weights in ((states.joint, self.joint), (states.pooled, self.pooled)):
            if len(weights):
                out = out + values @ weights
        return np.asarray(out + states.expression[:, self.rows] @ self.expression)

    def module(self) -> LinearHead:
        """Return the head that is stored."""
        head = LinearHead(len(self.joint), len(self.pooled), len(self.rows), len(self.bias))
        with torch.no_grad():
            for name in ("joint", "pooled", "expression", "bias", "evidence"):
                value = torch.as_tensor(np.asarray(getattr(self, name)), dtype=torch.float32)
                getattr(head, name).copy_(value)
            head.rows.copy_(torch.from_numpy(self.rows))
        return head.requires_grad_(False).eval()


def read_classes(model: Model, labels: Sequence[str], tissue: str | None = None) -> Classes:
    """Return the classes of some labels with the vectors of their texts (loads the text tower if need be)."""
    names = tuple(sorted(set(labels)))
    ids = tuple(name_label(name, tissue=tissue).term_id for name in names)
    if not isinstance(model, LangCellModel):
        return Classes(names, ids, ("",) * len(names), np.zeros((len(names), 0), np.float32))
    stored = set(model.term_ids)
    texts = tuple("" if term in stored else describe_label(name) for name, term in zip(names, ids, strict=True))
    vectors = np.zeros((len(names), model.joint_width), np.float32)
    with_vector = np.array([text == "" for text in texts])
    for chosen in (with_vector, ~with_vector):
        places = np.flatnonzero(chosen)
        part = SimpleNamespace(term_ids=[ids[p] for p in places], texts=[texts[p] for p in places], origin="user")
        try:
            vectors[places] = model.candidate_vectors(part)
        except ModelError:
            if chosen is with_vector:
                raise
            # A model that was stored without its text side still has the vectors of the terms.
    return Classes(names, ids, texts, vectors)


def read_states(model: Model, cells: LabelledCells, classes: Classes) -> States:
    """Return what the model says of the cells, in blocks of rows; the tower runs once."""
    place = {name: number for number, name in enumerate(classes.labels)}
    truth = np.array([place[label] for label in cells.labels], np.int64)
    parts = []
    for start in range(0, len(cells), ROWS):
        block = SimpleNamespace(counts=cells.counts[start : start + ROWS], totals=cells.totals[start : start + ROWS])
        pooled, joint, _ = encode(model, block)
        parts.append((pooled, joint, evidence_of(model, block, classes.term_ids)))
    pooled, joint, evidence = (np.concatenate(column) for column in zip(*parts, strict=True))
    return States(pooled, joint, expression(cells.counts, cells.totals), evidence, truth)


def fit_classifier(model: Model, states: States, classes: Classes, weights: str, seed: int) -> Linear:
    """Return logistic regression on the joint vector, the tower's state and the expression of the most variable genes.

    Each part is centred on the labelled cells and brought to a stated mean square. The weights have a Gaussian prior
    of the stated precision, centred on `WORDS` times the zero-shot logits of the classes' texts (with the evidence of
    their markers), so with one cell a type the words still speak.
    """
    k = len(classes.labels)
    if len(states.truth) > MOST_CELLS:
        rows = np.random.default_rng([seed, 5]).permutation(len(states.truth))[:MOST_CELLS]
        states = states.take(np.sort(rows))
    per_class = class_weights(weights, states.truth, k)
    weight = per_class[states.truth]
    genes = variable_genes(states.expression, GENES)
    # A model without words has its state alone.
    own = POOLED if states.joint.shape[1] else JOINT + POOLED
    tables = [(states.joint, JOINT), (states.pooled, own), (states.expression[:, genes].toarray(), EXPRESSION)]
    parts = [_Part.of(table, size) for table, size in tables]
    features = np.concatenate([part.values for part in parts], axis=1)
    words, evidence = _zero_shot(model, classes)
    offset = states.joint @ words + evidence * states.evidence
    fitted = fit_softmax(features, states.truth, k, offset=offset, weight=weight, penalty=PENALTY)
    bias = fitted.bias.copy()
    folded, start = [], 0
    for part in parts:
        used = fitted.weights[start : start + part.values.shape[1]] * part.scale
        start += part.values.shape[1]
        bias -= part.centre @ used
        folded.append(used)
    joint, pooled, levels = folded
    joint = (joint if len(joint) else np.zeros((states.joint.shape[1], k))) + words
    return Linear(joint, pooled, genes, levels, bias, evidence)


@dataclass(frozen=True)
class _Part:
    """One part of the features: ``values = (table - centre) * scale``, or nothing of it."""

    values: Floats
    centre: Floats
    scale: float

    @classmethod
    def of(cls, table: Floats, size: float) -> _Part:
        table = np.asarray(table, np.float64)
        if size == 0 or table.shape[1] == 0:
            return cls(np.zeros((len(table), 0)), np.zeros(0), 1.0)
        centre = table.mean(axis=0)
        centred = table - centre
        spread = float(np.sqrt((centred**2).sum(axis=1).mean()))
        scale = np.sqrt(size) / spread if spread > 0 else 1.0
        return cls(centred * scale, centre, float(scale))


def _zero_shot(model: Model, classes: Classes) -> tuple[Floats, float]:
    """Return `WORDS` times the zero-shot logits as weights on the joint vector, and on the evidence."""
    if not isinstance(model, LangCellModel):
        return np.zeros((0, len(classes.labels))), 0.0
    temperature = float(model.calibration.get("temperature", 1.0))
    weights = classes.vectors.T.astype(np.float64) * (WORDS / (model.config.temperature * temperature))
    return weights, (WORDS / temperature if model.evidence is not None else 0.0)


def fit_prototypes(model: LangCellModel, states: States, classes: Classes) -> Linear:
    """Return prototypes, in the space of the texts and in that of the genes; a class without cells is its text alone.

    In the joint space a prototype is the mean direction of a class's cells, in which its text counts as `TEXT_CELLS`
    cells; it takes the place of the text in the model's own logits. Beside that stands the nearest centroid over the
    expression of the most variable genes, centred, at a mean square of 1: a centroid is drawn to the middle of all
    cells as if `MIDDLE_CELLS` cells of the class lay there, so few cells say little.
    """
    k = len(classes.labels)
    sums = np.zeros((k, states.joint.shape[1]))
    np.add.at(sums, states.truth, states.joint)
    mixed = sums + TEXT_CELLS * classes.vectors
    length = np.linalg.norm(mixed, axis=1, keepdims=True)
    vectors = mixed / np.where(length > 0, length, 1.0)
    genes = variable_genes(states.expression, GENES)
    levels = _Part.of(states.expression[:, genes].toarray(), 1.0)
    centroids = np.zeros((k, levels.values.shape[1]))
    np.add.at(centroids, states.truth, levels.values)
    centroids /= np.bincount(states.truth, minlength=k)[:, None] + MIDDLE_CELLS
    weights = CENTROID * centroids.T * levels.scale
    bias = -0.5 * CENTROID * (centroids**2).sum(axis=1) - levels.centre @ weights
    evidence = EVIDENCE if model.evidence is not None else 0.0
    return Linear(vectors.T / model.config.temperature, np.zeros((0, k)), genes, weights, bias, evidence)


def variable_genes(values: csr_matrix, count: int) -> NDArray[np.int64]:
    """Return the columns of largest variance, sorted; only those that vary at all."""
    n = max(values.shape[0], 1)
    mean = np.asarray(values.sum(axis=0), np.float64).ravel() / n
    square = np.asarray(values.multiply(values).sum(axis=0), np.float64).ravel() / n
    variance = square - mean**2
    order = np.argsort(-variance, kind="stable")[:count]
    return np.sort(order[variance[order] > 1e-9])


def log_softmax(logits: Floats) -> NDArray[np.float64]:
    """Return the logarithms of the probabilities of each row."""
    shifted = np.asarray(logits, np.float64) - logits.max(axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))


def best_temperature(logits: Floats, truth: NDArray[np.integer], usual: float = 1.0) -> float:
    """Return what to divide the logits by so that the truth is likeliest.

    The logarithm has a normal prior around that of the `usual` temperature, of spread `SPREAD`: a handful of cells
    that are all named right would otherwise ask for certainty.
    """
    cells, middle = np.arange(len(truth)), float(np.log(usual))

    def loss(t: float) -> float:
        likely = -log_softmax(logits / np.exp(t))[cells, truth].sum()
        return float(likely + 0.5 * ((t - middle) / SPREAD) ** 2)

    return float(np.exp(minimize_scalar(loss, bounds=(middle - 3, middle + 3), method="bounded").x))
