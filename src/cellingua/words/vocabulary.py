"""Words of labels that don't change the type: states, stages, tissues, numbers, marker genes; and those that do."""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files

from cellingua.words.dictionary import Dictionary
from cellingua.words.spelling import singular, word_set

# States and origins: a cycling B cell is a B cell.
STATES = word_set(
    "cycling proliferating dividing mitotic activated act resting quiescent stressed stress inflamed healthy normal "
    "disease diseased donor human fetal maternal adult embryonic neonatal infant pediatric aged lineage infiltrating "
    "resident circulating other general s g1 g2m m ifn interferon isg stimulated unstimulated responsive response "
    "hypoxic high low dim bright expressing secreting like primary tissue specific enriched main major minor "
    "cluster subset subtype subpopulation population group state type class sub clust cl compartment "
    "adaptive maladaptive repairing degenerative injured altered distinct indistinct signaling basic "
    "hsp hla mhc mt ribo mito total all px"
)
# ... and what makes the type less exact, yet leaves the kind.
STAGES = word_set(
    "early late mid mature immature differentiated differentiating intermediate transitional transitioning "
    "inflammatory upper lower deep superficial inner outer proximal distal central peripheral large small terminal "
    "mesenchymal tumor cancer associated zone left right atypical canonical conventional classical "
    "regenerating reactive systemic homeostatic matrix newborn trans str vent young old stage phase "
    "pericentral periportal interzonal compact trabecular remodeling remodelling ecm contractile tumoral patrolling"
)
TISSUES = word_set(
    "pancreas pancreatic lung pulmonary liver hepatic kidney renal brain cortex cortical cerebral skin dermal gut "
    "intestine intestinal colon colonic ileum ileal heart cardiac breast mammary prostate prostatic placenta placental "
    "decidua decidual testis testicular ovary ovarian uterus uterine endometrium endometrial blood pbmc marrow bm bone "
    "thymus thymic spleen splenic node nodal adipose muscle retina retinal eye ocular stomach gastric esophagus "
    "esophageal thyroid adrenal bladder airway bronchus bronchial trachea tracheal nasal midbrain forebrain hindbrain "
    "cerebellum cerebellar hippocampus hippocampal tonsil tonsillar pfc ctx v1 striatum striatal lp lamina propria "
    "duodenum duodenal jejunum jejunal rectum rectal bile peritoneal peritoneum synovial "
    "dermis epidermal ppp rhp ent entl entm tpe"
)
# Words whose loss would turn the meaning round, or into a precursor.
NEVER_DROPPED = word_set(
    "non not no anti without pre pro post progenitor precursor stem blast doublet unknown malignant carcinoma lymphoma "
    "leukemia leukemic sarcoma melanoma glioma adenoma neoplastic metastatic metastasis organoid hybrid vs or line "
    "negative transdifferentiated"
)
LAYER = re.compile(r"l[1-6][ab]?")


def is_number(word: str) -> bool:
    """Return whether a word is the number of a cluster ("12", "2b", "c3")."""
    return bool(re.fullmatch(r"\d+[a-z]?|c\d+|k\d+|[a-z]?\d{2,}", word))


@cache
def marker_genes() -> frozenset[str]:
    """Return the shipped, reviewed genes that people name clusters after, in lower case."""
    text = files("cellingua").joinpath("data", "words", "marker_genes.txt").read_text(encoding="utf-8")
    return word_set(" ".join(line for line in text.splitlines() if not line.startswith("#")).lower())


def gene_words(text: str, book: Dictionary) -> set[str]:
    """Return the words of a text that look like marker genes: capitals, letters with digits, or "something+"."""
    found = set()
    capitals = text.isupper()
    for word in re.findall(r"[A-Za-z0-9]+", text):
        lower = word.lower()
        mixed = bool(re.fullmatch(r"[A-Za-z]{1,7}\d+[A-Za-z0-9]*", word))
        mixed = mixed or (lower in marker_genes() and book.whole((lower,), "") is None)
        if mixed or (len(word) >= 3 and word.isupper() and not capitals and book.whole((lower,), "") is None):
            found.add(lower)
    for word in re.findall(r"([A-Za-z0-9]+)(?:\+|[_\s]?(?:pos|hi|lo|high|low)\b)", text):
        if book.whole((word.lower(),), "") is None:
            found.add(word.lower())
    return found | {singular(word) for word in found}
