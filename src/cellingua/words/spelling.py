"""Spelling of labels: how a label becomes words that can be compared, whatever its case, hyphens, Greek or plural."""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

GREEK = {"α": "alpha", "β": "beta", "γ": "gamma", "δ": "delta", "ε": "epsilon", "φ": "phi", "ϕ": "phi"}
GREEK |= {"Φ": "phi", "ζ": "zeta", "κ": "kappa", "λ": "lambda", "μ": "mu", "µ": "mu"}
# British and older spellings, and words people run together.
SPELLINGS = {
    "tumour": "tumor",
    "tumoural": "tumoral",
    "oesophagus": "esophagus",
    "oesophageal": "esophageal",
    "foetal": "fetal",
    "foetus": "fetus",
    "haematopoietic": "hematopoietic",
    "hemopoietic": "hematopoietic",
    "haemopoietic": "hematopoietic",
    "leucocyte": "leukocyte",
    "megacaryocyte": "megakaryocyte",
    "neurone": "neuron",
    "mueller": "muller",
    "centre": "center",
    "fibre": "fiber",
    "tcell": "t cell",
    "bcell": "b cell",
    "nkcell": "nk cell",
    "nks": "nk",
    "gammadelta": "gamma delta",
    "alphabeta": "alpha beta",
    "gd": "gamma delta",
    "pos": "positive",
    "neg": "negative",
    "hi": "high",
    "lo": "low",
    "proliferative": "proliferating",
    "prolif": "proliferating",
    "capilary": "capillary",
    "kuppfer": "kupffer",
    "kupfer": "kupffer",
    "spermatozoa": "spermatozoon",
    "spermatogonia": "spermatogonium",
    "endothelia": "endothelial",
    "endothelium": "endothelial",
    "epithelia": "epithelial",
    "epithelium": "epithelial",
    "mesothelia": "mesothelial",
    "mesothelium": "mesothelial",
    "urothelia": "urothelial",
    "urothelium": "urothelial",
    "prol": "proliferating",
    "cyc": "cycling",
    "mv": "microvascular",
    "intermed": "intermediate",
    "diff": "differentiated",
    "undiff": "undifferentiated",
    "tum": "tumor",
    "inflam": "inflammatory",
    "inf": "inflammatory",
    "prog": "progenitor",
    "progs": "progenitor",
    "precursors": "precursor",
    "macro": "macrophage",
    "trm": "tissue resident memory",
    "tm": "memory t",
    "bmem": "b memory",
    "adipo": "adipocyte",
    "vas": "vascular",
    "vasc": "vascular",
    "smcs": "smc",
    "leuk": "leukocyte",
    "lympho": "lymphocyte",
    "nuclei": "nucleus",
    "macrophag": "macrophage",
    "monocytic": "monocyte",
    "mono": "monocyte",
    "mac": "macrophage",
    "mph": "macrophage",
    "mphi": "macrophage",
    "neut": "neutrophil",
    "neutro": "neutrophil",
    "astro": "astrocyte",
    "oligo": "oligodendrocyte",
    "fibro": "fibroblast",
    "fib": "fibroblast",
    "keratino": "keratinocyte",
}
# The letter of a lineage run together with the word after it: "Bnaive", "Tprolif", "NKcells".
_LETTER = re.compile(
    r"\b([BT]|NK)(?=(?i:naive|mem|memory|prolif|proliferating|cycling|cyc|activated|immature|mature|plasma|cells?|"
    r"lymph|lymphocytes?|exhausted|effector|helper|regulatory|follicular|cytotoxic|gd|intermediate|transitional)\b)"
)
_NO_PLURAL = ("ss", "us", "is", "ous")
_KEEP_S = {"cns", "ens", "pns", "hes", "as", "is", "ss", "axis", "gas", "cos", "plus", "ms"}


def word_set(text: str) -> frozenset[str]:
    """Return the words of a text as a set; for the lists of words and ids that rules are made of."""
    return frozenset(text.split())


def fold(text: str) -> str:
    """Return text without accents, compatibility forms and Greek letters ("naïve γδ" becomes "naive gammadelta")."""
    text = unicodedata.normalize("NFKC", text)
    text = text.replace("NØ", "neutrophil").replace("MØ", "macrophage")
    text = "".join(GREEK.get(c, c) for c in text)
    text = re.sub(r"(?i)\bCD8\s?(a|alpha)/(a|b)(?=\b|lpha|eta)", r"CD8a\2", text)
    decomposed = unicodedata.normalize("NFD", text)
    return "".join(c for c in decomposed if not unicodedata.combining(c))


