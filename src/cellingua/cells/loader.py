"""Minibatches of cells: a function of (seed, step) alone, read ahead by a thread.

The cells of a step are random blocks of neighbours; shards are shuffled, so neighbours there are no neighbours in
their file. Any step can be drawn at any time, so a resumed run needs no state to see the same cells.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from cellingua.cells.sources import CellRows, CellSource
from cellingua.core.errors import ConfigError

T = TypeVar("T")


@dataclass(frozen=True)
class LoaderConfig:
    """How cells are drawn.

    Parameters
    ----------
    batch
        Cells of a minibatch, over all processes.
    block
        Neighbours read together; `batch` is a multiple of it.
    seed
        Of the order.
    """

    batch: int = 256
    block: int = 16
    seed: int = 0


class Loader(Generic[T]):
    """Draws minibatch `step`, and has the next ones ready.

    Parameters
    ----------
    source
        The cells.
    config
        See `LoaderConfig`.
    make
        (step, cells) -> what the step needs; runs in the thread that reads ahead, so it should follow from its
        arguments alone.
    rows
        int64, ascending: the rows that may be drawn; None is all of them.
    ahead
        Minibatches held ready.
    rank, world
        This process and their number: each draws its part of the minibatch, the parts in the order of the ranks.

    Raises
    ------
    ConfigError
        There are fewer cells than a minibatch has, or sizes don't fit.
    """

    def __init__(
        self,
        source: CellSource,
        config: LoaderConfig,
        make: Callable[[int, CellRows], T],
        *,
        rows: NDArray[np.int64] | None = None,
        ahead: int = 2,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        if config.batch < 1 or config.block < 1 or config.batch % config.block:
            raise ConfigError(f"A minibatch of {config.batch} has no whole number of blocks of {config.block}.")
        if config.batch < world:
            raise ConfigError(f"A minibatch of {config.batch} can't be shared by {world} processes.")
        self.source, self.config, self.make = source, config, make
        self.ahead, self.rank, self.world = ahead, rank, world
        self._rows = rows
        self.n_cells = len(source) if rows is None else len(rows)
        self._blocks = self.n_cells // config.block
        self.steps_per_epoch = self._blocks // (config.batch // config.block)
        if self.steps_per_epoch == 0:
            raise ConfigError(
                f"There are {self.n_cells:,} cells to train on, and a minibatch has {config.batch:,}.",
                "at least one minibatch of cells",
                "a smaller batch, or more cells",
            )
        self._order: tuple[int, int, NDArray[np.int64]] | None = None
        self._pool: ThreadPoolExecutor | None = None
        self._ready: dict[int, Future[T]] = {}

    def rows(self, step: int) -> NDArray[np.int64]:
        """Return the rows of the whole minibatch `step` in the source, int64 (batch,)."""
        epoch, place = divmod(step, self.steps_per_epoch)
        offset, order = self._epoch(epoch)
        per_batch = self.config.batch // self.config.block
        starts = offset + order[place * per_batch : (place + 1) * per_batch] * self.config.block
        found = (starts[:, None] + np.arange(self.config.block)).ravel()
        return found if self._rows is None else np.asarray(self._rows[found])

    def own_rows(self, step: int) -> NDArray[np.int64]:
        """Return the rows of this process."""
        return np.array_split(self.rows(step), self.world)[self.rank]

    def draw(self, step: int) -> T:
        """Return what `make` makes of minibatch `step`, and begin to read those after it."""
        expect = getattr(self.source, "expect", None)  # a source on disk may fetch while something else is done
        if expect is not None:
            expect(self.own_rows(step + max(0, self.ahead) + 1))
        if self.ahead < 1:
            return self._read(step, self.own_rows(step))
        if self._pool is None:
            self._pool = ThreadPoolExecutor(1, thread_name_prefix="cellingua-loader")
        for number, waiting in list(self._ready.items()):
            if not step <= number <= step + self.ahead:
                waiting.cancel()
                del self._ready[number]
        for number in range(step, step + self.ahead + 1):
            if number not in self._ready:
                self._ready[number] = self._pool.submit(self._read, number, self.own_rows(number))
        return self._ready.pop(step).result()

    def close(self) -> None:
        """Stop reading ahead."""
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
        self._pool = None
        self._ready = {}

    def __enter__(self) -> Loader[T]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _read(self, step: int, rows: NDArray[np.int64]) -> T:
        return self.make(step, self.source.read(rows))

    def _epoch(self, epoch: int) -> tuple[int, NDArray[np.int64]]:
        """Return where the blocks of an epoch begin, and their order; the rows that no block has differ by epoch."""
        if self._order is None or self._order[0] != epoch:
            rng = np.random.default_rng([self.config.seed, 12, epoch])
            offset = int(rng.integers(self.n_cells - self._blocks * self.config.block + 1))
            self._order = epoch, offset, rng.permutation(self._blocks)
        return self._order[1], self._order[2]
