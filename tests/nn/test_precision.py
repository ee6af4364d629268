"""Copies in lower precision answer alike, leave the module alone, and the choice has a reason."""

from __future__ import annotations

import pytest
import torch
from cell_lists import from_lists
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from cellingua.core.errors import InputError
from cellingua.nn import precision as room
from cellingua.nn.precision import PRECISIONS, Int8Embedding, Int8Linear, choose, converted, quantise_rows, resolve
from cellingua.nn.transformer import CellTower, CellTowerConfig


def tower() -> CellTower:
    torch.manual_seed(0)
    made = CellTower(CellTowerConfig(50, 49, 2, 16, 4, 32, 20)).eval()
    for parameter in made.parameters():
        nn.init.normal_(parameter, std=0.2)
    return made


CELLS = from_lists([[3, 7, 20, 41], [], [5], list(range(2, 30))])


@pytest.mark.parametrize("precision", PRECISIONS[1:])
def test_what_is_asked_for_is_taken(precision: str) -> None:
    assert choose(precision) == room.Precision(precision, "asked for")
    assert resolve(precision, "cuda") == precision  # asks no device


@pytest.mark.parametrize(("has", "name"), [*room.PROCESSORS, (None, "neither AMX nor AVX-512 BF16")])
def test_auto_follows_the_processor_and_says_so(monkeypatch: pytest.MonkeyPatch, has: str | None, name: str) -> None:
    for asked, _ in room.PROCESSORS:
        monkeypatch.setattr(torch.cpu, asked, lambda asked=asked: asked == has, raising=False)
    chosen = choose("auto", "cpu")
    assert chosen.name == ("float32" if has is None else "bfloat16")
    assert name in chosen.reason


def test_auto_is_float32_where_torch_cannot_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    for asked, _ in room.PROCESSORS:
        monkeypatch.delattr(torch.cpu, asked, raising=False)
    assert resolve("auto", "cpu") == "float32"


@pytest.mark.parametrize(("capability", "name"), [((9, 0), "bfloat16"), ((7, 5), "float32")])
def test_auto_follows_the_gpu(monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], name: str) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert resolve("auto", "cuda:0") == name


def test_other_devices_compute_in_float32() -> None:
    assert resolve("auto", "mps") == "float32"


def test_an_unknown_precision_is_refused() -> None:
    with pytest.raises(InputError, match="float16"):
        choose("float16")
    for wrong in ("auto", "half"):
        with pytest.raises(ValueError, match=wrong):
            converted(tower(), wrong)


def test_float32_is_the_module_itself() -> None:
    made = tower()
    assert converted(made, "float32") is made


@pytest.mark.parametrize(("precision", "least"), [("bfloat16", 0.999), ("int8", 0.999)])
@torch.no_grad()
def test_a_copy_answers_alike_and_leaves_the_module_alone(precision: str, least: float) -> None:
    made = tower()
    before = {name: tensor.clone() for name, tensor in made.state_dict().items()}
    exact = made(CELLS).pooled
    copied = converted(made, precision)
    answer = copied(CELLS).pooled.float()
    assert type(copied) is CellTower
    assert not torch.equal(answer, exact)
    assert float(functional.cosine_similarity(answer, exact).min()) > least
    assert not any(parameter.requires_grad for parameter in copied.parameters())
    for parameter in copied.parameters():
        parameter.fill_(7)
    for name, tensor in made.state_dict().items():
        torch.testing.assert_close(tensor, before[name], atol=0, rtol=0)
    assert all(parameter.requires_grad for parameter in made.parameters())


def test_a_training_module_gives_an_evaluating_copy() -> None:
    made = tower().train()
    assert not converted(made, "bfloat16").training
    assert made.training


def test_shared_weights_stay_shared() -> None:
    made = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    made[1].weight = made[0].weight
    low = converted(made, "bfloat16")
    assert low[1].weight is low[0].weight


def test_int8_takes_a_quarter_of_the_memory() -> None:
    made = tower()
    low = converted(made, "int8")

    def size(module: nn.Module) -> int:
        return sum(t.numel() * t.element_size() for t in module.state_dict().values())

    weights = sum(p.weight.numel() for p in made.modules() if isinstance(p, nn.Linear | nn.Embedding))
    rows = sum(len(p.rows) for p in low.modules() if isinstance(p, Int8Linear | Int8Embedding))
    assert size(low) == size(made) - 3 * weights + 4 * rows


@given(st.integers(0, 2**32 - 1), st.floats(-30, 30))
def test_a_quantised_row_is_off_by_half_a_step_at_most(seed: int, scale: float) -> None:
    weight = torch.randn(5, 7, generator=torch.Generator().manual_seed(seed)) * 10.0**scale
    weight[2] = 0
    rows, step = quantise_rows(weight)
    assert int(rows.abs().max()) <= 127
    assert not rows[2].any()
    assert not step[2].any()
    error = (rows * step - weight).abs()
    assert bool((error <= step * (0.5 + 1e-4)).all())


def test_int8_layers_are_their_rounded_weights() -> None:
    torch.manual_seed(1)
    held = nn.ModuleDict({"a": nn.Linear(6, 4), "b": nn.Linear(6, 4, bias=False), "c": nn.Embedding(9, 6)})
    low, states, ids = converted(held, "int8"), torch.randn(3, 6), torch.tensor([[1, 8], [0, 0]])
    for name in ("a", "b"):
        torch.testing.assert_close(low[name](states), functional.linear(states, low[name].weight, held[name].bias))
    torch.testing.assert_close(low["c"](ids), low["c"].weight[ids], atol=0, rtol=0)
    with pytest.raises(ValueError, match="single layer"):
        converted(nn.Linear(2, 2), "int8")
