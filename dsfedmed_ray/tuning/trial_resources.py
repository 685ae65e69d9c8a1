"""What a trial reserves: everything its actors will ask for, at once.

A trial that got its process and then waited for its clients would keep the CPU from the trial that
holds the rest: two half-placed trials wait for each other for ever. One placement group a trial is
given whole or not at all.
"""

from collections.abc import Sequence

from dsfedmed_ray.errors import ConfigurationError
from dsfedmed_ray.runtime.demand import Demand, resolve_generators, resolve_gpu_fractions
from dsfedmed_ray.runtime.engine import RuntimeConfig
from dsfedmed_ray.runtime.room import ClusterRoom
from dsfedmed_ray.tuning.space import TrialPlacement

DATA_CPUS = 1.0
"""For the tasks of the Ray Dataset beside its generator actors."""


def trial_bundles(
    placement: TrialPlacement, runtime: RuntimeConfig, num_clients: int, room: ClusterRoom
) -> list[dict[str, float]]:
    """The bundles of one trial; the first holds its own process.

    Args:
        placement: of the space file.
        runtime: of a trial.
        num_clients: of the federation.
        room: the cluster's nodes.

    Raises:
        ConfigurationError: the runtime leaves open what it will ask for.
        ResourceError: no trial can ever be placed.
    """
    gpus = room.total("GPU")
    if runtime.foundation_workers > 1:
        raise ConfigurationError(
            f"foundation.num_workers is {runtime.foundation_workers}, and Ray Train would place "
            "workers outside of what a trial reserves; set foundation.num_workers=1 in a study"
        )
    if runtime.clients == "auto":
        raise ConfigurationError(
            "runtime.clients is 'auto', which a trial cannot reserve; allowed in a study: serial, "
            "actors, pool"
        )
    process = {"CPU": float(placement.num_cpus)}
    bundles = [process]
    if runtime.clients == "serial":
        wanted = min(1.0, gpus) if placement.num_gpus == "auto" else float(placement.num_gpus)
        process["GPU"] = wanted
    else:
        bundles += _actor_bundles(runtime, num_clients, room)
    bundles = [{name: x for name, x in bundle.items() if x > 0} for bundle in bundles]
    room.require(
        {"a trial's actors": bundles},
        "trial.num_cpus, trial.num_gpus or runtime.resources, keep runtime.clients=serial",
    )
    return [bundle for bundle in bundles if bundle]


def _actor_bundles(
    runtime: RuntimeConfig, num_clients: int, room: ClusterRoom
) -> list[dict[str, float]]:
    """What the engine of such a run will ask for; resolved as the engine does."""
    resources, gpus = runtime.resources, room.total("GPU")
    workers = runtime.num_workers or max(1, int(room.total("CPU")))
    num_workers = num_clients if runtime.clients == "actors" else workers
    foundation, client = resolve_gpu_fractions(
        resources.foundation, resources.client, num_workers, gpus
    )
    clients = [client] * num_workers
    generators = resolve_generators(
        resources.generator, resources.num_generators, foundation, clients, gpus
    )
    return [
        *_server_bundles(foundation, generators),
        *(client.bundle() for client in clients),
        {"CPU": DATA_CPUS},
    ]


def _server_bundles(foundation: Demand, generators: Sequence[Demand]) -> list[dict[str, float]]:
    """The foundation model's bundle, which serves generators before, and those of the others.

    An actor lives in one bundle: a generator has the foundation model's where that holds all that
    it asks for besides CPUs, which are added, and one of its own elsewhere.
    """
    server = foundation.bundle()
    left = {name: amount for name, amount in server.items() if name != "CPU"}
    cpus = 0.0
    others = []
    for generator in generators:
        asked = generator.bundle()
        beside = {name: amount for name, amount in asked.items() if name != "CPU"}
        if beside and all(amount <= left.get(name, 0.0) + 1e-6 for name, amount in beside.items()):
            left |= {name: left[name] - amount for name, amount in beside.items()}
            cpus += generator.num_cpus
        else:
            others.append(asked)
    return [server | {"CPU": max(cpus, foundation.num_cpus)}, *others]
