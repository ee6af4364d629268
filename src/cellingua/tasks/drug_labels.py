"""Which of a user's labels means sensitive, and which resistant."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellingua.core.errors import InputError

SENSITIVE = ("sensitive", "sens", "s", "responder", "1", "true", "yes")
RESISTANT = ("resistant", "res", "r", "non-responder", "0", "false", "no")


def positives(
    labels: Sequence[str], column: str, sensitive: str | None = None, resistant: str | None = None
) -> tuple[NDArray[np.int64], NDArray[np.bool_], dict[str, Any]]:
    """Return the rows of the cells with one of the two labels, whether each is sensitive, and what was taken for what.

    Parameters
    ----------
    labels
        Of each cell; ``""`` where there is none.
    column
        Where they are from, for messages.
    sensitive, resistant
        The label that means each; by default the one that says so, or 1 and 0. With two labels one is enough.

    Raises
    ------
    InputError
        There is no label, one alone, one that was named does not occur, or it isn't clear which means what.
    """
    counts = Counter(label for label in labels if label)
    named = ", ".join(f"{label!r} ({n:,})" for label, n in counts.most_common(6))
    if not counts:
        raise InputError(f"No cell has a label in {column!r}.", "a column with labels", "another column")
    if len(counts) == 1:
        raise InputError(f"All labelled cells of {column!r} have one label: {named}.", "sensitive and resistant cells")
    for given in (sensitive, resistant):
        if given is not None and given not in counts:
            raise InputError(
                f"No cell of {column!r} has the label {given!r}.", "a label that occurs", f"one of: {named}"
            )
    yes = sensitive or _only(counts, SENSITIVE, resistant)
    no = resistant or _only(counts, RESISTANT, yes)
    if len(counts) == 2 and (yes is None) != (no is None):
        other = next(label for label in counts if label not in (yes, no))
        yes, no = yes or other, no or other
    if yes is None or no is None or yes == no:
        raise InputError(
            f"It isn't clear which labels of {column!r} mean sensitive and resistant: {named}.",
            "one label for each",
            "--sensitive LABEL and --resistant LABEL",
        )
    rows = np.flatnonzero([label in (yes, no) for label in labels]).astype(np.int64)
    others = {label: n for label, n in counts.items() if label not in (yes, no)}
    truth = np.array([labels[row] == yes for row in rows.tolist()], dtype=bool)
    return rows, truth, {"means": {"sensitive": yes, "resistant": no}, "others": others}


def _only(counts: Counter[str], words: Sequence[str], taken: str | None) -> str | None:
    """Return the one label that is among some words, in any case, and not taken."""
    fitting = [label for label in counts if label.casefold() in words and label != taken]
    return fitting[0] if len(fitting) == 1 else None
