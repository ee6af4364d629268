"""Results into an AnnData, or into a copy of the file they came from."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
from anndata import AnnData
from anndata.io import read_elem, sparse_dataset, write_elem

from cellingua.cells.reading import CellFile
from cellingua.core.errors import InputError
from cellingua.tasks.result import Annotation

SUFFIXES = ("", "_id", "_probability", "_runner_up", "_status", "_cluster", "_cluster_label")
EMBEDDING = "X_langcell"
ROWS = 4096
SLACK = 4_000_000  # bytes beside the arrays themselves: indices, chunks, provenance


def check_keys(
    obs: Sequence[str],
    obsm: Sequence[str],
    uns: Sequence[str],
    key: str,
    *,
    overwrite: bool,
    embedding: str = EMBEDDING,
    more: tuple[str, ...] = (),
) -> None:
    """Raise `InputError` that names the first key which exists already, unless `overwrite`.

    `more` are suffixes of columns that are written on request.
    """
    if overwrite:
        return
    taken = [f"obs[{key + suffix!r}]" for suffix in (*SUFFIXES, *more) if key + suffix in obs]
    taken += [f"obsm[{embedding!r}]"] if embedding in obsm else []
    taken += [f"uns[{key!r}]"] if key in uns else []
    if taken:
        raise InputError(
            f"{taken[0]} exists already.", "keys that are free", "another key_added, or overwrite=True (--force)"
        )


def check_file_keys(
    cells: CellFile, key: str, *, overwrite: bool, embedding: str = EMBEDDING, more: tuple[str, ...] = ()
) -> None:
    """Raise `InputError` if the file has a key that would be written, unless `overwrite`."""
    columns = [str(name) for name in cells.obs.columns]
    obsm, uns = _names(cells, "obsm"), _names(cells, "uns")
    check_keys(columns, obsm, uns, key, overwrite=overwrite, embedding=embedding, more=more)


def check_file_embedding(cells: CellFile, key: str, *, overwrite: bool) -> None:
    """Raise `InputError` if the file has ``obsm[key]``, unless `overwrite`."""
    if not overwrite and key in _names(cells, "obsm"):
        raise InputError(f"obsm has a key {key!r} already.", "a key that is free", "--force to replace it")


def _names(cells: CellFile, group: str) -> list[str]:
    """Return the names in a group of the open file; none where it has no such group."""
    if cells.kind not in ("h5ad", "zarr") or group not in cells.source:
        return []
    return list(cells.source[group]) if hasattr(cells.source[group], "keys") else []


def result_columns(result: Annotation, key: str) -> dict[str, Any]:
    """Return the columns of ``obs`` by name: categoricals of texts, and probabilities as float32."""
    asked = {
        f"{key}_{name}": np.asarray(values, np.float32) if name == "unknown" else pd.Categorical(values)
        for name, values in result.on_request().items()
    }
    return {
        key: pd.Categorical(result.labels),
        f"{key}_id": pd.Categorical(result.term_ids),
        f"{key}_probability": np.asarray(result.probability, dtype=np.float32),
        f"{key}_runner_up": pd.Categorical(result.runner_up),
        f"{key}_status": pd.Categorical(result.status, categories=["named", "rolled_up", "unknown"]),
        f"{key}_cluster": pd.Categorical(result.cluster, categories=[row.name for row in result.clusters]),
        f"{key}_cluster_label": pd.Categorical(result.cluster_label),
        **asked,
    }


def write_keys(adata: AnnData, result: Annotation, key: str) -> None:
    """Write the keys of the house into `adata`; ``X`` and the names of the cells are left as they are."""
    for name, values in result_columns(result, key).items():
        adata.obs[name] = values
    adata.obsm[result.embedding_key] = result.embedding
    adata.uns[key] = storable(result.provenance)


def storable(value: Any) -> Any:
    """Return JSON values as what an h5ad can hold: None as ``""``, lists of mappings as JSON text."""
    if isinstance(value, Mapping):
        return {str(name).replace("/", "|"): storable(item) for name, item in value.items()}
    if value is None:
        return ""
    if isinstance(value, (list, tuple)):
        if value and all(isinstance(item, str) for item in value):
            return np.array(value, dtype=object)
        if value and all(isinstance(item, (int, float)) for item in value):
            return np.array(value)
        return json.dumps(value, ensure_ascii=False)
    return value


def write_annotated(
    cells: CellFile,
    path: Path,
    *,
    columns: Mapping[str, Any],
    obsm: Mapping[str, np.ndarray],
    uns: Mapping[str, Any],
    names: np.ndarray | None = None,
) -> None:
    """Write a copy of the cells' file to `path` as h5ad, with columns, embeddings and provenance added.

    An h5ad is copied byte by byte and the new elements are added in place: X is neither loaded nor changed, and
    what other tools keep in the file stays. Other kinds are written in row blocks.

    Parameters
    ----------
    path
        A file that may be overwritten (a partial path).
    names
        Names of the cells where the file's own are repeated, object (n,).
    """
    if cells.kind == "h5ad" and cells.path is not None:
        shutil.copyfile(cells.path, path)
    else:
        _write_blocks(cells, path)
    sizes = sum(np.asarray(values).nbytes for values in (*columns.values(), *obsm.values()))
    reserve(path, path.stat().st_size + 2 * sizes + _frame_bytes(cells.obs) + SLACK)
    with h5py.File(path, "r+") as file:
        _add_columns(file, cells, columns, names)
        for group, items in (("obsm", obsm), ("uns", uns)):
            if not isinstance(file.get(group), h5py.Group):
                write_elem(file, group, {})
            for name, value in items.items():
                if name in file[group]:
                    del file[group][name]
                write_elem(file[group], name, value)


def reserve(path: Path, size: int) -> None:
    """Make sure that a file can grow to `size` bytes, so that HDF5 does not meet a full disk halfway.

    HDF5 can't close a file that it could not write, and takes the process down when it tries. The space is
    taken now; HDF5 uses it, and cuts off what is left when it closes the file.

    Raises
    ------
    OSError
        ``ENOSPC`` (or ``EFBIG``, ``EDQUOT``): there is no room.
    """
    if hasattr(os, "posix_fallocate"):
        descriptor = os.open(path, os.O_RDWR)
        try:
            os.posix_fallocate(descriptor, 0, size)
            return
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS):
                raise
        finally:
            os.close(descriptor)
    if shutil.disk_usage(path).free < size - path.stat().st_size:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))


def _add_columns(file: h5py.File, cells: CellFile, columns: Mapping[str, Any], names: np.ndarray | None) -> None:
    """Add columns to ``obs`` in place; write ``obs`` anew where its names change or it is of the oldest form."""
    obs = file["obs"]
    if names is None and isinstance(obs, h5py.Group) and "column-order" in obs.attrs:
        order = [str(name) for name in obs.attrs["column-order"]]
        for name, values in columns.items():
            if name in obs:
                del obs[name]
            write_elem(obs, name, values)
        everything = [*order, *(name for name in columns if name not in order)]
        obs.attrs["column-order"] = np.array(everything, dtype=h5py.string_dtype())
        return
    frame = cells.obs.copy()
    if names is not None:
        frame.index = pd.Index(names, name=frame.index.name)
    for name, values in columns.items():
        frame[name] = values
    del file["obs"]
    write_elem(file, "obs", frame)


def _write_blocks(cells: CellFile, path: Path) -> None:
    """Write a file that is not an h5ad as one, X in row blocks, the rest element by element."""
    _write_shell(cells, path)
    with h5py.File(path, "r+") as file:
        if "X" in file:
            del file["X"]
        written: Any = None
        planned = path.stat().st_size + SLACK
        for start in range(0, cells.n_cells, ROWS):
            block = cells.rows("X", start, min(start + ROWS, cells.n_cells)).tocsr()
            planned += block.data.nbytes + block.indices.nbytes + block.indptr.nbytes
            reserve(path, planned)
            if written is None:
                write_elem(file, "X", block)
                written = sparse_dataset(file["X"])
            else:
                written.append(block)
        if cells.kind == "zarr":
            _copy_rest(cells, file)


def _write_shell(cells: CellFile, path: Path) -> None:
    """Write an h5ad with the names and columns of the cells and genes, and nothing else."""
    h5py.File(path, "w").close()
    reserve(path, 2 * (_frame_bytes(cells.obs) + _frame_bytes(cells.var)) + SLACK)
    with h5py.File(path, "r+") as file:
        write_elem(file, "/", AnnData(obs=cells.obs.copy(), var=cells.var.copy()))


def _frame_bytes(frame: pd.DataFrame) -> int:
    return int(frame.memory_usage(deep=True).sum())


def _copy_rest(cells: CellFile, file: h5py.File) -> None:
    """Copy what a zarr store has beside X, obs and var."""
    store = cells.source
    for group in ("layers", "obsm", "varm", "obsp", "varp", "uns"):
        for name in _names(cells, group):
            if name in file.get(group, ()):
                del file[group][name]
            write_elem(file.require_group(group), name, read_elem(store[group][name]))
    if "raw" in store:
        if "raw" in file:
            del file["raw"]
        write_elem(file, "raw", read_elem(store["raw"]))
