"""Train the drug model that ships, measure it on lines that it never saw, and write its folder with its card.

Run as ``make train-drug-mini`` or ``python scripts/train_drug_mini.py --drugs ../shared/data/drug --cells
../shared/data/cells -o src/cellingua/data/models/drug_mini``. Lines of the test role of TGSA's split by line are kept
out of everything; the card's figures are of them, predicted by the very file that ships.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

import anndata
import numpy as np

from cellingua.core.progress import Console
from cellingua.models.drug_expression import Samples
from cellingua.recipes.drug_card import judged, panels, warned, with_card
from cellingua.recipes.drug_mini import MiniConfig, fit_learned
from cellingua.recipes.drug_mini_data import read_mini_data

#: Cells whose warnings the card tells: lines in sequencing, a tumour, and normal cells.
CELLS = {
    "Cancer lines, tags of transcripts": [("corpus/sc_mixology_lung_lines.h5ad", "cell_type")],
    "Lines and cultured cells, whole transcripts of a few cells": [
        ("corpus/li_cell_lines.h5ad", "cell_type"),
        ("corpus/pollen_lines_cortex.h5ad", "cell_type"),
    ],
    "A panel": [("corpus/stoeckius_hashed_lines.h5ad", "cell_type")],
    "A tumour's cells": [("corpus/kim_luad_t34.h5ad", "cell_type")],
    "Normal cells": [
        ("evaluation/pbmc3k.h5ad", "cell_type"),
        ("corpus/hao_pbmc_1000.h5ad", "pseudo_label"),
        ("evaluation/baron_donor1.h5ad", "cell_type"),
    ],
}
FEWEST = 20


def pseudo_bulks(path: Path, key: str) -> Samples:
    """Return the summed counts of each label's cells, of labels with enough of them."""
    held = anndata.read_h5ad(path)
    groups = dict(held.obs.groupby(held.obs[key].astype(str)).indices)
    names = sorted(name for name in groups if len(groups[name]) >= FEWEST and name != "unknown")
    counts = np.array([np.asarray(held.X[groups[name]].astype(np.float64).sum(axis=0)).ravel() for name in names])
    columns = held.var.get("ensembl_id", held.var_names)
    genes = np.array([str(i) or str(n) for i, n in zip(columns, held.var_names, strict=True)])
    return Samples([f"{path.stem}: {name}" for name in names], genes, counts, counts)


def main() -> int:
    """Train and write; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--drugs", type=Path, required=True, help="the folder of drug-response tables")
    parser.add_argument("--cells", type=Path, required=True, help="the folder of cells and mean profiles")
    parser.add_argument("-o", "--out", type=Path, required=True, help="the model folder to write")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    read = read_mini_data(arguments.drugs, arguments.cells)
    model = fit_learned(
        read.learned,
        [str(drug) for drug in read.data.pairs.drugs],
        read.data.molecules,
        seed=arguments.seed,
        progress=Console(),
        config=MiniConfig(),
        name="drug_mini",
        description="ln IC50 of 170 drugs from expression, 814 cell lines",
        other=("sequencing", read.sequenced),
    )
    facts = {
        **model.facts,
        "test": judged(model, read.test, read.test_grid),
        "panels": panels(model, read.test, read.test_grid),
    }
    cells = {group: [row for file, key in files for row in warned(model, pseudo_bulks(arguments.cells / file, key))]
             for group, files in CELLS.items()}  # fmt: skip
    model = with_card(replace(model, facts=facts), cells)
    model.save(arguments.out)
    print({key: model.facts[key] for key in ("left_out", "coverage_left_out", "test")})
    return 0


if __name__ == "__main__":
    sys.exit(main())
