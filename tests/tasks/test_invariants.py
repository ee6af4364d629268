"""A cell's tokens and embedding are its own: the same in any company, order, form, file and number of threads.

Every transformation below is tried with every model: the two that ship, a LangCell with the released BERT tower and
one with the bag tower (small, over real genes), and a CellLM. What holds, and how exactly:

- Tokens are equal to the bit. So are the values that the bag tower reads and the bins that CellLM reads.
- Embeddings agree within `TOLERANCE` of the largest number of the embedding: matrix products of another shape add up
  in another order. That holds in bfloat16 and in 8 bits as well as in float32.
- Genes that the vocabulary doesn't know and that have counts are a part of the total that LangCell divides by. The
  order of its tokens stays, but for values that are equal in exact arithmetic and are rounded another way; what the
  BERT tower says stays with it, and the values that the bag reads shrink. A CellLM that scales by the total over all
  genes (the one that ships) sees lower bins of the same genes; one that scales by its own genes sees no change.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest
import small_world
import tiny_cellm
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from many_forms import FORMS, N, Source, base, of, reordered, with_more_genes, written
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from cellingua.cells.counts import CountBlock, CountBlocks
from cellingua.cells.doctor import examine
from cellingua.cells.genes import load_vocabulary
from cellingua.cells.reading import open_cells
from cellingua.models.cellm import CellLMModel
from cellingua.models.gene_table import GeneTable
from cellingua.models.langcell import LangCellConfig, LangCellModule
from cellingua.models.model import LangCellModel
from cellingua.models.shelf import load_any
from cellingua.nn.bag import GatedBagConfig
from cellingua.nn.language import TextTowerConfig
from cellingua.nn.transformer import CellTowerConfig
from cellingua.tasks.embed import embed

TOLERANCE = 1e-5


def langcell(kind: str) -> LangCellModel:
    """Return a LangCell with random weights over the genes of the small world; its longest cells are cut."""
    vocabulary, rows = load_vocabulary(), small_world.rows_of_genes()
    n, rng = len(rows), np.random.default_rng(5)
    genes = GeneTable(
        vocabulary.ensembl_ids[rows], vocabulary.symbols[rows], np.arange(2, n + 2, dtype=np.int32), rng.gamma(2, 1, n)
    )
    text = TextTowerConfig(20, 1, 32, 2, 48, 16)
    if kind == "bert":
        tower = CellTowerConfig(n + 3, n + 2, 2, 32, 2, 48, 160)
        config = LangCellConfig("bert", text, bert=tower, joint_width=32, token_limit=159)
    else:
        bag = GatedBagConfig(n + 2, 32, 40, 32, 4, layers=1, top=40, layer_width=32, heads=2, feedforward=48)
        config = LangCellConfig("bag", text, bag=bag, joint_width=32, token_limit=None)
    torch.manual_seed(3)
    module = LangCellModule(config)
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    nothing = np.zeros((0, 32), np.float32)
    return LangCellModel(kind, "0" * 16, config, module.eval(), genes, [], nothing, no_texts, precision="float32")


def no_texts() -> Any:
    """Stand for the words, which no test here needs."""
    raise AssertionError("a text was read")


MODELS: dict[str, Callable[[], Any]] = {
    "langcell_mini": lambda: load_any("langcell_mini"),
    "langcell bert": lambda: langcell("bert"),
    "langcell bert, bfloat16": lambda: replace(langcell("bert"), precision="bfloat16"),
    "langcell bert, int8": lambda: replace(langcell("bert"), precision="int8"),
    "langcell bag": lambda: langcell("bag"),
    "cellm_mini": lambda: load_any("cellm_mini"),
    "cellm": lambda: _cellm("favor"),
    "cellm exact": lambda: _cellm("exact"),
}


def _cellm(attention: str) -> CellLMModel:
    return tiny_cellm.model(attention, rows=small_world.rows_of_genes())


@cache
def model_of(name: str) -> Any:
    """Return a model, made once."""
    return MODELS[name]()


@dataclass(frozen=True)
class Answer:
    """What a model made of some cells: the arrays of each cell's tokens, and the embedding."""

    tokens: list[tuple[NDArray[Any], ...]]
    embedding: NDArray[np.float32]

    def take(self, rows: list[int]) -> Answer:
        """Return the cells `rows`."""
        return Answer([self.tokens[row] for row in rows], self.embedding[rows])


