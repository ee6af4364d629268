"""The Performer encoder of CellLM and scBERT: binned expression and gene embeddings through pre-norm layers."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional

from cellingua.core.errors import ConfigError
from cellingua.nn.attention import Attention
from cellingua.nn.batch import Binned, BinnedBatch
from cellingua.nn.favor import FavorAttention

ATTENTIONS = ("favor", "exact", "compat")


@dataclass(frozen=True)
class PerformerConfig:
    """The encoder.

    Parameters
    ----------
    genes
        Genes of the model. The gene table has two rows more, for CLS and padding (scBERT: one).
    tokens
        Rows of the token table: the bins, CLS, and padding, which is also the mask token.
    heads, head_width
        The attention is ``heads * head_width`` wide inside, whatever `width` is.
    features
        Random features of each layer, m; not used by ``exact``.
    ff_mult
        The feed-forward layer is this many times as wide.
    dropout
        On the embedding, after attention and inside the feed-forward layer, unless the next three say otherwise.
    embedding_dropout, attention_dropout, feedforward_dropout
        Each place by itself.
    attention
        ``favor``: random features, a cell depends on itself alone. ``exact``: softmax attention, the same, at
        quadratic cost. ``compat``: random features as in the released code, in which padding counts and one maximum
        is taken over the minibatch.
    padded_length
        ``compat``: behave as if every cell were padded to this length; None means that nothing is ever padded.
    every_gene
        scBERT: all genes are in every cell, no CLS, no mask.
    logits
        Whether there is an output layer to the tokens.
    """

    genes: int
    tokens: int = 8
    width: int = 512
    layers: int = 10
    heads: int = 16
    head_width: int = 64
    features: int = 266
    ff_mult: int = 4
    dropout: float = 0.0
    embedding_dropout: float | None = None
    attention_dropout: float | None = None
    feedforward_dropout: float | None = None
    attention: str = "favor"
    padded_length: int | None = None
    every_gene: bool = False
    logits: bool = True

    def __post_init__(self) -> None:
        if self.attention not in ATTENTIONS:
            raise ConfigError(f"attention is {self.attention!r}.", " or ".join(repr(name) for name in ATTENTIONS))
        for name in ("genes", "tokens", "width", "layers", "heads", "head_width", "features", "ff_mult"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}.", "at least 1")
        for name in ("dropout", "embedding_dropout", "attention_dropout", "feedforward_dropout"):
            if not 0 <= (getattr(self, name) or 0.0) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}.", "at least 0 and below 1")
        if self.padded_length is not None and self.attention != "compat":
            raise ConfigError(
                f"padded_length is {self.padded_length} with attention {self.attention!r}.", "None, or 'compat'"
            )

    @classmethod
    def paper(cls, genes: int = 19_379) -> PerformerConfig:
        """CellLM's own size: 51,926,536 parameters at its 19,379 genes."""
        return cls(genes)

    @property
    def cls_token(self) -> int:
        """The token of CLS; the bins lie below it (not with `every_gene`)."""
        return self.tokens - 2

    @property
    def mask_token(self) -> int:
        """The token of padding, and of a gene whose expression is hidden."""
        return self.tokens - 1

    @property
    def gene_rows(self) -> int:
        """Rows of the gene table."""
        return self.genes + (1 if self.every_gene else 2)

    def dropout_of(self, place: str) -> float:
        """Return the dropout of a place: ``embedding``, ``attention`` or ``feedforward``."""
        own = getattr(self, f"{place}_dropout")
        return self.dropout if own is None else own

    def without_dropout(self) -> PerformerConfig:
        """Return the same encoder with dropout 0 everywhere."""
        return replace(self, dropout=0.0, embedding_dropout=None, attention_dropout=None, feedforward_dropout=None)


@dataclass(frozen=True)
class PerformerStates:
    """What the encoder says of a minibatch.

    Parameters
    ----------
    hidden
        (B, L, D): the state of every token after the last norm, 0 for padding.
    cls
        (B, D): the state of CLS; where there is no CLS, the mean over all positions.
    mask
        bool (B, L): True for CLS and genes.
    """

    hidden: Tensor
    cls: Tensor
    mask: Tensor

    @property
    def mean(self) -> Tensor:
        """(B, D): the mean over the genes of each cell, CLS left out; 0 for an empty cell."""
        genes = self.hidden[:, 1:] * self.mask[:, 1:, None]
        return genes.sum(dim=1) / self.mask[:, 1:].sum(dim=1, keepdim=True).clamp(min=1)


class PerformerLayer(nn.Module):
    """``h = h + Attn(LN(h))``, then ``h = h + W2 gelu(W1 LN(h))`` (the exact gelu)."""

    def __init__(self, config: PerformerConfig) -> None:
        super().__init__()
        width, heads, size = config.width, config.heads, config.head_width
        self.attention_norm = nn.LayerNorm(width)
        self.attention: Attention
        if config.attention == "exact":
            self.attention = Attention(width, heads, head_width=size, bias=False)
        else:
            self.attention = FavorAttention(width, heads, size, config.features)
        self.feedforward_norm = nn.LayerNorm(width)
        self.widen = nn.Linear(width, config.ff_mult * width)
        self.narrow = nn.Linear(config.ff_mult * width, width)
        self.attention_dropout = nn.Dropout(config.dropout_of("attention"))
        self.feedforward_dropout = nn.Dropout(config.dropout_of("feedforward"))

    def forward(self, states: Tensor, mask: Tensor | None, weight: Tensor | None, together: bool) -> Tensor:
        """Return the new states (B, L, width); `weight` and `together` as in `attend_favor`."""
        normed = self.attention_norm(states)
        if isinstance(self.attention, FavorAttention):
            mixed = self.attention(normed, mask, weight=weight, together=together)
        else:
            mixed = self.attention(normed, mask)
        states = states + self.attention_dropout(mixed)
        wide = functional.gelu(self.widen(self.feedforward_norm(states)))
        return states + self.narrow(self.feedforward_dropout(wide))


