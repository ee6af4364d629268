"""A tuning that is stopped by Ctrl-C while it judges itself."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from cellingua.recipes import finetune_run


@contextmanager
def interrupted(at: int = 3) -> Iterator[None]:
    """Raise KeyboardInterrupt at the validation of that number."""
    measure, calls = finetune_run.Judge.measure, []

    def stopped(self: finetune_run.Judge, done: int) -> dict[str, float]:
        calls.append(done)
        if len(calls) == at:
            raise KeyboardInterrupt
        return measure(self, done)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(finetune_run.Judge, "measure", stopped)
        yield
