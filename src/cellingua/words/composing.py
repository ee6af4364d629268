"""Labels that are no name as a whole: take off what doesn't change the type, or read several types as one kind."""

from __future__ import annotations

import re

from cellingua.words.dictionary import UNINFORMATIVE, Dictionary, organ_of
from cellingua.words.spelling import split_words, word_set

Found = tuple[str, str, str]

# States and origins: a cycling B cell is a B cell.
STATES = word_set(
    "cycling proliferating dividing mitotic activated act resting quiescent stressed stress inflamed healthy normal "
    "disease diseased donor human fetal adult embryonic neonatal infant pediatric aged lineage infiltrating resident "
    "circulating other general s g1 g2m m ifn interferon isg stimulated unstimulated responsive response hypoxic "
    "high low dim bright expressing secreting like primary derived_ tissue specific enriched main major minor "
    "cluster subset subtype subpopulation population group state type class sub clust cl"
)
# ... and what makes the type less exact, yet leaves the kind.
STAGES = word_set(
    "early late mid mature immature differentiated differentiating intermediate transitional transitioning "
    "inflammatory upper lower deep superficial inner outer proximal distal central peripheral large small terminal "
    "mesenchymal tumor cancer associated zone left right atypical canonical conventional classical"
    " regenerating reactive"
)
TISSUES = word_set(
    "pancreas pancreatic lung pulmonary liver hepatic kidney renal brain cortex cortical cerebral skin dermal gut "
    "intestine intestinal colon colonic ileum ileal heart cardiac breast mammary prostate prostatic placenta placental "
    "decidua testis testicular ovary ovarian uterus uterine endometrium endometrial blood pbmc marrow bm bone thymus "
    "thymic spleen splenic node nodal adipose muscle retina retinal eye ocular stomach gastric esophagus esophageal "
    "thyroid adrenal bladder airway bronchus bronchial trachea tracheal nasal midbrain forebrain hindbrain "
    "cerebellum cerebellar hippocampus hippocampal tonsil"
)
# Words whose loss would turn the meaning round, or into a precursor.
NEVER_DROPPED = word_set(
    "non not no anti without pre pro post progenitor precursor stem blast doublet unknown malignant carcinoma lymphoma "
    "leukemia leukemic sarcoma melanoma glioma adenoma neoplastic metastatic metastasis organoid hybrid vs or line "
    "negative transdifferentiated"
)
# Kinds broad enough that any adjective before them leaves them true ("lipid-laden macrophage").
HEADS = word_set(
    "CL:0000084 CL:0000236 CL:0000623 CL:0000624 CL:0000625 CL:0000576 CL:0000235 CL:0000451 CL:0000775 CL:0000097 "
    "CL:0000786 CL:0000057 CL:0000115 CL:0000192 CL:0000669 CL:0000499 CL:0000540 CL:0000127 CL:0000128 CL:0000129 "
    "CL:0000125 CL:0000099 CL:0000679 CL:0000617 CL:0000182 CL:0000312 CL:0000148 CL:0000136 CL:0000746 CL:0000584 "
    "CL:0000160 CL:0000646 CL:0000138 CL:0000062 CL:0000066 CL:0000798 CL:0000815 CL:0000138 CL:0000020 CL:0000017 "
    "CL:0000018 CL:0000653 CL:0000232 CL:0000233 CL:0000556 CL:0002573 CL:0000077 CL:0000542 CL:0000763 CL:0000738 "
    "CL:1000398 CL:1000488 CL:0000561 CL:0000748 CL:0000740 CL:0000604 CL:0000573 CL:0000784 CL:0000990 "
    "CL:0000186 CL:0000681 CL:0000787 CL:0000788 CL:0000164 CL:0000351 CL:0000525 CL:0008036"
)
DENIED = "malignant|tumou?ral|tumou?r|cancer(ous)?|neoplastic|inflammatory|inflamed|activated|cycling|proliferating"
DENIAL = re.compile(rf"(?i)\bnon[\s_.-]*({DENIED})\b")
TUMOURS = r"\w*(carcinoma|sarcoma|lymphoma|leuka?emia|melanoma|glioma|blastoma|myeloma|mesothelioma)"
MALIGNANT = re.compile(rf"(?i)\b(malignant|cancer|tumou?r|neoplastic|{TUMOURS})s?\b(?![\s_.-]*(associated|infiltrat))")
BESIDE_TUMOURS = ("CL:0000738", "CL:0000057", "CL:0000115", "CL:0000669", "CL:0000499", "CL:0000192", "CL:0000540")
MALIGNANT_CELL = "CL:0001064"


