"""How much a match classifier counts, from cells that the model has not seen."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import small_world

from cellingua.cells.counts import CountBlocks
from cellingua.cells.doctor import examine
from cellingua.cells.reading import open_cells
from cellingua.models.inputs import Counts
from cellingua.models.matching import CandidateMatch, Opinions, combination_of
from cellingua.models.model import LangCellModel
from cellingua.recipes import validate_match as module
from cellingua.recipes.validate_match import HeldOut, validate_match
from cellingua.tasks.annotate import annotate
from cellingua.words.candidates import whole_ontology
from cellingua.words.ontology import load_ontology


def held_out(file: str, n: int, seed: int) -> HeldOut:
    """Return hard cells of the small world with what they are."""
    cells = small_world.cells(n, seed=seed, noise=0.85)
    source = open_cells(cells)
    (block,) = CountBlocks(source, examine(source)).blocks()
    own = sorted(small_world.TYPES)
    truth = np.array([own.index(term) for term in cells.obs["truth"]])
    ontology = load_ontology("CL")
    kinds = {term: ontology.descendants(term) | {term} for term in own}
    right = np.array([[other in kinds[own[place]] for other in whole_ontology().term_ids] for place in truth])
    return HeldOut(file, block, own, truth, right)


def knowing(held: list[HeldOut], sign: float) -> object:
    """Return an `ask` whose classifier knows the truth (or its contrary)."""
    whole = module.ask

    def answer(model: LangCellModel, block: Counts, ranked: object, match: CandidateMatch) -> Opinions:
        said = whole(model, block, ranked, match)  # type: ignore[arg-type]
        part = next(part for part in held if part.block is block)
        rng = np.random.default_rng(3)
        truth = part.right if said.chosen is not None else part.truth[:, None] == np.arange(len(part.own))
        seen = truth if said.chosen is None else np.take_along_axis(truth, said.chosen, axis=1)
        log_odds = sign * np.where(seen, 3.0, -3.0) + rng.normal(0, 2, seen.shape)
        return replace(said, log_odds=log_odds.astype(np.float32))

    return answer


@pytest.fixture
def held() -> list[HeldOut]:
    return [held_out("one", 30, 21), held_out("two", 20, 22)]


def test_a_classifier_that_knows_is_believed(
    matching_model: LangCellModel, held: list[HeldOut], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ask", knowing(held, 1.0))
    found = validate_match(matching_model, held)
    assert found.user.weight > 0.1
    assert found.ontology.weight > 0.1
    for row, loss in zip(found.accuracy.values(), found.loss.values(), strict=True):
        assert row["ours"] > row["similarity"]
        assert loss["ours"] < loss["similarity"]
        assert loss["ontology, ours"] < loss["ontology, similarity"]
    assert found.mean("ours") == pytest.approx(np.mean([row["ours"] for row in found.accuracy.values()]))
    assert "Match weight" in found.summary()


def test_one_that_is_always_wrong_is_not(
    matching_model: LangCellModel, held: list[HeldOut], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ask", knowing(held, -1.0))
    found = validate_match(matching_model, held)
    assert found.user.weight == 0
    for row in found.accuracy.values():
        assert row["ours"] == row["similarity"]


def test_what_was_fitted_is_what_is_used(matching_model: LangCellModel, held: list[HeldOut]) -> None:
    found = validate_match(matching_model, held)
    model = replace(matching_model, calibration={**matching_model.calibration, "match": found.calibration()})
    assert combination_of(model, "user") == found.user
    assert combination_of(model, "ontology") == combination_of(model, "tissue") == found.ontology
    cells = small_world.cells(30, seed=21, noise=0.85)
    result = annotate(cells, held[0].own, model=model, match=True, match_top=0)
    answers = np.array(held[0].own)[result.best]
    accuracy = np.mean(answers == cells.obs["truth"].to_numpy())
    assert accuracy == pytest.approx(found.accuracy["one"]["ours"], abs=1e-4)
