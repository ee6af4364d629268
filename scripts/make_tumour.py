"""Make the tumour that ``cellingua drug rank`` ranks drugs for without a file: part of a lung adenocarcinoma.

Source: Kim et al. 2020, sample LUNG_T34 (GEO GSE131907), as an example of the repository KChen-lab/METAFlux (MIT
licence), ``data/sc_test_example.rda``, from which ``kim_luad_t34.h5ad`` was made: 397 cells, counts recovered from
logarithms. Kept: all epithelial cells, a seeded part of the others, and the genes that the drug model knows, so that
its answer for a cluster is that of the cells with all their genes. Labels are the authors'; the sample is for showing,
and no model learned from it.

    python scripts/make_tumour.py --cells path/to/kim_luad_t34.h5ad
"""

from __future__ import annotations

import argparse
from pathlib import Path

import anndata as ad
import h5py
import numpy as np
import pandas as pd
from anndata.io import write_elem
from scipy.sparse import csr_matrix

from cellingua.core.errors import FileError
from cellingua.core.files import atomic_path, sha256_file
from cellingua.models.drug_bundle import DEFAULT, load_drug_model

SHA256 = "116bceee37248974fd3ee4206849e38f2dddcb3aadb181b2dd4fa5b5f98ace01"
OUT = Path(__file__).resolve().parents[1] / "src/cellingua/data/demo/kim_luad_tumour.h5ad"
WHOLE, OTHERS, SEED = "Epithelial cells", 40, 0
LIMIT = 500_000  # bytes
SOURCE = (
    "Kim et al. 2020, lung adenocarcinoma, sample LUNG_T34 (GEO GSE131907), by way of KChen-lab/METAFlux (MIT "
    "licence), reduced"
)


def choose(types: pd.Series) -> np.ndarray:
    """Return the rows that are kept: all epithelial cells, and up to `OTHERS` of each other type."""
    rng = np.random.default_rng(SEED)
    kept = []
    for name in sorted(types.unique()):
        rows = np.flatnonzero(types == name)
        kept.append(rows if name == WHOLE else rng.choice(rows, min(OTHERS, len(rows)), replace=False))
    return np.sort(np.concatenate(kept))


def main() -> None:
    """Write the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=Path, required=True, help="kim_luad_t34.h5ad")
    parser.add_argument("--model", default=DEFAULT, help=f"whose genes are kept (default: {DEFAULT})")
    parser.add_argument("-o", "--output", type=Path, default=OUT, help="default: where the package has it")
    args = parser.parse_args()
    if sha256_file(args.cells) != SHA256:
        raise FileError(f"{args.cells} is not the file that this script knows.", f"SHA-256 {SHA256}")
    cells = ad.read_h5ad(args.cells)
    model = load_drug_model(args.model)
    known = np.isin(cells.var_names, model.genes_ensembl) | np.isin(cells.var["symbol"].astype(str), model.genes)
    part = cells[choose(cells.obs["cell_type"])][:, known].copy()
    counts = csr_matrix(part.X.astype(np.uint16))
    # Ordered by how many cells show a gene, columns compress better. One without a count was measured, too: as zero.
    order = np.argsort(-counts.getnnz(axis=0), kind="stable")
    made = ad.AnnData(
        csr_matrix(counts[:, order]),
        pd.DataFrame({"cell_type": part.obs["cell_type"].astype(str).to_numpy(dtype=object)},
                     index=[name.split("_")[0] for name in part.obs_names]),
        pd.DataFrame(index=part.var["symbol"].astype(str).to_numpy(dtype=object)[order]),
    )  # fmt: skip
    made.X.sort_indices()
    args.output.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(args.output) as partial, h5py.File(partial, "w") as file:
        write_elem(file, "/", made, dataset_kwargs={"compression": "gzip", "compression_opts": 9, "shuffle": True})
        write_elem(file["uns"], "source", SOURCE)
    size = args.output.stat().st_size
    if size > LIMIT:
        raise FileError(f"{args.output} has {size:,} bytes.", f"at most {LIMIT:,}")
    print(f"{args.output.name}: {made.n_obs} cells x {made.n_vars} genes, {size / 1e6:.2f} MB")
    print(made.obs["cell_type"].value_counts().to_string())


if __name__ == "__main__":
    main()
