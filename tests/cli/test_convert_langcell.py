"""``cellingua convert langcell`` and ``geneformer``, what works on their folders, and every way to be refused."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import anndata
import numpy as np
import pytest
import torch
from released import WORDS, random_tower, some_genes, write_bert, write_dictionaries, write_langcell

from cellingua.cli.main import main
from cellingua.core.errors import ModelError
from cellingua.models import convert_langcell
from cellingua.models.convert_langcell import fit_tokenizer
from cellingua.models.gene_dictionaries import shipped_genes
from cellingua.models.shelf import load_model
from cellingua.nn.transformer import CellTowerConfig
from cellingua.words.wordpiece import read_wordpiece


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_langcell(tmp_path_factory.mktemp("released") / "ckpt")


@pytest.fixture
def ckpt(original: Path, tmp_path: Path) -> Path:
    """A checkpoint that may be spoiled."""
    shutil.copytree(original, tmp_path / "in" / "ckpt")
    return tmp_path / "in" / "ckpt"


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out" / "mine"


def convert(ckpt: Path, out: Path, *more: str) -> int:
    return main(["convert", "langcell", str(ckpt), str(out), "--terms", "none", "--quiet", *more])


def test_convert_annotate_and_embed(
    ckpt: Path, out: Path, file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert convert(ckpt.parent, out) == 0
    assert "25,424 genes" in capsys.readouterr().out
    labels = ["--label", "B cell", "--label", "T cell", "--label", "a cell of type t"]
    annotate = ["annotate", str(file), "--model", str(out), *labels, "--quiet", "--match", "compat", "--out-dir"]
    assert main([*annotate, str(tmp_path / "a")]) == 0
    assert (tmp_path / "a" / "cells_cellingua" / "cells.annotated.h5ad").is_file()
    for state, key, width in (("joint", "X_langcell", 32), ("cls", "X_langcell_cls", 8)):
        target = tmp_path / f"{state}.h5ad"
        call = ["embed", str(file), "--model", str(out), "-o", str(target), "--state", state, "--quiet"]
        assert main(call) == 0
        assert anndata.read_h5ad(target).obsm[key].shape == (40, width)


def test_terms_get_their_vectors_once(
    ckpt: Path, out: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert convert_langcell.chosen_terms("none") == []
    some = convert_langcell.chosen_terms("human")
    assert 2500 < len(some) < len(convert_langcell.chosen_terms("all"))
    some = [*some[:50], "CL:0000236"]
    monkeypatch.setattr(convert_langcell, "chosen_terms", lambda which: some)
    assert main(["convert", "langcell", str(ckpt), str(out), "--terms", "human"]) == 0
    said = capsys.readouterr()
    assert "51 terms of the Cell Ontology have a stored vector" in said.out
    assert "Reading the terms" in said.err
    model = load_model(out)
    assert model.term_ids == some
    row = model.term_ids.index("CL:0000236")
    text = "cell type: b cell. a lymphocyte of b lineage that is capable of b cell mediated immunity.; "
    np.testing.assert_allclose(model.term_vectors[row], model.encode_texts([text])[0], atol=1e-3)


@pytest.mark.parametrize("extra", [0, 2])
def test_with_and_without_rows_for_the_two_pieces(tmp_path: Path, out: Path, extra: int) -> None:
    """30,522 or 30,524 rows in the released form."""
    assert convert(write_langcell(tmp_path / "ckpt", extra_rows=extra, safe=False), out) == 0
    ids, _ = load_model(out).pieces(["b cell [ENC]"])
    assert int(ids.max()) == (len(WORDS) + 1 if extra else WORDS.index("b"))


def test_dictionaries_and_a_tokeniser_elsewhere(ckpt: Path, out: Path, tmp_path: Path) -> None:
    own = write_dictionaries(tmp_path / "genes", shipped_genes().table)
    os.replace(ckpt / "text_bert" / "vocab.txt", tmp_path / "words.txt")
    assert convert(ckpt, out, "--dictionaries", str(own), "--tokenizer", str(tmp_path / "words.txt")) == 0
    assert "SHA-256" in (out / "card.md").read_text(encoding="utf-8")


def rewrite(path: Path, change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> None:
    torch.save(change(torch.load(path, weights_only=True)), path)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


class Trap:
    """Would write a file if unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (exec, (f"open({str(self.path)!r}, 'w').close()",))


def swap(ckpt: Path, first: str, second: str) -> None:
    os.replace(ckpt / first, ckpt / "other")
    os.replace(ckpt / second, ckpt / first)
    os.replace(ckpt / "other", ckpt / second)


