"""Drugs for lines, clusters and cells: what is said, that it depends on nothing else, and how drugs are ordered."""

from __future__ import annotations

from dataclasses import replace

import drug_world
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy.sparse import csr_matrix

from cellingua import tl
from cellingua.core.errors import GeneError, InputError
from cellingua.models.drug_expression import Samples
from cellingua.molecules.response import responses
from cellingua.recipes.drug_mini import MiniConfig, fit
from cellingua.tasks.drug_answer import known_drugs
from cellingua.tasks.drug_rank import KEY, SAMPLE_KEY, drug_predict, drug_rank, sample_path
from cellingua.tasks.drug_result import DOSE, ORDERS, fold, um

COLUMNS = ["ln_ic50", "ln_ic50_low", "ln_ic50_high", "percentile", "distance", "coverage", "general"]


def ranked(**settings: object) -> pd.DataFrame:
    return drug_rank(drug_world.expression(slice(48, 54)), model=drug_world.model(), **settings).to_frame()


def by_pair(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.set_index(["sample", "drug"])[COLUMNS].sort_index()


def test_a_drug_to_which_all_lines_respond_alike_ranks_in_the_middle() -> None:
    """As where no dose of a screen killed any line; not first for everybody."""
    rows, small = slice(0, 48), MiniConfig(factors=8, waves=16, folds=3)
    table = drug_world.measured(rows)
    table.loc[table["drug"] == "Erlotinib", "ln_ic50"] = 2.5
    model = fit(drug_world.samples(rows), responses(table)[0], config=small)
    found = drug_rank(drug_world.expression(slice(48, 54)), model=model).to_frame()
    alike = found[found["drug"] == "Erlotinib"]
    assert np.allclose(alike["ln_ic50"], 2.5, atol=1e-2)
    assert np.allclose(alike["percentile"], 50, atol=1)


def test_the_model_finds_what_was_planted() -> None:
    """Lines that it never saw: far better than the drug's mean, which is nothing within a drug."""
    found = tl.drug_evaluate(
        drug_world.expression(slice(48, 64)), drug_world.measured(slice(48, 64)), model=drug_world.model()
    )
    rows = found.table.set_index("predictor")
    assert rows.loc["model", "within_drug_median"] > 0.8
    assert rows.loc["drug mean", "within_drug_median"] == 0
    assert rows.loc["own drug mean", "within_drug_median"] == 0
    assert rows.loc["model", "rmse"] < 0.6 * rows.loc["own drug mean", "rmse"]
    assert found.interval["pearson"][0] < rows.loc["model", "pearson"] < found.interval["pearson"][1]
    assert 0 < found.coverage[0.5] < found.coverage[0.8] <= found.coverage[0.9]
    assert len(found.pairs) == 16 * len(drug_world.DRUGS)
    np.testing.assert_allclose(
        found.table.loc[0, "rmse"], np.sqrt(((found.pairs.truth - found.pairs.prediction) ** 2).mean())
    )


def test_an_answer_does_not_depend_on_company_or_order() -> None:
    everyone = by_pair(ranked())
    frame = drug_world.expression(slice(48, 54))
    shuffled = frame.iloc[::-1, [0, *np.random.default_rng(0).permutation(np.arange(1, 401))]]
    again = drug_rank(shuffled, model=drug_world.model()).to_frame()
    alone = drug_rank(frame.iloc[[2]], drugs=["Torin 2"], model=drug_world.model()).to_frame()
    pd.testing.assert_frame_equal(everyone, by_pair(again), rtol=1e-9)
    pd.testing.assert_frame_equal(by_pair(alone), everyone.loc[[("LINE-50", "Torin 2")]], rtol=1e-9)


def test_any_unit_that_keeps_the_order_of_genes_says_the_same() -> None:
    frame = drug_world.expression(slice(48, 54))
    raised = frame.copy()
    raised.iloc[:, 1:] = np.exp(frame.iloc[:, 1:].to_numpy())
    pd.testing.assert_frame_equal(
        by_pair(drug_rank(raised, model=drug_world.model()).to_frame()), by_pair(ranked()), rtol=1e-9
    )


@pytest.mark.parametrize("by", ORDERS)
def test_the_order_is_what_it_says(by: str) -> None:
    column = {"percentile": "percentile", "difference": "difference", "ic50": "ln_ic50"}[by]
    for _, part in ranked(by=by).groupby("sample"):
        assert part["rank"].tolist() == list(range(1, len(drug_world.DRUGS) + 1))
        assert (np.diff(part[column]) >= 0).all()


def test_a_drug_that_kills_every_line_is_no_match() -> None:
    """Shift one drug's IC50 by a constant on all lines: its place by percentile stays, by IC50 it comes first."""
    model = drug_world.model()
    result = drug_rank(drug_world.expression(slice(48, 54)), model=model)
    place = [drug.name for drug in model.drugs].index("Cisplatin")
    drugs = [replace(d, mean=d.mean - 12) if n == place else d for n, d in enumerate(model.drugs)]
    network = type(model.network)(*model.network.loadings.shape, *model.network.waved.shape).double()
    network.load_state_dict(model.network.state_dict())
    network.offset[place] -= 12
    quantiles = model.left_out.quantiles.copy()
    quantiles[place] -= 12
    shifted = replace(model, drugs=drugs, network=network, left_out=replace(model.left_out, quantiles=quantiles))
    poison = drug_rank(drug_world.expression(slice(48, 54)), model=shifted)
    at = poison.drugs.index("Cisplatin")
    for sample in range(6):
        assert poison.order(sample).tolist() == result.order(sample).tolist()
        assert poison.order(sample, "ic50")[0] == at
        listed = poison.potent(sample).tolist()
        assert (at in listed) == (poison.answer.percentile[sample, at] >= 25)


def test_every_number_of_the_table_is_consistent() -> None:
    frame = ranked()
    np.testing.assert_allclose(frame["ic50_um"], np.exp(frame["ln_ic50"]))
    np.testing.assert_allclose(frame["ic50_um_low"], np.exp(frame["ln_ic50_low"]))
    np.testing.assert_allclose(frame["difference"], frame["ln_ic50"] - frame["drug_mean_ln_ic50"])
    below = frame["ln_ic50_high"] < frame["drug_mean_ln_ic50"]
    assert (below == (frame["range_lies"] == "below the drug mean")).all()
    assert below.any()
    assert (frame["weak"] == (frame["ic50_um"] > DOSE)).all()
    for _, part in frame.groupby("sample"):
        assert part["general"].iloc[0] == pytest.approx(part["percentile"].median())


def test_drugs_are_found_however_they_are_written() -> None:
    model = drug_world.model()
    assert known_drugs(model, ["azd8931", "TORIN-2", "plx 4720", "Erlotinib", "erlotinib"]) == [
        "AZD-8931", "Torin 2", "PLX4720", "Erlotinib",
    ]  # fmt: skip
    with pytest.raises(InputError, match=r"(?s)'Erlotinob'.*Erlotinib"):
        known_drugs(model, ["Erlotinob"])


def test_predict_is_the_same_table_in_the_order_asked_for() -> None:
    asked = ["Torin 2", "Erlotinib"]
    frame = drug_predict(drug_world.expression(slice(48, 54)), asked, model=drug_world.model())
    assert frame["drug"].tolist() == asked * 6
    whole = by_pair(ranked())
    pd.testing.assert_frame_equal(by_pair(frame), whole.loc[by_pair(frame).index], rtol=1e-9)
    assert "rank" not in frame


def test_a_cluster_is_the_sum_of_its_cells_and_of_nothing_else() -> None:
    adata, model = drug_world.cells(), drug_world.model()
    frame = drug_rank(adata.copy(), "cluster", model=model).to_frame()
    assert frame.groupby("sample")["cells"].first().to_dict() == {"a": 29, "b": 30, "c": 30}
    mine = adata[adata.obs["cluster"] == "b"]
    direct = model.predict(Samples(["b"], adata.var_names.to_numpy(str), np.asarray(mine.X.sum(axis=0), float)))
    said = frame[frame["sample"] == "b"].set_index("drug").loc[direct.drugs]
    np.testing.assert_allclose(said["ln_ic50"], direct.value[0])
    alone = drug_rank(mine.copy(), "cluster", model=model).to_frame()
    pd.testing.assert_frame_equal(by_pair(alone), by_pair(frame[frame["sample"] == "b"]))
    backwards = adata[::-1, ::-1].copy()
    pd.testing.assert_frame_equal(by_pair(drug_rank(backwards, "cluster", model=model).to_frame()), by_pair(frame))


def test_cells_without_a_label_are_left_out_and_told() -> None:
    result = drug_rank(drug_world.cells(), "cluster", model=drug_world.model())
    assert result.set.cells is not None
    assert result.set.cells.tolist() == [29, 30, 30]
    assert any("1 cells without a label" in note for note in result.set.notes)


def test_each_cell_is_what_it_would_be_alone() -> None:
    adata, model = drug_world.cells(40), drug_world.model()
    dark = adata.X.toarray()
    dark[7] = 0
    adata.X = csr_matrix(dark)
    before = adata.X.copy()
    result = drug_rank(adata, "cluster", ["Torin 2", "Erlotinib"], model=model, per_cell=True)
    assert (before != adata.X).nnz == 0
    values = adata.obsm[KEY]
    assert values.shape == (40, 2)
    assert np.isnan(values[7]).all()
    assert adata.uns[KEY]["drugs"].tolist() == ["Torin 2", "Erlotinib"]
    alone = model.predict(
        Samples(["x"], adata.var_names.to_numpy(str), np.asarray(adata.X[11].todense(), float)),
        ["Torin 2", "Erlotinib"],
    )
    np.testing.assert_allclose(values[11], alone.value[0], rtol=1e-5)
    group = (adata.obs["cluster"] == "b").to_numpy() & np.isfinite(values[:, 0])
    assert result.cells is not None
    np.testing.assert_allclose(result.cells.median[1], np.median(values[group].astype(float), axis=0), rtol=1e-6)
    with pytest.raises(InputError, match="exists already"):
        drug_rank(adata, "cluster", model=model)


def test_whole_and_bulk() -> None:
    adata, model = drug_world.cells(30), drug_world.model()
    one = drug_rank(adata.copy(), whole=True, model=model)
    assert len(one.samples) == 1
    frame = drug_world.expression(slice(48, 54)).set_index("line")
    lines = AnnData(frame.to_numpy(), pd.DataFrame(index=frame.index), pd.DataFrame(index=frame.columns))
    pd.testing.assert_frame_equal(
        by_pair(drug_rank(lines, bulk=True, model=model).to_frame()), by_pair(ranked()), rtol=1e-9
    )


def test_what_is_warned_of() -> None:
    """A panel has few genes; a cluster of a few cells says so; noise is unlike every line."""
    model, frame = drug_world.model(), drug_world.expression(slice(48, 54))
    panel = drug_rank(frame.iloc[:, :120], model=model)
    assert all(any("few genes" in text for text in panel.warnings(sample)) for sample in range(6))
    noise = frame.copy()
    noise.iloc[:, 1:] = np.random.default_rng(0).normal(size=(6, 400))
    assert all(any("unlike a cancer line" in t for t in drug_rank(noise, model=model).warnings(n)) for n in range(6))
    assert not any("unlike" in text for text in drug_rank(frame, model=model).warnings(0))
    adata = drug_world.cells(40)
    adata.obs.loc[["c3", "c6"], "cluster"] = "few"
    found = drug_rank(adata, "cluster", model=model)
    assert any("2 cells" in text for text in found.warnings(found.samples.index("few")))


def test_what_is_refused() -> None:
    model, adata = drug_world.model(), drug_world.cells(30)
    with pytest.raises(InputError, match=r"(?s)which of them belong together.*cluster"):
        drug_rank(adata, model=model)
    with pytest.raises(InputError, match="no column 'leiden'"):
        drug_rank(adata, "leiden", model=model)
    adata.obs["empty"] = ""
    with pytest.raises(InputError, match="No cell has a label in 'empty'"):
        drug_rank(adata, "empty", model=model)
    with pytest.raises(InputError, match="one of cluster key, whole and bulk"):
        drug_rank(adata, "cluster", whole=True, model=model)
    with pytest.raises(InputError, match="no order 'best'"):
        drug_rank(adata, "cluster", model=model, by="best")
    with pytest.raises(InputError, match="has no clusters"):
        drug_rank(drug_world.expression(), "cluster", model=model)
    with pytest.raises(GeneError, match="LINE-48"):
        drug_rank(drug_world.expression(slice(48, 54)).iloc[:, :12], model=model)


def test_a_molecule_that_is_new_has_no_percentile_and_no_mean() -> None:
    pytest.importorskip("rdkit")
    from cellingua.molecules.smiles import read_molecules

    model = drug_world.model_with_molecules()
    new = tuple(read_molecules(["new"], ["COc1cc2ncnc(Nc3ccccc3)c2cc1OC"]))
    frame = drug_predict(drug_world.expression(slice(48, 50)), [], model=model, molecules=new)
    assert frame["drug"].tolist() == ["new", "new"]
    assert frame["percentile"].isna().all()
    assert frame["drug_mean_ln_ic50"].isna().all()
    assert np.isfinite(frame["ln_ic50"]).all()
    both = drug_rank(drug_world.expression(slice(48, 50)), model=model, molecules=new)
    assert all(both.drugs[both.order(sample)[-1]] == "new" for sample in range(2))


def test_numbers_as_people_write_them() -> None:
    assert [um(v) for v in (0.00123, 0.0456, 1.234, 45.67, 999.6, 1234.5, 99_999, 1e-7, np.nan)] == [
        "0.00123", "0.0456", "1.23", "45.7", "1,000", "1,234", "> 10,000", "< 0.00001", "–",
    ]  # fmt: skip
    assert [fold(v) for v in (0.0, np.log(2), -np.log(3), np.log(200), np.nan)] == [
        "same", "2.0x higher", "3.0x lower", "200x higher", "–",
    ]  # fmt: skip


def test_the_tumour_that_ships_is_small_and_labelled() -> None:
    from cellingua.cells.doctor import examine
    from cellingua.cells.reading import open_cells
    from cellingua.tasks.columns import label_column

    assert sample_path().stat().st_size <= 500_000
    with open_cells(sample_path()) as cells:
        assert not examine(cells).refused
        labels = label_column(cells.obs, SAMPLE_KEY)
    assert {label: labels.count(label) >= 30 for label in set(labels)} == dict.fromkeys(
        ("Epithelial cells", "Myeloid cells", "T lymphocytes", "B lymphocytes"), True
    )
