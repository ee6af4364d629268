"""FAVOR+: against its formula written out, its released variant, finite differences, and softmax attention."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from cellingua.nn.attention import Attention, attend_plain
from cellingua.nn.favor import EPS, FavorAttention, attend_favor, attend_padded, draw_features


def random_heads(cells: int, heads: int, rows: int, width: int, scale: float = 1.0) -> list[Tensor]:
    return [scale * torch.randn(cells, heads, rows, width, dtype=torch.float64) for _ in range(3)]


def written_out(query: Tensor, key: Tensor, value: Tensor, mask: Tensor, features: Tensor) -> Tensor:
    """Return attention with padding left out and a maximum per cell, one cell and one head at a time."""
    out = torch.zeros_like(query)
    scale, ratio = query.shape[-1] ** -0.25, len(features) ** -0.5
    for cell in range(len(query)):
        q, k, v = (x[cell][:, mask[cell]] for x in (query, key, value))
        dash = scale * k @ features.T
        phi_k = ratio * (torch.exp(dash - scale**2 * (k**2).sum(-1, keepdim=True) / 2 - dash.max()) + EPS)
        for head in range(query.shape[1]):
            for row in range(query.shape[2]):
                x = query[cell, head, row]
                dash = scale * features @ x
                phi_q = ratio * (torch.exp(dash - scale**2 * (x @ x) / 2 - dash.max()) + EPS)
                shares = phi_k[head] @ phi_q
                out[cell, head, row] = shares @ v[head] / shares.sum()
        del q
    return out


@pytest.fixture
def mask() -> Tensor:
    return torch.arange(9)[None, :] < torch.tensor([9, 4, 1])[:, None]


@pytest.mark.parametrize("scale", [0.3, 4.0])
def test_favor_equals_its_formula(mask: Tensor, scale: float) -> None:
    torch.manual_seed(0)
    query, key, value = random_heads(3, 2, 9, 8, scale)
    features = draw_features(20, 8).double()
    expected = written_out(query, key, value, mask, features)
    before = [x.clone() for x in (query, key, value)]
    found = attend_favor(query, key, value, mask, features)
    real = mask[:, None, :, None].expand_as(found)
    torch.testing.assert_close(found[real], expected[real], atol=1e-12, rtol=1e-9)
    for after, was in zip((query, key, value), before, strict=True):
        torch.testing.assert_close(after, was, atol=0, rtol=0)
    everything = torch.ones(3, 9, dtype=torch.bool)
    expected = written_out(query, key, value, everything, features)
    for all_seen in (None, everything):
        torch.testing.assert_close(attend_favor(query, key, value, all_seen, features), expected, atol=1e-12, rtol=1e-9)


@pytest.mark.parametrize("scale", [0.3, 4.0])
def test_one_weighted_row_stands_for_equal_padding_rows(mask: Tensor, scale: float) -> None:
    torch.manual_seed(1)
    query, key, value = random_heads(3, 2, 9, 8, scale)
    features = draw_features(20, 8).double()
    padded = []
    for heads in (query, key, value):
        spare = scale * torch.randn(1, 2, 1, 8, dtype=torch.float64)  # one and the same padding row for every cell
        whole = torch.cat([heads, spare.expand(3, -1, 16, -1)], dim=2)
        whole = torch.where(torch.cat([mask, mask.new_zeros(3, 16)], 1)[:, None, :, None], whole, spare)
        padded.append(whole)
    long = torch.cat([mask, mask.new_zeros(3, 16)], dim=1)
    expected = attend_padded(*padded, long, features)
    short = long[:, :10]
    weight = short.double()
    lengths = mask.sum(1)
    weight[torch.arange(3), lengths] = (25 - lengths).double()
    found = attend_favor(*(x[:, :, :10] for x in padded), short, features, weight, together=True)
    torch.testing.assert_close(found, expected[:, :, :10], atol=1e-12, rtol=1e-9)


@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize("padding", ["none", "left out", "weighted"])
def test_gradients_are_those_of_finite_differences(mask: Tensor, together: bool, padding: str) -> None:
    torch.manual_seed(2)
    query, key, value = (x[:, :, :5].requires_grad_() for x in random_heads(3, 2, 9, 4, 1.5))
    features = draw_features(7, 4).double()
    seen = None if padding == "none" else mask[:, :5]
    weight = None
    if padding == "weighted":
        weight = mask[:, :5].double()
        weight[2, 1] = 6.0
    assert torch.autograd.gradcheck(
        lambda q, k, v: attend_favor(q, k, v, seen, features, weight, together), (query, key, value), atol=1e-6
    )


def test_gradients_of_the_shortcut_are_those_of_the_formula() -> None:
    torch.manual_seed(3)
    features = draw_features(11, 4).double()
    mask = torch.ones(2, 6, dtype=torch.bool)
    inputs = random_heads(2, 3, 6, 4)
    grads = []
    for kernel in (
        lambda q, k, v: attend_favor(q, k, v, mask, features, together=True),
        lambda q, k, v: attend_padded(q, k, v, mask, features),
    ):
        leaves = [x.clone().requires_grad_() for x in inputs]
        weights = torch.linspace(-1, 1, 2 * 3 * 6 * 4, dtype=torch.float64).view(2, 3, 6, 4)
        (kernel(*leaves) * weights).sum().backward()
        grads.append([leaf.grad for leaf in leaves])
    for ours, theirs in zip(*grads, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-12, rtol=1e-9)


def test_features_are_orthogonal_blocks_of_random_lengths() -> None:
    rows = draw_features(266, 64, torch.Generator().manual_seed(0))
    assert rows.shape == (266, 64)
    assert rows.dtype == torch.float32
    for start in range(0, 266, 64):
        block = torch.nn.functional.normalize(rows[start : start + 64], dim=1)
        torch.testing.assert_close(block @ block.T, torch.eye(len(block)), atol=1e-5, rtol=0)
    lengths = rows.norm(dim=1)
    assert 7.5 < float(lengths.mean()) < 8.5  # of a vector of 64 standard normals
    assert 0.4 < float(lengths.std()) < 1.0
    again = draw_features(266, 64, torch.Generator().manual_seed(0))
    torch.testing.assert_close(rows, again, atol=0, rtol=0)


def test_many_features_come_near_softmax() -> None:
    torch.manual_seed(4)
    query, key, value = random_heads(1, 1, 12, 8, 0.5)
    exact = attend_plain(query, key, value, None)

    def error(count: int) -> float:
        found = [attend_favor(query, key, value, None, draw_features(count, 8).double()) for _ in range(4)]
        return sum(float((one - exact).norm()) for one in found) / 4 / float(exact.norm())

    flat = float((value.mean(dim=2, keepdim=True) - exact).norm() / exact.norm())
    assert error(4096) < 0.4 * flat < flat < error(16)


def test_the_module_computes_features_in_float32_under_autocast() -> None:
    torch.manual_seed(5)
    module = FavorAttention(16, 2, 8, 20)
    states = torch.randn(2, 6, 16)
    seen: list[torch.dtype] = []
    module.output.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].dtype))
    with torch.no_grad():
        plain = module(states)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            rounded = module(states)
    assert seen == [torch.float32, torch.float32]
    assert 0 < float((plain - rounded.float()).abs().max()) < 0.02


def test_redrawing_is_explicit_and_in_place() -> None:
    torch.manual_seed(6)
    module = FavorAttention(16, 2, count=20)
    assert module.query.out_features == 16
    before, place = module.features.clone(), module.features.data_ptr()
    for _ in range(3):
        module.train()(torch.randn(1, 4, 16))
    torch.testing.assert_close(module.features, before, atol=0, rtol=0)
    module.redraw(torch.Generator().manual_seed(1))
    assert module.features.data_ptr() == place
    torch.testing.assert_close(module.features, draw_features(20, 8, torch.Generator().manual_seed(1)), atol=0, rtol=0)
    assert "features" in module.state_dict()
    assert FavorAttention(16, 2, 64).features.shape == (266, 64)


def test_one_call_for_both_kinds(mask: Tensor) -> None:
    torch.manual_seed(7)
    exact, random = Attention(16, 2, head_width=32, bias=False), FavorAttention(16, 2, 32, 4096)
    random.load_state_dict({**exact.state_dict(), "features": random.features})
    states, memory = torch.randn(3, 4, 16), torch.randn(3, 9, 16)
    assert exact.query.weight.shape == (64, 16)
    torch.testing.assert_close(exact(states, mask, memory), random(states, mask, memory), atol=0.06, rtol=0)
