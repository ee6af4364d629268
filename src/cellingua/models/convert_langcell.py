"""LangCell's released checkpoint -> our module, and a model folder with genes, tokeniser and vectors of terms."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cellingua.core.errors import FileError, GeneError, ModelError
from cellingua.core.progress import Progress, Silent
from cellingua.models.bundle import BundleParts, save_bundle
from cellingua.models.convert import (
    cell_tower_config,
    fill,
    read_bert_folder,
    read_tensors,
    storable,
    text_tower_config,
    their_name,
)
from cellingua.models.gene_dictionaries import CheckpointGenes, genes_from, shipped_genes
from cellingua.models.langcell import LangCellConfig, LangCellModule, count_parameters
from cellingua.models.storage import shapes_only
from cellingua.words.candidates import candidate_terms
from cellingua.words.describing import describe_term
from cellingua.words.ontology import load_ontology
from cellingua.words.wordpiece import FILES, LANGCELL_PIECES, WordPiece, read_wordpiece

CELL, TEXT = "cell_bert", "text_bert"
HEADS = ("cell_proj", "text_proj", "ctm_head")
#: Which terms get a stored vector: all live ones, those that a human cell can be named by, or none.
TERMS = ("all", "human", "none")
GROUP = 32
#: Where a tokeniser is looked for, relative to the checkpoint.
TOKENIZERS = (TEXT, ".", "text_tokenizer", "tokenizer", "..", "../text_tokenizer", "../tokenizer")
PUBMEDBERT = "microsoft/BiomedNLP-BiomedBERT-base-uncased-abstract-fulltext"
#: BERT's own vocabulary has as many pieces as PubMedBERT's, and these unlike it.
BERTS_OWN = "[unused0]"


def checkpoint_folder(folder: Path) -> Path:
    """Return `folder`, or its ``ckpt``, whichever holds ``cell_bert``."""
    folder = Path(folder)
    if not folder.is_dir():
        raise FileError(f"{folder} is not a folder.", f"a folder with {CELL}, {TEXT}, {', '.join(HEADS)}")
    for place in (folder, folder / "ckpt"):
        if (place / CELL).is_dir() or (place / TEXT).is_dir():
            return place
    raise ModelError(
        f"{folder} holds neither {CELL} nor {TEXT}.",
        f"LangCell's checkpoint: {CELL}/, {TEXT}/, {', '.join(f'{name}.bin' for name in HEADS)}",
        "a Geneformer, or cell_bert alone, is converted by: cellingua convert geneformer",
    )


def load_released(folder: Path) -> LangCellModule:
    """Load LangCell's released checkpoint folder.

    Parameters
    ----------
    folder
        Holds ``cell_bert/``, ``text_bert/`` (each ``config.json`` and weights, ``.bin`` or safetensors),
        ``cell_proj.bin``, ``text_proj.bin``, ``ctm_head.bin`` (or the same with ``.safetensors``).

    Returns
    -------
    LangCellModule
        In evaluation mode, float32.

    Raises
    ------
    ModelError
        Something is missing, unknown or of another shape, or the two folders are swapped. A leading ``bert.``, a
        missing or present pooler, ``position_ids`` and a language-modelling head are tolerated.
    """
    folder = Path(folder)
    cell_config, cell_tensors = read_bert_folder(folder / CELL)
    text_config, text_tensors = read_bert_folder(folder / TEXT)
    _check_sides(folder, cell_tensors, text_tensors)
    heads = {name: _head(folder, name) for name in HEADS}
    cell_rows = cell_config.get("vocab_size")
    cls_token = cell_rows - 1 if isinstance(cell_rows, int) else 0  # <cls> is the last row; checked with the others
    cell = cell_tower_config(cell_config, cell_tensors, folder / CELL, cls_token=cls_token)
    text = text_tower_config(text_config, text_tensors, folder / TEXT, encoder_width=cell.width)
    config = LangCellConfig(
        "bert",
        text,
        bert=cell,
        joint_width=len(heads["cell_proj"]["bias"]),
        token_limit=cell.positions - 1,
        text_limit=text.positions,
        match_head=True,
        gene_table="geneformer_v1",
    )
    with shapes_only():
        module = LangCellModule(config)
    fill(module.cell_tower, cell_tensors, folder / CELL, their_name)
    fill(module.text_tower, text_tensors, folder / TEXT, their_name)
    fill(module.cell_projection.linear, heads["cell_proj"], folder / "cell_proj", str)
    fill(module.text_projection.linear, heads["text_proj"], folder / "text_proj", str)
    assert module.match_head is not None  # by the configuration above
    fill(module.match_head, heads["ctm_head"], folder / "ctm_head", str)
    return module.eval()


def _check_sides(folder: Path, cell: dict[str, Tensor], text: dict[str, Tensor]) -> None:
    """Say so where the folders are swapped: shapes alone would name some weight, and not what is wrong."""
    crossing = {side: any(".crossattention." in name for name in held) for side, held in ((CELL, cell), (TEXT, text))}
    expected = f"a cell encoder in {CELL}, and in {TEXT} a text encoder, which has cross-attention"
    if crossing[CELL] and not crossing[TEXT]:
        raise ModelError(f"In {folder}, {CELL} and {TEXT} are swapped.", expected, "exchanging their names")
    if crossing[CELL]:
        raise ModelError(f"{folder / CELL} holds a text encoder.", expected)
    if not crossing[TEXT]:
        raise ModelError(f"{folder / TEXT} holds no cross-attention.", expected, f"LangCell's own {TEXT}")


def _head(folder: Path, name: str) -> dict[str, Tensor]:
    """Read ``name.bin`` or ``name.safetensors``."""
    other = folder / f"{name}.safetensors"
    tensors = read_tensors(other if other.is_file() else folder / f"{name}.bin")
    if tensors.get("bias") is None or tensors["bias"].ndim != 1 or len(tensors["bias"]) == 0:
        raise ModelError(f"{folder / name} lacks the weight 'bias'.", "weight and bias")
    return tensors


def find_tokenizer(folder: Path, given: Path | None = None) -> WordPiece:
    """Return the text tokeniser: from `given` (a folder, or a ``vocab.txt``), or from where it is usually kept.

    Raises
    ------
    FileError
        There is none; which file to get is said.
    ModelError
        It is damaged, or no tokeniser of this kind.
    """
    if given is not None:
        if not given.exists():
            raise FileError(f"{given} does not exist.", f"a folder with {' or '.join(FILES)}, or such a file")
        return read_wordpiece(given)
    for name in TOKENIZERS:
        place = (folder / name).resolve() if name.startswith("..") else folder / name
        if any((place / file).is_file() for file in FILES):
            return read_wordpiece(place)
    raise FileError(
        f"{folder} holds no text tokeniser ({' or '.join(FILES)}).",
        f"PubMedBERT's vocabulary, which LangCell reads texts with: vocab.txt of {PUBMEDBERT} on the Hugging Face hub",
        f"putting it into {TEXT}/, or naming it: --tokenizer vocab.txt",
    )


def fit_tokenizer(pieces: WordPiece, rows: int) -> WordPiece:
    """Add LangCell's two pieces where the text tower has rows for them; refuse another vocabulary.

    Raises
    ------
    ModelError
        The vocabulary has another number of pieces than the tower has rows, with or without the two; or it is
        BERT's own, which is as long as PubMedBERT's.
    """
    size = len(pieces)
    known = [pieces.tokenizer.token_to_id(piece) for piece in LANGCELL_PIECES]
    added = sum(row is not None for row in known)
    if size not in (rows, rows - len(LANGCELL_PIECES)) or (size != rows and added):
        raise ModelError(
            f"The vocabulary of {pieces.source} has {size:,} pieces, and the text encoder {rows:,} rows.",
            f"{rows:,} pieces, or {rows - 2:,} and LangCell's two ({', '.join(LANGCELL_PIECES)})",
            f"the vocab.txt of {PUBMEDBERT}",
        )
    if pieces.tokenizer.token_to_id(BERTS_OWN) is not None and rows > 30_000:
        raise ModelError(
            f"The vocabulary of {pieces.source} is that of the original BERT: it holds {BERTS_OWN}.",
            f"PubMedBERT's vocabulary, of the same length: vocab.txt of {PUBMEDBERT}",
        )
    if size < rows:
        pieces.add_special(LANGCELL_PIECES)
    return pieces


def fit_genes(genes: CheckpointGenes, rows: int, where: Path) -> CheckpointGenes:
    """Return `genes` if the cell encoder has a row for each token and one for ``<cls>``, else refuse."""
    if genes.special != 2 or genes.tokens + 1 != rows:
        hint = "cellingua convert geneformer, if this is a Geneformer's encoder" if genes.tokens == rows else ""
        raise GeneError(
            f"The gene dictionary ({genes.source}) has {genes.tokens:,} tokens, and {where} {rows:,} rows.",
            f"{rows - 1:,} tokens (<pad>, <mask> and {rows - 3:,} genes); the last row is <cls>",
            hint or "the dictionaries that the checkpoint was trained with: --dictionaries DIR",
        )
    return genes


def chosen_terms(which: str) -> list[str]:
    """Return the ids of the Cell Ontology's terms that get a stored vector."""
    if which not in TERMS:
        raise ModelError(f"There is no choice of terms {which!r}.", " or ".join(TERMS))
    if which == "none":
        return []
    return list(load_ontology("CL").ids) if which == "all" else candidate_terms()


