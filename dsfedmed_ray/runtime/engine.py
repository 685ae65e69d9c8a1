"""Where a run's work happens: in this process, or on Ray. Both give the same bits."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Protocol

import torch

from dsfedmed_ray.errors import ConfigurationError
from dsfedmed_ray.learning.wire import WIRE_DTYPES, WireDtype
from dsfedmed_ray.models.precision import PRECISIONS, Precision
from dsfedmed_ray.runtime.adaptation_order import AdaptationOrder, AdaptationSteps
from dsfedmed_ray.runtime.availability import Availability
from dsfedmed_ray.runtime.client import HospitalBuilder
from dsfedmed_ray.runtime.client_pool import ClientPool, Note, SerialPool
from dsfedmed_ray.runtime.demand import Demand
from dsfedmed_ray.runtime.devices import cpus_here, require_device, role_threads
from dsfedmed_ray.runtime.failures import FailurePolicy
from dsfedmed_ray.runtime.foundation_server import FoundationServer, FoundationSettings
from dsfedmed_ray.runtime.pending import Done, FoundationHandle, Pending
from dsfedmed_ray.runtime.room import Autoscaling
from dsfedmed_ray.runtime.synthetic_store import GenerationOrder, generate_here

ClientMode = Literal["serial", "actors", "pool", "auto"]
MODES = ("serial", "actors", "pool", "auto")


@dataclass(frozen=True, kw_only=True)
class Threads:
    """Torch threads by role; part of what decides bits, so equal under every placement.

    Attributes:
        client: of a client's training.
        generator: of a generator actor.
        foundation: of the foundation model.
        server: of the driver, where the server's lightweight model learns and is scored.
    """

    client: int = 1
    generator: int = 1
    foundation: int = 2
    server: int = 1

    def __post_init__(self) -> None:
        for name in ("client", "generator", "foundation", "server"):
            if getattr(self, name) < 1:
                raise ConfigurationError(
                    f"runtime.threads.{name} is {getattr(self, name)}; at least 1"
                )


@dataclass(frozen=True, kw_only=True)
class Resources:
    """What each kind of actor asks of Ray.

    Attributes:
        client: a client actor or worker.
        foundation: the foundation model's actor.
        generator: a generator actor of stage 2; it lives for that stage only.
        num_generators: generator actors, at least 1. Where they share a GPU by ``auto``, as many
            of them as find room beside the clients.
    """

    client: Demand = field(default_factory=Demand)
    foundation: Demand = field(default_factory=Demand)
    generator: Demand = field(default_factory=lambda: Demand(num_cpus=0.5))
    num_generators: int = 2

    def __post_init__(self) -> None:
        if self.num_generators < 1:
            raise ConfigurationError(
                f"runtime.resources.num_generators is {self.num_generators}; at least 1"
            )


@dataclass(frozen=True, kw_only=True)
class RuntimeConfig:
    """How a run is placed.

    Attributes:
        clients: ``serial`` runs everything in this process; ``actors`` gives each client an actor;
            ``pool`` serves virtual clients from ``num_workers`` actors; ``auto`` takes ``serial``
            on one CPU without GPU, ``actors`` where they fit the machine, else ``pool``.
        num_workers: workers of a pool; None is one a CPU.
        chunk_size: clients a task; None chooses by guided self-scheduling.
        threads: torch threads by role.
        precision: of the foundation model: ``fp32``, ``bf16``, or ``auto`` for bfloat16 where the
            hardware computes in it.
        wire_dtype: number format of states that travel in the rounds: ``float32``, or the
            difference to what the receiver holds in ``float16`` or ``bfloat16``.
        foundation_workers: processes that adapt the foundation model together, through Ray Train;
            1 leaves it to its one process.
        resources: what actors ask of Ray.
        autoscaling: which nodes may still come to the cluster, and how long actors wait.
        failures: what happens on failures.
        address: a running cluster; None starts Ray on this machine for this run.
        num_cpus: logical CPUs of a Ray started here; None counts the machine's.
        num_gpus: logical GPUs of a Ray started here; None counts the machine's.
        object_store_bytes: Ray's shared memory when it is started here.
        checkpoint_every: units between two checkpoints.
        availability: simulated dropout and stragglers in the federated rounds.
    """

    clients: ClientMode = "auto"
    num_workers: int | None = None
    chunk_size: int | None = None
    threads: Threads = field(default_factory=Threads)
    precision: Precision = "auto"
    wire_dtype: WireDtype = "float32"
    foundation_workers: int = 1
    resources: Resources = field(default_factory=Resources)
    autoscaling: Autoscaling = field(default_factory=Autoscaling)
    failures: FailurePolicy = field(default_factory=FailurePolicy)
    address: str | None = None
    num_cpus: int | None = None
    num_gpus: int | None = None
    object_store_bytes: int = 512 * 2**20
    checkpoint_every: int = 1
    availability: Availability = field(default_factory=Availability)

    def __post_init__(self) -> None:
        if self.clients not in MODES:
            raise ConfigurationError(
                f"runtime.clients is {self.clients!r}; allowed: {', '.join(MODES)}"
            )
        if self.precision not in PRECISIONS:
            raise ConfigurationError(
                f"runtime.precision is {self.precision!r}; allowed: {', '.join(PRECISIONS)} "
                "(the foundation model trains, and gradients underflow in float16)"
            )
        if self.foundation_workers < 1:
            raise ConfigurationError(
                f"foundation.num_workers is {self.foundation_workers}; at least 1"
            )
        if self.clients == "serial" and self.foundation_workers > 1:
            raise ConfigurationError(
                f"foundation.num_workers is {self.foundation_workers}, but runtime.clients=serial "
                "runs without Ray; use pool or actors, or foundation.num_workers=1"
            )
        if self.wire_dtype not in WIRE_DTYPES:
            raise ConfigurationError(
                f"runtime.wire_dtype is {self.wire_dtype!r}; allowed: {', '.join(WIRE_DTYPES)}"
            )
        for name in ("num_workers", "chunk_size", "checkpoint_every"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigurationError(f"runtime.{name} is {value}; at least 1")
        timeout = self.failures.client_timeout_seconds
        if self.clients == "serial" and timeout is not None:
            raise ConfigurationError(
                f"runtime.failures.client_timeout_seconds is {timeout:g}, but "
                "runtime.clients=serial has no worker process to end; use pool or actors, or null"
            )
        if self.availability.loses_clients and self.failures.min_replies_fraction == 1.0:
            raise ConfigurationError(
                "runtime.availability takes clients out of rounds, but "
                "runtime.failures.min_replies_fraction=1 asks every client for a reply; lower it, "
                "for example to 0.5"
            )


class Engine(Protocol):
    """Where a method's work runs."""

    def start_pool(self, build: HospitalBuilder) -> ClientPool:
        """Starts workers that serve clients."""
        ...

    def start_foundation(self, settings: FoundationSettings) -> FoundationHandle:
        """Starts the foundation model's server."""
        ...

    def adapt(self, order: AdaptationOrder) -> AdaptationSteps:
        """Adapts the foundation model on several workers, an epoch a step."""
        ...

    def generate(self, order: GenerationOrder) -> None:
        """Runs generation jobs and writes the synthetic set."""
        ...