class Performer(nn.Module):
    """CellLM's encoder, or scBERT's.

    Training the gene table, or a part of the layers, is the caller's choice (``requires_grad_``). The table may be
    float32 or float64; sums with it are rounded to the type of the other weights.
    """

    #: ``compat`` only: really pad to `padded_length` instead of weighting one padding row (`plain` of the parts too).
    plain = False

    def __init__(self, config: PerformerConfig) -> None:
        super().__init__()
        self.config = config
        self.token = nn.Embedding(config.tokens, config.width)
        self.gene = nn.Embedding(config.gene_rows, config.width)
        self.dropout = nn.Dropout(config.dropout_of("embedding"))
        self.layers = nn.ModuleList(PerformerLayer(config) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.width)
        self.to_logits = nn.Linear(config.width, config.tokens) if config.logits else None
        for table in (self.token, self.gene):
            nn.init.normal_(table.weight, std=0.02)
        if not self.gene.weight.is_meta:
            self.set_gene_table(self.gene.weight[: config.genes])

    @torch.no_grad()
    def set_gene_table(self, vectors: Tensor) -> None:
        """Fill the gene table with (genes, width), in place; CLS becomes ones and padding zeros, as released."""
        if vectors.shape != (self.config.genes, self.config.width):
            raise ValueError(f"vectors of shape {tuple(vectors.shape)} for {self.config.genes} x {self.config.width}")
        self.gene.weight[: self.config.genes] = vectors.to(self.gene.weight)
        self.gene.weight[self.config.genes :] = 0
        if not self.config.every_gene:
            self.gene.weight[self.config.genes] = 1

    def redraw_features(self, generator: torch.Generator | None = None) -> None:
        """Draw new random features in every layer: between optimizer steps, never inside one, never in evaluation."""
        for part in self.modules():
            if isinstance(part, FavorAttention):
                part.redraw(generator)

    def batch(self, cells: Binned, device: torch.device | str | None = None) -> BinnedBatch:
        """Return binned cells as this encoder reads them, on its device."""
        device = self.norm.weight.device if device is None else device
        if self.config.every_gene:
            return BinnedBatch.every_gene(cells, self.config.genes, device)
        return BinnedBatch.from_cells(cells, self.config.genes, device, n_tokens=self.config.tokens)

    def embed(self, batch: BinnedBatch) -> Tensor:
        """Return the input of the first layer, (B, L, width), before dropout."""
        return (self.token(batch.tokens) + self.gene(batch.genes)).to(self.token.weight.dtype)

    def forward(self, batch: BinnedBatch, *, together: bool = True) -> PerformerStates:
        """Return the states of CLS and of each gene.

        Parameters
        ----------
        batch
            The cells.
        together
            ``compat`` only: take the keys' maximum over the minibatch, as the released code does. False gives each
            cell what it would get alone in its minibatch.
        """
        length = batch.tokens.shape[1]
        weight = None
        if self.config.attention == "compat" and self.config.padded_length is not None:
            batch, weight = self._with_padding(batch, self.config.padded_length)
        together = together and self.config.attention == "compat"
        seen = None if bool(batch.mask.all()) else batch.mask
        states = self.dropout(self.embed(batch))
        for layer in self.layers:
            states = layer(states, seen, weight, together)
        hidden = self.norm(states[:, :length])
        mask = batch.mask[:, :length]
        if seen is not None:
            hidden = hidden * mask[:, :, None]
        return PerformerStates(hidden, hidden.mean(dim=1) if self.config.every_gene else hidden[:, 0], mask)

    def logits(self, hidden: Tensor) -> Tensor:
        """Return the logits of the tokens, (..., tokens)."""
        if self.to_logits is None:
            raise ValueError("this encoder has no output layer to the tokens")
        return self.to_logits(hidden)

    def _with_padding(self, batch: BinnedBatch, length: int) -> tuple[BinnedBatch, Tensor | None]:
        """Return the batch with a padding row for each cell that needs one, and the weights of all rows.

        All padding rows of a cell are equal in every layer, so one of them, counted as often as there are padding
        rows, does for all.
        """
        lengths, wide = batch.lengths, batch.tokens.shape[1]
        longest = int(lengths.max())
        if longest > length:
            raise ValueError(f"a cell of {longest} tokens in an encoder that pads to {length}")
        more = length - wide if self.plain else int(bool(((lengths == wide) & (lengths < length)).any()))
        if more > 0:
            tokens = functional.pad(batch.tokens, (0, more), value=self.config.mask_token)
            genes = functional.pad(batch.genes, (0, more), value=self.config.genes + 1)
            batch = BinnedBatch(tokens, genes, functional.pad(batch.mask, (0, more), value=False))
        if self.plain:
            return batch, None
        weight = batch.mask.to(self.norm.weight.dtype)
        first = lengths < batch.tokens.shape[1]
        weight[first, lengths[first]] = (length - lengths[first]).to(weight.dtype)
        return batch, weight

    def use_plain(self, plain: bool = True) -> Performer:
        """Switch to the plain twin (really padded rows, the released formula written out) and back; return self."""
        self.plain = plain
        for part in self.modules():
            if isinstance(part, FavorAttention):
                part.plain = plain
        return self
