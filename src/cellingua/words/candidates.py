"""Candidates: the cell types that a cell may be given, from the whole ontology, a tissue, or the user's own labels."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cellingua.core.errors import FileError, LabelError
from cellingua.words.describing import describe_label, describe_term
from cellingua.words.dictionary import DUTIES, UNINFORMATIVE
from cellingua.words.naming import ID, Naming, name_label
from cellingua.words.ontology import load_ontology
from cellingua.words.tissues import find_tissue, terms_of_tissue

MAX_LABELS = 5000
TUNED = "model"  # the origin of a tuned model's own classes
MAX_LABEL_LENGTH = 1000


@dataclass(frozen=True)
class Candidates:
    """The labels that cells are compared with.

    Attributes
    ----------
    labels
        What is shown and written, unique, verbatim where it is the user's.
    term_ids
        CL id of each, or None.
    texts
        Text for the text tower; ``""`` where the term has a vector stored with the model.
    origin
        ``"ontology"``, ``"tissue"``, ``"user"``, or ``"model"``: the classes that a model was tuned to.
    reading
        Lines that say how each label was read, to be shown.
    """

    labels: list[str]
    term_ids: list[str | None]
    texts: list[str]
    origin: str
    reading: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.labels)


def candidate_terms() -> list[str]:
    """Return the ids of all terms that a human cell can be named by.

    Left out: terms of other species, and classes by a property or a duty alone, such as "nucleate cell" or "phagocyte".
    """
    ontology = load_ontology("CL")
    return [i for i in ontology.ids if ontology.in_human(i) and i not in UNINFORMATIVE | DUTIES]


def _of_terms(term_ids: Iterable[str], origin: str, reading: list[str]) -> Candidates:
    ontology = load_ontology("CL")
    ids = sorted(term_ids)
    return Candidates([ontology.name(i) for i in ids], list(ids), [""] * len(ids), origin, reading)


def whole_ontology() -> Candidates:
    """Return all terms of the Cell Ontology that name a kind of human cell."""
    ontology = load_ontology("CL")
    kept = candidate_terms()
    other = sum(not ontology.in_human(i) for i in ontology.ids)
    vague = len(ontology) - other - len(kept)
    line = (
        f"The whole Cell Ontology: {len(kept):,} of {len(ontology):,} live terms; left out are {other:,} of other "
        f"species and {vague:,} that name a property or a duty and no type."
    )
    return _of_terms(kept, "ontology", [line])


def by_tissue(tissue: str) -> Candidates:
    """Return the terms with evidence in a tissue or its parts, and what is everywhere (blood, immune, vessels).

    Parameters
    ----------
    tissue
        An UBERON id, name or synonym.

    Raises
    ------
    LabelError
        If there is no such tissue (the nearest are named) or the shipped table knows nothing of it.
    """
    uberon = load_ontology("UBERON")
    tissue_id = find_tissue(tissue)
    own, everywhere = terms_of_tissue(tissue_id)
    allowed = set(candidate_terms())
    name = uberon.name(tissue_id)
    if not own & allowed:
        raise LabelError(
            f"The table of tissues has no cell type of its own for {name} ({tissue_id}).",
            "an organ or a part of one, such as pancreas, lung, brain or skin",
            "the organ that it is a part of, the whole ontology, or your own labels",
        )
    terms = (own | everywhere) & allowed
    line = (
        f"Tissue read as {name} ({tissue_id}): {len(own & allowed):,} types with evidence there and "
        f"{len(everywhere & allowed - own):,} that are everywhere (blood, immune, vessels, stroma)."
    )
    return _of_terms(terms, "tissue", [line])


def from_labels(
    labels: str | Sequence[str | tuple[str, str]], *, tissue: str | None = None, stored: bool = True
) -> Candidates:
    """Return the user's own labels as candidates.

    Parameters
    ----------
    labels
        A list of labels or (label, description) pairs, or one text in which ``;`` divides labels. A comma is first
        tried as part of a name, and divides labels only if every part is a term.
    tissue
        Where the cells come from; decides what "alpha" or "HSC" means.
    stored
        Whether terms without a description of the user's may use the vector stored with a model (their text is then
        ``""``); False spells out every text.

    Raises
    ------
    LabelError
        For no label, an empty or repeated one, or a CL id that doesn't exist or is obsolete.
    """
    pairs = _pairs(labels, tissue)
    if not pairs:
        raise LabelError("There is no label.", "at least one label", "--label 'T cell' --label 'B cell'")
    if len(pairs) > MAX_LABELS:
        raise LabelError(f"There are {len(pairs):,} labels.", f"at most {MAX_LABELS:,}", "the whole ontology")
    seen: dict[str, str] = {}
    by_term: dict[str, str] = {}
    shown, ids, texts, reading = [], [], [], []
    for label, description in pairs:
        _check(label, seen)
        naming = name_label(label, tissue=tissue)
        _check_id(naming)
        shown.append(_shown(naming))
        ids.append(naming.term_id)
        if naming.term_id and not description:
            texts.append("" if stored else describe_term(naming.term_id))
        else:
            texts.append(describe_label(label, description))
        reading.append(_line(naming, described=bool(description)))
        if naming.term_id:
            first = by_term.setdefault(naming.term_id, label)
            if first is not label:
                reading.append(f'Note: "{first}" and "{label}" are read as the same term; both are kept.')
    if len(set(shown)) < len(shown):  # an id beside its own name
        repeated = next(label for label in shown if shown.count(label) > 1)
        raise LabelError(f"{repeated!r} is there twice, once by its id.", "each label once", "leaving one out")
    return Candidates(shown, ids, texts, "user", reading)


def _shown(naming: Naming) -> str:
    """Return what is written for a label: itself, or the term's name where the user gave its id."""
    return naming.term_name if naming.how == "id" and naming.term_name else naming.label


