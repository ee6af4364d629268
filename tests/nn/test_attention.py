"""Attention against its plain twin, and the transformer layer against torch's own."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from cellingua.nn.attention import Attention, attend, attend_plain
from cellingua.nn.transformer import EncoderLayer, LayerConfig

MASK = torch.tensor([[True] * 7, [True] * 3 + [False] * 4])


@pytest.mark.parametrize("mask", [None, MASK])
def test_fused_equals_plain(mask: torch.Tensor | None) -> None:
    torch.manual_seed(0)
    query, key, value = torch.randn(2, 3, 5, 8), torch.randn(2, 3, 7, 8), torch.randn(2, 3, 7, 8)
    torch.testing.assert_close(
        attend(query, key, value, mask), attend_plain(query, key, value, mask), atol=1e-6, rtol=0
    )


def test_plain_switch_changes_nothing() -> None:
    torch.manual_seed(0)
    layer, states = Attention(16, 4).eval(), torch.randn(2, 7, 16)
    fused = layer(states, MASK)
    layer.plain = True
    torch.testing.assert_close(layer(states, MASK), fused, atol=1e-6, rtol=0)


def test_one_memory_serves_all_queries() -> None:
    torch.manual_seed(0)
    layer = Attention(16, 4, memory_width=6).eval()
    states, memory, mask = torch.randn(5, 3, 16), torch.randn(1, 4, 6), torch.tensor([[True, True, False, True]])
    shared = layer(states, mask, memory)
    copied = layer(states, mask.expand(5, -1), memory.expand(5, -1, -1))
    torch.testing.assert_close(shared, copied, atol=1e-6, rtol=0)


def test_heads_must_divide_width() -> None:
    with pytest.raises(ValueError, match="divide"):
        Attention(10, 3)


@pytest.mark.parametrize("norm_first", [False, True])
@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_layer_equals_torch(norm_first: bool, activation: str) -> None:
    torch.manual_seed(0)
    ours = EncoderLayer(LayerConfig(16, 4, 32, activation, 1e-6, 0.0, 0.0, None, norm_first)).eval()
    theirs = nn.TransformerEncoderLayer(16, 4, 32, 0.0, activation, 1e-6, batch_first=True, norm_first=norm_first)
    for norm in (ours.attention_norm, ours.feedforward_norm):
        nn.init.normal_(norm.weight)
        nn.init.normal_(norm.bias)
    attention = ours.attention
    parts = (attention.query, attention.key, attention.value)
    theirs.load_state_dict(
        {
            "self_attn.in_proj_weight": torch.cat([part.weight for part in parts]),
            "self_attn.in_proj_bias": torch.cat([part.bias for part in parts]),
            **{f"self_attn.out_proj.{k}": v for k, v in attention.output.state_dict().items()},
            **{f"linear1.{k}": v for k, v in ours.widen.state_dict().items()},
            **{f"linear2.{k}": v for k, v in ours.narrow.state_dict().items()},
            **{f"norm1.{k}": v for k, v in ours.attention_norm.state_dict().items()},
            **{f"norm2.{k}": v for k, v in ours.feedforward_norm.state_dict().items()},
        }
    )
    # In training mode (no dropout) torch takes its written-out path, not the fused one.
    theirs.train()
    states = torch.randn(2, 7, 16)
    expected = theirs(states, src_key_padding_mask=~MASK)
    torch.testing.assert_close(ours(states, MASK)[MASK], expected[MASK], atol=2e-6, rtol=0)


def test_a_layer_without_cross_attention_refuses_a_memory() -> None:
    layer = EncoderLayer(LayerConfig(8, 2, 8))
    with pytest.raises(ValueError, match="cross-attention"):
        layer(torch.zeros(1, 2, 8), None, torch.zeros(1, 2, 8))
