"""Released CellLM and scBERT checkpoints, from every file format, against what the released code made of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from binned_values import bin_normalised
from safetensors.torch import load_file, save_file
from scipy.sparse import csr_matrix

from cellingua.cells.binned import BinnedCells, bin_cells
from cellingua.models.cellm import CellLMModule
from cellingua.models.convert_cellm import load_annotation_head, load_cellm_checkpoint
from cellingua.nn.favor import FavorAttention
from cellingua.nn.gene_head import GeneScores

FILES = ["checkpoint.pt", "checkpoint_wrapped.pt", "checkpoint.safetensors"]
TOLERANCE, KEY_TOLERANCE = 1e-5, 2e-5


@pytest.fixture
def cellm(shared: Path) -> Path:
    """The CellLM fixture."""
    return shared / "data" / "parity" / "cellm_tiny"


@pytest.fixture
def scbert(shared: Path) -> Path:
    """The scBERT fixture."""
    return shared / "data" / "parity" / "scbert_tiny"


def binned(folder: Path, module: CellLMModule, part: str = "counts") -> BinnedCells:
    held = np.load(folder / "inputs.npz")
    matrix = csr_matrix((held[f"{part}_data"], held[f"{part}_indices"], held[f"{part}_indptr"]), tuple(held["shape"]))
    if part == "norm":
        return bin_normalised(matrix, module.config.bins)
    return bin_cells(matrix, None, module.config.bins)


def assert_near(found: torch.Tensor, expected: np.ndarray, tolerance: float = TOLERANCE) -> None:
    assert found.shape == expected.shape
    np.testing.assert_allclose(found.numpy(), expected, atol=tolerance, rtol=0)


def load(folder: Path, name: str = "checkpoint.pt", **settings: object) -> CellLMModule:
    return load_cellm_checkpoint(folder / name, length=64, **settings)  # type: ignore[arg-type]


@torch.no_grad()
@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("plain", [False, True])
def test_cellm_in_one_batch(cellm: Path, name: str, plain: bool) -> None:
    module, expected = load(cellm, name), np.load(cellm / "encoder_batch12.npz")
    performer = module.performer.use_plain(plain)
    assert performer.gene.weight.dtype == torch.float64
    batch = performer.batch(binned(cellm, module))
    states = performer(batch)
    assert_near(performer.embed(batch), expected["embed"])
    assert_near(states.hidden, expected["encodings"])
    assert_near(states.cls, expected["cls"])
    assert_near(performer.logits(states.hidden), expected["logits"])


@torch.no_grad()
def test_cellm_layer_by_layer(cellm: Path) -> None:
    module, expected = load(cellm), np.load(cellm / "encoder_batch12.npz")
    performer = module.performer
    attention, ff = [], []
    for layer in performer.layers:
        layer.attention.register_forward_hook(lambda _, __, out: attention.append(out))
        layer.narrow.register_forward_hook(lambda _, __, out: ff.append(out))
    performer(performer.batch(binned(cellm, module)))
    # The rectangle is full (one cell is cut to 64), so that only the spare rows of shorter cells differ in meaning.
    assert_near(torch.stack([x[:, :64] for x in attention]), expected["attn_out"])
    assert_near(torch.stack([x[:, :64] for x in ff]), expected["ff_out"])


@torch.no_grad()
def test_cellm_key_maximum(cellm: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module, expected = load(cellm), np.load(cellm / "encoder_batch12.npz")
    found: list[float] = []
    real = FavorAttention.forward

    def watch(self: FavorAttention, states: torch.Tensor, *rest: object, **more: object) -> torch.Tensor:
        key = self._split(self.key(states)) * states.new_tensor(self.features.shape[1] ** -0.25)
        dash = key @ self.features.T
        weight = more["weight"]
        assert isinstance(weight, torch.Tensor)
        found.append(float(dash.masked_fill(weight[:, None, :, None] == 0, -torch.inf).max()))
        return real(self, states, *rest, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(FavorAttention, "forward", watch)
    module.performer(module.performer.batch(binned(cellm, module)))
    np.testing.assert_allclose(found, expected["key_max"], atol=KEY_TOLERANCE, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("plain", [False, True])
def test_cellm_in_other_company(cellm: Path, plain: bool) -> None:
    module = load(cellm)
    performer, cells = module.performer.use_plain(plain), binned(cellm, module, "norm")
    halves = np.load(cellm / "encoder_halves.npz")
    for rows in (np.arange(6), np.arange(6, 12)):
        states = performer(performer.batch(cells.take(rows)))
        long = states.hidden.shape[1]
        assert_near(states.hidden, halves["encodings"][rows, :long])
        assert not halves["encodings"][rows, long:].any()
        assert_near(states.cls, halves["cls"][rows])
    single = np.load(cellm / "encoder_single.npz")
    for row in range(12):
        states = performer(performer.batch(cells.take(np.array([row]))))
        long = states.hidden.shape[1]
        assert_near(states.hidden[0], single["encodings"][row, :long])
        assert_near(states.cls[0], single["cls"][row])
        assert_near(performer.logits(states.hidden)[0], single["logits"][row, :long])
    if not plain:
        assert_near(performer(performer.batch(cells), together=False).cls, single["cls"])


@torch.no_grad()
def test_cellm_padded_further(cellm: Path) -> None:
    module = load_cellm_checkpoint(cellm / "checkpoint.pt", length=96)
    states = module.performer(module.performer.batch(binned(cellm, module).take(np.array([0]))))
    expected = np.load(cellm / "encoder_padlen96_cell0.npz")["encodings"]
    assert_near(states.hidden[0], expected[: states.hidden.shape[1]])
    other = load(cellm).performer
    shorter = other(other.batch(binned(cellm, module).take(np.array([0])))).cls[0].numpy()
    assert np.abs(shorter - expected[0]).max() > 1e-3


@torch.no_grad()
def test_cellm_edge_cells(cellm: Path) -> None:
    module, expected = load(cellm), np.load(cellm / "encoder_edge.npz")
    cells = bin_normalised(csr_matrix(np.load(cellm / "inputs.npz")["edge_values"]), module.config.bins)
    states = module.performer(module.performer.batch(cells))
    long = states.hidden.shape[1]
    assert_near(states.hidden, expected["encodings"][:, :long])
    real = states.mask.numpy()
    assert_near(module.logits(states.hidden)[states.mask], expected["logits"][:, :long][real])


@torch.no_grad()
def test_cellm_heads(cellm: Path) -> None:
    module, expected = load(cellm), np.load(cellm / "ctc_head.npz")
    performer = module.performer
    batch = performer.batch(binned(cellm, module))
    states = performer(batch)
    head = load_annotation_head(cellm / "ctc_head.safetensors")
    scores = head.scores.score(states.hidden).squeeze(-1)
    assert_near(scores, expected["token_scores"])
    assert_near(head.scores(states.hidden, batch), expected["gene_vector"])
    assert_near(head(states.hidden, batch), expected["logits"])
    pooling = GeneScores(32, 301, rectify=False)
    weights = load_file(cellm / "drp_pooler.safetensors")
    pooling.score.load_state_dict({"weight": weights["conv.weight"].view(1, -1), "bias": weights["conv.bias"]})
    assert_near(pooling(states.hidden, batch), np.load(cellm / "drp_pooler.npz")["gene_vector"])


@torch.no_grad()
def test_the_first_releases_head_reads_slots(cellm: Path) -> None:
    module = load(cellm)
    performer = module.performer
    cells = binned(cellm, module).take(np.array([2, 0]))
    batch = performer.batch(cells)
    states = performer(batch)
    scores = GeneScores(32, 64, by_slot=True)
    found = scores(states.hidden, batch)
    bias = float(scores.score.bias.clamp(min=0))
    for row, length in enumerate(cells.lengths + 1):
        expected = scores.score(states.hidden[row, :length]).squeeze(-1).clamp(min=0)
        torch.testing.assert_close(found[row, :length], expected)
        np.testing.assert_allclose(found[row, length:].numpy(), bias)
    with pytest.raises(ValueError, match="8 slots"):
        GeneScores(32, 8, by_slot=True)(states.hidden, batch)


@torch.no_grad()
@pytest.mark.parametrize("name", FILES)
def test_scbert(scbert: Path, name: str) -> None:
    module = load_cellm_checkpoint(scbert / name, "scbert")
    performer, expected = module.performer, np.load(scbert / "outputs.npz")
    for part in ("counts", "norm"):
        batch = performer.batch(binned(scbert, module, part))
        np.testing.assert_array_equal(batch.tokens.numpy(), expected["tokens"])
    states = performer(batch)
    assert_near(states.hidden, expected["encodings_batch8"])
    assert_near(performer.logits(states.hidden), expected["logits_batch8"])
    assert_near(performer(batch, together=False).hidden, expected["encodings_single"])
    alone = [performer(performer.batch(binned(scbert, module).take(np.array([i])))).hidden for i in range(8)]
    assert_near(torch.cat(alone), expected["encodings_single"])
    head = load_annotation_head(scbert / "ctc_head.safetensors")
    assert_near(head(states.hidden, batch), expected["class_logits"])


@torch.no_grad()
def test_scberts_own_fine_tuned_file(scbert: Path, tmp_path: Path) -> None:
    names = {
        "conv": "to_out.conv1",
        "pred_head.1": "to_out.fc1",
        "pred_head.4": "to_out.fc2",
        "pred_head.7": "to_out.fc3",
    }
    weights = load_file(scbert / "checkpoint.safetensors")
    fine = {name: tensor for name, tensor in weights.items() if not name.startswith("to_out.")}
    for name, tensor in load_file(scbert / "ctc_head.safetensors").items():
        stem, _, kind = name.rpartition(".")
        fine[f"{names[stem]}.{kind}"] = tensor
    torch.save({"epoch": 3, "model_state_dict": {f"module.{k}": v for k, v in fine.items()}}, tmp_path / "fine.pth")
    module = load_cellm_checkpoint(tmp_path / "fine.pth", "scbert")
    assert module.performer.to_logits is None
    batch = module.performer.batch(binned(scbert, module))
    found = load_annotation_head(tmp_path / "fine.pth")(module.performer(batch).hidden, batch)
    assert_near(found, np.load(scbert / "outputs.npz")["class_logits"])


@torch.no_grad()
def test_a_float32_gene_table_and_a_prefix(cellm: Path, tmp_path: Path) -> None:
    weights = load_file(cellm / "checkpoint.safetensors")
    weights["pos_emb.emb.weight"] = weights["pos_emb.emb.weight"].float()
    save_file({f"module.{name}": tensor for name, tensor in weights.items()}, tmp_path / "ckpt.safetensors")
    module = load_cellm_checkpoint(tmp_path / "ckpt.safetensors", length=64)
    assert module.performer.gene.weight.dtype == torch.float32
    states = module.performer(module.performer.batch(binned(cellm, module)))
    assert_near(states.hidden, np.load(cellm / "encoder_batch12.npz")["encodings"])


@torch.no_grad()
def test_favor_on_released_weights_is_another_model(cellm: Path) -> None:
    module = load(cellm, attention="favor")
    states = module.performer(module.performer.batch(binned(cellm, module)))
    expected = np.load(cellm / "encoder_batch12.npz")["cls"]
    assert np.abs(states.cls.numpy() - expected).max() > 0.1
