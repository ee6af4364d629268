"""Ctrl-C and SIGTERM in a run: the step at hand is finished, a checkpoint is saved, and the process ends."""

from __future__ import annotations

import signal
from types import FrameType, TracebackType
from typing import Any

TERMINATED = 143


class Stopping:
    """While it is entered, a first signal is only noted; `raise_if_asked` acts on it between steps.

    A second Ctrl-C interrupts at once. Outside of the main thread signals belong to someone else, and nothing is done.
    """

    def __init__(self) -> None:
        self.signal = 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Stopping:
        for number in (signal.SIGINT, signal.SIGTERM):
            try:
                self._before[number] = signal.signal(number, self._note)
            except ValueError:
                break
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def raise_if_asked(self, number: int | None = None) -> None:
        """Raise what ends the process: KeyboardInterrupt (exit code 130), or SystemExit(143) for SIGTERM."""
        number = self.signal if number is None else number
        if number == signal.SIGTERM:
            raise SystemExit(TERMINATED)
        if number:
            raise KeyboardInterrupt

    def _note(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and self.signal:
            raise KeyboardInterrupt
        self.signal = number
