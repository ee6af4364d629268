"""Names by similarity and the match classifier together: its arithmetic, its pruning, and its refusals."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import small_world
import torch
from anndata import AnnData
from scipy.sparse import csr_matrix

from cellingua.calibration.combination import CERTAIN, released
from cellingua.calibration.rollup import softmax
from cellingua.cells.counts import CountBlocks
from cellingua.cells.doctor import examine
from cellingua.cells.reading import open_cells
from cellingua.core.errors import InputError, ModelError
from cellingua.models import matching
from cellingua.models.model import LangCellModel
from cellingua.nn.matching import match_plain
from cellingua.tasks import scoring
from cellingua.tasks.annotate import annotate
from cellingua.tasks.options import choose_candidates
from cellingua.words.describing import describe_term

LABELS = small_world.LABELS
TERMS = list(small_world.TYPES)
FITTED = {"user": {"weight": 0.8, "temperature": 1.7}, "ontology": {"weight": 0.3, "temperature": 1.2}}


def fitted(model: LangCellModel) -> LangCellModel:
    return replace(model, calibration={**model.calibration, "match": FITTED})


@torch.no_grad()
def by_hand(model: LangCellModel, cells: AnnData, terms: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Return similarity over temperature, and log-odds of a match, of every cell and term, pair by pair."""
    source = open_cells(cells)
    (block,) = CountBlocks(source, examine(source)).blocks()
    ((rows, joint, states),) = model.cell_states(model.tokenise(block), batch_size=1000)
    np.testing.assert_array_equal(rows, np.arange(len(cells)))
    head = model.module.match_head
    assert head is not None
    ids, mask = model.pieces([describe_term(term) for term in terms])
    logits = match_plain(model.module.text_tower, head, states, ids, mask).numpy()
    vectors = model.term_vectors[[model.term_ids.index(term) for term in terms]]
    return joint @ vectors.T / model.config.temperature, logits[:, :, 1] - logits[:, :, 0]


def probabilities(model: LangCellModel, cells: AnnData, **options: object) -> np.ndarray:
    """Return the probability of each of the world's types in each cell, as `annotate` keeps them."""
    result = annotate(cells.copy(), LABELS, model=model, **options)  # type: ignore[arg-type]
    out = np.zeros((len(cells), len(LABELS)), np.float32)
    np.put_along_axis(out, result.scores.top_index.astype(np.int64), result.scores.top_probability, axis=1)
    return out


def test_the_released_scores_whatever_the_calibration(matching_model: LangCellModel) -> None:
    cells = small_world.cells(20, seed=1, noise=0.6)
    similarity, log_odds = by_hand(matching_model, cells, TERMS)
    odd = replace(matching_model, calibration={"temperature": 3.0, "threshold": 0.5, "match": FITTED})
    found = probabilities(odd, cells, match="compat")
    np.testing.assert_allclose(found, released(similarity, log_odds), atol=1e-5)


def test_ours_adds_weighted_log_odds(matching_model: LangCellModel) -> None:
    cells = small_world.cells(20, seed=1, noise=0.6)
    similarity, log_odds = by_hand(matching_model, cells, TERMS)
    assert np.ptp(log_odds, axis=1).mean() > 0.5  # the texts differ, or this shows little
    log_odds = np.clip(log_odds, -CERTAIN, CERTAIN)
    found = probabilities(fitted(matching_model), cells, match=True)
    np.testing.assert_allclose(found, softmax((similarity + 0.8 * log_odds) / 1.7), atol=1e-5)
    unfitted = probabilities(matching_model, cells, match="ours")
    np.testing.assert_allclose(unfitted, softmax(similarity + log_odds), atol=1e-5)
    plain = probabilities(fitted(matching_model), cells)
    np.testing.assert_allclose(plain, softmax(similarity), atol=1e-5)


def test_a_weight_of_nothing_is_the_similarity(matching_model: LangCellModel) -> None:
    nothing = {"user": {"weight": 0.0, "temperature": 1.0}}
    model = replace(matching_model, calibration={**matching_model.calibration, "match": nothing})
    cells = small_world.cells(20, seed=2, noise=0.6)
    np.testing.assert_allclose(probabilities(model, cells, match=True), probabilities(matching_model, cells), atol=1e-6)


