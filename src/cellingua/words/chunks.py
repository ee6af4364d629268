"""Labels made of several pieces, such as ``T_cells_c2_CD4+_Treg_FOXP3`` or ``Inh L2-4 PVALB``: lineage, type, markers.

Every piece of such a label must be understood: as a type, or as something that changes no type (cluster numbers,
states, tissues, layers, marker genes). Pieces that name types then have to agree: the most specific one holds if all
others are above it, or are the lineage that a cluster number was given in.
"""

from __future__ import annotations

import re

from cellingua.words.dictionary import LINEAGES, UNINFORMATIVE, Dictionary
from cellingua.words.spelling import split_words, word_set
from cellingua.words.vocabulary import (
    LAYER,
    NEVER_DROPPED,
    STAGES,
    STATES,
    TISSUES,
    gene_words,
    is_number,
    marker_genes,
)

Piece = tuple[int, str]
IDLE = word_set("cell positive of and the in with from to on like type by")
CLUSTER = re.compile(r"c\d+|k\d+|\d+")
ROMAN = re.compile(r"i|ii|iii|iv|v|vi")
T_CELL, CD4, CD8 = "CL:0000084", "CL:0000624", "CL:0000625"
# Stages of T cells that the ontology has once for CD4 and once for CD8 cells: naive, memory, effector, cytotoxic,
# memory that is terminally differentiated, exhausted.
STAGES_OF_T = {
    "CL:0000898": ("CL:0000895", "CL:0000900"),
    "CL:0000813": ("CL:0000897", "CL:0000909"),
    "CL:0000911": ("CL:0001044", "CL:0001050"),
    "CL:0000910": ("CL:0000934", "CL:0000794"),
    "CL:4030002": ("CL:0001087", "CL:0001062"),
    "CL:0011025": ("CL:0020030", "CL:0020031"),
}
# Markers that tell types apart; they aren't passed over.
TYPING_GENES = word_set("cd4 cd8 cd8a cd14 cd16 cd34 cd56 cd1c cd141 fcgr3a clec9a cd27 cd45ra cd45ro cd25 foxp3 best4")


def read_chunks(text: str, organ: str, book: Dictionary) -> tuple[str, str, str] | None:
    """Return (term id, how, note) of a label whose pieces are all understood and agree, else None."""
    words = book.unglue(split_words(text), organ, marker_genes())
    if not 2 <= len(words) <= 16 or set(words) & NEVER_DROPPED:
        return None
    genes = gene_words(text, book)
    if bare := _bare(words, organ, book):
        return bare, "reduced", "without numbers and markers"
    pieces, idle = _pieces(words, 0, organ, book, genes)
    if not pieces or any(not _is_idle(w, genes) for w in idle):
        return None
    found = _agree(sorted(pieces), words, book)
    return (
        (found, "reduced", f"from its parts, without {' '.join(idle)!r}" if idle else "from its parts")
        if found
        else None
    )


def _bare(words: tuple[str, ...], organ: str, book: Dictionary) -> str | None:
    """Return the type of a label without its numbers and markers ("CD8 c05 Tem CXCR5").

    Not where a number stands between two pieces ("T cells c9 NK cells"), unless it follows CD4 or CD8.
    """
    bare = tuple(w for w in words if not (is_number(w) or w in marker_genes() - TYPING_GENES))
    divided = any(is_number(words[i]) and words[i - 1] not in ("cd4", "cd8") for i in range(1, len(words) - 1))
    if divided or len(bare) == len(words):
        return None
    whole = book.whole(bare, organ)
    return whole[0] if whole and whole[0] not in UNINFORMATIVE else None


def _is_idle(word: str, genes: set[str]) -> bool:
    known = word in IDLE or word in STATES or word in STAGES or word in TISSUES or word in genes
    return known or is_number(word) or bool(ROMAN.fullmatch(word) or LAYER.fullmatch(word))


def _pieces(
    words: tuple[str, ...], offset: int, organ: str, book: Dictionary, genes: set[str]
) -> tuple[list[Piece], list[str]]:
    """Return the types named by the longest windows of words, with their places, and the words left over."""
    for size in range(len(words), 0, -1):
        for start in range(len(words) - size + 1):
            window = words[start : start + size]
            if all(_is_idle(w, genes) and not (size == 1 and w in genes) for w in window):
                continue
            whole = book.whole(window, organ)
            if whole is None or whole[0] in UNINFORMATIVE:
                continue
            left, idle_left = _pieces(words[:start], offset, organ, book, genes)
            right, idle_right = _pieces(words[start + size :], offset + start + size, organ, book, genes)
            return [*left, (offset + start, whole[0]), *right], [*idle_left, *idle_right]
    return [], list(words)


def _of_both(ids: list[str]) -> str | None:
    """Return the term for CD4 or CD8 cells of a stage of T cells ("CD8", "memory"), None if that is no one term."""
    sides = [i for i in ids if i in (CD4, CD8)]
    stages = [i for i in ids if i in STAGES_OF_T]
    if len(sides) != 1 or len(stages) != 1 or any(i not in (*sides, *stages, T_CELL) for i in ids):
        return None
    return STAGES_OF_T[stages[0]][sides[0] == CD8]


def _agree(pieces: list[Piece], words: tuple[str, ...], book: Dictionary) -> str | None:
    """Return the type that all pieces speak for, None if they name different ones."""
    ontology = book.ontology
    while len(pieces) > 1:
        (place, first), (after, second) = pieces[:2]
        numbered = any(CLUSTER.fullmatch(w) for w in words[place:after])
        kinds = (first, *LINEAGES.get(first, ()))
        below = first in LINEAGES and any(ontology.is_a(second, kind) for kind in kinds)
        if not (below and (numbered or first != T_CELL)) or ontology.is_a(first, second):
            break
        pieces = pieces[1:]
    ids = list(dict.fromkeys(i for _, i in pieces))
    if any(i not in (CD4, CD8) and ontology.is_a(i, T_CELL) and i != T_CELL for i in ids):
        if (both := _of_both(ids)) is not None:
            return both
        ids = [i for i in ids if i not in (CD4, CD8)]
    lowest = [i for i in ids if all(ontology.is_a(i, other) for other in ids)]
    return lowest[0] if lowest else None
