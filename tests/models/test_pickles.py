"""Pickled dictionaries: what is read, and what is refused before anything of it runs."""

from __future__ import annotations

import os
import pickle
import pickletools
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellingua.core.errors import FileError
from cellingua.models import pickles
from cellingua.models.pickles import read_pickled_dictionary


class Call:
    """Would call something if unpickled."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return self.function, self.arguments


def wrote(path: Path, value: Any, protocol: int = 4) -> Path:
    path.write_bytes(pickle.dumps(value, protocol=protocol))
    return path


@pytest.mark.parametrize("protocol", [3, 4, 5])
@pytest.mark.parametrize("kind", [np.int16, np.int64, np.uint8, np.float32, np.float64])
def test_numbers_of_numpy_come_back_exactly(tmp_path: Path, protocol: int, kind: type) -> None:
    held = {f"ENSG{number:011d}": kind(number * 1.1) for number in range(100)}
    found = read_pickled_dictionary(wrote(tmp_path / "d.pkl", held, protocol))
    assert found == {key: value.item() for key, value in held.items()}
    assert {type(value) for value in found.values()} <= {int, float}


@pytest.mark.parametrize("protocol", [1, 2, 3, 4, 5])
def test_plain_dictionaries(tmp_path: Path, protocol: int) -> None:
    held = {"<pad>": 0, "<mask>": 1, "A": 2, "B": 70_000, "c": "ENSG00000000003", "d": 0.1 + 0.2}
    assert read_pickled_dictionary(wrote(tmp_path / "d.pkl", held, protocol)) == held


def test_byte_order_and_old_and_new_names(tmp_path: Path) -> None:
    held = {"a": np.dtype(">f8").type(1.5), "b": np.array([258], dtype=">i2")[0]}
    path = wrote(tmp_path / "d.pkl", held)
    content = path.read_bytes()
    assert read_pickled_dictionary(path) == {"a": 1.5, "b": 258}
    for module in (b"numpy.core.multiarray", b"numpy._core.multiarray"):
        old = next(name for name in (b"numpy._core.multiarray", b"numpy.core.multiarray") if name in content)
        plain = pickle.dumps({"b": np.int16(258)}, protocol=3).replace(b"c" + old + b"\n", b"c" + module + b"\n")
        path.write_bytes(plain)
        assert read_pickled_dictionary(path) == {"b": 258}


MARK = "ran"


def hostile() -> dict[str, bytes]:
    """Return pickles that do harm, or that no dictionary of genes needs."""
    system = pickle.dumps({"A": Call(os.system, f"touch {MARK}")})
    bomb = b"\x80\x04}K\x00\x85\x94" + b"".join(b"h" + bytes([n]) + b"h" + bytes([n]) + b"\x86\x94" for n in range(40))
    record = struct.pack("<I", 2**31)
    return {
        "os.system": system,
        "eval": pickle.dumps({"A": Call(eval, f"open('{MARK}', 'w')")}, protocol=2),
        "nested": pickle.dumps({"A": {"B": Call(os.system, f"touch {MARK}")}}),
        "in a list": pickle.dumps([1, [2, Call(os.system, f"touch {MARK}")]]),
        "as a key": pickle.dumps({("a", Call(print, MARK)): 1}),
        "getattr": b"cbuiltins\ngetattr\n.",
        "numpy's own load": b"cnumpy\nload\n(S'x'\ntR.",
        "dotted name": b"\x80\x04\x8c\x05numpy\x8c\x0edtype.__init__\x93.",
        "an array": pickle.dumps({"A": np.arange(3)}),
        "an object type": pickle.dumps({"A": np.dtype("O")}),
        "a record type": pickle.dumps({"A": np.zeros(1, dtype=[("a", "i4")])[0]}),
        "a reference outside": b"\x80\x04}\x8c\x01aPx\ns.",
        "an extension": b"\x80\x04}\x8c\x01a\x82\x01s.",
        "a far memo": b"\x80\x02}r" + record + b".",
        "doubled tuples": bomb + b"K\x01s.",
        "a tuple used twice": b"\x80\x04}K\x00\x85\x94h\x00s.",
        "a class": pickle.dumps({"A": Path("x")}),
        "a set": pickle.dumps({"A", "B"}),
        "a list": pickle.dumps({"A": [1]}),
        "no dictionary": pickle.dumps(3),
        "an empty one": pickle.dumps({}),
        "bytes as value": pickle.dumps({"A": b"x"}),
        "a number as key": pickle.dumps({1: 2}),
        "True as value": pickle.dumps({"A": True}),
        "a long text": pickle.dumps({"A" * 300: 2}),
        "something behind": pickle.dumps({"A": 1}) + b"more",
        "state of a stand-in": b"\x80\x03}X\x01\x00\x00\x00acnumpy\ndtype\nN}X\x04\x00\x00\x00code"
        b"X\x01\x00\x00\x00Os\x86bs.",
        "no pickle": b"<html>log in first</html>",
        "empty": b"",
        "cut": pickle.dumps({"A": np.int16(1), "B": np.int16(2)})[:-5],
    }


@pytest.mark.parametrize("name", hostile())
def test_hostile_and_damaged_pickles_are_refused(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "d.pkl"
    path.write_bytes(hostile()[name])
    with pytest.raises(FileError, match=r"d\.pkl"):
        read_pickled_dictionary(path)
    assert [left.name for left in tmp_path.iterdir()] == ["d.pkl"]


@pytest.mark.parametrize("name", ["os.system", "eval", "nested", "numpy's own load", "dotted name"])
def test_find_class_refuses_on_its_own(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second wall holds without the first."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(pickles, "_look_through", lambda content: None)
    (tmp_path / "d.pkl").write_bytes(hostile()[name])
    with pytest.raises(FileError, match="may run code"):
        read_pickled_dictionary(tmp_path / "d.pkl")
    assert len(list(tmp_path.iterdir())) == 1


def test_size_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = wrote(tmp_path / "d.pkl", {"A": 1, "B": 2})
    with pytest.raises(FileError, match="No such file"):
        read_pickled_dictionary(tmp_path / "other.pkl")
    monkeypatch.setattr(pickles, "MAX_ENTRIES", 1)
    with pytest.raises(FileError, match="2 entries"):
        read_pickled_dictionary(path)
    monkeypatch.setattr(pickles, "MAX_BYTES", 10)
    with pytest.raises(FileError, match="bytes at most"):
        read_pickled_dictionary(path)


def test_a_huge_file_is_not_even_read(tmp_path: Path) -> None:
    with open(tmp_path / "d.pkl", "wb") as handle:
        handle.truncate(40 << 30)  # sparse: it takes no room on disk
    with pytest.raises(FileError, match="42,949,672,960 bytes"):
        read_pickled_dictionary(tmp_path / "d.pkl")


_KNOWN = [opcode.code.encode("latin-1") for opcode in pickletools.opcodes]


@given(st.lists(st.one_of(st.sampled_from(_KNOWN), st.binary(min_size=1, max_size=6)), max_size=30))
def test_any_bytes_are_read_or_refused(tmp_path_factory: pytest.TempPathFactory, parts: list[bytes]) -> None:
    path = tmp_path_factory.getbasetemp() / "any.pkl"
    path.write_bytes(b"\x80\x04}" + b"".join(parts) + b".")
    try:
        found = read_pickled_dictionary(path)
    except FileError:
        return
    assert all(isinstance(key, str) and isinstance(value, int | float | str) for key, value in found.items())
