"""Ranges around numbers: they hold as often as they say, for new lines, too."""

from __future__ import annotations

import numpy as np
import pytest

from cellingua.calibration.ranges import Ranges, covered
from cellingua.core.errors import InputError


def errors(lines: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return truth, prediction, deviation and line of pairs whose errors go together within a line."""
    rng = np.random.default_rng(seed)
    line = np.repeat(np.arange(lines), rng.integers(5, 40, lines))
    sd = rng.uniform(0.5, 2, len(line))
    own = rng.standard_t(4, lines)[line]
    prediction = rng.normal(size=len(line))
    return prediction + sd * (own + rng.normal(size=len(line))), prediction, sd, line


@pytest.mark.parametrize("level", [0.5, 0.8, 0.9, 0.95])
def test_ranges_cover_new_lines(level: float) -> None:
    held = []
    for seed in range(60):
        fitted = Ranges.fit(*errors(60, seed))
        truth, prediction, sd, line = errors(60, 1000 + seed)
        low, high = fitted.around(prediction, sd, level)
        inside = (truth >= low) & (truth <= high)
        held.append(np.mean([inside[line == one].mean() for one in range(60)]))
    assert np.mean(held) == pytest.approx(level, abs=0.02)


def test_a_line_with_many_pairs_counts_as_one() -> None:
    truth, prediction, sd, line = errors(30, 0)
    again = np.concatenate([np.arange(len(line)), np.repeat(np.flatnonzero(line == 3), 50)])
    once = Ranges.fit(truth, prediction, sd, line)
    many = Ranges.fit(truth[again], prediction[again], sd[again], line[again])
    assert many.units == once.units == 30
    assert all(many.reach[level] == pytest.approx(once.reach[level]) for level in once.reach)


def test_ranges_grow_with_the_level_and_are_endless_where_units_are_too_few() -> None:
    fitted = Ranges.fit(*errors(100, 1))
    reach = [fitted.reach[level] for level in sorted(fitted.reach)]
    assert reach == sorted(reach)
    few = Ranges.fit(*errors(5, 1))
    assert np.isinf(few.reach[0.9])
    assert np.isfinite(few.reach[0.8])
    low, high = few.around(np.zeros(2), np.ones(2), 0.9)
    assert covered(np.array([1e9, -1e9]), low, high) == 1.0


def test_bad_input_is_refused() -> None:
    truth, prediction, sd, line = errors(5, 0)
    with pytest.raises(InputError, match="deviation above 0"):
        Ranges.fit(truth, prediction, sd * 0, line)
    with pytest.raises(InputError, match="level 2"):
        Ranges.fit(truth, prediction, sd, line, levels=(2.0,))
    with pytest.raises(InputError, match=r"No range of level 0\.7"):
        Ranges.fit(truth, prediction, sd, line).around(prediction, sd, 0.7)
