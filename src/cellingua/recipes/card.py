"""The card of a model that a recipe trained: what it saw, how, how well, and what it isn't for."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from cellingua.models.langcell import LangCellConfig, LangCellModule, count_parameters
from cellingua.recipes.card_evidence import USE, evidence, sources
from cellingua.recipes.card_parts import how, table
from cellingua.recipes.material import Material
from cellingua.recipes.validate import Validation
from cellingua.recipes.validate_match import MatchValidation


def write_card(
    config: dict[str, Any],
    material: Material,
    checked: Validation | None,
    closeness: dict[str, float],
    towers: LangCellConfig,
    n_genes: int,
) -> str:
    """Return the card in Markdown; every figure in it was computed in this run."""
    cells, profiles = material.cells, material.profiles
    studies = sorted(set(profiles.studies.tolist()))
    parts = [
        f"# {config['name']}",
        config["description"],
        "## What it saw",
        f"- {len(profiles):,} mean profiles of {len(set(profiles.terms.tolist()))} cell types from "
        f"{len(studies)} studies ({', '.join(studies)}), as pseudo-cells.",
        f"- Markers of {len(material.markers):,} types, as pseudo-cells and as a second channel.",
        "- The same profiles and real cells once more, for the decoder that arbitrates between like types.",
        f"- {int(cells.curated.sum()):,} real cells with a curated label and {int((~cells.curated).sum()):,} with a "
        "machine-made one:",
        table(["file", "curated", "machine-made"], _cell_rows(material)),
        f"- {n_genes:,} genes. The text tower (BERT, {towers.text.layers} layers of width {towers.text.width}) came "
        f"trained, and was adapted to the Cell Ontology's words for {config['word_steps']} steps.",
        "## Evaluation cells kept out",
        _refusals(material),
        "## Validation",
        _validation(checked),
        f"Texts whose nearest term is their own, before and after the text tower was adapted: {json.dumps(closeness)}.",
        *how(config),
        "## Evidence by tissue",
        evidence(cells.terms.tolist(), profiles.terms.tolist(), material.markers),
        "## Sources",
        sources(material.hashes, material.folder),
        "## Intended use",
        USE,
    ]
    return "\n\n".join(parts) + "\n"


def write_corpus_card(
    config: Mapping[str, Any],
    cells: Mapping[str, int],
    module: LangCellModule,
    genes: int,
    types: Sequence[str],
    *,
    fresh_text: bool,
) -> str:
    """Return the card of a model that was trained on a corpus, in Markdown.

    Parameters
    ----------
    config
        The recipe's.
    cells
        File -> cells that were trained on.
    module
        The model.
    genes
        Genes of the model.
    types
        Cell types that the corpus names.
    fresh_text
        Whether the text tower started from random weights.
    """
    towers = module.config
    assert towers.bert is not None  # of a corpus
    start = "started from random weights" if fresh_text else "came trained"
    parts = [
        f"# {config['name']}",
        config["description"],
        "## What it saw",
        f"{sum(cells.values()):,} cells of {len(cells):,} files, on {genes:,} genes; {len(types):,} cell types:",
        table(["file", "cells"], [[name, f"{n:,}"] for name, n in cells.items()]),
        f"{count_parameters(module):,} parameters: a cell tower of {towers.bert.layers} layers of width "
        f"{towers.bert.width}, and a text tower of {towers.text.layers} layers of width {towers.text.width}, which "
        f"{start}.",
        "## Validation",
        "None: temperatures are 1.",
        *how(config),
        "## Intended use",
        "Research on human single cells: a first name for cells and clusters, to be checked by a person who knows the "
        "tissue. Not for diagnosis or any clinical decision. Types that the corpus does not name are guesses.",
    ]
    return "\n\n".join(parts) + "\n"


def _cell_rows(material: Material) -> list[list[str]]:
    cells = material.cells
    rows = []
    for file in np.unique(cells.files):
        inside = cells.files == file
        rows.append([str(file), f"{(inside & cells.curated).sum():,}", f"{(inside & ~cells.curated).sum():,}"])
    return rows


def _refusals(material: Material) -> str:
    if material.refused is None:
        return "No evaluation folder was given, so nothing was compared."
    refused = {file: n for file, (n, _) in material.refused.items() if n}
    total = sum(size for _, size in material.refused.values())
    by_file = ", ".join(f"{file} {n}" for file, n in refused.items()) or "none"
    return (
        f"{sum(refused.values()):,} of {total:,} cells were refused because they match an evaluation cell by barcode "
        f"and counts, or by a correlation above 0.9 over at least 200 genes ({by_file})."
    )


def _validation(checked: Validation | None) -> str:
    if checked is None:
        return "None: temperatures are 1."
    held = checked.calibration()
    return (
        "A model that had not seen these files named up to 500 cells of each, with the file's own labels as "
        "candidates. Accuracy by strength of the marker evidence, all else as chosen:\n\n"
        + _by_file(checked.accuracy, checked.cells)
        + "\n\nAccuracy by weight of the agreement with what the decoder says:\n\n"
        + _by_file(checked.by_agreement, checked.cells)
        + "\n\nAccuracy by weight of the decoder's arbitration between like types:\n\n"
        + _by_file(checked.by_decoder, checked.cells)
        + f"\n\nChosen: strength {checked.strength:g}, agreement {checked.agreement:g}, {checked.unmarked:g} for a "
        f"candidate without markers, decoder {checked.decoded:g}, temperature "
        f"{held['temperature']:.3f}; for the whole ontology "
        f"markers times {checked.ontology_markers:g}, decoder {checked.ontology_decoded:g}, temperature "
        f"{held['ontology_temperature']:.3f}, {held['words_only']:.2f} for terms known from words alone, and "
        f"{checked.unprofiled:.2f} more for terms of which neither a profile nor cells were seen, and "
        f"{checked.wider_term:.2f} for terms of which a kind was seen."
        + ("" if checked.match is None else "\n\n" + _matching(checked.match))
    )


def _by_file(accuracy: Mapping[str, Mapping[str, float]], cells: Mapping[str, int]) -> str:
    columns = list(next(iter(accuracy.values())))
    rows = [[file, f"{cells[file]:,}", *(f"{row[key]:.3f}" for key in columns)] for file, row in accuracy.items()]
    return table(["file", "cells", *columns], rows)


def _matching(checked: MatchValidation) -> str:
    ways = list(next(iter(checked.accuracy.values())))
    rows = [[file, *(f"{row[way]:.3f}" for way in ways)] for file, row in checked.accuracy.items()]
    rows.append(["mean", *(f"{checked.mean(way):.3f}" for way in ways)])
    user, ontology = checked.user, checked.ontology
    return (
        "The match classifier, on fewer cells of the same files. Accuracy by way of naming:\n\n"
        + table(["file", *ways], rows)
        + f"\n\nChosen: weight {user.weight:.3f}, temperature {user.temperature:.3f}; for the whole ontology "
        f"{ontology.weight:.3f} and {ontology.temperature:.3f}."
    )
