"""What the doctor says of awkward files, and that what follows from it is right."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
from awkward_files import AWKWARD, human_counts, human_genes, log_normalised, z_scores
from scipy.sparse import csr_matrix, vstack

from cellingua.cells.counts import CountBlocks
from cellingua.cells.diagnosis import Diagnosis
from cellingua.cells.doctor import examine
from cellingua.cells.genes import load_vocabulary
from cellingua.cells.reading import open_cells
from cellingua.core.errors import ConfigError, CountsError, FileError, GeneError, InputError

# name -> (place, what is taken, codes that must be among the findings)
USABLE = {
    "lognorm_only": ("X", "recovered counts", {"recovered"}),
    "rounded_lognorm": ("X", "relative expression", {"relative"}),
    "scaled_with_raw": ("raw/X", "recovered counts", {"recovered", "other_places"}),
    "counts_in_layer": ("layers/counts", "counts", {"counts", "other_places"}),
    "variable_genes": ("X", "counts", {"selected_genes"}),
    "repeated_names": ("X", "counts", {"cell_names", "gene_names", "summed", "empty_cells", "shallow_cells"}),
    "narrow_integers": ("X", "counts", {"loaded_whole", "summed"}),
    "log2_tpm": ("X", "relative expression", {"relative", "per_million"}),
    "antibodies": ("X", "counts", {"left_out"}),
    "two_genomes": ("X", "counts", {"second_genome"}),
}
REFUSED = {
    "scaled_only": (CountsError, "scaled", r"z-scores.*sc\.pp\.scale"),
    "batch_corrected": (CountsError, "corrected", "batch-corrected"),
    "already_ranked": (CountsError, "ranked", "ranks"),
    "mouse": (GeneError, "species", "mouse.*ortholog"),
    "numbered_genes": (GeneError, "few_mapped", r"0 of 1,200 columns.*'0', '1', '2'"),
    "not_numbers": (CountsError, "nan", "'cell7', column 'ACTB'"),
    "no_values": (CountsError, "no_values", "no matrix"),
}
SAME_COUNTS = ["lognorm_only", "scaled_with_raw", "counts_in_layer", "antibodies", "two_genomes"]


def codes(diagnosis: Diagnosis) -> set[str]:
    return {finding.code for finding in diagnosis.findings}


def examined(adata: anndata.AnnData, layer: str | None = None) -> Diagnosis:
    with open_cells(adata) as cells:
        return examine(cells, layer=layer)


def all_counts(source: Path | anndata.AnnData) -> tuple[np.ndarray, np.ndarray]:
    with open_cells(source) as cells:
        blocks = list(CountBlocks(cells, examine(cells)).blocks(16))
    return np.vstack([b.counts.toarray() for b in blocks]), np.concatenate([b.totals for b in blocks])


def test_every_awkward_file_is_told_of_here() -> None:
    assert USABLE.keys() | REFUSED.keys() | {"truncated"} == AWKWARD.keys()


@pytest.mark.parametrize("name", sorted(USABLE))
def test_usable_files(name: str, tmp_path: Path) -> None:
    place, taken_as, expected = USABLE[name]
    with open_cells(AWKWARD[name](tmp_path)) as cells:
        diagnosis = examine(cells)
        diagnosis.raise_if_refused()
        assert (diagnosis.place, diagnosis.taken_as) == (place, taken_as)
        assert codes(diagnosis) >= expected
        assert diagnosis.species == "human"
        assert diagnosis.share_of_counts_mapped == pytest.approx(1)
        blocks = list(CountBlocks(cells, diagnosis))
    assert all((block.counts.data > 0).all() for block in blocks)
    for block in blocks:
        np.testing.assert_allclose(block.counts.sum(axis=1).A1, block.totals, rtol=1e-5)


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_refused_files(name: str, tmp_path: Path) -> None:
    error, code, message = REFUSED[name]
    with open_cells(AWKWARD[name](tmp_path)) as cells:
        diagnosis = examine(cells)
        assert diagnosis.refused
        assert next(f.code for f in diagnosis.findings if f.level == "refusal") == code
        with pytest.raises(error, match=f"(?s){message}") as caught:
            CountBlocks(cells, diagnosis)
    assert caught.value.exit_code == 2
    assert caught.value.expected
    assert caught.value.try_
    assert "refused" in diagnosis.to_text()


def test_a_truncated_file_is_not_examined(tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"truncated\.h5ad could not be read: it is cut short, .* bytes"):
        open_cells(AWKWARD["truncated"](tmp_path))


@pytest.mark.parametrize("name", SAME_COUNTS)
def test_the_same_cells_give_the_same_counts_however_they_are_stored(name: str, tmp_path: Path) -> None:
    expected, totals = all_counts(human_counts())
    counts, found = all_counts(AWKWARD[name](tmp_path))
    np.testing.assert_array_equal(counts, expected)
    np.testing.assert_array_equal(found, totals)


def test_integers_of_one_byte_are_summed_without_wrapping(tmp_path: Path) -> None:
    counts, totals = all_counts(AWKWARD["narrow_integers"](tmp_path))
    first = human_genes(1200)[0][0]
    row = load_vocabulary().row_of_name(first)[0]
    assert (counts[:, row] == 400).all()
    assert (totals > 400).all()


@pytest.mark.parametrize("name", sorted(AWKWARD.keys() - {"truncated"}))
def test_the_words_fit_a_screen_and_the_data_are_json(name: str, tmp_path: Path) -> None:
    with open_cells(AWKWARD[name](tmp_path)) as cells:
        diagnosis = examine(cells)
    lines = diagnosis.to_text().splitlines()
    assert len(lines) < 40
    assert max(map(len, lines)) <= 100
    data = json.loads(json.dumps(diagnosis.to_dict(), allow_nan=False))
    assert data["refused"] == diagnosis.refused
    assert len(data["findings"]) == len(diagnosis.findings)
    for finding in diagnosis.findings:
        assert finding.level in ("ok", "note", "warning", "refusal")
        assert finding.text
        assert finding.advice or finding.level != "refusal"


def test_an_explicit_layer_wins(tmp_path: Path) -> None:
    adata = human_counts()
    adata.layers["double"] = adata.X * 2
    adata.layers["scaled"] = z_scores(log_normalised(adata.X))
    assert examined(adata).place == "X"
    assert examined(adata, "double").place == "layers/double"
    assert "scaled" in codes(examined(adata, "scaled"))
    with pytest.raises(ConfigError, match="no layer 'counts'"):
        examined(adata, "counts")


def test_spliced_counts_are_not_taken_for_all() -> None:
    adata = human_counts()
    adata.layers["spliced"] = csr_matrix(np.floor(adata.X.toarray() / 2))
    adata.X = log_normalised(adata.X)
    adata.layers["umis"] = human_counts().X
    assert examined(adata).place == "layers/umis"


def test_cells_and_genes_of_none_are_refused() -> None:
    adata = human_counts()
    assert codes(examined(adata[:0].copy())) == {"no_cells"}
    assert codes(examined(adata[:, :0].copy())) == {"no_genes"}
    zeros = adata.copy()
    zeros.X = csr_matrix(adata.shape, dtype=np.float32)
    assert "empty" in codes(examined(zeros))
    assert examined(zeros).refused


@pytest.mark.parametrize(
    ("rename", "species"),
    [
        (str.upper, "human"),
        (str.capitalize, "mouse"),
        (lambda s: f"mm10_{s.capitalize()}", "mouse"),
        (lambda s: f"GRCh38_{s}", "human"),
        (str.lower, "human"),
    ],
)
def test_species_by_symbols(rename: Callable[[str], str], species: str) -> None:
    adata = human_counts()
    adata.var = pd.DataFrame(index=[rename(name) for name in adata.var_names])
    diagnosis = examined(adata)
    assert diagnosis.species == species
    assert diagnosis.refused == (species != "human")


@pytest.mark.parametrize(
    ("prefix", "species"),
    [("ENSMUSG", "mouse"), ("ENSRNOG", "rat"), ("ENSDARG", "zebrafish"), ("ENSMMUG", "rhesus macaque")],
)
def test_species_by_ensembl_ids(prefix: str, species: str) -> None:
    adata = human_counts()
    adata.var["gene_ids"] = [text.replace("ENSG", prefix) for text in adata.var["gene_ids"]]
    diagnosis = examined(adata)
    assert diagnosis.species == species
    with pytest.raises(GeneError, match=species):
        diagnosis.raise_if_refused()


@pytest.mark.parametrize("column", ["gene_ids", "ensembl_id", "feature_id", "symbol", "feature_name", "whatever"])
@pytest.mark.parametrize("categorical", [True, False])
def test_genes_are_found_in_any_column(column: str, categorical: bool) -> None:
    adata = human_counts()
    values = list(adata.var_names if column in ("symbol", "feature_name") else adata.var["gene_ids"])
    frame = pd.DataFrame({"biotype": "protein_coding", "chromosome": "1", column: values}, index=range(adata.n_vars))
    frame.index = frame.index.astype(str)
    if categorical:
        frame[column] = frame[column].astype("category")
    adata.var = frame
    diagnosis = examined(adata)
    assert diagnosis.gene_source == f"var['{column}']"
    assert diagnosis.genes_mapped == adata.n_vars


def test_part_of_the_counts_unknown() -> None:
    adata = human_counts()
    for known, level in ((0.9, set()), (0.45, {"part_mapped"}), (0.2, {"few_mapped"})):
        keep = np.random.default_rng(0).random(adata.n_vars) < known
        keep[:24] = False  # housekeeping genes hold many of the counts
        part = anndata.AnnData(
            adata.X[:, 24:],
            adata.obs,
            pd.DataFrame(index=np.where(keep, adata.var_names, [f"peak{i}" for i in range(adata.n_vars)])[24:]),
        )
        diagnosis = examined(part)
        assert codes(diagnosis) & {"part_mapped", "few_mapped"} == level
        assert diagnosis.refused == (level == {"few_mapped"})
        assert diagnosis.share_of_counts_mapped == pytest.approx(known, abs=0.06)


def test_spike_ins_and_tags_are_left_out() -> None:
    adata = human_counts()
    names = [*adata.var_names]
    names[30:33] = ["ERCC-00002", "CD3_TotalSeqB", "__no_feature"]
    adata.var = pd.DataFrame(index=names)
    diagnosis = examined(adata)
    assert diagnosis.keep_columns is not None
    assert np.flatnonzero(~diagnosis.keep_columns).tolist() == [30, 31, 32]
    _, totals = all_counts(adata)
    np.testing.assert_array_equal(totals, np.delete(adata.X.toarray(), [30, 31, 32], axis=1).sum(axis=1))


def test_peaks_are_no_genes() -> None:
    adata = human_counts()
    adata.var = pd.DataFrame(index=[*adata.var_names[:600], *[f"chr1:{i}00-{i}99" for i in range(1, 601)]])
    diagnosis = examined(adata)
    assert diagnosis.species == "human"
    assert diagnosis.keep_columns is not None
    assert diagnosis.keep_columns.sum() == 600
    adata.var_names = [f"chr1-{i}00-{i}99" for i in range(1, 1201)]
    with pytest.raises(GeneError, match="none of its columns is gene expression"):
        examined(adata).raise_if_refused()


def test_real_genes_that_look_like_tags_are_kept() -> None:
    names = np.unique(load_vocabulary().symbols)
    adata = anndata.AnnData(csr_matrix(np.ones((3, len(names)), np.float32) * 2), var=pd.DataFrame(index=names))
    diagnosis = examined(adata)
    assert diagnosis.keep_columns is not None
    assert diagnosis.keep_columns.all()


def test_expected_counts_and_binary_values() -> None:
    adata = human_counts()
    fractional = adata.copy()
    fractional.X = adata.X.copy()
    fractional.X.data *= np.random.default_rng(0).lognormal(0, 0.5, adata.X.nnz).astype(np.float32)
    fractional.X.data[::50] *= 30
    diagnosis = examined(fractional)
    assert diagnosis.taken_as == "relative expression"
    assert "fractional" in codes(diagnosis)
    counts, _ = all_counts(fractional)
    np.testing.assert_allclose(np.sort(counts[counts > 0]), np.sort(fractional.X.data), rtol=1e-6)
    unit = adata.copy()
    dense = adata.X.toarray()
    unit.X = dense / np.maximum(dense.max(axis=0), 1)
    assert codes(examined(unit)) == {"unit"}
    binary = adata.copy()
    binary.X = adata.X.sign()
    assert "binary" in codes(examined(binary))


def test_a_bad_value_outside_the_sample_is_met_while_reading() -> None:
    small = human_counts(n_cells=600, n_genes=600)
    block = csr_matrix(small.X)
    counts = csr_matrix(vstack([block] * 10, format="csr"))
    adata = anndata.AnnData(counts, pd.DataFrame(index=[f"c{i}" for i in range(6000)]), small.var)
    fine = examined(adata)
    assert fine.cells_examined < 6000
    row = 200  # between the pieces that are sampled
    for value, text in ((np.nan, "nan"), (-1, "-1"), (np.inf, "inf")):
        adata.X.data[adata.X.indptr[row]] = value
        with open_cells(adata) as cells:
            blocks = CountBlocks(cells, examine(cells))
            with pytest.raises(CountsError, match=rf"value {text}.*cell 'c200' \(row 200\), column 'ACTB'"):
                list(blocks)


def test_names_with_control_characters_stay_on_their_line() -> None:
    adata = human_counts()
    adata.var = pd.DataFrame(index=[f"x{i}\x1b[31m\n" for i in range(adata.n_vars)])
    text = examined(adata).to_text()
    assert "\x1b" not in text
    with pytest.raises(InputError):
        examined(adata).raise_if_refused()


def test_many_cells_are_sampled_over_the_whole_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cellingua.cells.doctor.READ_WHOLE", 100)
    monkeypatch.setattr("cellingua.cells.doctor.SAMPLE", 64)
    adata = human_counts(n_cells=500, n_genes=600)
    values = adata.X.toarray()
    values[::2] = 0
    adata.X = csr_matrix(values)
    diagnosis = examined(adata)
    assert diagnosis.cells_examined == 64
    empty = next(f.text for f in diagnosis.findings if f.code == "empty_cells")
    assert empty.startswith("250 cells without")  # all rows are known from the row pointers
