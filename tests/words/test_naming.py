"""Labels to terms: properties over the whole ontology, the short forms of the field, and what must stay unread."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cellingua.words.dictionary import SHORTEST, load_dictionary, organ_of, read_short_forms
from cellingua.words.naming import name_label
from cellingua.words.ontology import load_ontology
from cellingua.words.spelling import bag, split_words

ONTOLOGY = load_ontology("CL")


def test_every_name_and_id_is_read_as_itself() -> None:
    for term_id in ONTOLOGY.ids:
        assert name_label(ONTOLOGY.name(term_id)).term_id == term_id
        assert name_label(term_id).how == "id"
        assert name_label(term_id.replace(":", "_")).term_id == term_id


def test_every_name_is_itself_in_every_tissue() -> None:
    for term_id in ONTOLOGY.ids[::29]:
        for tissue in ("pancreas", "liver", "retina", "breast tumour"):
            assert name_label(ONTOLOGY.name(term_id), tissue=tissue).term_id == term_id


def test_upper_case_and_plural_of_names() -> None:
    wrong = []
    for term_id in ONTOLOGY.ids[::3]:
        name = ONTOLOGY.name(term_id)
        assert name_label(name.upper()).term_id == term_id
        if ONTOLOGY.in_human(term_id) and name.endswith(("cell", "cyte", "blast", "neuron", "phage")):
            found = name_label(name + "s").term_id
            if found != term_id:
                wrong.append((name, found))
    # Names that differ from another in hyphens or a comma alone can't be told apart once these are dropped.
    assert len(wrong) <= 3, wrong


def test_synonyms_of_one_term_are_read_as_it() -> None:
    book = load_dictionary()
    names = {ONTOLOGY.name(i).lower() for i in ONTOLOGY.ids}
    own_words = {split_words(ONTOLOGY.name(i)) for i in ONTOLOGY.ids}
    reviewed = {key for key, _ in book.short}
    checked = 0
    for term_id in ONTOLOGY.ids:
        for synonym in ONTOLOGY.synonyms(term_id):
            words = split_words(synonym)
            if len(synonym) <= SHORTEST or synonym.lower() in names or words in own_words:
                continue
            if bag(words) in reviewed or len(book.synonyms[synonym.lower()]) > 1 or "/" in synonym:
                continue
            naming = name_label(synonym)
            if naming.how == "no type":
                continue
            assert naming.term_id == term_id, (synonym, naming)
            checked += 1
    assert checked > 2000


def test_short_forms_are_terms_and_are_read() -> None:
    rows = read_short_forms()
    assert len(rows) > 400
    keys: dict[tuple[frozenset[str], str], str] = {}
    for term_id, organ, forms in rows:
        assert term_id in ONTOLOGY
        assert ONTOLOGY.in_human(term_id)
        assert organ == "" or organ_of(organ) == organ, organ
        for form in forms:
            keys.setdefault((bag(split_words(form)) or frozenset(split_words(form)), organ), term_id)
    assert len(keys) > 1200


@pytest.mark.parametrize(
    ("label", "tissue", "name"),
    [
        ("CD4 T", None, "CD4-positive, alpha-beta T cell"),
        ("FCGR3A+ Mono", None, "CD14-low, CD16-positive monocyte"),
        ("CD16+ monocytes", None, "CD14-low, CD16-positive monocyte"),
        ("pDC", None, "plasmacytoid dendritic cell"),
        ("Treg", None, "regulatory T cell"),
        ("NK", None, "natural killer cell"),
        ("DC", None, "dendritic cell"),
        ("activated stellate", "pancreas", "pancreatic stellate cell"),
        ("activated stellate", "liver", "hepatic stellate cell"),
        ("HSC", "liver", "hepatic stellate cell"),
        ("HSC", "bone marrow", "hematopoietic stem cell"),
        ("alpha cell", "pancreas", "pancreatic A cell"),
        ("alpha cell", None, "pancreatic A cell"),
        ("beta cell of pancreas", None, "type B pancreatic cell"),
        ("PC", "kidney", "kidney collecting duct principal cell"),
        ("naïve CD8+ T-cells", None, "naive thymus-derived CD8-positive, alpha-beta T cell"),
        ("γδ T cells", None, "gamma-delta T cell"),
        ("B cells 1", None, "B cell"),
        ("c03_B cell", None, "B cell"),
        ("Fibroblast_2", None, "fibroblast"),
        ("T/NK", None, "lymphocyte"),
        ("HSC/MPP", None, "hematopoietic multipotent progenitor cell"),
        ("Macrophage C1QB", "liver", "macrophage"),
        ("T cell lymphoma", None, "malignant cell"),
        ("tumour-infiltrating T cells", None, "T cell"),
        ("Oligodendrocytes (non-malignant)", "brain", "oligodendrocyte"),
        ("Ductal (malignant)", "pancreas", "malignant cell"),
        ("CD8a/a", None, "CD8-alpha-alpha-positive, alpha-beta intraepithelial T cell"),
        ("CD8a/b(entry)", None, "CD4-intermediate, CD8-positive double-positive thymocyte"),
        ("CD4-CD8- T", None, "double negative T regulatory cell"),
        ("B_c05-MZB1-XBP1", None, "B cell"),
        ("cluster 3 B", None, "B cell"),
        (
            "enterocyte/paneth cell of something else/small intestine goblet cell/mature enterocyte",
            None,
            "intestinal epithelial cell",
        ),
    ],
)
def test_forms_of_the_field(label: str, tissue: str | None, name: str) -> None:
    assert name_label(label, tissue=tissue).term_name == name


@pytest.mark.parametrize(
    "label",
    [
        "unknown",
        "Unassigned",
        "doublets",
        "B/T doublet",
        "NA",
        "Other",
        "low quality cells",
        "Cluster 5",
        "12",
        "",
        "  ",
        "xyz",
        "foo cell",
        "PC",
        "non-immune",
        "not a T cell",
        "anti-B cell",
        "IC",
        "T cell doublet",
        ".",
        "CL:",
        "Group B",
        "batch T",
        "Cell type B",
        "plate B",
        "T1",
        "my favourite population",
    ],
)
def test_what_no_rule_can_tell_stays_free(label: str) -> None:
    naming = name_label(label)
    assert naming.term_id is None
    assert naming.term_name is None


@given(st.text(max_size=80), st.sampled_from([None, "", "pancreas", "ünknown tissue"]))
@example("<script>alert(1)</script>", None)
@example("+/-+/-", "liver")
@example("a " * 40, None)
def test_any_text_is_read_without_an_error(label: str, tissue: str | None) -> None:
    naming = name_label(label, tissue=tissue)
    assert naming.label == label
    assert naming.term_id is None or ONTOLOGY.name(naming.term_id) == naming.term_name


PLAIN = [
    i for i in ONTOLOGY.ids if ONTOLOGY.in_human(i) and " " in ONTOLOGY.name(i) and ONTOLOGY.name(i).isascii()
    and not any(c.isdigit() or c in "+(),/" for c in ONTOLOGY.name(i))
]  # fmt: skip


@given(st.sampled_from(PLAIN), st.sampled_from(["{} {}", "{}_{}", "{}.{}", "{} ({})"]), st.integers(21, 40))
def test_a_cluster_number_changes_nothing(term_id: str, form: str, number: int) -> None:
    assert name_label(form.format(ONTOLOGY.name(term_id), number)).term_id == term_id


@given(st.text(alphabet="abcdeBT +-/_.0123479", max_size=60))
def test_splitting_words_twice_changes_nothing(text: str) -> None:
    words = split_words(text)
    assert split_words(" ".join(words)) == words