@torch.inference_mode()
def term_vectors(
    module: LangCellModule, pieces: WordPiece, term_ids: Sequence[str], progress: Progress
) -> NDArray[np.float32]:
    """Return the vector of each term's text as LangCell writes it, float32 (terms, joint), unit length.

    In float32, whatever the model answers in later; texts of like length are read together.
    """
    texts = [describe_term(term) for term in term_ids]
    out = np.empty((len(texts), module.config.joint_width), dtype=np.float32)
    if texts:
        progress.step("Reading the terms of the ontology", len(texts))
    order = sorted(range(len(texts)), key=lambda row: len(texts[row]))
    for start in range(0, len(order), GROUP):
        rows = order[start : start + GROUP]
        ids, mask = pieces.encode([texts[row] for row in rows], max_length=module.config.text_limit)
        out[rows] = module.texts(torch.from_numpy(ids), torch.from_numpy(mask)).numpy()
        progress.advance(len(rows))
    return out


@dataclass(frozen=True)
class LangCellConversion:
    """What `convert_langcell` made: the folder, its parameters, its genes, and how many terms have a vector."""

    folder: Path
    parameters: int
    genes: CheckpointGenes
    terms: int

    def to_text(self) -> str:
        """Return it in a few lines."""
        table = self.genes.table
        lines = [
            f"{self.folder}: {self.parameters:,} parameters; {len(table):,} genes ({self.genes.source}), "
            f"{self.genes.known:,} of them under a current Ensembl id."
        ]
        if self.terms:
            lines.append(f"{self.terms:,} terms of the Cell Ontology have a stored vector.")
        else:
            lines.append("No term has a stored vector: the text encoder reads candidates each time they are asked for.")
        return "\n".join(lines)