def _is_number(word: str) -> bool:
    return bool(re.fullmatch(r"\d+[a-z]?|c\d+|k\d+|[a-z]?\d{2,}", word))


def _genes(text: str, book: Dictionary) -> set[str]:
    """Return the words of a text that look like gene symbols: capitals, or letters with digits."""
    found = set()
    capitals = text.isupper()
    for word in re.findall(r"[A-Za-z0-9]+", text):
        lower = word.lower()
        mixed = bool(re.fullmatch(r"[A-Za-z]{1,7}\d+[A-Za-z0-9]*", word))
        if mixed or (len(word) >= 3 and word.isupper() and not capitals and book.whole((lower,), "") is None):
            found.add(lower)
    return found


def _drop_negatives(words: tuple[str, ...]) -> tuple[str, ...]:
    """Return words without "cd25 negative" and the like."""
    kept: list[str] = []
    for word in words:
        if word == "negative" and kept and re.search(r"\d", kept[-1]):
            kept.pop()
        else:
            kept.append(word)
    return tuple(kept)


def read_reduced(text: str, organ: str, book: Dictionary, *, broader: bool = False) -> Found | None:
    """Return (term id, how, note) of a label once numbers, states and tissues are taken off, else None.

    With `broader`, marker genes and adjectives that aren't understood go too, as long as what stays is a kind that
    they leave true.
    """
    text = DENIAL.sub(" ", re.sub(r"(?i)\bnormal\b", " ", text))
    outside = re.sub(r"\([^()]*\)|\[[^\[\]]*\]", " ", text)
    for attempt in dict.fromkeys((text, outside)):
        words = split_words(attempt)
        if not words:
            continue
        organ_here = organ or organ_of(attempt)
        found = _broader(attempt, words, organ_here, book) if broader else _reduce(words, organ_here, book)
        if found:
            return found
    return None


def _reduce(words: tuple[str, ...], organ: str, book: Dictionary) -> Found | None:
    ladder = [lambda w: not _is_number(w)]
    ladder.append(lambda w: not _is_number(w) and w not in STATES)
    ladder.append(lambda w: not _is_number(w) and w not in STATES and w not in TISSUES)
    words = _drop_type_letter(words)
    for keep in ladder:
        for base in dict.fromkeys((words, _drop_negatives(words))):
            kept = tuple(w for w in base if keep(w))
            if not kept or not set(kept) - {"cell", "positive"}:
                continue
            whole = book.whole(kept, organ)
            if whole:
                dropped = " ".join(w for w in words if w not in kept)
                return whole[0], "reduced", f"without {dropped!r}" if dropped else ""
    return None


def _drop_type_letter(words: tuple[str, ...]) -> tuple[str, ...]:
    """Return words without a closing "type a", "cluster 2b", "subset iii"."""
    numbered = len(words) > 2 and words[-2] in ("type", "cluster", "subset", "group", "state")
    if numbered and re.fullmatch(r"[a-z]|[ivx]+|\d+[a-z]?", words[-1]):
        return words[:-2]
    return words


