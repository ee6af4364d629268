"""What one aspect of a cell's metadata says: its name and its definition, from an ontology or from the user.

Ids go before names, an obsolete id is read as what replaces it, several values of one cell are read one by one, and
an organ that isn't said follows from the tissue, as in CELLxGENE's ``tissue_general``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from cellingua.words.definitions import definition_key
from cellingua.words.metadata import PREFIXES_OF
from cellingua.words.naming import name_label
from cellingua.words.ontology import Ontology, load_ontology

SAYS_NOTHING = {"", "unknown", "na", "n/a", "nan", "none", "<na>", "not applicable", "unassigned"}
# Aspects of which a cell may have several, joined by "||" (ids, and up to version 5 names too, also by commas).
SEVERAL = ("disease", "ethnicity")
_ID = re.compile(r"[A-Za-z]+:\d+")
_KIND_OF_TISSUE = re.compile(r"\s*\((cell culture|organoid)\)$", re.IGNORECASE)


@dataclass(frozen=True)
class Reading:
    """What one aspect of one cell says.

    Attributes
    ----------
    name, definition
        As they are said; a name that is ``""`` says nothing, a definition that is ``""`` is left out.
    known
        False for a label that no ontology knows, and no definition of the user's.
    own
        Keys of the user's definitions that were used.
    label
        What was written, where that is neither an id, a name nor a synonym and was read by the rules for labels
        (``"CD4 T cells"``); else ``""``.
    """

    name: str
    definition: str = ""
    known: bool = True
    own: tuple[str, ...] = ()
    label: str = ""


def read_aspect(aspect: str, term_id: str, name: str, definitions: Mapping[str, str] | None = None) -> Reading:
    """Return what one aspect says, from its term id if that is known, else from its name.

    Parameters
    ----------
    aspect
        One of `cellingua.words.metadata.NAMES`.
    term_id, name
        As they stand in the metadata, ``""`` where there is none. An id may stand in place of the name; a cell type
        may be any label that `cellingua.words.naming` reads, or one that says that there is no type; several ids
        or names are joined by ``||`` (up to version 5 by commas); an obsolete id is read as what replaces it.
    definitions
        The user's own, as from `cellingua.words.definitions.own_definitions`; they go before the ontology's.
    """
    own = definitions or {}
    ids, names = _several_ids(term_id), _several_names(aspect, name)
    if max(len(ids), len(names)) == 1:
        return _read_one(aspect, ids[0], names[0], own)
    if len(ids) != len(names):
        ids, names = (ids, [""] * len(ids)) if any(ids) else ([""] * len(names), names)
    parts = [part for part in (_read_one(aspect, *pair, own) for pair in zip(ids, names, strict=True)) if part.name]
    return Reading(
        " and ".join(part.name for part in parts),
        " ".join(part.definition for part in parts if part.definition),
        all(part.known for part in parts),
        tuple(key for part in parts for key in part.own),
        " || ".join(part.label for part in parts if part.label),
    )


@cache
def organs() -> tuple[str, ...]:
    """Return the Uberon ids that CELLxGENE shows as ``tissue_general``, in the order in which they are asked for."""
    text = files("cellingua").joinpath("data", "ontology", "organs.tsv").read_text(encoding="utf-8")
    return tuple(line.split("\t")[0] for line in text.splitlines()[1:])


def read_organ(tissue_id: str, tissue: str, definitions: Mapping[str, str] | None = None) -> Reading:
    """Return the organ that a tissue is, or is a part or a kind of, as CELLxGENE's ``tissue_general`` says it.

    It says nothing for a tissue that isn't in Uberon, is a cell culture, or belongs to no listed organ.

    Parameters
    ----------
    tissue_id, tissue, definitions
        As `read_aspect` takes them for ``"tissue"``.
    """
    if any(text.lower().endswith("(cell culture)") for text in (tissue_id, tissue)):
        return Reading("")
    uberon = load_ontology("UBERON")
    (term_id, *others) = _several_ids(tissue_id)
    if others:
        return Reading("")
    found = _find((uberon,), term_id, _KIND_OF_TISSUE.sub("", tissue))
    if found is None:
        return Reading("")
    above = {found[1], *uberon.ancestors(found[1])}
    organ = next((place for place in organs() if place in above), "")
    return _read_one("organ", organ, "", definitions or {})


def _several_ids(text: str) -> list[str]:
    parts = text.split("||")
    commas = [part.strip() for part in text.split(",")]
    if len(parts) == 1 and all(_ID.fullmatch(part) for part in commas):
        parts = commas
    return [_KIND_OF_TISSUE.sub("", part).strip() for part in parts]


def _several_names(aspect: str, text: str) -> list[str]:
    parts = [part.strip() for part in text.split("||")]
    if len(parts) > 1 or "," not in text or aspect not in SEVERAL:
        return parts
    # Up to version 5, names were joined by commas, which names hold as well: it is several if all parts are known.
    ontologies = tuple(load_ontology(prefix) for prefix in PREFIXES_OF[aspect])
    commas = [part.strip() for part in text.split(",")]
    several = _find(ontologies, "", text) is None and all(_find(ontologies, "", part) for part in commas)
    return commas if several else parts


def _find(ontologies: tuple[Ontology, ...], term_id: str, name: str) -> tuple[Ontology, str] | None:
    """Return the live term of an id, else that of a name (which may be an id itself), with its ontology."""
    for text in (term_id, name):
        for ontology in ontologies:
            if live := _live(ontology, text):
                return live
    if name.lower() in SAYS_NOTHING:
        return None
    return next(((ontology, found) for ontology in ontologies if (found := ontology.find(name))), None)


def _read_one(aspect: str, term_id: str, name: str, own: Mapping[str, str]) -> Reading:
    term = _find(tuple(map(load_ontology, PREFIXES_OF[aspect])), term_id, _KIND_OF_TISSUE.sub("", name))
    label = ""
    if term is None and aspect == "cell type" and name and definition_key(name) not in own:
        naming = name_label(name)
        if naming.how == "no type":  # "doublets", "unlabelled"
            return Reading("")
        if naming.term_id is not None:
            term, label = (load_ontology("CL"), naming.term_id), name
    if term is not None:
        said, definition = term[0].name(term[1]), term[0].definition(term[1])
    elif name.lower() not in SAYS_NOTHING:
        said, definition = name, ""
    elif _ID.fullmatch(term_id):
        said, definition = term_id, ""
    else:
        return Reading("")
    for key in dict.fromkeys(definition_key(text) for text in (term_id, term[1] if term else "", name, said)):
        if key and key in own:
            return Reading(said, own[key], True, (key,), label)
    return Reading(said, definition, term is not None, (), label)


def _live(ontology: Ontology, term_id: str) -> tuple[Ontology, str] | None:
    if term_id in ontology:
        return ontology, term_id
    replaced_by = (ontology.obsolete(term_id) or ("", ""))[1]
    return (ontology, replaced_by) if replaced_by in ontology else None
