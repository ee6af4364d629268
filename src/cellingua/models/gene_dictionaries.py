"""The genes of checkpoints of LangCell and Geneformer: the shipped table of V1, a table, or pickled dictionaries.

What is special (``<pad>`` 0, ``<mask>`` 1; in Geneformer V2 also ``<cls>`` 2 and ``<eos>`` 3) stands below the genes,
and tokens have no gap, so that the number of tokens is the number of rows of the encoder's table; LangCell has one
row more, ``<cls>``, which its code adds.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cellingua.cells.genes import load_vocabulary
from cellingua.core.errors import FileError, GeneError
from cellingua.core.files import sha256_file
from cellingua.models.gene_table import GeneTable, read_gene_table
from cellingua.models.pickles import Value, read_pickled_dictionary

#: Geneformer V1's genes, medians and names, which LangCell uses unchanged; made by scripts/make_geneformer_genes.py.
V1_TABLE = Path(__file__).resolve().parents[1] / "data" / "genes" / "geneformer_v1.tsv.gz"
V1_TABLE_SHA256 = "15842a12f89946b5679741f7bcc6e3e99e6738d9861f47b6fcf8754d30388853"
V1_GENES = 25_424
SPECIAL = ("<pad>", "<mask>", "<cls>", "<eos>")
#: Of names that begin so, one file each (``token_dictionary.pkl``, ``token_dictionary_gc104M.pkl``).
FILES = ("token_dictionary", "gene_median_dictionary", "gene_name_id_dict")
MINIMUM_SHARE = 0.5
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,39}")
_SYMBOL = re.compile(r"[!-~][ -~]{0,39}")


@dataclass(frozen=True)
class CheckpointGenes:
    """The genes of a checkpoint.

    Attributes
    ----------
    table
        Genes, tokens and medians.
    special
        Tokens below the genes: 2 (``<pad>``, ``<mask>``) or 4 (with ``<cls>`` and ``<eos>``).
    source
        Where they come from, for people.
    """

    table: GeneTable
    special: int
    source: str

    @property
    def tokens(self) -> int:
        """Tokens in all, the special ones counted."""
        return self.special + len(self.table)

    @property
    def known(self) -> int:
        """Genes that the vocabulary of this package has; the others are never seen in a cell."""
        return int(np.isin(self.table.ensembl_ids, load_vocabulary().ensembl_ids).sum())


def shipped_genes() -> CheckpointGenes:
    """Return Geneformer V1's genes from the table of the package, after checking its SHA-256."""
    if sha256_file(V1_TABLE) != V1_TABLE_SHA256:
        raise FileError(f"{V1_TABLE} is damaged.", f"the SHA-256 {V1_TABLE_SHA256}", "installing the package again")
    return CheckpointGenes(read_gene_table(V1_TABLE), 2, "Geneformer V1 (Genecorpus-30M), as shipped")


def genes_from(path: Path) -> CheckpointGenes:
    """Read a folder of pickled dictionaries, or a table (TSV, gzip or not: ensembl_id, symbol, token, median).

    Raises
    ------
    FileError
        There is no such folder or file, a dictionary is missing, or a pickle holds more than a flat dictionary.
    GeneError
        They do not fit each other, tokens have gaps, fewer than half of the ids are human genes, or they have the
        size of Geneformer V1's and are not Geneformer V1's.
    """
    path = Path(path)
    found = _from_pickles(path) if path.is_dir() else _from_table(path)
    _check_human(found, path)
    if len(found.table) == V1_GENES and found.special == 2:
        _check_v1(found, path)
    return found


def _from_table(path: Path) -> CheckpointGenes:
    if not path.is_file():
        raise FileError(f"{path} is not a file or folder.", "a table of genes, or a folder of pickled dictionaries")
    table = read_gene_table(path)
    special = int(table.tokens.min())
    _check_dense({gene: int(t) for gene, t in zip(table.ensembl_ids, table.tokens, strict=True)}, special, path)
    return CheckpointGenes(table, special, f"{path.name}, SHA-256 {sha256_file(path)}")


