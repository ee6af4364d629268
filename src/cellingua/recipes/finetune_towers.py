"""Fine-tuning that moves weights: what is trained, on which loss, and what is kept of it.

Each method is a module with a loss over rows of the labelled cells, for the one training loop. The model that is given
is copied: it stays as it is.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from cellingua.core.errors import ConfigError, InputError
from cellingua.models.cellm import CellLMModel
from cellingua.models.model import LangCellModel
from cellingua.models.tuned import GeneHead, LinearHead, Reading
from cellingua.nn.batch import CellBatch
from cellingua.nn.gene_head import AnnotationHead
from cellingua.nn.heads import unit
from cellingua.objectives.fewshot import few_shot_losses
from cellingua.recipes.finetune_config import FinetuneConfig, LabelledCells
from cellingua.recipes.finetune_frozen import Classes, States
from cellingua.words.describing import describe_label, describe_term

if TYPE_CHECKING:
    from cellingua.models.tuned import Model

HIDDEN = (512, 128)  # of the annotation heads, as released
DROPOUT = 0.02  # before LangCell-CE's classifier, as in its cell tower


class Trained(nn.Module, ABC):
    """Something to train: a loss of rows in training, logits of rows at any time."""

    #: Which towers the training moves.
    cells_changed, texts_changed, keeps_texts = True, False, False

    @abstractmethod
    def rows_logits(self, rows: NDArray[np.int64]) -> Tensor:
        """Return (rows, classes)."""

    def loss(self, rows: NDArray[np.int64], truth: Tensor, weight: Tensor) -> dict[str, Tensor]:
        """Return named losses; each class counts by its weight.

        ``weighted``: the sum of the weighted cross-entropies over that of the weights, as torch does.
        """
        return {"cross_entropy": functional.cross_entropy(self.rows_logits(rows), truth, weight=weight)}

    @abstractmethod
    def finished(self, model: Model) -> tuple[Model, nn.Module, tuple[str, ...] | None]:
        """Return the model with its tuned towers, the head, and the texts of the classes where they were trained on."""


class Cells:
    """The labelled cells as a LangCell's tower reads them, by row."""

    def __init__(self, model: LangCellModel, cells: LabelledCells) -> None:
        self.ranked, self.device = model.tokenise(cells), model.device

    def batch(self, rows: NDArray[np.int64]) -> CellBatch:
        """Return a minibatch."""
        part = self.ranked.take(rows)
        return CellBatch.from_arrays(part.indptr, part.tokens, part.values, self.device)


class LinearOnTower(Trained):
    """``full`` and ``lora``: the cell tower and its projection move, under the frozen classifier's head.

    The head starts where the frozen classifier ended, so the first validation is the classifier's own.
    """

    tower: Any
    projection: Any

    def __init__(
        self, model: LangCellModel, cells: LabelledCells, states: States, head: LinearHead, rank: int | None
    ) -> None:
        super().__init__()
        whole = copy.deepcopy(model.module)
        self.tower, self.projection = whole.cell_tower, whole.cell_projection
        self.head = head.requires_grad_(True)
        self.cells, self.states = Cells(model, cells), states
        self.rank = rank
        if rank is None:
            self.tower.requires_grad_(True)
            self.projection.requires_grad_(True)
        else:
            self.tower, self.projection = with_lora(self.tower, rank), with_lora(self.projection, rank)

    def rows_logits(self, rows: NDArray[np.int64]) -> Tensor:
        """Return (rows, classes)."""
        pooled = self.tower(self.cells.batch(rows)).pooled
        levels = self.states.expression[rows][:, self.head.rows.cpu().numpy()].toarray()
        reading = Reading(
            pooled,
            unit(self.projection(pooled)),
            torch.from_numpy(levels.astype(np.float32)).to(pooled.device),
            torch.from_numpy(self.states.evidence[rows]).to(pooled.device),
        )
        return self.head.logits(reading)

    def finished(self, model: Model) -> tuple[Model, nn.Module, tuple[str, ...] | None]:
        """Merge LoRA into the weights, which are the model's from now on."""
        assert isinstance(model, LangCellModel)
        tower, projection = self.tower, self.projection
        if self.rank is not None:
            tower, projection = tower.merge_and_unload(), projection.merge_and_unload()
        return _with_towers(model, cell_tower=tower, cell_projection=projection), self.head, None


