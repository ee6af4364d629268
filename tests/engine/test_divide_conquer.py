"""Divide and conquer gives the gradients of one graph: for every chunk, objective, budget, dropout, frozen tower."""

from __future__ import annotations

import inspect
import math
import subprocess
import sys
from collections import namedtuple
from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_towers import (
    BUDGETS,
    gradients,
    make_tower,
    numbers,
    plain_info_nce,
    plain_multi_positive,
    plain_nt_xent,
    relation,
)
from torch import Tensor, nn
from torch.nn import functional

from cellingua.engine import (
    InfoNCE,
    MultiPositive,
    NTXent,
    direct,
    divide_conquer,
    gradcheck,
    gradient_error,
)
from cellingua.engine.chunks import divide, rows_of, take
from cellingua.engine.replay import chunk_seed

OBJECTIVES = {
    "info": (InfoNCE(0.1, tile=5), lambda a, b: plain_info_nce(a, b, 0.1)),
    "one way": (InfoNCE(0.1, symmetric=False, tile=5), lambda a, b: plain_info_nce(a, b, 0.1, False)),
    "nt": (NTXent(0.1, tile=5), lambda a, b: plain_nt_xent(a, b, 0.1)),
}


def two_towers(dropout: float = 0.1, **settings: object) -> tuple[list[nn.Module], list[nn.Parameter]]:
    """Return two towers of different inputs, and all their parameters."""
    towers = [make_tower(1, dropout=dropout, **settings), make_tower(2, width=4, dropout=dropout)]
    return towers, [p for tower in towers for p in tower.parameters()]


@given(
    rows=st.integers(1, 13),
    chunk=st.integers(1, 14),
    objective=st.sampled_from(sorted(OBJECTIVES)),
    dropout=st.sampled_from([0.0, 0.1, 0.5]),
    views=st.booleans(),
    frozen=st.sampled_from([None, 0, 1]),
    budget=st.sampled_from(BUDGETS),
)
@settings(max_examples=80)
def test_gradients_are_those_of_one_graph(
    rows: int, chunk: int, objective: str, dropout: float, views: bool, frozen: int | None, budget: float
) -> None:
    towers, parameters = two_towers(dropout)
    batches = [numbers(rows, 6), numbers(rows, 4)]
    if views:
        towers, batches = [towers[0], towers[0]], [batches[0], batches[0]]
    if frozen is not None:
        towers[frozen].requires_grad_(False)
    tiled, plain = OBJECTIVES[objective]
    true, wanted = gradients(direct, parameters, towers, batches, plain, chunk=chunk, seed=5)
    ours, found = gradients(divide_conquer, parameters, towers, batches, tiled, chunk=chunk, seed=5, budget=budget)
    assert gradient_error(found, wanted) <= 1e-12
    assert [f is None for f in found] == [w is None for w in wanted]
    assert ours.loss == pytest.approx(true.loss, rel=1e-12)
    for a, b in zip(ours.representations, true.representations, strict=True):
        assert torch.equal(a, b)


@given(st.integers(2, 9), st.integers(2, 7), st.integers(1, 5), st.integers(1, 5), st.booleans())
@settings(max_examples=30)
def test_batches_and_chunks_may_differ_between_towers(n: int, m: int, c: int, d: int, symmetric: bool) -> None:
    towers, parameters = two_towers()
    batches, (positive, ignored) = [numbers(n, 6), numbers(m, 4)], relation(n, m)
    tiled = MultiPositive(positive, ignored, 0.1, symmetric, tile=3)

    def plain(a: Tensor, b: Tensor) -> Tensor:
        return plain_multi_positive(a, b, positive, ignored, 0.1, symmetric)

    _, wanted = gradients(direct, parameters, towers, batches, plain, chunk=[c, d], seed=1)
    _, found = gradients(divide_conquer, parameters, towers, batches, tiled, chunk=[c, d], seed=1)
    assert gradient_error(found, wanted) <= 1e-12


def labelled(rows: int = 11) -> tuple[Tensor, Tensor]:
    """Return a batch of values and labels, most of them -1 (not chosen); some chunks have none."""
    labels = torch.full((rows,), -1)
    labels[[0, 1, 2, 7]] = torch.tensor([0, 2, 1, 1])
    return numbers(rows, 6), labels


