"""Temperature and bias: planted ones are found, and the likelihood is never worse than without."""

from __future__ import annotations

import numpy as np
import pytest

from cellingua.calibration.rollup import softmax
from cellingua.calibration.temperature import Labelled, Temperature, fit_temperature
from cellingua.measures.calibration import expected_calibration_error


def planted(temperature: float, bias: float, n: int = 3000, seed: int = 0) -> Labelled:
    """Return logits that are `temperature` times too large, and lack `bias` for the last three of eight labels."""
    rng = np.random.default_rng(seed)
    words = np.arange(8) >= 5
    true = rng.normal(size=(n, 8)).astype(np.float32) * 2
    chosen = (true + rng.gumbel(size=(n, 8))).argmax(axis=1)
    logits = true * temperature - bias * words
    return Labelled(logits.astype(np.float32), np.eye(8, dtype=bool)[chosen], words)


@pytest.mark.parametrize(("temperature", "bias"), [(3.0, -2.0), (0.5, -1.0), (1.0, 0.0)])
def test_planted_values_are_found(temperature: float, bias: float) -> None:
    part = planted(temperature, bias)
    found = fit_temperature([part, planted(temperature, bias, 1000, 1)])
    assert found.temperature == pytest.approx(temperature, rel=0.12)
    assert found.bias == pytest.approx(bias, abs=0.35)
    assert found.loss(part) <= Temperature().loss(part) + 1e-3
    probability = softmax(found.apply(part.logits, part.words_only))
    right = part.right[np.arange(len(probability)), probability.argmax(axis=1)]
    assert expected_calibration_error(probability.max(axis=1), right, 10) < 0.03


def test_no_answer_changes_without_a_bias_and_nothing_to_fit_gives_one() -> None:
    part = planted(2.0, 0.0)
    plain = Temperature(3.7).apply(part.logits, part.words_only)
    assert (plain.argmax(axis=1) == part.logits.argmax(axis=1)).all()
    assert fit_temperature([]) == Temperature()
    only = Labelled(part.logits, part.right, np.zeros(8, bool))
    assert fit_temperature([only]).bias == 0
