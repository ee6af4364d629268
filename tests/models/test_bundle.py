"""A model folder comes back as it was, and a damaged one is refused by name."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tiny_model as tiny
import torch
from safetensors.torch import load_file, save_file

from cellingua.core.errors import ModelError
from cellingua.models.bundle import load_bundle, save_bundle
from cellingua.models.manifest import write_manifest
from cellingua.models.storage import STORAGES

TEXTS = ["cell type: b cell.", "monocytes", "t cell"]


@pytest.mark.parametrize("kind", ["bag", "bert"])
def test_float32_comes_back_exactly(tmp_path: Path, kind: str) -> None:
    parts = tiny.parts(kind)
    save_bundle(tmp_path / "m", parts, storage="float32")
    model = load_bundle(tmp_path / "m")
    texts = model.encode_texts(TEXTS)
    ours, theirs = model.module.state_dict(), parts.module.state_dict()
    assert ours.keys() == theirs.keys()
    for name in theirs:
        torch.testing.assert_close(ours[name], theirs[name], atol=0, rtol=0)
    ids, mask = (torch.from_numpy(x) for x in tiny.pieces().encode(TEXTS))
    with torch.no_grad():
        np.testing.assert_allclose(texts, parts.module.texts(ids, mask).numpy(), atol=1e-6)
    assert model.config == parts.module.config
    assert (model.name, model.term_ids, model.calibration) == ("tiny", tiny.TERMS, {"temperature": 2.0})
    np.testing.assert_array_equal(model.genes.ensembl_ids, parts.genes.ensembl_ids)
    np.testing.assert_array_equal(model.genes.medians, parts.genes.medians)
    np.testing.assert_allclose(model.term_vectors, parts.term_vectors, atol=1e-3)
    np.testing.assert_allclose(np.linalg.norm(model.term_vectors, axis=1), 1, atol=1e-6)


def test_smaller_storage_is_smaller_and_close(tmp_path: Path) -> None:
    parts, sizes, vectors = tiny.parts(), {}, {}
    for storage in STORAGES:
        save_bundle(tmp_path / storage, parts, storage=storage)
        sizes[storage] = (tmp_path / storage / "text.safetensors").stat().st_size
        vectors[storage] = load_bundle(tmp_path / storage).encode_texts(TEXTS)
    assert sizes["float32"] > sizes["float16"] > sizes["int8"]
    np.testing.assert_allclose(vectors["float16"], vectors["float32"], atol=3e-3)
    np.testing.assert_allclose((vectors["int8"] * vectors["float32"]).sum(axis=1), 1, atol=2e-3)


def test_same_parts_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        save_bundle(tmp_path / name, tiny.parts(), storage="int8")
    assert load_bundle(tmp_path / "a").hash == load_bundle(tmp_path / "b").hash


def test_saving_replaces_and_leaves_nothing_else(bundle: Path) -> None:
    save_bundle(bundle, tiny.parts("bert"), storage="float16")
    assert load_bundle(bundle).config.cell_kind == "bert"
    assert [path.name for path in bundle.parent.iterdir()] == ["tiny"]


def test_a_failed_save_leaves_the_old_model(bundle: Path) -> None:
    parts = tiny.parts()
    torch.nn.init.constant_(parts.module.cell_projection.linear.weight, torch.nan)
    before = load_bundle(bundle).hash
    with pytest.raises(ValueError, match="not finite"):
        save_bundle(bundle, parts)
    assert load_bundle(bundle).hash == before
    assert [path.name for path in bundle.parent.iterdir()] == ["tiny"]


def test_terms_need_no_text_tower(bundle: Path) -> None:
    (bundle / "text.safetensors").unlink()
    (bundle / "tokenizer" / "tokenizer.json").unlink()
    model = load_bundle(bundle)
    assert model.encode_cells(tiny.ranked()).shape == (5, 32)
    with pytest.raises(ModelError, match=r"text\.safetensors is missing"):
        model.encode_texts(TEXTS)


@pytest.mark.parametrize(
    "name",
    ["config.json", "weights.safetensors", "genes.tsv.gz", "terms.safetensors", "calibration.json", "card.md"],
)
def test_missing_flipped_or_short_files_are_named(bundle: Path, name: str) -> None:
    path = bundle / name
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 1
    path.write_bytes(bytes(flipped))
    with pytest.raises(ModelError, match=f"{name} has the SHA-256"):
        load_bundle(bundle)
    path.write_bytes(whole[:-1])
    with pytest.raises(ModelError, match=f"{name} has {len(whole) - 1:,} bytes"):
        load_bundle(bundle)
    path.unlink()
    with pytest.raises(ModelError, match=f"{name} is missing"):
        load_bundle(bundle)


def test_flipped_text_is_found_when_it_is_read(bundle: Path) -> None:
    path = bundle / "text.safetensors"
    flipped = bytearray(path.read_bytes())
    flipped[-5] ^= 1
    path.write_bytes(bytes(flipped))
    model = load_bundle(bundle)
    with pytest.raises(ModelError, match=r"text\.safetensors has the SHA-256"):
        model.encode_texts(TEXTS)


def edit(path: Path, change: Callable[[dict], object]) -> None:
    """Change a JSON file, or the tensors of a safetensors file, in place."""
    if path.suffix == ".json":
        held = json.loads(path.read_text(encoding="utf-8"))
        change(held)
        path.write_text(json.dumps(held), encoding="utf-8")
    else:
        tensors = load_file(path)
        change(tensors)
        save_file(tensors, path)


BIAS = "cell_projection.linear.bias"
WRONG = {
    "version": ("config.json", lambda held: held.update(format_version=2), "format version 2"),
    "kind": ("config.json", lambda held: held.update(kind="other"), "kind 'other'"),
    "key": ("config.json", lambda held: held.update(colour="red"), "unknown key 'colour'"),
    "no key": ("config.json", lambda held: held.pop("name"), "lacks the key 'name'"),
    "model key": ("config.json", lambda held: held["model"].update(colour="red"), "no key 'colour'"),
    "width": ("config.json", lambda held: held["model"].update(joint_width=16), "has the shape"),
    "tower": ("config.json", lambda held: held["model"].update(cell_kind="bert"), "the tower of that name"),
    "lacks": ("weights.safetensors", lambda held: held.pop(BIAS), "lacks the weight 'linear.bias'"),
    "shape": ("weights.safetensors", lambda held: held.update({BIAS: torch.zeros(3)}), r"shape \(3,\)"),
    "nan": ("weights.safetensors", lambda held: held[BIAS].fill_(torch.nan), "not finite"),
    "unknown": ("weights.safetensors", lambda held: held.update(more=torch.zeros(1)), "unknown weight 'more'"),
    "type": ("weights.safetensors", lambda held: held.update({BIAS: torch.zeros(32).long()}), "int64"),
    "scale": ("weights.safetensors", lambda held: held.update({BIAS: torch.zeros(32).to(torch.int8)}), "no scale"),
    "terms": ("terms.safetensors", lambda held: held.update(vectors=torch.zeros(2, 32)), "3 ids"),
    "calibration": ("calibration.json", lambda held: held.update(temperature=0), "above 0"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_file_with_a_right_hash_is_refused_too(bundle: Path, case: str) -> None:
    name, change, message = WRONG[case]
    edit(bundle / name, change)
    write_manifest(bundle)
    with pytest.raises(ModelError, match=message) as caught:
        load_bundle(bundle)
    assert name in str(caught.value)


@pytest.mark.parametrize("name", ["weights.safetensors", "terms.safetensors", "genes.tsv.gz", "config.json"])
@pytest.mark.parametrize("keep", [0, 7, 100])
def test_truncated_files_with_a_right_hash(bundle: Path, name: str, keep: int) -> None:
    (bundle / name).write_bytes((bundle / name).read_bytes()[:keep])
    write_manifest(bundle)
    with pytest.raises(ModelError, match=name):
        load_bundle(bundle)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda held: held.update(format_version=9), "format version 9"),
        (lambda held: held["files"].update({"../x": held["files"]["card.md"]}), "plain names"),
        (lambda held: held["files"].update({"/etc/x": held["files"]["card.md"]}), "plain names"),
        (lambda held: held["files"].update({"gone.txt": held["files"]["card.md"]}), "gone.txt is missing"),
        (lambda held: held["files"].pop("weights.safetensors"), "doesn't list weights.safetensors"),
        (lambda held: held.update(files=[1]), "not a manifest"),
    ],
)
def test_a_manifest_is_checked(bundle: Path, change: Callable[[dict], object], message: str) -> None:
    edit(bundle / "manifest.json", change)
    with pytest.raises(ModelError, match=message):
        load_bundle(bundle)


def test_a_tokeniser_with_more_pieces_than_rows(bundle: Path) -> None:
    more = tiny.pieces()
    more.add_special(["[MORE]"])
    (bundle / "tokenizer" / "tokenizer.json").write_text(more.to_json(), encoding="utf-8")
    write_manifest(bundle)
    with pytest.raises(ModelError, match="15 pieces"):
        load_bundle(bundle).encode_texts(TEXTS)


def test_genes_of_another_tower_are_refused(tmp_path: Path) -> None:
    parts = tiny.parts("bert")
    parts.genes.tokens[-1] = 50
    save_bundle(tmp_path / "m", parts)
    with pytest.raises(ModelError, match="token 50"):
        load_bundle(tmp_path / "m")
    parts.genes.tokens[-1] = 0
    save_bundle(tmp_path / "m", parts)
    with pytest.raises(ModelError, match="ends at token 40"):
        load_bundle(tmp_path / "m")


def test_nothing_but_torch_and_tokenizers_reads_a_bundle(bundle: Path) -> None:
    code = (
        "import sys; from cellingua.models.shelf import load_model; "
        f"load_model({str(bundle)!r}).encode_texts(['b cell']); "
        "print(sorted({name.split('.')[0] for name in sys.modules} & "
        "{'transformers', 'sentence_transformers', 'huggingface_hub', 'requests', 'pandas', 'anndata'}), "
        "'torch._dynamo' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[] False"
