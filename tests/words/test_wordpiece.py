"""The tokeniser: ids from the vocabulary, cuts, padding, damaged files; and a pruned vocabulary."""

from __future__ import annotations

import importlib.util
import json
import string
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from tokenizers import BertWordPieceTokenizer

from cellingua.core.errors import ModelError
from cellingua.words.wordpiece import WordPiece, from_json, read_wordpiece

WORDS = ["[MASK]", "[SEP]", "x", "[PAD]", "cell", "cells", "##s", "[UNK]", "naive", "[CLS]", "##phage", "macro"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "vocab.txt").write_text("\n".join(WORDS) + "\n", encoding="utf-8")
    return tmp_path


def test_special_ids_come_from_the_vocabulary(folder: Path) -> None:
    pieces = read_wordpiece(folder)
    assert (pieces.pad, pieces.unknown, pieces.cls, pieces.sep) == (3, 7, 9, 1)
    ids, mask = pieces.encode(["Naïve CELLS", "macrophages"])
    assert ids.dtype == np.int64
    np.testing.assert_array_equal(ids, [[9, 8, 5, 1, 3], [9, 11, 10, 6, 1]])
    np.testing.assert_array_equal(mask, ids != 3)


def test_cut_keeps_the_end_mark(folder: Path) -> None:
    pieces = read_wordpiece(folder)
    ids, mask = pieces.encode(["cell cell cell cell"], max_length=4)
    assert ids.tolist() == [[9, 4, 4, 1]]
    assert mask.all()
    assert pieces.encode([""], max_length=2)[0].tolist() == [[9, 1]]
    assert pieces.encode([])[0].shape == (0, 0)
    with pytest.raises(ValueError, match="room"):
        pieces.encode(["cell"], max_length=1)


def test_a_text_is_encoded_alike_in_any_company(folder: Path) -> None:
    pieces = read_wordpiece(folder)
    texts = ["cell", "naive cells macrophage", "", "cells cell"]
    ids, mask = pieces.encode(texts)
    for row, seen, text in zip(ids, mask, texts, strict=True):
        assert row[seen].tolist() == pieces.encode([text])[0][0].tolist()


def test_json_round_trip_and_no_hidden_padding(folder: Path) -> None:
    made = BertWordPieceTokenizer(vocab={word: row for row, word in enumerate(WORDS)})
    made.enable_padding(length=64)
    made.enable_truncation(3)
    (folder / "tokenizer.json").write_text(made.to_str(), encoding="utf-8")
    pieces = read_wordpiece(folder)
    assert pieces.encode(["cell cell cell"])[0].tolist() == [[9, 4, 4, 4, 1]]
    again = from_json(pieces.to_json(), "again")
    assert again.pieces("naive cells") == ["[CLS]", "naive", "cells", "[SEP]"]


def test_case_is_kept_where_the_config_says_so(folder: Path) -> None:
    (folder / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": False}), encoding="utf-8")
    assert read_wordpiece(folder).encode(["CELL cell"])[0].tolist() == [[9, 7, 4, 1]]


@pytest.mark.parametrize("missing", ["[PAD]", "[UNK]", "[CLS]", "[SEP]"])
def test_special_pieces_are_needed(tmp_path: Path, missing: str) -> None:
    (tmp_path / "vocab.txt").write_text("\n".join(w for w in WORDS if w != missing), encoding="utf-8")
    with pytest.raises(ModelError, match=rf"lacks \{missing}"):
        read_wordpiece(tmp_path)


@pytest.mark.parametrize("content", ["", "{}", "not json", '{"model": 3}'])
def test_damaged_files(tmp_path: Path, content: str) -> None:
    with pytest.raises(ModelError, match="holds no tokeniser"):
        read_wordpiece(tmp_path)
    (tmp_path / "tokenizer.json").write_text(content, encoding="utf-8")
    with pytest.raises(ModelError, match="can't be read"):
        read_wordpiece(tmp_path)


def script() -> ModuleType:
    path = Path(__file__).resolve().parents[2] / "scripts" / "make_text_tower.py"
    spec = importlib.util.spec_from_file_location("make_text_tower", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_pruned_vocabulary_splits_kept_texts_alike() -> None:
    characters = string.ascii_lowercase + string.digits + string.punctuation
    words = ["[PAD]", "[unused0]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *characters]
    words += ["##" + c for c in string.ascii_lowercase + string.digits]
    words += ["lympho", "##cyte", "lymphocyte", "mono", "table", "##les", "##lymph", "pre", "##cy", "##te"]
    made = BertWordPieceTokenizer(vocab={word: row for row, word in enumerate(words)})
    whole = json.loads(made.to_str())
    whole["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [
            {"SpecialToken": {"id": p, "type_id": 0}} if p else {"Sequence": {"id": "A", "type_id": 0}}
            for p in ("[CLS]", "", "[SEP]")
        ],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {p: {"id": p, "ids": [words.index(p)], "tokens": [p]} for p in ("[CLS]", "[SEP]")},
    }
    text = json.dumps(whole)
    pieces = from_json(text, "whole")
    kept_texts = ["Lymphocyte, monocyte", "prelymphocytes", "CD8+ a/b"]
    used = {row for t in kept_texts for row in pieces.tokenizer.encode(t).ids}
    rows = sorted(used | {row for row, word in enumerate(words) if len(word.removeprefix("##")) == 1} | {0, 2, 3, 4, 5})
    small = from_json(script().prune_tokenizer(text, rows), "pruned")
    assert len(small) == len(rows) < len(words)
    for t in kept_texts:
        assert small.pieces(t) == pieces.pieces(t)
    assert "table" in pieces.pieces("a table")
    everything = small.pieces("a table " + "".join(chr(code) for code in range(32, 127)))
    assert everything[0] == "[CLS]"
    assert "table" not in everything
    assert "[UNK]" not in everything
    assert isinstance(small, WordPiece)
