"""Open a file of cells, whatever its form, and read it in blocks of rows.

The only file of the lower rooms that knows AnnData. `open_cells` returns a `CellFile`; what is in it is for
the doctor to say.
"""

from __future__ import annotations

import contextlib
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import anndata
import h5py
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from cellingua.cells.matrices import HeldMatrix, Matrix, stored_matrix
from cellingua.cells.tenx import open_10x_folder, open_10x_h5, parts_of_10x
from cellingua.core.errors import CellinguaError, ConfigError, FileError

_CUT_SHORT = re.compile(r"truncated file: eof = (\d+).*stored_eof = (\d+)")
KNOWN = "an AnnData file (.h5ad, .zarr), a 10x Genomics .h5, or a 10x folder with matrix.mtx"
_ADVICE = {
    ".csv": "read it with anndata.io.read_csv, transpose it if genes are rows, and save it with .write_h5ad()",
    ".loom": "read it with anndata.io.read_loom and save it with .write_h5ad()",
    ".rds": "convert it in R, for example with zellkonverter::writeH5AD or anndataR::write_h5ad",
    ".zip": "unpack it first",
    ".tar": "unpack it first",
    ".parquet": "read it with pandas, put it in an anndata.AnnData, and save it with .write_h5ad()",
    ".h5mu": "take the RNA part: mudata.read(...).mod['rna'].write_h5ad(...)",
    ".h5seurat": "convert it in R with SeuratDisk::Convert(..., dest = 'h5ad')",
}
_ADVICE |= {".tsv": _ADVICE[".csv"], ".txt": _ADVICE[".csv"], ".xlsx": _ADVICE[".csv"]}
_ADVICE |= {".rda": _ADVICE[".rds"], ".rdata": _ADVICE[".rds"], ".tgz": _ADVICE[".tar"]}


@contextlib.contextmanager
def reading(path: Path | None) -> Iterator[None]:
    """Turn whatever the libraries below raise on a damaged file into a `FileError` that names the file."""
    name = "The AnnData in memory" if path is None else str(path)
    try:
        yield
    except FileError as error:
        if error.found.startswith(name):
            raise
        raise FileError(f"{name}: {error.found}", error.expected, error.try_) from error
    except (CellinguaError, MemoryError, KeyboardInterrupt):
        raise
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        short = _CUT_SHORT.search(reason)
        if short is not None:
            reason = f"it is cut short, {int(short[1]):,} of {int(short[2]):,} bytes are there."
        raise FileError(
            f"{name} could not be read: {reason}",
            f"a complete file: {KNOWN}",
            "copy or download it again; if it opens elsewhere, write it anew with a current anndata",
        ) from error