def singular(word: str) -> str:
    """Return a lower-case word without its plural "s" ("cells", "dcs", "fibroblasts", not "serous" or "ens")."""
    if len(word) < 3 or not word.endswith("s") or word.endswith(_NO_PLURAL) or word in _KEEP_S:
        return word
    if word.endswith("ies") and len(word) > 4:
        return word[:-3] + "y"
    if word.endswith(("ches", "shes", "xes")):
        return word[:-2]
    return word[:-1]


@lru_cache(maxsize=65536)
def split_words(text: str) -> tuple[str, ...]:
    """Return the comparable words of a label.

    "+" and "-" after a marker become the words positive and negative; high, low, dim and bright are split from a
    marker; other punctuation divides words; plurals become singular; British spellings American.

    Examples
    --------
    >>> split_words("CD4+/CD25- Naïve T cells")
    ('cd4', 'positive', 'cd25', 'negative', 'naive', 't', 'cell')
    """
    text = fold(text)
    text = re.sub(r"(?<=[A-Za-z0-9])\s?\+{1,3}(?=$|[^A-Za-z0-9+]|[A-Za-z])", " positive ", text)
    text = re.sub(
        r"(?i)\b((?:cd|fcgr|ccr|cxcr|hla|ighd?|nk)\d*[a-z]?\d*[a-z]?)-(?=$|[\s/,;_.)]|CD\d)", r"\1 negative ", text
    )
    text = re.sub(r"(?i)(cd\d+[a-z]?)(high|hi|low|lo|dim|bright|pos|neg)(?=\b|cd)", r"\1 \2 ", text)
    text = re.sub(r"(?<=[A-Z0-9])(pos|neg|hi|lo|high|low|bright|dim)(?![A-Za-z0-9])", r" \1", text)
    text = re.sub(r"\b(CD\d+[A-Z]?)p\b", r"\1 positive ", text)
    text = re.sub(r"(?<=[a-z]{3})(?=CD\d)", " ", text)
    text = _LETTER.sub(r"\1 ", text)
    text = re.sub(r"(?<=\bCD[48])(?=T)|(?<=[a-z]{3})(?=[A-Z][a-z]{2})", " ", text)
    words: list[str] = []
    for word in re.findall(r"[a-z0-9]+", text.lower()):
        word = SPELLINGS.get(word, word)
        for part in word.split():
            one = singular(part)
            words.extend(SPELLINGS.get(one, one).split())
    return tuple(words)


# What people put before a short form: species, age, a state ("hEndo", "fFB", "cycT"), a projection ("exCA1").
_PREFIXES = (
    (re.compile(r"\b[hfn](?=[A-Z][A-Za-z]{1,})"), ""),
    (re.compile(r"\bcyc(?=[A-Z])"), "cycling "),
    (re.compile(r"\bmig(?=[A-Z])"), "migratory "),
    (re.compile(r"\b(ex|in)(?=[A-Z]{2})"), r"\1 "),
    (re.compile(r"(?i)\b(cd[48])(?!(?:aa|ab|a|b|alpha|hi|lo|low|pos|neg|dim)\b)(?=[a-z]{2})"), r"\1 "),
    (re.compile(r"(?i)\bpro[\s.-]*(?=inflammatory)"), ""),
    (re.compile(r"(?i)\b(monocyte|mono|marrow|bone marrow|tissue)[\s.-]*derived\b"), ""),
    (re.compile(r"(?<=[A-Za-z]{2})[\s(-]+(p|px|q|d|s)\)?$"), ""),
    (re.compile(r"(?<=[A-Za-z]{3})[\s(-]+[ACDEFGH]\)?$"), ""),
    (re.compile(r"\bPD-?(L?1)\b"), r"PD\1"),
    (re.compile(r"\s*\([^()]*[+\d][^()]*\)\s*$"), ""),
)


def loosen(text: str) -> str:
    """Return a label without prefixes and tails that change no type, for readers that failed on it as written."""
    text = text.replace("_", " ")
    for pattern, instead in _PREFIXES:
        text = pattern.sub(instead, text)
    return text.strip()


def bag(words: tuple[str, ...] | list[str]) -> frozenset[str]:
    """Return what a label says whatever the order of its words: without "cell", "positive", "of" and the like."""
    return frozenset(words) - IDLE_WORDS


IDLE_WORDS = frozenset({"cell", "positive", "of", "the", "and", "in", "from", "with"})
