"""The paragraph for the methods section of a paper, and its references."""

from __future__ import annotations

from typing import Any

from cellingua.tasks.clusters import NEIGHBOURS, RESOLUTION
from cellingua.tasks.result import Annotation
from cellingua.words.candidates import TUNED

REFERENCES = (
    "Zhao S, Zhang J, Wu Y, Luo Y, Nie Z. LangCell: Language-Cell Pre-training for Cell Identity Understanding. "
    "Proceedings of ICML 2024. arXiv:2405.06708.",
    "Diehl AD, Meehan TF, Bradford YM, et al. The Cell Ontology 2016: enhanced content, modularization, and "
    "ontology interoperability. Journal of Biomedical Semantics 2016; 7:44.",
    "Traag VA, Waltman L, van Eck NJ. From Louvain to Leiden: guaranteeing well-connected communities. Scientific "
    "Reports 2019; 9:5233.",
    "McInnes L, Healy J, Melville J. UMAP: Uniform Manifold Approximation and Projection for Dimension Reduction. "
    "arXiv:1802.03426, 2018.",
)

LIMITS = (
    "For research, not for diagnosis or treatment. A label says which of the candidates fits the cell's counts "
    "best; a type that is not among the candidates, or that the model has not met, can't be found. Sibling types "
    "(naive and memory cells, neighbouring states) are confused most often: read the probability and the "
    "runner-up with the label."
)


def methods_text(result: Annotation) -> str:
    """Return the paragraph: what was done with which versions, in the past tense."""
    provenance, diagnosis = result.provenance, result.diagnosis
    parameters, model, candidates = provenance["parameters"], provenance["model"], provenance["candidates"]
    versions = provenance["versions"]
    place = {"X": "the main matrix"}.get(diagnosis.place, diagnosis.place)
    counts = "recovered from log-normalised values in" if diagnosis.recovery is not None else "taken from"
    given = parameters["cluster_key"]
    evidence = ", together with the expression of each term's marker genes" if model["marker_evidence"] else ""
    clusters = (
        f"The clusters of “{given}” were given the candidate"
        if given
        else f"Clusters were found with the Leiden algorithm [3] (resolution {RESOLUTION:g}) on the {NEIGHBOURS} "
        "nearest neighbours by cosine distance in the joint space, and given the candidate"
    )
    return (
        f"Cells were named with cellingua {versions.get('cellingua', '')} and its model {model['name']} "
        f"(SHA-256 {model['hash']}…), an implementation of LangCell [1]. Raw counts of {result.n_cells:,} cells "
        f"were {counts} {place}; {diagnosis.genes_mapped:,} human genes were recognised, which hold "
        f"{diagnosis.share_of_counts_mapped:.0%} of the counts. Each cell was embedded in the joint space of "
        f"cells and texts and compared with {_candidates(result)} (candidate set {candidates['hash']})"
        f"{evidence}. Calibrated probabilities are over these candidates; a cell received the candidate, or the "
        f"narrowest Cell Ontology "
        f"term above several, whose probability together with all terms below it reached "
        f"{min(parameters['threshold'], 1.0):.4g}{_rate(parameters)}, and was left unknown otherwise, or with "
        f"fewer than "
        f"{parameters['min_tokens']} genes known to the model. A cell's label depends on that cell alone. "
        f"{clusters} of highest mean probability. The map was drawn with UMAP [4]. Seed {parameters['seed']}; Python "
        f"{versions.get('python', '')}, torch {versions.get('torch', '')}, anndata {versions.get('anndata', '')}."
    )


def _rate(parameters: dict[str, Any]) -> str:
    """Return what the error rate adds to the sentence on the threshold."""
    rate = parameters.get("error_rate")
    if rate is None:
        return ""
    floor = float(parameters["floor"])
    missing = ", or where it seemed to be of none of the candidates" if parameters["unknown_cutoff"] is not None else ""
    return (
        f" (the threshold that keeps an error rate of {rate:g} on data sets that were left out of training, by "
        f"conformal risk control; where nothing reached it, the likeliest wide term of "
        f"at least {floor:g}{missing})"
    )


def _candidates(result: Annotation) -> str:
    count = len(result.candidates.labels)
    tissue = result.provenance["parameters"]["tissue"]
    if result.candidates.origin == "ontology":
        return f"{count:,} terms of the Cell Ontology [2]"
    if result.candidates.origin == "tissue":
        return f"{count:,} terms of the Cell Ontology [2] with evidence in “{tissue}” or everywhere"
    if result.candidates.origin == TUNED:
        tuned = result.provenance["model"]["tuned"]
        return (
            f"the {count:,} classes that the model was tuned to ({tuned['method']}, {tuned['cells']:,} labelled cells)"
        )
    return f"{count:,} given labels, read as terms of the Cell Ontology [2] where possible"
