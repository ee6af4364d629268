"""Called by `test_two_gloo`, and started by it under torchrun: trains in several ways and saves the weights of each."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from cellingua.cells.loader import Loader, LoaderConfig
from cellingua.core.errors import CellinguaError
from cellingua.engine import Processes, divide_conquer
from cellingua.training.loop import TrainConfig, Watch, train
from cellingua.training.optimise import OptimiseConfig
from cellingua.training.place import OneProcess, Place, PlaceConfig, make_place, whole

STEPS, BATCH, WIDTH = 20, 12, 6
CONFIG = TrainConfig(STEPS, 2, checkpoint_every=8, optimise=OptimiseConfig(learning_rate=0.02), precision="float64")


def module() -> nn.Module:
    """Return a small net; its last layer is never used."""
    torch.manual_seed(1)
    layers = nn.ModuleList([nn.Linear(WIDTH, 16), nn.Linear(16, 16)])
    return Net(layers)


class Net(nn.Module):
    """Two layers, and one that nobody uses."""

    def __init__(self, layers: nn.ModuleList) -> None:
        super().__init__()
        self.layers, self.idle = layers, nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = torch.tanh(layer(x))
        return x


def rows(step: int, place: Place) -> Tensor:
    """Return this process's part of minibatch `step`."""
    from plain_source import Numbers

    config, processes = LoaderConfig(BATCH, 4), {"rank": place.rank, "world": place.world}
    loader = Loader(Numbers(100), config, lambda step, cells: cells.places, ahead=0, **processes)
    values = [torch.randn(WIDTH, generator=torch.Generator().manual_seed(int(i))) for i in loader.draw(step)]
    return torch.stack(values).double()


def shares(place: Place, net: nn.Module, spoiled: int = STEPS) -> Callable[[int], Mapping[str, Tensor]]:
    """Return a separable loss: each process gives its share of the mean; from step `spoiled` on one gives NaN."""

    def losses_of(step: int) -> Mapping[str, Tensor]:
        x = rows(step, place)
        loss = (net(x)[:, :WIDTH] - x.flip(1)).square().sum() / BATCH
        return {"error": loss * torch.nan if step >= spoiled and place.rank == place.world - 1 else loss}

    return losses_of


def plain(place: Place, folder: Path) -> nn.Module:
    """Train by shares."""
    net = module()
    train(net, shares(place, net), CONFIG, place=place)
    return net


def contrast(first: Tensor, second: Tensor) -> Tensor:
    """Return the mean cross-entropy of finding a row's other view among all."""
    logits = functional.normalize(first, dim=-1) @ functional.normalize(second, dim=-1).T / 0.2
    return functional.cross_entropy(logits, torch.arange(len(first)))


def engine(place: Place, folder: Path) -> nn.Module:
    """A loss over the whole minibatch: the engine does the backward pass and the sum over processes."""
    net = module()

    def backward_of(step: int) -> Mapping[str, float]:
        x = rows(step, place)
        processes = Processes(reduce=place.reduces)
        views = [x, x + 0.1]
        return {"contrast": divide_conquer([net, net], views, contrast, chunk=3, seed=step, processes=processes).loss}

    train(net, None, CONFIG, backward_of=backward_of, place=place)
    return net


def resumed(place: Place, folder: Path) -> nn.Module:
    """Train by shares, stopped by a loss that is not finite in one process, and resumed from the checkpoint."""
    net = module()
    watch = Watch(cells_of=lambda step: ["a"])
    with pytest.raises(CellinguaError, match="step 13"):
        train(net, shares(place, net, 13), CONFIG, place=place, folder=folder, watch=watch)
    net = module()
    train(net, shares(place, net), CONFIG, place=place, folder=folder)
    return net


def main(out: Path, world: int) -> None:
    """Do all ways, and save."""
    places: dict[str, Place] = {"ddp": OneProcess("cpu")}
    if world > 1:
        configs = {name: PlaceConfig("cpu", devices=world, strategy=name) for name in ("ddp", "fsdp")}
        places = {name: make_place(config, "float64") for name, config in configs.items()}
    for name, place in places.items():
        for way in (plain, resumed, engine):
            net = way(place, out / f"{way.__name__}-{name}-{world}")
            weights = {key: whole(tensor).detach().contiguous() for key, tensor in net.state_dict().items()}
            if place.rank == 0:
                save_file(weights, out / f"{way.__name__}-{name}-{world}.safetensors")


if __name__ == "__main__":
    torch.set_num_threads(1)
    sys.path += sys.argv[3:]
    main(Path(sys.argv[1]), int(sys.argv[2]))
