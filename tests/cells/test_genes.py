"""The gene vocabulary: every way to name a gene, and the summing of columns."""

from __future__ import annotations

import gzip

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_matrix

from cellingua.cells.genes import GeneMatch, Vocabulary, collapse, load_vocabulary

VOCABULARY = load_vocabulary()
ROWS = st.integers(0, len(VOCABULARY) - 1)
SYMBOL_ROWS = ROWS.filter(lambda row: VOCABULARY.row_of_name(str(VOCABULARY.symbols[row])) == (row, "symbol"))


def found(names: list[str], ids: list[str] | None = None) -> list[tuple[str, str]]:
    match = VOCABULARY.resolve(names, ids)
    symbols = [str(VOCABULARY.symbols[row]) if row >= 0 else "" for row in match.index]
    return list(zip(symbols, match.how.tolist(), strict=True))


@given(ROWS, st.sampled_from(["", ".1", ".27", "_PAR_Y", "-1"]), st.booleans())
def test_an_ensembl_id_is_found_with_or_without_version_and_in_any_case(row: int, end: str, lower: bool) -> None:
    name = str(VOCABULARY.ensembl_ids[row]) + end
    match = VOCABULARY.resolve([name.lower() if lower else name])
    assert match.index.tolist() == [row]
    assert match.how.tolist() == ["ensembl"]


@given(SYMBOL_ROWS)
def test_a_symbol_is_found_in_its_own_spelling_first(row: int) -> None:
    symbol = str(VOCABULARY.symbols[row])
    match = VOCABULARY.resolve([symbol, f" {symbol} "])
    assert match.index.tolist() == [row, row]


@given(SYMBOL_ROWS)
def test_case_does_not_lead_to_another_gene(row: int) -> None:
    match = VOCABULARY.resolve([str(VOCABULARY.symbols[row]).lower()])
    by_case = match.how[0] == "case" and match.index[0] != row
    # Another gene may carry the lower-case spelling only as its own symbol or other name.
    assert not by_case or str(VOCABULARY.symbols[match.index[0]]).upper() == str(VOCABULARY.symbols[row]).upper()


@pytest.mark.parametrize(
    ("name", "symbol", "how"),
    [
        ("HLA-A", "HLA-A", "symbol"),
        ("NKX2-1", "NKX2-1", "symbol"),
        ("FAM46C", "TENT5C", "alias"),
        ("SEPT2", "SEPTIN2", "previous"),
        ("KIAA1522", "NHSL3", "previous"),
        ("C1ORF112", "FIRRM", "case"),
        ("HLA.DRA", "HLA-DRA", "case"),
        ("CD20", "MS4A1", "alias"),
        ("ENSGR0000182378", "PLCXD1", "ensembl"),
        ("TSPAN6_ENSG00000000003.14", "TSPAN6", "ensembl"),
        ("IGHA1", "IGHA1", "symbol"),
        ("MALAT1", "", "none"),
        ("RP11-34P13.7", "", "none"),
        ("ENSMUSG00000000001", "", "none"),
        ("", "", "none"),
        ("nan", "", "none"),
        ("17", "", "none"),
    ],
)
def test_names_that_people_write(name: str, symbol: str, how: str) -> None:
    assert found([name]) == [(symbol, how)]


def test_the_suffix_of_unique_names_is_taken_off_only_beside_the_name_itself() -> None:
    assert found(["TP53", "TP53-1", "TP53.1"])[1:] == [("TP53", "symbol"), ("TP53", "symbol")]
    assert found(["TP53-1"]) == [("", "none")]
    assert found(["NKX2", "NKX2-1"])[1] == ("NKX2-1", "symbol")


