"""Labels that are no name as a whole: take off what doesn't change the type, or read several types as one kind."""

from __future__ import annotations

import re

from cellingua.words.dictionary import LINEAGES, UNINFORMATIVE, VAGUE, Dictionary, organ_of
from cellingua.words.spelling import bag, split_words, word_set
from cellingua.words.vocabulary import NEVER_DROPPED, STAGES, STATES, TISSUES, gene_words, is_number, marker_genes

Found = tuple[str, str, str]

# Kinds broad enough that any adjective before them leaves them true ("lipid-laden macrophage").
HEADS = word_set(
    "CL:0000084 CL:0000236 CL:0000623 CL:0000624 CL:0000625 CL:0000576 CL:0000235 CL:0000451 CL:0000775 CL:0000097 "
    "CL:0000786 CL:0000057 CL:0000115 CL:0000192 CL:0000669 CL:0000499 CL:0000540 CL:0000127 CL:0000128 CL:0000129 "
    "CL:0000125 CL:0000099 CL:0000679 CL:0000617 CL:0000182 CL:0000312 CL:0000148 CL:0000136 CL:0000746 CL:0000584 "
    "CL:0000160 CL:0000646 CL:0000138 CL:0000062 CL:0000066 CL:0000798 CL:0000815 CL:0000138 CL:0000020 CL:0000017 "
    "CL:0000018 CL:0000653 CL:0000232 CL:0000233 CL:0000556 CL:0002573 CL:0000077 CL:0000542 CL:0000763 CL:0000738 "
    "CL:1000398 CL:1000488 CL:0000561 CL:0000748 CL:0000740 CL:0000604 CL:0000573 CL:0000784 CL:0000990 "
    "CL:0008019 CL:0000186 CL:0000681 CL:0000787 CL:0000788 CL:0000164 CL:0000351 CL:0000525 CL:0008036"
)
DENIED = "malignant|tumou?ral|tumou?r|cancer(ous)?|neoplastic|inflammatory|inflamed|activated|cycling|proliferating"
DENIAL = re.compile(rf"(?i)\bnon[\s_.-]*({DENIED})\b")
TUMOURS = (
    r"(\w*(carcinoma|sarcoma|lymphoma|leuka?emia|melanoma|glioma|blastoma|myeloma|mesothelioma|astrocytoma|thymoma)"
    r"|luad|lusc|hcc|(cc|p|ch)?rcc|pdac|crc|gbm|hnscc|tnbc|nsclc|sclc|aml|dlbcl|dcis|i?cca|escc|oscc|cscc|bcc|ptc?c)"
)
MALIGNANT = re.compile(rf"(?i)\b(malignant|cancer|tumou?r|neoplastic|{TUMOURS})s?\b(?![\s_.-]*(associated|infiltrat))")
BESIDE_TUMOURS = ("CL:0000738", "CL:0000057", "CL:0000115", "CL:0000669", "CL:0000499", "CL:0000192", "CL:0000540")
MALIGNANT_CELL, EPITHELIAL_CELL, TRANSIT_AMPLIFYING = "CL:0001064", "CL:0000066", "CL:0009010"
INTESTINAL, PROGENITOR = "CL:0002563", "CL:0011026"


def _drop_negatives(words: tuple[str, ...]) -> tuple[str, ...]:
    """Return words without "cd25 negative" and the like."""
    kept: list[str] = []
    for word in words:
        if word == "negative" and kept and (re.search(r"\d", kept[-1]) or kept[-1] in marker_genes()):
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
    beside = bool(MALIGNANT.search(text)) and not MALIGNANT.search(outside)
    for attempt in dict.fromkeys((text,) if beside else (text, outside)):
        words = split_words(attempt)
        if not words:
            continue
        organ_here = organ or organ_of(attempt)
        found = _broader(attempt, words, organ_here, book) if broader else _reduce(words, organ_here, book)
        if found:
            return found
    return None


def _reduce(words: tuple[str, ...], organ: str, book: Dictionary) -> Found | None:
    words = book.unglue(words, organ, marker_genes())
    ladder = [lambda w: True, lambda w: w not in STATES or w == "type", lambda w: w not in STATES]
    ladder.append(lambda w: w not in STATES and w not in TISSUES)
    for bare in dict.fromkeys((words, _drop_type_letter(words))):
        for numbers in (True, False):
            for keep in ladder:
                for base in dict.fromkeys((bare, _drop_negatives(bare))):
                    kept = tuple(w for w in base if keep(w) and (numbers or not is_number(w)))
                    if not kept or not set(kept) - {"cell", "positive"}:
                        continue
                    if whole := book.whole(kept, organ):
                        dropped = " ".join(w for w in words if w not in kept)
                        return whole[0], "reduced", f"without {dropped!r}" if dropped else ""
    return None


