"""The model as the tasks see it."""

from __future__ import annotations

import gzip
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import tiny_model as tiny
import torch
from scipy.sparse import csr_matrix

from cellingua.cells.genes import load_vocabulary
from cellingua.core.errors import ConfigError, InputError, ModelError
from cellingua.models import model as model_room
from cellingua.models.bundle import load_bundle, save_bundle
from cellingua.models.gene_table import GeneTable, read_gene_table
from cellingua.models.inputs import Prepared
from cellingua.models.langcell import LangCellConfig, LangCellModule, count_parameters
from cellingua.models.model import LangCellModel
from cellingua.models.shelf import find_model, list_models, load_model


@dataclass
class Block:
    counts: csr_matrix
    totals: np.ndarray


@dataclass
class Texts:
    term_ids: list[str | None]
    texts: list[str]
    origin: str = "user"


def made(tmp_path: Path, kind: str) -> LangCellModel:
    save_bundle(tmp_path / "m", tiny.parts(kind), storage="float32")
    return load_bundle(tmp_path / "m")


def test_the_papers_size() -> None:
    with torch.device("meta"):
        module = LangCellModule(LangCellConfig.paper())
    assert count_parameters(module.cell_tower) == 39_302_656
    assert count_parameters(module.text_tower) == 133_130_496
    assert count_parameters(module) == 172_762_882
    assert module.config.token_limit == 2047


