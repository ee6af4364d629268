"""Checkpoints of others: what is tolerated, what is refused, and a text tower against torch's own layers."""

from __future__ import annotations

import json
import pickle
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from cellingua.core.errors import ModelError
from cellingua.models.convert import load_text_tower, read_tensors, their_name
from cellingua.models.convert_langcell import load_released
from cellingua.models.text_sources import load_text_source
from cellingua.nn.batch import CellStates

BERT = {
    "vocab_size": 14,
    "num_hidden_layers": 2,
    "hidden_size": 16,
    "num_attention_heads": 4,
    "intermediate_size": 24,
    "max_position_embeddings": 12,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-6,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}


@pytest.fixture
def checkpoint(shared: Path, tmp_path: Path) -> Path:
    """A copy of the released-format checkpoint that may be changed."""
    folder = tmp_path / "ckpt"
    for path in (shared / "data" / "parity" / "langcell_tiny" / "ckpt").rglob("*.*"):
        target = folder / path.relative_to(shared / "data" / "parity" / "langcell_tiny" / "ckpt")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    return folder


def torch_layer() -> nn.TransformerEncoderLayer:
    layer = nn.TransformerEncoderLayer(16, 4, 24, 0.0, "gelu", 1e-6, batch_first=True)
    for parameter in layer.parameters():
        nn.init.normal_(parameter, std=0.3)
    return layer.train()  # without dropout: takes torch's written-out path


def bert_weights(prefix: str, layers: list[nn.TransformerEncoderLayer]) -> dict[str, torch.Tensor]:
    """Return torch's layers under BERT's names, with random embeddings."""
    held = {
        "embeddings.word_embeddings.weight": torch.randn(14, 16),
        "embeddings.position_embeddings.weight": torch.randn(12, 16),
        "embeddings.token_type_embeddings.weight": torch.randn(2, 16),
        "embeddings.LayerNorm.gamma": torch.randn(16),
        "embeddings.LayerNorm.beta": torch.randn(16),
        "embeddings.position_ids": torch.arange(12)[None],
        "pooler.dense.weight": torch.randn(16, 16),
    }
    for number, layer in enumerate(layers):
        start = f"encoder.layer.{number}."
        attention = layer.self_attn
        for place, name in enumerate(("query", "key", "value")):
            part = slice(16 * place, 16 * place + 16)
            held[f"{start}attention.self.{name}.weight"] = attention.in_proj_weight[part]
            held[f"{start}attention.self.{name}.bias"] = attention.in_proj_bias[part]
        for name, theirs in {
            "attention.output.dense": attention.out_proj,
            "attention.output.LayerNorm": layer.norm1,
            "intermediate.dense": layer.linear1,
            "output.dense": layer.linear2,
            "output.LayerNorm": layer.norm2,
        }.items():
            held[f"{start}{name}.weight"], held[f"{start}{name}.bias"] = theirs.weight, theirs.bias
    held["cls.predictions.bias"] = torch.zeros(14)
    return {
        name if name.startswith("cls.") else prefix + name: tensor.detach().contiguous()
        for name, tensor in held.items()
    }


@pytest.mark.parametrize("prefix", ["", "bert."])
def test_a_bert_equals_torchs_own_layers(tmp_path: Path, prefix: str) -> None:
    torch.manual_seed(0)
    layers = [torch_layer(), torch_layer()]
    weights = bert_weights(prefix, layers)
    (tmp_path / "config.json").write_text(json.dumps(BERT), encoding="utf-8")
    save_file(weights, tmp_path / "model.safetensors")
    tower = load_text_tower(tmp_path, pooling="mean", unit_length=True)
    mask = torch.arange(7)[None, :] < torch.tensor([7, 3])[:, None]
    ids = torch.randint(0, 14, (2, 7))
    plain = {name.removeprefix(prefix): tensor for name, tensor in weights.items()}
    with torch.no_grad():
        states = (
            plain["embeddings.word_embeddings.weight"][ids]
            + plain["embeddings.position_embeddings.weight"][:7]
            + plain["embeddings.token_type_embeddings.weight"][0]
        )
        norm = plain["embeddings.LayerNorm.gamma"], plain["embeddings.LayerNorm.beta"]
        states = nn.functional.layer_norm(states, (16,), *norm, eps=1e-6)
        for layer in layers:
            states = layer(states, src_key_padding_mask=~mask)
        found = tower(ids, mask)
    torch.testing.assert_close(found.hidden[mask], states[mask], atol=1e-5, rtol=1e-5)
    for place in range(2):
        mean = states[place][mask[place]].mean(dim=0)
        torch.testing.assert_close(found.pooled[place], mean / mean.norm(), atol=1e-5, rtol=0)


