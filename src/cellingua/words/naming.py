"""From a label that somebody wrote to a term of the Cell Ontology.

Labels of published data sets are short ("DC", "Treg", "FCGR3A+ Mono"), and a sentence encoder reads them wrongly, so
they are read by rules: ids, names, synonyms, spelling, short forms that were reviewed by hand, and for the rest by
taking off what does not change the type (cluster numbers, states, tissues, marker genes). A label that no rule reads
stays free text; a wrong term would be worse than none.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from cellingua.words.chunks import read_chunks
from cellingua.words.composing import mistaken_whole, read_bracket, read_head, read_names, read_parts, read_reduced
from cellingua.words.dictionary import VAGUE, Dictionary, load_dictionary, organ_of
from cellingua.words.spelling import fold, loosen, split_words

# A number that a cluster was given, after a full name: "B cell 21", "B cell (21)".
NUMBERED = re.compile(r"(.*\w)[\s_.(-]+\d+\)?")
SIDE_BY_SIDE = re.compile(r"[/&|]|\band\b|\s\+\s")
# A letter that counts groups, batches or donors, and names no lineage: "Group B", "batch T", "Cell type B".
COUNTED_LETTER = re.compile(
    r"(cell[\W_]*)?(group|batch|sample|donor|patient|subject|individual|pool|plate|run|lane|library|site|type|cluster|"
    r"subset|population|state|class|stage|phase|arm|condition|cohort|series|section|slide|set|part|lineage|module|"
    r"category|level|replicate|rep|experiment|exp|animal|mouse)s?[\W_]*[a-z]\d*",
    re.IGNORECASE,
)
ID = re.compile(r"\s*CL[:_]\s?(\d{7})\s*", re.IGNORECASE)
# Labels that say that nobody knows, and labels of no single cell.
NO_TYPE = re.compile(
    r"^\W*(unknown|unassigned|unidentified|undefined|undetermined|unclassified|unlabell?ed|not (assigned|available)|"
    r"un?annotated|none|other|others|misc\w*|ambiguous|uncertain|na|n/?a|nan|null|tbd|rest|reject\w*|outliers?|"
    r"novel|mixed|mix|low[ _.-]?quality\w*|poor[ _.-]?quality|contaminat\w+|debris|ambient|empty\w*|filtered)"
    r"(?=\W*$|[\W_]+(\d+|cells?|cell[ _.]?types?|types?|clusters?|[ac-su-z])\W*$)"
    r"|\b(doublets?|multiplets?|heterotypic|low[ _.-]quality|debris|contaminat\w+)\b",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Naming:
    """How a label was read.

    Attributes
    ----------
    label
        As written.
    term_id, term_name
        The term, or None where the label stays free text.
    how
        ``id``, ``name``, ``synonym``, ``spelling`` (case, hyphens, plural, Greek), ``short form``, ``word order``,
        ``reduced`` (numbers, states or tissues taken off), ``common kind`` (the label names several types),
        ``broader`` (words or markers were not understood), ``no type`` ("unknown", "doublet"), or ``free text``.
    note
        What a reader should know, or ``""``.
    """

    label: str
    term_id: str | None
    term_name: str | None
    how: str
    note: str = ""


@lru_cache(maxsize=65536)
def name_label(label: str, *, tissue: str | None = None) -> Naming:
    """Return the term of the Cell Ontology that a label names, if a rule can tell.

    Parameters
    ----------
    label
        A name, synonym, CL id (``CL:0000236`` or ``CL_0000236``) or a short form, as people write it.
    tissue
        Where the cells come from, in any words; decides what "alpha", "HSC" or "PC" means.

    Returns
    -------
    Naming
        With ``term_id`` None if no rule reads the label. Nothing is raised for any text; whether an unknown id or an
        empty label is an error is for the caller to say.
    """
    text = " ".join(fold(label).split())
    book = load_dictionary()
    ontology = book.ontology
    if match := ID.fullmatch(text):
        term_id = f"CL:{match[1]}"
        if term_id in ontology:
            return Naming(label, term_id, ontology.name(term_id), "id")
        return Naming(label, None, None, "free text", f"{term_id} is not a live term")
    if not text:
        return Naming(label, None, None, "free text", "empty")
    if own := book.names.get(text.lower()) or book.names.get(label.strip().lower()):
        return Naming(label, own, ontology.name(own), "name")
    if NO_TYPE.search(text.replace("_", " ")):
        return Naming(label, None, None, "no type", "says that the type is unknown or not one")
    words, organ = split_words(text), organ_of(tissue)
    found: tuple[str, str, str] | None = None
    synonym = book.one(book.synonyms.get(text.lower()))
    several = SIDE_BY_SIDE.search(text) and book.short_form(words, organ, several=True)
    short = several or book.short_form(words, organ)
    # A full name of the ontology is itself in every tissue; only what is shorter is read with the tissue.
    if (own := book.own_name(words)) is not None:
        kept = own in VAGUE and short is not None
        found = (short or own, "short form", f"in {organ}") if kept else (own, "spelling", "")
    elif short is not None and not (synonym and len(words) > 2):
        found = (short, "short form", f"in {organ}" if not several and short != book.short_form(words, "") else "")
    elif synonym is not None:
        found = (synonym, "synonym", "")
    elif kind := read_names(text, organ, book):
        found = kind
    elif whole := book.whole(words, organ):
        found = (*whole, "")
    plain = text.replace("_", " ")
    if found and mistaken_whole(plain, found[0], organ, book):
        found = read_parts(plain, organ, book)
    if found is None and not COUNTED_LETTER.fullmatch(text):
        found = _read_numbered(text, book) or _read_composed(text, organ, book)
    if found is None:
        return Naming(label, None, None, "free text")
    return Naming(label, found[0], ontology.name(found[0]), found[1], found[2])


def _read_numbered(text: str, book: Dictionary) -> tuple[str, str, str] | None:
    """Return the reading of a full name with a number after it; letter by letter, for names alike as words."""
    match = NUMBERED.fullmatch(text)
    found = book.names.get(match[1].lower()) if match else None
    return (found, "reduced", "without its number") if found else None


def _read_composed(text: str, organ: str, book: Dictionary) -> tuple[str, str, str] | None:
    """Return the reading of a label that is no name as a whole, from the safest rule to the least."""
    plain = text.replace("_", " ")
    loose = loosen(text)
    for attempt in dict.fromkeys((plain, loose, plain.lower())):
        found = read_bracket(attempt, organ, book) or read_reduced(attempt, organ, book)
        if found and mistaken_whole(attempt, found[0], organ, book):
            found = None
        found = found or read_parts(attempt, organ, book) or read_chunks(attempt, organ, book)
        if found:
            return found
    return (
        read_parts(plain, organ, book, spaces=True)
        or read_reduced(plain, organ, book, broader=True)
        or read_reduced(loose, organ, book, broader=True)
        or read_head(text, organ, book)
        or _read_respelled(plain, organ, book)
    )


def _read_respelled(text: str, organ: str, book: Dictionary) -> tuple[str, str, str] | None:
    """Return the reading of a label once long words with a letter or two wrong are put right, else None."""
    words = split_words(text)
    better = tuple(book.respell(word) for word in words)
    if better == words:
        return None
    found = book.whole(better, organ) or read_reduced(" ".join(better), organ, book)
    return (found[0], "spelling", f"read as {' '.join(better)!r}") if found else None
