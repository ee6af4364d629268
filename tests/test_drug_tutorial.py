"""The tutorial for the pharmacologist runs from its first cell to its last, on small data."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

import drug_world
import matplotlib
import pytest

pytest.importorskip("captum")
pytest.importorskip("rdkit")

from cellingua.models.drug_bundle import save_drug_model

NOTEBOOK = Path(__file__).resolve().parents[1] / "examples" / "drug_tutorial.ipynb"


def cells() -> list[dict[str, Any]]:
    held: dict[str, Any] = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    assert held["nbformat"] == 4
    found: list[dict[str, Any]] = held["cells"]
    return found


def run(source: str, names: dict[str, Any]) -> Any:
    """Run a cell as a notebook does, and return what its last line would show."""
    body = ast.parse(source)
    last = body.body.pop() if body.body and isinstance(body.body[-1], ast.Expr) else None
    exec(compile(body, "cell", "exec"), names)  # noqa: S102
    if last is None:
        return None
    return eval(compile(ast.Expression(last.value), "cell", "eval"), names)  # noqa: S307


def small(folder: Path) -> dict[str, Any]:
    """Return what stands for the cell that a reader edits."""
    save_drug_model(folder / "model", drug_world.model_with_molecules())
    drug_world.cells().write_h5ad(folder / "cells.h5ad")
    return {
        "MODEL": str(folder / "model"),
        "CELLS": folder / "cells.h5ad",
        "CLUSTER_KEY": "cluster",
        "DRUGS": ["Trametinib", "Cisplatin"],
        "NEW_DRUGS": {"new one": "COCCOc1cc2ncnc(Nc3cccc(Cl)c3)c2cc1OC"},
    }


def test_every_cell_runs(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    matplotlib.use("Agg")
    names: dict[str, Any] = {"__name__": "__main__"}
    shown = []
    for cell in cells():
        if cell["cell_type"] != "code":
            continue
        source = "".join(cell["source"])
        if "parameters" in cell["metadata"].get("tags", ()):
            # What the shipped files would be is run, too; what a reader edits is what the small data replace.
            run(source, dict(names))
            replaced = small(tmp_path)
            told = {node.targets[0].id for node in ast.parse(source).body if isinstance(node, ast.Assign)}  # type: ignore[attr-defined]
            assert told == set(replaced)
            names |= replaced
        else:
            shown.append(run(source, names))
    tables = [table for table in shown if hasattr(table, "columns")]
    assert len(tables) >= 6
    assert all(len(table) and table._repr_html_() for table in tables)
    assert "IC50" in capsys.readouterr().out
    names["plt"].close("all")


def test_nothing_was_left_in_it() -> None:
    kinds = [cell["cell_type"] for cell in cells()]
    assert kinds.count("markdown") >= 8
    for cell in cells():
        assert cell.get("outputs", []) == []
        assert cell.get("execution_count") is None
    text = NOTEBOOK.read_text(encoding="utf-8")
    assert "not for clinical use" in text
    assert "/home/" not in text
    assert "/tmp/" not in text
