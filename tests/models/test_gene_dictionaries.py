"""Genes of checkpoints: the shipped table against the authors' own pickles, and what is refused."""

from __future__ import annotations

import gzip
import hashlib
import pickle
import runpy
from pathlib import Path

import numpy as np
import pytest
from released import pickled, some_genes, write_dictionaries

from cellingua.core.errors import FileError, GeneError, InputError
from cellingua.models import gene_dictionaries
from cellingua.models.gene_dictionaries import (
    V1_TABLE,
    V1_TABLE_SHA256,
    CheckpointGenes,
    fingerprint,
    genes_from,
    shipped_genes,
)

#: Of the authors' files, in PharMolix/LangCell at 69e41ef.
TOKENS_SHA256 = "ab9dc40973fa5224d77b793e2fd114cacf3d08423ed9c4c49caf0ba9c7f218f1"
MEDIANS_SHA256 = "b3b589bb5ec75040d05fc44dd6bf0184cf87f3c362cf158d196a6ed3b7fe5f39"


@pytest.fixture(scope="module")
def shipped() -> CheckpointGenes:
    return shipped_genes()


@pytest.fixture(scope="module")
def authors(shipped: CheckpointGenes, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The authors' pickles, made again from the shipped table."""
    return write_dictionaries(tmp_path_factory.mktemp("authors"), shipped.table)


def test_the_shipped_table(shipped: CheckpointGenes, shared: Path) -> None:
    official = shared / "data" / "official" / "langcell_genes.tsv.gz"
    assert V1_TABLE.read_bytes() == official.read_bytes()
    assert (len(shipped.table), shipped.special, shipped.tokens) == (25_424, 2, 25_426)
    assert 0.8 < shipped.known / len(shipped.table) < 0.9


def test_the_authors_files_are_read_byte_for_byte(shipped: CheckpointGenes, authors: Path) -> None:
    """What is read here are the very bytes of the released files: table -> pickles of the released hashes -> table."""
    for name, expected in (("token_dictionary", TOKENS_SHA256), ("gene_median_dictionary", MEDIANS_SHA256)):
        assert hashlib.sha256((authors / f"{name}.pkl").read_bytes()).hexdigest() == expected
    found = genes_from(authors)
    assert (found.special, found.tokens) == (2, 25_426)
    for column in ("ensembl_ids", "symbols", "tokens", "medians"):
        np.testing.assert_array_equal(getattr(found.table, column), getattr(shipped.table, column))
    assert TOKENS_SHA256 in found.source


def test_the_script_makes_the_shipped_table_of_the_dictionaries(shipped: CheckpointGenes) -> None:
    path = Path(__file__).resolve().parents[2] / "scripts" / "make_geneformer_genes.py"
    script = runpy.run_path(str(path))
    assert script["SOURCES"]["token_dictionary.pkl"] == TOKENS_SHA256
    content = gzip.decompress(V1_TABLE.read_bytes()).decode("utf-8")
    rows = [line.split("\t") for line in content.splitlines()[1:]]
    tokens = {"<pad>": 0, "<mask>": 1} | {gene: int(token) for gene, _, token, _ in rows if token}
    medians = {gene: float(median) for gene, _, _, median in rows if median}
    # One gene outside the vocabulary has the empty name in the authors' map.
    names = {symbol: gene for gene, symbol, token, _ in rows if symbol or not token}
    assert len(names) == 40_248
    assert script["table"](tokens, medians, names) == content


def test_a_damaged_table_of_the_package_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "t.gz").write_bytes(V1_TABLE.read_bytes()[:-1])
    monkeypatch.setattr(gene_dictionaries, "V1_TABLE", tmp_path / "t.gz")
    with pytest.raises(FileError, match=V1_TABLE_SHA256):
        shipped_genes()


@pytest.mark.parametrize("what", ["two medians swapped", "two tokens swapped", "another id"])
def test_a_dictionary_of_v1s_size_with_other_content_is_refused(
    shipped: CheckpointGenes, tmp_path: Path, what: str
) -> None:
    held = {name: getattr(shipped.table, name).copy() for name in ("ensembl_ids", "symbols", "tokens", "medians")}
    if what == "another id":
        held["ensembl_ids"][3] = "ENSG00000999999"
    else:
        column = held["medians" if "medians" in what else "tokens"]
        column[[0, 1]] = column[[1, 0]]
    table = type(shipped.table)(**held)
    assert fingerprint(table) != fingerprint(shipped.table)
    with pytest.raises(GeneError, match="Geneformer V1 in number, and other ids"):
        genes_from(write_dictionaries(tmp_path, table, names=False))


