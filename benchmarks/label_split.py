"""Collect labels that people wrote in published data sets, with curated Cell Ontology ids, and split them in two.

The development half was read while the rules of ``cellingua.words.naming`` were written. The half set aside was
made and stored before the first rule, and only its score is looked at. Run as ``python benchmarks/label_split.py``
beside the shared data folder to make it again; the result is the same bytes.

What is collected, all decided before any label of the half set aside was seen:

- labels of the cells (``obs``) of every labelled file of ``corpus/`` and ``evaluation/``, labels of mean profiles,
  and names of types in the CellTypist encyclopedia, each with its tissue and curated id;
- not the files whose labels name no type (their README says so): names of cell lines, samples, or time points;
- not labels whose curated id says nothing: unknown, "cell", "native cell", "cultured cell", "eukaryotic cell";
- not the marker tables whose ids were made by a name rule alone (PanglaoDB, sc-type).

A label counts once for each id it has. Labels that differ in case, punctuation, "cell(s)" or a plural fall on the
same side. Which side is decided by one bit of a hash of the label.
"""

from __future__ import annotations

import csv
import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
SHIPPED = HERE / "data" / "labels_set_aside.tsv"
SALT = "cellingua labels, first split"
SAY_NOTHING = {"", "unknown", "CL:0000000", "CL:0000003", "CL:0000010", "CL:0000255"}
NAME_NO_TYPE = {
    "hsmm_myoblasts.h5ad",
    "li_cell_lines.h5ad",
    "mait_cells.h5ad",
    "pollen_lines_cortex.h5ad",
    "sc_mixology_lung_lines.h5ad",
    "stoeckius_hashed_lines.h5ad",
    "hpa_cell_lines.parquet",
}
# Rows of other sources are read beside the checkout and never shipped.
OPEN_LICENCE = re.compile(r"^(CC BY 4\.0|MIT|Apache-2\.0|BSD-3-Clause)\b")
CLOSED_LICENCE = re.compile(r"GPL|none stated|SA 3\.0|SA 4\.0")


@dataclass(frozen=True, order=True)
class LabelRow:
    """A label, where it was written, and the curated id (several, joined by ``|``, where sources differ)."""

    label: str
    tissue: str
    term_id: str
    source: str
    licence: str

    @property
    def shippable(self) -> bool:
        """Whether the licence of the source allows this row in the repository."""
        return bool(OPEN_LICENCE.search(self.licence)) and not CLOSED_LICENCE.search(self.licence)


def key_of(label: str) -> str:
    """Return what must be alike for two labels to fall on the same side of the split."""
    text = re.sub(r"[^a-z0-9+]+", " ", label.lower())
    words = [w for w in text.split() if w not in ("cell", "cells")]
    return "".join(w[:-1] if len(w) > 3 and w.endswith("s") else w for w in words)


def is_set_aside(label: str) -> bool:
    """Return the side of a label: True for the half set aside."""
    return hashlib.sha256(f"{SALT}|{key_of(label)}".encode()).digest()[0] % 2 == 1


def _read_obs(cells: Path) -> list[LabelRow]:
    import anndata

    with open(cells / "SOURCES.tsv", encoding="utf-8", newline="") as handle:
        licences = {row["file"]: row["licence"] for row in csv.DictReader(handle, delimiter="\t")}
    rows = []
    for path in sorted([*(cells / "corpus").glob("*.h5ad"), *(cells / "evaluation").glob("*.h5ad")]):
        if path.name in NAME_NO_TYPE:
            continue
        obs = anndata.read_h5ad(path, backed="r").obs
        columns = obs[["cell_type", "cell_type_ontology_term_id", "tissue"]].astype(str).drop_duplicates()
        rows += [LabelRow(a, c, b, path.name, licences[path.name]) for a, b, c in columns.itertuples(index=False)]
    return rows


def _read_tables(cells: Path) -> list[LabelRow]:
    rows = []
    with open(cells / "profiles" / "profiles_meta.tsv", encoding="utf-8", newline="") as handle:
        for row in csv.DictReader(handle, delimiter="\t"):
            if row["file"] not in NAME_NO_TYPE:
                term = row["cell_type_ontology_term_id"]
                rows.append(LabelRow(row["source_label"], row["tissue"], term, row["file"], row["licence"]))
    name = "celltypist_immune_encyclopedia.tsv"
    with open(cells / "markers" / name, encoding="utf-8", newline="") as handle:
        for row in csv.DictReader(handle, delimiter="\t"):
            term = row["cell_type_ontology_term_id"]
            rows.append(LabelRow(row["source_label"], "", term, name, "none stated"))
    return rows


def collect(shared: Path) -> list[LabelRow]:
    """Return all labels that count, sorted, each once for each curated id (see the text of this module)."""
    cells = shared / "data" / "cells"
    merged: dict[tuple[str, str], list[LabelRow]] = {}
    for row in sorted(_read_obs(cells) + _read_tables(cells), key=lambda r: (not r.shippable, r)):
        if row.term_id not in SAY_NOTHING and row.label.strip() and row.label != "unknown":
            merged.setdefault((key_of(row.label), row.tissue), []).append(row)
    out: dict[tuple[str, str], LabelRow] = {}
    for (key, _), rows in merged.items():
        first, ids = rows[0], "|".join(sorted({r.term_id for r in rows}))
        row = LabelRow(first.label, first.tissue, ids, first.source, first.licence)
        known = out.get((key, ids))
        if known is None or (not row.shippable, row) < (not known.shippable, known):
            out[key, ids] = row
    return sorted(out.values())


def digest(rows: list[LabelRow]) -> str:
    """Return the SHA-256 of rows, whatever their order."""
    text = "\n".join("\t".join((r.label, r.tissue, r.term_id, r.source)) for r in sorted(rows))
    return hashlib.sha256(text.encode()).hexdigest()


def read_shipped(path: Path = SHIPPED) -> list[LabelRow]:
    """Return the rows of the half set aside whose licence lets the repository hold them."""
    with open(path, encoding="utf-8", newline="") as handle:
        lines = [line for line in handle if not line.startswith("#")]
    return [LabelRow(**row) for row in csv.DictReader(lines, delimiter="\t")]


def main() -> None:
    """Write the half set aside, and print counts alone."""
    rows = collect(HERE.parent.parent / "shared")
    aside = [row for row in rows if is_set_aside(row.label)]
    shipped = [row for row in aside if row.shippable]
    SHIPPED.parent.mkdir(exist_ok=True)
    with open(SHIPPED, "w", encoding="utf-8", newline="") as handle:
        handle.write(f"# labels set aside before the naming rules were written; all {len(aside)}: {digest(aside)}\n")
        writer = csv.writer(handle, delimiter="\t", lineterminator="\n")
        writer.writerow(["label", "tissue", "term_id", "source", "licence"])
        writer.writerows([r.label, r.tissue, r.term_id, r.source, r.licence] for r in shipped)
    print(f"{len(rows)} labels: {len(rows) - len(aside)} for development, {len(aside)} set aside ({digest(aside)}),")
    print(f"{len(shipped)} of them shipped ({digest(shipped)})")


if __name__ == "__main__":
    main()