def _drop_type_letter(words: tuple[str, ...]) -> tuple[str, ...]:
    """Return words without a closing "type a", "cluster 2b", "subset iii", "ii"."""
    numbered = len(words) > 2 and words[-2] in ("type", "cluster", "subset", "group", "state")
    if numbered and re.fullmatch(r"[a-z]|[ivx]+|\d+[a-z]?", words[-1]):
        return words[:-2]
    return words[:-1] if len(words) > 1 and re.fullmatch(r"i{1,3}|iv|v", words[-1]) else words


def _broader(text: str, words: tuple[str, ...], organ: str, book: Dictionary) -> Found | None:
    genes = gene_words(text, book)
    if MALIGNANT.search(text):
        return _of_tumour(words, organ, book)
    words = _drop_negatives(_drop_type_letter(book.unglue(words, organ, marker_genes())))
    idle = {"cell", "positive", "of", "and", "the", "in", "with", "from", "derived", "to"}
    for size in range(len(words) - 1, 0, -1):
        for start in range(len(words) - size, -1, -1):
            window = words[start : start + size]
            rest = [w for i, w in enumerate(words) if not start <= i < start + size and w not in idle]
            if not set(window) - idle or set(rest) & NEVER_DROPPED:
                continue
            whole = book.whole(window, organ)
            if whole is None or whole[0] in UNINFORMATIVE:
                continue
            known = [w for w in rest if is_number(w) or w in STATES | STAGES | TISSUES | genes]
            suffix = start + size == len(words)
            # A lone letter is a lineage beside words that are understood, not after any word ("plate B").
            lone = len(window[0]) == size == 1
            if len(known) < len(rest) and (lone or not (suffix and whole[0] in HEADS)):
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
    rest = tuple(w for w in words if w not in said and w not in STATES and not is_number(w))
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
    """Return whether a reading of "T/NK" as one type is none of what it names, nor above one of them.

    And whether it is narrower than a part: "classical monocyte/monocyte" is a monocyte.
    """
    if len(bag(split_words(text))) > 3:  # long enough to be written that way alone ("Tcm/Naive helper T cells")
        return False
    parts = [part for part in re.split(r"[/|&]|\band\b", text) if part.strip()]
    found = [book.whole(split_words(part), organ) or _reduce(split_words(part), organ, book) for part in parts]
    ids = [whole[0] for whole in found if whole]
    if not 1 < len(parts) == len(ids):
        return False
    below = any(i not in (term_id, *VAGUE) and book.ontology.is_a(term_id, i) for i in ids)
    return below or not any(book.ontology.is_a(i, term_id) for i in ids)


def read_bracket(text: str, organ: str, book: Dictionary) -> Found | None:
    """Return the type in the brackets of "Immune (NK cell)" if it is one of the kind before them, else None."""
    match = re.fullmatch(r"([^()\[\]]+)[(\[]([^()\[\]]+)[)\]][\W\d]*[IVX]*", text)
    if match is None or MALIGNANT.search(text):
        return None
    outer, inner = (read_reduced(part, organ, book) for part in match.groups())
    if outer is None or inner is None or inner[0] in UNINFORMATIVE:
        return None
    kinds = (outer[0], *LINEAGES.get(outer[0], ()))
    if not any(book.ontology.is_a(inner[0], kind) for kind in kinds):
        return None
    return inner[0], "reduced", f"in brackets, of {book.ontology.name(outer[0])!r}"


def read_names(text: str, organ: str, book: Dictionary) -> Found | None:
    """Return the kind that holds all of several names, at least two words each or full, set side by side with "/".

    Of a long list, one name in four may be of nothing the ontology has; the others hold then.
    """
    parts = _share_side([split_words(part) for part in text.split("/")], organ, book)
    ids = []
    for words in parts:
        own = book.own_name(words) or book.one(book.words.get(words))
        whole = book.whole(words, organ) if own is None and len(words) > 1 else None
        ids.append(whole[0] if whole else own)
    known = [i for i in ids if i]
    if not 2 <= len(ids) <= 12 or len(ids) - len(known) > len(ids) // 4:
        return None
    if any(i is None and len(words) < 3 for i, words in zip(ids, parts, strict=True)):
        return None
    kind = common_kind(known, book)
    return (kind, "common kind", "names " + ", ".join(book.ontology.name(i) for i in known)) if kind else None


