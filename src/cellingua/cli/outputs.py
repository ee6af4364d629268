"""Where results go: checked before work, written aside, moved into place together."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from cellingua.core.errors import FileError, InputError, OutputError
from cellingua.core.files import check_writable, refuse_overwrite

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
ENDINGS = (".h5ad", ".zarr", ".h5", ".mtx.gz", ".mtx")


@dataclass(frozen=True)
class Outputs:
    """The files that an annotation writes for one input.

    Attributes
    ----------
    folder
        Holds everything but an ``h5ad`` named by the user.
    h5ad, table, summary
        Annotated cells, a row a cell, figures for programs.
    report
        The page, None where it was not asked for; its static figures go to ``folder/figures``.
    """

    folder: Path
    h5ad: Path
    table: Path
    summary: Path
    report: Path | None

    @property
    def files(self) -> list[Path]:
        """The files of fixed name."""
        return [self.h5ad, self.table, self.summary, *([self.report] if self.report else [])]


def outputs_for(source: Path, *, output: str | None, out_dir: str | None, report: bool) -> Outputs:
    """Return where the results for `source` go: ``NAME_cellingua/`` beside it, or in `out_dir`."""
    absolute = Path(os.path.abspath(source))
    name = stem_of(absolute)
    folder = (Path(out_dir) if out_dir else absolute.parent) / f"{name}_cellingua"
    h5ad = Path(output) if output else folder / f"{name}.annotated.h5ad"
    page = folder / "report.html" if report else None
    return Outputs(folder, h5ad, folder / f"{name}.labels.tsv", folder / "summary.json", page)


def stem_of(source: Path, endings: Sequence[str] = ENDINGS) -> str:
    """Return the name of an input without its ending."""
    for ending in endings:
        if source.name.lower().endswith(ending) and len(source.name) > len(ending):
            return source.name[: -len(ending)]
    return source.name


def check_outputs(sources: Sequence[Path], outputs: Sequence[Outputs], *, force: bool) -> None:
    """Refuse what can't or must not be written, before any work is done.

    Raises
    ------
    FileError
        A file exists (without `force`), would replace its own input, or two inputs would write to one place.
    """
    taken: dict[Path, Path] = {}
    for source, places in zip(sources, outputs, strict=True):
        for path in places.files:
            refuse_same(source, path)
            refuse_overwrite(path, force=force, file=True)
            if path.resolve() in taken:
                raise FileError(
                    f"{source} and {taken[path.resolve()]} would both write {path}.",
                    "results of several files in different places",
                    "one file at a time, or leave out -o and --out-dir",
                )
            taken[path.resolve()] = source
        if places.folder.exists() and not places.folder.is_dir():
            raise FileError(f"{places.folder} is a file.", "a folder for the results", "another --out-dir")


def refuse_same(source: Path, output: Path) -> None:
    """Raise `InputError` if the output would replace its own input, whatever `--force` says."""
    if source.exists() and output.exists() and source.samefile(output):
        raise InputError(f"{output} is the input itself.", "another path for the output", "-o with another name")


@contextlib.contextmanager
def staged(targets: Sequence[Path]) -> Iterator[dict[Path, Path]]:
    """Yield a temporary path for each target; move all into place if the block succeeds, else leave nothing.

    The temporary files lie on the same file systems as their targets, in hidden folders that are removed whatever
    happens; so are folders that had to be made, if the block fails.

    Raises
    ------
    FileError
        A folder can't be written to.
    OutputError
        The disk is full.
    """
    made: list[Path] = []
    stages: dict[Path, Path] = {}
    done = False
    try:
        partial: dict[Path, Path] = {}
        for target in targets:
            ground = _ground(target.parent, made)
            if ground not in stages:
                check_writable(ground)
                stages[ground] = Path(tempfile.mkdtemp(dir=ground, prefix=".cellingua-", suffix=".partial"))
            partial[target] = stages[ground] / f"{len(partial)}" / target.name
            partial[target].parent.mkdir()
        yield partial
        for target, path in partial.items():
            if path.exists():
                target.parent.mkdir(parents=True, exist_ok=True)
                _move(path, target)
        done = True
    except (OSError, RuntimeError) as error:
        if not _is_full(error):
            raise
        raise OutputError(
            f"The results could not be written: the disk is full, or a file grew beyond what is allowed "
            f"({targets[0].parent}).",
            "",
            "free some space, or another folder with --out-dir or -o",
        ) from error
    finally:
        for stage in stages.values():
            shutil.rmtree(stage, ignore_errors=True)
        if not done:
            for folder in reversed(made):
                with contextlib.suppress(OSError):
                    folder.rmdir()


def _ground(folder: Path, made: list[Path]) -> Path:
    """Return the folder that stages files for `folder`: its nearest existing parent, or the deepest made."""
    missing = []
    while not folder.exists():
        missing.append(folder)
        folder = folder.parent
    # The last missing folder is made when results move in; those above it are made now, to find out that they
    # can be.
    for path in reversed(missing[1:]):
        try:
            path.mkdir()
        except OSError as error:
            raise FileError(
                f"{path} can't be made ({error.strerror}).", "a folder that you may write to", "another --out-dir"
            ) from error
        made.append(path)
        folder = path
    return folder


def _move(path: Path, target: Path) -> None:
    """Move a file, or the files of a folder, into place."""
    if path.is_dir():
        target.mkdir(exist_ok=True)
        for inside in path.iterdir():
            os.replace(inside, target / inside.name)
        return
    os.replace(path, target)


def _is_full(error: BaseException) -> bool:
    """Return whether an error, or one that caused it, says that nothing more can be written.

    HDF5 reports a full disk as an `OSError` or, when a file is closed, as a `RuntimeError` with the number in
    its text.
    """
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, OSError) and seen.errno in FULL:
            return True
        number = re.search(r"errno = (\d+)", str(seen))
        if number and int(number.group(1)) in FULL:
            return True
        seen = seen.__cause__ or seen.__context__
    return False
