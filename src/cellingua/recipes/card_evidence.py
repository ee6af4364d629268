"""What a card tells of a model's evidence: its sources with licences, and where it knows a type from words alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from cellingua.recipes.card_parts import table
from cellingua.recipes.seen import Told, read_sources
from cellingua.words.ontology import Ontology, load_ontology
from cellingua.words.tissues import tissue_table

EVERYWHERE = "everywhere"
#: Branches of the Cell Ontology that people ask for, from wide to narrow; a type may lie in several.
BRANCHES = (
    "CL:0000084", "CL:0000236", "CL:0000623", "CL:0000576", "CL:0000235", "CL:0000451", "CL:0000094", "CL:0000232",
    "CL:0008001", "CL:0000066", "CL:0002076", "CL:0000163", "CL:0000115", "CL:0000057", "CL:0000187", "CL:0000540",
    "CL:0000125", "CL:0000034", "CL:0000586", "CL:0001063",
)  # fmt: skip
_HEAD = ("types", "real cells", "mean profile", "markers only", "words only")

USE = (
    "Research on human single cells: a first name for cells and clusters, to be checked by a person who knows the "
    "tissue. Not for diagnosis or any clinical decision. Types that the model knows from words alone (no profile, "
    "marker or cell) are guesses. Known weak spots: naive against memory T cells, types of one family in tissues "
    "of which no cell was seen, malignant cells against the tissue they come from."
)


def sources(hashes: Mapping[str, str], folder: Path | None) -> str:
    """Return the table of data files: what each is, where it is from, its licence and its SHA-256.

    Parameters
    ----------
    hashes
        SHA-256 by the path in the data folder.
    folder
        Where ``SOURCES.tsv`` lies; without it, titles and licences are "not told".
    """
    told = {} if folder is None else read_sources(folder)
    rows = []
    for path, digest in hashes.items():
        one = told.get(Path(path).name, Told())
        rows.append([path, one.title or "", one.source or "not told", one.licence or "not told", digest])
    return table(["file", "what", "source", "licence", "SHA-256"], rows)


def evidence(cells: Iterable[str], profiles: Iterable[str], markers: Iterable[str]) -> str:
    """Return what the model knows its types from, by tissue and by branch of the Cell Ontology.

    Parameters
    ----------
    cells, profiles, markers
        Terms with real cells, with a mean profile, with markers.
    """
    ontology = load_ontology("CL")
    kinds = (set(cells), set(profiles), set(markers))
    uberon = load_ontology("UBERON")
    organs = [
        (uberon.name(tissue) if tissue in uberon else tissue, terms)
        for tissue, terms in tissue_table().items()
        if tissue != EVERYWHERE
    ]
    organs = [("in any tissue", tissue_table()[EVERYWHERE]), *sorted(organs)]
    branches = [(ontology.name(root), below(ontology, root)) for root in BRANCHES if root in ontology]
    return "\n\n".join(
        [
            "How many types of a tissue, or of a branch of the Cell Ontology, the model knows from real cells, else "
            "from a mean profile, else from marker genes, else from words. Where most are known from words alone, "
            "expect wide answers and wrong siblings; where none has real cells, errors of platform and tissue, too.",
            table(["tissue", *_HEAD], [[name, *_counts(terms, kinds)] for name, terms in organs]),
            table(["branch", *_HEAD], [[name, *_counts(terms, kinds)] for name, terms in branches]),
        ]
    )


def below(ontology: Ontology, root: str) -> frozenset[str]:
    """Return a term with all terms below it."""
    return frozenset(term for term in ontology.ids if ontology.is_a(term, root))


def _counts(terms: Iterable[str], kinds: tuple[set[str], ...]) -> list[str]:
    left = set(terms)
    row = [f"{len(left):,}"]
    for kind in kinds:
        row.append(f"{len(left & kind):,}")
        left -= kind
    return [*row, f"{len(left):,}"]
