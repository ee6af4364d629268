"""What a run writes down as it goes: JSON lines, and TensorBoard where it is asked for."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cellingua.core.errors import ConfigError
from cellingua.core.files import full_disk, write_text

LOG = "log.jsonl"
VALIDATION = "validation"


class Logbook:
    """Appends to ``log.jsonl`` in a folder.

    Parameters
    ----------
    folder
        Of the run; None writes nothing.
    start
        Steps done: lines of a stopped run beyond them are removed, since they will be written again.
    tensorboard
        Write TensorBoard's events into ``folder/tensorboard`` too.

    Raises
    ------
    ConfigError
        TensorBoard is asked for and not installed.
    """

    def __init__(self, folder: Path | None, start: int = 0, *, tensorboard: bool = False) -> None:
        self.path = None if folder is None else folder / LOG
        self._writer: Any = None
        if folder is None:
            return
        folder.mkdir(parents=True, exist_ok=True)
        self._forget(start)
        if tensorboard:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError as error:
                raise ConfigError(
                    "TensorBoard is not installed.", "the package tensorboard", "pip install 'cellingua[train]'"
                ) from error
            self._writer = SummaryWriter(str(folder / "tensorboard"), purge_step=start)  # type: ignore[no-untyped-call]

    def losses(self, step: int, values: Mapping[str, float], **facts: float) -> None:
        """Log step `step` (from 0): its losses, and facts about it."""
        self._write({"step": step, **values, **facts}, step, {**values, **facts})

    def validation(self, done: int, values: Mapping[str, float]) -> None:
        """Log what was measured after `done` steps."""
        scalars = {f"{VALIDATION}/{name}": value for name, value in values.items()}
        self._write({"step": done, VALIDATION: dict(values)}, done, scalars)

    def close(self) -> None:
        """Finish TensorBoard's file."""
        if self._writer is not None:
            self._writer.close()

    def _write(self, line: Mapping[str, Any], step: int, scalars: Mapping[str, float]) -> None:
        if self.path is None:
            return
        with full_disk(self.path), open(self.path, "a", encoding="utf-8") as handle:
            handle.write(json.dumps(line) + "\n")
        if self._writer is not None:
            for name, value in scalars.items():
                self._writer.add_scalar(name, value, step)

    def _forget(self, start: int) -> None:
        """Remove lines of steps that are not done, and a line that a killed run left unfinished."""
        if self.path is None or not self.path.is_file():
            return
        lines = self.path.read_text(encoding="utf-8").splitlines()
        kept = [line for line in lines if _is_before(line, start)]
        if kept != lines:
            write_text(self.path, "".join(f"{line}\n" for line in kept))


def _is_before(line: str, start: int) -> bool:
    try:
        held = json.loads(line)
        return bool(held["step"] < start + (VALIDATION in held))
    except (ValueError, KeyError, TypeError):
        return False
