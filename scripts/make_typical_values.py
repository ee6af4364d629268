"""Make ``src/cellingua/data/genes/typical_values.txt.gz``, what bulk profiles are mapped onto (`drug_states`).

Run as ``python scripts/make_typical_values.py MODEL_FOLDER``. Writes the gene medians of a LangCell model (counts per
10,000 of the cells that express a gene) in ascending order, five digits each. The scale is a file of its own and not
the present model's table: what CellLM makes of a line must not change because another model was trained again. The
shipped file has the medians of the langcell_mini with the hash d4bacae8, which the stored arms of the drug benchmarks
have seen.
"""

from __future__ import annotations

import gzip
import sys
from pathlib import Path

import numpy as np

from cellingua.models.gene_table import read_gene_table
from cellingua.recipes.drug_states import TYPICAL


def main() -> int:
    """Write the file."""
    medians = np.sort(read_gene_table(Path(sys.argv[1]) / "genes.tsv.gz").medians)
    text = "".join(f"{value:.5g}\n" for value in medians)
    TYPICAL.write_bytes(gzip.compress(text.encode(), mtime=0))
    print(f"{TYPICAL}: {len(medians):,} values, {medians[0]:.3g} to {medians[-1]:.3g}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