@pytest.mark.parametrize("chunk", [1, 3, 4, 11])
@pytest.mark.parametrize("budget", BUDGETS)
def test_separable_losses_are_averaged_over_the_whole_batch(chunk: int, budget: float) -> None:
    tower = make_tower(words=True)
    parameters, batch = list(tower.parameters()), labelled()
    weights = {"masked": 0.7, "size": 0.01}
    step = {"chunk": chunk, "seed": 2, "weights": weights}
    result, found = gradients(
        divide_conquer, parameters, [tower, tower], [batch, batch], InfoNCE(), budget=budget, **step
    )
    true, wanted = gradients(direct, parameters, [tower, tower], [batch, batch], plain_info_nce, **step)
    assert gradient_error(found, wanted) <= 1e-12
    assert result.parts == pytest.approx(true.parts, rel=1e-12)
    assert result.loss == pytest.approx(
        result.parts["objective"] + 0.7 * result.parts["masked"] + 0.01 * result.parts["size"]
    )
    # And by hand, without dropout: the mean over the chosen of both views, never the mean of the chunks' means.
    tower.eval()
    values, labels = batch
    logits = tower.words(torch.tanh(tower.widen(values)))
    mean = functional.cross_entropy(logits[labels >= 0], labels[labels >= 0])
    by_hand = divide_conquer([tower, tower], [batch, batch], InfoNCE(), **step).parts["masked"]
    assert by_hand == pytest.approx(float(mean.detach()), rel=1e-12)


def test_separable_losses_alone() -> None:
    tower = make_tower(words=True)
    step = {"chunk": 4, "seed": 2, "weights": {"masked": 1.0, "size": 0.0}}
    _, found = gradients(divide_conquer, list(tower.parameters()), [tower], [labelled()], None, **step)
    _, wanted = gradients(direct, list(tower.parameters()), [tower], [labelled()], None, **step)
    assert gradient_error(found, wanted) <= 1e-12


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_any_budget_gives_the_same_bits(dtype: torch.dtype) -> None:
    towers, parameters = two_towers(dtype=dtype)
    towers[1].to(dtype)
    batches = [numbers(13, 6, dtype=dtype), numbers(13, 4, dtype=dtype)]
    results = []
    for budget in (0, 1, 500, 1_000, 2_000, 4_000, 8_000, 1e9, math.inf):
        result, found = gradients(
            divide_conquer, parameters, towers, batches, InfoNCE(), chunk=3, seed=1, budget=budget
        )
        assert result.kept_bytes <= budget
        results.append((result.kept, found))
    assert [kept for kept, _ in results] == sorted(kept for kept, _ in results)
    assert (results[0][0], results[-2][0], results[-1][0]) == (1, 10, 10)
    assert len({kept for kept, _ in results}) >= 4
    for _, found in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found, results[0][1], strict=True))


@pytest.mark.parametrize("budget", [0, math.inf])
def test_how_often_a_tower_is_called(budget: float) -> None:
    tower, frozen, calls = make_tower(), make_tower(3).requires_grad_(False), []
    tower.register_forward_hook(lambda *_: calls.append("tower"))
    frozen.register_forward_hook(lambda *_: calls.append("frozen"))
    result = divide_conquer([tower, frozen], [numbers(10, 6)] * 2, InfoNCE(), chunk=4, seed=0, budget=budget)
    assert calls.count("frozen") == 3
    assert calls.count("tower") == (5 if budget == 0 else 3)
    assert (result.chunks, result.kept) == (3, 1 if budget == 0 else 3)


def test_a_frozen_tower_in_a_function_is_found_out() -> None:
    tower, frozen, calls = make_tower(), make_tower(3).requires_grad_(False), []
    frozen.register_forward_hook(lambda *_: calls.append("frozen"))
    divide_conquer([tower, lambda x: frozen(x)], [numbers(10, 6)] * 2, InfoNCE(), chunk=2, seed=0)
    assert calls.count("frozen") == 5


