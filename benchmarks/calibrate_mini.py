"""Calibrate `langcell_mini` for a user's candidates on the sets that were left out in turn.

Run as ``make calibrate-langcell-mini``, then ``make cards``. A training run calibrates on its few held-out files; these
are blood and tumours. The models of ``make train-left-out`` answer six whole sets that they have not seen, among them
fetal brain and a gastrula, so that thresholds and "unknown" follow from tissues that a model does not know, too. What
``make bench-calibration`` measures set by set is thereby what ships. The thresholds of the whole ontology stay those of
the training run, with its other temperature.
"""

from __future__ import annotations

import json
from typing import Any

from benchmarks.answers_judge import SHIPPED, left_out_predictions
from benchmarks.common import shared_folder
from cellingua.core.files import write_json
from cellingua.models.bundle import CALIBRATION
from cellingua.models.manifest import read_manifest, write_manifest
from cellingua.models.shelf import BUNDLED
from cellingua.recipes.answers import fit_answers


def calibrated(held: dict[str, Any], fitted: dict[str, Any]) -> dict[str, Any]:
    """Return a calibration with what was fitted for a user's candidates in place of what it held."""
    rates = {**held["answers"]["error_rates"], "user": fitted["answers"]["error_rates"]["user"]}
    answers = {**fitted["answers"], "error_rates": rates}
    return {**held, "temperature": fitted["temperature"], "answers": answers}


def main() -> int:
    """Write the calibration and the manifest."""
    folder = BUNDLED / SHIPPED
    fitted = fit_answers(left_out_predictions(shared_folder() / "data" / "cells"))
    before = read_manifest(folder)
    held = json.loads(before.verified(CALIBRATION).read_text(encoding="utf-8"))
    write_json(folder / CALIBRATION, calibrated(held, fitted))
    write_manifest(folder, before.optional)
    print(f"{SHIPPED}: temperature {fitted['temperature']:.3f}, calibrated on {', '.join(fitted['answers']['sets'])}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