def _share_side(parts: list[tuple[str, ...]], organ: str, book: Dictionary) -> list[tuple[str, ...]]:
    """Return parts of a label where "CD4" or "CD8" holds for all, as in "Tnaive/CM_CD4", if all can be read so."""
    sides = {word for words in parts for word in words if word in ("cd4", "cd8")}
    if len(sides) != 1:
        return parts
    whole = [words if sides & set(words) else (*sides, *words) for words in parts]
    return whole if all(book.whole(words, organ) for words in whole) else parts


def read_parts(text: str, organ: str, book: Dictionary, *, spaces: bool = False) -> Found | None:
    """Return the nearest kind that holds all types that a label names ("HSC/MPP", "erythroid and mast"), else None.

    With `spaces`, blanks, dots and hyphens divide the names as well.
    """
    if len(text) > 400:
        return None
    for pattern in (r"[/|;&,._+\-]|\band\b|\s",) if spaces else (r"\s*[/|;&]\s*|[\s.]+(?:and|or)[\s.]+|\s\+\s",):
        parts = [part for part in re.split(pattern, text) if part and part.strip()]
        parts = [part for part in parts if not is_number(part.lower()) and part.lower() not in ("cell", "cells")]
        if not 2 <= len(parts) <= 6:
            continue
        ids = []
        for words in _share_side([split_words(part) for part in parts], organ, book):
            part = " ".join(words)
            whole = book.whole(words, organ) or _reduce(words, organ, book)
            if whole is None and not spaces and len(words) > 1:
                whole = read_reduced(part, organ, book, broader=True)
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


def _epithelial(term_id: str, book: Dictionary) -> bool:
    """Return whether a type is an epithelial cell by its place, name or definition."""
    text = f"{book.ontology.name(term_id)}. {book.ontology.definition(term_id)}"
    epithelial = any(book.ontology.is_a(term_id, kind) for kind in (EPITHELIAL_CELL, TRANSIT_AMPLIFYING))
    return epithelial or bool(re.search(r"\bepitheli", text))


def _of_intestine(term_id: str, book: Dictionary) -> bool:
    """Return whether an epithelial type is of the intestine by its place or definition."""
    text = f"{book.ontology.name(term_id)}. {book.ontology.definition(term_id)}"
    return book.ontology.is_a(term_id, INTESTINAL) or bool(re.search(r"intestin|crypt|colon\b", text))


def common_kind(ids: list[str], book: Dictionary) -> str | None:
    """Return the most specific informative term at or above all of `ids`, None if there is none."""
    ontology = book.ontology
    common = set.intersection(*({i} | ontology.ancestors(i) for i in ids)) - UNINFORMATIVE
    lowest = [i for i in common if not (ontology.descendants(i) & common)]
    if all(_epithelial(i, book) for i in ids) and set(lowest) <= {EPITHELIAL_CELL, PROGENITOR}:
        inside = all(i == TRANSIT_AMPLIFYING or _of_intestine(i, book) for i in ids)
        return INTESTINAL if inside else EPITHELIAL_CELL
    if not lowest:
        return None
    return min(lowest, key=lambda i: (len(ontology.descendants(i)), i))


def read_head(text: str, organ: str, book: Dictionary) -> Found | None:
    """Return a broad kind written first and set off by "_" or "-" from words that name no type, else None.

    So "B_Hypermutation" is a B cell, but not "B_T" or "T-bet".
    """
    match = re.match(r"([A-Za-z0-9+ ]+?)(?:_|(?<=[A-Za-z]{3})-|: )(.+)$", text)
    if match is None or MALIGNANT.search(text.replace("_", " ")):
        return None
    words = split_words(match[1])
    head = book.whole(words, organ) or _reduce(words, organ, book)
    rest = book.unglue(split_words(match[2]), organ, marker_genes())
    if head is None or head[0] not in HEADS or set(rest) & NEVER_DROPPED:
        return None
    for size in range(len(rest), 0, -1):
        for start in range(len(rest) - size + 1):
            other = book.whole(rest[start : start + size], organ)
            if other and other[0] not in UNINFORMATIVE and not book.ontology.is_a(head[0], other[0]):
                return None
    return head[0], "broader", f"{match[2]!r} not used"
