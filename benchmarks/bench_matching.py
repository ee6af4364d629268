"""The match classifier at LangCell's size: many texts beside a cell at once, against one pair at a time.

The matching stage alone: token states of cells are given, weights are random, the lengths are real (genes of pbmc3k's
cells under LangCell's gene table where that is at hand; texts of Cell Ontology types). Beside ours, in one run and
interleaved, the text tower's own forward pass over every pair: one text after the other with all cells, padded to the
longest text and the longest cell, masked, in float32.

Then what pruning changes: the answers with a model's match head for all candidates against those for the top 8 alone,
on cells that were not trained on. It names the model: the bundled one where it has a match head, else tiny random
weights, which show that it runs and nothing more.

Bars: equal scores to 1e-4, at least 4 times the pairs a second; with 161 candidates and the top 8 of each cell, at
least 60 times the cells a second; at least 99.5 % equal answers with and without pruning.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import at_least, below, shared_folder, usable_cores, write_result

SEED = 0
REPEATS = 3
THREADS = 1
CELLS = 8
SHORTEST, LONGEST = 800, 2000  # tokens of the cells that are drawn
#: The eight types of the released code's own example on blood.
LABELS = (
    "CL:0000236", "CL:0000625", "CL:0001054", "CL:0000451", "CL:0000623", "CL:0000556", "CL:0002396", "CL:0000624",
)  # fmt: skip
MANY = 161  # the largest set of types that the released code speaks of
TOP = 8
#: Candidates of the cells on which pruning is judged: pbmc3k's own types, and what else is in blood.
BLOOD = (
    "CL:0000895", "CL:0000897", "CL:0001054", "CL:0000236", "CL:0000625", "CL:0002396", "CL:0000623", "CL:0000451",
    "CL:0000233", "CL:0000786", "CL:0000784", "CL:0000775", "CL:0000771", "CL:0000767", "CL:0000232", "CL:0000798",
    "CL:0000815", "CL:0000940", "CL:0000900", "CL:0000787", "CL:0000788", "CL:0000235", "CL:0000097", "CL:0008001",
)  # fmt: skip
JUDGED = 1000  # cells


def token_lengths(path: Path, genes: Path) -> np.ndarray:
    """Return the tokens of pbmc3k's cells with LangCell's genes, int64 (cells,)."""
    import anndata

    from cellingua.models.gene_table import read_gene_table

    cells = anndata.read_h5ad(path)
    known = np.isin(cells.var["ensembl_id"].astype(str), read_gene_table(genes).ensembl_ids)
    return np.diff(cells.X.tocsr()[:, known].indptr).astype(np.int64)


def states_of(lengths: np.ndarray, width: int) -> Any:
    """Return token states of cells of these lengths, padded to the longest: LayerNormed noise, as a tower's output."""
    import torch

    from cellingua.nn.batch import CellStates

    made = torch.Generator().manual_seed(SEED)
    sizes = torch.from_numpy(lengths)
    mask = torch.arange(int(sizes.max())) < sizes[:, None]
    hidden = torch.randn(*mask.shape, width, generator=made) * mask[:, :, None]
    return CellStates(hidden[:, 0], hidden, mask)


def encoded(terms: list[str]) -> tuple[Any, Any]:
    """Return ids and mask of the texts of terms, in the pieces of the bundled tokeniser (uncased WordPiece)."""
    import torch

    from cellingua.models.shelf import load_model
    from cellingua.words.describing import describe_term

    texts = [describe_term(term) for term in terms]
    ids, mask = load_model().pieces(texts)
    return torch.as_tensor(ids), torch.as_tensor(mask)


def interleaved(jobs: dict[str, Callable[[], Any]], repeats: int) -> dict[str, list[float]]:
    """Return the seconds of each job, run in turns."""
    seconds: dict[str, list[float]] = {name: [] for name in jobs}
    for _ in range(repeats):
        for name, job in jobs.items():
            start = time.perf_counter()
            job()
            seconds[name].append(time.perf_counter() - start)
    return seconds


