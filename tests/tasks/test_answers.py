"""Answers at an error rate, cells of no candidate, and answers that their company helps, on the small world."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import small_world
from anndata import AnnData
from scipy.sparse import csr_matrix

from cellingua.calibration.answers import Answers
from cellingua.cells.collections import CellSet
from cellingua.cells.counts import CountBlocks
from cellingua.cells.doctor import examine
from cellingua.cells.reading import open_cells
from cellingua.core.errors import InputError, ModelError
from cellingua.measures.calibration import covered, separation
from cellingua.models.inputs import Rows
from cellingua.models.model import LangCellModel
from cellingua.models.shelf import load_model
from cellingua.recipes.answers import fit_answers, lineages_of, open_cases, predict
from cellingua.tasks.annotate import annotate
from cellingua.tasks.answering import answering_of
from cellingua.words.candidates import from_labels, whole_ontology
from cellingua.words.ontology import load_ontology

LABELS = small_world.LABELS
T, CD4, CD8, B = "CL:0000084", "CL:0000624", "CL:0000625", "CL:0000236"


def cell_set(adata: AnnData, name: str) -> CellSet:
    """Return cells of the world as a recipe takes them."""
    with open_cells(adata) as cells:
        block = next(iter(CountBlocks(cells, examine(cells)).blocks(len(adata))))
    n = len(adata)
    return CellSet(
        csr_matrix(block.counts),
        block.totals,
        adata.obs["truth"].to_numpy().astype("U16"),
        np.ones(n, bool),
        np.full(n, name),
        np.asarray(adata.obs_names, np.str_),
    )


@pytest.fixture(scope="module")
def fitted(small_model_folder: object) -> dict[str, object]:
    """What is fitted on two sets of the world, one of them noisy."""
    model = replace(small_world.model(small_model_folder), supported=frozenset(small_world.TYPES))  # type: ignore[arg-type]
    sets = [("clean", small_world.cells(400, seed=21)), ("noisy", small_world.cells(400, seed=22, noise=0.6))]
    return fit_answers([predict(model, cell_set(adata, name), name) for name, adata in sets])


@pytest.fixture
def model(small_model: LangCellModel, fitted: dict[str, object]) -> LangCellModel:
    """The world's model with what was fitted."""
    return replace(small_model, supported=frozenset(small_world.TYPES), calibration=small_model.calibration | fitted)


def test_answers_are_fitted_on_the_logits_that_the_model_gives() -> None:
    """All but what is fitted there: the temperatures and the handicap of words."""
    bundled = load_model("langcell_mini")
    assert isinstance(bundled, LangCellModel)
    cells = cell_set(small_world.cells(30, seed=31), "one")
    part = predict(bundled, cells, "one")
    held = bundled.calibration
    block = Rows(cells.counts, cells.totals)
    embedding = bundled.encode_cells(bundled.tokenise(block))
    for candidates, said, temperature, words in (
        (from_labels(list(part.term_ids)), part.logits, held["temperature"], 0.0),
        (whole_ontology(), part.wide_logits, held["ontology_temperature"], held["words_only"]),
    ):
        given = bundled.logits(block, embedding, bundled.prepare(candidates)) * temperature
        unseen = np.array([term not in bundled.supported for term in candidates.term_ids])
        np.testing.assert_allclose(said, given - words * unseen * (candidates.origin != "user"), atol=1e-3)


def test_a_stated_rate_is_kept_and_lower_rates_give_wider_answers(model: LangCellModel) -> None:
    ontology = load_ontology("CL")
    cells = small_world.cells(300, seed=23, noise=0.5)
    truth = cells.obs["truth"].tolist()
    depths = []
    for rate in (0.3, 0.1, 0.02):
        result = annotate(cells.copy(), LABELS, model=model, error_rate=rate)
        assert 1 - covered(result.term_ids.tolist(), truth, ontology.is_a).mean() <= rate + 0.03
        depths.append(np.mean([len(ontology.ancestors(term)) if term else 0 for term in result.term_ids]))
        assert result.provenance["parameters"]["error_rate"] == rate
    assert depths == sorted(depths, reverse=True)


def test_cells_of_a_type_that_is_no_candidate_are_told(model: LangCellModel) -> None:
    cells = small_world.cells(200, seed=24)
    gone = (cells.obs["truth"] == "CL:0000171").to_numpy()
    result = annotate(cells, [name for name in LABELS if name != "pancreatic A cell"], model=model, error_rate=0.1)
    assert result.unknown is not None
    assert separation(result.unknown, gone) > 0.95
    assert np.array_equal(cells.obs["cellingua_unknown"], result.unknown)


