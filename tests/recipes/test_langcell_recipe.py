"""The LangCell recipe end to end, on a tiny data folder and with a tiny text tower."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import small_world
import tiny_data
import torch
from safetensors.torch import load_file

from cellingua.cells.genes import load_vocabulary
from cellingua.core.config import to_dict
from cellingua.core.errors import ConfigError, FileError
from cellingua.core.progress import Silent
from cellingua.models.shelf import load_model
from cellingua.models.text_sources import load_text_source
from cellingua.recipes import langcell, material, words
from cellingua.recipes.card import write_card
from cellingua.recipes.langcell import RecipeConfig, preset, run
from cellingua.recipes.langcell_config import ObjectivesConfig, StageConfig, TopLayers
from cellingua.recipes.langcell_step import Step
from cellingua.recipes.material import read_material
from cellingua.recipes.validate import WEIGHTS, Validation
from cellingua.training.loop import TrainConfig
from cellingua.training.optimise import OptimiseConfig
from cellingua.words.candidates import from_labels, whole_ontology
from cellingua.words.ontology import load_ontology

STEPS = 21
CONFIG = RecipeConfig(
    "tiny",
    "A model of six planted types.",
    gene_width=16,
    hidden=24,
    token_limit=64,
    least_profiles=3,
    batch=24,
    marker_share=0.2,
    machine_share=0.1,
    curated_share=0.3,
    word_steps=2,
    held_out=(tiny_data.MIXED,),
    top=TopLayers(1, 12, 8, 2, 16),
    objectives=ObjectivesConfig(
        symmetric=False, masked_cells=6, matched_cells=4, match_every=2, chunk=64, pair_chunk=64, keep=None
    ),
    first=StageConfig(3, 4e-3),
    matched=StageConfig(5, 4e-3),
    second=StageConfig(3, 4e-3),
    stage_batch=16,
    match_pieces=12,
    train=TrainConfig(STEPS, seed=1, checkpoint_every=8, optimise=OptimiseConfig(learning_rate=4e-3)),
)


@dataclass
class Block:
    counts: object
    totals: np.ndarray


@pytest.fixture(scope="module", autouse=True)
def _few_draws() -> Iterator[None]:
    """Estimate statistics from fewer cells, read two texts a term, and their first pieces: the same code, sooner."""
    writings = words.writings
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(langcell, "BACKGROUND", 200)
        patch.setattr(material, "PSEUDO_CELLS", 100)
        patch.setattr(words, "PIECES", 16)
        patch.setattr(words, "writings", lambda ontology, term: writings(ontology, term)[:2])
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folders ``data`` and ``tower``."""
    made = tmp_path_factory.mktemp("recipe")
    tiny_data.write_folder(made / "data")
    tiny_data.write_text_tower(made / "tower")
    return made


@pytest.fixture(scope="module")
def done(folder: Path) -> Path:
    """The output folder of an unbroken run."""
    assert run(CONFIG, folder / "data", folder / "out", folder / "tower") == folder / "out" / "tiny"
    return folder / "out"


def held_in(run_folder: Path) -> dict:
    return json.loads((run_folder / "checkpoint" / "run.json").read_text())


def test_the_loss_falls(done: Path) -> None:
    for part in ("validation", "final"):
        lines = [json.loads(line) for line in (done / part / "aligned" / "log.jsonl").read_text().splitlines()]
        assert [line["step"] for line in lines] == [0, 10, 20]
        assert lines[-1]["cell_text"] < 0.5 * lines[0]["cell_text"]


def test_the_model_loads_and_names_planted_types(done: Path) -> None:
    model = load_model(done / "tiny")
    assert model.name == "tiny"
    assert model.term_ids == load_ontology("CL").ids
    assert model.supported == frozenset(small_world.TYPES)
    np.testing.assert_allclose(np.linalg.norm(model.term_vectors, axis=1), 1, atol=1e-3)
    sample = small_world.cells(60, seed=77)
    counts = sample.X.copy()
    columns = small_world.rows_of_genes()
    wide = np.zeros((60, len(load_vocabulary())), np.float32)
    wide[:, columns] = counts.toarray()
    block = Block(type(counts)(wide), wide.sum(axis=1).astype(np.float64))
    cells = model.encode_cells(model.tokenise(block))
    terms = list(small_world.TYPES)
    for candidates in (from_labels(terms), whole_ontology()):
        logits = model.logits(block, cells, model.prepare(candidates))
        found = np.array(candidates.term_ids)[logits.argmax(axis=1)]
        assert (found == sample.obs["truth"].to_numpy()).mean() > 0.8


