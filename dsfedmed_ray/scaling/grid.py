"""What a scaling study varies, and a point of it as overrides of ``dsfedmed run``."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product

from dsfedmed_ray.errors import ConfigurationError


@dataclass(frozen=True, kw_only=True)
class GridPoint:
    """One setting of a study.

    Attributes:
        clients: that take part in a round.
        workers: actors that serve them.
        gpus: GPUs that the workers share; 0 computes on CPUs.
        population: clients of the federation; None where all of them take part in every round.
    """

    clients: int
    workers: int
    gpus: int
    population: int | None

    @property
    def label(self) -> str:
        """``clients-200-workers-2``, and what else is not the plain case; a folder's name."""
        parts = [f"clients-{self.clients}", f"workers-{self.workers}"]
        if self.gpus:
            parts.append(f"gpus-{self.gpus}")
        if self.population is not None:
            parts.append(f"population-{self.population}")
        return "-".join(parts)

    @property
    def parallel(self) -> int:
        """What works at the same time: GPUs where there are any, else workers."""
        return self.gpus or self.workers

    def overrides(self) -> list[str]:
        """What makes a run of it."""
        # A federation has two sites at least; a study of one client draws it from two.
        num_sites = max(2, self.clients if self.population is None else self.population)
        # Rounded down: Ray counts in steps of 1e-4, and rounding up would ask for what is not.
        share = min(1.0, int(1e4 * self.gpus / self.workers) / 1e4)
        return [
            f"data.num_sites={num_sites}",
            "split.unseen_site=null",
            f"method.federated.clients_per_round={self.clients}",
            "runtime.clients=pool",
            f"runtime.num_workers={self.workers}",
            f"runtime.resources.client.num_gpus={share:g}",
        ]


@dataclass(frozen=True, kw_only=True)
class ScalingGrid:
    """A study: every combination of its numbers, several times.

    Attributes:
        name: of the study.
        clients: clients a round.
        workers: client actors.
        gpus: GPUs that they share.
        populations: clients of the federation, of which each round draws; None lets all take part.
        repeats: runs of each combination, each with a seed of its own.
        warmup_rounds: first rounds of a run that are not measured: processes start in them.
    """

    name: str
    clients: Sequence[int]
    workers: Sequence[int]
    gpus: Sequence[int] = (0,)
    populations: Sequence[int] | None = None
    repeats: int = 3
    warmup_rounds: int = 1

    def __post_init__(self) -> None:
        for name, least in (("clients", 1), ("workers", 1), ("gpus", 0), ("populations", 2)):
            values = getattr(self, name)
            if values is None:
                continue
            object.__setattr__(self, name, tuple(values))
            if not values or min(values) < least or len(set(values)) < len(values):
                raise ConfigurationError(
                    f"scaling.{name} is {list(values)}; at least one number, each {least} or more "
                    "and none twice"
                )
        for name, least in (("repeats", 1), ("warmup_rounds", 0)):
            if getattr(self, name) < least:
                raise ConfigurationError(
                    f"scaling.{name} is {getattr(self, name)}; {least} or more"
                )
        if self.populations is not None and min(self.populations) < max(self.clients):
            raise ConfigurationError(
                f"scaling.populations holds {min(self.populations)}, from which a round cannot "
                f"draw {max(self.clients)} clients; lower scaling.clients or raise it"
            )

    def points(self) -> Iterator[GridPoint]:
        """Every combination, small ones first."""
        populations = sorted(self.populations) if self.populations else [None]
        axes = (populations, sorted(self.clients), sorted(self.workers), sorted(self.gpus))
        for population, clients, workers, gpus in product(*axes):
            yield GridPoint(clients=clients, workers=workers, gpus=gpus, population=population)
