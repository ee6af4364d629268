"""The words of the Cell Ontology, for looking labels up: names, synonyms and reviewed short forms."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterable
from functools import cache, lru_cache
from importlib.resources import files

from cellingua.words.ontology import Ontology, load_ontology
from cellingua.words.spelling import bag, fold, split_words, word_set

# A tissue, however it is written, falls on one of these organs; the first that matches holds.
ORGANS: tuple[tuple[str, str], ...] = (
    ("placenta", r"placent|decidua|trophobl|chorion"),
    ("embryo", r"embryo|blastocyst|gastrula|yolk sac|primitive streak"),
    ("bone marrow", r"bone marrow|\bmarrow\b"),
    ("blood", r"blood|pbmc|leukapheresis|buffy"),
    ("lymph node", r"lymph node|tonsil|\bnodal\b"),
    ("spleen", r"spleen|splenic"),
    ("thymus", r"thymus|thymic"),
    ("adrenal", r"adrenal"),
    ("pancreas", r"pancrea|\bislets?\b"),
    ("liver", r"liver|hepatic|biliary|gallbladder"),
    ("lung", r"lung|pulmonary|airway|trachea|bronch|nasal|\bnose\b|alveol|respiratory"),
    ("kidney", r"kidney|renal|nephro|glomerul"),
    ("eye", r"retina|\beye\b|ocular|cornea|\bfovea\b|macula\b|\blens\b|\biris\b"),
    ("cerebellum", r"cerebell"),
    (
        "brain",
        r"brain|cortex|cortical|cerebr|hippocamp|midbrain|forebrain|substantia nigra|striat|thalam|spinal|neural",
    ),
    ("muscle", r"skeletal muscle|\bmuscle\b"),
    ("heart", r"heart|cardiac|atri(um|al)|ventric|aort"),
    ("colon", r"colon|rectum|large intestine|\bcecum\b"),
    ("intestine", r"intestin|ileum|ileal|jejun|duoden|\bgut\b|bowel"),
    ("stomach", r"stomach|gastric"),
    ("esophagus", r"esophag"),
    ("skin", r"skin|epiderm|dermis|dermal|cutaneous"),
    ("breast", r"breast|mammary"),
    ("prostate", r"prostat"),
    ("testis", r"testis|testic|testes"),
    ("ovary", r"ovar"),
    ("uterus", r"uter(us|ine)|endometri|fallopian|cervix"),
    ("bladder", r"bladder|urothel|ureter"),
    ("adipose", r"adipose|\bfat\b"),
    ("thyroid", r"thyroid"),
    ("mouth", r"saliv|parotid|submandib|\bmouth\b|\boral\b|gingiv|tongue"),
    ("joint", r"synovi|\bjoint\b|tendon|knee"),
    ("bone", r"\bbone\b|cartilage"),
    ("ear", r"\bear\b|cochlea|utricle|vestibul"),
    ("pituitary", r"pituitar|hypophys"),
    ("fetus", r"\bfet(al|us)\b|\bfoet"),
    ("tumor", r"tumou?r\b|cancer|carcinoma|melanoma"),
)
# What holds in the second organ holds in the first as well.
WIDER_ORGAN = {"cerebellum": "brain", "colon": "intestine", "bone marrow": "blood"}

# Words that the ontology puts before or after a name to say the organ ("red pulp macrophage" of the spleen).
ORGAN_WORDS: dict[str, tuple[str, ...]] = {
    "spleen": ("splenic", "spleen"),
    "lung": ("lung", "pulmonary", "respiratory tract", "tracheobronchial"),
    "liver": ("hepatic", "liver"),
    "kidney": ("kidney", "renal"),
    "brain": ("brain", "cerebral cortex"),
    "cerebellum": ("cerebellar",),
    "pancreas": ("pancreatic", "pancreas"),
    "thymus": ("thymic", "thymus"),
    "heart": ("cardiac", "heart"),
    "eye": ("retina", "retinal", "cornea", "corneal"),
    "skin": ("skin", "epidermis", "dermis"),
    "colon": ("colon", "large intestine", "intestine"),
    "intestine": ("intestinal", "intestine", "small intestine"),
    "stomach": ("stomach", "gastric", "gastric gland"),
    "esophagus": ("esophagus",),
    "breast": ("mammary gland",),
    "prostate": ("prostate", "prostate epithelium"),
    "uterus": ("endometrium", "uterine"),
    "ovary": ("ovary", "ovarian"),
    "placenta": ("placental", "placenta", "decidual"),
    "bladder": ("bladder", "urothelium"),
    "adipose": ("adipose tissue",),
    "lymph node": ("lymph node",),
    "bone marrow": ("bone marrow",),
    "muscle": ("skeletal muscle",),
    "thyroid": ("thyroid",),
    "adrenal": ("adrenal gland", "adrenal"),
}

# Classes by a property (colour, motion, ploidy, culture): they say nothing of what a cell is, and are neither
# candidates nor the reading of a label that names two types. All terms one step below "cell" were read.
UNINFORMATIVE = word_set(
    "CL:0000000 CL:0000001 CL:0000010 CL:0000039 CL:0000151 "
    "CL:0000152 CL:0000154 CL:0000183 CL:0000211 CL:0000219 CL:0000225 "
    "CL:0000226 CL:0000228 CL:0000255 CL:0000325 CL:0000329 CL:0000393 CL:0000404 CL:0000412 CL:0000413 CL:0000415 "
    "CL:0000422 CL:0000424 CL:0000445 CL:0000520 CL:0000578 CL:0000628 CL:0000630 CL:0000725 CL:0001034 CL:0001061 "
    "CL:0002242 CL:0002321 CL:0009002 CL:0011115 CL:4029001"
)

# What a cell does, of several lineages: fit to be chosen by a user, but a cell of any of them has a better name.
DUTIES = word_set("CL:0000113 CL:0000145 CL:0000234 CL:0000518 CL:0000842 CL:0011026")

# Names that say so little that the tissue says more: "stem cells" of the gut.
VAGUE = ("CL:0000034", "CL:0011026", "CL:0000723", "CL:0000696", "CL:0000423")
# Lineages that a sub-clustering starts from; each with the kinds that people count to it, ontology or not.
LINEAGES: dict[str, tuple[str, ...]] = {
    "CL:0000763": ("CL:0000451", "CL:0000113", "CL:0000094", "CL:0000097", "CL:0000233", "CL:0000556"),
    "CL:0000738": ("CL:0000988",),
    "CL:0000542": ("CL:0001065", "CL:0000786"),
    "CL:0000084": ("CL:0000542", "CL:0001065"),
    "CL:0000236": ("CL:0000785", "CL:0000786", "CL:0000945"),
    "CL:0000499": ("CL:0000057", "CL:0000669", "CL:0000192", "CL:0008019", "CL:0000115", "CL:0000077", "CL:0000136"),
    "CL:0008019": ("CL:0000057", "CL:0000669", "CL:0000192", "CL:0000499", "CL:0000136"),
    "CL:0000066": ("CL:0000163", "CL:0000151", "CL:0000160", "CL:0000646"),
    "CL:0000540": (),
    "CL:0000115": (),
    "CL:0000057": (),
    "CL:0000235": (),
    "CL:0000125": (),
}

# Acronyms of three letters mean too much ("IC" is an inferior cardiac neuron to the ontology, and an intercalated
# cell to most): those that hold are among the reviewed short forms.
SHORTEST = 3

GLUED = re.compile(r"([a-z]{2,})(\d{1,2}[a-z]?)")
COUNTED = word_set("type helper cell cluster subset state group")


def organ_of(tissue: str | None) -> str:
    """Return the organ that a tissue name falls on, ``""`` for none or one that no reading depends on."""
    text = fold(tissue or "").lower().replace("_", " ")
    return next((organ for organ, pattern in ORGANS if re.search(pattern, text)), "")


def _key(words: tuple[str, ...], several: bool) -> frozenset[str]:
    """Return what a short form is kept under; "B / plasma" is another than "plasma B"."""
    return (bag(words) or frozenset(words)) | ({"/"} if several else set())


class Dictionary:
    """Looks up whole labels. See `load_dictionary`.

    Parameters
    ----------
    ontology
        The Cell Ontology.
    short_forms
        Rows of (term id, organ or ``""``, forms).
    """

    def __init__(self, ontology: Ontology, short_forms: Iterable[tuple[str, str, list[str]]]) -> None:
        self.ontology = ontology
        self.names: dict[str, str] = {}
        self.synonyms: dict[str, set[str]] = {}
        self.words: dict[tuple[str, ...], set[str]] = {}
        self.bags: dict[frozenset[str], set[str]] = {}
        self.own: dict[tuple[str, ...], set[str]] = {}
        self.short: dict[tuple[frozenset[str], str], str] = {}
        self.joined: dict[str, set[str]] = {}
        self.vocabulary: set[str] = set()
        for term_id in ontology.ids:
            self.names.setdefault(ontology.name(term_id).lower(), term_id)
            self._add(ontology.name(term_id), term_id)
        self.own = {words: set(ids) for words, ids in self.words.items()}
        for term_id in ontology.ids:
            for synonym in ontology.synonyms(term_id):
                if len(synonym) <= SHORTEST:
                    continue
                self.synonyms.setdefault(synonym.lower(), set()).add(term_id)
                # What names one term is never a synonym of another; and what no human has ("stalk cell" of an insect)
                # is read from its very synonym alone, not from one like it ("Late stalk").
                if split_words(synonym) not in self.own and ontology.in_human(term_id):
                    self._add(synonym, term_id)
        for term_id, organ, forms in short_forms:
            for form in forms:
                words = split_words(form)
                self.vocabulary.update(words)
                self.short.setdefault((_key(words, "/" in form), organ), term_id)

    def _add(self, text: str, term_id: str) -> None:
        words = split_words(text)
        self.vocabulary.update(words)
        self.words.setdefault(words, set()).add(term_id)
        self.bags.setdefault(bag(words), set()).add(term_id)
        joined = "".join(w for w in words if w != "cell")
        if len(joined) > 4:
            self.joined.setdefault(joined, set()).add(term_id)

    def one(self, ids: set[str] | None) -> str | None:
        """Return the only sensible id among several that share a spelling, None if that can't be told."""
        if not ids:
            return None
        for prefer in (self.ontology.in_human, self._plain):
            if len(ids) > 1:
                ids = {i for i in ids if prefer(i)} or ids
        if len(ids) > 1:
            ids = {i for i in ids if all(i == j or i in self.ontology.ancestors(j) for j in ids)}
        return next(iter(ids)) if len(ids) == 1 else None

    def _plain(self, term_id: str) -> bool:
        return not re.search(r"\((Primate|Homo sapiens|Mmus)\)|, human$", self.ontology.name(term_id))

    def own_name(self, words: tuple[str, ...]) -> str | None:
        """Return the term whose name these words are (plural, case, hyphens and Greek apart), None if there is none."""
        return self.one(self.own.get(words))

    def short_form(self, words: tuple[str, ...], organ: str, *, several: bool = False) -> str | None:
        """Return the term of a reviewed short form, the organ's own reading before the general one.

        With `several`, only forms for labels that put names side by side count ("B / plasma").
        """
        key = _key(words, several)
        for place in (organ, WIDER_ORGAN.get(organ, ""), ""):
            if (key, place) in self.short:
                return self.short[key, place]
        return None

    def whole(self, words: tuple[str, ...], organ: str) -> tuple[str, str] | None:
        """Return (term id, how) of words that are one name, synonym or short form as a whole, else None."""
        if not words:
            return None
        content = [w for w in words if w != "cell"]
        if len(content) == 1 and len(content[0]) == 1:  # "P cell" is a synonym of three: only a reviewed form will do
            short = self.own_name(words) or self.short_form(words, organ)
            return (short, "short form") if short else None
        if own := self.own_name(words):
            return own, "spelling"
        # "type 1" or "cells 1" at the end may be a cluster number: then only the exact words will do.
        numbered = len(words) > 2 and (words[-2] == "type" or (words[-2] == "cell" and words[-1].isdigit()))
        if (found := self.short_form(words, organ)) and not (numbered and words[-2] == "cell"):
            return found, "short form"
        if numbered:
            found = self.one(self.words.get(words))
            return (found, "spelling") if found and words[-2] != "cell" else None
        for variant in (words, (*words, "cell"), tuple(w for w in words if w != "cell")):
            if found := self.one(self.words.get(variant)):
                return found, "spelling"
        if found := self.one(self.bags.get(bag(words))) if bag(words) else None:
            return found, "word order"
        joined = "".join(w for w in words if w != "cell")
        if found := self.one(self.joined.get(joined)):
            return found, "spelling"
        if found := self._in_organ(frozenset(content), organ):
            return found, "word order"
        return None

    def _in_organ(self, content: frozenset[str], organ: str) -> str | None:
        """Return the term that at least two words name together with the organ, None if there is none."""
        key = bag(list(content))
        if len(key) < 2:
            return None
        for place in (organ, WIDER_ORGAN.get(organ, "")):
            for words in ORGAN_WORDS.get(place, ()):
                if found := self.one(self.bags.get(key | bag(split_words(words)))):
                    return found
        return None

    @lru_cache(maxsize=4096)  # noqa: B019 - there is one dictionary
    def respell(self, word: str) -> str:
        """Return the one known word that a long word is within a letter or two of, else the word itself."""
        if len(word) < 7 or word in self.vocabulary or not word.isalpha():
            return word
        near = [w for w in self.vocabulary if w[0] == word[0] and abs(len(w) - len(word)) < 3 and len(w) > 6]
        found = difflib.get_close_matches(word, near, n=2, cutoff=0.89)
        return found[0] if found else word

    def unglue(self, words: tuple[str, ...], organ: str, genes: Collection[str] = ()) -> tuple[str, ...]:
        """Return words with numbers split from what they count ("fb1", "helper2"), where only that makes a word.

        Not those among `genes` ("mzb1" counts no MZB), nor those said to be positive.
        """
        out: list[str] = []
        for word, after in zip(words, [*words, ""][1:], strict=True):
            whole = word in genes or (after == "positive" and word[-1:].isalpha()) or self.whole((word,), organ)
            match = None if whole else GLUED.fullmatch(word)
            stem = split_words(match[1]) if match else ()
            if match and stem != ("cd",) and (set(stem) <= COUNTED or self.whole(stem, organ)):
                out += [*stem, match[2]]
            else:
                out.append(word)
        return tuple(out)


def read_short_forms() -> list[tuple[str, str, list[str]]]:
    """Return the rows of the shipped, reviewed short forms: (term id, organ, forms)."""
    text = files("cellingua").joinpath("data", "words", "short_forms.tsv").read_text(encoding="utf-8")
    rows = []
    for line in text.splitlines():
        if line and not line.startswith(("#", "term_id\t")):
            term_id, _, organ, forms = line.split("\t")
            rows.append((term_id, organ, [form.strip() for form in forms.split(";")]))
    return rows


@cache
def load_dictionary() -> Dictionary:
    """Return the dictionary of the Cell Ontology, made once (about a quarter of a second)."""
    return Dictionary(load_ontology("CL"), read_short_forms())
