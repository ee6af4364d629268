"""The labelled sets that are measured on: which there are, where they are looked for, and a user's own file.

Named sets lie in a data folder in the layout of `cellingua.cells.collections`. Those of ``evaluation/`` were kept out
of every training; those of ``corpus/`` were in the training of the shipped models, so a figure on them is not
zero-shot, and the tables say so.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import anndata
import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, vstack

from cellingua.cells.counts import CountBlock, CountBlocks
from cellingua.cells.doctor import examine
from cellingua.cells.reading import open_cells
from cellingua.core.errors import FileError, InputError
from cellingua.tasks.columns import label_column, text_column
from cellingua.words.naming import name_label
from cellingua.words.ontology import load_ontology

TERM = "cell_type_ontology_term_id"
EVALUATION, CORPUS = "evaluation", "corpus"


@dataclass(frozen=True)
class BenchSet:
    """Labelled cells on the genes of the vocabulary.

    Attributes
    ----------
    name, title
        For keys, and for people.
    counts, totals
        CSR float32 (n, vocabulary), float64 (n,): over all columns of the file.
    labels
        str (n,), none empty.
    terms
        Ontology id of each cell's label, str (n,); ``""`` where there is none.
    groups
        Donor of each cell, str (n,); all ``""`` where nobody knows, or there is one.
    tissue
        Helps to read labels; a name or id of Uberon, or None.
    path
        The file they came from, None for cells in memory.
    trained
        Whether the shipped models were trained on them, by where they lie.
    noted
        What a reader has to know of the set.
    """

    name: str
    title: str
    counts: csr_matrix
    totals: NDArray[np.float64]
    labels: NDArray[np.str_]
    terms: NDArray[np.str_]
    groups: NDArray[np.str_]
    tissue: str | None = None
    path: Path | None = None
    trained: bool = False
    noted: str = ""

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def n_genes(self) -> NDArray[np.int64]:
        """Genes of the vocabulary with a count, int64 (n,)."""
        return np.diff(self.counts.indptr).astype(np.int64)

    @property
    def measured(self) -> NDArray[np.bool_]:
        """Genes that some cell shows, bool (vocabulary,)."""
        return np.asarray(self.counts.getnnz(axis=0) > 0)

    @property
    def donors(self) -> int:
        """Number of donors that can be held out: 0 or at least 2."""
        found = len(np.unique(self.groups))
        return found if found > 1 else 0

    def take(self, rows: NDArray[np.integer] | NDArray[np.bool_]) -> BenchSet:
        """Return some of the cells."""
        return replace(
            self,
            counts=csr_matrix(self.counts[rows]),
            totals=self.totals[rows],
            labels=self.labels[rows],
            terms=self.terms[rows],
            groups=self.groups[rows],
        )

    def block(self, start: int = 0, stop: int | None = None) -> CountBlock:
        """Return cells as models read them."""
        stop = len(self) if stop is None else min(stop, len(self))
        counts = csr_matrix(self.counts[start:stop])
        return CountBlock(start, stop, counts, self.totals[start:stop], self.n_genes[start:stop])


@dataclass(frozen=True)
class Source:
    """A named set.

    Attributes
    ----------
    title, folder, tissue
        See `BenchSet`; `folder` is ``evaluation`` or ``corpus``.
    file
        Stem of the file, where it is not the name.
    groups
        Column of ``obs`` with donors.
    joined
        Labels that are taken for one: label -> (label, ontology id).
    """

    title: str
    folder: str = EVALUATION
    tissue: str | None = "blood"
    file: str = ""
    groups: str = ""
    joined: Mapping[str, tuple[str, str]] | None = None


_CD4 = ("CD4 T", "CL:0000624")
_B = ("B cells", "CL:0000236")
SOURCES: Mapping[str, Source] = {
    "pbmc3k": Source("pbmc3k"),
    "pbmc3k_cd4": Source(
        "pbmc3k, CD4 joined", file="pbmc3k", joined=dict.fromkeys(("Naive CD4 T", "Memory CD4 T"), _CD4)
    ),
    "baron_donor1": Source("Baron, pancreas (650 cells)", tissue="pancreas"),
    "zheng_facs_sorted": Source("Zheng, sorted", joined={"bcell": _B}),
    "zheng68k_scanpy700": Source("Zheng 68k, 765 genes"),
    "oligodendroglioma": Source("Oligodendroglioma", tissue="brain", groups="donor_id"),
    "onek1k_panel1000": Source("OneK1K, 968 genes", CORPUS, groups="donor_id"),
    "kim_luad_t34": Source("Kim, lung tumour", CORPUS, "lung"),
    "breast_flex_demo": Source("Breast tumour, Flex", CORPUS, "breast"),
    "pbmc_3p_5p_panel1767": Source("PBMC, 3' and 5'", CORPUS),
    "wu_breast_cid4465": Source("Wu, breast tumour", CORPUS, "breast"),
    "he_liver_20": Source("He, liver (20 cells)", CORPUS, "liver"),
    "tyser_gastrula_panel2900": Source("Tyser, gastrula", CORPUS, None),
    "fetal_cortex_culture_panel2000": Source("Fetal cortex, cultured", CORPUS, "cerebral cortex"),
}


def named_set(name: str, folder: Path) -> BenchSet:
    """Read a named set from a data folder.

    Raises
    ------
    InputError
        There is no such set (the nearest names are given), or its file is not in the folder.
    """
    if name not in SOURCES:
        near = ", ".join(difflib.get_close_matches(name, SOURCES, n=3) or SOURCES)
        raise InputError(f"There is no set {name!r}.", f"one of: {near}", "the path of a labelled h5ad")
    source = SOURCES[name]
    path = Path(folder) / source.folder / f"{source.file or name}.h5ad"
    if not path.is_file():
        raise FileError(f"{path} is not there.", f"the set {name} of the data folder", "another --data")
    found = labelled_set(
        path, "cell_type", name=name, title=source.title, tissue=source.tissue, donor_key=source.groups or None
    )  # fmt: skip
    found = joined(found, source.joined or {})
    return replace(found, trained=source.folder == CORPUS)


def available(folder: Path, *, trained: bool = True) -> list[str]:
    """Return the names of the sets that a data folder has, those that models were trained on last or not at all."""
    there = [
        name
        for name, source in SOURCES.items()
        if (Path(folder) / source.folder / f"{source.file or name}.h5ad").is_file()
    ]
    return [name for name in there if trained or SOURCES[name].folder != CORPUS]


def labelled_set(
    cells: anndata.AnnData | Path | str,
    labels_from: str,
    *,
    name: str = "",
    title: str = "",
    tissue: str | None = None,
    donor_key: str | None = None,
    layer: str | None = None,
) -> BenchSet:
    """Read the labelled cells of a file through the same door as everybody's.

    Parameters
    ----------
    labels_from
        Column of ``obs`` with the labels. Cells without one, or with one that says that nobody knows, are left out.
        Their terms are those of the column ``cell_type_ontology_term_id`` where there is one and this is
        ``cell_type``; otherwise labels are read as `cellingua annotate` reads them.
    donor_key
        Column of ``obs`` with the donors.

    Raises
    ------
    InputError
        The file can't be used, a column is missing, or there are fewer than two labels.
    """
    with open_cells(cells) as file:
        diagnosis = examine(file, layer=layer)
        diagnosis.raise_if_refused()
        labels = label_column(file.obs, labels_from)
        groups = text_column(file.obs, donor_key).astype(np.str_) if donor_key else np.full(len(labels), "")
        given = text_column(file.obs, TERM) if labels_from == "cell_type" and TERM in file.obs else None
        shown, how = file.name, {label: name_label(label, tissue=tissue) for label in dict.fromkeys(labels) if label}
        kept = np.array([bool(label) and how[label].how != "no type" for label in labels], dtype=bool)
        parts = [(block.counts, block.totals) for block in CountBlocks(file, diagnosis).blocks()] if kept.any() else []
    if len({label for label, keep in zip(labels, kept, strict=True) if keep}) < 2:
        raise InputError(
            f"The column {labels_from!r} of {shown} has fewer than two labels.", "at least two", "another column"
        )
    if given is None:
        terms = np.array([how[label].term_id or "" if label else "" for label in labels], dtype=np.str_)
    else:
        live = load_ontology("CL")
        terms = np.array([term if term in live else "" for term in given], dtype=np.str_)
    whole = BenchSet(
        name or shown,
        title or shown,
        csr_matrix(vstack([part[0] for part in parts])),
        np.concatenate([part[1] for part in parts]),
        np.array(labels, dtype=np.str_),
        terms,
        groups,
        tissue,
        None if isinstance(cells, anndata.AnnData) else Path(cells),
    )
    return whole.take(np.flatnonzero(kept))


def joined(cells: BenchSet, names: Mapping[str, tuple[str, str]]) -> BenchSet:
    """Return the set with some labels taken for one another: label -> (label, ontology id)."""
    labels, terms = cells.labels.astype(object), cells.terms.astype(object)
    for label, (other, term) in names.items():
        rows = cells.labels == label
        labels[rows], terms[rows] = other, term
    return replace(cells, labels=labels.astype(np.str_), terms=terms.astype(np.str_))


def without_rare(cells: BenchSet, fewest: int) -> tuple[BenchSet, list[str]]:
    """Return the set without labels of fewer than `fewest` cells, and those labels."""
    names, sizes = np.unique(cells.labels, return_counts=True)
    rare: Sequence[str] = names[sizes < fewest].tolist()
    return cells.take(np.flatnonzero(~np.isin(cells.labels, rare))), list(rare)
