"""The Python that README and the page on texts show runs from top to bottom, as a reader would paste it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import small_world

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("document", ["README.md", "docs/texts.md"])
def test_the_python_of_a_document_runs(document: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = re.findall(
        r"^```python\n(.*?)^```", (ROOT / document).read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    )
    programs = [block for block in blocks if "import cellingua" in block]
    assert programs
    cells = small_world.cells(60)
    cells.obs["cell_type"] = cells.obs.pop("own")
    cells.write_h5ad(tmp_path / "cells.h5ad")
    monkeypatch.chdir(tmp_path)
    for program in programs:
        names: dict = {}
        exec(compile(program, document, "exec"), names)  # noqa: S102 (our own documents)
        assert any(key.startswith(("cellingua", "X_")) for key in names["adata"].uns)
