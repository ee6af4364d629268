"""Write what the bundled models saw into their folders: ``seen.json`` and ``seen.filter``, weights unchanged.

Run as ``python scripts/add_seen.py [cellm_mini] [langcell_mini] [--data ../shared/data/cells]``. The recipes write both
files themselves; this is for models that were trained before they did. The cells are read as the recipes read them,
evaluation cells refused, and their number in each file is compared with the model's card, so that nothing is claimed
that was not trained on.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import numpy as np

from cellingua.cells.collections import CellSet, data_hashes, read_cells
from cellingua.core.progress import Console
from cellingua.models.folder import CARD
from cellingua.models.manifest import read_manifest, write_manifest
from cellingua.models.seen import Seen
from cellingua.models.shelf import BUNDLED
from cellingua.recipes.langcell_config import preset
from cellingua.recipes.material import guarded, read_material
from cellingua.recipes.seen import seen_in_material

ROOT = Path(__file__).resolve().parents[1]


def seen_by_cellm(data: Path) -> tuple[CellSet, Seen]:
    """Return the cells of a CellLM and what it saw: the corpus but for cells that match evaluation cells."""
    progress = Console()
    cells, _ = guarded(read_cells(data / "corpus", progress), read_cells(data / "evaluation", progress), progress)
    hashes = {path: digest for path, digest in data_hashes(data).items() if path.startswith("corpus/")}
    return cells, seen_in_material([cells], hashes, data)


def seen_by_langcell(data: Path) -> tuple[CellSet, Seen]:
    """Return the same of a LangCell: cells with a label, mean profiles and markers."""
    material = read_material(data, preset("langcell_mini").generic_terms, Console())
    return material.cells, seen_in_material([material.cells], material.hashes, material.folder)


def check_card(folder: Path, cells: CellSet) -> None:
    """End with a word where the card tells of other numbers of cells."""
    told = {}
    for name, numbers in re.findall(
        r"^\| (\w+)(?:\.h5ad)? \| ([\d,]+(?: \| [\d,]+)?) \|$", _table(folder), re.MULTILINE
    ):
        told[name] = sum(int(number.replace(",", "")) for number in numbers.split(" | "))
    files, sizes = np.unique(cells.files, return_counts=True)
    found = dict(zip(files.tolist(), sizes.tolist(), strict=True))
    if told != found:
        different = sorted(name for name in told.keys() | found.keys() if told.get(name) != found.get(name))
        raise SystemExit(f"{folder.name}: its card and the data differ in {', '.join(different)}.")


def _table(folder: Path) -> str:
    """Return the card's section on what the model saw."""
    text = (folder / CARD).read_text(encoding="utf-8")
    return text.split("## What it saw", 1)[1].split("\n## ", 1)[0]


def main() -> None:
    """Write the files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=["cellm_mini"])
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared/data/cells")
    args = parser.parse_args()
    for name in args.models:
        folder = BUNDLED / name
        cells, seen = (seen_by_langcell if name.startswith("langcell") else seen_by_cellm)(args.data)
        check_card(folder, cells)
        before = read_manifest(folder)
        for file in before.files:
            before.verified(file)
        seen.save(folder)
        write_manifest(folder, frozenset(file for file, entry in before.files.items() if entry.optional))
        print(f"{name}: {read_manifest(folder).size - before.size:,} bytes more")


if __name__ == "__main__":
    main()
