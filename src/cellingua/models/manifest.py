"""The manifest of a model folder: the size and SHA-256 of each file, and which of them are optional."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

from cellingua.core.errors import ModelError
from cellingua.core.files import sha256_file, write_json

NAME = "manifest.json"
VERSION = 1
# No absolute path and no step upwards: a manifest can't make us read outside its folder.
_SAFE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*(/[A-Za-z0-9_][A-Za-z0-9_.-]*)*")
_HELP = "the folder as it was made; fetch or make it again"


@dataclass(frozen=True)
class Entry:
    """One file."""

    sha256: str
    size: int
    optional: bool = False


@dataclass(frozen=True)
class Manifest:
    """The files of `folder`."""

    folder: Path
    files: dict[str, Entry]

    def verified(self, name: str) -> Path:
        """Return the path of a file after its size and hash were found to be right.

        Raises
        ------
        ModelError
            The file is not listed, is missing, or differs; it is named.
        """
        path = self.folder / name
        if name not in self.files:
            raise ModelError(f"{self.folder / NAME} doesn't list {name}.", "a model with that part", _HELP)
        entry = self.files[name]
        if not path.is_file():
            raise ModelError(f"{path} is missing.", f"a file of {entry.size:,} bytes", _HELP)
        if path.stat().st_size != entry.size:
            raise ModelError(f"{path} has {path.stat().st_size:,} bytes.", f"{entry.size:,} bytes", _HELP)
        found = sha256_file(path)
        if found != entry.sha256:
            raise ModelError(f"{path} has the SHA-256 {found}.", entry.sha256, _HELP)
        return path

    @property
    def hash(self) -> str:
        """First 16 hexadecimal digits of the SHA-256 of the manifest, which names every file's."""
        return sha256_file(self.folder / NAME)[:16]

    @property
    def optional(self) -> frozenset[str]:
        """Names of the files that a model works without."""
        return frozenset(name for name, entry in self.files.items() if entry.optional)

    @property
    def size(self) -> int:
        """Bytes of all files listed."""
        return sum(entry.size for entry in self.files.values())


def write_manifest(folder: Path, optional: frozenset[str] = frozenset()) -> None:
    """List every file below `folder` in its manifest."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != NAME)
    files = {}
    for path in paths:
        name = path.relative_to(folder).as_posix()
        files[name] = {"sha256": sha256_file(path), "size": path.stat().st_size, "optional": name in optional}
    write_json(folder / NAME, {"format_version": VERSION, "files": files})


def read_manifest(folder: Path) -> Manifest:
    """Read the manifest of a model folder and check that what isn't optional is there (not yet what is in it).

    Raises
    ------
    ModelError
        There is no such folder, it holds no manifest, or the manifest is of another kind.
    """
    path = folder / NAME
    if not path.is_file():
        what = f"{path} is missing" if folder.is_dir() else f"{folder} is not a folder"
        raise ModelError(f"{what}.", "a model folder with a manifest", _HELP)
    try:
        held = json.loads(path.read_text(encoding="utf-8"))
        version = held["format_version"]
        if version != VERSION:
            raise ModelError(f"{path} is of format version {version!r}.", f"version {VERSION}", "another cellingua")
        files = {
            name: Entry(str(e["sha256"]), int(e["size"]), bool(e["optional"])) for name, e in held["files"].items()
        }
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"{path} is not a manifest: {error!r}.", "a manifest as saved", _HELP) from error
    for name, entry in files.items():
        if not _SAFE.fullmatch(name):
            raise ModelError(f"{path} lists the file {name!r}.", "plain names within the folder", _HELP)
        if not entry.optional and not (folder / name).is_file():
            raise ModelError(f"{folder / name} is missing.", f"a file of {entry.size:,} bytes", _HELP)
    return Manifest(folder, files)