def tokens_of(model: Any, block: CountBlock) -> list[tuple[NDArray[Any], ...]]:
    """Return the tokens of the cells of a block, with what else the tower reads of them."""
    if isinstance(model, CellLMModel):
        held = model.bin(block)
        arrays: tuple[NDArray[Any], ...] = (held.tokens, held.genes)
    else:
        held = model.tokenise(block)
        arrays = (held.tokens, held.values)  # noqa: PD011 (no data frame)
    spans = zip(held.indptr[:-1], held.indptr[1:], strict=True)
    return [tuple(array[a:b] for array in arrays) for a, b in spans]


def answer(model: Any, source: Source, rows: int = 2048, layer: str | None = None) -> Answer:
    """Return what a model makes of cells, in blocks of `rows`."""
    with open_cells(source) as cells:
        blocks = list(CountBlocks(cells, examine(cells, layer=layer)).blocks(rows))
        tokens = [cell for block in blocks for cell in tokens_of(model, block)]
        return Answer(tokens, embed(cells, model=model, layer=layer))


@cache
def truth(name: str) -> Answer:
    """Return what a model makes of the cells as they are."""
    return answer(model_of(name), base().copy())


def check(found: Answer, expected: Answer, *, values: bool = True) -> None:
    """Compare tokens to the bit, without the second array if not `values`, and embeddings within the tolerance."""
    assert len(found.tokens) == len(expected.tokens)
    for ours, theirs in zip(found.tokens, expected.tokens, strict=True):
        for one, other in list(zip(ours, theirs, strict=True))[: 2 if values else 1]:
            np.testing.assert_array_equal(one, other)
    far = np.abs(found.embedding - expected.embedding).max(initial=0.0)
    assert far <= TOLERANCE * np.abs(expected.embedding).max(), far


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Source]:
    """The cells in a form, made once."""
    folder = tmp_path_factory.mktemp("forms")
    return cache(lambda form: FORMS[form](folder))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", MODELS)
def test_the_form_of_the_cells_changes_nothing(name: str, form: str, sources: Callable[[str], Source]) -> None:
    layer = "counts" if form == "counts in a layer" else None
    check(answer(model_of(name), sources(form), layer=layer), truth(name))


@settings(max_examples=6, suppress_health_check=[HealthCheck.function_scoped_fixture])
@pytest.mark.parametrize("name", MODELS)
@given(
    rows=st.lists(st.integers(0, N - 1), min_size=1, max_size=2 * N),
    genes=st.integers(0, 2**32),
    block=st.integers(1, 2 * N),
)
def test_a_cell_is_the_same_in_any_company_order_and_block(name: str, rows: list[int], genes: int, block: int) -> None:
    """Cells alone, left out, repeated and in any order, their genes in any order, read in blocks of any size."""
    shuffled = reordered(genes)
    names = pd.Index([f"cell{place}" for place in range(len(rows))])
    adata = of(csr_matrix(shuffled.X)[rows], obs=pd.DataFrame(index=names), var=shuffled.var)
    check(answer(model_of(name), adata, rows=block), truth(name).take(rows))


@pytest.mark.parametrize("name", MODELS)
def test_deeper_and_richer_neighbours_change_nothing(name: str) -> None:
    """Neighbours of another depth lengthen the minibatch, and make of other genes ones that the file shows."""
    rng = np.random.default_rng(2)
    deep = csr_matrix(rng.poisson(60, base().shape).astype(np.float32))
    lone = csr_matrix((np.ones(3, np.float32), ([0, 1, 2], [7, 8, 9])), shape=base().shape)
    near = anndata.concat([of(deep), of(base().X.copy()), of(lone)], merge="same", index_unique="-")
    check(answer(model_of(name), near).take(list(range(N, 2 * N))), truth(name))


@pytest.mark.parametrize("batch_size", [1, 2, 5, 16, 4096])
@pytest.mark.parametrize("name", MODELS)
def test_the_size_of_minibatches_changes_nothing(name: str, batch_size: int) -> None:
    model = model_of(name)
    with open_cells(base().copy()) as cells:
        block = next(CountBlocks(cells, examine(cells)).blocks())
    held = model.bin(block) if isinstance(model, CellLMModel) else model.tokenise(block)
    found = model.encode_cells(held, batch_size=batch_size)
    check(Answer(truth(name).tokens, found), truth(name))
    if isinstance(model, LangCellModel):
        states = [model.encode_cells(held, state="cls", batch_size=size) for size in (batch_size, 256)]
        assert np.abs(states[0] - states[1]).max() <= TOLERANCE * np.abs(states[1]).max()


