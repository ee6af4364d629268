"""Converting CellLM checkpoints: what is refused and how, and what the folder does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tiny_cellm as tiny
import torch
from safetensors.torch import save_file
from torch import Tensor

from cellingua.cells.genes import load_vocabulary
from cellingua.core.errors import FileError, GeneError, InputError, ModelError
from cellingua.models.cellm import CellLMModel
from cellingua.models.convert_cellm import (
    convert_checkpoint,
    load_annotation_head,
    load_cellm_checkpoint,
    read_gene_list,
    resolve_genes,
    their_name,
)
from cellingua.models.shelf import load_any

QUERY = "performer.net.layers.1.0.fn.to_q.weight"


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    """A released-format checkpoint and its gene list: symbols, and Ensembl ids where a symbol is unclear."""
    torch.save(
        {"model_state_dict": tiny.checkpoint(tiny.module("compat", discrimination=False)), "epoch": 4},
        tmp_path / "ckpt.pth",
    )
    (tmp_path / "genes.txt").write_text("\n".join(names()) + "\n", encoding="utf-8")
    return tmp_path / "ckpt.pth", tmp_path / "genes.txt"


def names() -> list[str]:
    return load_vocabulary().ensembl_ids[tiny.vocabulary_rows()].tolist()


def test_a_converted_folder_embeds_as_the_encoder_does(files: tuple[Path, Path], tmp_path: Path) -> None:
    done = convert_checkpoint(*files, tmp_path / "out", length=tiny.LENGTH)
    assert done.genes == {"listed": 80, "found": 80, "repeated": 0, "unknown": 0}
    assert "80 of 80 genes" in done.to_text()
    loaded = load_any(tmp_path / "out")
    assert isinstance(loaded, CellLMModel)
    made = tiny.module("compat", discrimination=False)
    direct = CellLMModel("", "", made.config, made, tiny.parts().genes)
    block = tiny.block()
    np.testing.assert_array_equal(loaded.bin(block).genes, direct.bin(block).genes)
    found = loaded.encode_cells(loaded.bin(block))
    np.testing.assert_allclose(found, direct.encode_cells(direct.bin(block)), atol=1e-6)
    assert np.ptp(found, axis=0).max() > 0.05


def test_scbert_converts_too(tmp_path: Path) -> None:
    made = tiny.module("compat", every_gene=True, discrimination=False)
    save_file(tiny.checkpoint(made), tmp_path / "scbert.safetensors")
    (tmp_path / "genes.txt").write_text("\n".join(names()), encoding="utf-8")
    convert_checkpoint(tmp_path / "scbert.safetensors", tmp_path / "genes.txt", tmp_path / "out", "scbert")
    loaded = load_any(tmp_path / "out")
    assert isinstance(loaded, CellLMModel)
    assert loaded.config.performer.every_gene
    assert loaded.config.bins.length is None
    direct = CellLMModel("", "", made.config, made, tiny.parts().genes)
    found = loaded.encode_cells(loaded.bin(tiny.block()))
    np.testing.assert_allclose(found, direct.encode_cells(direct.bin(tiny.block())), atol=1e-6)


def test_names_that_no_vocabulary_has_keep_their_number(tmp_path: Path) -> None:
    lines = [*names()[:6], "NOT_A_GENE", names()[0], names()[7]]
    table, told = resolve_genes(lines)
    assert told == {"listed": 9, "found": 7, "repeated": 1, "unknown": 1}
    assert table.tokens.tolist() == [0, 1, 2, 3, 4, 5, 8]
    assert table.ensembl_ids.tolist() == [*names()[:6], names()[7]]
    with pytest.raises(GeneError, match="1 of the 4 lines"):
        resolve_genes([names()[0], "qqq1", "qqq2", "qqq3"])


def test_symbols_are_read_as_well_as_ids() -> None:
    vocabulary = load_vocabulary()
    row = int(np.flatnonzero(vocabulary.symbols == "CD8A")[0])
    assert resolve_genes(["CD8A"])[0].ensembl_ids.tolist() == [vocabulary.ensembl_ids[row]]
    assert resolve_genes([f"{vocabulary.ensembl_ids[row]}.7"])[0].symbols.tolist() == ["CD8A"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "holds no gene"),
        (b"\n\n", "holds no gene"),
        (b"CD8A\n\nCD4\n", "line 2 is empty"),
        (b"\xff\xfe\x00", "read"),
    ],
)
def test_gene_lists_that_can_not_be_read(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "genes.txt").write_bytes(content)
    with pytest.raises(FileError, match=message):
        read_gene_list(tmp_path / "genes.txt")
    (tmp_path / "genes.txt").write_text("\ufeffCD8A \r\nCD4\r\n\n", encoding="utf-8")
    assert read_gene_list(tmp_path / "genes.txt") == ["CD8A", "CD4"]


@pytest.mark.parametrize("change", [-1, 1, 2])
def test_a_list_of_another_length_is_refused(files: tuple[Path, Path], tmp_path: Path, change: int) -> None:
    lines = [*names(), "CD8A", "CD4"][: tiny.GENES + change]
    files[1].write_text("\n".join(lines), encoding="utf-8")
    with pytest.raises(GeneError, match=rf"names {80 + change} genes, and the gene table of .* has 82 rows"):
        convert_checkpoint(*files, tmp_path / "out", length=tiny.LENGTH)
    assert not (tmp_path / "out").exists()


def weights() -> dict[str, Tensor]:
    return tiny.checkpoint(tiny.module("compat"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.pop(QUERY), f"lacks the weight '{QUERY}'"),
        (lambda w: w.pop("token_emb.weight"), "no checkpoint of CellLM"),
        (lambda w: w.pop("norm.bias"), "lacks the weight 'norm.bias'"),
        (lambda w: w.update({QUERY: torch.zeros(16, 15)}), r"shape \(16, 15\)"),
        (lambda w: w.update({"pos_emb.emb.weight": torch.zeros(82)}), "shape"),
        (lambda w: w.update({"pooler.weight": torch.zeros(2, 2)}), "unknown weight 'pooler.weight'"),
        (lambda w: w.update({"performer.net.layers.2.0.norm.weight": torch.zeros(16)}), "lacks the weight"),
        (lambda w: w.update({"norm.bias": torch.full((16,), torch.nan)}), "not finite"),
        (lambda w: w.update({"token_emb.weight": torch.zeros(9, 16)}), "9 expression tokens"),
        (lambda w: w.update({"performer.net.layers.0.1.fn.fn.w1.weight": torch.zeros(33, 16)}), "do not fit"),
        (lambda w: w.clear(), "no checkpoint of CellLM"),
    ],
)
def test_strict_weights(tmp_path: Path, change: object, message: str) -> None:
    held = weights()
    change(held)  # type: ignore[operator]
    torch.save(held, tmp_path / "ckpt.pt")
    with pytest.raises(ModelError, match=message):
        load_cellm_checkpoint(tmp_path / "ckpt.pt", length=tiny.LENGTH)


def test_the_other_kind_is_named(tmp_path: Path, files: tuple[Path, Path]) -> None:
    torch.save(tiny.checkpoint(tiny.module("compat", every_gene=True)), tmp_path / "scbert.pt")
    with pytest.raises(ModelError, match="kind 'scbert'"):
        load_cellm_checkpoint(tmp_path / "scbert.pt")
    with pytest.raises(ModelError, match="kind 'cellm'"):
        load_cellm_checkpoint(files[0], "scbert")


def test_langcell_is_no_cellm(shared: Path) -> None:
    folder = shared / "data" / "parity" / "langcell_tiny" / "ckpt" / "cell_bert"
    with pytest.raises(ModelError, match="no checkpoint of CellLM"):
        load_cellm_checkpoint(next(folder.glob("pytorch_model.bin")))


def test_every_weight_has_a_released_name(shared: Path) -> None:
    found = {their_name(name) for name in tiny.module().performer.state_dict()}
    assert len(found) == len(tiny.module().performer.state_dict())
    held = torch.load(shared / "data" / "parity" / "cellm_tiny" / "checkpoint.pt", weights_only=True)
    assert found == set(held) - {"performer.calls_since_last_redraw"}


def test_heads_that_are_not_there_or_do_not_fit(tmp_path: Path, files: tuple[Path, Path]) -> None:
    with pytest.raises(ModelError, match="no cell-type head"):
        load_annotation_head(files[0])
    head = {"conv.weight": torch.zeros(1, 1, 1, 16), "conv.bias": torch.zeros(1)}
    torch.save(head, tmp_path / "head.pt")
    with pytest.raises(ModelError, match=r"lacks the weight 'pred_head.1.weight'"):
        load_annotation_head(tmp_path / "head.pt")
    for place, shape in (("1", (6, 81)), ("4", (5, 7)), ("7", (3, 5))):
        head |= {f"pred_head.{place}.weight": torch.zeros(shape), f"pred_head.{place}.bias": torch.zeros(shape[0])}
    torch.save(head, tmp_path / "head.pt")
    with pytest.raises(ModelError, match="shape"):
        load_annotation_head(tmp_path / "head.pt")
    head["pred_head.4.weight"] = torch.zeros(5, 6)
    torch.save({**weights(), **head}, tmp_path / "both.pt")
    assert load_annotation_head(tmp_path / "both.pt").last.out_features == 3
    assert load_cellm_checkpoint(tmp_path / "both.pt", length=tiny.LENGTH).performer.to_logits is not None
    done = convert_checkpoint(tmp_path / "both.pt", files[1], tmp_path / "out", length=tiny.LENGTH)
    assert "left out" in done.to_text()


def test_a_length_that_cells_can_not_have(files: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="length"):
        convert_checkpoint(*files, tmp_path / "out", length=1)
    assert not (tmp_path / "out").exists()
