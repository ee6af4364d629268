"""Where a run computes: one process by default, several by Lightning Fabric.

Fabric starts or joins the processes (torchrun, SLURM, or by itself), chooses the device and the precision. Gradients
are summed over the processes here, once a step, after the backward pass: so a step may encode twice, as the
divide-and-conquer engine does, and still be the step of one process over the whole minibatch. FSDP shards the weights
in place (``fully_shard``), so that step functions may go on using the module they know.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.distributed as dist
from torch import Tensor, nn

from cellingua.core.errors import ConfigError
from cellingua.core.runtime import pick_device
from cellingua.engine.processes import reduce_gradients

STRATEGIES = ("ddp", "fsdp")
PRECISIONS = ("float32", "bf16", "float64")
_FABRIC_PRECISIONS = {"float32": "32-true", "bf16": "bf16-mixed", "float64": "64-true"}


@dataclass(frozen=True)
class PlaceConfig:
    """Devices of a run.

    Parameters
    ----------
    device
        ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``; with several devices its kind.
    devices
        Processes of a machine, one a device.
    nodes
        Machines.
    strategy
        ``ddp`` (every process holds all weights) or ``fsdp`` (weights, gradients and optimiser are sharded); used with
        more than one process.
    """

    device: str = "auto"
    devices: int = 1
    nodes: int = 1
    strategy: str = "ddp"


class Place(Protocol):
    """What the loop needs to know of where it runs.

    Attributes
    ----------
    device
        Of this process.
    rank, world
        This process and their number.
    reduces
        Whether a step that does its own backward pass has to sum gradients over processes; where weights are sharded,
        the backward pass does it.
    """

    device: torch.device
    rank: int
    world: int
    reduces: bool

    def autocast(self, precision: str) -> contextlib.AbstractContextManager[Any]:
        """Return the context in which losses are computed."""

    def setup(self, module: nn.Module, precision: str) -> None:
        """Move a module here, in place, before its optimiser is made."""

    def reduce_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Sum the gradients over the processes."""

    def sums(self, values: Mapping[str, float]) -> dict[str, float]:
        """Sum named values over the processes."""

    def first(self, work: Callable[[], None]) -> None:
        """Do `work` in the first process; an error there is raised in all."""


def autocast(device: torch.device, precision: str) -> contextlib.AbstractContextManager[Any]:
    """Return bf16 autocast for precision ``bf16``, else nothing.

    Raises
    ------
    ConfigError
        The precision is not known.
    """
    if precision not in PRECISIONS:
        raise ConfigError(f"There is no precision {precision!r}.", f"one of: {', '.join(PRECISIONS)}")
    if precision == "bf16":
        return torch.autocast(device.type, dtype=torch.bfloat16)
    return contextlib.nullcontext()


class OneProcess:
    """This process alone, on one device: needs nothing but torch."""

    rank, world = 0, 1
    reduces = True

    def __init__(self, device: str = "cpu") -> None:
        self.device = torch.device(device)

    def autocast(self, precision: str) -> contextlib.AbstractContextManager[Any]:
        """Return the context in which losses are computed."""
        return autocast(self.device, precision)

    def setup(self, module: nn.Module, precision: str) -> None:
        """Move a module here; float64 changes its weights' type, other precisions leave them as they are."""
        module.to(self.device)
        if precision == "float64":
            module.double()

    def reduce_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Do nothing: these are the gradients."""

    def sums(self, values: Mapping[str, float]) -> dict[str, float]:
        """Return the values."""
        return dict(values)

    def first(self, work: Callable[[], None]) -> None:
        """Do it."""
        work()


class ManyProcesses(OneProcess):
    """One of several processes that Fabric started or joined.

    Parameters
    ----------
    fabric
        A launched ``lightning_fabric.Fabric``.
    sharded
        Shard the weights over the processes.
    """

    def __init__(self, fabric: Any, *, sharded: bool) -> None:
        super().__init__(str(fabric.device))
        self.fabric, self.sharded, self.reduces = fabric, sharded, not sharded
        self.rank, self.world = int(fabric.global_rank), int(fabric.world_size)

    def setup(self, module: nn.Module, precision: str) -> None:
        """Move a module here and make the weights of all processes those of the first; then shard them if asked."""
        super().setup(module, precision)
        with torch.no_grad():
            for tensor in module.state_dict().values():
                dist.broadcast(tensor, 0)
        if self.sharded:
            _shard(module, self.device, self.world)

    def reduce_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Sum the gradients over the processes; sharded weights have theirs summed already."""
        if not self.sharded:
            reduce_gradients(parameters)

    def sums(self, values: Mapping[str, float]) -> dict[str, float]:
        """Sum named values over the processes (all have the same names)."""
        held = torch.tensor(list(values.values()), dtype=torch.float64, device=self.device)
        dist.all_reduce(held)
        return dict(zip(values, held.tolist(), strict=True))

    def first(self, work: Callable[[], None]) -> None:
        """Do it in the first process; an error there is raised, and the others stop with it."""
        error: Exception | None = None
        if self.rank == 0:
            try:
                work()
            except Exception as found:
                error = found
        failed = self.sums({"failed": float(error is not None)})["failed"]
        if error is not None:
            raise error
        if failed:
            raise SystemExit(1)  # the first process says why