def _broader(text: str, words: tuple[str, ...], organ: str, book: Dictionary) -> Found | None:
    genes = _genes(text, book)
    if MALIGNANT.search(text):
        return _of_tumour(words, organ, book)
    words = _drop_negatives(_drop_type_letter(words))
    idle = {"cell", "positive", "of", "and", "the", "in", "with", "from", "derived", "to"}
    for size in range(len(words) - 1, 0, -1):
        for start in range(len(words) - size, -1, -1):
            window = words[start : start + size]
            rest = [w for i, w in enumerate(words) if not start <= i < start + size and w not in idle]
            if not set(window) - idle or set(rest) & NEVER_DROPPED:
                continue
            if len(window[0]) == size == 1 and re.search(rf"(?i)/\s*{window[0]}\b", text):
                continue  # the "b" of "CD8a/b" is no B cell
            whole = book.whole(window, organ)
            if whole is None or whole[0] in UNINFORMATIVE:
                continue
            known = [w for w in rest if _is_number(w) or w in STATES | STAGES | TISSUES | genes]
            suffix = start + size == len(words)
            if len(known) < len(rest) and not (suffix and whole[0] in HEADS):
                continue
            if _contradicts(tuple(w for w in rest if w not in known), whole[0], organ, book):
                return None
            return whole[0], "broader", f"{' '.join(rest)!r} not used" if rest else ""
    return None


def _contradicts(rest: tuple[str, ...], term_id: str, organ: str, book: Dictionary) -> bool:
    """Return whether the words left over name another type, neither above nor below the one found."""
    other = book.whole(rest, organ) if rest else None
    if other is None or other[0] in UNINFORMATIVE:
        return False
    return not (book.ontology.is_a(term_id, other[0]) or book.ontology.is_a(other[0], term_id))


def _of_tumour(words: tuple[str, ...], organ: str, book: Dictionary) -> Found | None:
    """Return the reading of a label with "tumour" in it: a cell beside the tumour if it names one, else malignant."""
    said = {"malignant", "cancer", "tumor", "neoplastic"} | {w for w in words if re.fullmatch(TUMOURS, w)}
    rest = tuple(w for w in words if w not in said and w not in STATES and not _is_number(w))
    found = book.whole(rest, organ) if set(rest) - {"cell"} else None
    own = words[-1] in said  # "T cell lymphoma" is the tumour itself, "tumour T cell" is not
    if (
        found
        and not own
        and "malignant" not in words
        and any(book.ontology.is_a(found[0], kind) for kind in BESIDE_TUMOURS)
    ):
        return found[0], "reduced", "beside a tumour"
    return MALIGNANT_CELL, "reduced", "said to be of a tumour"


def mistaken_whole(text: str, term_id: str, organ: str, book: Dictionary) -> bool:
    """Return whether a reading of "T/NK" as one type is none of what it names, nor above one of them."""
    parts = [part for part in re.split(r"[/|&]|\band\b", text) if part.strip()]
    found = [book.whole(split_words(part), organ) for part in parts]
    ids = [whole[0] for whole in found if whole]
    return 1 < len(parts) == len(ids) and not any(book.ontology.is_a(i, term_id) for i in ids)


def read_parts(text: str, organ: str, book: Dictionary) -> Found | None:
    """Return the nearest kind that holds all types that a label names ("HSC/MPP", "erythroid and mast"), else None."""
    if len(text) > 400:
        return None
    for pattern in (r"\s*[/|;&]\s*|\s+and\s+|\s+or\s+|\s\+\s", r"[/|;&,._+\-]|\band\b|\s"):
        parts = [part for part in re.split(pattern, text) if part and part.strip()]
        parts = [part for part in parts if not _is_number(part.lower()) and part.lower() not in ("cell", "cells")]
        if not 2 <= len(parts) <= 6:
            continue
        ids = []
        for part in parts:
            words = split_words(part)
            whole = book.whole(words, organ) or _reduce(words, organ, book)
            ids.append(whole[0] if whole else None)
        if None in ids:
            continue
        kind = common_kind([i for i in ids if i], book)
        if kind:
            return (
                kind,
                "common kind",
                "names " + ", ".join(book.ontology.name(i) for i in dict.fromkeys(ids) if i),
            )
    return None


def common_kind(ids: list[str], book: Dictionary) -> str | None:
    """Return the most specific informative term at or above all of `ids`, None if there is none."""
    ontology = book.ontology
    common = set.intersection(*({i} | ontology.ancestors(i) for i in ids)) - UNINFORMATIVE
    lowest = [i for i in common if not (ontology.descendants(i) & common)]
    if not lowest:
        return None
    return min(lowest, key=lambda i: (len(ontology.descendants(i)), i))
