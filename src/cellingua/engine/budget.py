"""How many bytes a chunk's graph keeps alive, and how many chunks fit into a budget."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from cellingua.core.errors import EngineError
from cellingua.engine.chunks import Chunk


class GraphBudget:
    """Decides which chunks keep their graph between the two passes.

    The first chunks are kept, so that going through the chunks in their order frees what was kept before anything is
    encoded again.

    Parameters
    ----------
    limit
        Bytes of graph to keep, beside the graph of the one chunk that is recomputed; ``inf`` keeps all.
    lasting
        Tensors that live on anyway (parameters, buffers, the batch), which no graph is charged for.
    """

    def __init__(self, limit: float, lasting: Iterable[Tensor] = ()) -> None:
        if not limit >= 0:
            raise EngineError(f"A budget of {limit} bytes.", "0 or more bytes; math.inf keeps every graph")
        self.limit = limit
        self.used = 0
        self._open = limit > 0
        self._rate: dict[int, float] = {}  # bytes a row, the most seen so far, of each tower
        self._lasting = {t.untyped_storage().data_ptr() for t in lasting} if 0 < limit < math.inf else set()

    def allows(self, chunk: Chunk) -> bool:
        """Is there room for the graph of `chunk`, as far as the chunks before it tell?

        The first chunk of a tower is judged by the other towers; the very first is tried.
        """
        if self._open and self.limit < math.inf and self._rate:
            rate = self._rate.get(chunk.tower, max(self._rate.values()))
            self._open = self.used + rate * len(chunk) <= self.limit
        return self._open

    def keeps(self, chunk: Chunk, measured: int) -> bool:
        """Charge the graph of `chunk`; False where it is larger than what is left, and must be dropped."""
        self._rate[chunk.tower] = max(self._rate.get(chunk.tower, 0.0), measured / len(chunk))
        self._open = self.used + measured <= self.limit
        if self._open:
            self.used += measured
        return self._open

    @contextmanager
    def measuring(self) -> Iterator[list[int]]:
        """Measure what is saved for the backward pass within: the total is the first entry of the list.

        An unlimited budget needs no measure, and total 0 stands for it.
        """
        total = [0]
        if self.limit == math.inf:
            yield total
            return
        seen = set(self._lasting)

        def note(saved: Tensor) -> Tensor:
            storage = saved.untyped_storage()
            if storage.data_ptr() not in seen:
                seen.add(storage.data_ptr())
                # A slice of a large table of tokens keeps nothing that was not there; a view of activations does.
                total[0] += storage.nbytes() if saved.is_floating_point() else saved.nbytes
            return saved

        with torch.autograd.graph.saved_tensors_hooks(note, lambda saved: saved):
            yield total