def _from_pickles(folder: Path) -> CheckpointGenes:
    tokens_at, medians_at = (_the_file(folder, stem) for stem in FILES[:2])
    names_at = _the_file(folder, FILES[2], optional=True)
    assert tokens_at is not None  # neither is optional
    assert medians_at is not None
    tokens = _numbers(read_pickled_dictionary(tokens_at), tokens_at, int)
    medians = _numbers(read_pickled_dictionary(medians_at), medians_at, float)
    special = _special(tokens, tokens_at)
    genes = sorted((gene for gene in tokens if gene not in SPECIAL), key=lambda gene: tokens[gene])
    odd = next((gene for gene in genes if not _ID.fullmatch(gene)), None)
    if odd is not None:
        raise GeneError(f"{tokens_at} holds the gene {odd[:60]!r}.", "Ensembl ids")
    lacking = [gene for gene in genes if not medians.get(gene, 0) > 0]
    if lacking:
        raise GeneError(
            f"{medians_at} has no median above 0 for {len(lacking):,} genes of {tokens_at.name}, such as {lacking[0]}.",
            "dictionaries that were made together",
        )
    _check_dense({gene: int(tokens[gene]) for gene in genes}, special, tokens_at)
    symbols = _symbols(names_at)
    table = GeneTable(
        np.array(genes, dtype=np.str_),
        np.array([symbols.get(gene, "") for gene in genes], dtype=np.str_),
        np.array([tokens[gene] for gene in genes], dtype=np.int32),
        np.array([medians[gene] for gene in genes], dtype=np.float64),
    )
    told = ", ".join(f"{path.name} (SHA-256 {sha256_file(path)})" for path in (tokens_at, medians_at))
    return CheckpointGenes(table, special, told)


def _the_file(folder: Path, stem: str, *, optional: bool = False) -> Path | None:
    """Return the one pickle whose name begins with `stem`."""
    found = sorted(folder.glob(f"{stem}*.pkl"))
    if len(found) == 1:
        return found[0]
    if not found and optional:
        return None
    names = ", ".join(path.name for path in found)
    raise FileError(
        f"{folder} holds {'several files' if found else 'no file'} {stem}*.pkl{f': {names}' if found else ''}.",
        f"one file {stem}.pkl",
        "a folder with the dictionaries of one version alone" if found else "",
    )


def _numbers(held: Mapping[str, Value], path: Path, kind: type) -> dict[str, float]:
    """Return a dictionary whose values are numbers of `kind` (a whole number is a float, too)."""
    allowed = (int,) if kind is int else (int, float)
    for key, value in held.items():
        if type(value) not in allowed or not abs(float(value)) < 1e12:
            raise GeneError(
                f"{path} has the value {str(value)[:40]!r} for {key[:40]!r}.", f"a number ({kind.__name__})"
            )
    return {key: float(value) if kind is float else int(value) for key, value in held.items()}


def _special(tokens: Mapping[str, float], path: Path) -> int:
    """Return how many special tokens there are; they must be the first, in their order."""
    held = {name: tokens[name] for name in SPECIAL if name in tokens}
    for number in (2, 4):
        if held == dict(zip(SPECIAL[:number], range(number), strict=True)):
            return number
    raise GeneError(
        f"{path} has the special tokens {held}.", "<pad> 0 and <mask> 1, and in V2 also <cls> 2 and <eos> 3"
    )


def _check_dense(tokens: Mapping[str, int], special: int, path: Path) -> None:
    expected = set(range(special, special + len(tokens)))
    if special not in (2, 4) or set(tokens.values()) != expected:
        raise GeneError(
            f"{path}: the tokens of its {len(tokens):,} genes are not {special} to {special + len(tokens) - 1:,}.",
            "every number once, from 2 (Geneformer V1, LangCell) or from 4 (Geneformer V2)",
        )


def _symbols(path: Path | None) -> dict[str, str]:
    """Return Ensembl id -> symbol; what is no plain text on one line is left out, for symbols are for people."""
    if path is None:
        return {}
    held = read_pickled_dictionary(path)
    pairs = ((str(gene), name) for name, gene in held.items())
    return {gene: name for gene, name in pairs if _SYMBOL.fullmatch(name)}


def _check_human(found: CheckpointGenes, path: Path) -> None:
    if found.known < MINIMUM_SHARE * len(found.table):
        raise GeneError(
            f"{path}: {found.known:,} of its {len(found.table):,} genes are known human genes.",
            "Ensembl ids of human genes, without versions",
        )


def fingerprint(table: GeneTable) -> str:
    """Return a hash of ids, tokens and medians, in the order of the tokens."""
    digest = hashlib.sha256()
    for row in np.argsort(table.tokens):
        digest.update(f"{table.ensembl_ids[row]}\t{table.tokens[row]}\t{float(table.medians[row])!r}\n".encode())
    return digest.hexdigest()


def _check_v1(found: CheckpointGenes, path: Path) -> None:
    """Refuse a dictionary of V1's size with other content: tokens of other genes give answers that look right."""
    if fingerprint(found.table) != fingerprint(shipped_genes().table):
        raise GeneError(
            f"{path} has the {V1_GENES:,} genes of Geneformer V1 in number, and other ids, tokens or medians.",
            "Geneformer V1's own dictionaries, unchanged",
            "leaving them out: the package ships these genes",
        )
