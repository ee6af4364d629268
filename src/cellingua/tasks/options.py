"""The choices of an annotation, in one frozen record that the CLI and the functions share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cellingua.core.errors import InputError
from cellingua.models.matching import TOP, CandidateMatch, check_match, prepare_match
from cellingua.models.model import LangCellModel
from cellingua.words.candidates import TUNED, Candidates, by_tissue, from_labels, whole_ontology

if TYPE_CHECKING:
    from cellingua.models.tuned import Model

KEY = "cellingua"
MODEL = "langcell_mini"

Labels = str | Sequence[str | tuple[str, str]]


@dataclass(frozen=True)
class AnnotateOptions:
    """How cells are to be named.

    Attributes
    ----------
    labels
        Candidates: None for the Cell Ontology, or for the classes of a tuned model; a text with ``;`` between labels;
        labels; or (label, description) pairs. Each is an ontology name, a CL id, a short form, or free text.
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
    match
        None: by similarity. ``ours`` or ``compat``: each cell is also read together with the texts of its likeliest
        candidates by the model's match classifier; ``compat`` combines the two as the released LangCell does.
    match_top
        How many candidates of a cell are matched; 0 for all.
    error_rate
        Share of cells that may be left without a right answer: each gets the narrowest term that keeps it. None:
        answers need the probability that the model's calibration names.
    smooth, in_sample
        Whether to add answers that are smoothed over neighbours, and answers that are corrected for the composition of
        each cell's sample. They change no other column.
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
    match: str | None = None
    match_top: int = TOP
    error_rate: float | None = None
    smooth: bool = False
    in_sample: bool = False

    @property
    def more(self) -> tuple[str, ...]:
        """Suffixes of the columns of ``obs`` that are written on request."""
        asked = {"_unknown": self.error_rate is not None, "_smoothed": self.smooth, "_in_sample": self.in_sample}
        return tuple(suffix for suffix, wanted in asked.items() if wanted)

    def __post_init__(self) -> None:
        if self.error_rate is not None and not 0 < self.error_rate < 1:
            raise InputError(f"The error rate is {self.error_rate:g}.", "a share between 0 and 1, such as 0.05")
        if self.match_top < 0:
            raise InputError(f"match_top is {self.match_top}.", "a whole number from 1, or 0 for all candidates")


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


def own_classes(model: Model, candidates: Candidates, labels: Labels | None, tissue: str | None) -> Candidates:
    """Return the classes of a tuned model where the user named no candidates; else `candidates`.

    Raises
    ------
    InputError
        The user named candidates, and tuning has given up the space in which cells and texts are compared.
    """
    head = model.head
    if head is None:
        return candidates
    if labels is None and tissue is None:
        names = ", ".join(head.classes[:6]) + (", ..." if len(head.classes) > 6 else "")
        line = f"The {len(head.classes):,} classes that {model.name} was tuned to ({head.method}): {names}"
        return Candidates(list(head.classes), list(head.term_ids), list(head.texts), TUNED, [line, *warnings_of(model)])
    if not head.keeps_texts:
        raise InputError(
            f"{model.name} was tuned with the method {head.method!r}, after which cells can't be compared with other "
            "labels than its own.",
            "no labels and no tissue",
            "a model tuned with classifier, prototypes or langcell, or the base model",
        )
    return candidates


def check_matching(model: Model, candidates: Candidates, options: AnnotateOptions) -> None:
    """Raise `InputError` where cells are to be matched with texts and the model or the candidates are not made for it.

    A tuned model names its own classes by its head, and a CellLM knows no words.
    """
    if options.match is None:
        return
    if candidates.origin == TUNED or not isinstance(model, LangCellModel):
        raise InputError(
            f"{model.name} names its own classes by a head that takes no part in matching.",
            "candidates of one's own, or no matching",
        )
    check_match(model, options.match)


def ready_to_match(model: Model, candidates: Candidates, options: AnnotateOptions) -> CandidateMatch | None:
    """Return the candidates as the match classifier takes them; None where it isn't asked."""
    if options.match is None:
        return None
    assert isinstance(model, LangCellModel)  # by check_matching
    return prepare_match(model, candidates, options.match, options.match_top)


def warnings_of(model: Model) -> list[str]:
    """Return what a reader of a tuned model's answers should know: that it was no better than what it came from."""
    comparison = {} if model.head is None else model.head.facts.get("comparison", {})
    if model.head is None or not comparison.get("worse"):
        return []
    method, plain = (comparison[name]["macro_f1"] for name in (model.head.method, "classifier"))
    return [
        f"Note: on its own validation this model was worse than the frozen classifier (macro-F1 {method:.3f} against "
        f"{plain:.3f})."
    ]
