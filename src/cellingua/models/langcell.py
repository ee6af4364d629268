"""LangCell: a cell tower and a text tower that meet in one space (Zhao et al., ICML 2024).

At the paper's size with the BERT cell tower this is exactly LangCell; with the bag tower it's the same model at
a size for laptops. Both hide behind one interface.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from cellingua.core.errors import ConfigError
from cellingua.nn.bag import GatedBag, GatedBagConfig
from cellingua.nn.batch import CellBatch, CellStates
from cellingua.nn.heads import MatchHead, Projection, unit
from cellingua.nn.language import TextTower, TextTowerConfig
from cellingua.nn.matching import Matcher
from cellingua.nn.transformer import CellTower, CellTowerConfig

CELL_KINDS = ("bert", "bag")


@dataclass(frozen=True)
class LangCellConfig:
    """What a LangCell model is made of.

    Parameters
    ----------
    cell_kind
        ``bert`` or ``bag``; the configuration of that name must be given, and the other must not.
    text
        The text tower.
    joint_width
        Width of the joint space.
    temperature
        Similarities are divided by it. LangCell has it as a constant in code.
    token_limit
        Most gene tokens of a cell that are kept, any ``<cls>`` not counted; None keeps all.
    text_limit
        Most word pieces of a text, ``[CLS]`` and ``[SEP]`` included.
    match_limit
        The same of a text that looks at a cell, as it was trained; None for `text_limit`.
    text_adapter
        Hidden width of a two-layer correction of the text projection; 0 for LangCell's linear one.
    cell_adapter
        The same on the cell side.
    match_head
        Whether there is a match classifier (it needs a tower with token states, and cross-attention).
    gene_table
        Name of the gene table, for people.
    evidence
        Settings of the evidence channel beside the towers, or None.
    """

    cell_kind: str
    text: TextTowerConfig
    bert: CellTowerConfig | None = None
    bag: GatedBagConfig | None = None
    joint_width: int = 256
    temperature: float = 0.05
    token_limit: int | None = 2047
    text_limit: int = 512
    match_limit: int | None = None
    text_adapter: int = 0
    cell_adapter: int = 0
    match_head: bool = False
    gene_table: str = ""
    evidence: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        given = {"bert": self.bert, "bag": self.bag}
        if self.cell_kind not in given:
            raise ConfigError(f"cell_kind is {self.cell_kind!r}.", " or ".join(CELL_KINDS))
        if given.pop(self.cell_kind) is None or any(other is not None for other in given.values()):
            raise ConfigError(f"cell_kind is {self.cell_kind!r}.", "the tower of that name and no other")
        if self.temperature <= 0:
            raise ConfigError(f"temperature is {self.temperature}.", "a number above 0")
        if self.match_head and (self.memory_width is None or self.text.encoder_width != self.memory_width):
            raise ConfigError(
                f"The match head needs texts that look at cells, but encoder_width is {self.text.encoder_width}.",
                "the width of the cell tower's token states, "
                + (f"{self.memory_width}" if self.memory_width else "and this tower has none: give it layers"),
            )

    @classmethod
    def paper(cls) -> LangCellConfig:
        """LangCell at its own size: 172,762,882 parameters."""
        return cls(
            "bert",
            TextTowerConfig.paper(),
            bert=CellTowerConfig.paper(),
            match_head=True,
            gene_table="geneformer_v1",
        )

    @property
    def cell_width(self) -> int:
        """Width of the cell tower's pooled state."""
        if self.bert is not None:
            return self.bert.width
        assert self.bag is not None  # by __post_init__
        return self.bag.pooled

    @property
    def memory_width(self) -> int | None:
        """Width of the token states that texts look at; None for a tower that has none."""
        if self.bert is not None:
            return self.bert.width
        assert self.bag is not None  # by __post_init__
        return self.bag.layer_width if self.bag.layers else None

    @property
    def vocabulary(self) -> int:
        """Rows of the gene table of the cell tower."""
        tower = self.bert if self.bert is not None else self.bag
        assert tower is not None  # by __post_init__
        return tower.vocabulary


class LangCellModule(nn.Module):
    """Both towers, both projections and, where configured, the match head.

    The text side is the attributes `text_tower` and `text_projection` and nothing else, so that a model can be
    stored, and used, without it.
    """

    def __init__(self, config: LangCellConfig) -> None:
        super().__init__()
        self.config = config
        self.cell_tower: CellTower | GatedBag
        if config.bert is not None:
            self.cell_tower = CellTower(config.bert)
        elif config.bag is not None:
            self.cell_tower = GatedBag(config.bag)
        self.cell_projection = Projection(config.cell_width, config.joint_width, config.cell_adapter)
        self.text_tower = TextTower(config.text)
        self.text_projection = Projection(config.text.width, config.joint_width, config.text_adapter)
        self.match_head = MatchHead(config.text.width) if config.match_head else None

    def cells(self, batch: CellBatch, *, with_hidden: bool = True) -> tuple[Tensor, CellStates]:
        """Return the cells in the joint space (B, joint), unit length, and the tower's states.

        Without `with_hidden`, a tower that needs no token states for its pooled state computes none.
        """
        tower = self.cell_tower
        states = tower(batch, with_hidden=with_hidden) if isinstance(tower, GatedBag) else tower(batch)
        return unit(self.cell_projection(states.pooled)), states

    def texts(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Return texts, read alone, in the joint space (K, joint), unit length."""
        return unit(self.text_projection(self.text_tower(ids, mask).pooled))

    def similarity(self, cells: Tensor, texts: Tensor) -> Tensor:
        """Return the logits of each cell for each text: the dot product over the temperature, (B, K)."""
        return cells @ texts.T / self.config.temperature

    def match_logits(self, states: CellStates, ids: Tensor, mask: Tensor) -> Tensor:
        """Return the match head's logits of every cell with every text, (B, K, 2); class 1 means a match.

        Without dropout, so for inference: see `cellingua.nn.matching`.
        """
        if self.match_head is None:
            raise ValueError("this model has no match head")
        return Matcher(self.text_tower, self.match_head, ids, mask).logits(states)


def count_parameters(module: nn.Module) -> int:
    """Return the number of parameters, trained or not."""
    return sum(parameter.numel() for parameter in module.parameters())