@dataclass
class CellFile:
    """Cells, their columns, and the places that may hold counts.

    Attributes
    ----------
    path
        The file, None for an AnnData in memory.
    kind
        "h5ad", "zarr", "10x h5", "10x mtx" or "AnnData".
    obs, var
        Cells and columns of ``X`` as data frames; names may repeat.
    matrices
        Place ("X", "layers/NAME", "raw/X") -> matrix.
    raw_var
        Columns of ``raw/X``, where there is one.
    """

    path: Path | None
    kind: str
    obs: pd.DataFrame
    var: pd.DataFrame
    matrices: dict[str, Matrix]
    raw_var: pd.DataFrame | None = None
    source: Any = field(default=None, repr=False)

    def __post_init__(self) -> None:
        for place, matrix in self.matrices.items():
            expected = (len(self.obs), len(self.columns(place)))
            if matrix.shape != expected:
                raise FileError(
                    f"{place} has {matrix.shape[0]:,} × {matrix.shape[1]:,} values for {expected[0]:,} cells × "
                    f"{expected[1]:,} genes.",
                    "one row a cell and one column a gene",
                    "copy or download the file again, or write it anew with a current anndata",
                )

    @property
    def name(self) -> str:
        """How messages call it."""
        return "AnnData in memory" if self.path is None else self.path.name

    @property
    def n_cells(self) -> int:
        """Number of cells."""
        return len(self.obs)

    @property
    def n_columns(self) -> int:
        """Number of columns of ``X``."""
        return len(self.var)

    @property
    def cell_names(self) -> NDArray[np.object_]:
        """Names of the cells as they are in the file (they may repeat)."""
        return np.array([str(name) for name in self.obs.index], dtype=object)

    def places(self) -> list[str]:
        """Return where there are values: "X", "layers/NAME", "raw/X"."""
        return list(self.matrices)

    def place_of(self, layer: str) -> str:
        """Return the place that a user's ``layer=`` names: a layer, "X", "raw" or a place.

        Raises
        ------
        ConfigError
            If there is no such layer.
        """
        for place in (f"layers/{layer}", layer, f"{layer}/X"):
            if place in self.matrices:
                return place
        names = ", ".join(place.removeprefix("layers/") for place in self.matrices)
        raise ConfigError(f"{self.name} has no layer {layer!r}.", f"one of: {names}", "another --layer, or none")

    def columns(self, place: str) -> pd.DataFrame:
        """Return the data frame of the columns of a place."""
        return self.raw_var if place == "raw/X" and self.raw_var is not None else self.var

    def rows(self, place: str, start: int, stop: int) -> csr_matrix:
        """Return rows `start` to `stop` (exclusive) of a place, float32 where that is exact, else float64.

        Raises
        ------
        FileError
            If that part of the file is damaged.
        """
        with reading(self.path):
            return self.matrices[place].rows(start, min(stop, self.n_cells))

    def blocks(self, place: str, rows: int = 2048) -> Iterator[tuple[int, int, csr_matrix]]:
        """Yield (start, stop, rows of the place) over all cells."""
        for start in range(0, self.n_cells, rows):
            stop = min(start + rows, self.n_cells)
            yield start, stop, self.rows(place, start, stop)

    def close(self) -> None:
        """Close the file (an AnnData in memory stays as it is)."""
        if isinstance(self.source, h5py.File):
            self.source.close()

    def __enter__(self) -> CellFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def open_cells(source: str | Path | anndata.AnnData) -> CellFile:
    """Open cells for reading; values are read later, in blocks.

    Parameters
    ----------
    source
        A path (h5ad, zarr, 10x h5 of either layout, a 10x folder or its matrix.mtx), or an AnnData.

    Raises
    ------
    FileError
        If it is missing, of another kind, or damaged.
    """
    if isinstance(source, anndata.AnnData):
        with reading(None):
            return _from_memory(source)
    path = Path(source)
    with reading(path):
        if not path.exists():
            raise FileError(f"{path} does not exist.", KNOWN, _nearby(path))
        if path.is_dir():
            return _open_folder(path)
        if path.name.endswith((".mtx", ".mtx.gz")):
            return _tenx_file(path, "10x mtx", open_10x_folder(path))
        if path.stat().st_size == 0:
            raise FileError(f"{path} is empty (0 bytes).", KNOWN, "copy or download it again")
        if not h5py.is_hdf5(path):
            raise _unknown(path)
        return _open_hdf5(path)


def _nearby(path: Path) -> str:
    """Return advice for a path that does not exist: the folder's own files of a known kind."""
    if not path.parent.is_dir():
        return f"another path: the folder {path.parent} does not exist either"
    known = [p.name for p in path.parent.iterdir() if p.suffix in (".h5ad", ".h5", ".zarr") or "mtx" in p.name]
    return f"one of the files in that folder: {', '.join(sorted(known)[:5])}" if known else "check the path"


def _unknown(path: Path) -> FileError:
    suffixes = [suffix.lower() for suffix in path.suffixes if suffix.lower() != ".gz"]
    suffix = suffixes[-1] if suffixes else ""
    if suffix in (".h5ad", ".h5"):
        with open(path, "rb") as handle:
            start = handle.read(8)
        what = "it is gzipped" if start[:2] == b"\x1f\x8b" else "its first bytes are not those of an HDF5 file"
        advice = "gunzip it first" if start[:2] == b"\x1f\x8b" else "copy or download it again"
        return FileError(f"{path} is not the {suffix} file its name says: {what}.", KNOWN, advice)
    advice = _ADVICE.get(suffix, "convert it to .h5ad, for example with anndata")
    return FileError(f"{path} is of a kind that is not read here.", KNOWN, advice)


