"""Fine-tuning on a small world: every method, what is held out, what is kept, and what is refused."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import small_world
import tiny_cellm
import torch
from interrupted_tuning import interrupted
from scipy.sparse import csr_matrix

from cellingua.core.errors import ConfigError, InputError, ModelError
from cellingua.models.bundle import load_bundle
from cellingua.models.cellm import CellLMModel
from cellingua.models.cellm_bundle import load_cellm, save_cellm
from cellingua.models.gene_table import GeneTable
from cellingua.models.geneformer import GeneformerConfig, GeneformerParts, load_geneformer, save_geneformer
from cellingua.models.model import LangCellModel
from cellingua.models.tuned import HEAD, HEAD_WEIGHTS
from cellingua.models.tuned_bundle import save_tuned
from cellingua.nn.transformer import CellTower, CellTowerConfig
from cellingua.recipes.finetune import Tuned, tune
from cellingua.recipes.finetune_config import METHODS, FinetuneConfig, LabelledCells, class_weights
from cellingua.recipes.finetune_run import held_out
from cellingua.recipes.finetune_towers import Minibatches

PEFT = importlib.util.find_spec("peft") is not None
LANGCELL = ["classifier", "prototypes", "full", "langcell", "langcell_ce"]
needs_peft = pytest.mark.skipif(not PEFT, reason="peft is not installed")


def cells(n: int = 60, seed: int = 1, *, noise: float = 0.5, donors: int = 0, names: str = "own") -> LabelledCells:
    """Return cells of the small world over the vocabulary."""
    made = small_world.cells(n, seed, noise=noise)
    rows = small_world.rows_of_genes()
    wide = csr_matrix(made.X)
    from cellingua.cells.genes import load_vocabulary

    counts = csr_matrix((wide.data, rows[wide.indices], wide.indptr), shape=(n, len(load_vocabulary())))
    who = [f"donor {row % donors}" for row in range(n)] if donors else None
    return LabelledCells(counts, np.asarray(made.X.sum(axis=1), np.float64).ravel(), made.obs[names].tolist(), who)


def right(tuned: Tuned, judged: LabelledCells) -> float:
    guess = np.array(tuned.classes)[tuned.probabilities(judged).argmax(axis=1)]
    return float((guess == np.array(judged.labels)).mean())


def one_of_each(source: LabelledCells) -> LabelledCells:
    return source.take([source.labels.index(label) for label in sorted(set(source.labels))])


def saved(tuned: Tuned, folder: Path) -> Path:
    save_tuned(folder, tuned.model, name="mine", description="", card="", cells_changed=tuned.cells_changed,
               texts_changed=tuned.texts_changed)  # fmt: skip
    return folder


@pytest.mark.parametrize("method", [*LANGCELL, pytest.param("lora", marks=needs_peft)])
def test_a_tuned_model_answers_the_same_after_it_was_saved(
    small_model: LangCellModel, tmp_path: Path, method: str
) -> None:
    before = {name: tensor.clone() for name, tensor in small_model.module.cell_tower.state_dict().items()}
    tuned = tune(small_model, cells(), FinetuneConfig(method, epochs=None if method in LANGCELL[:2] else 1))
    assert tuned.classes == sorted(small_world.LABELS)
    assert tuned.head.term_ids == tuple(
        next(term for term, name in small_world.TYPES.items() if name == label) for label in tuned.classes
    )
    judged = cells(20, seed=5)
    expected = tuned.probabilities(judged)
    np.testing.assert_allclose(expected.sum(axis=1), 1, atol=1e-5)
    loaded = load_bundle(saved(tuned, tmp_path / method))
    assert loaded.head is not None
    assert loaded.head.keeps_texts == tuned.head.keeps_texts == (method in ("classifier", "prototypes", "langcell"))
    again = Tuned(loaded, loaded.head).probabilities(judged)
    np.testing.assert_allclose(again, expected, atol=2e-5)
    # The model that was given is as it was.
    assert small_model.head is None
    for name, tensor in small_model.module.cell_tower.state_dict().items():
        assert torch.equal(tensor, before[name]), name


@pytest.mark.parametrize("method", ["classifier", "prototypes"])
def test_one_cell_a_type_is_enough_and_nothing_is_validated(small_model: LangCellModel, method: str) -> None:
    tuned = tune(small_model, one_of_each(cells()), FinetuneConfig(method))
    assert tuned.comparison == {}
    assert right(tuned, cells(60, seed=9, noise=0.0)) > 0.8


def test_more_cells_help_where_the_words_are_wrong(small_model: LangCellModel) -> None:
    """Labels that no text describes: all that is known of them comes from the cells."""
    strange = {label: f"kind {number}" for number, label in enumerate(small_world.LABELS)}
    source = cells(120, noise=0.3)
    labelled = replace(source, labels=[strange[label] for label in source.labels])
    judged = cells(60, seed=9, noise=0.3)
    judged = replace(judged, labels=[strange[label] for label in judged.labels])
    tuned = tune(small_model, labelled, FinetuneConfig())
    assert tuned.head.term_ids == (None,) * 6
    assert right(tuned, judged) > 0.9


def test_a_cells_probabilities_do_not_depend_on_company(small_model: LangCellModel) -> None:
    tuned, judged = tune(small_model, cells(), FinetuneConfig()), cells(12, seed=3)
    together = tuned.probabilities(judged)
    alone = np.concatenate([tuned.probabilities(judged.take([row])) for row in range(12)])
    np.testing.assert_allclose(together, alone, atol=2e-5)
    backwards = tuned.probabilities(judged.take(np.arange(12)[::-1]))
    np.testing.assert_allclose(together, backwards[::-1], atol=2e-5)


def test_the_order_of_the_labelled_cells_does_not_matter(small_model: LangCellModel) -> None:
    source, judged = cells(), cells(12, seed=3)
    order = np.random.default_rng(0).permutation(len(source))
    made = [tune(small_model, part, FinetuneConfig()).head for part in (source, source.take(order))]
    logits = [head.answer(small_model, judged)[1] * head.temperature for head in made]
    np.testing.assert_allclose(logits[0], logits[1], atol=0.05)


def test_donors_are_held_out_whole(small_model: LangCellModel) -> None:
    tuned = tune(small_model, cells(donors=3), FinetuneConfig())
    assert tuned.comparison["on"] == "3 folds of whole donors"
    source = cells(donors=4)
    split, told = held_out(source, FinetuneConfig("full"))
    assert "whole donors" in told
    assert source.donors is not None
    sides = [{source.donors[row] for row in rows.tolist()} for rows in split]
    assert sides[0] & sides[1] == set()


def test_a_class_of_one_donor_is_not_lost(small_model: LangCellModel) -> None:
    source = cells()
    label = source.labels[0]
    donors = ["first" if own == label else "second" for own in source.labels]
    split, told = held_out(replace(source, donors=donors), FinetuneConfig("full"))
    assert "lost" in told
    assert {source.labels[row] for row in split.train.tolist()} == set(source.labels)


def test_few_cells_are_all_learned_from(small_model: LangCellModel) -> None:
    tuned = tune(small_model, one_of_each(cells()), FinetuneConfig("full", epochs=1))
    assert tuned.comparison == {}
    assert tuned.facts["validation"].startswith("none")
    assert tuned.history == []


def test_a_share_that_is_asked_for_needs_two_cells(small_model: LangCellModel) -> None:
    source = cells()
    label = source.labels[0]
    rows = [row for row, own in enumerate(source.labels) if own != label or row == 0]
    with pytest.raises(InputError, match="has one cell"):
        tune(small_model, source.take(rows), FinetuneConfig("full", validation_share=0.2))


def test_missing_labels_are_left_out_and_counted(small_model: LangCellModel) -> None:
    source = cells()
    holes = replace(source, labels=["" if row % 3 == 0 else label for row, label in enumerate(source.labels)])
    tuned = tune(small_model, holes, FinetuneConfig())
    assert tuned.facts["without_label"] == 20
    kept = tune(small_model, holes.labelled(), FinetuneConfig())
    judged = cells(8, seed=2)
    np.testing.assert_array_equal(tuned.probabilities(judged), kept.probabilities(judged))


def test_what_cannot_be_tuned_on_is_refused(small_model: LangCellModel, tmp_path: Path) -> None:
    source = cells(12)
    for labels, says in (([""] * 12, "No cell has a label"), (["a"] * 12, "one class only")):
        with pytest.raises(InputError, match=says):
            tune(small_model, replace(source, labels=labels), FinetuneConfig())
    with pytest.raises(InputError, match="cellm"):
        tune(small_model, source, FinetuneConfig("cellm"))
    with pytest.raises(InputError, match="length"):
        replace(source, labels=["a"])
    with pytest.raises(InputError, match="No validation cell"):
        tune(small_model, source, FinetuneConfig(), validation=replace(source, labels=["other"] * 12))


@pytest.mark.parametrize(
    "settings",
    [{"method": "magic"}, {"validation_share": 1.0}, {"class_weights": "most"}, {"epochs": 0}, {"seed": -1}],
    ids=str,
)
def test_wrong_settings_are_refused(settings: dict) -> None:
    with pytest.raises(ConfigError):
        FinetuneConfig(**settings)


def test_it_says_when_it_is_worse_than_the_frozen_classifier(small_model: LangCellModel) -> None:
    tuned = tune(small_model, cells(90), FinetuneConfig("langcell_ce", epochs=1, learning_rate=1e-6))
    assert tuned.comparison["worse"] is True
    assert tuned.comparison["langcell_ce"]["macro_f1"] < tuned.comparison["classifier"]["macro_f1"]
    assert tuned.head.facts["comparison"]["worse"] is True


def test_validation_cells_that_are_given_are_used(small_model: LangCellModel) -> None:
    tuned = tune(small_model, cells(), FinetuneConfig(), validation=cells(30, seed=8))
    assert tuned.comparison["cells"] == 30


def test_a_share_or_none_is_as_asked_for(small_model: LangCellModel) -> None:
    by_share = tune(small_model, cells(), FinetuneConfig(validation_share=0.25))
    assert by_share.comparison["on"] == "a share of each class"
    assert 10 <= by_share.comparison["cells"] <= 20
    assert tune(small_model, cells(), FinetuneConfig(validation_share=0.0)).comparison == {}


def test_class_weights() -> None:
    truth = np.array([0, 0, 0, 1])
    balanced = class_weights("balanced", truth, 3)
    assert balanced[truth].mean() == pytest.approx(1)
    assert balanced[1] == pytest.approx(3 * balanced[0])
    assert balanced[2] == 0
    np.testing.assert_allclose(class_weights("cellm", truth, 2), [1 / 16, 9 / 16])
    np.testing.assert_array_equal(class_weights("none", truth, 2), [1, 1])


def test_an_epoch_is_every_row_once() -> None:
    batches = Minibatches(10, 4, 3)
    epochs = [np.concatenate([batches.rows(step) for step in range(first, first + 3)]) for first in (0, 3)]
    for rows in epochs:
        assert sorted(rows.tolist()) == list(range(10))
    assert epochs[0].tolist() != epochs[1].tolist()


def test_a_run_that_was_stopped_resumes_as_if_it_had_not(small_model: LangCellModel, tmp_path: Path) -> None:
    config = FinetuneConfig("full", epochs=3, batch=16, learning_rate=1e-3)
    whole = tune(small_model, cells(), config, folder=tmp_path / "whole")
    with interrupted(), pytest.raises(KeyboardInterrupt):
        tune(small_model, cells(), config, folder=tmp_path / "cut")
    resumed = tune(small_model, cells(), config, folder=tmp_path / "cut")
    assert resumed.history == whole.history
    judged = cells(10, seed=4)
    np.testing.assert_array_equal(resumed.probabilities(judged), whole.probabilities(judged))


def test_training_stops_where_it_gets_no_better(small_model: LangCellModel) -> None:
    patient = FinetuneConfig("full", epochs=30, batch=16, learning_rate=0.5, patience=2)
    tuned = tune(small_model, cells(noise=0.7), patient)
    assert len(tuned.history) < 31
    scores = [(line["macro_f1"], -line["log_loss"]) for line in tuned.history]
    assert scores.index(max(scores)) == len(scores) - 3
    # The weights are those of the best validation, and not of the last.
    assert tuned.comparison["full"]["macro_f1"] == pytest.approx(max(scores)[0], abs=1e-4)


@needs_peft
def test_lora_starts_as_the_frozen_classifier_and_then_moves(small_model: LangCellModel) -> None:
    tuned = tune(small_model, cells(noise=0.6), FinetuneConfig("lora", epochs=2, learning_rate=0.05, patience=9))
    first = tuned.history[0]
    assert first["step"] == 0
    assert first["macro_f1"] == pytest.approx(tuned.comparison["classifier"]["macro_f1"], abs=1e-4)
    assert tuned.history[-1]["log_loss"] != first["log_loss"]
    assert isinstance(tuned.model, LangCellModel)
    names = tuned.model.module.state_dict().keys()
    assert names == small_model.module.state_dict().keys()


def test_without_peft_lora_says_what_to_install(small_model: LangCellModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "peft", None)
    with pytest.raises(ConfigError, match="peft"):
        tune(small_model, cells(), FinetuneConfig("lora", epochs=1))


def test_few_shot_langcell_ce_moves_the_classifier_alone(small_model: LangCellModel) -> None:
    tuned = tune(small_model, cells(), FinetuneConfig("langcell_ce", epochs=2, few_shot=True))
    assert not tuned.cells_changed
    assert tuned.head.keeps_texts
    moved = tune(small_model, cells(), FinetuneConfig("langcell_ce", epochs=2))
    assert moved.cells_changed
    pooler = [made.head.module.pooler.weight for made in (tuned, moved)]  # type: ignore[union-attr]
    # One seed draws one pooler; it stays as it was drawn only where it is frozen.
    assert not torch.equal(pooler[0], pooler[1])


def cellm_model(folder: Path) -> CellLMModel:
    save_cellm(folder, tiny_cellm.parts(rows=small_world.rows_of_genes()), storage="float32")
    return load_cellm(folder)


@pytest.mark.parametrize("method", ["classifier", "cellm", "scbert"])
def test_a_cellm_is_tuned_too(tmp_path: Path, method: str) -> None:
    base = cellm_model(tmp_path / "base")
    tuned = tune(base, cells(40), FinetuneConfig(method, epochs=None if method == "classifier" else 2))
    assert not tuned.head.keeps_texts
    judged = cells(10, seed=5)
    expected = tuned.probabilities(judged)
    loaded = load_cellm(saved(tuned, tmp_path / method))
    assert loaded.head is not None
    np.testing.assert_allclose(Tuned(loaded, loaded.head).probabilities(judged), expected, atol=2e-5)
    alone = np.concatenate([tuned.probabilities(judged.take([row])) for row in range(10)])
    np.testing.assert_allclose(alone, expected, atol=2e-5)
    assert base.head is None


def test_a_geneformer_is_tuned_too(tmp_path: Path) -> None:
    from cellingua.cells.genes import load_vocabulary

    rows, vocabulary = small_world.rows_of_genes(), load_vocabulary()
    tokens = np.arange(2, len(rows) + 2, dtype=np.int32)
    genes = GeneTable(vocabulary.ensembl_ids[rows], vocabulary.symbols[rows], tokens, np.ones(len(rows)))
    torch.manual_seed(0)
    bert = CellTowerConfig(len(rows) + 2, 1, 2, 16, 2, 24, 64)
    config = GeneformerConfig(bert, framed=False, pooling="mean")
    save_geneformer(tmp_path / "base", GeneformerParts("tiny", "random", config, CellTower(bert), genes))
    base = load_geneformer(tmp_path / "base", precision="float32")
    tuned = tune(base, cells(40), FinetuneConfig())
    assert not tuned.head.keeps_texts
    judged = cells(10, seed=5)
    expected = tuned.probabilities(judged)
    loaded = load_geneformer(saved(tuned, tmp_path / "mine"), precision="float32")
    assert loaded.head is not None
    np.testing.assert_allclose(Tuned(loaded, loaded.head).probabilities(judged), expected, atol=2e-5)
    with pytest.raises(InputError, match="LangCell"):
        tune(base, cells(20), FinetuneConfig("lora"))


def test_a_cellm_knows_no_words(tmp_path: Path) -> None:
    base = cellm_model(tmp_path / "base")
    for method in ("prototypes", "langcell", "langcell_ce", "full"):
        assert method in METHODS
        with pytest.raises(InputError, match="LangCell"):
            tune(base, cells(20), FinetuneConfig(method))


def test_scored_genes_leave_all_but_one_layer_as_it_was(tmp_path: Path) -> None:
    base = cellm_model(tmp_path / "base")
    for method, layer in (("cellm", 1), ("scbert", 0)):
        tuned = tune(base, cells(40), FinetuneConfig(method, epochs=1, learning_rate=0.01, validation_share=0.0))
        assert isinstance(tuned.model, CellLMModel)
        now, then = tuned.model.module.performer.state_dict(), base.module.performer.state_dict()
        moved = {name.split(".weight")[0].split(".bias")[0] for name in now if not torch.equal(now[name], then[name])}
        assert moved
        assert all(name == "norm" or name.startswith(f"layers.{layer}.") for name in moved)


@pytest.mark.parametrize(
    ("file", "damage", "says"),
    [
        (HEAD, lambda text: text.replace(b'"classes"', b'"klasses"'), "keys"),
        (HEAD, lambda text: text.replace(b'"format_version": 1', b'"format_version": 2'), "version"),
        (HEAD, lambda text: text.replace(b'"kind": "linear"', b'"kind": "magic"'), "magic"),
        (HEAD, lambda text: text.replace(b'"B cell"', b'"monocyte"'), "twice"),
        (HEAD_WEIGHTS, lambda content: content[:-40], "head"),
    ],
    ids=["keys", "version", "kind", "twice", "short"],
)
def test_a_damaged_head_is_told(small_model: LangCellModel, tmp_path: Path, file: str, damage, says: str) -> None:  # type: ignore[no-untyped-def]
    from cellingua.models.manifest import write_manifest

    folder = saved(tune(small_model, one_of_each(cells()), FinetuneConfig()), tmp_path / "mine")
    content = (folder / file).read_bytes()
    (folder / file).write_bytes(damage(content))
    with pytest.raises(ModelError, match=r"bytes|SHA-256"):
        load_bundle(folder)
    write_manifest(folder)
    with pytest.raises(ModelError, match=says):
        load_bundle(folder)


def test_a_head_of_another_model_is_refused(small_model: LangCellModel, tmp_path: Path) -> None:
    from cellingua.models.manifest import write_manifest

    mine = saved(tune(small_model, one_of_each(cells()), FinetuneConfig()), tmp_path / "mine")
    base = cellm_model(tmp_path / "base")
    other = saved(tune(base, one_of_each(cells()), FinetuneConfig()), tmp_path / "other")
    for file in (HEAD, HEAD_WEIGHTS):
        (mine / file).write_bytes((other / file).read_bytes())
    write_manifest(mine)
    with pytest.raises(ModelError, match="width"):
        load_bundle(mine)


def test_a_tuned_model_can_be_tuned_again(small_model: LangCellModel, tmp_path: Path) -> None:
    first = load_bundle(saved(tune(small_model, cells(), FinetuneConfig("full", epochs=1)), tmp_path / "first"))
    second = tune(first, cells(30, seed=3), FinetuneConfig())
    loaded = load_bundle(saved(second, tmp_path / "second"))
    assert loaded.head is not None
    assert loaded.head.method == "classifier"
    assert not (tmp_path / "second" / "checkpoint").exists()
