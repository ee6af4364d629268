"""Text of a cell type, and text of a cell from its metadata, in the form that LangCell was trained on.

The form is that of the released code (specification of LangCell, section 2): lower case,
``"cell type: <name>. <definition>; "``; a definition that is missing is left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cellingua.words.ontology import Ontology, load_ontology

# Aspect, field of CELLxGENE's metadata, prefixes of its ontologies. The cell type comes first, so that a limit on
# the length of a text never cuts it off.
ASPECTS: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("cell type", "cell_type", ("CL",)),
    ("tissue", "tissue", ("UBERON", "CL")),
    ("organ", "tissue_general", ("UBERON",)),
    ("development stage", "development_stage", ("HsapDv", "UBERON")),
    ("disease", "disease", ("MONDO", "PATO")),
    ("sex", "sex", ("PATO",)),
    ("ethnicity", "self_reported_ethnicity", ("HANCESTRO",)),
    ("assay", "assay", ("EFO",)),
)
_SAYS_NOTHING = {"", "unknown", "na", "n/a", "nan", "none", "not applicable", "unassigned"}


def _phrase(aspect: str, name: str, definition: str) -> str:
    """Return ``"<aspect>: <name>. <definition>; "`` in lower case, on one line."""
    definition = " ".join(definition.split())
    text = f"{aspect}: {' '.join(name.split())}. "
    if definition:
        text += f"{definition}; "
    return text.lower()


def describe_term(term_id: str, ontology: Ontology | None = None) -> str:
    """Return the text of a cell type: ``"cell type: b cell. a lymphocyte of b lineage ... mediated immunity.; "``.

    Parameters
    ----------
    term_id
        An id of the ontology; `LabelError` if it isn't a live term.
    ontology
        By default the Cell Ontology.
    """
    ontology = ontology or load_ontology("CL")
    return _phrase("cell type", ontology.name(term_id), ontology.definition(term_id))


def describe_label(label: str, description: str = "") -> str:
    """Return the text of a label that is no term of the ontology, with the user's own description if there is one."""
    return _phrase("cell type", label, description)


def describe_cell(metadata: Mapping[str, Any]) -> str:
    """Return the text of a cell from up to eight aspects of its metadata, each with its ontology's definition.

    Parameters
    ----------
    metadata
        Fields by their CELLxGENE names (``cell_type``, ``tissue``, ``tissue_general``, ``development_stage``,
        ``disease``, ``sex``, ``self_reported_ethnicity``, ``assay``), each a name; beside each, where known, its
        ``<field>_ontology_term_id``, which then decides. Fields that are missing or say nothing are skipped, and so
        is a tissue equal to its organ.

    Returns
    -------
    str
        Aspects in their fixed order; ``""`` if none says anything.
    """
    phrases = []
    for aspect, field, prefixes in ASPECTS:
        name, definition = _field(metadata, field, prefixes)
        if name.lower() in _SAYS_NOTHING:
            continue
        if field == "tissue" and name.lower() == _field(metadata, "tissue_general", ("UBERON",))[0].lower():
            continue
        phrases.append(_phrase(aspect, name, definition))
    return "".join(phrases)


def _field(metadata: Mapping[str, Any], field: str, prefixes: tuple[str, ...]) -> tuple[str, str]:
    """Return (name, definition) of one field, from its term id if that is known, else from its name."""
    value = metadata.get(field)
    name = "" if value is None else str(value).strip()
    term_id = str(metadata.get(f"{field}_ontology_term_id") or "").strip()
    for prefix in prefixes:
        ontology = load_ontology(prefix)
        found = term_id if term_id in ontology else ontology.find(name) if name and not term_id else None
        if found:
            return ontology.name(found), ontology.definition(found)
    return name, ""