def with_lora(module: nn.Module, rank: int) -> Any:
    """Return `module` with low-rank corrections beside all of its linear layers; the layers themselves are frozen."""
    try:
        from peft import LoraConfig
        from peft.tuners.lora import LoraModel
    except ImportError as error:
        raise ConfigError("peft is not installed.", "the package peft", "pip install 'cellingua[lora]'") from error
    names = [name for name, part in module.named_modules() if isinstance(part, nn.Linear)]
    # The corrections start at zero: the tower is the frozen one until the first step.
    config = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=names, lora_dropout=0.0, bias="none")
    return LoraModel(module, config, "default")


def _with_towers(model: LangCellModel, **parts: nn.Module) -> LangCellModel:
    """Return the model with some parts of its module replaced; the given one is not touched."""
    module = copy.deepcopy(model.module)
    for name, part in parts.items():
        setattr(module, name, part.requires_grad_(False).eval())
    return replace(model, module=module)


class CellEncoder(Trained):
    """``langcell_ce`` (LangCell §5.3): the cell tower with BERT's pooler, a random tanh layer, and a classifier.

    With `few_shot` all but the classifier is frozen, as released: the pooler stays random.
    """

    def __init__(self, model: LangCellModel, cells: LabelledCells, classes: int, *, few_shot: bool) -> None:
        super().__init__()
        self.tower = copy.deepcopy(model.module).cell_tower
        width = model.config.cell_width
        self.head = LinearHead(0, width, 0, classes, hidden=width)
        assert self.head.pooler is not None
        for weight in (self.head.pooler.weight, self.head.pooled):
            nn.init.normal_(weight, std=0.02)
        nn.init.zeros_(self.head.pooler.bias)
        self.head.evidence.requires_grad_(False)
        self.head.pooler.requires_grad_(not few_shot)
        self.tower.requires_grad_(not few_shot)
        self.cells_changed = not few_shot
        # With the tower as it was, cells can still be compared with texts.
        self.keeps_texts = few_shot
        self.cells, self.dropout = Cells(model, cells), nn.Dropout(DROPOUT)

    def rows_logits(self, rows: NDArray[np.int64]) -> Tensor:
        """Return (rows, classes)."""
        assert self.head.pooler is not None
        pooled = self.tower(self.cells.batch(rows)).pooled
        state = self.dropout(torch.tanh(self.head.pooler(pooled)))
        return state @ self.head.pooled + self.head.bias

    def finished(self, model: Model) -> tuple[Model, nn.Module, tuple[str, ...] | None]:
        """Return the parts."""
        assert isinstance(model, LangCellModel)
        return _with_towers(model, cell_tower=self.tower), self.head, None


class Multimodal(Trained):
    """``langcell`` (LangCell §5.2): both towers move, on cells and the texts of their classes.

    The loss is the cross-entropy of the similarities and, where the model has a match head, that **of the match
    probabilities** (a softmax of probabilities, as released); the match head is in no optimiser, as released. Texts are
    read again, with gradient, at every step.
    """

    texts_changed, keeps_texts = True, True

    def __init__(self, model: LangCellModel, cells: LabelledCells, classes: Classes) -> None:
        super().__init__()
        self.texts = tuple(
            describe_term(term) if term else describe_label(name)
            for name, term in zip(classes.labels, classes.term_ids, strict=True)
        )
        self.ids, self.mask = model.pieces(self.texts)
        self.module = copy.deepcopy(model.module)
        self.module.requires_grad_(True)
        if self.module.match_head is not None:
            self.module.match_head.requires_grad_(False)
        self.cells = Cells(model, cells)

    def rows_logits(self, rows: NDArray[np.int64]) -> Tensor:
        """Return the similarities over the temperature, (rows, classes)."""
        joint, _ = self.module.cells(self.cells.batch(rows))
        return self.module.similarity(joint, self.module.texts(self.ids, self.mask))

    def loss(self, rows: NDArray[np.int64], truth: Tensor, weight: Tensor) -> dict[str, Tensor]:
        """Return both terms."""
        joint, states = self.module.cells(self.cells.batch(rows))
        similarity = self.module.similarity(joint, self.module.texts(self.ids, self.mask))
        if self.module.match_head is None or states.hidden is None:
            return {"similarity": functional.cross_entropy(similarity, truth, weight=weight)}
        match = self.module.match_logits(states, self.ids, self.mask).softmax(dim=-1)[..., 1]
        return few_shot_losses(similarity, match, truth, weight)

    def finished(self, model: Model) -> tuple[Model, nn.Module, tuple[str, ...] | None]:
        """Return the model; the vectors of the terms are read anew by the tuned text tower."""
        assert isinstance(model, LangCellModel)
        tuned = replace(model, module=self.module.requires_grad_(False).eval())
        tuned.term_vectors = tuned.encode_texts([describe_term(term) for term in tuned.term_ids])
        head = LinearHead(model.joint_width, 0, 0, len(self.texts))
        with torch.no_grad():
            vectors = self.module.texts(self.ids, self.mask)
            head.joint.copy_(vectors.T / model.config.temperature)
        return tuned, head, self.texts


