"""WordPiece tokenisers of the BERT family, read from a local folder or fetched by their hub name."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tokenizers import BertWordPieceTokenizer, Tokenizer

from cellingua.core.errors import ModelError

NEEDED = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
#: Appended by LangCell to PubMedBERT's vocabulary. Nothing uses them, but a text may contain them.
LANGCELL_PIECES = ("[DEC]", "[ENC]")
FILES = ("tokenizer.json", "vocab.txt")


class WordPiece:
    """Text to padded ids: ``[CLS] pieces [SEP]``. The ids of the special pieces are those of the vocabulary.

    Parameters
    ----------
    tokenizer
        A `tokenizers.Tokenizer` that adds ``[CLS]`` and ``[SEP]`` itself.
    source
        What it was read from, for messages.
    """

    def __init__(self, tokenizer: Tokenizer, source: str) -> None:
        missing = [piece for piece in NEEDED if tokenizer.token_to_id(piece) is None]
        if missing:
            raise ModelError(
                f"The vocabulary of {source} lacks {', '.join(missing)}.",
                "a BERT-type WordPiece vocabulary with [PAD], [UNK], [CLS] and [SEP]",
            )
        tokenizer.no_padding()
        tokenizer.no_truncation()
        self.tokenizer, self.source = tokenizer, source
        ids = tokenizer.get_vocab(with_added_tokens=True)
        self.pad, self.unknown, self.cls, self.sep = (ids[piece] for piece in NEEDED)
        probe = tokenizer.encode("cell").ids
        if probe[0] != self.cls or probe[-1] != self.sep:
            raise ModelError(
                f"The tokeniser of {source} doesn't put [CLS] and [SEP] around a text.", "a BERT-type tokeniser"
            )

    def __len__(self) -> int:
        """Entries of the vocabulary."""
        return self.tokenizer.get_vocab_size(with_added_tokens=True)

    def encode(self, texts: Sequence[str], max_length: int = 512) -> tuple[np.ndarray, np.ndarray]:
        """Return the ids of texts, each cut to `max_length` pieces (``[SEP]`` stays last).

        Returns
        -------
        ids
            int64 (B, L), right-padded with the id of ``[PAD]``; L is the longest of these texts.
        mask
            bool (B, L), True for a real piece.
        """
        if max_length < 2:
            raise ValueError("max_length must leave room for [CLS] and [SEP]")
        rows = [encoding.ids for encoding in self.tokenizer.encode_batch(list(texts))]
        rows = [row if len(row) <= max_length else [*row[: max_length - 1], self.sep] for row in rows]
        longest = max((len(row) for row in rows), default=0)
        ids = np.full((len(rows), longest), self.pad, dtype=np.int64)
        mask = np.zeros((len(rows), longest), dtype=bool)
        for place, row in enumerate(rows):
            ids[place, : len(row)] = row
            mask[place, : len(row)] = True
        return ids, mask

    def pieces(self, text: str) -> list[str]:
        """Return the pieces of one text, ``[CLS]`` and ``[SEP]`` included."""
        return self.tokenizer.encode(text).tokens

    def add_special(self, pieces: Sequence[str]) -> None:
        """Append special pieces, numbered from the end of the vocabulary (see `LANGCELL_PIECES`)."""
        self.tokenizer.add_special_tokens(list(pieces))

    def to_json(self) -> str:
        """Return the whole tokeniser as one JSON text, which `read_wordpiece` reads back."""
        return self.tokenizer.to_str(pretty=False)


def read_wordpiece(folder: Path) -> WordPiece:
    """Read a tokeniser from a folder that holds ``tokenizer.json`` or ``vocab.txt`` (the former is preferred).

    `folder` may also be such a file, whatever its name: what ends in ``.json`` is a ``tokenizer.json``.

    A ``vocab.txt`` alone is read as PubMedBERT's and BERT's uncased one: lower case, accents stripped, unless a
    ``tokenizer_config.json`` beside it says ``do_lower_case: false``.

    Raises
    ------
    ModelError
        Neither file is there, one is damaged, or a special piece is missing.
    """
    whole, vocabulary = (folder / name for name in FILES)
    if folder.is_file():
        whole = vocabulary = folder
        folder = folder.parent
    try:
        if whole.is_file() and whole.suffix == ".json":
            return WordPiece(Tokenizer.from_file(str(whole)), str(whole))
        if vocabulary.is_file():
            lower = _lower_case(folder / "tokenizer_config.json")
            pieces = vocabulary.read_text(encoding="utf-8").splitlines()
            table = {piece: row for row, piece in enumerate(pieces) if piece}
            missing = [piece for piece in NEEDED if piece not in table]
            if missing:
                raise ModelError(f"{vocabulary} lacks {', '.join(missing)}.", "a BERT-type vocabulary")
            built = BertWordPieceTokenizer(vocab=table, lowercase=lower, strip_accents=lower or None)
            return WordPiece(built._tokenizer, str(vocabulary))
    except ModelError:
        raise
    except Exception as error:  # the tokenizers package raises bare Exception for a file that it can't parse
        raise ModelError(f"The tokeniser in {folder} can't be read: {error}.", "a file as saved") from error
    raise ModelError(f"{folder} holds no tokeniser.", f"{' or '.join(FILES)} in that folder")


def _lower_case(path: Path) -> bool:
    """Return what ``tokenizer_config.json`` says about lower case; True where it's silent."""
    if not path.is_file():
        return True
    return bool(json.loads(path.read_text(encoding="utf-8")).get("do_lower_case", True))


def from_json(text: str, source: str) -> WordPiece:
    """Build a tokeniser from the text of a ``tokenizer.json``."""
    try:
        return WordPiece(Tokenizer.from_str(text), source)
    except ModelError:
        raise
    except Exception as error:  # see read_wordpiece
        raise ModelError(f"The tokeniser of {source} can't be read: {error}.", "a tokenizer.json") from error
