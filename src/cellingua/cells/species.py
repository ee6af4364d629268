"""Which species the columns are from, and columns that are no human genes."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cellingua.cells.genes import Vocabulary

_ENSEMBL_SPECIES = {
    "ENSG": "human", "ENSMUSG": "mouse", "ENSRNOG": "rat", "ENSDARG": "zebrafish", "ENSSSCG": "pig",
    "ENSMMUG": "rhesus macaque", "ENSMFAG": "crab-eating macaque", "ENSPTRG": "chimpanzee",
    "ENSGGOG": "gorilla", "ENSCJAG": "marmoset", "ENSMICG": "mouse lemur", "ENSOCUG": "rabbit",
    "ENSBTAG": "cow", "ENSGALG": "chicken", "ENSCAFG": "dog", "ENSXETG": "frog", "ENSOARG": "sheep",
    "ENSCPOG": "guinea pig", "ENSECAG": "horse", "FBGN": "fruit fly", "WBGENE": "roundworm (C. elegans)",
}  # fmt: skip
_ENSEMBL = re.compile(r"(ENS[A-Z]{0,4}G(?=R?\d)|FBGN(?=\d)|WBGENE(?=\d))", re.IGNORECASE)
_TITLE = re.compile(r"[A-Z][a-z0-9.-]*[a-z][a-z0-9.-]*$")
_LOWER = re.compile(r"[a-z][a-z0-9.:_-]*$")
_SHAPES = {
    "yeast": re.compile(r"Y[A-P][LR]\d{3}[WC](-[A-Z])?$"),
    "thale cress (Arabidopsis)": re.compile(r"AT[1-5MC]G\d{5}$", re.IGNORECASE),
    "fruit fly": re.compile(r"(CG\d{4,5}|lncRNA:CR\d+|asRNA:CR\d+)$"),
    "zebrafish": re.compile(r"(si:|zgc:|im:)"),
}
_MOUSE = re.compile(r"(Gm\d+|.*Rik|H2-.*|mt-.*|Rp[ls]\d+.*)$")
_RAT = re.compile(r"(LOC\d+|RGD\d+|RT1-.*|AABR\d+.*|Mt-.*)$")
_GENOME = re.compile(r"(GRC[A-Za-z]\d+(?:-\d{4}-[A-Z])?|hg\d\d|mm\d\d?|rn\d|danRer\d+|dm\d|human|mouse|rat)_+", re.I)
_HUMAN_GENOME = re.compile(r"(GRCh\d+|hg\d\d|human)", re.IGNORECASE)
_NOT_EXPRESSION = re.compile(
    r"antibod|multiplex|crispr|custom|peak|\bprotein( expression)?$|hashtag|\bhto\b|\badt\b|spike|control|blank"
    r"|antigen|cell.?hash|genotyp|\btags?\b",
    re.IGNORECASE,
)
_TAG = re.compile(r"(.*[-_ ]TotalSeq[-_]?[ABC]?\b.*|Hashtag.*|.*[-_](ADT|HTO|AB)|(ADT|AB|HTO)[-_].*)$")
_PEAK = re.compile(r"(GRCh38_|hg\d\d_)?chr[\dXYM]+[:_-]\d+[-_]\d+$")
_CONTROL = re.compile(r"(ERCC-\d{5}|NegControl\w*|BLANK[_-].*|antisense_.*|UnassignedCodeword.*|__\w+|N_\w+)$")


@dataclass(frozen=True)
class Kept:
    """Columns that are human gene expression.

    Attributes
    ----------
    keep
        bool (n_columns,).
    names
        Names of all columns, without a prefix that names the genome.
    dropped
        What was left out (in words) -> number of columns.
    second
        bool (n_columns,): columns of another genome.
    second_name
        That genome, "" if there is none.
    """

    keep: NDArray[np.bool_]
    names: list[str]
    dropped: dict[str, int]
    second: NDArray[np.bool_]
    second_name: str


def human_columns(var: pd.DataFrame, names: Sequence[str], ids: Sequence[str] | None) -> Kept:
    """Find the columns that are human gene expression.

    Parameters
    ----------
    var
        Columns of the file; ``feature_types`` and ``genome`` are used if they are there.
    names, ids
        Names and Ensembl ids of the columns.
    """
    n = len(var)
    typed = np.zeros(n, bool)
    for column in ("feature_types", "feature_type", "modality"):
        if column in var:
            typed |= np.array([_NOT_EXPRESSION.search(str(value)) is not None for value in var[column]], bool)
    if not typed.any():
        typed = np.array([_TAG.match(name) is not None for name in names], bool)
        if typed.mean() > 0.5:  # then it is how this file writes its genes
            typed[:] = False
    peaks = np.array([_PEAK.match(name) is not None for name in names], bool) & ~typed
    controls = np.array([_CONTROL.match(name) is not None for name in names], bool) & ~typed
    genomes, names = _genomes(var, names, ids)
    human = np.array([genome == "" or _HUMAN_GENOME.match(genome) is not None for genome in genomes], bool)
    second = ~human & ~typed & ~peaks & ~controls
    if not (human & ~typed & ~peaks & ~controls).any():  # another species alone is not a second genome
        second[:] = False
    named = Counter(genome for genome, other in zip(genomes, second, strict=True) if other)
    label = named.most_common(1)[0][0] if named else ""
    dropped = {
        "antibodies, tags and other features that are no genes": int(typed.sum()),
        "peaks of open chromatin": int(peaks.sum()),
        "controls and spike-ins": int(controls.sum()),
    }
    keep = ~typed & ~peaks & ~controls & ~second
    return Kept(keep, list(names), {what: k for what, k in dropped.items() if k}, second, label)


def _genomes(var: pd.DataFrame, names: Sequence[str], ids: Sequence[str] | None) -> tuple[list[str], Sequence[str]]:
    """Return the genome of each column ("" where nothing says one), and names without a genome's prefix."""
    n = len(names)
    prefixes = [_GENOME.match(name) for name in names]
    if sum(prefix is not None for prefix in prefixes) > 0.5 * n:
        genomes = [prefix[1] if prefix is not None else "" for prefix in prefixes]
        return genomes, [name[p.end() :] if p is not None else name for name, p in zip(names, prefixes, strict=True)]
    if "genome" in var:
        genomes = [str(value) if _GENOME.match(f"{value}_") else "" for value in var["genome"]]
        if len(set(genomes) - {""}) > 1:
            return genomes, names
    by_id = [_species_of_id(text) for text in (ids if ids is not None else names)]
    shares = Counter(by_id)
    if shares["human"] > 0.05 * n:
        others = {species for species, k in shares.items() if species not in ("", "human") and k > 0.05 * n}
        return [species if species in others else "" for species in by_id], names
    return [""] * n, names


