"""Pickled dictionaries of genes, read without running anything that a pickle may ask for.

Geneformer keeps its gene dictionaries as pickles, and a pickle is a program. Three things stand between it and us:

1. the file is short, and its opcodes are looked through first: only those of a flat dictionary of texts, numbers and
   NumPy scalars may occur, once each where once is enough, and nothing that makes a short file large or slow;
2. of globals it may name `numpy.dtype` and NumPy's `scalar`, by the names that old and new versions give them;
3. what it gets under these names are stand-ins that decode one number. NumPy's own would take flags and layouts
   from the file and follow pointers in it.
"""

from __future__ import annotations

import io
import pickle
import pickletools
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cellingua.core.errors import FileError

MAX_BYTES = 32 << 20
MAX_ENTRIES = 200_000
MAX_TEXT = 200
_SCALARS = {("numpy.core.multiarray", "scalar"), ("numpy._core.multiarray", "scalar")}
_DTYPES = {("numpy", "dtype")}
_FORMATS = dict(zip(["i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8"], "bBhHiIqQfd", strict=True))
_PUTS, _GETS = {"BINPUT", "LONG_BINPUT", "MEMOIZE"}, {"BINGET", "LONG_BINGET"}
_TUPLES = {"TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"}
_TEXTS = {"SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"}
_NUMBERS = {"BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "NONE", "NEWTRUE", "NEWFALSE"}
_BYTES = {"SHORT_BINBYTES", "BINBYTES"}
_MAKING = {"GLOBAL", "STACK_GLOBAL", "REDUCE", "BUILD", "MARK", "SETITEM", "SETITEMS"}
_ALLOWED = {"PROTO", "FRAME", "EMPTY_DICT", "EMPTY_TUPLE", "STOP"}.union(
    _PUTS, _GETS, _TUPLES, _TEXTS, _NUMBERS, _BYTES, _MAKING
)
_EXPECTED = "a pickled dictionary of genes, as Geneformer writes it: texts, and numbers or texts as values"

Value = int | float | str


class _Refused(Exception):
    """What is wrong with a pickle, in a few words."""


def read_pickled_dictionary(path: Path) -> dict[str, Value]:
    """Read a flat pickled dictionary: keys are texts; values are numbers (NumPy's too) or texts.

    Raises
    ------
    FileError
        The file is missing, larger than 32 MB, damaged, or holds anything else; the first thing is named. Nothing
        that a pickle may ask to be imported or called is.
    """
    path = Path(path)
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise FileError(f"{path} has {size:,} bytes.", f"{_EXPECTED}, of {MAX_BYTES:,} bytes at most")
        content = path.read_bytes()
    except OSError as error:
        raise FileError(f"{path} can't be read ({error.strerror or error}).", _EXPECTED) from error
    try:
        _look_through(content)
        held = _Restricted(io.BytesIO(content)).load()
    except _Refused as error:
        raise FileError(f"{path} is refused: it holds {error}.", _EXPECTED) from error
    except Exception as error:  # a damaged pickle raises nearly anything: IndexError, ValueError, struct.error, ...
        raise FileError(f"{path} can't be read as a pickle: {str(error)[:120]}.", _EXPECTED) from error
    return _checked(held, path)


def _look_through(content: bytes) -> None:
    """Raise `_Refused` at the first opcode, or use of one, that a flat dictionary has no need of."""
    memo = dicts = 0
    tuples: set[int] = set()
    previous = ""
    for name, argument in _opcodes(content):
        if name not in _ALLOWED:
            raise _Refused(f"the opcode {name}")
        if name in _PUTS:
            place = memo if argument is None else int(argument)
            if place > memo:  # a put far beyond the others makes a table of that size
                raise _Refused("a memo with gaps")
            memo += place == memo
            if previous in _TUPLES:
                tuples.add(place)
        elif name in _GETS and int(argument) in tuples:  # tuples of tuples, used twice: 2^n entries to hash
            raise _Refused("a tuple that is used twice")
        elif name == "EMPTY_DICT":
            dicts += 1
            if dicts > 1:
                raise _Refused("a dictionary within the dictionary")
        elif name == "GLOBAL":
            _known_global(*str(argument).split(" ", 1))
        previous = name


def _opcodes(content: bytes) -> Iterator[tuple[str, Any]]:
    """Yield the name and argument of each opcode; nothing is executed."""
    end: int | None = 0
    for opcode, argument, end in pickletools.genops(content):  # noqa: B007 (used behind the loop)
        yield opcode.name, argument
    if end != len(content) - 1:
        raise _Refused("something behind its end")


def _known_global(module: str, name: str) -> None:
    if (module, name) not in _SCALARS | _DTYPES:
        raise _Refused(f"the global {module[:40]}.{name[:40]}, which may run code")


class _Restricted(pickle.Unpickler):
    """An unpickler that knows two globals, and gives stand-ins for them, made anew for each file."""

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file)
        self._dtype, self._scalar = _stand_ins()

    def find_class(self, module: str, name: str) -> Any:
        """Return the stand-in of a known global; refuse any other."""
        _known_global(module, name)
        return self._dtype if (module, name) in _DTYPES else self._scalar

    def persistent_load(self, pid: Any) -> Any:
        """Refuse: no such file has references to something outside."""
        raise _Refused("a reference to something outside")


def _stand_ins() -> tuple[type, type]:
    """Return stand-ins of ``numpy.dtype`` and of ``scalar``: a plain number type, and the number that bytes say."""

    class Dtype:
        def __init__(self, code: Any, *_: Any) -> None:
            if code not in _FORMATS:
                raise _Refused(f"the number type {str(code)[:20]!r}")
            self.code, self.order = code, "<"

        def __setstate__(self, state: Any) -> None:
            # (version, byte order, subtype, names, fields, size, alignment, flags, ...): a plain type has only these.
            plain = isinstance(state, tuple) and len(state) in (8, 9) and state[2:5] == (None, None, None)
            if not plain or state[1] not in ("<", ">", "|", "="):
                raise _Refused("a number type that is not plain")
            self.order = "<" if state[1] in ("|", "=") else state[1]

    class Scalar:
        def __new__(cls, dtype: Any, content: Any) -> Any:
            if not isinstance(dtype, Dtype) or not isinstance(content, bytes):
                raise _Refused("a scalar that is no number")
            (value,) = struct.unpack(dtype.order + _FORMATS[dtype.code], content)
            return value

    return Dtype, Scalar


def _checked(held: Any, path: Path) -> dict[str, Value]:
    """Return a flat dictionary after looking at every key and value."""
    if not isinstance(held, dict) or not held:
        raise FileError(f"{path} holds {type(held).__name__}, or nothing.", _EXPECTED)
    if len(held) > MAX_ENTRIES:
        raise FileError(f"{path} holds {len(held):,} entries.", f"{MAX_ENTRIES:,} at most")
    for key, value in held.items():
        if not isinstance(key, str) or type(value) not in (int, float, str):
            raise FileError(f"{path}: the entry {str(key)[:40]!r} is a {type(value).__name__}.", _EXPECTED)
        if len(key) > MAX_TEXT or (isinstance(value, str) and len(value) > MAX_TEXT):
            raise FileError(f"{path}: the entry {key[:40]!r} is a long text.", _EXPECTED)
    return held