@pytest.mark.parametrize("kind", ["bag", "bert"])
@pytest.mark.parametrize("state", ["joint", "cls"])
def test_batches_change_nothing(tmp_path: Path, kind: str, state: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, cells = made(tmp_path, kind), tiny.ranked()
    whole = model.encode_cells(cells, state=state)
    np.testing.assert_allclose(model.encode_cells(cells, state=state, batch_size=2), whole, atol=1e-6)
    monkeypatch.setattr(model_room, "TOKEN_BUDGET", 7)
    np.testing.assert_allclose(model.encode_cells(cells, state=state), whole, atol=1e-6)
    order = np.array([3, 0, 4, 1, 2])
    np.testing.assert_allclose(model.encode_cells(cells.take(order), state=state), whole[order], atol=1e-6)
    if state == "joint":
        np.testing.assert_allclose(np.linalg.norm(whole, axis=1), 1, atol=1e-6)
    assert model.encode_cells(cells.take(np.array([], dtype=np.int64))).shape == (0, 32)


def test_unknown_state(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="'mean'"):
        made(tmp_path, "bag").encode_cells(tiny.ranked(), state="mean")


def test_candidates_come_from_the_store_or_the_tower(tmp_path: Path) -> None:
    model = made(tmp_path, "bag")
    vectors = model.candidate_vectors(Texts([tiny.TERMS[1], None, tiny.TERMS[0]], ["", "t cell", "b cell"]))
    np.testing.assert_array_equal(vectors[0], model.term_vectors[1])
    np.testing.assert_allclose(vectors[1:], model.encode_texts(["t cell", "b cell"]), atol=1e-6)
    for unknown in ("CL:9999999", None):
        with pytest.raises(ModelError, match="no vector"):
            model.candidate_vectors(Texts([unknown], [""]))


def test_logits_are_similarity_evidence_and_temperature(tmp_path: Path) -> None:
    class Evidence:
        def score(self, block: object, term_ids: object, unmarked: float = 0.0) -> np.ndarray:
            assert term_ids == tuple(tiny.TERMS)
            assert unmarked == wanted
            return np.full((5, 3), 1.5, dtype=np.float32)

        def knows(self, term_ids: object) -> np.ndarray:
            raise NotImplementedError

    model = made(tmp_path, "bag")
    block = Block(csr_matrix((5, 3)), np.zeros(5))
    cells = model.encode_cells(tiny.ranked())
    candidates = model.prepare(Texts(list(tiny.TERMS), ["", "", ""]))
    plain = np.array([[float(cell @ term) / 0.05 / 2.0 for term in model.term_vectors] for cell in cells])
    np.testing.assert_allclose(model.logits(block, cells, candidates), plain, atol=1e-5)
    model.evidence, wanted = Evidence(), 0.0
    np.testing.assert_allclose(model.logits(block, cells, candidates), plain + 0.75, atol=1e-5)
    model.calibration["unmarked"] = wanted = 4.0
    user = model.prepare(Texts(list(tiny.TERMS), ["", "", ""]))
    np.testing.assert_allclose(model.logits(block, cells, user), plain + 0.75, atol=1e-5)
    wanted = 0.0  # of the whole ontology most terms have none
    model.logits(block, cells, model.prepare(Texts(list(tiny.TERMS), ["", "", ""], "ontology")))
    assert isinstance(candidates, Prepared)


def test_tokens_follow_ensembl_ids(tmp_path: Path) -> None:
    vocabulary = load_vocabulary().ensembl_ids
    columns = [7, 3, 11]
    parts = tiny.parts()
    ids = parts.genes.ensembl_ids.copy()
    ids[[0, 5, 9]] = vocabulary[columns]
    changed = GeneTable(ids, parts.genes.symbols, parts.genes.tokens, np.ones(tiny.GENES))
    save_bundle(tmp_path / "m", replace(parts, genes=changed))
    counts = np.zeros((2, len(vocabulary)), dtype=np.float32)
    counts[0, columns], counts[0, 20] = (2, 5, 1), 90
    block = Block(csr_matrix(counts), np.array([100.0, 0.0]))
    ranked = load_bundle(tmp_path / "m").tokenise(block)
    assert ranked.tokens.tolist() == [7, 2, 11]
    np.testing.assert_allclose(ranked.values, [500, 200, 100], rtol=1e-6)
    assert ranked.indptr.tolist() == [0, 3, 3]


def test_gene_table_columns_and_round_trip(tmp_path: Path) -> None:
    table = tiny.genes()
    tokens, medians = table.columns(np.array(["ZZZ", table.ensembl_ids[4], "", table.ensembl_ids[0]]))
    assert tokens.tolist() == [-1, 6, -1, 2]
    assert medians.tolist() == [1.0, table.medians[4], 1.0, table.medians[0]]
    (tmp_path / "g.tsv.gz").write_bytes(table.to_bytes())
    back = read_gene_table(tmp_path / "g.tsv.gz")
    for name in ("ensembl_ids", "symbols", "tokens", "medians"):
        np.testing.assert_array_equal(getattr(back, name), getattr(table, name))


def test_gene_table_passes_over_names_without_a_token(tmp_path: Path) -> None:
    text = gzip.decompress(tiny.genes().to_bytes()).decode("utf-8")
    (tmp_path / "g.tsv.gz").write_bytes(gzip.compress((text + "ENSG99\tOLD\t\t\n").encode("utf-8")))
    assert len(read_gene_table(tmp_path / "g.tsv.gz")) == tiny.GENES
    (tmp_path / "g.tsv.gz").write_bytes(gzip.compress((text + "ENSG99\tOLD\t\t1.0\n").encode("utf-8")))
    with pytest.raises(ModelError, match="can't be read"):
        read_gene_table(tmp_path / "g.tsv.gz")


def test_terms_known_from_words_alone_carry_a_handicap_unless_asked_for(tmp_path: Path) -> None:
    calibration = {"temperature": 2.0, "words_only": -3.0, "ontology_temperature": 4.0}
    parts = replace(tiny.parts(), supported=frozenset(tiny.TERMS[:2]), calibration=calibration)
    save_bundle(tmp_path / "m", parts, storage="float32")
    model = load_bundle(tmp_path / "m")
    assert model.supported == frozenset(tiny.TERMS[:2])
    block = Block(csr_matrix((5, 3)), np.zeros(5))
    cells = model.encode_cells(tiny.ranked())
    raw = cells @ model.term_vectors.T / 0.05
    for origin, expected in (
        ("user", raw / 2.0),
        ("ontology", (raw + np.array([0.0, 0.0, -3.0])) / 4.0),
        ("tissue", (raw + np.array([0.0, 0.0, -3.0])) / 4.0),
    ):
        candidates = model.prepare(Texts(list(tiny.TERMS), ["", "", ""], origin))
        np.testing.assert_allclose(model.logits(block, cells, candidates), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [("ensembl_ids", "ENSG00000000001", "id twice"), ("tokens", 3, "token twice"), ("medians", 0.0, "above 0")],
)
def test_gene_table_refuses(column: str, value: object, message: str) -> None:
    table = tiny.genes()
    columns = {name: getattr(table, name).copy() for name in ("ensembl_ids", "symbols", "tokens", "medians")}
    columns[column][0] = value
    with pytest.raises(ModelError, match=message):
        GeneTable(**columns)


def test_configurations_that_make_no_sense() -> None:
    good = tiny.module("bag").config
    with pytest.raises(ConfigError, match="cell_kind"):
        LangCellConfig("bird", good.text, bag=good.bag)
    with pytest.raises(ConfigError, match="cell_kind"):
        LangCellConfig("bert", good.text, bag=good.bag)
    with pytest.raises(ConfigError, match="temperature"):
        LangCellConfig("bag", good.text, bag=good.bag, temperature=0)
    with pytest.raises(ConfigError, match="encoder_width"):
        LangCellConfig("bag", good.text, bag=good.bag, match_head=True)


def test_shelf(bundle: Path) -> None:
    shelf = bundle.parent
    (info,) = list_models(shelf)
    listed = sum(path.stat().st_size for path in bundle.rglob("*") if path.is_file() and path.name != "manifest.json")
    assert (info.name, info.description, info.size) == ("tiny", "random weights", listed)
    assert find_model("tiny", shelf) == find_model(bundle, shelf) == bundle
    assert load_model("tiny", shelf=shelf).name == "tiny"
    with pytest.raises(ModelError, match="'tinny'") as caught:
        load_model("tinny", shelf=shelf)
    assert caught.value.try_ == "tiny"
    with pytest.raises(ModelError, match=r"manifest\.json is missing"):
        load_model(shelf)
