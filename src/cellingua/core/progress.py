"""One progress bar and one log, both on standard error, both silent on request."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Protocol


class Progress(Protocol):
    """What long work reports to."""

    def step(self, name: str, total: int = 0) -> None:
        """Begin a step of `total` units (0: not counted)."""

    def advance(self, units: int = 1) -> None:
        """Report that `units` more are done."""

    def status(self, text: str) -> None:
        """Say how it stands; shown beside the bar from now on."""

    def say(self, text: str) -> None:
        """Tell the reader something worth a line."""


class Silent:
    """Reports nothing: the default of the Python functions."""

    def step(self, name: str, total: int = 0) -> None:
        """Ignore."""

    def advance(self, units: int = 1) -> None:
        """Ignore."""

    def status(self, text: str) -> None:
        """Ignore."""

    def say(self, text: str) -> None:
        """Ignore."""


class Console:
    """Writes to standard error: a line that is rewritten on a terminal, plain lines in a log file."""

    def __init__(self, write: Callable[[str], object] | None = None, *, live: bool | None = None) -> None:
        self._write = write or sys.stderr.write
        self._live = sys.stderr.isatty() if live is None else live
        self._name, self._total, self._done, self._status = "", 0, 0, ""
        self._start = self._shown = time.monotonic()

    def step(self, name: str, total: int = 0) -> None:
        """Begin a step."""
        self._name, self._total, self._done, self._status = name, total, 0, ""
        self._start = time.monotonic()
        self._shown = 0.0 if self._live else self._start
        if not self._live:
            self._write(f"{name} …\n")
        elif not total:
            self._write(f"\r\033[K{name} …")

    def advance(self, units: int = 1) -> None:
        """Draw the bar at most five times a second (a line every 30 seconds in a log file)."""
        self._done += units
        now = time.monotonic()
        if not self._total or now - self._shown < (0.2 if self._live else 30.0):
            return
        self._shown = now
        rate = self._done / max(now - self._start, 1e-9)
        left = (self._total - self._done) / max(rate, 1e-9)
        rate_text = f"{rate:,.0f}/s" if rate >= 10 else f"{rate:.2g}/s"
        status = f", {self._status}" if self._status else ""
        text = f"{self._name} {self._done:,}/{self._total:,} ({rate_text}, {time_left(left)} left{status})"
        self._write(f"\r\033[K{text}" if self._live else f"{text}\n")

    def status(self, text: str) -> None:
        """Say how it stands; shown beside the bar from now on."""
        self._status = text

    def say(self, text: str) -> None:
        """Write a line of its own."""
        self._write(f"\r\033[K{text}\n" if self._live else f"{text}\n")


def time_left(seconds: float) -> str:
    """Return seconds as people say them: "40 s", "12 min", "3 h 20 min"."""
    minutes = round(seconds / 60)
    if minutes < 3:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"