def _line(naming: Naming, *, described: bool) -> str:
    if naming.term_id is None:
        how = "free text, with your description" if described else "free text"
        extra = f" ({naming.note})" if naming.note else ""
        return f'"{naming.label}" read as {how}{extra}'
    note = f", {naming.note}" if naming.note else ""
    own = ", with your description" if described else ""
    return f'"{naming.label}" read as {naming.term_name} ({naming.term_id}), {naming.how}{note}{own}'


def _check(label: str, seen: dict[str, str]) -> None:
    if not label.strip():
        raise LabelError("A label is empty.", "some text for every label", "leaving it out")
    if len(label) > MAX_LABEL_LENGTH:
        raise LabelError(
            f"A label has {len(label):,} characters: {label[:60]!r}...",
            f"at most {MAX_LABEL_LENGTH:,}",
            "a short label, and the rest as its description after a tab in a --labels file",
        )
    key = " ".join(label.split()).casefold()
    if key in seen:
        raise LabelError(f"The label {label!r} is there twice.", "each label once", "leaving one out")
    seen[key] = label


def _check_id(naming: Naming) -> None:
    """Raise if the label has the form of a CL id but names no live term."""
    match = ID.fullmatch(naming.label) or re.fullmatch(r"\s*CL[:_]\s?(\w*)\s*", naming.label, re.IGNORECASE)
    if match is None or naming.term_id is not None:
        return
    ontology = load_ontology("CL")
    term_id = f"CL:{match[1]}"
    old = ontology.obsolete(term_id)
    if old:
        replaced = old[1] if old[1] in ontology else ""
        raise LabelError(
            f"{term_id} ({old[0].removeprefix('obsolete ')}) is an obsolete term.",
            "a live term of the Cell Ontology",
            f"{replaced} ({ontology.name(replaced)}), which replaces it" if replaced else "another term, by its name",
        )
    near = "; ".join(f"{i} ({name})" for i, name in ontology.nearest(term_id))
    raise LabelError(f"{term_id} is no term of the Cell Ontology.", "an id such as CL:0000236 (B cell)", near)


def _pairs(labels: str | Sequence[str | tuple[str, str]], tissue: str | None) -> list[tuple[str, str]]:
    if isinstance(labels, str):
        parts = [part.strip() for part in labels.split(";")]
        if len(parts) > 1 and parts[-1] == "":
            parts.pop()
        if len(parts) == 1:
            parts = _split_commas(parts[0], tissue)
        return [(part, "") for part in parts if parts != [""]]
    return [(item.strip(), "") if isinstance(item, str) else (item[0].strip(), item[1].strip()) for item in labels]


def _split_commas(text: str, tissue: str | None) -> list[str]:
    """Return the labels of a text without ``;``: itself if it is a name as a whole, else its parts if all are terms."""
    exact = ("id", "name", "synonym", "spelling", "short form")
    if "," not in text or name_label(text, tissue=tissue).how in exact:
        return [text]
    pieces = [piece.strip() for piece in text.split(",")]
    # Join neighbours that are one name with a comma in it, from the longest.
    out: list[str] = []
    start = 0
    while start < len(pieces):
        for stop in range(min(len(pieces), start + 6), start, -1):
            joined = ", ".join(pieces[start:stop])
            if stop == start + 1 or name_label(joined, tissue=tissue).how in exact[:4]:
                out.append(joined)
                start = stop
                break
    if all(piece and name_label(piece, tissue=tissue).term_id for piece in out):
        return out
    return [text]


def read_labels_file(path: Path | str) -> list[tuple[str, str]]:
    """Return (label, description) pairs of a text file: one label a line, optionally a tab and a description.

    Blank lines and lines that start with ``#`` are skipped; a byte-order mark and Windows line ends are taken off.

    Raises
    ------
    FileError
        If the file can't be read.
    LabelError
        If it isn't UTF-8 text, or holds no label.
    """
    path = Path(path)
    try:
        raw = path.read_bytes()
    except OSError as error:
        reason = error.strerror or str(error)
        raise FileError(f"{path} can't be read ({reason}).", "a text file, one label a line") from error
    try:
        text = raw.removeprefix(codecs.BOM_UTF8).decode("utf-8")
    except UnicodeDecodeError as error:
        raise LabelError(
            f"{path} is not UTF-8 text (byte {error.start}).", "one label a line, in UTF-8", "saving it as UTF-8"
        ) from error
    if "\0" in text:
        raise LabelError(f"{path} is not a text file.", "one label a line, in UTF-8")
    pairs = []
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        label, _, description = line.partition("\t")
        if not label.strip():
            raise LabelError(f"Line {number} of {path} has an empty label.", "a label, a tab, a description")
        pairs.append((label.strip(), description.strip()))
    if not pairs:
        raise LabelError(f"{path} holds no label.", "one label a line")
    return pairs
