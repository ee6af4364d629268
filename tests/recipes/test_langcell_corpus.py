"""LangCell on a corpus: texts from label columns, both stages, resumed runs, and the folder that comes out."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import small_world
import tiny_data
import torch
from memory_source import MemorySource
from scipy.sparse import csr_matrix

from cellingua.cells.genes import load_vocabulary
from cellingua.cells.loader import Loader
from cellingua.core.errors import ConfigError, LabelError
from cellingua.models.gene_dictionaries import V1_GENES
from cellingua.models.langcell import count_parameters
from cellingua.models.shelf import load_model
from cellingua.models.text_sources import load_text_source
from cellingua.nn.language import TextTowerConfig
from cellingua.nn.transformer import CellTowerConfig
from cellingua.recipes import langcell_corpus
from cellingua.recipes.cell_texts import CorpusTexts, TextConfig
from cellingua.recipes.corpus_genes import corpus_genes, official_genes
from cellingua.recipes.langcell_config import ObjectivesConfig, StageConfig
from cellingua.recipes.langcell_corpus import CorpusRecipeConfig, Draw, prepare, preset, run
from cellingua.recipes.langcell_step import Step
from cellingua.training.loop import TrainConfig
from cellingua.training.optimise import OptimiseConfig
from cellingua.training.place import OneProcess

TISSUES = ("blood", "lung", "liver")
CONFIG = CorpusRecipeConfig(
    "tiny_corpus",
    "For tests.",
    CellTowerConfig(3, 2, 1, 16, 2, 24, 24, dropout=0.1, attention_dropout=0.1),
    TextTowerConfig(20_000, 1, 16, 2, 24, 24, dropout=0.0, attention_dropout=0.0),
    joint_width=12,
    genes="corpus",
    texts=TextConfig(templates=("names",), limit=12),
    terms="seen",
    objectives=ObjectivesConfig(masked_cells=6, matched_cells=4, chunk=8, pair_chunk=3, keep=None),
    first=StageConfig(4, 4e-3),
    batch=12,
    block=4,
    encoder_rate=1.0,
    held_out=("two",),
    train=TrainConfig(21, seed=3, checkpoint_every=8, optimise=OptimiseConfig(learning_rate=4e-3)),
)


class Memory(MemorySource):
    """A `CellSource` in memory: planted cells of two files with their metadata."""

    def __init__(self, n: int = 40) -> None:
        worlds, columns = [small_world.cells(n, seed) for seed in (1, 2)], small_world.rows_of_genes()
        self.n_genes = len(load_vocabulary())
        wide = np.zeros((2 * n, self.n_genes), np.float32)
        wide[:, columns] = np.concatenate([world.X.toarray() for world in worlds])
        self.counts = csr_matrix(wide)
        self.totals = wide.sum(axis=1).astype(np.float64)
        types = list(small_world.TYPES)
        truth = np.concatenate([world.obs["truth"].to_numpy() for world in worlds])
        rng = np.random.default_rng(4)
        self.categories = {
            "file": ("one", "two"),
            "donor": ("d",),
            "cell_type_ontology_term_id": tuple(types),
            "tissue": TISSUES,
        }
        kinds = np.array([types.index(term) for term in truth], np.int32)
        kinds[::9] = -1  # of some cells the type is not known
        self.codes = {
            "file": np.repeat([0, 1], n).astype(np.int32),
            "donor": np.zeros(2 * n, np.int32),
            "cell_type_ontology_term_id": kinds,
            "tissue": rng.integers(-1, 3, 2 * n).astype(np.int32),
        }


@pytest.fixture(scope="module")
def source() -> Memory:
    return Memory()


@pytest.fixture(scope="module")
def done(source: Memory, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output folder of an unbroken run."""
    out = tmp_path_factory.mktemp("corpus_run")
    assert run(CONFIG, source, out) == out / "tiny_corpus"
    return out


