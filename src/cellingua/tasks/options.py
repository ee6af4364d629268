"""The choices of an annotation, in one frozen record that the CLI and the functions share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cellingua.words.candidates import Candidates, by_tissue, from_labels, whole_ontology

KEY = "cellingua"
MODEL = "langcell_mini"

Labels = str | Sequence[str | tuple[str, str]]


@dataclass(frozen=True)
class AnnotateOptions:
    """How cells are to be named.

    Attributes
    ----------
    labels
        Candidates: None for the Cell Ontology; a text with ``;`` between labels; labels; or (label, description)
        pairs. Each is an ontology name, a CL id, a short form, or free text.
    tissue
        UBERON name or id. Without labels it chooses the candidates; with labels it helps to read ambiguous ones.
    layer
        Where the counts are; None lets the doctor find them.
    key_added
        First part of the keys that are written.
    cluster_key, sample_key, compare_to
        Columns of ``obs``: clusters to use instead of computed ones, samples for the composition, one's own
        labels.
    overwrite
        Whether existing keys may be replaced.
    seed
        For clustering and drawing; the answers of the cells do not depend on it.
    """

    labels: Labels | None = None
    tissue: str | None = None
    layer: str | None = None
    key_added: str = KEY
    cluster_key: str | None = None
    sample_key: str | None = None
    compare_to: str | None = None
    overwrite: bool = False
    seed: int = 0


def choose_candidates(labels: Labels | None, tissue: str | None) -> Candidates:
    """Return what the cells are named from.

    Raises
    ------
    LabelError
        No label is left, one is empty or repeated, or an id or the tissue does not exist.
    """
    if labels is None:
        return by_tissue(tissue) if tissue else whole_ontology()
    return from_labels(labels, tissue=tissue)