def test_gradients_accumulate_and_scale() -> None:
    towers, parameters = two_towers()
    batches = [numbers(7, 6), numbers(7, 4)]
    _, once = gradients(divide_conquer, parameters, towers, batches, InfoNCE(), chunk=3, seed=1)
    _, scaled = gradients(divide_conquer, parameters, towers, batches, InfoNCE(), chunk=3, seed=1, scale=1024.0)
    assert all(torch.equal(a * 1024, b) for a, b in zip(once, scaled, strict=True))

    def halves(*args: object, **kwargs: object) -> object:
        divide_conquer(*args, seed=1, scale=0.5, **kwargs)
        return divide_conquer(*args, seed=2, scale=0.5, **kwargs)

    _, accumulated = gradients(halves, parameters, towers, batches, InfoNCE(), chunk=3)
    _, other = gradients(divide_conquer, parameters, towers, batches, InfoNCE(), chunk=3, seed=2)
    mean = [(a + b) / 2 for a, b in zip(once, other, strict=True)]
    assert gradient_error(accumulated, mean) <= 1e-14


def test_the_loss_is_not_scaled_in_the_report() -> None:
    towers, _ = two_towers()
    batches = [numbers(7, 6), numbers(7, 4)]
    losses = {divide_conquer(towers, batches, InfoNCE(), chunk=3, seed=1, scale=s).loss for s in (1.0, 0.1)}
    assert len(losses) == 1


def test_what_the_objective_trains_is_trained() -> None:
    towers, parameters = two_towers()
    batches = [numbers(7, 6), numbers(7, 4)]
    temperature = nn.Parameter(torch.tensor(0.2, dtype=torch.float64))
    trained = [*parameters, temperature]
    _, found = gradients(divide_conquer, trained, towers, batches, InfoNCE(temperature), chunk=3, seed=1)
    _, wanted = gradients(
        direct, trained, towers, batches, lambda a, b: plain_info_nce(a, b, temperature), chunk=3, seed=1
    )
    assert found[-1] is not None
    assert float(found[-1].abs()) > 0
    assert gradient_error(found, wanted) <= 1e-12


def test_an_objective_of_ones_own_over_one_tower() -> None:
    tower = make_tower()

    def uniformity(z: Tensor) -> Tensor:
        return torch.pdist(z).square().mul(-2).exp().mean().log()

    assert gradcheck([tower], [numbers(9, 6)], uniformity, chunk=4) <= 1e-12


def test_an_objective_with_dropout_of_its_own() -> None:
    tower = make_tower()

    def noisy(a: Tensor, b: Tensor) -> Tensor:
        return plain_info_nce(functional.dropout(a, 0.3), b)

    assert gradcheck([tower, tower], [numbers(9, 6)] * 2, noisy, chunk=4) <= 1e-12


def test_three_optimiser_steps_stay_together() -> None:
    runs = []
    for run in (direct, divide_conquer):
        towers, parameters = two_towers()
        optimiser = torch.optim.AdamW(parameters, lr=1e-2)
        for step in range(3):
            optimiser.zero_grad()
            run(towers, [numbers(9, 6, seed=step), numbers(9, 4, seed=step)], InfoNCE(), chunk=4, seed=step)
            optimiser.step()
        runs.append(parameters)
    for a, b in zip(*runs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-11)


def test_random_state_belongs_to_the_chunk() -> None:
    seeds = {chunk_seed(s, t, k) for s in range(20) for t in (-1, 0, 1) for k in range(200)}
    assert len(seeds) == 20 * 3 * 200
    assert len({seed % 2**32 for seed in seeds}) > 0.999 * len(seeds)
    tower = make_tower(dropout=0.5)
    batch = numbers(8, 6)
    (once,) = divide_conquer([tower], [batch], lambda z: z.sum(), chunk=4, seed=1).representations
    torch.rand(3)
    (again,) = divide_conquer([tower], [batch], lambda z: z.sum(), chunk=4, seed=1).representations
    (other,) = divide_conquer([tower], [batch], lambda z: z.sum(), chunk=4, seed=2).representations
    first, second = divide_conquer([tower] * 2, [batch] * 2, lambda a, b: a.sum(), chunk=4, seed=1).representations
    assert torch.equal(once, again)
    assert torch.equal(once, first)
    assert not torch.equal(once, other)
    assert not torch.equal(first, second)
    # Rows 0 to 3 and 4 to 7 are other chunks, so equal cells have other dropout there.
    (twice,) = divide_conquer([tower], [torch.cat([batch[:4]] * 2)], lambda z: z.sum(), chunk=4, seed=1).representations
    assert not torch.equal(twice[:4], twice[4:])


