"""The drug model: what its answers must not depend on, what it warns of, and its folder."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny_drug
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from cellingua.calibration.ranges import covered
from cellingua.core.errors import GeneError, InputError, ModelError
from cellingua.models.drug_bundle import REQUIRED, load_drug_model
from cellingua.models.drug_expression import GeneScale, Platform, Samples, in_genes, mixture_quantiles
from cellingua.models.drug_factors import fit_factors, with_own
from cellingua.models.drug_model import FEW, STRANGE, UNLIKE, DrugAnswer, DrugModel
from cellingua.models.shelf import list_models, load_any
from cellingua.recipes.drug_mini import fit
from cellingua.recipes.drug_platform import second_platform

SAME = 1e-9


def new(lines: int = 6, seed: int = 5) -> Samples:
    return tiny_drug.world(lines, seed)[0]


def changed(samples: Samples, **what: object) -> Samples:
    return replace(samples, **what)


def same(a: DrugAnswer, b: DrugAnswer, rows: slice | list[int] = slice(None)) -> None:
    """Assert that all numbers of `a` are those of the rows of `b`."""
    for name in ("value", "sd", "low", "high", "percentile", "distance", "times", "coverage"):
        assert np.allclose(getattr(a, name), getattr(b, name)[rows], rtol=0, atol=1e-7), name
    assert a.warnings == [b.warnings[row] for row in np.arange(len(b.samples))[rows]]


def test_new_lines_are_predicted_and_the_ranges_hold() -> None:
    model = tiny_drug.model()
    samples, truth = tiny_drug.world(60, 3)
    said = model.predict(samples)
    assert said.value.shape == (60, tiny_drug.DRUGS)
    inside = [np.corrcoef(said.value[:, d], truth[:, d])[0, 1] for d in range(tiny_drug.DRUGS)]
    assert min(inside) > 0.8
    assert np.mean((said.value - truth) ** 2) < 0.5 * np.mean((said.drug_mean - truth) ** 2)
    noisy = truth + 0.3 * np.random.default_rng(1).normal(size=truth.shape)
    assert covered(noisy, said.low, said.high) > 0.8
    assert (said.low < said.value).all()
    assert (said.value < said.high).all()
    assert 0 <= said.percentile.min() <= said.percentile.max() <= 100
    for drug in range(tiny_drug.DRUGS):  # more sensitive is a lower percentile
        assert (np.diff(said.percentile[np.argsort(said.value[:, drug]), drug]) >= 0).all()


def test_a_sample_is_answered_alike_alone_in_any_order_and_beside_others() -> None:
    model, samples = tiny_drug.model(), new()
    whole = model.predict(samples)
    for row in range(6):
        same(model.predict(samples.take(np.array([row]))), whole, [row])
    order = [3, 1, 5, 0, 4, 2]
    same(model.predict(samples.take(np.array(order))), whole, order)
    # beside a sample that lacks genes, and many others
    beside = tiny_drug.world(300, 9)[0]
    values = beside.values.copy()
    values[::3, :40] = np.nan
    both = Samples(samples.names + beside.names, samples.genes, np.concatenate([samples.values, values]))
    same(whole, model.predict(both), list(range(6)))


@settings(max_examples=10)
@given(st.randoms(use_true_random=False))
def test_the_order_of_genes_says_nothing(random: object) -> None:
    model, samples = tiny_drug.model(), new(2)
    order = np.random.default_rng(random.randrange(1 << 30)).permutation(tiny_drug.GENES)  # type: ignore[attr-defined]
    moved = changed(samples, genes=samples.genes[order], values=samples.values[:, order])
    same(model.predict(moved), model.predict(samples))


def test_units_say_nothing_and_neither_do_genes_that_the_model_lacks() -> None:
    model, samples = tiny_drug.model(), new()
    want = model.predict(samples)
    for values in (np.log1p(samples.values), samples.values * np.arange(1, 7)[:, None], np.log2(samples.values)):
        same(model.predict(changed(samples, values=values)), want)
    more = Samples(
        samples.names,
        np.append(samples.genes, ["NOT_A_GENE", "ALSO_NONE"]),
        np.concatenate([samples.values, np.full((6, 2), 1e9)], axis=1),
    )
    same(model.predict(more), want)


def test_ensembl_ids_name_the_same_genes() -> None:
    model, samples = tiny_drug.model(), new()
    order = np.argsort(samples.genes)
    place = order[np.searchsorted(samples.genes[order], model.genes)]
    assert (model.genes_ensembl != "").all()
    by_id = Samples(samples.names, model.genes_ensembl, samples.values[:, place])
    same(model.predict(by_id), model.predict(samples))


def test_absent_genes_are_absent_and_neither_zero_nor_average() -> None:
    model, samples = tiny_drug.model(), new()
    whole = model.predict(samples)
    gone = np.zeros(tiny_drug.GENES, dtype=bool)
    gone[np.random.default_rng(0).permutation(tiny_drug.GENES)[:60]] = True
    holes = changed(samples, values=np.where(gone, np.nan, samples.values))
    left_out = Samples(samples.names, samples.genes[~gone], samples.values[:, ~gone])
    absent = model.predict(left_out)
    same(model.predict(holes), absent)
    zero = model.predict(changed(samples, values=np.where(gone, 0.0, samples.values)))
    off = np.abs(absent.value - whole.value).mean()
    assert off < 0.25 * np.abs(zero.value - whole.value).mean()
    assert (absent.sd > whole.sd).all()  # what is not known widens the range
    assert np.allclose(absent.coverage, 0.8)


def test_a_small_panel_is_warned_of_and_a_tiny_one_refused() -> None:
    model, samples = tiny_drug.model(), new()
    assert all(FEW not in told for told in model.predict(samples).warnings)
    part = Samples(samples.names, samples.genes[:140], samples.values[:, :140])
    assert all(FEW in told for told in model.predict(part).warnings)
    with pytest.raises(GeneError, match="20 of the model's 300 genes"):
        model.predict(Samples(samples.names, samples.genes[:20], samples.values[:, :20]))
    with pytest.raises(GeneError, match="None of the 2 genes"):
        model.predict(Samples(["a"], np.array(["L1", "QQ7"]), np.ones((1, 2))))


def test_what_is_unlike_the_lines_is_warned_of_and_lines_are_not() -> None:
    model = tiny_drug.model()
    lines = model.predict(tiny_drug.world(100, 4)[0])
    assert np.mean([STRANGE in told for told in lines.warnings]) < 0.1
    rng = np.random.default_rng(0)
    strange = changed(new(), values=new().values[:, rng.permutation(tiny_drug.GENES)])
    said = model.predict(strange)
    assert all(STRANGE in told for told in said.warnings)
    assert said.distance.min() > np.median(lines.distance)
    assert said.times.min() > 1
    assert np.array_equal(lines.times >= 1, lines.distance >= UNLIKE)


def test_another_platform_is_told_and_brought_to_the_same_answer() -> None:
    samples, truth = tiny_drug.world()
    model = fit(samples, tiny_drug.responses(samples, truth), config=tiny_drug.CONFIG)
    shift = np.exp(1.5 * np.random.default_rng(2).normal(size=tiny_drug.GENES))
    seen_twice = changed(samples, values=samples.values * shift)
    platform = second_platform(model.scale, samples, seen_twice.take(np.arange(0, 90, 2)), "other")
    both = replace(
        model,
        scale=replace(model.scale, platforms=(*model.scale.platforms, platform)),
        left_out=replace(model.left_out, distances=np.repeat(model.left_out.distances, 2, axis=0)),
    )
    fresh = new(20)
    other = changed(fresh, values=fresh.values * shift)
    assert (both.scale.standardise(fresh).platform == 0).all()
    assert (both.scale.standardise(other).platform == 1).all()
    want = model.predict(fresh).value
    assert np.abs(both.predict(other).value - want).mean() < 0.4 * np.abs(model.predict(other).value - want).mean()
    with pytest.raises(InputError, match="0 lines were measured on both"):
        second_platform(model.scale, samples, fresh, "other")


def test_the_fast_posterior_is_that_of_the_joint_gaussian() -> None:
    network = tiny_drug.model().network
    loadings, noise = network.loadings.numpy(), network.noise.numpy()
    rng = np.random.default_rng(0)
    z, there = rng.normal(size=(3, len(noise))), rng.random((3, len(noise))) < 0.3
    got = network.factors(torch.from_numpy(z), torch.from_numpy(there)).numpy()
    for row in range(3):
        seen = there[row]
        covariance = loadings[seen] @ loadings[seen].T + np.diag(noise[seen])
        assert np.allclose(got[row], loadings[seen].T @ np.linalg.solve(covariance, z[row, seen]))


def test_the_module_for_gradients_answers_as_predict_does() -> None:
    model, samples = tiny_drug.model(), new()
    z, there = model.standardise(samples)
    given_z = torch.from_numpy(z).requires_grad_(True)
    out = model.gradient_module()(given_z, torch.from_numpy(there))
    assert np.allclose(out.detach().numpy(), model.predict(samples).value, atol=1e-9)
    out[:, 0].sum().backward()
    assert given_z.grad is not None
    step = torch.zeros_like(given_z)
    step[0, 7] = 1e-5
    with torch.no_grad():
        more = model.gradient_module()(given_z + step, torch.from_numpy(there))[0, 0]
    assert float((more - out.detach()[0, 0]) / 1e-5) == pytest.approx(float(given_z.grad[0, 7]), rel=1e-3, abs=1e-6)


def test_quantiles_of_a_mixture_are_those_of_its_distribution() -> None:
    rng = np.random.default_rng(0)
    mean, sd = rng.normal(size=600), rng.uniform(0.2, 0.8, 600)
    shares = np.array([0.01, 0.3, 0.5, 0.9])
    for share, value in zip(shares, mixture_quantiles(shares[None], mean, sd)[0], strict=True):
        assert norm.cdf((value - mean) / sd).mean() == pytest.approx(share, abs=1e-4)


def test_columns_of_one_gene_are_added() -> None:
    genes = tiny_drug.symbols(3)
    samples = Samples(["a", "b"], np.append(genes, genes[0]), np.array([[1.0, 2, 3, 4], [np.nan, 5, 6, 7]]))
    assert np.array_equal(in_genes(samples, genes, np.array(["", "", ""])), [[5.0, 2, 3], [7, 5, 6]])


def test_the_largest_axes_are_found_and_noise_is_what_they_leave() -> None:
    rng = np.random.default_rng(0)
    z = rng.normal(size=(200, 2)) @ (3 * rng.normal(size=(2, 50))) + rng.normal(size=(200, 50))
    found = fit_factors(z, 2)
    whole = found.loadings @ found.loadings.T + np.diag(found.noise)
    assert np.linalg.norm(whole - z.T @ z / 200) < 0.12 * np.linalg.norm(whole)
    assert np.median(found.noise) == pytest.approx(1.0, abs=0.15)
    assert fit_factors(z[:5], 100).loadings.shape[1] <= 3


def test_a_gene_of_its_own_is_told_from_what_it_shares() -> None:
    rng = np.random.default_rng(0)
    z = rng.normal(size=(200, 2)) @ rng.normal(size=(2, 50)) + rng.normal(size=(200, 50))
    found = fit_factors(z, 2)
    own = with_own(found, np.array([3, 9]), 0.2)
    assert own.loadings.shape == (50, 4)
    # the variance of every gene is what it was, and the new scores have their share
    total = [(f.loadings**2).sum(axis=1) + f.noise for f in (found, own)]
    assert np.allclose(total[0], total[1])
    assert (own.length[2:] ** 2).sum() / (own.length**2).sum() == pytest.approx(0.2)
    assert with_own(found, np.array([], dtype=np.int64), 0.2) is found


def test_drugs_by_name_and_levels() -> None:
    model, samples = tiny_drug.model(), new()
    whole = model.predict(samples)
    part = model.predict(samples, ["drug4", "DRUG1"])
    assert part.drugs == ["drug4", "drug1"]
    assert np.allclose(part.value, whole.value[:, [4, 1]])
    assert np.allclose(part.percentile, whole.percentile[:, [4, 1]])
    wide = model.predict(samples, level=0.95)
    assert (wide.high - wide.low > whole.high - whole.low).all()
    with pytest.raises(InputError, match="'aspirin' is not one"):
        model.predict(samples, ["drug1", "aspirin"])
    with pytest.raises(InputError, match=r"level 0\.33"):
        model.predict(samples, level=0.33)


def test_a_folder_answers_as_the_model_that_was_saved(tmp_path: Path) -> None:
    model, samples = tiny_drug.model(), new()
    model.save(tmp_path / "one")
    again = DrugModel.load(tmp_path / "one")
    want, got = model.predict(samples), again.predict(samples)
    for name in ("value", "sd", "low", "high", "percentile", "distance", "drug_mean"):
        assert np.array_equal(getattr(want, name), getattr(got, name)), name
    assert again.facts == model.facts
    assert [drug.name for drug in again.drugs] == [drug.name for drug in model.drugs]
    again.save(tmp_path / "two")
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes(), path.name
    (info,) = list_models(tmp_path / "nothing") or [None]
    assert info is None
    assert [one.name for one in list_models(tmp_path)] == ["one", "two"]
    with pytest.raises(ModelError, match="neither names nor embeds"):
        load_any(tmp_path / "one")


def test_the_folder_holds_no_row_of_a_line(tmp_path: Path) -> None:
    model = tiny_drug.model()
    model.save(tmp_path / "model")
    held = b"".join(path.read_bytes() for path in (tmp_path / "model").iterdir())
    assert b"L0.1" not in held  # not even a name
    # no tensor has a row, or a column, for each line
    sizes = [size for tensor in model.network.state_dict().values() for size in tensor.shape]
    sizes += [*model.left_out.quantiles.shape, *model.left_out.distances.shape]
    assert tiny_drug.LINES not in sizes


@pytest.mark.parametrize("name", REQUIRED)
def test_a_damaged_folder_is_refused(tmp_path: Path, name: str) -> None:
    tiny_drug.model().save(tmp_path / "model")
    path = tmp_path / "model" / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(ModelError, match=name):
        load_drug_model(tmp_path / "model")
    path.unlink()
    with pytest.raises(ModelError, match=name):
        load_drug_model(tmp_path / "model")


def test_files_of_two_models_are_refused(tmp_path: Path) -> None:
    from cellingua.models.manifest import write_manifest

    tiny_drug.model().save(tmp_path / "model")
    path = tmp_path / "model" / "drugs.json"
    path.write_text(json.dumps(json.loads(path.read_text())[:-1]))
    write_manifest(tmp_path / "model")
    with pytest.raises(ModelError, match="not of one model"):
        load_drug_model(tmp_path / "model")


def test_known_drugs_need_no_chemistry(tmp_path: Path) -> None:
    """A process in which rdkit, captum and torch-geometric can't be imported loads and predicts."""
    tiny_drug.model().save(tmp_path / "model")
    samples = new(2)
    np.savez(tmp_path / "samples.npz", genes=samples.genes, values=samples.values)
    code = (
        "import sys\n"
        "for name in ('rdkit', 'captum', 'torch_geometric', 'pyarrow', 'sklearn'):\n    sys.modules[name] = None\n"
        "import numpy as np\n"
        "from cellingua.models.drug_bundle import REQUIRED, load_drug_model\n"
        "from cellingua.models.drug_expression import Samples\n"
        f"held = np.load({str(tmp_path / 'samples.npz')!r})\n"
        f"model = load_drug_model({str(tmp_path / 'model')!r})\n"
        "print(repr(model.predict(Samples(['a', 'b'], held['genes'], held['values'])).value.tolist()))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert np.allclose(np.array(json.loads(done.stdout)), tiny_drug.model().predict(samples).value, atol=1e-7)


def test_a_model_without_molecules_says_so() -> None:
    pytest.importorskip("rdkit")
    from cellingua.molecules.smiles import read_molecules

    with pytest.raises(InputError, match="learned from no molecules"):
        tiny_drug.model().predict_molecules(new(), read_molecules(["x"], ["CCO"]))


def test_a_new_molecule_is_predicted_from_those_it_is_alike_to() -> None:
    pytest.importorskip("rdkit")
    from cellingua.models.drug_molecules import smoother
    from cellingua.molecules.smiles import likeness, read_molecules

    smiles = [f"{'C' * n}{tail}" for tail in ("O", "N") for n in range(2, 7)]
    names = [f"m{n}" for n in range(10)]
    molecules = read_molecules(names, smiles)
    samples, _ = tiny_drug.world()
    # alcohols kill the lines of one programme, amines those of another
    kind = np.repeat([0, 1], 5)
    state = np.random.default_rng(0).normal(size=(90, 5))[:, :2]
    truth = 2 * state[:, kind] + 3.0 * kind + 0.1 * np.random.default_rng(3).normal(size=(90, 10))
    line, drug = np.indices(truth.shape)
    made = tiny_drug.Responses(np.array(sorted(samples.names)), np.array(names), line.ravel(), drug.ravel(),
                               truth[np.argsort(samples.names)].ravel())  # fmt: skip
    model = fit(samples, made, molecules, config=tiny_drug.CONFIG)
    known = model.predict(samples)
    said = model.predict_molecules(samples, read_molecules(["new alcohol", "new amine"], ["CCCCCCCO", "CCCCCCCN"]))
    for place, mine in enumerate((slice(0, 5), slice(5, 10))):
        assert np.corrcoef(said.value[:, place], known.value[:, mine].mean(axis=1))[0, 1] > 0.8
    assert (said.sd > known.sd.max()).all()
    assert (said.value[:, 1] > said.value[:, 0]).mean() > 0.8
    same(model.predict_molecules(samples.take(np.array([4])), read_molecules(["new alcohol", "new amine"],
         ["CCCCCCCO", "CCCCCCCN"])), said, [4])  # fmt: skip
    alike = likeness(molecules)
    assert np.allclose(smoother(alike, alike, 1e-9), np.eye(10), atol=1e-5)


def test_tables_of_the_wrong_form_are_refused() -> None:
    samples, truth = tiny_drug.world(30, 2)
    given_responses = tiny_drug.responses(samples, truth)
    with pytest.raises(InputError, match="one row a sample"):
        Samples(["a"], samples.genes, samples.values)
    with pytest.raises(InputError, match="infinite"):
        Samples(["a"], np.array(["A1BG"]), np.array([[np.inf]]))
    with pytest.raises(InputError, match="0 lines have both"):
        fit(changed(samples, names=[f"x{n}" for n in range(30)]), given_responses)
    with pytest.raises(InputError, match="stands twice"):
        fit(changed(samples, names=["a"] * 30), given_responses)
    with pytest.raises(InputError, match="at least 50 genes"):
        fit(Samples(samples.names, samples.genes[:20], samples.values[:, :20]), given_responses)
    with pytest.raises(InputError, match="No drug was measured"):
        fit(
            samples,
            replace(given_responses, **{k: getattr(given_responses, k)[:14] for k in ("line", "drug", "value")}),
        )


def test_a_scale_treats_a_gene_that_a_platform_lacks_as_absent() -> None:
    genes = tiny_drug.symbols(60)
    trust = np.ones(60)
    trust[:5] = 0
    scale = GeneScale(genes, np.array([""] * 60), (Platform("one", np.linspace(-1, 1, 60), np.ones(60), trust),))
    seen = scale.standardise(Samples(["a"], genes, np.arange(60.0)[None]))
    assert not seen.there[0, :5].any()
    assert seen.there[0, 5:].all()
    assert (seen.z[0, :5] == 0).all()
