"""A drug model as one folder, and back.

::

    config.json            format_version, kind "drug", name, description, sizes
    weights.safetensors    axes and weights of the network, float16
    scale.safetensors      means and deviations of the genes on each platform; what was measured on lines left out
    genes.tsv.gz           ensembl_id, symbol
    drugs.json             name, SMILES, InChIKey, training pairs, mean and deviation of each drug
    facts.json             ranges, new drugs, what else is known
    card.md
    manifest.json          size and SHA-256 of each file

Nothing in it is code, nothing is pickled, and there is no row of any training line. Each file is checked against the
manifest before it is read.
"""

from __future__ import annotations

import gzip
import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cellingua.calibration.ranges import Ranges
from cellingua.core.errors import ModelError
from cellingua.core.files import atomic_folder, write_json, write_text
from cellingua.models.drug_expression import GeneScale, Platform
from cellingua.models.drug_model import DrugInfo, DrugModel, LeftOut, NewDrugs
from cellingua.models.folder import CARD, CONFIG, DRUG, GENES, WEIGHTS, open_folder, write_config
from cellingua.models.manifest import write_manifest
from cellingua.models.shelf import find_model
from cellingua.models.storage import assign, pack, unpack
from cellingua.nn.response import ResponseNetwork

SCALE, DRUGS, FACTS = "scale.safetensors", "drugs.json", "facts.json"
REQUIRED = (CONFIG, WEIGHTS, SCALE, GENES, DRUGS, FACTS)
DEFAULT = "drug_mini"


@dataclass(frozen=True)
class DrugConfig:
    """Sizes of the network, and the names of its platforms."""

    genes: int
    factors: int
    waves: int
    drugs: int
    platforms: tuple[str, ...]


def save_drug_model(folder: Path, model: DrugModel) -> None:
    """Write a model folder; it appears complete or not at all, and replaces one that is there."""
    network, platforms = model.network, model.scale.platforms
    genes, factors = network.loadings.shape
    waves, drugs = network.waved.shape
    config = DrugConfig(genes, factors, waves, drugs, tuple(platform.name for platform in platforms))
    left = model.left_out
    numbers = {"sd": left.sd, "quantiles": left.quantiles, "distances": left.distances}
    for place, platform in enumerate(platforms):
        numbers |= {
            f"mean.{place}": platform.mean,
            f"sd.{place}": platform.sd,
            f"trust.{place}": platform.trust,
        }
    facts = {
        "reach": {repr(level): reach for level, reach in left.ranges.reach.items()},
        "units": left.ranges.units,
        "new_drugs": None if model.new_drugs is None else asdict(model.new_drugs),
        "facts": dict(model.facts),
    }
    with atomic_folder(Path(folder)) as partial:
        write_config(partial, DRUG, model.name, model.description, config)
        write_text(partial / CARD, model.card)
        (partial / WEIGHTS).write_bytes(pack(network.state_dict(), "float16"))
        (partial / SCALE).write_bytes(pack({k: torch.from_numpy(v) for k, v in numbers.items()}, "float32"))
        (partial / GENES).write_bytes(_genes_to_bytes(model.scale))
        write_json(partial / DRUGS, [asdict(drug) for drug in model.drugs])
        write_json(partial / FACTS, facts)
        write_manifest(partial)