def test_a_label_that_is_no_term_keeps_the_types_it_may_mean_from_speaking_against_it() -> None:
    asked = answering_of(load_model("langcell_mini"), from_labels(["T cell", "stellate cell"]), 0.1).open_score
    assert asked is not None
    near = dict(zip(asked.prepared.term_ids[2:], asked.related.tolist(), strict=True))
    assert near["CL:0002410"]  # pancreatic stellate cell
    assert not near["CL:0000236"]  # B cell


def test_a_calibration_of_another_score_is_refused(model: LangCellModel) -> None:
    held = model.calibration["answers"]
    other = {**held, "unknown": {**held["unknown"], "features": ["distance", "outside", "gap", "doubt"]}}
    with pytest.raises(ModelError, match="can't be read"):
        Answers.from_calibration({"answers": other})


def test_a_score_and_an_answer_depend_on_the_cell_alone(model: LangCellModel) -> None:
    cells = small_world.cells(40, seed=25, noise=0.7)
    whole = annotate(cells.copy(), LABELS, model=model, error_rate=0.02)
    assert len(set(whole.status)) > 1
    order = np.random.default_rng(0).permutation(40)
    mixed = annotate(cells[order].copy(), LABELS, model=model, error_rate=0.02)
    alone = [annotate(cells[[row]].copy(), LABELS, model=model, error_rate=0.02) for row in range(6)]
    assert whole.unknown is not None
    assert mixed.unknown == pytest.approx(whole.unknown[order], abs=1e-5)
    assert (mixed.labels == whole.labels[order]).all()
    for row, single in enumerate(alone):
        assert single.labels[0] == whole.labels[row]
        assert single.unknown == pytest.approx(whole.unknown[row], abs=1e-5)


def test_company_helps_in_columns_of_its_own(model: LangCellModel) -> None:
    cells = small_world.cells(120, seed=26, noise=0.5)
    plain, asked = cells.copy(), cells.copy()
    annotate(plain, LABELS, model=model)
    result = annotate(asked, LABELS, model=model, smooth=True, in_sample=True, sample_key="batch")
    for column in plain.obs.columns:
        assert list(plain.obs[column]) == list(asked.obs[column]), column
    assert set(asked.obs.columns) - set(plain.obs.columns) == {"cellingua_smoothed", "cellingua_in_sample"}
    assert "cellingua_unknown" not in asked.obs
    own = np.array([small_world.TYPES[term] for term in cells.obs["truth"]])
    assert (result.smoothed == own).mean() > (result.labels == own).mean()
    assert set(result.to_frame().columns) >= {"smoothed", "in_sample"}
    with pytest.raises(InputError, match="cellingua_smoothed"):
        annotate(AnnData(asked.X, asked.obs[["cellingua_smoothed"]], asked.var), LABELS, model=model, smooth=True)


def test_a_candidate_that_says_nothing_is_unknown(model: LangCellModel) -> None:
    cells = small_world.cells(30, seed=27)
    result = annotate(cells, ["eukaryotic cell"], model=model, error_rate=0.2)
    assert set(result.status) == {"unknown"}


def test_a_model_without_the_calibration_goes_on_as_it_was_and_refuses_a_rate(small_model: LangCellModel) -> None:
    cells = small_world.cells(20, seed=28)
    assert annotate(cells.copy(), LABELS, model=small_model).unknown is None
    with pytest.raises(InputError, match="not calibrated"):
        annotate(cells.copy(), LABELS, model=small_model, error_rate=0.1)
    with pytest.raises(InputError, match="error rate"):
        annotate(cells.copy(), LABELS, model=small_model, error_rate=1.5)


def test_types_are_one_lineage_where_one_contains_the_other_or_a_lineage_both() -> None:
    ontology = load_ontology("CL")
    myeloid, macrophage, monocyte = "CL:0000763", "CL:0000235", "CL:0000576"
    found = lineages_of([CD4, CD8, T, B, myeloid, macrophage, monocyte, "CL:0000222"], ontology)
    assert sorted(map(sorted, found.values())) == sorted(
        map(sorted, [[T, CD4, CD8], [B], [myeloid, macrophage, monocyte], ["CL:0000222"]])
    )


def test_what_is_fitted_is_read_again_and_cases_take_a_whole_lineage(
    fitted: dict[str, object], model: LangCellModel
) -> None:
    answers = Answers.from_calibration(fitted)
    assert answers is not None
    assert answers.sets == ("clean", "noisy")
    part = predict(model, cell_set(small_world.cells(150, seed=29), "third"), "third")
    cases = open_cases(part, float(fitted["temperature"]))  # type: ignore[arg-type]
    assert (cases[T].missing == np.isin(part.truth, [CD4, CD8])).all()
    assert np.mean([separation(answers.open_set.score(c.features), c.missing) for c in cases.values()]) > 0.85