def _species_of_id(text: str) -> str:
    found = _ENSEMBL.search(str(text))
    return "" if found is None else _ENSEMBL_SPECIES.get(found[1].upper(), f"another species ({found[1]})")


def species_of(names: Sequence[str], ids: Sequence[str] | None, vocabulary: Vocabulary) -> str:
    """Return the species that the names of columns are from, "" if they don't say.

    Mouse symbols in upper case can't be told from human ones and pass as human.
    """
    by_id = Counter(_species_of_id(text) for text in (ids if ids is not None else names))
    del by_id[""]
    if by_id and sum(by_id.values()) > 0.3 * len(names):
        return by_id.most_common(1)[0][0]
    words = [name for name in names if any(letter.isalpha() for letter in name)]
    if not words:
        return ""
    exact = sum(vocabulary.row_of_name(name)[1] in ("symbol", "previous", "alias") for name in words)
    for species, shape in _SHAPES.items():
        if sum(shape.match(name) is not None for name in words) > 0.02 * len(words) and exact < 0.2 * len(words):
            return species
    title = sum(_TITLE.match(name) is not None for name in words) / len(words)
    if title > 0.4 and exact < 0.4 * len(words):
        mouse = sum(_MOUSE.match(name) is not None for name in words)
        rat = sum(_RAT.match(name) is not None for name in words)
        return "rat" if rat > mouse else "mouse"
    lower = sum(_LOWER.match(name) is not None for name in words) / len(words)
    if lower > 0.5 and exact < 0.1 * len(words):
        folded = sum(vocabulary.row_of_name(name)[0] >= 0 for name in words)
        return "human" if folded > 0.6 * len(words) else "zebrafish" if folded > 0.2 * len(words) else ""
    return "human" if exact > 0.1 * len(words) else ""