def load_drug_model(name_or_folder: str | Path = DEFAULT) -> DrugModel:
    """Load a drug model by name or folder; every file is checked before it's read.

    Raises
    ------
    ModelError
        There is no such model, it is of another kind, damaged, or its files don't fit each other.
    """
    folder = find_model(name_or_folder)
    manifest, held, config = open_folder(folder, DRUG, REQUIRED, DrugConfig)
    network = ResponseNetwork(config.genes, config.factors, config.waves, config.drugs)
    assign(network, unpack(folder / WEIGHTS), folder / WEIGHTS)
    numbers = {name: tensor.numpy().astype(np.float64) for name, tensor in unpack(folder / SCALE).items()}
    try:
        symbols, ids = _genes_from_bytes((folder / GENES).read_bytes())
        platforms = tuple(
            Platform(name, numbers[f"mean.{place}"], numbers[f"sd.{place}"], numbers[f"trust.{place}"])
            for place, name in enumerate(config.platforms)
        )
        drugs = [DrugInfo(**drug) for drug in _json(folder / DRUGS)]
        facts = _json(folder / FACTS)
        ranges = Ranges({float(level): float(reach) for level, reach in facts["reach"].items()}, int(facts["units"]))
        new = None if facts["new_drugs"] is None else NewDrugs(**facts["new_drugs"])
        left = LeftOut(numbers["sd"], numbers["quantiles"], numbers["distances"], ranges)
        card = (folder / CARD).read_text(encoding="utf-8") if (folder / CARD).is_file() else ""
        told = dict(facts["facts"])
    except (KeyError, TypeError, ValueError, AttributeError, OSError, EOFError) as error:
        raise ModelError(f"{folder} can't be read: {error!r}.", "a drug model as saved") from error
    _check(folder, config, symbols, platforms, drugs, left)
    network = network.requires_grad_(False).double().eval()
    return DrugModel(
        name=str(held["name"]),
        description=str(held["description"]),
        drugs=drugs,
        scale=GeneScale(symbols, ids, platforms),
        network=network,
        left_out=left,
        new_drugs=new,
        facts=told,
        card=card,
        hash=manifest.hash,
    )


def as_stored(model: DrugModel) -> DrugModel:
    """Return the model with numbers rounded as the folder keeps them, so that saving changes no answer."""
    network = ResponseNetwork(*model.network.loadings.shape, *model.network.waved.shape)
    rounded: dict[str, Tensor] = {k: v.to(torch.float16).double() for k, v in model.network.state_dict().items()}
    network.double().load_state_dict(rounded)
    platforms = tuple(Platform(p.name, _single(p.mean), _single(p.sd), _single(p.trust)) for p in model.scale.platforms)
    left = model.left_out
    return replace(
        model,
        network=network.requires_grad_(False).eval(),
        scale=GeneScale(model.scale.symbols, model.scale.ensembl_ids, platforms),
        left_out=LeftOut(_single(left.sd), _single(left.quantiles), _single(left.distances), left.ranges),
    )


def _single(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return values.astype(np.float32).astype(np.float64)


def _check(
    folder: Path,
    config: DrugConfig,
    symbols: NDArray[np.str_],
    platforms: tuple[Platform, ...],
    drugs: list[DrugInfo],
    left: LeftOut,
) -> None:
    fits = (
        len(symbols) == config.genes
        and len(drugs) == config.drugs == len(left.sd) == len(left.quantiles)
        and all(
            p.mean.shape == p.sd.shape == p.trust.shape == (config.genes,) and bool((p.sd > 0).all()) for p in platforms
        )
        and bool((left.sd > 0).all())
        and len(platforms) > 0
    )
    if not fits:
        raise ModelError(f"{folder}: genes, drugs and weights are not of one model.", "a drug model as saved")


def _json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def _genes_to_bytes(scale: GeneScale) -> bytes:
    rows = ["ensembl_id\tsymbol", *(f"{i}\t{s}" for i, s in zip(scale.ensembl_ids, scale.symbols, strict=True))]
    return gzip.compress(("\n".join(rows) + "\n").encode("utf-8"), mtime=0)


def _genes_from_bytes(packed: bytes) -> tuple[NDArray[np.str_], NDArray[np.str_]]:
    rows = [row.split("\t") for row in gzip.decompress(packed).decode("utf-8").splitlines()[1:]]
    return np.array([row[1] for row in rows], dtype=np.str_), np.array([row[0] for row in rows], dtype=np.str_)
