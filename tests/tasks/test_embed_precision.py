"""The precision of an embedding: asked for on the command line or in Python, and told in ``uns``."""

from __future__ import annotations

from pathlib import Path

import anndata
import numpy as np
import pytest
import small_world
import torch
from tokenizers import BertWordPieceTokenizer
from torch import nn

import cellingua as cl
from cellingua.cli.main import main
from cellingua.cli.options import add_precision
from cellingua.core.errors import InputError
from cellingua.models.bundle import BundleParts, save_bundle
from cellingua.models.gene_table import GeneTable
from cellingua.models.langcell import LangCellConfig, LangCellModule
from cellingua.nn.language import TextTowerConfig
from cellingua.nn.precision import PRECISIONS, choose
from cellingua.nn.transformer import CellTowerConfig
from cellingua.words.wordpiece import WordPiece


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a small LangCell with a BERT tower over the genes of the small world, with random weights."""
    vocabulary, rows = cl.cells.genes.load_vocabulary(), small_world.rows_of_genes()
    tokens = np.arange(2, len(rows) + 2, dtype=np.int32)
    genes = GeneTable(vocabulary.ensembl_ids[rows], vocabulary.symbols[rows], tokens, np.ones(len(rows)))
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "cell"]
    tower = CellTowerConfig(len(rows) + 3, len(rows) + 2, 2, 16, 2, 32, 120)
    config = LangCellConfig(
        "bert", TextTowerConfig(len(words), 1, 16, 2, 16, 16), tower, joint_width=8, token_limit=119
    )
    torch.manual_seed(0)
    module = LangCellModule(config)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.2)
    pieces = WordPiece(BertWordPieceTokenizer(vocab={word: n for n, word in enumerate(words)})._tokenizer, "bert")
    folder = tmp_path_factory.mktemp("models") / "bert"
    parts = BundleParts("bert", "random", module, genes, pieces, ["CL:0000236"], np.eye(1, 8, dtype=np.float32))
    save_bundle(folder, parts, storage="float32")
    return folder


def test_python_says_what_it_was_read_in(bert: Path) -> None:
    adata = small_world.cells(12)
    values = {}
    for precision in PRECISIONS:
        values[precision] = cl.tl.embed(adata, model=bert, precision=precision, overwrite=True)
        chosen = choose(precision)
        assert adata.uns["X_langcell"]["precision"] == chosen.name
        assert adata.uns["X_langcell"]["precision_reason"] == chosen.reason
    np.testing.assert_array_equal(values["auto"], values[choose("auto").name])
    for low in ("bfloat16", "int8"):
        assert 0.999 < (values[low] * values["float32"]).sum(axis=1).min() < 1 - 1e-9
    with pytest.raises(InputError, match="half"):
        cl.tl.embed(adata, model=bert, precision="half", overwrite=True)


def test_the_command_says_what_it_read_in(bert: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, out = tmp_path / "cells.h5ad", tmp_path / "out.h5ad"
    small_world.cells(12).write_h5ad(file)
    command = ["embed", str(file), "-o", str(out), "--model", str(bert), "--threads", "1"]
    assert main([*command, "--precision", "int8"]) == 0
    assert "read in int8: asked for" in capsys.readouterr().out
    assert anndata.read_h5ad(out).uns["X_langcell"]["precision"] == "int8"
    assert main([*command, "--force"]) == 0
    assert f"read in {choose('auto').name}: {choose('auto').reason}" in capsys.readouterr().out


def test_a_wrong_precision_is_a_wrong_call(bert: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["embed", "a.h5ad", "-o", "b.h5ad", "--precision", "half"])
    assert stop.value.code == 2
    said = capsys.readouterr().err
    assert all(precision in said for precision in PRECISIONS)


def test_the_option_offers_every_precision() -> None:
    import argparse

    parser = argparse.ArgumentParser()
    add_precision(parser)
    assert tuple(parser._actions[-1].choices or ()) == PRECISIONS
    assert parser.parse_args([]).precision == "auto"


def test_other_models_say_float32(small_model_folder: Path) -> None:
    adata = small_world.cells(6)
    cl.tl.embed(adata, model=small_model_folder, precision="bfloat16")
    assert adata.uns["X_langcell"]["precision"] == "float32"
    assert "bag" in adata.uns["X_langcell"]["precision_reason"]
