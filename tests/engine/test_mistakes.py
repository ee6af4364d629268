"""Each silent error of large contrastive batches, planted once: it is refused, or seen, never passed over."""

from __future__ import annotations

import math
import random
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from small_towers import Tower, gradients, make_tower, numbers, plain_info_nce
from torch import Tensor, nn

from cellingua.core.errors import CellinguaError, EngineError
from cellingua.engine import InfoNCE, direct, divide_conquer, gradcheck, gradient_error

BATCH = numbers(32, 6)


def step(tower: Any, objective: Any = None, batch: Any = BATCH, **settings: Any) -> Any:
    """Do a step of two views in chunks of 8."""
    return divide_conquer([tower, tower], [batch, batch], objective or InfoNCE(), **{"chunk": 8, "seed": 0, **settings})


class Wrapped(Tower):
    """A tower that does something else to its values first."""

    def __init__(self, before: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.before = before

    def forward(self, batch: Any) -> Any:
        """Change the values, then encode."""
        return super().forward(self.before(batch))


GENERATOR = np.random.default_rng(0)
OWN = torch.Generator().manual_seed(3)
UNREPEATABLE = {
    "numpy": lambda x: x * torch.from_numpy(GENERATOR.random(x.shape) > 0.1),
    "python": lambda x: x * random.random(),
    "a generator of its own": lambda x: x * (torch.rand(x.shape, generator=OWN) > 0.1),
    "the pass itself": lambda x: x * (1 + 1e-12 * torch.is_grad_enabled()),
}


@pytest.mark.parametrize("kind", UNREPEATABLE)
def test_randomness_that_is_not_torchs_is_seen(kind: str) -> None:
    tower = Wrapped(UNREPEATABLE[kind])
    with pytest.raises(EngineError, match="differently the second time") as caught:
        step(tower)
    for cause in ("numpy", "BatchNorm", "redraw", "deterministic"):
        assert cause in str(caught.value)
    # What is encoded once needs no second pass.
    assert step(tower, budget=math.inf).kept == 8


def test_without_replay_the_gradients_are_wrong_and_the_check_sees_it(monkeypatch: pytest.MonkeyPatch) -> None:
    tower = make_tower()
    parameters = list(tower.parameters())
    _, true = gradients(direct, parameters, [tower] * 2, [BATCH] * 2, plain_info_nce, chunk=8, seed=0)
    monkeypatch.setattr("cellingua.engine.step.set_random_state", lambda *_: None)
    with pytest.raises(EngineError, match="differently the second time"):
        step(tower)
    monkeypatch.setattr(sys.modules["cellingua.engine.divide_conquer"], "_check", lambda *_: None)
    _, found = gradients(step, parameters, tower)
    assert gradient_error(found, true) > 0.1


def test_a_layer_that_changes_between_the_passes_is_seen() -> None:
    class Redrawn(Tower):
        calls = 0

        def forward(self, batch: Any) -> Any:
            self.calls += 1
            generator = torch.Generator().manual_seed(self.calls // 8)
            return super().forward(batch + 0.1 * torch.randn(6, generator=generator, dtype=batch.dtype))

    with pytest.raises(EngineError, match="differently the second time"):
        step(Redrawn())


def test_a_counter_of_passes_is_refused() -> None:
    class Counting(Tower):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("calls_since_redraw", torch.tensor(0))

        def forward(self, batch: Any) -> Any:
            self.calls_since_redraw += 1
            return super().forward(batch)

    with pytest.raises(EngineError, match="calls_since_redraw"):
        step(Counting())


class Normalised(nn.Module):
    """A tower with a normalisation between its layers."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(6, 8), norm, nn.Tanh(), nn.Linear(8, 4)).double()

    def forward(self, batch: Tensor) -> Tensor:
        """Encode."""
        return nn.functional.normalize(self.layers(batch), dim=-1)


@pytest.mark.parametrize(
    ("run", "hidden"),
    [(direct, False), (divide_conquer, False), (divide_conquer, True)],
    ids=["direct", "module", "hidden in a function"],
)
def test_batch_norm_in_training_mode_is_refused(run: Any, hidden: bool) -> None:
    tower = Normalised(nn.BatchNorm1d(8))
    holder = {"tower": tower}
    called = (lambda x: holder["tower"](x)) if hidden else tower
    with pytest.raises(EngineError, match="BatchNorm"):
        run([called] * 2, [BATCH] * 2, InfoNCE(), chunk=8, seed=0)
    tower.eval()
    assert gradcheck([called] * 2, [BATCH] * 2, InfoNCE(), chunk=8, parameters=list(tower.parameters())) < 1e-12


def test_batch_statistics_without_running_ones_are_refused_in_evaluation_too() -> None:
    with pytest.raises(EngineError, match="BatchNorm"):
        step(Normalised(nn.BatchNorm1d(8, track_running_stats=False)).eval())


def test_layer_norm_passes() -> None:
    tower = Normalised(nn.LayerNorm(8))
    assert gradcheck([tower] * 2, [BATCH] * 2, InfoNCE(), chunk=8) < 1e-12


def test_negatives_inside_a_chunk_only_are_another_gradient() -> None:
    tower = make_tower()
    parameters = list(tower.parameters())
    _, true = gradients(direct, parameters, [tower] * 2, [BATCH] * 2, plain_info_nce, chunk=8, seed=0)

    def accumulate() -> Any:
        for start in range(0, 32, 8):
            divide_conquer([tower] * 2, [BATCH[start : start + 8]] * 2, InfoNCE(), chunk=8, seed=start, scale=0.25)

    _, found = gradients(accumulate, parameters)
    assert gradient_error(found, true) > 0.1


def test_autocast_around_the_step_is_refused() -> None:
    tower = make_tower(dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16), pytest.raises(EngineError, match=r"autocast=torch\.bfloat16"):
        step(tower, batch=BATCH.float())


def test_autocast_in_one_pass_only_is_seen() -> None:
    tower = make_tower(dtype=torch.float32)

    def once(batch: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=torch.is_grad_enabled()):
            return tower(batch).float()

    with pytest.raises(EngineError, match="differently the second time"):
        step(once, batch=BATCH.float())


def test_a_wrapper_that_averages_over_processes_is_refused() -> None:
    class DistributedDataParallel(nn.Module):
        def __init__(self, module: nn.Module) -> None:
            super().__init__()
            self.module = module

        def no_sync(self) -> None:
            """As torch's has it."""

    with pytest.raises(EngineError, match=r"wrapped\.module"):
        step(DistributedDataParallel(make_tower()))


def test_not_a_number_is_not_called_a_difference() -> None:
    result = step(make_tower(), batch=BATCH * math.nan)
    assert math.isnan(result.loss)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"towers": []}, "0 towers"),
        ({"batches": [BATCH]}, "2 towers, 1 batches"),
        ({"chunk": [3]}, "1 chunk sizes"),
        ({"chunk": 0}, "A chunk of 0 items"),
        ({"batches": [BATCH, BATCH[:0]]}, "empty batch"),
        ({"batches": [(BATCH, BATCH[:3]), BATCH]}, r"\[3, 32\] rows"),
        ({"budget": -1}, "budget of -1"),
        ({"budget": math.nan}, "budget of nan"),
        ({"objective": None}, "neither an objective nor a separable loss"),
        ({"objective": lambda a, b: a}, "something else than one number"),
        ({"weights": {"objective": 1.0}}, "called 'objective'"),
        ({"towers": [lambda x: x[:1], lambda x: x]}, r"\(1, 6\) for a chunk of 8 items"),
        ({"towers": [lambda x: "no", lambda x: x]}, "str for a chunk"),
        ({"towers": [lambda x: (x, {"masked": (x.sum(), 1)}), lambda x: x]}, "the loss 'masked'"),
    ],
)
def test_what_can_not_be_done_is_told(change: dict[str, Any], says: str) -> None:
    tower = make_tower()
    call = {
        "towers": [tower, tower],
        "batches": [BATCH, BATCH],
        "objective": InfoNCE(),
        "chunk": 8,
        "seed": 0,
        **change,
    }
    towers, batches, objective = call.pop("towers"), call.pop("batches"), call.pop("objective")
    with pytest.raises(EngineError, match=says) as caught:
        divide_conquer(towers, batches, objective, **call)
    assert isinstance(caught.value, CellinguaError)


def test_gradcheck_sees_a_difference_and_leaves_gradients_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    tower = make_tower()
    for p in tower.parameters():
        p.grad = torch.ones_like(p)
    assert gradcheck([tower] * 2, [BATCH] * 2, InfoNCE(), chunk=8) < 1e-12
    assert all(torch.equal(p.grad, torch.ones_like(p)) for p in tower.parameters())
    module = sys.modules["cellingua.engine.gradcheck"]
    monkeypatch.setattr(module, "direct", lambda *a, **k: divide_conquer(*a, **{**k, "seed": 9}))
    with pytest.raises(EngineError, match="differ from those of one graph"):
        gradcheck([tower] * 2, [BATCH] * 2, InfoNCE(), chunk=8)


def test_small_tensors_are_compared_absolutely() -> None:
    big, tiny = torch.ones(4), torch.full((4,), 1e-13)
    assert gradient_error([big, tiny * 3], [big, tiny]) == pytest.approx(4e-13, rel=1e-3)
    assert gradient_error([big * 1.5, None], [big, None]) == pytest.approx(0.5)
    assert gradient_error([None], [big]) == pytest.approx(1.0)
    assert gradient_error([big], [None]) == pytest.approx(2.0)