@contextmanager
def open_engine(
    config: RuntimeConfig,
    num_clients: int,
    note: Note,
    *,
    uses_foundation: bool = True,
    folders: Sequence[Path] = (),
) -> Iterator[Engine]:
    """Opens the engine that the configuration asks for and closes it at the end.

    Args:
        config: the placement.
        num_clients: clients of the federation, to choose between actors and a pool.
        note: receives one line for each decision and each failure.
        uses_foundation: whether there must be room for the foundation model and the generators.
        folders: what every node of a cluster must see under these paths; they need not exist yet.

    Raises:
        ResourceError: the cluster can never hold the run, or a node does not see a folder.
    """
    with role_threads(config.threads.server):
        alone = config.clients == "auto" and _is_better_alone(config)
        if alone:
            note("one CPU and no GPU: everything in this process, without Ray")
        if alone or config.clients == "serial":
            yield SerialEngine(config, note)
            return
        from dsfedmed_ray.runtime.ray_engine import open_ray_engine  # serial runs never import Ray

        with open_ray_engine(
            config, num_clients, note, uses_foundation=uses_foundation, folders=folders
        ) as engine:
            yield engine


class SerialEngine:
    """Everything in this process, without Ray; a GPU that is asked for must be there."""

    def __init__(self, config: RuntimeConfig, note: Note) -> None:
        resources = config.resources
        for demand in (resources.client, resources.foundation, resources.generator):
            require_device(_gpus_here(demand))
        self._config = config
        self._note = note

    def start_pool(self, build: HospitalBuilder) -> ClientPool:
        """See :class:`Engine`."""
        num_gpus = _gpus_here(self._config.resources.client)
        return SerialPool(
            replace(build, num_gpus=num_gpus),
            num_threads=self._config.threads.client,
            policy=self._config.failures,
            client_name=build.split.client_name,
            note=self._note,
        )

    def start_foundation(self, settings: FoundationSettings) -> FoundationHandle:
        """See :class:`Engine`."""
        return LocalFoundation(
            replace(
                settings,
                num_threads=self._config.threads.foundation,
                num_gpus=_gpus_here(self._config.resources.foundation),
            )
        )

    def adapt(self, order: AdaptationOrder) -> AdaptationSteps:
        """See :class:`Engine`; the configuration refuses several workers without Ray."""
        raise RuntimeError("several workers need Ray")

    def generate(self, order: GenerationOrder) -> None:
        """See :class:`Engine`."""
        generate_here(
            order,
            num_threads=self._config.threads.generator,
            num_gpus=_gpus_here(self._config.resources.generator),
        )


def _is_better_alone(config: RuntimeConfig) -> bool:
    """On one CPU actors only wait for each other; unless a key asks for what only Ray has."""
    if config.address or config.num_workers or config.foundation_workers > 1:
        return False
    if config.failures.client_timeout_seconds or config.num_gpus or torch.cuda.is_available():
        return False
    return (config.num_cpus or cpus_here()) == 1


def _gpus_here(demand: Demand) -> float:
    """In one process nothing is shared: ``auto`` takes the GPU where there is one."""
    if demand.num_gpus == "auto":
        return 1.0 if torch.cuda.is_available() else 0.0
    return float(demand.num_gpus)


class LocalFoundation:
    """The foundation model's server in this process."""

    def __init__(self, settings: FoundationSettings) -> None:
        self._settings = settings
        self._server = FoundationServer(settings)

    def call(self, method: str, *arguments: Any) -> Pending:
        """Runs a method now."""
        return Done(getattr(self._server, method)(*arguments))

    def replace(self) -> None:
        """Builds the server again."""
        self._server = FoundationServer(self._settings)

    def close(self) -> None:
        """Nothing to end."""
