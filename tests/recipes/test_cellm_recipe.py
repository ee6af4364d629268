"""The CellLM recipe: what it refuses, what a step is, and that it learns what is planted."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small_world
import torch
from memory_source import MemorySource
from scipy.sparse import csr_matrix
from torch import nn

from cellingua.cells.binned import BinConfig
from cellingua.cells.genes import load_vocabulary
from cellingua.cells.loader import Loader, LoaderConfig
from cellingua.core.config import from_dict, to_dict
from cellingua.core.errors import ConfigError, CountsError, EngineError, LabelError
from cellingua.core.progress import Silent
from cellingua.measures.geometry import mean_cosine
from cellingua.models.cellm_bundle import load_cellm
from cellingua.nn.performer import PerformerConfig
from cellingua.objectives.cell_contrast import cell_cell_contrast
from cellingua.objectives.masked import MaskConfig
from cellingua.recipes import cellm
from cellingua.recipes.cellm import CellLMRecipeConfig, ObjectiveWeights, Step, prepare, preset, refuse_batch_norm, run
from cellingua.recipes.cellm_views import ViewMaker, ViewTower
from cellingua.recipes.gene_choice import informative_genes, sample_cells, start_vectors
from cellingua.recipes.gene_graph import GeneVectors
from cellingua.training.loop import TrainConfig
from cellingua.training.optimise import OptimiseConfig

FILES = ("one.h5ad", "two.h5ad", "three.h5ad")


class Memory(MemorySource):
    """A `CellSource` in memory: three files of planted cells; two are normal, one is cancer."""

    def __init__(self, n: int = 40, diseases: tuple[str, ...] = ("normal", "glioma")) -> None:
        worlds = [small_world.cells(n, seed) for seed in range(3)]
        columns = small_world.rows_of_genes()
        self.n_genes = len(load_vocabulary())
        parts = []
        for world in worlds:
            counts = csr_matrix(world.X).tocoo()
            shape = (n, self.n_genes)
            parts.append(
                csr_matrix((counts.data.astype(np.float32), (counts.row, columns[counts.col])), shape).toarray()
            )
        self.counts = csr_matrix(np.concatenate(parts))
        self.truth = np.concatenate([world.obs["truth"].to_numpy() for world in worlds])
        self.totals = np.asarray(self.counts.sum(1), np.float64).ravel()
        self.categories = {"file": FILES, "donor": ("d",), "disease": diseases}
        second = int(len(diseases) > 1)
        self.codes = {
            "file": np.repeat(np.arange(3), n).astype(np.int32),
            "donor": np.zeros(3 * n, np.int32),
            "disease": np.repeat([0, second, -1], n).astype(np.int32),
        }


@pytest.fixture(scope="module")
def source() -> Memory:
    return Memory()


ENCODER = PerformerConfig(60, width=16, layers=1, heads=2, head_width=8, features=8, ff_mult=2, dropout=0.1)
CONFIG = CellLMRecipeConfig(
    "cellm_tiny",
    "For tests.",
    replace(ENCODER, attention="exact"),
    bins=BinConfig(length=33, beyond="top", total="all"),
    batch=16,
    block=4,
    chunk=6,
    probe_cells=24,
    gene_start="cells",
    start_deviation=0.3,
    train=TrainConfig(steps=4, checkpoint_every=2, validate_every=2, optimise=OptimiseConfig(learning_rate=3e-3)),
)


def changed(**changes: Any) -> CellLMRecipeConfig:
    return replace(CONFIG, **changes)


def maker(config: CellLMRecipeConfig, source: Memory, **options: Any) -> ViewMaker:
    prepared = prepare(config, source)
    return ViewMaker(
        prepared.genes, config.bins, config.mask, config.encoder, prepared.labels, config.train.seed, **options
    )


# What is refused


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"encoder": replace(ENCODER, dropout=0.0)}, "dropout 0"),
        ({"encoder": replace(ENCODER, dropout=0.3, embedding_dropout=0.0, attention_dropout=0.0,
                             feedforward_dropout=0.0)}, "dropout 0"),
        ({"encoder": replace(ENCODER, attention="compat")}, "depend on the cells beside it"),
        ({"redraw_every": 5}, "drawn again every 5 steps"),
        ({"redraw_every": -1, "encoder": ENCODER}, "every -1 steps"),
        ({"within_views": True, "symmetric": False}, "both directions"),
        ({"gene_start": "thin air"}, "'thin air'"),
        ({"temperature": 0.0}, "temperature is 0"),
        ({"batch": 1}, "2 or more"),
        ({"down_sample": 1.0}, "down_sample is 1"),
        ({"token_deviation": 0.0}, "deviations 0.02, 0|deviations 0.3, 0"),
    ],
)  # fmt: skip
def test_what_cannot_be_exact_is_refused(changes: dict, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        changed(**changes)


def test_weights_that_are_none_are_refused() -> None:
    for bad in [(0.0, 0.0, 0.0), (-1.0, 1.0, 1.0), (math.inf, 1.0, 1.0)]:
        with pytest.raises(ConfigError, match="The objectives weigh"):
            ObjectiveWeights(*bad)


def test_without_contrast_or_with_down_sampling_dropout_may_be_zero() -> None:
    assert changed(encoder=replace(ENCODER, dropout=0.0), down_sample=0.5).down_sample == 0.5
    assert changed(encoder=replace(ENCODER, dropout=0.0), weights=ObjectiveWeights(contrast=0)).weights.masked == 1


def test_batch_norm_is_refused() -> None:
    with pytest.raises(ConfigError, match="BatchNorm1d '1'"):
        refuse_batch_norm(nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)))


def test_a_redraw_inside_a_step_is_refused(source: Memory) -> None:
    config = changed(encoder=ENCODER)
    prepared = prepare(config, source)
    performer = prepared.module.performer

    def redraw(_module: nn.Module, _given: tuple) -> None:
        performer.redraw_features()

    performer.register_forward_pre_hook(redraw)
    with (
        Loader(source, LoaderConfig(16, 4), maker(config, source), rows=prepared.rows) as loader,
        pytest.raises(EngineError, match="features"),
    ):
        Step(config, prepared, loader)(0)


def test_labels_of_one_class_and_files_that_are_not_there_are_told(source: Memory) -> None:
    with pytest.raises(LabelError, match="one class"):
        prepare(CONFIG, Memory(diseases=("normal",)))
    with pytest.raises(LabelError, match=r"nowhere\.h5ad"):
        prepare(changed(held_out=("nowhere.h5ad",)), source)
    with pytest.raises(LabelError, match="no column 'tumour'"):
        prepare(changed(label="tumour"), source)
    with pytest.raises(CountsError, match="genes are expressed"):
        prepare(changed(encoder=replace(CONFIG.encoder, genes=9999)), source)
    with pytest.raises(ConfigError, match="none was given"):
        prepare(changed(gene_start="table"), source)


# Views


def test_views_differ_in_their_masks_alone_and_belong_to_the_step(source: Memory) -> None:
    make = maker(CONFIG, source)
    cells = source.read(np.arange(12, 28))
    first, second = make(3, cells)
    assert torch.equal(first.levels, second.levels)
    assert torch.equal(first.genes, second.genes)
    assert not torch.equal(first.chosen, second.chosen)
    again = make(3, cells)[0]
    assert torch.equal(again.tokens, first.tokens)
    assert not torch.equal(make(4, cells)[0].chosen, first.chosen)
    assert not (first.chosen & (first.levels >= CONFIG.encoder.cls_token)).any()
    assert first.mask.sum(1).max() <= 33


@pytest.mark.parametrize("down_sample", [0.0, 0.6])
def test_two_processes_hide_what_one_would(source: Memory, down_sample: float) -> None:
    rows = np.arange(16)
    whole = maker(CONFIG, source, down_sample=down_sample)(2, source.read(rows))
    for offset in (0, 8):
        make = maker(CONFIG, source, offset=offset, down_sample=down_sample)
        part = make(2, source.read(rows[offset : offset + 8]))
        for mine, all_of_it in zip(part, whole, strict=True):
            wide = mine.tokens.shape[1]
            assert torch.equal(mine.tokens, all_of_it.tokens[offset : offset + 8, :wide])


@pytest.mark.parametrize("down_sample", [0.0, 0.6])
def test_a_view_shows_no_gene_that_the_cell_lacks_and_fewer_counts_when_asked(
    source: Memory, down_sample: float
) -> None:
    rows = np.arange(20)
    make = maker(CONFIG, source, down_sample=down_sample)
    make.bins = BinConfig(length=None, total="all")
    counts, _ = make._thinned(csr_matrix(source.counts[rows]), source.totals[rows], 1, 0)
    assert (counts.toarray() <= source.counts[rows].toarray()).all()
    share = np.asarray(counts.sum(1)).ravel() / np.asarray(source.counts[rows].sum(1)).ravel()
    assert share.min() > 1 - down_sample - 0.1
    assert (share.std() > 0.05) == (down_sample > 0)
    first, second = make(1, source.read(rows))
    for view in (first, second):
        for row in range(20):
            held = set(np.flatnonzero(source.counts[row].toarray()[0][make.genes]).tolist())
            assert set(view.genes[row][view.mask[row]][1:].tolist()) <= held
    assert (first.mask.sum() == second.mask.sum()) == (down_sample == 0)


def test_labels_of_withheld_files_are_not_used(source: Memory) -> None:
    cells = source.read(np.array([0, 40, 80]))
    assert maker(CONFIG, source)(0, cells)[0].labels.tolist() == [0, 1, -1]
    assert maker(changed(unlabelled=("two.h5ad",)), source)(0, cells)[0].labels.tolist() == [0, -1, -1]
    none = changed(weights=ObjectiveWeights(discrimination=0))
    assert maker(none, source)(0, cells)[0].labels.tolist() == [-1, -1, -1]


def test_padding_columns_are_trimmed_and_change_no_loss(source: Memory) -> None:
    view = maker(CONFIG, source)(0, source.read(np.arange(8)))[0]
    tower = ViewTower(prepare(CONFIG, source).module.eval(), masked=True, discriminated=True)
    wider = replace(
        view,
        tokens=torch.nn.functional.pad(view.tokens, (0, 5), value=7),
        genes=torch.nn.functional.pad(view.genes, (0, 5), value=61),
        mask=torch.nn.functional.pad(view.mask, (0, 5)),
        chosen=torch.nn.functional.pad(view.chosen, (0, 5)),
        levels=torch.nn.functional.pad(view.levels, (0, 5), value=7),
    )
    plain, padded = tower(view), tower(wider)
    assert torch.equal(plain[0], padded[0])
    assert plain[1]["masked"][0] == padded[1]["masked"][0]
    assert plain[0].norm(dim=1).tolist() == pytest.approx([1.0] * 8, abs=1e-5)


# The step


@pytest.mark.parametrize("within", [False, True])
def test_a_step_is_the_sum_of_its_objectives_over_the_whole_batch(source: Memory, within: bool) -> None:
    """One graph over everything, written out: the losses are normalised over both views, not over chunks."""
    weights = ObjectiveWeights(contrast=0.7, masked=2.0, discrimination=0.5)
    encoder = replace(CONFIG.encoder, dropout=1e-9)  # as good as none: the twin needs no random state
    config = changed(encoder=encoder, weights=weights, within_views=within)
    prepared = prepare(config, source)
    module = prepared.module.double().train()
    with Loader(source, LoaderConfig(16, 4), maker(config, source), rows=prepared.rows) as loader:
        losses = Step(config, prepared, loader)(1)
        got = [p.grad.clone() for p in module.parameters() if p.grad is not None]
        module.zero_grad(set_to_none=True)
        views = loader.draw(1)
    tower = ViewTower(module, masked=True, discriminated=True, class_weights=prepared.class_weights)
    (a, losses_a), (b, losses_b) = (tower(view) for view in views)
    masked = sum(part["masked"][0] for part in (losses_a, losses_b)) / sum(
        part["masked"][1] for part in (losses_a, losses_b)
    )
    named = sum(part["discrimination"][0] for part in (losses_a, losses_b)) / sum(
        part["discrimination"][1] for part in (losses_a, losses_b)
    )
    plain = {
        "contrast": 0.7 * cell_cell_contrast(a, b, within_views=within),
        "masked": 2.0 * masked,
        "discrimination": 0.5 * named,
    }
    for name, value in plain.items():
        assert losses[name] == pytest.approx(float(value.detach()), rel=1e-9), name
    sum(plain.values()).backward()
    expected = [p.grad for p in module.parameters() if p.grad is not None]
    gap = math.sqrt(sum(float(((x - y) ** 2).sum()) for x, y in zip(got, expected, strict=True)))
    assert gap <= 1e-9 * math.sqrt(sum(float((y**2).sum()) for y in expected))


def test_an_objective_of_weight_zero_is_not_computed(source: Memory) -> None:
    for weights, names in [
        (ObjectiveWeights(contrast=0), {"masked", "discrimination"}),
        (ObjectiveWeights(masked=0, discrimination=0), {"contrast"}),
    ]:
        config = changed(weights=weights)
        prepared = prepare(config, source)
        with Loader(source, LoaderConfig(16, 4), maker(config, source), rows=prepared.rows) as loader:
            assert set(Step(config, prepared, loader)(0)) == names


def test_features_are_drawn_again_between_steps_when_asked(source: Memory) -> None:
    config = changed(encoder=ENCODER, redraw_every=2)
    prepared = prepare(config, source)
    attention = prepared.module.performer.layers[0].attention
    with Loader(source, LoaderConfig(16, 4), maker(config, source), rows=prepared.rows) as loader:
        step = Step(config, prepared, loader)
        seen = []
        for number in range(4):
            step(number)
            seen.append(attention.features.clone())
    assert torch.equal(seen[0], seen[1])
    assert not torch.equal(seen[1], seen[2])
    assert torch.equal(seen[2], seen[3])


# The run


def test_a_run_saves_a_model_and_its_geometry_before_during_and_after(source: Memory, tmp_path: Path) -> None:
    config = changed(held_out=("three.h5ad",))
    folder = run(config, source, tmp_path, facts={"Source": "Planted."})
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    told = [line for line in lines if "validation" in line]
    assert [line["step"] for line in told] == [0, 2, 4]
    wanted = {"alignment", "uniformity", "mean_cosine", "effective_rank", "participation", "spectrum_1"}
    wanted |= {"masked_accuracy", "majority_bin"}
    assert all(wanted <= line["validation"].keys() for line in told)
    assert {"contrast", "masked", "discrimination"} <= lines[1].keys()
    model = load_cellm(folder)
    assert model.config.performer.dropout == 0
    assert len(model.genes) == 60
    card = (folder / "card.md").read_text()
    assert "80 cells of 2 files, on 60 genes" in card
    assert "three.h5ad |" not in card
    assert "Planted." in card
    assert "uniformity" in card
    # A model in memory and the one from the folder read cells alike, up to half precision.
    cells = source.read(np.arange(80, 90))
    vectors = model.encode_cells(model.bin(cells))
    assert np.isfinite(vectors).all()
    assert mean_cosine(vectors) < 1


def test_a_run_that_was_stopped_goes_on_as_if_it_had_not_been(
    source: Memory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run(CONFIG, source, tmp_path / "whole")
    plain = Step.__call__

    def stopped(self: Step, step: int) -> dict[str, float]:
        if step == 3:
            raise KeyboardInterrupt
        return plain(self, step)

    monkeypatch.setattr(Step, "__call__", stopped)
    with pytest.raises(KeyboardInterrupt):
        run(CONFIG, source, tmp_path / "parts")
    monkeypatch.setattr(Step, "__call__", plain)
    parts = run(CONFIG, source, tmp_path / "parts")
    assert (parts / "weights.safetensors").read_bytes() == (whole / "weights.safetensors").read_bytes()
    with pytest.raises(ConfigError, match=r"recipe\.temperature"):
        run(changed(temperature=0.1), source, tmp_path / "parts")


def test_it_learns_what_is_planted(source: Memory, tmp_path: Path) -> None:
    """Loss falls, levels are told better than by the commonest bin, and held-out cells find their own type."""
    learning = OptimiseConfig(learning_rate=1e-2)
    longer = replace(CONFIG.train, steps=80, validate_every=80, checkpoint_every=80, optimise=learning)
    weights = ObjectiveWeights(contrast=0.2, discrimination=0.5)
    config = changed(held_out=("three.h5ad",), train=longer, weights=weights)
    prepared = prepare(config, source)
    lines = cellm.fit(config, source, prepared, tmp_path, Silent(), cellm.OneProcess())
    assert lines[-1]["masked_accuracy"] > lines[0]["masked_accuracy"]
    assert lines[-1]["masked_accuracy"] > lines[-1]["majority_bin"]
    losses = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    contrast = [line["contrast"] for line in losses if "contrast" in line]
    assert contrast[-1] < 0.7 * contrast[0]
    assert lines[-1]["uniformity"] < lines[0]["uniformity"]
    assert lines[-1]["mean_cosine"] < lines[0]["mean_cosine"]
    model = load_cellm(save_here(config, source, prepared, tmp_path / "model"))
    vectors = model.encode_cells(model.bin(source.read(np.arange(80, 120))))
    vectors = vectors - vectors.mean(0)
    cosine = vectors @ vectors.T
    np.fill_diagonal(cosine, -np.inf)
    truth = source.truth[80:]
    assert (truth[cosine.argmax(1)] == truth).mean() > 0.5  # one of six by chance


def save_here(config: CellLMRecipeConfig, source: Memory, prepared: cellm.Prepared, folder: Path) -> Path:
    cellm.save(folder, config, source, prepared, [], {})
    return folder


# Genes and where they start


def test_genes_that_vary_within_files_are_chosen(source: Memory) -> None:
    sample = sample_cells(source, np.arange(len(source)))
    assert len(sample.files) == len(source)
    genes = informative_genes(sample, 10)
    dense = sample.values.toarray()
    within = np.mean([dense[sample.files == file].var(axis=0) for file in range(3)], axis=0)
    assert set(genes.tolist()) == set(np.argsort(-within)[:10].tolist())
    assert (np.diff(genes) > 0).all()


def test_start_vectors_are_those_of_an_svd(source: Memory) -> None:
    sample = sample_cells(source, np.arange(len(source)))
    genes = informative_genes(sample, 40)
    vectors = start_vectors(sample, genes, 5, 0.3)
    assert float(vectors.std()) == pytest.approx(0.3, rel=1e-5)
    dense = sample.values[:, genes].toarray()
    for file in range(3):
        dense[sample.files == file] -= dense[sample.files == file].mean(axis=0)
    right = np.linalg.svd(dense, full_matrices=False)[2][:5].T
    ours = np.linalg.qr(vectors.numpy())[0]
    assert np.linalg.svd(right.T @ ours)[1] == pytest.approx([1.0] * 5, abs=0.02)
    assert torch.equal(start_vectors(sample, genes, 5, 0.3), vectors)


def test_a_table_is_read_by_id_or_by_symbol_and_may_be_frozen(source: Memory) -> None:
    vocabulary = load_vocabulary()
    vectors = np.random.default_rng(0).normal(size=(source.n_genes, 16)).astype(np.float32)
    config = changed(gene_start="table", train_genes=False)
    for names in (vocabulary.ensembl_ids.tolist(), vocabulary.symbols.tolist()):
        prepared = prepare(config, source, GeneVectors(names, vectors))
        table = prepared.module.performer.gene.weight
        assert not table.requires_grad
        ratio = table[:60].numpy() / vectors[prepared.genes]
        if names == vocabulary.ensembl_ids.tolist():
            assert ratio.std() < 1e-4
        assert table[:60].std(dim=1).mean() == pytest.approx(0.3, rel=0.1)
    with pytest.raises(ConfigError, match="vectors of 4 were given"):
        prepare(config, source, GeneVectors(["A"], vectors[:1, :4]))


# Presets


@pytest.mark.parametrize("name", ["cellm_paper", "cellm_mini"])
def test_presets_are_whole(name: str) -> None:
    config = preset(name)
    assert config.name == name
    assert from_dict(CellLMRecipeConfig, json.loads(json.dumps(to_dict(config)))) == config
    assert config.mask == MaskConfig()


def test_the_paper_s_size_is_the_paper_s() -> None:
    encoder = preset("cellm_paper").encoder
    assert encoder.without_dropout() == PerformerConfig.paper()
    assert encoder.dropout == 0.1


def test_unknown_presets_are_told() -> None:
    for name in ("cellm_giant", "../cellm_mini", "langcell_mini"):
        with pytest.raises(ConfigError, match="cellm_mini"):
            preset(name)
