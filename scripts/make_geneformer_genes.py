"""Make, or check, the shipped gene table of Geneformer V1, `src/cellingua/data/genes/geneformer_v1.tsv.gz`.

    python scripts/make_geneformer_genes.py --dictionaries DIR [--check]

DIR holds the three pickles of Geneformer V1 (Theodoris et al., Nature 2023; Apache-2.0) as the repository
PharMolix/LangCell has them in ``geneformer_001/geneformer`` at commit 69e41ef. They are pinned by SHA-256 and read by
`cellingua.models.pickles`, which runs nothing of them; any other file is refused. ``--check`` writes nothing and exits
with 1 where the shipped table has other content. Without ``--dictionaries`` it checks the table's own SHA-256.

The table: ensembl_id, symbol, token, median. The 25,424 genes of the vocabulary come first, in the order of their
tokens, then the names that the authors' name map gives to genes outside it, by id. A median is the shortest decimal
that gives back the float64.
"""

from __future__ import annotations

import argparse
import gzip
import io
import sys
from pathlib import Path

from cellingua.core.files import sha256_file
from cellingua.models.gene_dictionaries import V1_TABLE, V1_TABLE_SHA256, shipped_genes
from cellingua.models.gene_table import HEADER
from cellingua.models.pickles import Value, read_pickled_dictionary

SOURCES = {
    "token_dictionary.pkl": "ab9dc40973fa5224d77b793e2fd114cacf3d08423ed9c4c49caf0ba9c7f218f1",
    "gene_median_dictionary.pkl": "b3b589bb5ec75040d05fc44dd6bf0184cf87f3c362cf158d196a6ed3b7fe5f39",
    "gene_name_id_dict.pkl": "55e67962e79c0039a6c32d43c5c99f38e51964bbcfa32f736150ee1e285c438c",
}


def read(folder: Path) -> list[dict[str, Value]]:
    """Return the three dictionaries, after checking their hashes."""
    for name, expected in SOURCES.items():
        found = sha256_file(folder / name)
        if found != expected:
            raise SystemExit(f"{name}: SHA-256 {found}, expected {expected}")
    return [read_pickled_dictionary(folder / name) for name in SOURCES]


def table(tokens: dict[str, Value], medians: dict[str, Value], names: dict[str, Value]) -> str:
    """Return the table as text."""
    symbols = {str(gene): name for name, gene in names.items()}
    genes = sorted((gene for gene in tokens if not gene.startswith("<")), key=lambda gene: tokens[gene])
    rows = [(gene, symbols.get(gene, ""), str(tokens[gene]), repr(medians[gene])) for gene in genes]
    rows += [(gene, symbols[gene], "", "") for gene in sorted(set(symbols) - set(genes))]
    return "\n".join("\t".join(row) for row in [HEADER, *rows]) + "\n"


def main() -> int:
    """Make or check the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dictionaries", type=Path, metavar="DIR", help="the three pickles")
    parser.add_argument("--check", action="store_true", help="write nothing")
    arguments = parser.parse_args()
    if arguments.dictionaries is None:
        print(f"{V1_TABLE.name}: {len(shipped_genes().table):,} genes, SHA-256 {V1_TABLE_SHA256}")
        return 0
    made = table(*read(arguments.dictionaries)).encode("utf-8")
    if gzip.decompress(V1_TABLE.read_bytes()) == made:
        print(f"{V1_TABLE.name} holds what the dictionaries hold.")
        return 0
    if arguments.check:
        print(f"{V1_TABLE.name} has other content than the dictionaries.", file=sys.stderr)
        return 1
    buffer = io.BytesIO()
    with gzip.GzipFile(fileobj=buffer, mode="wb", mtime=0) as handle:
        handle.write(made)
    V1_TABLE.write_bytes(buffer.getvalue())
    print(f"{V1_TABLE.name} was written; its SHA-256 is {sha256_file(V1_TABLE)}, to be pinned in gene_dictionaries.py")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