def test_ids_go_before_names_and_a_transcript_beside_the_gene_is_not_the_gene() -> None:
    gene = str(VOCABULARY.ensembl_ids[VOCABULARY.row_of_name("TP53")[0]])
    assert found(["ACTB", "TP53"], [gene, "ENSG00000999999"])[0] == ("TP53", "ensembl")
    assert found(["TP53", "TP53"], [gene, "ENSG00000999999"])[1] == ("", "none")
    assert found(["ACTB", "TP53"], ["", "ENSG00000999999"]) == [("ACTB", "symbol"), ("TP53", "symbol")]
    assert found(["TP53", "p53"], [gene, ""])[1] == ("", "none")


def test_names_that_differ_only_by_case_are_ambiguous() -> None:
    vocabulary = Vocabulary(
        ["ENSG00000000001", "ENSG00000000002"], ["ABc", "AbC"], ["protein_coding"] * 2, {"x": (0, "alias")}
    )
    match = vocabulary.resolve(["ABc", "abc", "X"])
    assert match.index.tolist() == [0, -1, 0]
    assert match.how.tolist() == ["symbol", "ambiguous", "case"]
    assert match.summary()["ambiguous"] == 1


def test_the_shipped_tables_hold_together() -> None:
    ids = VOCABULARY.ensembl_ids
    assert len(np.unique(ids)) == len(ids) > 22_000
    assert all(len(gene) == 15 and gene.startswith("ENSG0") for gene in ids)
    current = set(VOCABULARY.symbols.tolist())
    assert not current & set(VOCABULARY._others)
    assert {str(kind) for kind in VOCABULARY.biotypes} >= {"protein_coding", "miRNA", "IG_C_gene"}


def test_live_genes_of_the_official_table_are_in(shared) -> None:
    lines = gzip.decompress((shared / "data/official/langcell_genes.tsv.gz").read_bytes()).decode().splitlines()
    official = [line.split("\t")[0] for line in lines[1:] if line.split("\t")[2]]
    assert len(official) == 25_424
    known = set(VOCABULARY.ensembl_ids.tolist())
    assert sum(gene in known for gene in official) == 22_029  # the other 3,395 ids are retired


small_counts = st.integers(1, 6).flatmap(
    lambda columns: st.tuples(
        st.lists(st.lists(st.integers(0, 300), min_size=columns, max_size=columns), min_size=1, max_size=5),
        st.lists(st.integers(-1, 4), min_size=columns, max_size=columns),
    )
)


def as_match(index: list[int]) -> GeneMatch:
    return GeneMatch(np.array(index, np.int32), np.array(["symbol"] * len(index)), 5)


@given(small_counts, st.sampled_from(["uint16", "int32", "int64", "float32", "float64"]), st.randoms())
def test_collapse_equals_the_plain_sum_and_ignores_the_order_of_columns(given_, dtype, random) -> None:
    rows, index = given_
    counts = np.array(rows, dtype=dtype)
    expected = np.zeros((counts.shape[0], 5), np.float32)
    for column, row in enumerate(index):
        if row >= 0:
            expected[:, row] += counts[:, column].astype(np.float32)
    result = collapse(csr_matrix(counts), as_match(index))
    assert result.dtype == np.float32
    assert result.has_sorted_indices
    assert (result.data != 0).all()
    np.testing.assert_array_equal(result.toarray(), expected)
    order = list(range(len(index)))
    random.shuffle(order)
    shuffled = collapse(csr_matrix(counts[:, order]), as_match([index[i] for i in order]))
    np.testing.assert_array_equal(shuffled.toarray(), expected)


def test_small_unsigned_integers_do_not_wrap_around() -> None:
    counts = csr_matrix(np.full((2, 3), 200, np.uint8))
    assert collapse(counts, as_match([1, 1, 1])).toarray()[0].tolist() == [0, 600, 0, 0, 0]


@settings(max_examples=30)
@given(st.lists(ROWS, min_size=1, max_size=30, unique=True))
def test_a_column_keeps_its_gene_whatever_stands_beside_it(rows: list[int]) -> None:
    names = [str(VOCABULARY.ensembl_ids[row]) for row in rows]
    assert VOCABULARY.resolve(names).index.tolist() == rows
    assert VOCABULARY.resolve(names[::-1]).index.tolist() == rows[::-1]
