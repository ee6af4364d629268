"""Rows of int8 with a scale."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from cellingua.models.storage import SHORTEST_ROW, pack, quantise, unpack

rows = arrays(np.float32, (3, 40), elements=st.floats(-50, 50, width=32))
SMALLEST = 2.0**-24  # the smallest float16, by which a tiny scale may be off


@settings(deadline=None)
@given(rows, st.sampled_from([1e-7, 0.01, 1.0, 1000.0]))
def test_error_is_half_a_step(values: np.ndarray, size: float) -> None:
    matrix = torch.from_numpy(values * np.float32(size))
    codes, scale = quantise(matrix)
    step, largest = scale.float(), matrix.abs().amax(dim=1)
    assert bool(((codes.float() * step[:, None] - matrix).abs() <= step[:, None] * 0.5001).all())
    assert bool((step <= torch.where(largest > 0, largest / 127 * 1.001 + SMALLEST, 1.0)).all())


def test_rows_of_zeros_and_tiny_rows_are_safe() -> None:
    matrix = torch.stack([torch.zeros(40), torch.full((40,), 1e-9)])
    codes, scale = quantise(matrix)
    assert not codes.any()
    assert bool((scale > 0).all())


def test_each_row_has_its_own_scale() -> None:
    torch.manual_seed(0)
    matrix = torch.randn(4, 64) * torch.tensor([1e-3, 1.0, 100.0, 1e4])[:, None]
    codes, scale = quantise(matrix)
    error = (codes.float() * scale.float()[:, None] - matrix).norm(dim=1) / matrix.norm(dim=1)
    assert bool((error < 0.012).all())


def test_only_wide_matrices_become_int8(tmp_path: Path) -> None:
    tensors = {
        "wide": torch.randn(3, SHORTEST_ROW),
        "thin": torch.randn(9, SHORTEST_ROW - 1),
        "bias": torch.ones(4),
    }
    (tmp_path / "w.safetensors").write_bytes(pack(tensors, "int8"))
    back = unpack(tmp_path / "w.safetensors")
    assert back.keys() == tensors.keys()
    assert all(tensor.dtype == torch.float32 for tensor in back.values())
    for name in ("thin", "bias"):
        torch.testing.assert_close(back[name], tensors[name].half().float(), atol=0, rtol=0)
    assert not torch.equal(back["wide"], tensors["wide"].half().float())


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="'big'"):
        pack({"big": torch.tensor([1e6])}, "float16")
    with pytest.raises(ValueError, match="'big'"):
        pack({"big": torch.full((1, 40), 1e8)}, "int8")
    with pytest.raises(ValueError, match="storage"):
        pack({}, "int4")