@pytest.mark.parametrize("name", [name for name in MODELS if name.startswith("cellm")])
def test_the_size_of_minibatches_changes_no_mean_over_genes(name: str) -> None:
    model = model_of(name)
    with open_cells(base().copy()) as cells:
        held = model.bin(next(CountBlocks(cells, examine(cells)).blocks()))
    means = [model.encode_cells(held, size, pooling="mean") for size in (1, 6, 256)]
    for mean in means[:2]:
        assert np.abs(mean - means[2]).max() <= TOLERANCE * np.abs(means[2]).max()


@pytest.fixture
def threads() -> Iterator[None]:
    """Give back the number of threads."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("name", MODELS)
def test_the_number_of_threads_changes_nothing(name: str, threads: None) -> None:
    for number in (1, 2, 3):
        torch.set_num_threads(number)
        check(answer(model_of(name), base().copy()), truth(name))


_ELSEWHERE = """
import os, sys
os.environ.update(OMP_NUM_THREADS=sys.argv[1], MKL_NUM_THREADS=sys.argv[1])
import numpy as np, torch
import cellingua as cl
torch.set_num_threads(int(sys.argv[1]))
for name in sys.argv[3:]:
    np.save(f"{sys.argv[2]}.{name}.npy", cl.tl.embed(sys.argv[2], model=name))
"""


def test_another_process_with_other_threads_gives_the_same(tmp_path: Path) -> None:
    """The libraries below torch read the number of their threads when they are loaded."""
    path, names = written(of(base().X.copy()), tmp_path / "a.h5ad"), ["langcell_mini", "cellm_mini"]
    number = "3" if torch.get_num_threads() == 1 else "1"
    subprocess.run([sys.executable, "-c", _ELSEWHERE, number, str(path), *names], check=True, timeout=300)
    for name in names:
        check(Answer(truth(name).tokens, np.load(f"{path}.{name}.npy")), truth(name))


@pytest.mark.parametrize("name", MODELS)
def test_unknown_genes_with_counts_are_part_of_the_total_alone(name: str) -> None:
    adata = with_more_genes(known=False)
    dense = adata.X.toarray()
    dense[:, base().n_vars :] = np.random.default_rng(4).poisson(3, (N, 60))
    model = model_of(name)
    found, expected = answer(model, of(csr_matrix(dense), var=adata.var)), truth(name)
    shares = base().X.toarray().sum(axis=1) / dense.sum(axis=1)
    if isinstance(model, CellLMModel):
        if model.config.bins.total == "vocabulary":
            check(found, expected)
            return
        for (bins, genes), (whole, theirs) in zip(found.tokens, expected.tokens, strict=True):
            np.testing.assert_array_equal(genes, theirs)
            assert (bins <= whole).all()
        return
    for (tokens, values), (theirs, whole), share in zip(found.tokens, expected.tokens, shares, strict=True):
        order = {token: place for place, token in enumerate(theirs.tolist())}
        assert sorted(order) == sorted(tokens.tolist())
        np.testing.assert_allclose(values, whole * share, rtol=1e-6)
        held = whole[[order[token] for token in tokens.tolist()]]  # in the order that was found
        assert (held[1:] <= held[:-1] * (1 + 1e-6)).all()
    if model.config.cell_kind == "bert":
        check(found, expected, values=False)
    else:
        assert np.abs(found.embedding - expected.embedding).max() > TOLERANCE


def test_the_models_tell_cells_apart() -> None:
    """Else the tests above would pass for a model that says one thing of everything."""
    for name in MODELS:
        spread = np.ptp(truth(name).embedding, axis=0).max() / np.abs(truth(name).embedding).max()
        assert spread > 100 * TOLERANCE, name
        assert len({b"|".join(array.tobytes() for array in cell) for cell in truth(name).tokens}) == N
    lengths = [len(cell[0]) for cell in truth("langcell bert").tokens]
    assert max(lengths) == 159  # some cells are cut
    assert min(lengths) < 30
