"""The page on texts shows what the command writes."""

from __future__ import annotations

import ast
import os
import re
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest

from cellingua.cli.main import main
from cellingua.words.describing import TEMPLATES
from cellingua.words.metadata import ASPECTS

PAGE = Path(__file__).resolve().parents[2] / "docs" / "texts.md"


def shown() -> tuple[dict[str, str], dict[str, str]]:
    """Return the metadata that the page shows, and the text of each template."""
    page = PAGE.read_text(encoding="utf-8")
    (metadata,) = re.findall(r"```python\n(\{.*?\})\n```", page, re.DOTALL)
    texts = re.findall(r"`--template (\w+)`.*?```text\n(.*?)\n```", page, re.DOTALL)
    return ast.literal_eval(metadata), {template: " ".join(text.split()) for template, text in texts}


@pytest.mark.parametrize("template", TEMPLATES)
def test_each_template_is_shown_as_it_is_written(template: str, tmp_path: Path) -> None:
    metadata, texts = shown()
    assert set(texts) == set(TEMPLATES)
    obs = pd.DataFrame({name: [value] for name, value in metadata.items()}, index=["cell"])
    adata = anndata.AnnData(np.ones((1, 1), np.float32), obs, pd.DataFrame(index=["A"]))
    adata.write_h5ad(tmp_path / "a.h5ad")
    out = tmp_path / "texts.tsv"
    assert main(["texts", os.fspath(tmp_path / "a.h5ad"), "-o", str(out), "--template", template, "--quiet"]) == 0
    written = out.read_text(encoding="utf-8").splitlines()[1].split("\t")[2]
    assert " ".join(written.split()) == texts[template]


def test_all_aspects_stand_in_the_table_with_their_columns() -> None:
    page = PAGE.read_text(encoding="utf-8")
    rows = re.findall(r"^\| ([a-z ]+) \| `(\w+)`", page, re.MULTILINE)
    assert rows == [(aspect, field) for aspect, field, _ in ASPECTS]
