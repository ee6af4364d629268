"""Wider targets: terms above a term by their steps, drawn as often as said, never one that was ruled out."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cellingua.core.errors import ConfigError
from cellingua.recipes.langcell import preset
from cellingua.recipes.wider import Wider, WiderConfig, steps_up, with_wider
from cellingua.words.ontology import load_ontology

NAIVE, NK, CELL = "CL:0000895", "CL:0000623", "CL:0000000"
CONFIG = WiderConfig(0.3, 0.5, (CELL, "CL:0000988"))


def test_steps_are_those_of_the_shortest_way() -> None:
    ontology = load_ontology("CL")
    found = steps_up(NAIVE)
    assert set(found) == set(ontology.ancestors(NAIVE))
    for term, steps in found.items():
        if steps > 1:  # one step further than its nearest kind that lies on a way up
            kinds = [found[kind] for kind in ontology.children(term) if kind in found]
            assert steps == min(kinds) + 1
    assert {term for term, steps in found.items() if steps == 1} == set(ontology.parents(NAIVE))
    assert steps_up(CELL) == {}


def test_terms_that_were_ruled_out_are_no_targets() -> None:
    terms = with_wider([NAIVE, NK], CONFIG)
    assert terms == sorted(({NAIVE, NK} | steps_up(NAIVE).keys() | steps_up(NK).keys()) - {*CONFIG.without})
    assert with_wider([NK, NAIVE], WiderConfig()) == sorted([NAIVE, NK])
    assert CELL in with_wider([CELL, NK], CONFIG)  # one that cells carry stays


def test_as_many_are_widened_as_said_and_nearer_terms_more_often() -> None:
    terms = with_wider([NAIVE, CELL], CONFIG)
    row = terms.index(NAIVE)
    targets = torch.full((40_000,), row)
    found = Wider(terms, CONFIG)(targets, np.random.default_rng(0)).numpy()
    assert (targets == row).all()  # those that were given stay as they are
    assert (found != row).mean() == pytest.approx(0.3, abs=0.01)
    up = {term: steps for term, steps in steps_up(NAIVE).items() if term not in CONFIG.without}
    total = sum(0.5**steps for steps in up.values())
    for term, steps in up.items():
        assert (found == terms.index(term)).mean() == pytest.approx(0.3 * 0.5**steps / total, abs=0.01)


def test_one_without_wider_terms_stays_and_a_seed_decides() -> None:
    terms = with_wider([NAIVE, CELL], CONFIG)
    wider = Wider(terms, WiderConfig(1.0, 0.5, CONFIG.without))
    alone = torch.full((50,), terms.index(CELL))
    assert torch.equal(wider(alone, np.random.default_rng(0)), alone)
    mixed = torch.tensor([terms.index(NAIVE), terms.index(CELL)] * 20)
    first = wider(mixed, np.random.default_rng(3))
    assert torch.equal(first, Wider(terms, wider._config)(mixed, np.random.default_rng(3)))
    assert (first[::2] != mixed[::2]).all()
    assert torch.equal(Wider(terms, WiderConfig())(mixed, np.random.default_rng(3)), mixed)


@pytest.mark.parametrize(("share", "decay"), [(-0.1, 0.5), (1.1, 0.5), (0.3, 0.0), (0.3, 1.5)])
def test_shares_that_are_none(share: float, decay: float) -> None:
    with pytest.raises(ConfigError):
        WiderConfig(share, decay)


def test_what_a_term_is_taught_as_is_below_it_and_below_more_than_it_was() -> None:
    ontology, taught = load_ontology("CL"), dict(preset("langcell_mini").narrower)
    assert taught
    for term, narrower in taught.items():
        assert ontology.is_a(narrower, term)
        assert ontology.in_human(narrower)
        assert narrower not in taught  # one step is enough
        assert ontology.ancestors(narrower) - {term} > ontology.ancestors(term)
