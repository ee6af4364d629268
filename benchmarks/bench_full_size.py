"""A released checkpoint of LangCell's full size (random weights): converted, and used to name cells of pbmc3k.

Measured in one run, `THREADS` threads:

- ``cellingua convert langcell`` on a folder of the released form and size (172.8 M parameters, ``.bin`` and
  safetensors), without vectors of terms: wall time and peak memory of the process; and, apart, texts a second of the
  text encoder, which says how long the terms take;
- ``cellingua annotate`` with the labels of pbmc3k on some of its cells, report included: wall time and peak memory;
- tokens to embedding, cells a second, in the precision that is chosen by itself and in float32.

The weights are random, so nothing is said of what the answers are worth. Bars: the weights come through unchanged, and
neither process needs more memory than a laptop of 8 GB has to give.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import torch
from safetensors.torch import save_file

from benchmarks.bench_annotate import THREADS, cold
from benchmarks.common import at_least, below, shared_folder, write_result

CELLS, EXACT, TEXTS, SEED = 128, 8, 32, 0
MEMORY = 6.0
PIECES = 30_522
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
CELL_BERT = {"hidden_size": 512, "num_attention_heads": 8, "intermediate_size": 1024, "hidden_act": "relu",
             "vocab_size": 25_427, "max_position_embeddings": 2048, "type_vocab_size": 2,
             "hidden_dropout_prob": 0.02, "attention_probs_dropout_prob": 0.02}  # fmt: skip
TEXT_BERT = {"hidden_size": 768, "num_attention_heads": 12, "intermediate_size": 3072, "hidden_act": "gelu",
             "vocab_size": PIECES + 2, "max_position_embeddings": 512, "encoder_width": 512,
             "hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1}  # fmt: skip
COMMON = {"model_type": "bert", "num_hidden_layers": 12, "layer_norm_eps": 1e-12, "pad_token_id": 0}


def write_checkpoint(folder: Path) -> Any:
    """Write random weights in the released form; return the module that they were taken from."""
    from cellingua.models.convert import their_name
    from cellingua.models.langcell import LangCellConfig, LangCellModule

    torch.manual_seed(SEED)
    module = LangCellModule(LangCellConfig.paper())
    for name, tower, config in (
        ("cell_bert", module.cell_tower, CELL_BERT),
        ("text_bert", module.text_tower, TEXT_BERT),
    ):
        (folder / name).mkdir(parents=True)
        (folder / name / "config.json").write_text(json.dumps(COMMON | config), encoding="utf-8")
        weights = {their_name(key): tensor for key, tensor in tower.state_dict().items()}
        if name == "cell_bert":
            torch.save(weights, folder / name / "pytorch_model.bin")
        else:
            save_file(weights, folder / name / "model.safetensors")
    heads = {
        "cell_proj": module.cell_projection.linear,
        "text_proj": module.text_projection.linear,
        "ctm_head": module.match_head,
    }
    for name, head in heads.items():
        assert head is not None
        torch.save({"weight": head.weight.detach(), "bias": head.bias.detach()}, folder / f"{name}.bin")
    (folder / "text_bert" / "vocab.txt").write_text("\n".join(vocabulary()), encoding="utf-8")
    return module


def vocabulary() -> list[str]:
    """Return a vocabulary of PubMedBERT's length: letters, the commoner half of the ontology's words, and fillers."""
    from cellingua.words.describing import describe_term
    from cellingua.words.ontology import load_ontology

    ontology = load_ontology("CL")
    counts = Counter(word for term in ontology.ids for word in describe_term(term, ontology).split())
    letters = [chr(code) for code in range(33, 127)]
    words = [word for word, _ in counts.most_common(5_000) if word.isalpha()]
    held = dict.fromkeys([*SPECIAL, *letters, *(f"##{letter}" for letter in letters), *words])
    fillers = (f"##{a}{b}{c}" for a in letters for b in letters for c in letters)
    for piece in fillers:
        if len(held) == PIECES:
            break
        held.setdefault(piece)
    return list(held)


def unchanged(module: Any, folder: Path) -> float:
    """Return the share of weights that the converted folder holds bit for bit."""
    from cellingua.models.bundle import TEXT
    from cellingua.models.folder import WEIGHTS
    from cellingua.models.storage import unpack

    held = {**unpack(folder / WEIGHTS), **unpack(folder / TEXT)}
    wanted = {name: tensor for name, tensor in module.state_dict().items() if ".pooler." not in name}
    same = sum(int((held[name] == tensor).sum()) for name, tensor in wanted.items())
    return same / sum(tensor.numel() for tensor in wanted.values())


def some_cells(source: Path, target: Path, number: int) -> list[str]:
    """Write cells of `source`, spread over the file, and return the names of its types."""
    cells = anndata.read_h5ad(source)
    rows = np.linspace(0, cells.n_obs - 1, number).astype(int)
    cells[rows].copy().write_h5ad(target)
    return sorted(set(map(str, cells.obs["cell_type"])))


def speeds(folder: Path, path: Path, labels: list[str]) -> dict[str, Any]:
    """Return cells a second from tokens to embedding, twice over, and texts a second of the text encoder."""
    from cellingua.cells.counts import CountBlocks
    from cellingua.cells.doctor import examine
    from cellingua.cells.reading import open_cells
    from cellingua.models.shelf import load_model
    from cellingua.words.describing import describe_term
    from cellingua.words.ontology import load_ontology

    out: dict[str, Any] = {}
    ids = load_ontology("CL").ids
    texts = [describe_term(ids[row]) for row in np.linspace(0, len(ids) - 1, TEXTS).astype(int)]
    with open_cells(path) as cells:
        block = next(CountBlocks(cells, examine(cells)).blocks(CELLS))
    for precision in ("auto", "float32"):
        start = time.perf_counter()
        model = load_model(folder, precision=precision)
        out[f"load_seconds_{precision}"] = round(time.perf_counter() - start, 2)
        ranked = model.tokenise(block)
        ranked = ranked if precision == "auto" else ranked.take(np.arange(EXACT))
        model.encode_cells(ranked.take(np.arange(2)))
        start = time.perf_counter()
        model.encode_cells(ranked)
        out[f"cells_per_second_{precision}"] = round(len(ranked) / (time.perf_counter() - start), 3)
        if precision == "auto":
            out["tokens_per_cell"] = round(float(np.diff(ranked.indptr).mean()), 1)
            model.encode_texts(texts[:2])
            start = time.perf_counter()
            model.encode_texts(texts)
            out["texts_per_second"] = round(len(texts) / (time.perf_counter() - start), 2)
            out["terms"] = len(ids)
            out["minutes_for_all_terms"] = round(len(ids) / out["texts_per_second"] / 60, 1)
            out["labels"] = len(labels)
    return out


def main() -> int:
    """Measure, and write the result."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--cells", type=int, default=CELLS, help=f"cells that are named (default: {CELLS})")
    arguments = parser.parse_args()
    source = shared_folder() / "data" / "cells" / "evaluation" / "pbmc3k.h5ad"
    torch.set_num_threads(THREADS)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        module = write_checkpoint(folder / "ckpt")
        size = sum(path.stat().st_size for path in (folder / "ckpt").rglob("*") if path.is_file())
        labels = some_cells(source, folder / "cells.h5ad", arguments.cells)
        command = [sys.executable, "-c", "from cellingua.cli.main import main; raise SystemExit(main())"]
        convert = cold([*command, "convert", "langcell", str(folder / "ckpt"), str(folder / "model"),
                        "--terms", "none"], folder / "convert")  # fmt: skip
        share = unchanged(module, folder / "model")
        parameters = sum(weight.numel() for weight in module.parameters())
        del module
        named = [word for label in labels for word in ("--label", label)]
        annotate = cold([*command, "annotate", str(folder / "cells.h5ad"), "--model", str(folder / "model"), *named,
                         "--out-dir", str(folder / "out")], folder / "annotate")  # fmt: skip
        measured = speeds(folder / "model", folder / "cells.h5ad", labels)
    figures = {
        "threads": THREADS,
        "parameters": parameters,
        "checkpoint_gb": round(size / 1e9, 3),
        "cells": arguments.cells,
        **{f"convert_{key}": value for key, value in convert.items()},
        **{f"annotate_{key}": value for key, value in annotate.items()},
        **measured,
    }
    bars = {
        "share of weights that come through unchanged": at_least(share, 1.0),
        "convert: peak memory, GB": below(convert["peak_gb"], MEMORY),
        "annotate: peak memory, GB": below(annotate["peak_gb"], MEMORY),
    }
    return write_result("full-size", figures, bars, seeds={"weights": SEED}, data=[source])


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", str(THREADS))
    raise SystemExit(main())
