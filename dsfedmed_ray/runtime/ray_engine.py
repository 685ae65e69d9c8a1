"""The engine on Ray: client actors, generator actors and the foundation model's actor."""

import logging
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import ray

from dsfedmed_ray import __version__
from dsfedmed_ray.errors import ResourceError
from dsfedmed_ray.runtime.adaptation_order import AdaptationOrder, AdaptationSteps
from dsfedmed_ray.runtime.client import HospitalBuilder
from dsfedmed_ray.runtime.client_pool import ClientPool, Note
from dsfedmed_ray.runtime.cluster_check import check_cluster, check_project_code
from dsfedmed_ray.runtime.demand import Demand, resolve_generators, resolve_gpu_fractions
from dsfedmed_ray.runtime.engine import RuntimeConfig
from dsfedmed_ray.runtime.foundation_actor import FOUNDATION, RemoteFoundation
from dsfedmed_ray.runtime.foundation_server import FoundationSettings
from dsfedmed_ray.runtime.pending import FoundationHandle
from dsfedmed_ray.runtime.placement import Placement, cluster_room
from dsfedmed_ray.runtime.ray_failures import refusing_full_stores
from dsfedmed_ray.runtime.ray_pool import RayPool
from dsfedmed_ray.runtime.shared_adaptation import (
    WORKERS,
    adapt_on_workers,
    check_outside_of_trials,
    worker_demand,
)
from dsfedmed_ray.runtime.shared_folders import SharedFolders
from dsfedmed_ray.runtime.stage_store import code_fingerprint
from dsfedmed_ray.runtime.synthetic_store import GenerationOrder, generate_on_ray

ACTOR_BYTES = 700 * 2**20
"""Memory of a client actor before its model and data, for ``auto`` to judge what fits."""

ACTORS_PER_CPU = 4
"""More actors than this a CPU only wait for each other."""

DATA_PIPELINE = Demand(num_cpus=1.0, num_gpus=0)
"""Tasks of a Ray Dataset beside its generator actors; without a CPU it waits for ever."""


@contextmanager
def open_ray_engine(
    config: RuntimeConfig,
    num_clients: int,
    note: Note,
    *,
    uses_foundation: bool = True,
    folders: Sequence[Path] = (),
) -> Iterator["RayEngine"]:
    """Starts or joins Ray for the time of a run; an already connected Ray is used and left.

    Arguments are those of :func:`~dsfedmed_ray.runtime.engine.open_engine`.

    Raises:
        ResourceError: there is no cluster at ``config.address``, or it cannot hold the run, or its
            object store became full.
    """
    joined = ray.is_initialized()
    if not joined:
        _connect(config)
    try:
        with refusing_full_stores():
            yield RayEngine(
                config, num_clients, note, uses_foundation=uses_foundation, folders=folders
            )
    finally:
        if not joined:
            ray.shutdown()


def _connect(config: RuntimeConfig) -> None:
    # A worker with no share of a GPU must not see any; Ray's coming default is set today.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "1")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Ray's own remarks go to its log files; what concerns the user is said by this package.
    os.environ.setdefault("RAY_DATA_LOG_LEVEL", "CRITICAL")
    common: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    if config.address is not None:
        _join(config.address, common)
        return
    with _keeping_signal_handler():
        # Without the word Ray would join any cluster that it finds on this machine.
        ray.init(
            address="local",
            num_cpus=config.num_cpus,
            num_gpus=config.num_gpus,
            object_store_memory=config.object_store_bytes,
            include_dashboard=False,
            **common,
        )


def _join(address: str, common: dict[str, Any]) -> None:
    """Joins a running cluster of the same Ray and Python, and of this project's code.

    Raises:
        ResourceError: nobody answers, the token is wrong, or a version or the code differs.
    """
    check_cluster(address)
    with _keeping_signal_handler():
        ray.init(address=address, **common)
    try:
        check_project_code(__version__, code_fingerprint())
    except ResourceError:
        ray.shutdown()
        raise


@contextmanager
def _keeping_signal_handler() -> Iterator[None]:
    """Takes SIGTERM back from ``ray.init``, whose own handler ends the process without saving."""
    if threading.current_thread() is not threading.main_thread():  # Ray leaves it alone there
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


