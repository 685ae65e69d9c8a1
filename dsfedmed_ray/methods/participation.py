"""Which clients a round asks, which of them are there, and when they are done."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from dsfedmed_ray.data.federation import list_names
from dsfedmed_ray.data.splits import SplitFederation
from dsfedmed_ray.errors import ConfigurationError
from dsfedmed_ray.learning.segmentation_training import SegmentationTraining, num_processed
from dsfedmed_ray.runtime.availability import Availability
from dsfedmed_ray.seeding import numpy_generator


@dataclass(frozen=True, kw_only=True)
class Attendance:
    """The clients of one round, ascending.

    Attributes:
        asked: drawn for the round.
        absent: simulated to be away; nothing reaches them.
        late: simulated to miss the deadline; they get the broadcast and their update is not used.
        seconds: simulated seconds of each client that is in time, by client.
        deadline_seconds: until when the server waits for the late; None waits for all.
    """

    asked: tuple[int, ...]
    absent: tuple[int, ...]
    late: tuple[int, ...]
    seconds: Mapping[int, float]
    deadline_seconds: float | None

    @property
    def reached(self) -> list[int]:
        """Clients that get the broadcast."""
        return sorted((*self.seconds, *self.late))

    @property
    def in_time(self) -> list[int]:
        """Clients whose updates are averaged."""
        return sorted(self.seconds)

    def round_seconds(self, replied: Iterable[int]) -> float:
        """Simulated seconds of the round: of its slowest client, or to the missed deadline."""
        if self.late and self.deadline_seconds is not None:
            return self.deadline_seconds
        return max(self.seconds[client] for client in replied)


@dataclass(frozen=True, kw_only=True)
class Participation:
    """Draws the clients of each round.

    Attributes:
        seed: the run's.
        stage: whose rounds they are.
        split: the clients.
        clients_per_round: drawn among those that have joined; None takes all.
        joins: by site, the round from which it takes part.
        training: what a client does in a round, for its simulated time.
        availability: the simulated behaviour.
    """

    seed: int
    stage: str
    split: SplitFederation
    clients_per_round: int | None
    joins: Mapping[str, int]
    training: SegmentationTraining
    availability: Availability

    def asked(self, round_index: int) -> list[int]:
        """The clients drawn for a round."""
        waiting = self._not_joined(round_index)
        num_joined = self.split.num_clients - len(waiting)
        if self.clients_per_round is None or self.clients_per_round >= num_joined:
            gone = set(waiting)
            return [client for client in range(self.split.num_clients) if client not in gone]
        stream = numpy_generator(self.seed, self.stage, "clients", round_index)
        drawn = stream.choice(num_joined, size=self.clients_per_round, replace=False)
        return sorted(_past(int(position), waiting) for position in drawn)

    def attendance(self, round_index: int, num_bytes: int) -> Attendance:
        """Who is drawn, there, and in time.

        Args:
            round_index: from 0.
            num_bytes: of a client's broadcast and upload together.
        """
        asked = self.asked(round_index)
        there = [c for c in asked if self.availability.is_there(self.seed, round_index, c)]
        seconds = {client: self._seconds(client, num_bytes) for client in there}
        deadline = self.availability.deadline_seconds
        late = {c for c in there if deadline is not None and seconds[c] > deadline}
        return Attendance(
            asked=tuple(asked),
            absent=tuple(sorted(set(asked) - set(there))),
            late=tuple(sorted(late)),
            seconds={client: seconds[client] for client in there if client not in late},
            deadline_seconds=deadline,
        )

    def joined(self, round_index: int, most: int) -> list[int]:
        """The first clients that have joined by a round, at most this many."""
        waiting = set(self._not_joined(round_index))
        found: list[int] = []
        for client in range(self.split.num_clients):
            if len(found) == most:
                break
            if client not in waiting:
                found.append(client)
        return found

    def some_join(self, round_index: int) -> bool:
        """Whether a client takes part from this round on."""
        return round_index in self.joins.values()

    def all_have_joined(self, round_index: int) -> bool:
        """Whether nobody joins after this round."""
        return all(first <= round_index for first in self.joins.values())

    def _not_joined(self, round_index: int) -> list[int]:
        sites = [site for site, first in self.joins.items() if first > round_index]
        return sorted(self.split.seen_sites.index(site) for site in sites)

    def _seconds(self, client: int, num_bytes: int) -> float:
        if not self.availability.has_clock:
            return 0.0
        samples = num_processed(self.split.num_train(client), self.training)
        return self.availability.seconds(
            self.seed, client, num_samples=samples, num_bytes=num_bytes
        )


def _past(position: int, gaps: list[int]) -> int:
    """The id at a position of ``0, 1, 2, ...`` without some ids (ascending)."""
    for gap in gaps:
        position += position >= gap
    return position


def check_joins(joins: Mapping[str, int], rounds: int, split: SplitFederation) -> None:
    """Checks sites that join later against the federation.

    Raises:
        ConfigurationError: a name is not a client's site, a round does not come, or nobody is
            there in the first round.
    """
    for site, first in joins.items():
        if site not in split.seen_sites:
            raise ConfigurationError(
                f"method.federated.joins names {site!r}, which is not a client; "
                f"clients: {list_names(split.seen_sites)}"
            )
        if not 1 <= first < rounds:
            raise ConfigurationError(
                f"method.federated.joins.{site} is {first}; rounds count from 0, so allowed: "
                f"1 to {rounds - 1} with method.federated.rounds={rounds}"
            )
    if joins and len(joins) >= split.num_clients:
        raise ConfigurationError(
            "method.federated.joins names every client; one at least must be there in round 0"
        )
