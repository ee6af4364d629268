"""Which cell types have evidence in which tissue: the reviewed table made by ``scripts/make_tissues.py``."""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files

from cellingua.core.errors import LabelError
from cellingua.words.ontology import load_ontology

# What people call a tissue where UBERON's own names and synonyms differ.
COMMON_NAMES = {
    "bladder": "UBERON:0001255",
    "skin": "UBERON:0002097",
    "muscle": "UBERON:0001134",
    "skeletal muscle": "UBERON:0001134",
    "bone": "UBERON:0002481",
    "cartilage": "UBERON:0002418",
    "joint": "UBERON:0002217",
    "fat": "UBERON:0001013",
    "adipose": "UBERON:0001013",
    "prostate": "UBERON:0002367",
    "pbmc": "UBERON:0000178",
    "peripheral blood": "UBERON:0000178",
    "cortex": "UBERON:0000956",
    "neocortex": "UBERON:0000956",
    "hippocampus": "UBERON:0002421",
    "gut": "UBERON:0000160",
    "bowel": "UBERON:0000160",
    "oesophagus": "UBERON:0001043",
    "thyroid": "UBERON:0002046",
    "adrenal": "UBERON:0002369",
    "pituitary": "UBERON:0000007",
    "salivary gland": "UBERON:0001044",
    "islet": "UBERON:0000006",
    "islets": "UBERON:0000006",
    "mammary gland": "UBERON:0000310",
    "vessel": "UBERON:0001981",
    "airway": "UBERON:0003126",
    "eyes": "UBERON:0000970",
    "lungs": "UBERON:0002048",
    "kidneys": "UBERON:0002113",
}


@cache
def tissue_table() -> dict[str, frozenset[str]]:
    """Return the shipped table: UBERON id (or ``everywhere``) -> CL ids."""
    text = files("cellingua").joinpath("data", "words", "tissues.tsv").read_text(encoding="utf-8")
    rows = (line.split("\t") for line in text.splitlines()[1:] if line)
    return {row[0]: frozenset(row[2].split()) for row in rows}


def find_tissue(tissue: str) -> str:
    """Return the UBERON id of a tissue given by id, name or synonym.

    Raises
    ------
    LabelError
        If there is none; the nearest are named.
    """
    uberon = load_ontology("UBERON")
    text = " ".join(tissue.split())
    match = re.fullmatch(r"UBERON[:_ ]?(\d{7})", text, re.IGNORECASE)
    if match and f"UBERON:{match[1]}" in uberon:
        return f"UBERON:{match[1]}"
    found = COMMON_NAMES.get(text.lower()) or uberon.find(text)
    if found:
        return found
    if not text:
        raise LabelError("The tissue is empty.", "an UBERON id or name", "--tissue pancreas")
    near = [f"{i} ({name})" for i, name in _nearest(text)]
    raise LabelError(f"{text!r} is no tissue of UBERON.", "an UBERON id or name, such as pancreas", "; ".join(near))


def _nearest(text: str) -> list[tuple[str, str]]:
    """Return the nearest tissues: those of the table before others of the same likeness."""
    uberon = load_ontology("UBERON")
    near = uberon.nearest(text, n=8)
    table = tissue_table()
    return sorted(near, key=lambda pair: pair[0] not in table)[:3]


def terms_of_tissue(tissue_id: str) -> tuple[frozenset[str], frozenset[str]]:
    """Return (CL ids with evidence in a tissue or its parts, CL ids that are everywhere).

    A tissue that the table doesn't hold, nor any part of it, is read as the nearest organ that it is a part of.
    """
    uberon = load_ontology("UBERON")
    table = tissue_table()
    below = {tissue_id} | uberon.descendants(tissue_id)
    own = frozenset().union(*(terms for place, terms in table.items() if place in below))
    if not own:
        above = [place for place in table if place in uberon.ancestors(tissue_id)]
        lowest = [place for place in above if not (uberon.descendants(place) & set(above))]
        own = frozenset().union(*(table[place] for place in lowest))
    return own, table["everywhere"]