def _shard(module: nn.Module, device: torch.device, world: int) -> None:
    """Shard weights in place, large parts on their own; gradients are summed, not averaged."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import FSDPModule, fully_shard

    mesh = init_device_mesh(device.type, (world,))
    for part in module.modules():
        if isinstance(part, nn.ModuleList):
            for layer in part:
                fully_shard(layer, mesh=mesh)
    fully_shard(module, mesh=mesh)
    for part in module.modules():
        if isinstance(part, FSDPModule):
            part.set_gradient_divide_factor(1.0)


def make_place(config: PlaceConfig, precision: str = "float32") -> Place:
    """Return where to compute; several processes are started, or joined where torchrun or SLURM started them.

    Raises
    ------
    ConfigError
        The strategy or precision is not known, or several processes are asked for and Fabric is not installed.
    """
    if config.strategy not in STRATEGIES:
        raise ConfigError(f"There is no strategy {config.strategy!r}.", f"one of: {', '.join(STRATEGIES)}")
    if precision not in PRECISIONS:
        raise ConfigError(f"There is no precision {precision!r}.", f"one of: {', '.join(PRECISIONS)}")
    if config.devices < 1 or config.nodes < 1:
        raise ConfigError(f"{config.devices} devices on {config.nodes} nodes were asked for.", "1 or more")
    chosen = pick_device(config.device).name
    if config.devices == 1 and config.nodes == 1:
        return OneProcess(chosen)
    try:
        from lightning_fabric import Fabric
    except ImportError as error:
        raise ConfigError(
            f"{config.devices} devices were asked for, and {error.name} is not installed.",
            "Lightning Fabric for more than one process",
            "pip install 'cellingua[train]'",
        ) from error
    fabric = Fabric(
        accelerator=chosen.split(":")[0],
        devices=config.devices,
        num_nodes=config.nodes,
        strategy="ddp",
        precision=_FABRIC_PRECISIONS[precision],  # type: ignore[arg-type]
    )
    fabric.launch()
    return ManyProcesses(fabric, sharded=config.strategy == "fsdp")


def whole(tensor: Tensor) -> Tensor:
    """Return a tensor as one process would hold it: shards are gathered (every process must ask)."""
    gather = getattr(tensor, "full_tensor", None)
    found: Tensor = gather() if gather is not None else tensor
    return found


def whole_state(module: nn.Module) -> dict[str, Tensor]:
    """Return the weights of a module as one process would hold them, before one process writes (all must ask)."""
    return {name: whole(tensor) for name, tensor in module.state_dict().items()}


def like(tensor: Tensor, reference: Tensor) -> Tensor:
    """Return this process's part of a whole tensor, laid out as `reference` is."""
    if not hasattr(reference, "full_tensor") or tensor.shape != reference.shape:
        return tensor
    from torch.distributed.tensor import distribute_tensor

    held: Any = reference
    return distribute_tensor(tensor.to(held.device), held.device_mesh, held.placements)