class GeneScored(Trained):
    """``cellm`` and ``scbert``: one score a token, put at its gene's place, then a small network (CellLM §7.1).

    As released, the encoder is frozen but for its last norm and one layer: CellLM's last, scBERT's last but one.
    """

    def __init__(self, model: CellLMModel, cells: LabelledCells, classes: int, layer: int) -> None:
        super().__init__()
        self.performer = copy.deepcopy(model.module.performer)
        config = self.performer.config
        self.performer.norm.requires_grad_(True)
        if len(self.performer.layers) >= -layer:
            self.performer.layers[layer].requires_grad_(True)
        self.head = GeneHead(AnnotationHead(config.width, config.genes + 1, HIDDEN, classes))
        self.binned = model.bin(cells)

    def rows_logits(self, rows: NDArray[np.int64]) -> Tensor:
        """Return (rows, classes)."""
        batch = self.performer.batch(self.binned.take(rows))
        states = self.performer(batch, together=False)
        return self.head.scored(states.hidden, batch)

    def finished(self, model: Model) -> tuple[Model, nn.Module, tuple[str, ...] | None]:
        """Return the parts."""
        assert isinstance(model, CellLMModel)
        module = copy.deepcopy(model.module)
        module.performer = self.performer.requires_grad_(False).eval()
        return replace(model, module=module), self.head, None


def build(
    model: Model, cells: LabelledCells, classes: Classes, config: FinetuneConfig, states: States, head: LinearHead
) -> Trained:
    """Return what a method trains, on the model's device.

    Parameters
    ----------
    states, head
        What the frozen model says of the cells, and the frozen classifier's head: where ``full`` and ``lora`` start.
    """
    torch.manual_seed(config.seed)
    method, k = config.method, len(classes.labels)
    made: Trained
    if method in ("cellm", "scbert"):
        made = GeneScored(_need(model, CellLMModel, method), cells, k, -1 if method == "cellm" else -2)
    elif method == "langcell":
        made = Multimodal(_need(model, LangCellModel, method), cells, classes)
    elif method == "langcell_ce":
        made = CellEncoder(_need(model, LangCellModel, method), cells, k, few_shot=config.few_shot)
    else:
        rank = config.rank if method == "lora" else None
        made = LinearOnTower(_need(model, LangCellModel, method), cells, states, copy.deepcopy(head), rank)
    return made.to(model.device)


def _need(model: Any, kind: Any, method: str) -> Any:
    """Return the model, or refuse one of another kind."""
    if not isinstance(model, kind):
        wanted = "a CellLM or scBERT" if kind is CellLMModel else "a LangCell model"
        raise InputError(f"The method {method!r} needs {wanted}, and {model.name} is none.", wanted, "another --method")
    return model


@dataclass(frozen=True)
class Minibatches:
    """Rows of each step: every epoch all rows once, in an order drawn from seed and epoch."""

    n: int
    size: int
    seed: int

    @property
    def steps(self) -> int:
        """Steps of an epoch."""
        return -(-self.n // self.size)

    def rows(self, step: int) -> NDArray[np.int64]:
        """Return the rows of a step, a function of its number."""
        epoch, place = divmod(step, self.steps)
        order = np.random.default_rng([self.seed, 11, epoch]).permutation(self.n)
        return order[place * self.size : (place + 1) * self.size].astype(np.int64)


def in_groups(rows: NDArray[np.int64], size: int = 64) -> Iterator[NDArray[np.int64]]:
    """Yield rows in groups."""
    for start in range(0, len(rows), size):
        yield rows[start : start + size]
