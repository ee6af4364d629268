"""One step of LangCell: its gradients are those of the four losses written out, whatever the chunks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from cell_lists import from_lists
from torch import Tensor, nn

from cellingua.core.errors import ConfigError
from cellingua.engine.direct import direct
from cellingua.models.langcell import LangCellConfig, LangCellModule
from cellingua.nn.bag import GatedBagConfig
from cellingua.nn.batch import CellBatch
from cellingua.nn.language import TextTowerConfig
from cellingua.nn.transformer import CellTowerConfig
from cellingua.objectives.cell_contrast import cell_cell_contrast
from cellingua.objectives.contrast import cell_text_contrast
from cellingua.objectives.masked_genes import GeneMaskConfig
from cellingua.objectives.matching import Pairs
from cellingua.recipes import langcell_step
from cellingua.recipes.langcell_config import ALIGNED, FIRST, SECOND, ObjectivesConfig, ObjectiveWeights
from cellingua.recipes.langcell_step import Minibatch, Step, StepConfig, pair_batch
from cellingua.recipes.langcell_towers import (
    LastLayerView,
    PairView,
    TextView,
    TrainingModule,
    before_last,
    mask_cells,
)
from cellingua.recipes.relations import Kinds

GENES, CLS, CELLS, TEXTS = 40, 42, 7, 5
TYPES = ["CL:0000084", "CL:0000624", "CL:0000236", "CL:0000576", "CL:0000182"]  # the second is a kind of the first
LIMIT = 9
CONFIG = ObjectivesConfig(
    ObjectiveWeights(0.7, 1.3, 0.9, 1.1),
    temperature=0.2,
    hard_temperature=0.2,
    masked_cells=4,
    matched_cells=3,
    chunk=3,
    pair_chunk=2,
)


def model(kind: str, dropout: float = 0.0) -> LangCellModule:
    torch.manual_seed(1)
    text = TextTowerConfig(30, 2, 12, 2, 16, 12, dropout=dropout, attention_dropout=dropout, encoder_width=8)
    if kind == "bag":
        bag = GatedBagConfig(
            GENES + 2, 8, 12, 8, 4, dropout=dropout, layers=1, top=LIMIT, layer_width=8, heads=2, feedforward=12,
            top_pooled=False,
        )  # fmt: skip
        config = LangCellConfig("bag", text, bag=bag, joint_width=6, match_head=True)
    else:
        bert = CellTowerConfig(
            GENES + 3, CLS, 2, 8, 2, 12, LIMIT + 1, dropout=dropout, attention_dropout=dropout
        )  # fmt: skip
        config = LangCellConfig("bert", text, bert=bert, joint_width=6, match_head=True)
    made = LangCellModule(config).double()
    for parameter in made.parameters():
        nn.init.normal_(parameter, std=0.3)
    return made


def cells(seed: int) -> CellBatch:
    """Cells of different lengths, one of them empty."""
    rng = np.random.default_rng(seed)
    sizes = [5, 9, 1, 0, 7, 12, 6]
    tokens = [rng.permutation(np.arange(2, GENES + 2))[:size].tolist() for size in sizes]
    values = [np.sort(rng.exponential(2.0, size))[::-1].tolist() for size in sizes]
    made = from_lists(tokens, values)
    assert made.values is not None
    return CellBatch(made.tokens, made.offsets, made.values.double())


def texts(seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    mask = torch.arange(6)[None, :] < torch.tensor([6, 3, 4, 2, 5])[:, None]
    return torch.randint(1, 30, (TEXTS, 6), generator=generator) * mask, mask


def minibatch(step: int) -> Minibatch:
    ids, mask = texts(step)
    # Cells 0 and 4 share a text, cell 5's type is an ancestor of theirs, cell 3 has no text.
    text_of = torch.tensor([1, 2, 3, -1, 1, 0, 4])
    type_of = torch.tensor([1, 2, 3, -1, 1, 0, 4])
    first, second = cells(step), cells(step + 50)
    return Minibatch(
        first, second, 0, text_of, type_of, (ids, mask), torch.arange(TEXTS), lambda rows: (ids[rows], mask[rows])
    )


def make(
    kind: str, config: ObjectivesConfig = CONFIG, stage: str = SECOND, dropout: float = 0.0
) -> tuple[Step, TrainingModule]:
    trained = TrainingModule(model(kind, dropout), masked=True).double()
    torch.manual_seed(3)
    for parameter in trained.masked_head.parameters():  # type: ignore[union-attr]
        nn.init.normal_(parameter, std=0.3)
    trained.train()
    kinds, view = Kinds.of(TYPES, config.decay), TextView(trained.model)
    settings = StepConfig(config, config.weights.in_stage(stage), GENES, LIMIT, seed=5)
    return Step(trained, minibatch, settings, kinds, view), trained


def written_out(step: Step, trained: TrainingModule, number: int) -> dict[str, Tensor]:
    """The weighted losses of a step with one graph over everything, pairs and masks as the step draws them."""
    batch, made = minibatch(number), trained.model
    weights = step.weights
    first, second = made.cells(batch.first)[0], made.cells(batch.second)[0]
    words = made.texts(*batch.texts)
    known = batch.text_of >= 0
    related = step.of_texts(batch)
    right = torch.zeros(CELLS, TEXTS, dtype=torch.bool)
    for row, text in enumerate(batch.text_of.tolist()):
        if text >= 0:
            right[row, text] = True
    losses = {
        "cell_text": weights.cell_text
        * cell_text_contrast(first[known], words, right[known], related.unclear[known], temperature=0.2)
    }
    # The contrast of cells: same text or related types are left out.
    between = step.of_cells(batch)
    own = torch.eye(CELLS, dtype=torch.bool)
    out = (between.right | between.unclear) & ~own
    losses["cell_cell"] = weights.cell_cell * cell_text_contrast(first, second, own, out, temperature=0.2)
    hidden = step.masked(number, batch)
    states, total, count = made.cell_tower(hidden.cells), first.new_zeros(()), 0
    for row in range(len(hidden)):
        begin, end = int(hidden.cells.offsets[row]), int(hidden.cells.offsets[row + 1])
        for place in range(begin, end):
            if hidden.chosen[place]:
                state = states.hidden[row, 1 + place - begin]
                logits = trained.masked_head(state[None], made.cell_tower.token.weight)[0]  # type: ignore[misc]
                total, count = total + logits.logsumexp(0) - logits[hidden.genes[place]], count + 1
    losses["masked"] = weights.masked * total / count
    pairs = step.pairs(number, batch, first.detach(), words.detach())
    states, total = made.cell_tower(batch.first), first.new_zeros(())
    ids, mask = batch.read(pairs.texts)
    for place, (cell, match) in enumerate(zip(pairs.cells.tolist(), pairs.match.tolist(), strict=True)):
        seen = replace(
            states, pooled=states.pooled[[cell]], hidden=states.hidden[[cell]], mask=states.mask[[cell]]
        )  # fmt: skip
        real = mask[place]
        logits = made.match_head(made.text_tower(ids[[place]][:, real], mask[[place]][:, real], seen).hidden[0, 0])  # type: ignore[misc]
        total = total + logits.logsumexp(0) - logits[match]
    losses["matching"] = weights.matching * total / len(pairs)
    return losses


def gradients(module: nn.Module) -> dict[str, Tensor]:
    return {name: p.grad.clone() for name, p in module.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("kind", ["bag", "bert"])
def test_gradients_are_those_of_the_losses_written_out(kind: str) -> None:
    step, trained = make(kind)
    told = step(4)
    found = gradients(trained)
    trained.zero_grad(set_to_none=True)
    losses = written_out(step, trained, 4)
    assert told == pytest.approx({name: float(loss.detach()) for name, loss in losses.items()}, rel=1e-9)
    torch.stack(list(losses.values())).sum().backward()
    expected = gradients(trained)
    assert set(found) == set(expected)
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-8, atol=1e-11, msg=name)
    parts = ("cell_tower", "cell_projection", "text_tower", "text_projection", "match_head")
    assert all(any(name.startswith(f"model.{part}") for name in found) for part in parts)


@pytest.mark.parametrize("kind", ["bag", "bert"])
@pytest.mark.parametrize("keep", [0.0, None, 3e4])
def test_with_dropout_the_step_is_the_plain_step(
    kind: str, keep: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    step, trained = make(kind, replace(CONFIG, keep=keep), dropout=0.2)
    told = step(1)
    found = gradients(trained)
    trained.zero_grad(set_to_none=True)
    monkeypatch.setattr(langcell_step, "divide_conquer", direct)
    assert step(1) == pytest.approx(told, rel=1e-12)
    for name, gradient in gradients(trained).items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-9, atol=1e-12, msg=name)


def test_a_step_is_a_function_of_its_number() -> None:
    step, trained = make("bert", dropout=0.2)
    once = step(2)
    first = gradients(trained)
    trained.zero_grad(set_to_none=True)
    torch.manual_seed(99)
    assert step(2) == once
    assert all(torch.equal(first[name], gradient) for name, gradient in gradients(trained).items())
    trained.zero_grad(set_to_none=True)
    assert step(3) != once


@pytest.mark.parametrize("kind", ["bag", "bert"])
def test_every_loss_of_a_minibatch_falls(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # In chunks of any size it is the same step: see above.
    step, trained = make(kind, replace(CONFIG, chunk=64, pair_chunk=64, keep=None))
    optimiser = torch.optim.AdamW(trained.parameters(), lr=2e-2)
    told = []
    with torch.no_grad():
        first, words = trained.model.cells(minibatch(0).first)[0], trained.model.texts(*texts(0))
    # The same pairs all the time: else they become harder as the towers learn.
    pairs = step.pairs(0, minibatch(0), first, words)
    monkeypatch.setattr(step, "pairs", lambda *_: pairs)
    for _ in range(60):
        optimiser.zero_grad(set_to_none=True)
        told.append(step(0))
        optimiser.step()
    assert sum(told[19].values()) < 0.9 * sum(told[0].values())
    for name in ("masked", "cell_cell", "cell_text", "matching"):
        assert told[-1][name] < 0.9 * told[0][name], name


def test_stages_have_their_objectives() -> None:
    names = {
        stage: set(make("bag", stage=stage)[0](0)) for stage in (ALIGNED, FIRST, SECOND)
    }  # fmt: skip
    assert names == {
        ALIGNED: {"cell_text"},
        FIRST: {"masked", "cell_cell"},
        SECOND: {"masked", "cell_cell", "cell_text", "matching"},
    }
    step, trained = make("bag", stage=FIRST)
    step(0)
    assert not any("text" in name or "match" in name for name in gradients(trained))


def test_matching_may_come_every_few_steps() -> None:
    step, _ = make("bag", replace(CONFIG, match_every=3))
    assert ["matching" in step(number) for number in range(4)] == [True, False, False, True]


@pytest.mark.parametrize("relation", ["instances", "masked", "multi_positive", "ontology"])
def test_every_relation_can_be_chosen(relation: str) -> None:
    values = {}
    for chosen in ("multi_positive", relation):
        step, trained = make("bert", replace(CONFIG, text_relation=chosen, cell_relation=chosen))
        values[chosen] = step(0)
        assert all(bool(torch.isfinite(gradient).all()) for gradient in gradients(trained).values())
    if relation != "multi_positive":
        assert values[relation]["cell_text"] != values["multi_positive"]["cell_text"]
        assert values[relation]["cell_cell"] != values["multi_positive"]["cell_cell"]


def test_instances_are_the_plain_contrast_of_cells() -> None:
    step, trained = make("bag", replace(CONFIG, cell_relation="instances"))
    batch, made = minibatch(0), trained.model
    first, second = made.cells(batch.first)[0], made.cells(batch.second)[0]
    expected = 1.3 * cell_cell_contrast(first, second, temperature=0.2)
    assert step(0)["cell_cell"] == pytest.approx(float(expected.detach()), rel=1e-10)


def test_pairs_never_hold_what_is_right_or_related() -> None:
    step, _ = make("bag", replace(CONFIG, matched_cells=0))
    batch = minibatch(0)
    wrong = step.of_texts(batch).wrong
    generator = torch.Generator().manual_seed(0)
    for number in range(20):
        z, w = (torch.randn(n, 6, generator=generator) for n in (CELLS, TEXTS))
        pairs = step.pairs(number, batch, z, w)
        match = pairs.match.bool()
        assert wrong[pairs.cells[~match], pairs.texts[~match]].all()
        assert torch.equal(batch.text_of[pairs.cells[match]], pairs.texts[match])
        assert sorted(pairs.cells[match].tolist()) == [0, 1, 2, 4, 5, 6]
        assert not (pairs.cells == 3).any()


def test_processes_share_pairs_and_masks() -> None:
    step, _ = make("bag")
    whole = minibatch(0)
    z, w = torch.randn(CELLS, 6), torch.randn(TEXTS, 6)
    pairs = step.pairs(0, whole, z, w)
    together = pair_batch(whole, pairs)
    hidden = step.masked(0, whole)
    parts = [replace(whole, first=whole.first.rows(a, b), offset=a) for a, b in ((0, 3), (3, 4), (4, 7))]
    shares = [pair_batch(part, pairs) for part in parts]
    assert sum(len(share.match) for share in shares) == len(together.match) == len(pairs)
    assert torch.equal(torch.cat([share.match for share in shares]), together.match)
    assert torch.equal(torch.cat([share.ids for share in shares if len(share.match)]), together.ids)
    masks = [step.masked(0, part) for part in parts]
    assert torch.equal(torch.cat([m.genes[m.chosen] for m in masks]), hidden.genes[hidden.chosen])
    # A process without any still has something to encode, of which nothing is asked.
    assert len(shares[1]) == len(masks[1]) == 1
    assert len(shares[1].match) == int(masks[1].chosen.sum()) == 0


@pytest.mark.parametrize("kind", ["bag", "bert"])
def test_the_last_layer_alone_is_the_whole_tower_that_looks_there_alone(kind: str) -> None:
    made = model(kind)
    for layer in list(made.text_tower.layers)[:-1]:
        nn.init.zeros_(layer.cross.output.weight)  # type: ignore[union-attr, arg-type]
        nn.init.zeros_(layer.cross.output.bias)  # type: ignore[union-attr, arg-type]
    batch, cells_of = minibatch(0), torch.tensor([0, 0, 2, 5, 5])
    pairs = Pairs(cells_of, torch.tensor([1, 4, 0, 2, 3]), torch.tensor([1, 0, 0, 1, 0]))
    held = pair_batch(batch, pairs)
    ids, mask = batch.texts
    states = before_last(made.text_tower, ids, mask)[pairs.texts]
    read_before = replace(held, ids=states, mask=torch.ones((5, 1), dtype=torch.bool))
    found = []
    for view, data in ((PairView(made), held), (LastLayerView(made), read_before)):
        made.zero_grad(set_to_none=True)
        total, count = view(data)[1]["matching"]
        total.backward()
        found.append((total.detach(), count, gradients(made)))
    (whole, n, all_of_them), (last, m, of_the_last) = found
    torch.testing.assert_close(last, whole)
    assert n == m == 5
    # Cells are seen through the last layer alone: their gradient is the same too.
    for part in ("text_tower.layers.1.cross", "match_head", "cell_tower"):
        named = [name for name in of_the_last if name.startswith(part)]
        assert named
        for name in named:
            torch.testing.assert_close(of_the_last[name], all_of_them[name], msg=name)


@pytest.mark.parametrize("kind", ["bag", "bert"])
def test_hidden_genes_leave_no_value_behind(kind: str) -> None:
    batch = cells(0) if kind == "bag" else replace(cells(0), values=None)
    seeds = [[row] for row in range(CELLS)]
    found = mask_cells(batch, LIMIT, GENES, GeneMaskConfig(0.5, 0.8, 0.1), seeds)
    assert found.cells.lengths.tolist() == batch.lengths.clamp(max=LIMIT).tolist()
    hidden = found.cells.tokens == 1
    assert bool(hidden.any())
    assert bool(found.chosen[hidden].all())
    if kind == "bag":
        assert found.cells.values is not None
        assert torch.equal(found.cells.values == 0, hidden)
    alone = mask_cells(batch.rows(4, 5), LIMIT, GENES, GeneMaskConfig(0.5, 0.8, 0.1), [[4]])
    assert torch.equal(alone.cells.tokens, found.rows(4, 5).cells.tokens)


def test_wrong_configurations_are_refused() -> None:
    with pytest.raises(ConfigError, match="similarity"):
        ObjectiveWeights(cell_text=0)
    with pytest.raises(ConfigError, match="above 0"):
        ObjectiveWeights(0, 0, 0, 0)
    wrongs = ({"text_relation": "kin"}, {"temperature": 0.0}, {"hard_temperature": 0.0}, {"decay": 1.0}, {"chunk": 0})
    for wrong in (*wrongs, {"masked_cells": -1}):
        with pytest.raises(ConfigError):
            replace(CONFIG, **wrong)
