"""Responses, splits and predictions in the files of drevalpy, so that others can judge them by its rules.

drevalpy (``pip install drevalpy``, MIT) evaluates predictors of drug response; it is no dependency of ours, and nothing
of it is imported. What is written here it reads as it stands::

    DATA/NAME/NAME.csv                         cell_line_name, pubchem_id, response, tissue: load_dataset(NAME, DATA,
    DATA/NAME/cell_line_names.csv              measure="response", tissue_column="tissue")
    DATA/NAME/drug_names.csv
    RESULTS/RUN/NAME/LCO/splits/               load_splits: cv_split_0_train.csv, ..._validation.csv, ..._test.csv
    RESULTS/RUN/NAME/LCO/MODEL/predictions/predictions_split_0.csv

Responses are ln(IC50 / µM). A split of new lines is its ``LCO``, of new drugs ``LDO``, of new tissues ``LTO`` and of
random pairs ``LPO``; it has none where both are new.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cellingua.core.errors import InputError
from cellingua.core.files import atomic_path, write_text
from cellingua.molecules.response import Responses
from cellingua.molecules.splits import ROLES, PairSplit

LINE, DRUG, VALUE, SAID, TISSUE = "cell_line_name", "pubchem_id", "response", "predictions", "tissue"
MODES = {"random_pairs": "LPO", "unseen_lines": "LCO", "unseen_tissues": "LTO", "unseen_drugs": "LDO"}
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_ROLES = dict(zip(ROLES, ("train", "validation", "test"), strict=True))

Named = Mapping[str, str]


def write_dataset(
    folder: Path, name: str, pairs: Responses, *, tissues: Named | None = None, compounds: Named | None = None
) -> Path:
    """Write pairs as a data set of drevalpy's and return its table.

    Parameters
    ----------
    folder
        Of data sets; ``folder/name`` is made.
    name
        Of the data set: letters, digits, ``_``, ``.`` and ``-``.
    tissues
        Line -> tissue; a line without one is ``unknown``.
    compounds
        Drug -> PubChem identifier; a drug without one keeps its name.

    Raises
    ------
    InputError
        The name can't be that of a folder, or two drugs have one identifier.
    """
    at = folder / _safe(name)
    at.mkdir(parents=True, exist_ok=True)
    drugs = _identifiers(pairs, compounds)
    table = _rows(pairs, np.arange(len(pairs)), tissues, compounds)
    # drevalpy drops rows that equal another in all columns but the name: a second column of names keeps every line.
    lines = pd.DataFrame({LINE: pairs.lines, TISSUE: _tissues(pairs, tissues), "line": pairs.lines})
    _write(lines, at / "cell_line_names.csv")
    _write(pd.DataFrame({DRUG: drugs, "drug_name": pairs.drugs}), at / "drug_names.csv")
    _write(table, at / f"{name}.csv")
    return at / f"{name}.csv"


def write_split(
    results: Path,
    name: str,
    pairs: Responses,
    split: PairSplit,
    *,
    fold: int = 0,
    tissues: Named | None = None,
    compounds: Named | None = None,
) -> Path:
    """Write a split as a fold of drevalpy's and return the folder of its splits.

    Parameters
    ----------
    results
        The folder of one run; ``results/name/MODE/splits`` is made.
    fold
        Number of the fold; several splits of one kind are folds 0, 1, ...

    Raises
    ------
    InputError
        drevalpy has no such split, or it is of other pairs.
    """
    if len(split.role) != len(pairs):
        raise InputError(f"A split of {len(split.role):,} pairs was given {len(pairs):,}.", "the pairs it was made for")
    mode = _mode(split)
    at = results / _safe(name) / mode / "splits"
    at.mkdir(parents=True, exist_ok=True)
    for role, theirs in _ROLES.items():
        _write(_rows(pairs, split.rows(role), tissues, compounds), at / f"cv_split_{fold}_{theirs}.csv")
    manifest = {
        "split_label": mode, "test_mode": mode, "n_cv_splits": fold + 1, "random_state": split.seed,
        "splits": [{"split_index": number} for number in range(fold + 1)],
    }  # fmt: skip
    write_text(at / "split_manifest.json", json.dumps(manifest, indent=2, sort_keys=True) + "\n")
    return at


def write_predictions(
    results: Path,
    name: str,
    model: str,
    pairs: Responses,
    rows: NDArray[np.int64],
    prediction: NDArray[np.float64],
    *,
    mode: str,
    fold: int = 0,
    tissues: Named | None = None,
    compounds: Named | None = None,
) -> Path:
    """Write what a model says of the test pairs of a fold, and return the file.

    Parameters
    ----------
    model
        Its name: letters, digits, ``_``, ``.`` and ``-``.
    rows
        int64 (n,): the pairs.
    prediction
        float64 (n,): ln(IC50 / µM) of each.
    mode
        One of the values of `MODES`.

    Raises
    ------
    InputError
        A prediction is missing or no number, or a name can't be that of a folder.
    """
    if len(rows) != len(prediction) or not np.isfinite(prediction).all():
        raise InputError(f"{len(rows):,} pairs have {int(np.isfinite(prediction).sum()):,} predictions.", "one each")
    if mode not in MODES.values():
        raise InputError(f"drevalpy has no split {mode!r}.", f"one of {', '.join(MODES.values())}")
    at = results / _safe(name) / mode / _safe(model) / "predictions"
    at.mkdir(parents=True, exist_ok=True)
    table = _rows(pairs, rows, tissues, compounds)
    table.insert(3, SAID, prediction)
    _write(table, at / f"predictions_split_{fold}.csv")
    return at / f"predictions_split_{fold}.csv"


def _mode(split: PairSplit) -> str:
    if split.kind not in MODES:
        raise InputError(f"drevalpy has no split of the kind {split.kind}.", f"one of {', '.join(MODES)}")
    return MODES[split.kind]


def _rows(pairs: Responses, rows: NDArray[np.int64], tissues: Named | None, compounds: Named | None) -> pd.DataFrame:
    line, drug = pairs.line[rows], pairs.drug[rows]
    return pd.DataFrame(
        {
            LINE: pairs.lines[line],
            DRUG: _identifiers(pairs, compounds)[drug],
            VALUE: pairs.value[rows],
            TISSUE: _tissues(pairs, tissues)[line],
        }
    )


def _tissues(pairs: Responses, tissues: Named | None) -> NDArray[np.str_]:
    return np.array([(tissues or {}).get(str(line)) or "unknown" for line in pairs.lines], dtype=np.str_)


def _identifiers(pairs: Responses, compounds: Named | None) -> NDArray[np.str_]:
    """Return drevalpy's identifier of each drug; two drugs that share one would become one there."""
    found = np.array([(compounds or {}).get(str(drug)) or str(drug) for drug in pairs.drugs], dtype=np.str_)
    names, counts = np.unique(found, return_counts=True)
    if (counts > 1).any():
        shared = str(names[counts > 1][0])
        both = ", ".join(pairs.drugs[found == shared].tolist())
        raise InputError(f"{both} have one identifier, {shared}.", "one each", "counting one compound once")
    return found


def _safe(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise InputError(f"{name!r} can't be the name of a folder.", "letters, digits, _, . and -")
    return name


def _write(table: pd.DataFrame, path: Path) -> None:
    with atomic_path(path) as aside:
        table.to_csv(aside, index=False, lineterminator="\n")