def lines(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def test_each_stage_trains_its_objectives(done: Path) -> None:
    first, second = lines(done / "first"), lines(done / "second")
    assert {"masked", "cell_cell"} <= set(first[0])
    assert not {"cell_text", "matching"} & set(first[0])
    assert {"masked", "cell_cell", "cell_text", "matching"} <= set(second[0])
    assert second[-1]["step"] == 20


def test_the_model_is_a_model_like_any_other(done: Path, source: Memory) -> None:
    model = load_model(done / "tiny_corpus")
    assert model.supported == frozenset(small_world.TYPES)
    assert set(model.term_ids) == set(small_world.TYPES)
    assert model.config.match_head
    assert model.config.bert is not None
    cells = source.read(np.arange(5))
    assert model.encode_cells(model.tokenise(cells)).shape == (5, 12)
    assert model.encode_texts(["cell type: b cell. "]).shape == (1, 12)
    card = (done / "tiny_corpus" / "card.md").read_text(encoding="utf-8")
    assert "40 cells of 1 files" in card
    assert "started from random weights" in card


def test_stopped_and_resumed_is_an_unbroken_run(
    done: Path, source: Memory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, calls = Step.__call__, []

    def interrupted(self: Step, step: int) -> dict[str, float]:
        calls.append(1)
        if len(calls) > 4 + 13:
            raise KeyboardInterrupt
        return plain(self, step)

    monkeypatch.setattr(Step, "__call__", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(CONFIG, source, tmp_path)
    assert not (tmp_path / "tiny_corpus").exists()
    monkeypatch.setattr(Step, "__call__", plain)
    run(CONFIG, source, tmp_path)
    for name in sorted(path.relative_to(done) for path in (done / "tiny_corpus").rglob("*") if path.is_file()):
        assert (tmp_path / name).read_bytes() == (done / name).read_bytes(), name


def test_a_text_tower_can_be_given(source: Memory, tmp_path: Path) -> None:
    given = load_text_source(tiny_data.write_text_tower(tmp_path / "tower"))
    prepared = prepare(CONFIG, source, given)
    assert not prepared.fresh_text
    for name, weight in given[0].state_dict().items():
        assert torch.equal(prepared.module.text_tower.state_dict()[name], weight), name
    # Towers that came trained move slower than fresh cross-attention and heads.
    slow = replace(CONFIG, encoder_rate=0.1)
    rates = slow.stages(fresh_text=False)["second"].optimise
    assert rates.factor("model.text_tower.layers.0.attention.query.weight") == 0.1
    assert rates.factor("model.text_tower.layers.0.cross.query.weight") == 1.0
    assert rates.factor("model.text_tower.layers.0.cross_norm.bias") == 1.0
    assert rates.factor("model.cell_tower.token.weight") == 0.1
    assert rates.factor("model.match_head.weight") == rates.factor("masked_head.bias") == 1.0
    assert slow.stages(fresh_text=True)["second"].optimise.factor("model.text_tower.word.weight") == 1.0
    assert slow.stages(fresh_text=True)["first"].optimise.factors == ()


def draw(source: Memory, rank: int = 0, world: int = 1, stage: str = "second", **changes: object) -> Draw:
    config = replace(CONFIG, **changes)  # type: ignore[arg-type]
    prepared = prepare(config, source)
    place = OneProcess()
    place.rank, place.world = rank, world
    loader: Loader = langcell_corpus.make_loader(config, source, prepared, place)
    loader.ahead = 0
    return Draw(config, prepared, loader, stage, 0)


def test_a_minibatch_is_a_function_of_its_number_and_shared_by_processes(source: Memory) -> None:
    one, again = draw(source)(5), draw(source)(5)
    assert torch.equal(one.first.tokens, again.first.tokens)
    assert torch.equal(one.texts[0], again.texts[0])
    parts = [draw(source, rank, 3)(5) for rank in range(3)]
    assert torch.equal(torch.cat([part.first.tokens for part in parts]), one.first.tokens)
    assert [part.offset for part in parts] == [0, 4, 8]
    n = len(one.type_of_text)
    rows = torch.cat([part.texts[1].sum(1) for part in parts])
    assert rows[:n].tolist() == one.texts[1].sum(1).tolist()
    for part in parts:
        assert torch.equal(part.text_of, one.text_of)
        assert torch.equal(part.type_of_text, one.type_of_text)
    # More processes than texts: the last text is read again, so that none has nothing.
    bare = TextConfig(templates=("names",), drop=1.0, alone=1.0, limit=12)
    crowd = [draw(source, rank, 12, texts=bare)(5) for rank in range(12)]
    assert all(len(part.texts[0]) >= 1 for part in crowd)


def test_texts_say_the_type_and_more(source: Memory) -> None:
    texts = CorpusTexts(source, TextConfig(templates=("names",), drop=0.5, alone=0.25))
    rows = np.arange(len(source))
    drawn = texts.draw(rows, [0, 1])
    assert drawn == texts.draw(rows, [0, 1])
    assert drawn != texts.draw(rows, [0, 2])
    known = source.codes["cell_type_ontology_term_id"] >= 0
    assert all(text.startswith("cell type: ") for text, is_known in zip(drawn, known, strict=True) if is_known)
    assert any("tissue: " in text for text in drawn)
    assert any("tissue: " not in text for text, is_known in zip(drawn, known, strict=True) if is_known)
    assert set(texts.types) == set(small_world.TYPES)
    assert (texts.type_of >= 0).tolist() == known.tolist()
    silent = ~known & (source.codes["tissue"] < 0)
    assert [text == "" for text in drawn] == silent.tolist()


def test_a_corpus_without_types_is_refused(source: Memory) -> None:
    bare = Memory()
    for name in ("cell_type_ontology_term_id", "tissue"):
        del bare.categories[name]
    with pytest.raises(LabelError, match="--label-columns"):
        prepare(CONFIG, bare)
    named = replace(CONFIG, texts=replace(CONFIG.texts, columns=("cell type=tissue",)))
    assert len(prepare(named, source).texts.types) == len(TISSUES)


def test_genes_and_medians_of_a_corpus(source: Memory) -> None:
    table = corpus_genes(source, np.arange(len(source)))
    share = source.counts.toarray().astype(np.float64) * 1e4 / source.totals[:, None]
    ids = load_vocabulary().ensembl_ids.tolist()
    assert table.tokens.tolist() == list(range(2, 2 + len(table)))
    for row in range(0, len(table), 17):
        values = share[:, ids.index(table.ensembl_ids[row])]
        assert (values > 0).sum() >= 10
        assert table.medians[row] == pytest.approx(np.median(values[values > 0]))
    assert list(table.ensembl_ids) == sorted(table.ensembl_ids)


def test_the_paper_has_its_size() -> None:
    config = preset("langcell_paper")
    genes = official_genes()
    assert len(genes) == V1_GENES
    model = config.model(genes, config.text)
    assert (model.bert.vocabulary, model.bert.cls_token) == (25_427, 25_426)  # type: ignore[union-attr]
    with torch.device("meta"):
        assert count_parameters(langcell_corpus.LangCellModule(model)) == 172_762_882


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"genes": "mine"}, "genes is 'mine'"),
        ({"terms": "few"}, "terms 'few'"),
        ({"cell": replace(CONFIG.cell, dropout=0.0, attention_dropout=0.0)}, "dropout 0"),
    ],
)
def test_wrong_configurations_are_refused(changes: dict[str, object], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        replace(CONFIG, **changes)  # type: ignore[arg-type]


def test_a_tokeniser_larger_than_the_tower_is_refused(source: Memory) -> None:
    with pytest.raises(ConfigError, match="rows"):
        prepare(replace(CONFIG, text=replace(CONFIG.text, vocabulary=100)), source)