def test_a_term_taught_as_another_has_its_vector() -> None:
    terms, vectors = ["CL:0000576", "CL:0000860", "CL:0002057"], np.eye(3, dtype=np.float32)
    bank = words.WordBank(terms, [], np.zeros(0, np.int64), torch.zeros(0, 1), "none")
    assert (bank.as_taught(vectors, {"CL:0000860": "CL:0002057"}) == vectors[[0, 2, 2]]).all()
    assert (bank.as_taught(vectors, {}) == vectors).all()


def test_held_out_files_choose_the_calibration(done: Path) -> None:
    model = load_model(done / "tiny")
    assert set(model.calibration) == {
        "temperature",
        "ontology_temperature",
        "words_only",
        "unprofiled",
        "wider_term",
        "agreement",
        "unmarked",
        "ontology_markers",
        "decoded",
        "ontology_decoded",
        "threshold",
        "match",
    }
    assert model.calibration["temperature"] != 1.0
    assert all(-6 <= model.calibration[key] <= 0 for key in ("words_only", "unprofiled", "wider_term"))
    assert {model.calibration["decoded"], model.calibration["ontology_decoded"]} <= set(WEIGHTS)
    card = (done / "tiny" / "card.md").read_text(encoding="utf-8")
    assert f"temperature {model.calibration['temperature']:.3f}" in card
    assert f"strength {model.evidence.strength:g}" in card
    assert "| mixed | 24 |" in card


def test_the_decoder_knows_the_planted_types_and_what_they_are_kinds_of(done: Path) -> None:
    model, ontology = load_model(done / "tiny"), load_ontology("CL")
    assert model.decoder is not None
    assert model.decoder.terms == frozenset(small_world.TYPES).union(
        *(ontology.ancestors(t) for t in small_world.TYPES)
    )
    said = model.decoder.prepare(
        model.candidate_vectors(from_labels(list(small_world.TYPES))), from_labels(list(small_world.TYPES)).term_ids
    )
    symbols = load_vocabulary().ensembl_ids[said.columns].tolist()
    for place, (term, genes) in enumerate(tiny_data.markers().items()):
        own = [symbols.index(gene) for gene in genes if gene in symbols]
        above = said.levels[:, own].mean(axis=1)
        assert above[place] > np.delete(above, place).max(), term


def test_the_model_that_is_validated_has_not_seen_the_held_out_file(done: Path) -> None:
    # 47 curated cells, and of 48 mixed ones 12 with a curated label and 12 with a sure machine's.
    assert held_in(done / "validation" / "second")["config"]["cells"] == 47
    assert held_in(done / "final" / "second")["config"]["cells"] == 71


def test_the_card_tells_what_was_seen(done: Path) -> None:
    card = (done / "tiny" / "card.md").read_text(encoding="utf-8")
    assert "12 mean profiles of 6 cell types from 2 studies (North, South)" in card
    assert "59 real cells with a curated label and 12 with a machine-made one" in card
    assert "| curated | 47 | 0 |" in card
    assert "| mixed | 12 | 12 |" in card
    assert "1 layers of width 16" in card
    assert "MiniLM" not in card
    assert json.dumps(to_dict(CONFIG), indent=1) in card


def test_a_planted_evaluation_cell_is_refused_and_told(folder: Path, done: Path) -> None:
    read = read_material(folder / "data", (), Silent())
    assert read.refused == {"curated": (1, 48), "mixed": (0, 48)}
    assert tiny_data.PLANTED not in read.cells.names.tolist()
    assert "1 of 96 cells were refused" in (done / "tiny" / "card.md").read_text(encoding="utf-8")
    assert not any("evaluation" in path for path in read.hashes)


