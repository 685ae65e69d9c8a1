"""Simulated dropout and stragglers on a virtual clock: who is there, and how long a round takes.

The clock is arithmetic. A client's seconds in a round are

    ``broadcast bytes / bandwidth + samples processed / speed + upload bytes / bandwidth``

with a speed and a bandwidth that are the client's own for the whole run. Nothing here looks at a
real clock, and every draw is named by (run seed, round, client): the same seed gives the same
trace on any machine and under any placement.
"""

import math
from dataclasses import dataclass

from dsfedmed_ray.errors import ConfigurationError
from dsfedmed_ray.seeding import numpy_generator

STREAM = "availability"


@dataclass(frozen=True, kw_only=True)
class Availability:
    """How clients behave that are not really there. The defaults simulate nothing.

    Speeds and bandwidths are log-normal over clients: median times ``exp(spread * z)``, ``z``
    standard normal. A spread of 0.5 lets one client in six be 1.65 times slower than the median.

    Attributes:
        participation: probability that a client that was drawn for a round is there, in (0, 1].
        samples_per_second: median speed of local training, samples processed a second; null takes
            no time for training.
        speed_spread: deviation of the speed's logarithm, 0 or more.
        bytes_per_second: median bandwidth, in each direction; null takes no time for transfers.
        bandwidth_spread: deviation of the bandwidth's logarithm, 0 or more.
        deadline_seconds: simulated seconds after which the server goes on without the clients
            that are not done; null waits for all.
    """

    participation: float = 1.0
    samples_per_second: float | None = None
    speed_spread: float = 0.0
    bytes_per_second: float | None = None
    bandwidth_spread: float = 0.0
    deadline_seconds: float | None = None

    def __post_init__(self) -> None:
        if not 0.0 < self.participation <= 1.0:
            raise ConfigurationError(
                f"runtime.availability.participation is {self.participation}; "
                "allowed: above 0 up to 1"
            )
        for name in ("samples_per_second", "bytes_per_second", "deadline_seconds"):
            value = getattr(self, name)
            if value is not None and not 0.0 < value < math.inf:
                raise ConfigurationError(
                    f"runtime.availability.{name} is {value}; positive, or null"
                )
        for name in ("speed_spread", "bandwidth_spread"):
            if not 0.0 <= getattr(self, name) < math.inf:
                raise ConfigurationError(
                    f"runtime.availability.{name} is {getattr(self, name)}; 0 or more"
                )
        if self.deadline_seconds is not None and not self.has_clock:
            raise ConfigurationError(
                "runtime.availability.deadline_seconds needs a clock; give samples_per_second, "
                "bytes_per_second or both"
            )

    @property
    def has_clock(self) -> bool:
        """Whether rounds take simulated time."""
        return self.samples_per_second is not None or self.bytes_per_second is not None

    @property
    def loses_clients(self) -> bool:
        """Whether a round may have fewer clients than were asked."""
        return self.participation < 1.0 or self.deadline_seconds is not None

    def is_there(self, seed: int, round_index: int, client: int) -> bool:
        """Whether a client answers in a round."""
        if self.participation == 1.0:
            return True
        stream = numpy_generator(seed, STREAM, "participation", round_index, client)
        return float(stream.random()) < self.participation

    def seconds(self, seed: int, client: int, *, num_samples: int, num_bytes: int) -> float:
        """A client's simulated seconds in a round.

        Args:
            seed: the run's.
            client: its id.
            num_samples: samples processed, counted as often as they are seen.
            num_bytes: broadcast and upload together.
        """
        total = 0.0
        if self.samples_per_second is not None:
            factor = _factor(self.speed_spread, seed, "speed", client)
            total += num_samples / (self.samples_per_second * factor)
        if self.bytes_per_second is not None:
            factor = _factor(self.bandwidth_spread, seed, "bandwidth", client)
            total += num_bytes / (self.bytes_per_second * factor)
        return total


def _factor(spread: float, seed: int, what: str, client: int) -> float:
    if spread == 0.0:
        return 1.0
    return math.exp(spread * float(numpy_generator(seed, STREAM, what, client).standard_normal()))