def speeds(lengths: np.ndarray, repeats: int, layers: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Measure the matching stage; return figures and bars."""
    from dataclasses import replace

    import torch

    from cellingua.models.langcell import LangCellConfig
    from cellingua.nn.heads import MatchHead
    from cellingua.nn.language import TextTower
    from cellingua.nn.matching import Matcher, match_plain
    from cellingua.nn.precision import choose
    from cellingua.words.candidates import candidate_terms

    torch.manual_seed(SEED)
    config = replace(LangCellConfig.paper().text, layers=layers)
    tower, head = TextTower(config).eval(), MatchHead(config.width).eval()
    rng = np.random.default_rng(SEED)
    sizes = rng.permutation(lengths[(lengths >= SHORTEST) & (lengths <= LONGEST)])[:CELLS]
    states = states_of(sizes, int(config.encoder_width or 0))
    few, many = encoded(list(LABELS)), encoded(sorted(rng.permutation(candidate_terms())[:MANY].tolist()))
    fast = choose("auto")
    exact, wide = Matcher(tower, head, *few), Matcher(tower, head, *many, fast.name)
    # Which candidates a cell's similarity ranks first is no matter of speed, but their lengths are: drawn at random.
    chosen = torch.from_numpy(np.stack([rng.permutation(MANY)[:TOP] for _ in sizes]))
    with torch.inference_mode():
        ours, plain = exact.logits(states), match_plain(tower, head, states, *few)
        apart = float((ours - plain).abs().max())
        reference = Matcher(tower, head, *many).pairs(states, chosen)
        pairs_apart = float((wide.pairs(states, chosen) - reference).abs().max())
        jobs = {
            # Prepared anew each time, so that the texts' own part is counted.
            "ours": lambda: Matcher(tower, head, *few).logits(states),
            "plain": lambda: match_plain(tower, head, states, *few),
            "top": lambda: wide.pairs(states, chosen),
        }
        seconds = interleaved(jobs, repeats)
    n = len(sizes)
    ratios = [p / o for p, o in zip(seconds["plain"], seconds["ours"], strict=True)]
    # Plain with 161 labels: its pairs a second over 161 pairs a cell.
    wide_ratios = [
        (n / t) / (n * len(LABELS) / p / MANY) for p, t in zip(seconds["plain"], seconds["top"], strict=True)
    ]
    figures: dict[str, Any] = {
        "text_tower": f"{layers} layers of {config.width}, random weights",
        "threads": THREADS,
        "cells": n,
        "tokens_a_cell": ", ".join(map(str, sizes.tolist())),
        "pieces_a_text": ", ".join(map(str, few[1].sum(dim=1).tolist())),
        "pieces_a_text_of_161_median": float(many[1].sum(dim=1).float().median()),
        "largest_difference_of_logits": apart,
        "ours_pairs_per_second": round(n * len(LABELS) / statistics.median(seconds["ours"]), 2),
        "plain_pairs_per_second": round(n * len(LABELS) / statistics.median(seconds["plain"]), 2),
        "pairs_ratio_median": round(statistics.median(ratios), 2),
        "pairs_ratio_min": round(min(ratios), 2),
        "pairs_ratio_max": round(max(ratios), 2),
        "top_precision": fast.name,
        "top_precision_because": fast.reason,
        "top_largest_difference_from_float32": pairs_apart,
        "top_cells_per_second": round(n / statistics.median(seconds["top"]), 3),
        "plain_cells_per_second_161": round(n * len(LABELS) / statistics.median(seconds["plain"]) / MANY, 4),
        "top_ratio_median": round(statistics.median(wide_ratios), 1),
        "top_ratio_min": round(min(wide_ratios), 1),
        "top_ratio_max": round(max(wide_ratios), 1),
    }
    bars = {
        "largest difference of logits": below(apart, 1e-4),
        "pairs/s, times plain": at_least(figures["pairs_ratio_median"], 4.0),
        f"cells/s with {MANY} labels, top {TOP}, times plain": at_least(figures["top_ratio_median"], 60.0),
    }
    return figures, bars


def with_untrained_head(model: Any) -> Any:
    """Return a model with token states, texts that look at them and a match head, all of random weights.

    Vectors of cells and terms stay those of `model`, so that the similarity is a real one.
    """
    from dataclasses import replace

    import torch

    from cellingua.models.langcell import LangCellModule
    from cellingua.nn.language import TextTowerConfig

    torch.manual_seed(SEED)
    model.pieces(["the tokeniser is read"])
    pieces = model._wordpiece
    bag = replace(model.config.bag, layers=1, top=64, layer_width=32, heads=2, feedforward=64, top_pooled=False)
    text = TextTowerConfig(len(pieces), 2, 64, 2, 128, 512, encoder_width=32)
    config = replace(model.config, bag=bag, text=text, text_adapter=0, match_head=True)
    module = LangCellModule(config).eval()
    for name in ("cell_tower", "cell_projection"):
        getattr(module, name).load_state_dict(getattr(model.module, name).state_dict(), strict=False)
    return replace(model, config=config, module=module, load_text=lambda: pieces)


def agreement(path: Path, named: str | None, cells: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Name cells with all candidates matched and with the likeliest alone; return figures and the bar."""

    import anndata

    from cellingua.models.shelf import load_model
    from cellingua.tasks.annotate import annotate

    model = load_model(named) if named else load_model()
    trained = model.config.match_head
    if not trained:
        model = with_untrained_head(model)
    whole = anndata.read_h5ad(path)
    drawn = whole[np.sort(np.random.default_rng(SEED).permutation(whole.n_obs)[:cells])].copy()
    truth = drawn.obs["cell_type_ontology_term_id"].astype(str).to_numpy()
    del drawn.uns, drawn.obsm
    runs, seconds = {}, {}
    ways = (("all", True, 0), ("top", True, TOP), ("similarity", False, TOP), ("compat", "compat", TOP))
    for name, match, top in ways:
        start = time.perf_counter()
        runs[name] = annotate(drawn.copy(), list(BLOOD), model=model, match=match, match_top=top, seed=SEED)
        seconds[name] = round(time.perf_counter() - start, 1)
    terms = np.array(runs["all"].candidates.term_ids, dtype=object)
    same = float(np.mean(runs["all"].labels == runs["top"].labels))
    likeliest = float(np.mean(runs["all"].best == runs["top"].best))
    figures: dict[str, Any] = {
        "pruning_model": f"{model.name} {model.hash}"
        + ("" if trained else ", which has no match head: random weights stand in for one, so this shows nothing"),
        "pruning_match_head_trained": trained,
        "pruning_combination": str(runs["top"].provenance["parameters"]["match"]),
        "pruning_cells": len(drawn),
        "pruning_candidates": len(terms),
        "pruning_equal_answers": round(same, 4),
        "pruning_equal_likeliest": round(likeliest, 4),
        **{f"accuracy_{name}": round(float(np.mean(terms[run.best] == truth)), 4) for name, run in runs.items()},
        **{f"seconds_{name}": value for name, value in seconds.items()},
    }
    return figures, {
        f"equal answers, top {TOP} and all of {len(terms)}": at_least(figures["pruning_equal_answers"], 0.995),
        "with a trained match head": {"value": trained, "bar": "True", "ok": trained},
    }


def main() -> int:
    """Measure; exit 0 where the bars hold."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repeats", type=int, default=REPEATS)
    parser.add_argument("--layers", type=int, default=12, help="layers of the text tower; 12 is LangCell's")
    parser.add_argument("--model", help="name or folder of the model of which pruning is judged (default: the bundled)")
    parser.add_argument("--judged", type=int, default=JUDGED, metavar="N", help=f"cells of it (default: {JUDGED})")
    args = parser.parse_args()

    from cellingua.core.runtime import set_threads

    set_threads(THREADS)
    shared = shared_folder() / "data"
    pbmc, genes = shared / "cells" / "evaluation" / "pbmc3k.h5ad", shared / "official" / "langcell_genes.tsv.gz"
    figures, bars = speeds(token_lengths(pbmc, genes), args.repeats, args.layers)
    set_threads(usable_cores())
    more, bar = agreement(pbmc, args.model, args.judged)
    figures, bars = figures | more, bars | bar
    return write_result("matching", figures, bars, seeds={"matching": SEED}, data=[pbmc, genes])


if __name__ == "__main__":
    sys.exit(main())
