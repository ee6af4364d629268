"""A released Geneformer of either version -> a model folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cellingua.core.errors import FileError, GeneError, ModelError
from cellingua.models.convert import IGNORED, cell_tower_config, fill, read_bert_folder, storable, their_name
from cellingua.models.gene_dictionaries import CheckpointGenes, genes_from, shipped_genes
from cellingua.models.geneformer import CLS, GeneformerConfig, GeneformerParts, save_geneformer
from cellingua.models.storage import shapes_only
from cellingua.nn.transformer import CellTower

#: Rows of the token table: what V1 has with the shipped genes, what V2 has, and what LangCell's cell encoder has.
V1_ROWS, V2_ROWS, LANGCELL_ROWS = 25_426, 20_275, 25_427
#: Heads that a file may hold beside the encoder; an embedding needs none.
LEFT_OUT = (*IGNORED, "classifier.")


@dataclass(frozen=True)
class GeneformerConversion:
    """What `convert_geneformer` made."""

    folder: Path
    parameters: int
    genes: CheckpointGenes
    config: GeneformerConfig
    classifier: bool

    def to_text(self) -> str:
        """Return it in a few lines."""
        layer = "last" if self.config.last_layer else "second-last"
        lines = [
            f"{self.folder}: {self.parameters:,} parameters; {len(self.genes.table):,} genes ({self.genes.source}), "
            f"{self.genes.known:,} of them under a current Ensembl id; at most {self.config.token_limit:,} a cell.",
            f"A cell's embedding: {_POOLED[self.config.pooling]} in the {layer} layer.",
            "It knows no words: it embeds cells (cellingua embed), and names none.",
        ]
        if self.classifier:
            lines.append("The classifier in the checkpoint was left out: the folder holds the encoder.")
        return "\n".join(lines)


_POOLED = {"mean": "the mean over its genes", "cls": "the state of <cls>"}
CARD = """# {name}: Geneformer, converted

Made by `cellingua convert geneformer` from a released checkpoint (Theodoris et al., Nature 2023). The weights are their
authors'.

- Genes: {source}; {genes:,}, of which {known:,} have a current Ensembl id. The others are never seen in a cell.
- A cell: {frame}, {limit:,} genes at most.
- Its embedding: {pooled} in the {layer} layer.
"""


def convert_geneformer(
    folder: Path,
    out: Path,
    *,
    dictionaries: Path | None = None,
    pooling: str | None = None,
    last_layer: bool = False,
    storage: str = "float32",
) -> GeneformerConversion:
    """Turn a released Geneformer into a model folder.

    Parameters
    ----------
    folder
        Holds ``config.json`` and ``model.safetensors`` or ``pytorch_model.bin``; names with or without ``bert.``, with
        or without a masked head or a classifier, which are left out.
    out
        The folder, made or replaced.
    dictionaries
        Its genes (see `cellingua.models.gene_dictionaries.genes_from`). By default those of V1; V2 needs its own. A
        dictionary with ``<cls>`` and ``<eos>`` makes it a V2.
    pooling
        ``mean`` or ``cls``; by default what its authors use: ``mean`` in V1, ``cls`` in V2.
    last_layer
        Pool the last layer instead of the second-last, which its authors pool.
    storage
        ``float32`` (exact), ``float16`` or ``int8``.

    Raises
    ------
    InputError
        The checkpoint or the genes can't be used, or they do not fit each other. Nothing is written then.
    """
    folder, out = Path(folder), Path(out)
    if not folder.is_dir():
        raise FileError(f"{folder} is not a folder.", "a folder with config.json and weights")
    held, tensors = read_bert_folder(folder)
    _check_kind(folder, tensors)
    genes = _genes(held.get("vocab_size"), dictionaries, folder)
    framed = genes.special == 4
    bert = cell_tower_config(held, tensors, folder, cls_token=CLS if framed else 0)
    if genes.tokens != bert.vocabulary:
        raise GeneError(
            f"The gene dictionary ({genes.source}) has {genes.tokens:,} tokens, and {folder} {bert.vocabulary:,} rows.",
            "a row for each token",
            "the dictionaries that the checkpoint was trained with: --dictionaries",
        )
    pooling = pooling or ("cls" if framed else "mean")
    config = GeneformerConfig(bert, framed, pooling, last_layer, genes.source)
    with shapes_only():
        tower = CellTower(bert)
    fill(tower, tensors, folder, their_name, ignored=LEFT_OUT)
    parameters = sum(weight.numel() for weight in tower.parameters())
    name = f"Geneformer {'V2' if framed else 'V1'}"
    description = f"{name}, converted; {parameters / 1e6:.1f} M parameters; embeds cells"
    card = CARD.format(
        name=out.name, source=genes.source, genes=len(genes.table), known=genes.known, limit=config.token_limit,
        frame="between <cls> and <eos>" if framed else "its genes alone", pooled=_POOLED[pooling],
        layer="last" if last_layer else "second-last",
    )  # fmt: skip
    parts = GeneformerParts(out.name, description, config, tower.requires_grad_(False).eval(), genes.table, card)
    with storable(folder):
        save_geneformer(out, parts, storage=storage)
    classifier = any(name.startswith("classifier.") for name in tensors)
    return GeneformerConversion(out, parameters, genes, config, classifier)


def _check_kind(folder: Path, tensors: dict[str, Any]) -> None:
    """Refuse what is no cell encoder."""
    if any(".crossattention." in name for name in tensors):
        raise ModelError(
            f"{folder} holds cross-attention: it is LangCell's text encoder.",
            "a Geneformer",
            "cellingua convert langcell, on the folder that it lies in",
        )


def _genes(rows: Any, dictionaries: Path | None, folder: Path) -> CheckpointGenes:
    """Return the genes: the given ones, or V1's where the encoder has their number of rows."""
    if dictionaries is not None:
        return genes_from(dictionaries)
    if rows == V1_ROWS:
        return shipped_genes()
    told = f"{folder} has {rows:,} tokens" if isinstance(rows, int) else f"{folder} has {rows!r} tokens"
    if rows == LANGCELL_ROWS:
        raise GeneError(f"{told}, as LangCell's cell encoder has.", f"{V1_ROWS:,}", "cellingua convert langcell")
    own = "its gene dictionaries, which are not shipped with cellingua"
    which = "Geneformer V2's number, and" if rows == V2_ROWS else "not Geneformer V1's number, and"
    raise GeneError(
        f"{told}, {which} no dictionaries were given.",
        own,
        "--dictionaries DIR with token_dictionary*.pkl and gene_median_dictionary*.pkl of the same version",
    )