@torch.no_grad()
def test_fresh_cross_attention_starts_as_the_plain_encoder(tmp_path: Path) -> None:
    torch.manual_seed(0)
    (tmp_path / "config.json").write_text(json.dumps(BERT), encoding="utf-8")
    weights = bert_weights("", [torch_layer(), torch_layer()])
    for number in range(2):  # with a LayerNorm of its own in between, the start is the plain one if norms are plain
        weights[f"encoder.layer.{number}.attention.output.LayerNorm.weight"] = torch.ones(16)
        weights[f"encoder.layer.{number}.attention.output.LayerNorm.bias"] = torch.zeros(16)
    torch.save(weights, tmp_path / "pytorch_model.bin")
    tower = load_text_tower(tmp_path, encoder_width=6)
    ids, mask, hidden = torch.randint(0, 14, (2, 5)), torch.ones(2, 5, dtype=torch.bool), torch.randn(2, 3, 6)
    with_cell = tower(ids, mask, CellStates(hidden[:, 0], hidden)).pooled
    torch.testing.assert_close(with_cell, tower(ids, mask).pooled, atol=1e-4, rtol=1e-4)


def test_released_files_may_be_either_kind(checkpoint: Path) -> None:
    before = load_released(checkpoint).state_dict()
    cell = torch.load(checkpoint / "cell_bert" / "pytorch_model.bin", weights_only=True)
    (checkpoint / "cell_bert" / "pytorch_model.bin").unlink()
    cell["pooler.dense.weight"] = torch.zeros(16, 16)
    cell["cls.predictions.decoder.weight"] = torch.zeros(3, 16)
    save_file({f"bert.{name}": tensor for name, tensor in cell.items()}, checkpoint / "cell_bert" / "model.safetensors")
    text = load_file(checkpoint / "text_bert" / "model.safetensors")
    (checkpoint / "text_bert" / "model.safetensors").unlink()
    kept = {name: tensor for name, tensor in text.items() if not name.startswith("pooler")}
    torch.save(kept, checkpoint / "text_bert" / "pytorch_model.bin")
    after = load_released(checkpoint).state_dict()
    assert before.keys() == after.keys()
    for name in before:
        torch.testing.assert_close(after[name], before[name], atol=0, rtol=0)


def test_released_missing_unknown_and_misshapen_weights(checkpoint: Path) -> None:
    path = checkpoint / "text_bert" / "model.safetensors"
    whole = load_file(path)
    name = "encoder.layer.2.crossattention.self.key.weight"
    cases = {
        rf"lacks the weight '{name}'": {k: v for k, v in whole.items() if k != name},
        r"shape \(32, 8\)": {**whole, name: torch.zeros(32, 8)},
        "unknown weight 'encoder.layer.3.more'": {**whole, "encoder.layer.3.more": torch.zeros(1)},
        "not finite": {**whole, name: torch.full((32, 16), torch.inf)},
    }
    for message, tensors in cases.items():
        save_file(tensors, path)
        with pytest.raises(ModelError, match=message):
            load_released(checkpoint)


def test_released_config_is_needed(checkpoint: Path) -> None:
    path = checkpoint / "cell_bert" / "config.json"
    held = json.loads(path.read_text(encoding="utf-8"))
    for change, message in (
        ({"position_embedding_type": "relative_key"}, "relative_key"),
        ({"hidden_act": "swish"}, "swish"),
        ({"vocab_size": 100}, "shape"),
    ):
        path.write_text(json.dumps({**held, **change}), encoding="utf-8")
        with pytest.raises(ModelError, match=message):
            load_released(checkpoint)
    path.write_text("{}", encoding="utf-8")
    with pytest.raises(ModelError, match="lacks vocab_size"):
        load_released(checkpoint)
    path.unlink()
    with pytest.raises(ModelError, match=r"config\.json is missing"):
        load_released(checkpoint)


class Trap:
    """Would run code if unpickled."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (exec, ("raise SystemExit('code ran')",))


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut", pickle.dumps(Trap()), pickle.dumps([1, 2])])
@pytest.mark.parametrize("name", ["w.bin", "w.safetensors"])
def test_damaged_or_malicious_weights(tmp_path: Path, content: bytes, name: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ModelError, match="w\\."):
        read_tensors(tmp_path / name)


def test_a_torch_file_of_other_things(tmp_path: Path) -> None:
    torch.save({"a": 1}, tmp_path / "w.bin")
    with pytest.raises(ModelError, match="not a table of tensors"):
        read_tensors(tmp_path / "w.bin")
    torch.save({"a": Trap()}, tmp_path / "w.bin")
    with pytest.raises(ModelError, match="can't be read"):
        read_tensors(tmp_path / "w.bin")


def test_names() -> None:
    assert their_name("layers.11.cross_norm.bias") == "encoder.layer.11.crossattention.output.LayerNorm.bias"
    assert their_name("segment.weight") == "embeddings.token_type_embeddings.weight"


def test_a_hub_name_without_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ModelError, match="not a folder here"):
        load_text_source("owner/model")


def test_a_local_bert_folder_is_a_text_source(tmp_path: Path) -> None:
    torch.manual_seed(0)
    (tmp_path / "config.json").write_text(json.dumps(BERT), encoding="utf-8")
    save_file(bert_weights("", [torch_layer(), torch_layer()]), tmp_path / "model.safetensors")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "cell", "b"]
    (tmp_path / "vocab.txt").write_text("\n".join(words), encoding="utf-8")
    tower, pieces = load_text_source(tmp_path)
    ids, mask = pieces.encode(["B cell", "b"])
    np.testing.assert_array_equal(ids, [[2, 6, 5, 3], [2, 6, 3, 0]])
    assert tower(torch.from_numpy(ids), torch.from_numpy(mask)).pooled.shape == (2, 16)
