"""Atomic writes and hashes."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cellingua.core.errors import FileError, OutputError


def sha256_file(path: Path) -> str:
    """Return the SHA-256 of a file as 64 hexadecimal digits."""
    digest = hashlib.sha256()
    with open(path, "rb") as handle:
        for block in iter(lambda: handle.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def refuse_overwrite(path: Path, *, force: bool, file: bool = False) -> None:
    """Raise `FileError` if `path` exists and `force` is False; if a `file` goes there, also if it is a folder.

    Called before work starts, so that an hour of work is not lost to a file that was there all along.
    """
    if file and path.is_dir():
        raise FileError(f"{path} is a folder.", "the name of a file", f"a name inside it, such as {path / 'result'}")
    if path.exists() and not force:
        raise FileError(
            f"{path} exists already.", "a path that does not exist", "another path, or --force to replace it"
        )


def check_writable(folder: Path) -> None:
    """Make `folder` and raise `FileError` unless a file can be created in it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".cellingua-"):
            pass
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise _output_error(folder, error) from error
        reason = error.strerror or str(error)
        raise FileError(
            f"{folder} can't be written to ({reason}).",
            "a folder that you may write to",
            "another folder with -o",
        ) from error


def _output_error(path: Path, error: OSError) -> OutputError:
    reason = error.strerror or str(error)
    return OutputError(f"{path} could not be written: {reason}.", "", "free some space, or another folder")


_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextlib.contextmanager
def full_disk(path: Path) -> Iterator[None]:
    """Turn the `OSError` of a full disk into an `OutputError` that names `path`."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise _output_error(path, error) from error
        raise


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; move it into place if the block succeeds, else remove it.

    Whatever stops the block (an error, Ctrl-C), `path` is either as it was or complete. An `OSError` of a
    full disk becomes an `OutputError` that names the path.
    """
    path = Path(path)
    with full_disk(path):
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".partial")
    os.close(descriptor)
    partial = Path(name)
    # mkstemp makes private files; results should have the permissions the user's umask gives.
    umask = os.umask(0)
    os.umask(umask)
    partial.chmod(0o666 & ~umask)
    try:
        with full_disk(path):
            yield partial
            os.replace(partial, path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            partial.unlink()


@contextlib.contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder beside `path`; it replaces `path` if the block succeeds, else it is removed."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.", suffix=".partial"))
    try:
        with full_disk(path):
            yield partial
            partial.chmod(0o755)
            old = None
            if path.exists():
                old = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.", suffix=".old"))
                os.replace(path, old / "was")
            os.replace(partial, path)
            if old is not None:
                shutil.rmtree(old)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text atomically."""
    with atomic_path(path) as partial:
        partial.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically, indented, keys in their own order, with a final newline."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n")