CARD = """# {name}: LangCell, converted

Made by `cellingua convert langcell` from a released checkpoint (Zhao et al., ICML 2024). The weights are their authors'
and not cellingua's; the terms of their use are not stated where they are distributed.

- Genes: {source}; {genes:,}, of which {known:,} have a current Ensembl id. The others are never seen in a cell.
- Text: {pieces:,} word pieces.
- Terms of the Cell Ontology with a stored vector: {terms:,}, of the text that LangCell writes for each
  ("cell type: b cell. a lymphocyte of ...; ").
- Not calibrated: probabilities are the softmax of similarity over {temperature}, as in the released code; how often
  they are right has not been measured for this folder.
"""


def convert_langcell(
    folder: Path,
    out: Path,
    *,
    dictionaries: Path | None = None,
    tokenizer: Path | None = None,
    terms: str = "all",
    storage: str = "float32",
    progress: Progress | None = None,
) -> LangCellConversion:
    """Turn LangCell's released checkpoint into a model folder.

    Parameters
    ----------
    folder
        The checkpoint (see `load_released`), or the folder that its ``ckpt`` lies in.
    out
        The folder, made or replaced.
    dictionaries
        A folder of pickled dictionaries or a table of genes (see `genes_from`); by default Geneformer V1's genes.
    tokenizer
        PubMedBERT's ``vocab.txt`` or a folder with it; by default it is looked for beside the weights.
    terms
        ``all``, ``human`` or ``none``: which terms of the Cell Ontology get a stored vector. Others are read when
        they are candidates.
    storage
        ``float32`` (exact), ``float16`` or ``int8``.
    progress
        Where to report.

    Raises
    ------
    InputError
        The checkpoint, the genes or the tokeniser can't be used, or they do not fit each other. Nothing is written.
    """
    place = checkpoint_folder(folder)
    term_ids = chosen_terms(terms)
    genes = genes_from(dictionaries) if dictionaries is not None else shipped_genes()
    module = load_released(place).requires_grad_(False)
    pieces = find_tokenizer(place, tokenizer)
    config = module.config
    assert config.bert is not None  # by load_released
    fit_genes(genes, config.bert.vocabulary, place / CELL)
    fit_tokenizer(pieces, config.text.vocabulary)
    vectors = term_vectors(module, pieces, term_ids, progress or Silent())
    name = Path(out).name
    card = CARD.format(
        name=name, source=genes.source, genes=len(genes.table), known=genes.known, pieces=len(pieces),
        terms=len(term_ids), temperature=config.temperature,
    )  # fmt: skip
    description = f"LangCell, converted; {count_parameters(module) / 1e6:.1f} M parameters"
    parts = BundleParts(name, description, module, genes.table, pieces, term_ids, vectors, card=card)
    with storable(place):
        save_bundle(out, parts, storage=storage)
    return LangCellConversion(Path(out), count_parameters(module), genes, len(term_ids))