def configure(ckpt: Path, folder: str, **change: object) -> None:
    path = ckpt / folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), **change}), encoding="utf-8")


def vocabulary(ckpt: Path, words: list[str]) -> None:
    (ckpt / "text_bert" / "vocab.txt").write_text("\n".join(words), encoding="utf-8")


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "folders swapped": (lambda c: swap(c, "cell_bert", "text_bert"), "cell_bert and text_bert are swapped"),
    "two cell encoders": (
        lambda c: [shutil.rmtree(c / "text_bert"), shutil.copytree(c / "cell_bert", c / "text_bert"),
                   vocabulary(c, WORDS)],
        "text_bert holds no cross-attention",
    ),
    "two text encoders": (
        lambda c: [shutil.rmtree(c / "cell_bert"), shutil.copytree(c / "text_bert", c / "cell_bert")],
        "cell_bert holds a text encoder",
    ),
    "heads swapped": (lambda c: swap(c, "cell_proj.bin", "text_proj.bin"), "has the shape (32, 16)"),
    "configurations swapped": (
        lambda c: swap(c, "cell_bert/config.json", "text_bert/config.json"), "has the shape"
    ),
    "truncated safetensors": (lambda c: cut(c / "cell_bert/model.safetensors"), "can't be read as weights"),
    "truncated bin": (lambda c: cut(c / "ctm_head.bin"), "ctm_head.bin can't be read as weights"),
    "empty": (lambda c: (c / "text_bert/model.safetensors").write_bytes(b""), "can't be read as weights"),
    "code in a head": (lambda c: torch.save({"weight": Trap(c.parent / "ran")}, c / "text_proj.bin"), "more than"),
    "no head": (lambda c: (c / "ctm_head.bin").unlink(), "ctm_head.bin is missing"),
    "a head without bias": (
        lambda c: rewrite(c / "cell_proj.bin", lambda held: {"weight": held["weight"]}), "lacks the weight 'bias'"
    ),
    "a head of three classes": (
        lambda c: torch.save({"weight": torch.zeros(3, 16), "bias": torch.zeros(3)}, c / "ctm_head.bin"), "shape"
    ),
    "a head that is not finite": (
        lambda c: rewrite(c / "ctm_head.bin", lambda held: {**held, "bias": held["bias"] / 0}), "not finite"
    ),
    "no weights": (lambda c: (c / "cell_bert/model.safetensors").unlink(), "holds no weights"),
    "no configuration": (lambda c: (c / "cell_bert/config.json").unlink(), "config.json is missing"),
    "a configuration that is no mapping": (
        lambda c: (c / "cell_bert/config.json").write_text("[1]", encoding="utf-8"), "holds no mapping"
    ),
    "a huge configuration": (lambda c: configure(c, "text_bert", vocab_size=10**15), "has the shape"),
    "more layers than there are": (lambda c: configure(c, "cell_bert", num_hidden_layers=10**9), "holds 2 layers"),
    "rows without <cls>": (lambda c: configure(c, "cell_bert", vocab_size=25_426), "has the shape (25427, 8)"),
    "no vocabulary": (lambda c: (c / "text_bert/vocab.txt").unlink(), "--tokenizer vocab.txt"),
    "another vocabulary": (lambda c: vocabulary(c, [*WORDS, "one", "more", "word"]), "has 18 pieces"),
    "a vocabulary of others": (lambda c: vocabulary(c, ["<s>", "</s>", *WORDS[5:]]), "lacks [PAD]"),
    "a vocabulary that is no text": (
        lambda c: (c / "text_bert/vocab.txt").write_bytes(b"\xff\xfe\x00\x00"), "can't be read"
    ),
    "an empty folder": (lambda c: [shutil.rmtree(c), c.mkdir()], "neither cell_bert nor text_bert"),
    "cell_bert alone": (lambda c: shutil.rmtree(c / "text_bert"), "text_bert"),
    "nothing": (lambda c: shutil.rmtree(c), "does not exist"),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_exits_2_and_writes_nothing(
    ckpt: Path, out: Path, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    spoil, message = DAMAGES[damage]
    spoil(ckpt)
    assert convert(ckpt, out) == 2
    said = capsys.readouterr().err
    assert message in said
    assert "Expected" in said
    assert "Traceback" not in said
    assert not (ckpt.parent / "ran").exists()
    assert not out.parent.exists() or not list(out.parent.iterdir())


def test_the_original_berts_vocabulary_is_told_from_pubmedberts(tmp_path: Path) -> None:
    """Both have 30,522 pieces: the size does not tell them apart, the unused pieces do."""
    words = [f"w{number}" for number in range(30_522 - len(WORDS) - 1)]
    for more, refused in (("[unused0]", True), ("gene", False)):
        (tmp_path / "vocab.txt").write_text("\n".join([*WORDS, more, *words]), encoding="utf-8")
        pieces = read_wordpiece(tmp_path)
        if refused:
            with pytest.raises(ModelError, match="the original BERT"):
                fit_tokenizer(pieces, 30_524)
        else:
            assert len(fit_tokenizer(pieces, 30_524)) == 30_524


@pytest.mark.parametrize("which", ["v2", "another length", "hostile", "no folder"])
def test_wrong_dictionaries_exit_2_and_write_nothing(
    ckpt: Path, out: Path, tmp_path: Path, which: str, capsys: pytest.CaptureFixture[str]
) -> None:
    genes = tmp_path / "genes"
    if which != "no folder":
        write_dictionaries(genes, some_genes(60, 4 if which == "v2" else 2))
    if which == "hostile":
        (genes / "token_dictionary.pkl").write_bytes(pickle.dumps({"A": Trap(tmp_path / "ran")}))
    assert convert(ckpt, out, "--dictionaries", str(genes)) == 2
    said = capsys.readouterr().err
    expected = {"hostile": "may run code", "no folder": "does not exist"}.get(which, "25,427 rows")
    assert expected in said
    assert not (tmp_path / "ran").exists()
    assert not out.parent.exists() or not list(out.parent.iterdir())


def test_a_source_inside_the_output_is_kept(ckpt: Path, out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert convert(ckpt, out) == 0
    assert convert(ckpt, out) == 2
    assert "exists already" in capsys.readouterr().err
    shutil.copytree(ckpt, out / "ckpt")
    assert convert(out / "ckpt", out, "--force") == 2
    assert "would be replaced" in capsys.readouterr().err
    assert (out / "ckpt" / "cell_bert").is_dir()


def test_cell_bert_is_no_geneformer(ckpt: Path, out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["convert", "geneformer", str(ckpt / "cell_bert"), str(out)]) == 2
    assert "cellingua convert langcell" in capsys.readouterr().err


def test_a_geneformer_embeds_and_names_nothing(
    file: Path, out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_bert(tmp_path / "gf", random_tower(CellTowerConfig(25_426, 0, 2, 8, 2, 12, 30)), prefix="bert.")
    assert main(["convert", "geneformer", str(tmp_path / "gf"), str(out)]) == 0
    said = capsys.readouterr().out
    assert "the mean over its genes in the second-last layer" in said
    target = tmp_path / "out.h5ad"
    assert main(["embed", str(file), "--model", str(out), "-o", str(target), "--quiet"]) == 0
    back = anndata.read_h5ad(target)
    assert list(back.obsm) == ["X_geneformer"]
    assert back.obsm["X_geneformer"].shape == (40, 8)
    assert main(["annotate", str(file), "--model", str(out), "--out-dir", str(tmp_path / "a"), "--quiet"]) == 2
    assert "is a Geneformer, which embeds cells and knows no words" in capsys.readouterr().err
    assert not (tmp_path / "a").exists()


def test_a_geneformer_with_classes_names_them(file: Path, out: Path, tmp_path: Path) -> None:
    write_bert(tmp_path / "gf", random_tower(CellTowerConfig(25_426, 0, 2, 8, 2, 12, 30)), prefix="bert.")
    assert main(["convert", "geneformer", str(tmp_path / "gf"), str(out)]) == 0
    cells = anndata.read_h5ad(file)
    cells.obs["mine"] = ["left", "right"] * (cells.n_obs // 2)
    cells.write_h5ad(tmp_path / "labelled.h5ad")
    labelled, tuned = str(tmp_path / "labelled.h5ad"), str(tmp_path / "tuned")
    assert main(["finetune", labelled, "--labels-from", "mine", "--model", str(out), "-o", tuned, "--quiet"]) == 0
    quiet = ["--no-report", "--quiet"]
    assert main(["annotate", labelled, "--model", tuned, "--out-dir", str(tmp_path / "named"), *quiet]) == 0
    named = anndata.read_h5ad(next((tmp_path / "named").rglob("*.annotated.h5ad")))
    assert set(named.obs["cellingua"]) <= {"left", "right", "unknown"}
    assert named.obsm["X_geneformer"].shape == (cells.n_obs, 8)
    method = ["--method", "prototypes", "-o", str(tmp_path / "none"), "--quiet"]
    assert main(["finetune", labelled, "--labels-from", "mine", "--model", str(out), *method]) == 2
    assert not (tmp_path / "none").exists()