def test_torchs_random_state_is_given_back() -> None:
    tower = make_tower()
    before = torch.get_rng_state()
    divide_conquer([tower], [numbers(5, 6)], lambda z: z.sum(), chunk=2, seed=1)
    with pytest.raises(ZeroDivisionError):
        divide_conquer([tower], [numbers(5, 6)], lambda z: 1 / 0, chunk=2, seed=1)
    assert torch.equal(before, torch.get_rng_state())
    divide_conquer([tower], [numbers(5, 6)], lambda z: z.sum(), chunk=2)
    assert not torch.equal(before, torch.get_rng_state())


def test_both_have_one_signature() -> None:
    assert inspect.signature(direct) == inspect.signature(divide_conquer)
    assert len(inspect.signature(direct).parameters) <= 12


Pair = namedtuple("Pair", "values labels")


@dataclass(frozen=True)
class Padded:
    """A batch as a dataclass, with a setting beside the rows."""

    values: Tensor
    scale: float = 2.0


class Bag:
    """A batch that only its own function can split."""

    def __init__(self, rows: list[Tensor]) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)


VALUES = numbers(7, 6)
FORMS = {
    "tensor": (VALUES, lambda x: x, None),
    "mapping": ({"values": VALUES, "note": "x", "none": None}, lambda x: x["values"], None),
    "tuple": ((VALUES, torch.arange(7)), lambda x: x[0], None),
    "named tuple": (Pair(VALUES, torch.arange(7)), lambda x: x.values, None),
    "dataclass": (Padded(VALUES * 2), lambda x: x.values / x.scale, None),
    "list": (list(VALUES), torch.stack, None),
    "one's own": (Bag(list(VALUES)), torch.stack, lambda bag, start, stop: bag.rows[start:stop]),
}


@pytest.mark.parametrize("form", FORMS)
def test_a_batch_has_any_form(form: str) -> None:
    tower = make_tower()
    batch, read, split = FORMS[form]
    parameters = list(tower.parameters())
    _, wanted = gradients(divide_conquer, parameters, [tower], [VALUES], lambda z: z.prod(1).sum(), chunk=3, seed=1)
    _, found = gradients(
        divide_conquer,
        parameters,
        [lambda x: tower(read(x))],
        [batch],
        lambda z: z.prod(1).sum(),
        chunk=3,
        seed=1,
        split=split,
    )
    assert gradient_error(found, wanted) <= 1e-15


@given(st.integers(1, 30), st.integers(1, 31), st.integers(0, 5))
def test_chunks_cover_the_rows_once(rows: int, size: int, first: int) -> None:
    chunks = divide(0, rows, size, first)
    batch = torch.arange(rows)
    assert torch.equal(torch.cat([take(batch, c.start, c.stop) for c in chunks]), batch)
    assert [c.number for c in chunks] == list(range(first, first + len(chunks)))
    assert rows_of((batch, [0] * rows)) == rows


def test_float32_and_bf16_are_as_close_as_their_rounding() -> None:
    towers, parameters = two_towers(dropout=0.0)
    batches = [numbers(24, 6), numbers(24, 4)]
    _, true = gradients(direct, parameters, towers, batches, plain_info_nce, chunk=5, seed=1)
    for tower in towers:
        tower.float()
    batches = [batch.float() for batch in batches]
    step = {"chunk": 5, "seed": 1}
    _, single = gradients(divide_conquer, parameters, towers, batches, InfoNCE(), **step)
    assert gradient_error(single, true) <= 1e-4
    result, half = gradients(divide_conquer, parameters, towers, batches, InfoNCE(), autocast=torch.bfloat16, **step)
    _, plain = gradients(direct, parameters, towers, batches, plain_info_nce, autocast=torch.bfloat16, **step)
    assert all(z.dtype == torch.float32 for z in result.representations)
    assert all(g.dtype == torch.float32 for g in half)
    assert gradient_error(half, plain) <= 1e-6
    assert 1e-4 < gradient_error(plain, true) < 0.1


def test_the_engine_loads_nothing_else_of_the_package() -> None:
    code = (
        "import sys, cellingua.engine; heavy = {'anndata', 'pandas', 'scipy', 'matplotlib', 'sklearn'}; "
        "rooms = {n.split('.')[1] for n in sys.modules if n.startswith('cellingua.')}; "
        "print(sorted(heavy & {n.split('.')[0] for n in sys.modules}), sorted(rooms - {'core', 'engine'}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[] []"
