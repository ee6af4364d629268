"""Pictures of what a drug prediction rests on: bars of genes, and a molecule with its atoms coloured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from cellingua.models.drug_atoms import AtomEffects
from cellingua.report.palette import COLOURS
from cellingua.tasks.drug_explain import DrugExplanation

#: Speaks for sensitive, for resistant: blue and orange, with a word beside each.
SENSITIVE, RESISTANT = COLOURS[0], COLOURS[7]
PANELS = 12
SIZE = (420, 300)


def draw_genes(told: DrugExplanation, path: Path, *, top: int = 12) -> int:
    """Write bars of the first genes of each prediction (SVG), and return how many of the predictions were drawn."""
    genes = told.genes
    pairs = [(sample, drug) for sample in range(len(genes.samples)) for drug in range(len(genes.drugs))][:PANELS]
    wide = min(3, len(pairs))
    rows = -(-len(pairs) // wide)
    with matplotlib.rc_context({"svg.hashsalt": "cellingua", "svg.fonttype": "path"}):
        figure = Figure(figsize=(3.6 * wide, (0.6 + 0.19 * top) * rows + 0.6), layout="constrained")
        grid = figure.subplots(rows, wide, squeeze=False)
        for place, axes in enumerate(grid.flat):
            if place >= len(pairs):
                axes.set_axis_off()
                continue
            sample, drug = pairs[place]
            first = genes.order(sample, drug)[:top][::-1]
            effect = genes.effect[sample, drug, first]
            axes.barh(np.arange(len(first)), effect, color=[SENSITIVE if v < 0 else RESISTANT for v in effect])
            axes.set_yticks(np.arange(len(first)), [_plain(str(gene)) for gene in genes.genes[first]], fontsize=7)
            axes.axvline(0, color="#444444", linewidth=0.6)
            axes.tick_params(axis="x", labelsize=7)
            axes.set_title(f"{_short(genes.samples[sample])}: {_short(genes.drugs[drug])}", fontsize=8)
            for side in ("top", "right"):
                axes.spines[side].set_visible(False)
        figure.supxlabel("effect on ln IC50: below 0 speaks for sensitive, above for resistant", fontsize=8)
        figure.savefig(path, format="svg", metadata={"Date": None, "Creator": None})
    return len(pairs)


def atoms_svg(told: AtomEffects, sample: int) -> str:
    """Return a molecule as SVG, atoms coloured by what they add: blue for sensitive, orange for resistant."""
    from cellingua.molecules.smiles import drawn

    effect = told.effect[sample]
    most = float(np.abs(effect).max(initial=0.0)) or 1.0
    colours = {atom: _mixed(SENSITIVE if value < 0 else RESISTANT, abs(float(value)) / most)
               for atom, value in enumerate(effect)}  # fmt: skip
    return drawn(told.molecule, colours, SIZE)


def _mixed(colour: str, share: float) -> tuple[float, float, float]:
    """Return a colour thinned with white."""
    parts: list[Any] = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (1 - share * (1 - part) for part in parts)
    return red, green, blue


def _short(name: str, most: int = 26) -> str:
    return _plain(name if len(name) <= most else f"{name[: most - 3]}...")


def _plain(name: str) -> str:
    """Return a name that matplotlib takes as it is written: a dollar would begin a formula."""
    return name.replace("$", r"\$")