def test_pruning_keeps_how_the_matched_stand_to_one_another(matching_model: LangCellModel) -> None:
    cells = small_world.cells(30, seed=3, noise=0.7)
    model = fitted(matching_model)
    whole, pruned = (probabilities(model, cells, match=True, match_top=k) for k in (0, 3))
    similarity, _ = by_hand(model, cells, TERMS)
    chosen = np.argsort(-similarity, axis=1, kind="stable")[:, :3]
    first = np.take_along_axis(whole, chosen, axis=1).argsort(axis=1)
    np.testing.assert_array_equal(np.take_along_axis(pruned, chosen, axis=1).argsort(axis=1), first)
    np.testing.assert_allclose(pruned.sum(axis=1), 1, atol=1e-5)
    assert np.abs(whole - pruned).max() > 1e-3


def test_the_whole_ontology_is_matched_in_part(matching_model: LangCellModel, monkeypatch: pytest.MonkeyPatch) -> None:
    cells = small_world.cells(40, seed=2)
    asked: list[tuple[int, ...]] = []
    pairs = matching.Matcher.pairs
    monkeypatch.setattr(
        matching.Matcher,
        "pairs",
        lambda self, states, chosen: asked.append(chosen.shape) or pairs(self, states, chosen),
    )
    result = annotate(cells, model=fitted(matching_model), match=True, match_top=5)
    assert asked == [(40, 5)]
    assert len(result.candidates) > 2500
    said = result.provenance["parameters"]["match"]
    assert said == {"mode": "ours", "top": 5, "matched_a_cell": 5, "weight": 0.3, "temperature": 1.2}
    assert set(result.status) <= {"named", "rolled_up", "unknown"}
    assert ((result.probability > 0) & (result.probability <= 1)).all()


def test_a_cell_answers_alone_in_any_order_and_block(
    matching_model: LangCellModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = fitted(matching_model)
    cells = small_world.cells(24, seed=4, noise=0.8)
    cells.X = csr_matrix(cells.X.multiply(np.arange(24)[:, None] != 3))  # a cell without a single count
    whole = annotate(cells.copy(), LABELS, model=model, match=True, match_top=3)
    assert whole.status[3] == "unknown"
    assert whole.probability[3] == 0
    order = np.random.default_rng(0).permutation(24)

    def same(result: object, rows: np.ndarray) -> None:
        np.testing.assert_array_equal(result.labels, whole.labels[rows])  # type: ignore[attr-defined]
        np.testing.assert_allclose(result.probability, whole.probability[rows], atol=1e-5)  # type: ignore[attr-defined]

    same(annotate(cells[order].copy(), LABELS, model=model, match=True, match_top=3), order)
    for row in (0, 5):
        same(annotate(cells[[row]].copy(), LABELS, model=model, match=True, match_top=3), np.array([row]))
    monkeypatch.setattr(scoring, "ROWS", 7)
    monkeypatch.setattr(matching, "BATCH", 3)
    same(annotate(cells.copy(), LABELS, model=model, match=True, match_top=3), np.arange(24))


def test_free_text_is_matched_as_it_is_written(matching_model: LangCellModel) -> None:
    cells = small_world.cells(12, seed=5)
    labels = [("t", "a t cell"), ("mono", "monocytes b")]
    candidates = choose_candidates(labels, None)
    ready = matching.prepare_match(matching_model, candidates)
    ids, mask = matching_model.pieces(candidates.texts)
    np.testing.assert_array_equal(ready.matcher.ids, ids)
    np.testing.assert_array_equal(ready.matcher.mask, mask)
    result = annotate(cells, labels, model=matching_model, match=True)
    assert set(result.labels) <= {"t", "mono", "unknown"}


def test_similarity_stays_the_default(matching_model: LangCellModel) -> None:
    cells = small_world.cells(12, seed=6)
    result = annotate(cells, LABELS, model=matching_model)
    assert result.provenance["parameters"]["match"] is None


def test_refusals(small_model: LangCellModel, matching_model: LangCellModel) -> None:
    cells = small_world.cells(6)
    with pytest.raises(ModelError, match="no match head"):
        annotate(cells, LABELS, model=small_model, match=True)
    with pytest.raises(InputError, match="match is 'mine'"):
        annotate(cells, LABELS, model=matching_model, match="mine")
    with pytest.raises(InputError, match="match_top is -1"):
        annotate(cells, LABELS, model=matching_model, match=True, match_top=-1)
    assert not cells.uns
