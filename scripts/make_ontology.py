"""Make the compact ontology tables under ``src/cellingua/data/ontology``.

Run as ``python scripts/make_ontology.py --wheels DIR``, where DIR holds the wheel of the Python package
cellxgene-ontology-guide 1.11.1 (MIT), fetched by ``pip download --no-deps cellxgene-ontology-guide==1.11.1``.
The wheel is 98 MB and is read as a zip archive, never installed. Needs ``zstandard`` (this script alone).

The ontologies within it, with their releases and licences:

- Cell Ontology (CL) 2026-03-26, CC BY 4.0
- Uberon (UBERON) 2026-04-01, CC BY 3.0
- Mondo Disease Ontology (MONDO) 2026-05-05, CC BY 4.0
- Human Developmental Stages (HsapDv) 2025-01-23, CC BY 3.0
- Human Ancestry Ontology (HANCESTRO, with AfPO) 2025-10-14, CC BY 4.0
- Experimental Factor Ontology (EFO) 3.90.0, Apache-2.0: the assays alone
- Phenotype and Trait Ontology (PATO) 2025-05-14, CC BY 3.0: sexes and "normal" alone

Each table is a gzip of tab-separated UTF-8 text: ``id, name, definition, synonyms, parents, flags``. Synonyms and
parents are joined by ``|``. The source states neither the scope of a synonym nor which relation a parent is by
(is-a for CL; is-a or part-of for UBERON). Flags: ``x`` = obsolete (its parents column names what replaces it);
``n`` = can't occur in human (CL alone, by the rules below). The output is byte for byte reproducible.

``organs.tsv`` beside them is the guide's own list of the tissues that CELLxGENE shows as ``tissue_general`` (MIT), in
its order, which matters: a tissue belongs to the first that it is, or is a part or a kind of.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import io
import json
import re
import zipfile
from pathlib import Path

import zstandard

WHEEL = "cellxgene_ontology_guide-1.11.1-py3-none-any.whl"
WHEEL_SHA256 = "621276831bc021aab348f4d6119fad033282dff3126a8f2dbe8b293fbce68aca"
ROOT = Path(__file__).resolve().parents[1]
RELEASES = {
    "CL": "CL-ontology-v2026-03-26",
    "UBERON": "UBERON-ontology-v2026-04-01",
    "MONDO": "MONDO-ontology-v2026-05-05",
    "HsapDv": "HsapDv-ontology-v2025-01-23",
    "HANCESTRO": "HANCESTRO-ontology-v2025-10-14",
    "EFO": "EFO-ontology-v3.90.0",
    "PATO": "PATO-ontology-v2025-05-14",
}
# Only the parts of these that fields of a cell can hold: assays; sexes and "normal".
KEPT_ROOTS = {"EFO": {"EFO:0002772", "EFO:0010183"}, "PATO": {"PATO:0000047", "PATO:0000461"}}

# Terms that no human has, by name. "(sensu Vertebrata)" and "(sensu Animalia)" stay, as do the terms of the
# primate basal ganglia ("... (Primate)"), which were defined on human cells too.
OTHER_SPECIES_NAME = re.compile(
    r"\(sensu (nematoda|arth?r?opod|arthopoda|teleostei|fungi|endopterygota|mus\b|mycetozoa|diptera|bacteria)"
    r"|\(Mmus\)|, mouse$|\binsect\b|\binvertebrate\b|\bfungal\b|\bprokaryotic\b|neuromast|\blateral line\b"
    r"|malpighian tubule|\binterrenal\b|\bimaginal\b|scolop|\bcompound eye\b|hemocyte|plasmatocyte|crystal cell"
    r"|lamellocyte|nephrocyte|\blymph gland\b|\blarval\b|(xantho|irido|leuco|erythro|cyano)phore"
    r"|\bCaenorhabditis\b|\b(Gr1|Sca1)\b|\bLy-76\b|\bVgamma5\b|^dendritic epidermal T cell$"
    r"|\b(xantho|irido|leuco|cyano)blast|\bconidi|conidium\b|\w*spore\b",
    re.IGNORECASE,
)
OTHER_SPECIES_DEFINITION = re.compile(r"of the Mus musculus brain", re.IGNORECASE)
# ... and one by one, each read with its definition.
OTHER_SPECIES_IDS = {
    "CL:0000112": "columnar neuron (invertebrate central complex)",
    "CL:0000196": "insect flight muscle cell",
    "CL:0000246": "Mauthner neuron (fish, amphibians)",
    "CL:0000249": "hatching gland cell (fish, amphibians)",
    "CL:0000257": "Eumycetozoan cell",
    "CL:0000286": "hyphal cell",
    "CL:0000301": "pole cell (insects)",
    "CL:0000372": "tormogen cell (insects)",
    "CL:0000373": "histoblast (insects)",
    "CL:0000374": "trichogen cell (insects)",
    "CL:0000380": "thecogen cell (insects)",
    "CL:0000418": "arcade cell (C. elegans)",
    "CL:0000419": "seam cell (worms)",
    "CL:0000421": "coelomocyte (annelids)",
    "CL:0000425": "pore cell (C. elegans)",
    "CL:0000427": "GLR cell (C. elegans)",
    "CL:0000462": "adepithelial cell (insects)",
    "CL:0000469": "ganglion mother cell (arthropods)",
    "CL:0000477": "follicle cell of egg chamber (insects)",
    "CL:0000486": "garland cell (flies)",
    "CL:0000487": "oenocyte (arthropods)",
    "CL:0000524": "spheroplast (bacteria, yeast)",
    "CL:0000371": "protoplast (walled cells)",
    "CL:0000565": "fat body cell (insects)",
    "CL:0000579": "border follicle cell (insects)",
    "CL:0000600": "heterokaryon (fungi)",
    "CL:0000603": "dikaryon (fungi)",
    "CL:0000658": "cuticle secreting cell",
    "CL:0000673": "Kenyon cell (arthropods, annelids)",
    "CL:0000674": "interfollicle cell (insects)",
    "CL:0000722": "cystoblast (insects)",
    "CL:0000762": "nucleated thrombocyte (birds)",
    "CL:0000828": "thromboblast (birds)",
    "CL:0002421": "nucleated reticulocyte (birds, fish)",
    "CL:0004161": "510 nm-cone (rat)",
    "CL:0004162": "360 nm-cone (rat)",
    "CL:0005004": "pigment erythroblast (of erythrophores)",
    "CL:0007020": "bottle cell (amphibian gastrula)",
    "CL:0007021": "alarm substance cell (fish)",
    "CL:0007023": "flask cell (amphibians)",
    "CL:0008003": "somatic muscle myotube (arthropods)",
    "CL:0008005": "obliquely striated somatic muscle cell (nematodes)",
    "CL:0008009": "transversely striated visceral muscle cell (arthropods)",
    "CL:0008026": "open tracheal system tracheocyte (insects)",
    "CL:0010016": "collar cell (sponges)",
    "CL:0011029": "cnidocyte (cnidarians)",
    "CL:0020028": "hybrid osteochondral skeletal cell (of the mouse rib)",
    "CL:0000628": "photosynthetic cell",
    "CL:0000725": "nitrogen fixing cell",
    "CL:0000463": "epidermal cell (sensu Arthropoda)",
    "CL:0000464": "epidermoblast (insects)",
    "CL:0007017": "Stiftchenzellen (amphibians)",
    "CL:0008006": "muscle founder cell (insects)",
    "CL:4040001": "chorionic girdle cell (horse)",
    "CL:4040006": "dermal chromatophore",
}
# CL files human pacemaker and Purkinje myocytes under "transversely striated visceral muscle cell" of arthropods,
# by mistake, and human stem cells under a mouse antigen: what lies under these is judged by itself.
NOT_INHERITED = {"CL:0000193", "CL:0001008", "CL:0008009"}
# A commissural neuron is a human cell as well, whatever its definition stresses: kept on purpose.
KEPT_IDS = {"CL:0000678"}


def read_release(wheel: zipfile.ZipFile, name: str) -> dict[str, dict]:
    """Return one ontology of the guide: id -> {label, description, synonyms, ancestors, deprecated, ...}."""
    packed = wheel.read(f"cellxgene_ontology_guide/data/{name}.json.zst")
    return json.loads(zstandard.ZstdDecompressor().stream_reader(io.BytesIO(packed)).read())


def not_human(term_id: str, term: dict) -> bool:
    """Return whether a CL term names a cell that no human has (its own name and definition alone)."""
    if term_id in KEPT_IDS:
        return False
    definition = term.get("description", "")
    return bool(
        term_id in OTHER_SPECIES_IDS
        or OTHER_SPECIES_NAME.search(term["label"])
        or OTHER_SPECIES_DEFINITION.search(definition)
    )


# Uberon's definitions say where they come from: "... of the gut[GO]", "... [WP,unvetted].".
SOURCE_MARK = re.compile(r"\s*\[[A-Za-z][^\[\]]{0,60}\]")


def clean(text: str) -> str:
    """Return text on one line, without the characters that divide the table."""
    return re.sub(r"\s+", " ", text).replace("|", "/").strip()


def make_rows(prefix: str, terms: dict[str, dict]) -> list[tuple[str, ...]]:
    """Return the rows of one table, live terms first in the order of their ids."""
    roots = KEPT_ROOTS.get(prefix)
    rows = []
    foreign = {i for i, t in terms.items() if prefix == "CL" and not t["deprecated"] and not_human(i, t)}
    for term_id, term in terms.items():
        # An obsolete term has no ancestors: it lies where its replacement lies.
        place = term.get("replaced_by", "") if term["deprecated"] else term_id
        ancestors = term.get("ancestors", {})
        if roots is not None and place not in roots and not (roots & set(terms.get(place, {}).get("ancestors", {}))):
            continue
        name, definition = clean(term["label"]), clean(term.get("description", ""))
        if prefix == "UBERON":
            definition = re.sub(r"(?<!\.)\.\.$", ".", SOURCE_MARK.sub("", definition))
        if term["deprecated"]:
            # Kept so that metadata of former years can be read; in CL all of them, so that an obsolete id can be
            # refused by its name.
            replaced_by = term.get("replaced_by", "")
            if prefix == "CL" or (replaced_by in terms and not terms[replaced_by]["deprecated"]):
                rows.append((term_id, name, "", "", replaced_by, "x"))
            continue
        kept = [p for p, distance in ancestors.items() if distance == 1 and not terms[p]["deprecated"]]
        parents = [p for p in kept if roots is None or p in roots or roots & set(terms[p]["ancestors"])]
        synonyms = sorted({clean(s) for s in term.get("synonyms", [])} - {"", name})
        other = term_id in foreign or bool((foreign - NOT_INHERITED) & set(ancestors))
        rows.append((term_id, name, definition, "|".join(synonyms), "|".join(sorted(parents)), "n" if other else ""))
    return sorted(rows, key=lambda row: (row[5] == "x", row[0]))


def write_table(path: Path, rows: list[tuple[str, ...]]) -> int:
    """Write rows as a reproducible gzip and return its size in bytes."""
    text = "id\tname\tdefinition\tsynonyms\tparents\tflags\n" + "".join("\t".join(row) + "\n" for row in rows)
    packed = gzip.compress(text.encode(), compresslevel=9, mtime=0)
    path.write_bytes(packed)
    return len(packed)


def write_organs(path: Path, wheel: zipfile.ZipFile) -> int:
    """Write the list of organs, in its order, and return how many there are."""
    ids = json.loads(wheel.read("cellxgene_ontology_guide/data/tissue_general_list.json"))
    terms = read_release(wheel, RELEASES["UBERON"])
    lines = ["uberon_id\tname", *(f"{term_id}\t{clean(terms[term_id]['label'])}" for term_id in ids)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return len(ids)


def main() -> None:
    """Check the wheel, write all tables, and print what each holds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--wheels", type=Path, required=True, help="folder that holds the wheel")
    parser.add_argument("--out", type=Path, default=ROOT / "src/cellingua/data/ontology")
    parser.add_argument("--show", action="store_true", help="list the CL terms that no human has")
    arguments = parser.parse_args()
    wheel_path = arguments.wheels / WHEEL
    digest = hashlib.sha256(wheel_path.read_bytes()).hexdigest()
    if digest != WHEEL_SHA256:
        raise SystemExit(f"{wheel_path.name} has SHA-256 {digest}; expected {WHEEL_SHA256}")
    arguments.out.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(wheel_path) as wheel:
        print(f"organs: {write_organs(arguments.out / 'organs.tsv', wheel)}")
        for prefix, name in RELEASES.items():
            rows = make_rows(prefix, read_release(wheel, name))
            size = write_table(arguments.out / f"{prefix.lower()}.tsv.gz", rows)
            live = [row for row in rows if row[5] != "x"]
            other = [row for row in live if row[5] == "n"]
            print(f"{prefix}: {len(live)} live terms, {len(other)} of other species, {size / 1e6:.2f} MB")
            if arguments.show:
                print("\n".join(f"  {row[0]} {row[1]}" for row in other))


if __name__ == "__main__":
    main()
