"""A batch as chunks: which rows, and which chunk of the global batch they are."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor

from cellingua.core.errors import EngineError

#: (batch, start, stop) -> the rows of a batch as a tower takes them.
Split = Callable[[Any, int, int], Any]


@dataclasses.dataclass(frozen=True)
class Chunk:
    """Rows `start` to `stop` of this process's part of the batch of tower `tower`.

    `number` counts the chunks of that tower in the global batch, over all processes.
    """

    tower: int
    start: int
    stop: int
    number: int

    def __len__(self) -> int:
        return self.stop - self.start


def _members(batch: Any) -> Sequence[Any] | None:
    """Return the parts of a batch that is made of parts, or None."""
    if isinstance(batch, Mapping):
        return list(batch.values())
    if isinstance(batch, tuple):
        return batch
    if dataclasses.is_dataclass(batch) and not isinstance(batch, type):
        return [getattr(batch, field.name) for field in dataclasses.fields(batch)]
    return None


def _is_setting(value: Any) -> bool:
    """Is this a value that belongs to the batch as a whole, and goes along with every chunk?"""
    return (
        value is None or isinstance(value, bool | int | float | str) or (isinstance(value, Tensor) and not value.ndim)
    )


def rows_of(batch: Any) -> int:
    """Return the number of rows of a batch.

    Parameters
    ----------
    batch
        A tensor, or anything with a length (a list, an array, an object of one's own); or a tuple, mapping or
        dataclass of these, which must agree.

    Raises
    ------
    EngineError
        The parts disagree, or nothing has rows.
    """
    members = _members(batch)
    if members is None:
        return int(batch.shape[0]) if isinstance(batch, Tensor) else len(batch)
    sizes = {rows_of(member) for member in members if not _is_setting(member)}
    if len(sizes) != 1:
        raise EngineError(
            f"The parts of a batch have {sorted(sizes) or 'no'} rows.",
            "the same number of rows in every part",
            "one row an item in every tensor, or a function `split(batch, start, stop)` and a `len()` of the batch",
        )
    return sizes.pop()


def take(batch: Any, start: int, stop: int) -> Any:
    """Return rows `start` to `stop` of a batch of the same form: the default `split`.

    Tensors, lists and arrays are sliced; tuples, mappings and dataclasses part by part; plain numbers, strings and
    None go along unchanged.
    """
    if _is_setting(batch):
        return batch
    if isinstance(batch, Mapping):
        return {key: take(value, start, stop) for key, value in batch.items()}
    if isinstance(batch, tuple):
        parts = [take(value, start, stop) for value in batch]
        return type(batch)(*parts) if hasattr(batch, "_fields") else tuple(parts)
    if dataclasses.is_dataclass(batch) and not isinstance(batch, type):
        names = [field.name for field in dataclasses.fields(batch)]
        return dataclasses.replace(batch, **{name: take(getattr(batch, name), start, stop) for name in names})
    return batch[start:stop]


def tensors_in(batch: Any) -> Iterator[Tensor]:
    """Yield the tensors of a batch."""
    if isinstance(batch, Tensor):
        yield batch
    for member in _members(batch) or ():
        yield from tensors_in(member)


def divide(tower: int, rows: int, size: int, first: int = 0) -> list[Chunk]:
    """Return the chunks of `rows` rows, the last one ragged; the first has number `first` in the global batch."""
    starts = range(0, rows, size)
    return [Chunk(tower, start, min(start + size, rows), first + k) for k, start in enumerate(starts)]