@pytest.mark.parametrize("first", [2, 4])
def test_smaller_dictionaries_and_tables(tmp_path: Path, first: int) -> None:
    table = some_genes(50, first)
    found = genes_from(write_dictionaries(tmp_path, table, suffix="_gc95M"))
    assert (found.special, found.tokens, found.known) == (first, 50 + first, 50)
    (tmp_path / "t.tsv.gz").write_bytes(table.to_bytes())
    (tmp_path / "t.tsv").write_bytes(gzip.decompress(table.to_bytes()))
    for name in ("t.tsv.gz", "t.tsv"):
        again = genes_from(tmp_path / name)
        assert fingerprint(again.table) == fingerprint(found.table)
        assert again.special == first


def test_without_names_there_are_no_symbols(tmp_path: Path) -> None:
    assert set(genes_from(write_dictionaries(tmp_path, some_genes(50), names=False)).table.symbols) == {""}


def test_names_are_data(tmp_path: Path) -> None:
    """A symbol that would break the table, or hide in it, is left out."""
    table = some_genes(50)
    write_dictionaries(tmp_path, table)
    odd = ["A\tB", "A\nB", "", " ", "\x1b[31m", "x" * 50, "é"]
    names = {name: str(gene) for name, gene in zip(odd, table.ensembl_ids, strict=False)} | {"GOOD-1": "ENSG1"}
    names["FINE 2"] = str(table.ensembl_ids[20])
    (tmp_path / "gene_name_id_dict.pkl").write_bytes(pickle.dumps(names))
    symbols = genes_from(tmp_path).table.symbols
    assert sorted(set(symbols)) == ["", "FINE 2"]


def broken(folder: Path, what: str) -> None:
    """Spoil a folder of dictionaries."""
    tokens, medians = (folder / f"{name}.pkl" for name in ("token_dictionary", "gene_median_dictionary"))
    held, middle = pickle.loads(tokens.read_bytes()), pickle.loads(medians.read_bytes())  # noqa: S301 (our own)
    gene = next(key for key in held if key.startswith("ENSG"))
    if what == "no tokens":
        tokens.unlink()
    elif what == "two versions":
        (folder / "token_dictionary_gc104M.pkl").write_bytes(tokens.read_bytes())
    elif what == "a gap":
        held[gene] = 5000
    elif what == "a token twice":
        held[gene] = 5
    elif what == "no pad":
        del held["<pad>"]
    elif what == "cls elsewhere":
        held["<cls>"] = 54
    elif what == "a text as token":
        held[gene] = "4"
    elif what == "a token that is no whole number":
        held[gene] = 4.5
    elif what == "a median missing":
        del middle[gene]
    elif what == "a median of 0":
        middle[gene] = 0.0
    elif what == "a median that is not a number":
        middle[gene] = float("nan")
    elif what == "mouse":
        held = {key.replace("ENSG", "ENSMUSG"): value for key, value in held.items()}
        middle = {key.replace("ENSG", "ENSMUSG"): value for key, value in middle.items()}
    elif what == "a gene with a tab":
        held[gene + "\t"] = held.pop(gene)
        middle[gene + "\t"] = middle.pop(gene)
    if what not in ("no tokens", "two versions"):
        tokens.write_bytes(pickled(held))
        medians.write_bytes(pickled(middle))


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("no tokens", "no file token_dictionary"),
        ("two versions", "several files token_dictionary"),
        ("a gap", "are not 4 to 53"),
        ("a token twice", "are not 4 to 53"),
        ("no pad", "the special tokens"),
        ("cls elsewhere", "the special tokens"),
        ("a text as token", "the value '4'"),
        ("a token that is no whole number", "the value '4.5'"),
        ("a median missing", "no median above 0 for 1 genes"),
        ("a median of 0", "no median above 0 for 1 genes"),
        ("a median that is not a number", "the value 'nan'"),
        ("mouse", "0 of its 50 genes are known human genes"),
        ("a gene with a tab", "holds the gene"),
    ],
)
def test_dictionaries_that_do_not_fit_are_refused(tmp_path: Path, what: str, message: str) -> None:
    broken(write_dictionaries(tmp_path, some_genes(50)), what)
    with pytest.raises(InputError, match=message):
        genes_from(tmp_path)


def test_a_path_that_is_neither(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="not a file or folder"):
        genes_from(tmp_path / "nothing")
    (tmp_path / "t.tsv").write_text("gene\ttoken\nA\t2\n", encoding="utf-8")
    with pytest.raises(InputError, match="its columns are others"):
        genes_from(tmp_path / "t.tsv")


def test_a_table_that_unpacks_to_more_than_any_list_is_refused(tmp_path: Path) -> None:
    (tmp_path / "t.tsv.gz").write_bytes(gzip.compress(b"\0" * (65 << 20)))
    with pytest.raises(InputError, match="more than 67,108,864 bytes"):
        genes_from(tmp_path / "t.tsv.gz")
