"""The Performer encoder: its size, what a cell's output depends on, its variants."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.sparse import csr_matrix
from torch import Tensor

from cellingua.cells.binned import BinConfig, BinnedCells, bin_cells
from cellingua.core.config import from_dict, to_dict
from cellingua.core.errors import ConfigError
from cellingua.nn.batch import BinnedBatch
from cellingua.nn.favor import FavorAttention
from cellingua.nn.performer import Performer, PerformerConfig

TINY = PerformerConfig(60, width=16, layers=2, heads=2, head_width=8, features=20, ff_mult=2)
MODES = ["favor", "exact"]


def cells(seed: int = 0, n: int = 7, genes: int = 60) -> BinnedCells:
    """Return cells of 0 to all genes."""
    rng = np.random.default_rng(seed)
    dense = rng.poisson(2, (n, genes)) * (rng.random((n, genes)) < np.linspace(0, 1, n)[:, None])
    return bin_cells(csr_matrix(dense.astype(np.float32)), None, BinConfig(length=None))


def encoder(attention: str = "favor", **changes: object) -> Performer:
    """Return an encoder with weights that differ from their start."""
    torch.manual_seed(0)
    made = Performer(replace(TINY, attention=attention, **changes))
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    return made.eval()


def longer(batch: BinnedBatch, more: int, config: PerformerConfig) -> BinnedBatch:
    """Return the batch with `more` columns of padding."""
    pad = torch.nn.functional.pad
    return BinnedBatch(
        pad(batch.tokens, (0, more), value=config.mask_token),
        pad(batch.genes, (0, more), value=config.genes + 1),
        pad(batch.mask, (0, more), value=False),
    )


def rows_of(model: Performer, binned: BinnedCells, batches: list[list[int]]) -> Tensor:
    """Return CLS of every cell, encoded in these batches."""
    out = torch.empty(len(binned), model.config.width, dtype=model.norm.weight.dtype)
    for rows in batches:
        out[rows] = model(model.batch(binned.take(np.array(rows)))).cls
    return out


def test_the_papers_size() -> None:
    with torch.device("meta"):
        model = Performer(PerformerConfig.paper())
    assert sum(parameter.numel() for parameter in model.parameters()) == 51_926_536
    assert sum(parameter.numel() for parameter in model.layers[3].parameters()) == 4_199_424
    assert model.gene.weight.numel() == 9_923_072
    assert len(model.state_dict()) == 147 - 1  # the released files count their calls in one entry more
    assert model.layers[0].attention.features.shape == (266, 64)


@torch.no_grad()
@pytest.mark.parametrize("attention", MODES)
def test_a_cell_depends_on_itself_alone(attention: str) -> None:
    model, binned = encoder(attention), cells()
    alone = rows_of(model, binned, [[i] for i in range(7)])
    assert float(torch.cdist(alone, alone).fill_diagonal_(9).min()) > 0.01
    for batches in ([list(range(7))], [[6, 0, 3], [5, 1], [2, 4]], [[2, 1, 0], [3, 4, 5, 6]]):
        torch.testing.assert_close(rows_of(model, binned, batches), alone, atol=1e-5, rtol=1e-5)
    batch = model.batch(binned)
    padded = model(longer(batch, 40, model.config))
    torch.testing.assert_close(padded.cls, alone, atol=1e-5, rtol=1e-5)
    assert not padded.hidden[~padded.mask].any()


@torch.no_grad()
def test_compat_depends_on_its_company_and_on_the_padded_length() -> None:
    binned = cells()
    model = encoder("compat", padded_length=200)
    whole, alone = rows_of(model, binned, [list(range(7))]), rows_of(model, binned, [[i] for i in range(7)])
    assert float((whole - alone).abs().max()) > 1e-4
    batch = model.batch(binned)
    torch.testing.assert_close(model(batch, together=False).cls, alone, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(model(longer(batch, 30, model.config)).cls, whole, atol=1e-5, rtol=1e-5)
    other = encoder("compat", padded_length=300)
    assert float((rows_of(other, binned, [list(range(7))]) - whole).abs().max()) > 1e-2


@torch.no_grad()
@pytest.mark.parametrize("length", [61, 62, 200])
def test_the_shortcut_equals_really_padded_cells(length: int) -> None:
    model = encoder("compat", padded_length=length).double()
    batch = model.batch(cells())
    short = model(batch)
    plain = model.use_plain()(batch)
    assert short.hidden.shape == plain.hidden.shape
    torch.testing.assert_close(short.hidden, plain.hidden, atol=1e-10, rtol=1e-10)
    torch.testing.assert_close(model.use_plain(False)(batch).cls, short.cls, atol=0, rtol=0)


def test_compat_gradients_equal_those_of_really_padded_cells() -> None:
    model = encoder("compat", padded_length=90).double()
    grads = []
    for plain in (False, True):
        model.zero_grad()
        (model.use_plain(plain)(model.batch(cells())).hidden ** 3).sum().backward()
        grads.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]))
    torch.testing.assert_close(grads[0], grads[1], atol=0, rtol=1e-8)


@pytest.mark.parametrize("attention", MODES)
def test_gradients_of_a_batch_are_the_sum_of_its_cells(attention: str) -> None:
    model, binned = encoder(attention).double(), cells()
    grads = []
    for batches in ([list(range(7))], [[0, 6], [1, 2, 5], [3], [4]]):
        model.zero_grad()
        (rows_of(model, binned, batches) ** 3).sum().backward()
        grads.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]))
    assert float((grads[0] - grads[1]).norm() / grads[0].norm()) < 1e-12


@pytest.mark.parametrize("attention", ["favor", "exact", "compat"])
def test_finite_differences(attention: str) -> None:
    model = encoder(attention, layers=1, padded_length=50 if attention == "compat" else None).double()
    batch = model.batch(cells(n=4, genes=20))
    weight = model.layers[0].attention.key.weight

    def value(key: Tensor) -> Tensor:
        return torch.func.functional_call(model, {"layers.0.attention.key.weight": key}, (batch,)).cls.sum()

    found = torch.autograd.grad(value(weight), weight)[0]
    for place in ((0, 0), (3, 7), (15, 15)):
        step = torch.zeros_like(weight)
        step[place] = 1e-6
        with torch.no_grad():
            expected = (value(weight + step) - value(weight - step)) / 2e-6
        torch.testing.assert_close(found[place], expected, atol=1e-6, rtol=1e-5)


@torch.no_grad()
def test_a_constant_gene_row_is_invisible() -> None:
    # Every layer norm takes a constant off: that is why the row of ones for CLS plays no part.
    model, binned = encoder(), cells()
    before = model(model.batch(binned)).cls
    model.gene.weight += 3.0
    torch.testing.assert_close(model(model.batch(binned)).cls, before, atol=2e-4, rtol=0)
    model.gene.weight[5, 0] += 3.0
    assert float((model(model.batch(binned)).cls - before).abs().max()) > 1e-3


@torch.no_grad()
def test_a_float64_gene_table_is_rounded_after_the_sum() -> None:
    model, binned = encoder(), cells()
    expected = model(model.batch(binned)).hidden
    table = model.gene.weight.double() + 1e-9
    model.gene = torch.nn.Embedding.from_pretrained(table)
    batch = model.batch(binned)
    assert model.embed(batch).dtype == torch.float32
    summed = (model.token(batch.tokens).double() + table[batch.genes]).float()
    torch.testing.assert_close(model.embed(batch), summed, atol=0, rtol=0)
    torch.testing.assert_close(model(batch).hidden, expected, atol=1e-5, rtol=1e-5)


def test_the_start_and_the_gene_table() -> None:
    torch.manual_seed(0)
    model = Performer(TINY)
    assert bool((model.gene.weight[60] == 1).all())
    assert not model.gene.weight[61].any()
    table = torch.randn(60, 16)
    model.set_gene_table(table)
    torch.testing.assert_close(model.gene.weight[:60], table, atol=0, rtol=0)
    assert bool((model.gene.weight[60] == 1).all())
    with pytest.raises(ValueError, match="60 x 16"):
        model.set_gene_table(table[:-1])


def test_features_change_only_when_asked() -> None:
    model = Performer(TINY).train()
    before = [part.features.clone() for part in model.modules() if isinstance(part, FavorAttention)]
    for _ in range(3):
        model(model.batch(cells()))
    after = [part.features for part in model.modules() if isinstance(part, FavorAttention)]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    model.redraw_features(torch.Generator().manual_seed(3))
    assert not any(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert not torch.equal(after[0], after[1])
    assert not [part for part in Performer(replace(TINY, attention="exact")).modules() if hasattr(part, "features")]


@pytest.mark.parametrize("place", ["embedding", "attention", "feedforward"])
def test_each_dropout_makes_views_and_rests_in_evaluation(place: str) -> None:
    torch.manual_seed(0)
    model = Performer(replace(TINY, **{f"{place}_dropout": 0.3}))
    batch = model.batch(cells())
    model.train()
    with torch.no_grad():
        assert float((model(batch).cls - model(batch).cls).abs().max()) > 1e-3
    model.eval()
    torch.testing.assert_close(model(batch).cls, model(batch).cls, atol=0, rtol=0)
    everywhere = Performer(replace(TINY, dropout=0.3))
    assert [part.p for part in everywhere.modules() if isinstance(part, torch.nn.Dropout)] == [0.3] * 5
    still = Performer(replace(TINY, dropout=0.3).without_dropout()).train()
    torch.testing.assert_close(still(batch).cls, still(batch).cls, atol=0, rtol=0)


@torch.no_grad()
def test_scbert_reads_every_gene() -> None:
    model = encoder("compat", tokens=7, every_gene=True)
    binned = cells()
    batch = model.batch(binned)
    assert batch.tokens.shape == (7, 61)
    assert bool(batch.mask.all())
    assert not batch.tokens[0].any()  # an empty cell is zeros
    row = slice(binned.indptr[3], binned.indptr[4])
    dense = np.zeros(61, np.int64)
    dense[binned.genes[row]] = binned.tokens[row]
    np.testing.assert_array_equal(batch.tokens[3], dense)
    assert model.gene.weight.shape == (61, 16)
    states = model(batch)
    torch.testing.assert_close(states.cls, states.hidden.mean(dim=1))
    assert model.logits(states.hidden).shape == (7, 61, 7)


@torch.no_grad()
def test_the_mean_leaves_cls_and_padding_out() -> None:
    model, binned = encoder(), cells()
    states = model(model.batch(binned))
    for i, length in enumerate(binned.lengths):
        expected = states.hidden[i, 1 : length + 1].mean(dim=0) if length else torch.zeros(16)
        torch.testing.assert_close(states.mean[i], expected)


def test_a_batch_from_the_middle_of_cells() -> None:
    binned = cells()
    part = BinnedCells(binned.indptr[2:5], binned.tokens, binned.genes, binned.truncated[2:4])
    one, other = BinnedBatch.from_cells(part, 60), BinnedBatch.from_cells(binned.take(np.array([2, 3])), 60)
    for field in ("tokens", "genes", "mask"):
        assert torch.equal(getattr(one, field), getattr(other, field))
    assert one.lengths.tolist() == (binned.lengths[2:4] + 1).tolist()
    assert bool((one.tokens[:, 0] == 6).all())
    assert bool((one.genes[:, 0] == 60).all())
    assert bool((one.tokens[~one.mask] == 7).all())
    assert bool((one.genes[~one.mask] == 61).all())
    assert len(one.to("cpu")) == 2


def test_wrong_settings_are_refused() -> None:
    for wrong in (
        {"attention": "linear"},
        {"dropout": 1.0},
        {"attention_dropout": -0.1},
        {"heads": 0},
        {"padded_length": 60},
    ):
        with pytest.raises(ConfigError):
            replace(TINY, **wrong)
    assert from_dict(PerformerConfig, to_dict(TINY)) == TINY
    model = encoder("compat", padded_length=30)
    with pytest.raises(ValueError, match="pads to 30"):
        model(model.batch(cells()))
    with pytest.raises(ValueError, match="no output layer"):
        Performer(replace(TINY, logits=False)).logits(torch.zeros(1, 16))