def _open_folder(path: Path) -> CellFile:
    if any((path / name).exists() for name in (".zgroup", "zarr.json", ".zattrs")):
        import zarr

        group = zarr.open_group(str(path), mode="r")
        return _open_anndata(path, "zarr", group)
    if parts_of_10x(path) is not None:
        return _tenx_file(path, "10x mtx", open_10x_folder(path))
    names = ("filtered_feature_bc_matrix", "filtered_gene_bc_matrices")
    inside = [path / outs / name for outs in ("", "outs") for name in names if (path / outs / name).is_dir()]
    advice = str(inside[0]) if inside else "the path of a file, or of the folder that holds matrix.mtx.gz"
    raise FileError(f"{path} is a folder, but neither a zarr store nor a 10x folder.", KNOWN, advice)


def _open_hdf5(path: Path) -> CellFile:
    handle = h5py.File(path, "r")
    try:
        if "obs" in handle and "var" in handle:
            return _open_anndata(path, "h5ad", handle)
        tenx = open_10x_h5(handle)
        if tenx is not None:
            return _tenx_file(path, "10x h5", tenx, handle)
        if "mod" in handle:
            raise FileError(f"{path} is a MuData file of several kinds of data.", KNOWN, _ADVICE[".h5mu"])
        held = ", ".join(sorted(handle)[:8]) or "nothing"
        raise FileError(
            f"{path} is HDF5, but not an AnnData nor a 10x file (it holds: {held}).",
            KNOWN,
            "the .h5ad of these cells",
        )
    except BaseException:
        handle.close()
        raise


def _tenx_file(path: Path, kind: str, parts: tuple[pd.DataFrame, pd.DataFrame, Matrix], source: Any = None) -> CellFile:
    obs, var, matrix = parts
    return CellFile(path, kind, obs, var, {"X": matrix}, source=source)


def _open_anndata(path: Path, kind: str, group: Any) -> CellFile:
    obs, var = _frame(group["obs"]), _frame(group["var"])
    matrices: dict[str, Matrix] = {}
    raw_var: pd.DataFrame | None = None
    if "X" in group and not _is_null(group["X"]):
        matrices["X"] = stored_matrix(group["X"])
    if "layers" in group:
        matrices |= {f"layers/{name}": stored_matrix(group["layers"][name]) for name in sorted(group["layers"])}
    raw = group["raw"] if "raw" in group else group if "raw.X" in group else None  # noqa: SIM401 (no mapping)
    if raw is not None and not _is_null(raw):
        inside, prefix = (raw, "") if raw is not group else (group, "raw.")
        matrices["raw/X"] = stored_matrix(inside[f"{prefix}X"])
        raw_var = _frame(inside[f"{prefix}var"])
    return CellFile(path, kind, obs, var, matrices, raw_var, source=group)


def _is_null(element: Any) -> bool:
    return element.attrs.get("encoding-type") == "null"


def _frame(element: Any) -> pd.DataFrame:
    """Return a data frame; anndata 0.6 wrote it as a table of records."""
    if isinstance(element, h5py.Dataset) and element.dtype.names:
        frame = pd.DataFrame.from_records(element[()])
        for column in frame:
            if frame[column].dtype == object:
                frame[column] = [v.decode() if isinstance(v, bytes) else v for v in frame[column]]
        return frame.set_index(frame.columns[0])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # files of older versions of anndata are as good as any
        frame = anndata.io.read_elem(element)
    if not isinstance(frame, pd.DataFrame):
        raise FileError(f"{element.name} is not a table.", "a table of cells and one of genes", "write it anew")
    return frame


def _from_memory(adata: anndata.AnnData) -> CellFile:
    matrices: dict[str, Matrix] = {}
    if adata.X is not None:
        matrices["X"] = HeldMatrix(adata.X)
    layers: Any = adata.layers  # its type differs between versions of anndata
    names = sorted(name for name in layers if name is not None)  # from anndata 0.13 on, the layer None is X
    matrices |= {f"layers/{name}": HeldMatrix(layers[name]) for name in names if len(layers[name].shape) == 2}
    raw_var: pd.DataFrame | None = None
    if adata.raw is not None:
        matrices["raw/X"] = HeldMatrix(adata.raw.X)
        raw_var = adata.raw.var
    return CellFile(None, "AnnData", adata.obs, adata.var, matrices, raw_var, source=adata)
