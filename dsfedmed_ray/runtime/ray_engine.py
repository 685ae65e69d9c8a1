"""The engine on Ray: client actors, generator actors and the foundation model's actor."""

import logging
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import ray

from dsfedmed_ray import __version__
from dsfedmed_ray.errors import ResourceError
from dsfedmed_ray.runtime.adaptation_order import AdaptationOrder, AdaptationSteps
from dsfedmed_ray.runtime.client import HospitalBuilder
from dsfedmed_ray.runtime.client_pool import ClientPool, Note
from dsfedmed_ray.runtime.cluster_check import check_cluster, check_project_version
from dsfedmed_ray.runtime.demand import resolve_gpu_fractions
from dsfedmed_ray.runtime.engine import RuntimeConfig
from dsfedmed_ray.runtime.foundation_actor import RemoteFoundation
from dsfedmed_ray.runtime.foundation_server import FoundationSettings
from dsfedmed_ray.runtime.pending import FoundationHandle
from dsfedmed_ray.runtime.placement import Placement, require_possible
from dsfedmed_ray.runtime.ray_failures import refusing_full_stores
from dsfedmed_ray.runtime.ray_pool import RayPool
from dsfedmed_ray.runtime.shared_adaptation import adapt_on_workers, check_workers
from dsfedmed_ray.runtime.synthetic_store import GenerationOrder, generate_on_ray

ACTOR_BYTES = 700 * 2**20
"""Memory of a client actor before its model and data, for ``auto`` to judge what fits."""

ACTORS_PER_CPU = 4
"""More actors than this a CPU only wait for each other."""


@contextmanager
def open_ray_engine(config: RuntimeConfig, num_clients: int, note: Note) -> Iterator["RayEngine"]:
    """Starts or joins Ray for the time of a run; an already connected Ray is used and left.

    Raises:
        ResourceError: there is no cluster at ``config.address``, or it cannot hold the run, or its
            object store became full.
    """
    joined = ray.is_initialized()
    if not joined:
        _connect(config)
    try:
        with refusing_full_stores():
            yield RayEngine(config, num_clients, note)
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
    """Joins a running cluster of the same Ray, Python and project version.

    Raises:
        ResourceError: nobody answers, the token is wrong, or a version differs.
    """
    check_cluster(address)
    with _keeping_signal_handler():
        ray.init(address=address, **common)
    try:
        check_project_version(__version__)
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

    Raises:
        ResourceError: the cluster can never hold the clients or the foundation model.
    """

    def __init__(self, config: RuntimeConfig, num_clients: int, note: Note) -> None:
        self._config = config
        self._note = note
        cluster = ray.cluster_resources()
        self._pinned = self._gives_each_client_an_actor(num_clients, cluster)
        self._num_workers = (
            num_clients if self._pinned else config.num_workers or max(1, int(cluster["CPU"]))
        )
        num_gpus = cluster.get("GPU", 0.0)
        resources = config.resources
        self._foundation_demand, self._client_demand = resolve_gpu_fractions(
            resources.foundation,
            resources.client,
            self._num_workers,
            num_gpus,
            config.foundation_workers,
        )
        # The foundation actor starts after stage 2, so generators may have its share.
        share = self._foundation_demand.num_gpus if num_gpus else 0.0
        self._generator_demand = (
            replace(resources.generator, num_gpus=share)
            if resources.generator.num_gpus == "auto"
            else resources.generator
        )
        require_possible("clients", [self._client_demand] * self._num_workers)
        require_possible("the foundation model", [self._foundation_demand])
        if config.foundation_workers > 1:
            check_workers(self._foundation_demand, config.foundation_workers)
        kind = "one actor a client" if self._pinned else "virtual clients on a pool"
        note(
            f"Ray: {self._num_workers} client actors ({kind}), {cluster['CPU']:g} CPUs, "
            f"{num_gpus:g} GPUs; a client holds {self._client_demand.num_gpus:g} GPU, "
            f"the foundation model {self._foundation_demand.num_gpus:g}"
        )

    def start_pool(self, build: HospitalBuilder) -> ClientPool:
        """See :class:`~dsfedmed_ray.runtime.engine.Engine`."""
        demands = [self._client_demand] * self._num_workers
        placement = Placement("clients", demands, spread=True)
        return RayPool(
            replace(build, num_gpus=float(self._client_demand.num_gpus)),
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
        return RemoteFoundation(self._placed(settings), self._foundation_demand)

    def adapt(self, order: AdaptationOrder) -> AdaptationSteps:
        """See :class:`~dsfedmed_ray.runtime.engine.Engine`."""
        placed = replace(order, settings=self._placed(order.settings))
        return adapt_on_workers(placed, self._foundation_demand)

    def _placed(self, settings: FoundationSettings) -> FoundationSettings:
        return replace(
            settings,
            num_threads=self._config.threads.foundation,
            num_gpus=float(self._foundation_demand.num_gpus),
        )

    def generate(self, order: GenerationOrder) -> None:
        """See :class:`~dsfedmed_ray.runtime.engine.Engine`."""
        self._check_room_for_generators()
        generate_on_ray(
            order,
            num_threads=self._config.threads.generator,
            demand=self._generator_demand,
            num_actors=self._config.resources.num_generators,
            note=self._note,
        )

    def _gives_each_client_an_actor(self, num_clients: int, cluster: dict[str, float]) -> bool:
        if self._config.clients != "auto":
            return self._config.clients == "actors"
        if self._config.num_workers is not None:
            return False
        few = num_clients <= ACTORS_PER_CPU * cluster["CPU"]
        return few and num_clients * ACTOR_BYTES <= 0.5 * cluster["memory"]

    def _check_room_for_generators(self) -> None:
        """A Ray Dataset needs a CPU for its own tasks, else it waits for ever."""
        cpus = ray.cluster_resources()["CPU"]
        demand = self._generator_demand
        asked = demand.num_cpus * self._config.resources.num_generators
        if asked > cpus - 1:
            raise ResourceError(
                f"{self._config.resources.num_generators} generator actors of "
                f"{demand.num_cpus:g} CPU leave less than one of {cpus:g} CPUs to the data "
                "pipeline; lower runtime.resources.num_generators or "
                "runtime.resources.generator.num_cpus"
            )