def test_without_evaluation_cells_nothing_is_claimed(folder: Path, done: Path, tmp_path: Path) -> None:
    tiny_data.write_folder(tmp_path, evaluation=False)
    read = read_material(tmp_path, ("CL:0000576",), Silent())
    assert read.refused is None
    assert tiny_data.PLANTED in read.cells.names.tolist()
    for terms in (read.cells.terms.tolist(), read.profiles.terms.tolist(), read.markers):
        assert set(terms) == set(small_world.TYPES) - {"CL:0000576"}
    card = write_card(to_dict(CONFIG), read, None, {}, load_model(done / "tiny").config, 5)
    assert "No evaluation folder was given" in card
    assert "None: temperatures are 1." in card


def test_stopped_and_resumed_is_an_unbroken_run(
    folder: Path, done: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # It is stopped after the validation, in the middle of the final training.
    shutil.copy(done / "words.safetensors", tmp_path)
    shutil.copytree(done / "validation", tmp_path / "validation")
    plain, calls = Step.__call__, []

    def interrupted(self: Step, step: int) -> dict[str, float]:
        calls.append(1)
        if len(calls) > STEPS + 3 + 3:
            raise KeyboardInterrupt
        return plain(self, step)

    monkeypatch.setattr(Step, "__call__", interrupted)
    # What the validation found plays no part before the end, which this run does not see.
    scored = langcell.validate
    monkeypatch.setattr(
        langcell,
        "validate",
        lambda *_: Validation(1.0, 0.0, 0.0, 1.0, 0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 0.0, {}, {}, {}, {}),
    )
    with pytest.raises(KeyboardInterrupt):
        run(CONFIG, folder / "data", tmp_path, folder / "tower")
    assert not (tmp_path / "tiny").exists()
    monkeypatch.setattr(Step, "__call__", plain)
    monkeypatch.setattr(langcell, "validate", scored)
    run(CONFIG, folder / "data", tmp_path, folder / "tower")
    names = sorted(path.relative_to(done / "tiny") for path in (done / "tiny").rglob("*") if path.is_file())
    assert len(names) > 6
    for name in names:
        assert (tmp_path / "tiny" / name).read_bytes() == (done / "tiny" / name).read_bytes(), name


def test_another_configuration_is_refused(folder: Path, done: Path) -> None:
    other = replace(CONFIG, batch=64)
    with pytest.raises(ConfigError, match=r"recipe\.batch = 24"):
        run(other, folder / "data", done, folder / "tower")


def test_another_text_tower_is_refused_and_its_words_are_read_anew(folder: Path, done: Path, tmp_path: Path) -> None:
    shutil.copytree(done, tmp_path, dirs_exist_ok=True)
    other = tiny_data.write_text_tower(folder / "other tower", seed=5)
    with pytest.raises(ConfigError, match="words ="):
        run(CONFIG, folder / "data", tmp_path, other)
    before, after = (load_file(place / "words.safetensors")["features"] for place in (done, tmp_path))
    assert before.shape == after.shape
    assert not torch.allclose(before, after)


def test_words_adapted_for_another_model_are_refused(folder: Path, done: Path) -> None:
    model = load_model(done / "tiny")
    model.encode_texts(["the text side is loaded when it is first used"])
    tower, pieces = load_text_source(folder / "tower")
    bank = words.embed_words(tower, pieces, done / "words.safetensors", Silent())
    with pytest.raises(ConfigError, match="vectors ="):
        words.adapt_words(model.module, pieces, bank, -model.term_vectors, 2, Silent(), done / "final" / "words")


@pytest.mark.parametrize("content", [b"", b"half a file"])
def test_words_that_were_half_written_are_read_anew(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "words.safetensors").write_bytes(content)
    assert words._cached(tmp_path / "words.safetensors", "a source") is None


def test_a_file_to_hold_out_must_be_there(folder: Path) -> None:
    with pytest.raises(FileError, match="'mixd'"):
        read_material(folder / "data", (), Silent()).without(["mixd"])


def test_presets() -> None:
    assert preset("langcell_mini").name == "langcell_mini"
    for unknown in ("langcell", "../recipes/langcell_mini", ""):
        with pytest.raises(ConfigError, match="no preset") as caught:
            preset(unknown)
        assert "langcell_mini" in str(caught.value)
