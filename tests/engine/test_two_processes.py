"""Two processes have the gradients of one at the same global batch: no factor, uneven parts, one reduction."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import two_processes

from cellingua.engine import gradient_error, reduce_gradients


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What two processes found."""
    return two_processes.run(tmp_path_factory.mktemp("processes"))


@pytest.fixture(scope="module")
def alone() -> dict[str, Any]:
    """What one process finds on the whole batch."""
    return two_processes.World().steps(0, 1)


STEPS = [f"{kind} {run} {b}" for kind in ("views", "pair") for run in ("direct", "divide_conquer") for b in (0, "inf")]


@pytest.mark.parametrize("step", STEPS)
def test_gradients_are_those_of_one_process(found: list[dict[str, Any]], alone: dict[str, Any], step: str) -> None:
    kind = step.split()[0]
    wanted, loss = alone[f"{kind} direct 0"]
    for process in found:
        assert gradient_error(process[step][0], wanted) <= 1e-12
        assert float(process[step][1]) == pytest.approx(float(loss), rel=1e-12)
    for a, b in zip(found[0][step][0], found[1][step][0], strict=True):
        assert (a is None and b is None) or torch.equal(a, b)


def test_the_factor_of_a_mean_over_processes_would_be_seen(found: list[dict[str, Any]], alone: dict[str, Any]) -> None:
    wanted = alone["views direct 0"][0]
    halved = [None if g is None else g / 2 for g in found[0]["views divide_conquer 0"][0]]
    assert gradient_error(halved, wanted) > 0.1


@pytest.mark.parametrize("how", ["each", "once"])
def test_accumulated_steps_are_reduced_once(found: list[dict[str, Any]], how: str) -> None:
    wanted = two_processes.World().accumulated(0, 1, "each")
    for process in found:
        assert gradient_error(process[f"accumulated {how}"][0], wanted) <= 1e-12


def test_a_problem_of_one_process_stops_both(found: list[dict[str, Any]]) -> None:
    first, second = (process["errors"][0] for process in found)
    assert "Another process stopped this step" in first
    assert "differently the second time" in second
    assert first.endswith("kept: True")
    assert second.endswith("kept: True")


def test_parameters_that_are_not_seen_are_told(found: list[dict[str, Any]]) -> None:
    for process in found:
        assert "trainable tensors of a tower are not known" in process["errors"][1]
        assert process["errors"][2] == "fine"


def test_both_draw_one_seed(found: list[dict[str, Any]]) -> None:
    assert found[0]["seed"] == found[1]["seed"]


def test_one_process_has_nothing_to_reduce() -> None:
    parameter = torch.nn.Parameter(torch.ones(2))
    parameter.grad = torch.ones(2)
    reduce_gradients([parameter])
    assert torch.equal(parameter.grad, torch.ones(2))