class RayEngine:
    """Places a run's actors.

    Args:
        config: the placement.
        num_clients: clients of the federation.
        note: receives one line for each decision and each failure.
        uses_foundation: whether the foundation model and generators will be asked for.
        folders: what every node must see.

    Raises:
        ResourceError: the cluster can never hold what runs at the same time, or a node does not
            see a folder.
        ConfigurationError: stage 4 would have several workers in a trial of a study.
    """

    def __init__(
        self,
        config: RuntimeConfig,
        num_clients: int,
        note: Note,
        *,
        uses_foundation: bool = True,
        folders: Sequence[Path] = (),
    ) -> None:
        self._config = config
        self._note = note
        cluster = ray.cluster_resources()
        self._pinned = self._gives_each_client_an_actor(num_clients, cluster)
        self._num_workers = (
            num_clients if self._pinned else config.num_workers or max(1, int(cluster["CPU"]))
        )
        num_gpus = cluster.get("GPU", 0.0)
        resources = config.resources
        self._foundation_demand, client = resolve_gpu_fractions(
            resources.foundation,
            resources.client,
            self._num_workers,
            num_gpus,
            config.foundation_workers,
            uses_foundation=uses_foundation,
        )
        self._client_demands = [client] * self._num_workers
        self._generator_demands = resolve_generators(
            resources.generator,
            resources.num_generators,
            self._foundation_demand,
            self._client_demands,
            num_gpus,
        )
        self._uses_foundation = self._server_needs_a_place = uses_foundation
        self._check_room()
        self._folders = SharedFolders(folders)
        self._folders.check()
        kind = "one actor a client" if self._pinned else "virtual clients on a pool"
        note(
            f"Ray: {self._num_workers} client actors ({kind}), {cluster['CPU']:g} CPUs, "
            f"{num_gpus:g} GPUs; a client holds {client.num_gpus:g} GPU, "
            f"the foundation model {self._foundation_demand.num_gpus:g}"
        )

    def start_pool(self, build: HospitalBuilder) -> ClientPool:
        """See :class:`~dsfedmed_ray.runtime.engine.Engine`."""
        # A place that will be the server's is held meanwhile: clients are not spread over it.
        server = self._server_demands() if self._server_needs_a_place else {}
        held = [self._placement(what, demands) for what, demands in server.items()]
        try:
            placement = self._placement("clients", self._client_demands, spread=True)
        finally:
            for other in held:
                other.release()
        self._folders.check()  # nodes may have come for them
        return RayPool(
            replace(build, num_gpus=float(self._client_demands[0].num_gpus)),
            num_workers=self._num_workers,
            pinned=self._pinned,
            num_threads=self._config.threads.client,
            placement=placement,
            chunk_size=self._config.chunk_size,
            policy=self._config.failures,
            client_name=build.split.client_name,
            note=self._note,
        )

    def start_foundation(self, settings: FoundationSettings) -> FoundationHandle:
        """See :class:`~dsfedmed_ray.runtime.engine.Engine`."""
        self._server_needs_a_place = False
        return RemoteFoundation(
            self._placed(settings), self._foundation_demand, self._config.autoscaling
        )

    def adapt(self, order: AdaptationOrder) -> AdaptationSteps:
        """See :class:`~dsfedmed_ray.runtime.engine.Engine`."""
        placed = replace(order, settings=self._placed(order.settings))
        return adapt_on_workers(placed, self._foundation_demand, self._config.autoscaling)

    def _placed(self, settings: FoundationSettings) -> FoundationSettings:
        return replace(
            settings,
            num_threads=self._config.threads.foundation,
            num_gpus=float(self._foundation_demand.num_gpus),
        )

    def generate(self, order: GenerationOrder) -> None:
        """See :class:`~dsfedmed_ray.runtime.engine.Engine`."""
        demands = [*self._generator_demands, DATA_PIPELINE]
        # A Ray Dataset waits for ever where there is no room; so it is asked for beforehand.
        self._placement("generators and their data pipeline", demands).release()
        self._folders.check()
        generate_on_ray(
            order,
            num_threads=self._config.threads.generator,
            demand=self._generator_demands[0],
            num_actors=len(self._generator_demands),
            note=self._note,
        )

    def _placement(self, what: str, demands: Sequence[Demand], spread: bool = False) -> Placement:
        return Placement(what, demands, spread=spread, autoscaling=self._config.autoscaling)

    def _server_demands(self) -> dict[str, list[Demand]]:
        """What the foundation model asks for beside the clients, at its largest."""
        num_workers = self._config.foundation_workers
        if num_workers > 1:
            return {WORKERS: [worker_demand(self._foundation_demand)] * num_workers}
        return {FOUNDATION: [self._foundation_demand]}

    def _check_room(self) -> None:
        """Holds what runs at the same time against the cluster."""
        clients = {"clients": [demand.bundle() for demand in self._client_demands]}
        room = cluster_room(self._config.autoscaling)
        room.require(clients)
        if not self._uses_foundation:
            return
        if self._config.foundation_workers > 1:
            check_outside_of_trials(self._config.foundation_workers)
        server = {what: [x.bundle() for x in part] for what, part in self._server_demands().items()}
        room.require(
            {**clients, **server},
            "runtime.resources.client, runtime.resources.foundation or foundation.num_workers",
        )
        generators = {
            "generators": [demand.bundle() for demand in self._generator_demands],
            "the data pipeline": [DATA_PIPELINE.bundle()],
        }
        room.require(
            {**clients, **generators},
            "runtime.resources.num_generators, runtime.resources.generator or "
            "runtime.resources.client",
        )

    def _gives_each_client_an_actor(self, num_clients: int, cluster: dict[str, float]) -> bool:
        if self._config.clients != "auto":
            return self._config.clients == "actors"
        if self._config.num_workers is not None:
            return False
        few = num_clients <= ACTORS_PER_CPU * cluster["CPU"]
        return few and num_clients * ACTOR_BYTES <= 0.5 * cluster["memory"]
