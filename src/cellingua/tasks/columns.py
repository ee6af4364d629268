"""Columns of ``obs`` as texts."""

from __future__ import annotations

import difflib

import numpy as np
import pandas as pd

from cellingua.core.errors import InputError

MOST_NUMBERS = 100  # different whole numbers that may be cluster numbers; more are measurements


def text_column(obs: pd.DataFrame, key: str) -> np.ndarray:
    """Return column `key` as texts, object (n,), missing values as ``""``; refuse a key that is not there."""
    if key not in obs.columns:
        near = difflib.get_close_matches(key, [str(name) for name in obs.columns], n=3)
        have = ", ".join(near or [str(name) for name in obs.columns][:12]) or "no column at all"
        raise InputError(f"obs has no column {key!r}.", "a column of obs", f"one of: {have}")
    values = obs[key]
    texts = values.astype(object).where(values.notna(), "").map(_text).to_numpy(dtype=object)
    return np.asarray(texts)


def label_column(obs: pd.DataFrame, key: str) -> list[str]:
    """Return the labels of a column, without space around them; ``""`` where a cell has none.

    Raises
    ------
    InputError
        There is no such column, or it holds measurements or names of cells.
    """
    texts = [str(text).strip() for text in text_column(obs, key)]
    labels = ["" if text.casefold() in ("nan", "none", "<na>") else text for text in texts]
    found = {label for label in labels if label}
    values = obs[key]
    if pd.api.types.is_numeric_dtype(values.dtype) and not pd.api.types.is_bool_dtype(values.dtype):
        numbers = values.dropna().to_numpy(np.float64)
        if len(found) > MOST_NUMBERS or bool((numbers != np.round(numbers)).any()):
            raise InputError(
                f"The column {key!r} holds numbers ({len(found):,} different ones).",
                "a label for each cell",
                "another column, or labels made of these numbers",
            )
        return [str(int(float(label))) if label else "" for label in labels]
    if len(found) > MOST_NUMBERS and 2 * len(found) > len(labels):
        raise InputError(
            f"The column {key!r} has {len(found):,} different values for {len(labels):,} cells.",
            "labels that several cells share",
            "another column",
        )
    return labels


def _text(value: object) -> str:
    return value.decode("utf-8", errors="replace") if isinstance(value, bytes) else str(value)
