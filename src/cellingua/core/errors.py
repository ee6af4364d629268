"""The tree of errors. A message says what was found, what is expected, and what to try.

::

    CellinguaError            exit code 1   something failed while working
    ├── OutputError           exit code 1   the result could not be written (full disk, unwritable folder is 2)
    └── InputError            exit code 2   the input or the call is wrong
        ├── FileError         a file is missing, not what it says it is, or damaged
        ├── CountsError       no usable counts
        ├── GeneError         too few genes are known, or another species
        ├── LabelError        a label, term or tissue does not exist, is empty or repeated
        ├── ConfigError       a configuration key or value is wrong
        ├── ModelError        a model folder is missing, damaged or of another kind
        └── EngineError       a training step would not be exact
"""

from __future__ import annotations


class CellinguaError(Exception):
    """Base of every error that cellingua raises on purpose.

    Parameters
    ----------
    found
        What was found, as one sentence.
    expected
        What is needed instead (may be empty).
    try_
        What the reader can do (may be empty).
    """

    exit_code = 1

    def __init__(self, found: str, expected: str = "", try_: str = "") -> None:
        self.found = found
        self.expected = expected
        self.try_ = try_
        parts = [found]
        if expected:
            parts.append(f"Expected: {expected}")
        if try_:
            parts.append(f"Try: {try_}")
        super().__init__("\n".join(parts))


class OutputError(CellinguaError):
    """The result could not be written, for a reason that lies outside the call (a full disk)."""


class InputError(CellinguaError):
    """The input or the call is wrong."""

    exit_code = 2


class FileError(InputError):
    """A file is missing, damaged, or not of the kind it claims to be."""


class CountsError(InputError):
    """No usable counts were found."""


class GeneError(InputError):
    """Too few genes are known to the model, or they belong to another species."""


class LabelError(InputError):
    """A label, an ontology term or a tissue does not exist, is empty, or is repeated."""


class ConfigError(InputError):
    """A configuration key or value is wrong."""


class ModelError(InputError):
    """A model is missing, damaged, or of another kind."""


class EngineError(InputError):
    """A divide-and-conquer step would not have the gradients of the whole batch."""
