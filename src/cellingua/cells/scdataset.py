"""scDataset (a package of that name on PyPI) over any source of cells, where it is installed.

scDataset draws blocks of neighbours, fetches many of them sorted at once, and shuffles within what it fetched. As an
adapter it gives its order of cells to whatever takes a `CellSource`, and our shards to whatever takes an scDataset.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellingua.cells.sources import CellRows, CellSource
from cellingua.core.errors import ConfigError


def as_scdataset(
    source: CellSource, *, batch: int, block: int = 16, fetch: int = 16, seed: int = 0, drop_last: bool = False
) -> Any:
    """Return an ``scDataset`` (a torch ``IterableDataset``) that yields `CellRows`.

    Parameters
    ----------
    batch
        Cells it yields at a time.
    block
        Neighbours that stay together when the order is drawn.
    fetch
        Minibatches read from `source` at once.
    seed
        Of the order.
    drop_last
        Leave out a last minibatch that is not full.

    Raises
    ------
    ConfigError
        scDataset is not installed.
    """
    try:
        from scdataset import BlockShuffling, scDataset
    except ImportError as error:
        raise ConfigError("scDataset is not installed.", "the package scDataset", "pip install scDataset") from error
    return scDataset(
        source,
        BlockShuffling(block_size=block),
        batch_size=batch,
        fetch_factor=fetch,
        drop_last=drop_last,
        fetch_callback=lambda held, rows: held.read(np.asarray(rows)),
        batch_callback=lambda rows, places: rows.take(np.asarray(places)),
        rank=0,
        world_size=1,
        seed=seed,
    )


class ScDatasetSource:
    """A `CellSource` whose blocks are drawn by scDataset; all else is that of the source below.

    Parameters
    ----------
    source
        The cells: files as they are, or a prepared corpus.
    fetch
        Blocks read at once.
    """

    def __init__(self, source: CellSource, *, fetch: int = 16) -> None:
        self.source, self.fetch = source, fetch
        as_scdataset(source, batch=1)  # say now that it is not installed

    @property
    def n_genes(self) -> int:
        """Number of columns of the counts."""
        return self.source.n_genes

    @property
    def categories(self) -> Mapping[str, Sequence[str]]:
        """Column -> the value of each code."""
        return self.source.categories

    def __len__(self) -> int:
        return len(self.source)

    def read(self, rows: NDArray[np.integer]) -> CellRows:
        """Return the cells `rows`, in that order; they are fetched sorted."""
        rows = np.asarray(rows, np.int64)
        distinct, back = np.unique(rows, return_inverse=True)
        return self.source.read(distinct).take(back)

    def column(self, name: str) -> NDArray[np.int32]:
        """Return the codes of a column for all cells."""
        return self.source.column(name)

    def blocks(self, seed: int, epoch: int, size: int) -> Iterator[CellRows]:
        """Yield every cell once, `size` at a time, in scDataset's order (blocks of a fetch are mixed)."""
        drawn = int(np.random.default_rng([seed, 13, epoch]).integers(2**31))
        yield from as_scdataset(self.source, batch=size, block=size, fetch=self.fetch, seed=drawn)
