"""What a trial reserves: everything its actors will ask for, at once.

A trial that got its process and then waited for its clients would keep the CPU from the trial that
holds the rest: two half-placed trials wait for each other for ever. One placement group a trial is
given whole or not at all.
"""

from typing import Any

from dsfedmed_ray.errors import ConfigurationError, ResourceError
from dsfedmed_ray.runtime.demand import resolve_gpu_fractions
from dsfedmed_ray.runtime.engine import RuntimeConfig
from dsfedmed_ray.tuning.space import TrialPlacement

DATA_CPUS = 1.0
"""For the tasks of the Ray Dataset beside its generator actors."""


def trial_bundles(
    placement: TrialPlacement, runtime: RuntimeConfig, num_clients: int, cluster: dict[str, float]
) -> list[dict[str, float]]:
    """The bundles of one trial; the first holds its own process.

    Args:
        placement: of the space file.
        runtime: of a trial.
        num_clients: of the federation.
        cluster: what Ray has, by name, in all.

    Raises:
        ConfigurationError: the runtime leaves open what it will ask for.
        ResourceError: no trial can ever be placed.
    """
    gpus = cluster.get("GPU", 0.0)
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
        bundles += _actor_bundles(runtime, num_clients, cluster)
    bundles = [{name: x for name, x in bundle.items() if x > 0} for bundle in bundles]
    _check_possible(bundles, cluster)
    return [bundle for bundle in bundles if bundle]


def _actor_bundles(
    runtime: RuntimeConfig, num_clients: int, cluster: dict[str, float]
) -> list[dict[str, float]]:
    resources = runtime.resources
    workers = runtime.num_workers or max(1, int(cluster.get("CPU", 1.0)))
    num_workers = num_clients if runtime.clients == "actors" else workers
    foundation, client = resolve_gpu_fractions(
        resources.foundation, resources.client, num_workers, cluster.get("GPU", 0.0)
    )
    # Generators end before the foundation model starts and may have its share of a GPU.
    generator: dict[str, Any] = {"CPU": resources.generator.num_cpus}
    if resources.generator.num_gpus != "auto":
        generator["GPU"] = float(resources.generator.num_gpus)
    generators = [dict(generator) for _ in range(resources.num_generators)]
    clients = [client.bundle() for _ in range(num_workers)]
    return [foundation.bundle(), *clients, *generators, {"CPU": DATA_CPUS}]


def _check_possible(bundles: list[dict[str, float]], cluster: dict[str, float]) -> None:
    total: dict[str, float] = {}
    for bundle in bundles:
        for name, amount in bundle.items():
            total[name] = total.get(name, 0.0) + amount
    for name, amount in total.items():
        if amount > cluster.get(name, 0.0) + 1e-6:
            raise ResourceError(
                f"a trial asks for {amount:g} {name} in all, the cluster has "
                f"{cluster.get(name, 0.0):g}; lower trial.num_cpus, trial.num_gpus or "
                "runtime.resources, keep runtime.clients=serial, or add nodes"
            )
