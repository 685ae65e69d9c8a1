"""One object decides what happens when a client, a worker or a whole round fails."""

from dataclasses import dataclass
from enum import Enum
from typing import Literal

from dsfedmed_ray.errors import ClientFailureError, ConfigurationError, TooFewRepliesError

OnClientError = Literal["retry", "drop", "stop"]


class Verdict(Enum):
    """What to do with one failed attempt."""

    RETRY = "retry"
    DROP = "drop"


@dataclass(frozen=True, kw_only=True)
class FailurePolicy:
    """What happens on failures; nothing is ever averaged silently without its missing clients.

    A lost worker process is not a client's fault: it is replaced and its unfinished clients are
    done again, which gives the same bits.

    Attributes:
        on_client_error: for a client that raises, returns a state or a metric that is not
            finite, or hangs: ``retry`` tries again up to ``max_attempts`` times and then stops
            the run; ``drop`` leaves it out of the round, with a note; ``stop`` stops the run at
            once.
        max_attempts: attempts of a client in one round, the first included; also the number of
            processes that may die under a client before that counts as the client's error.
        client_timeout_seconds: a client that takes longer counts as hung and its worker is
            replaced; None waits for ever.
        min_replies_fraction: share of a round's clients that must reply; below it the run stops.
        max_worker_replacements: worker processes replaced in a whole run before it stops.
    """

    on_client_error: OnClientError = "retry"
    max_attempts: int = 3
    client_timeout_seconds: float | None = None
    min_replies_fraction: float = 1.0
    max_worker_replacements: int = 100

    def __post_init__(self) -> None:
        if self.on_client_error not in ("retry", "drop", "stop"):
            raise ConfigurationError(
                f"runtime.failures.on_client_error is {self.on_client_error!r}; "
                "allowed: retry, drop, stop"
            )
        if self.max_attempts < 1:
            raise ConfigurationError(
                f"runtime.failures.max_attempts is {self.max_attempts}; at least 1"
            )
        if self.client_timeout_seconds is not None and self.client_timeout_seconds <= 0:
            raise ConfigurationError(
                f"runtime.failures.client_timeout_seconds is {self.client_timeout_seconds}; "
                "positive, or null to wait for ever"
            )
        if not 0.0 < self.min_replies_fraction <= 1.0:
            raise ConfigurationError(
                f"runtime.failures.min_replies_fraction is {self.min_replies_fraction}; "
                "allowed: above 0 up to 1"
            )

    def judge(self, client: str, reason: str, attempts: int) -> Verdict:
        """Decides on a client's failed attempt.

        Args:
            client: its name.
            reason: one line.
            attempts: attempts so far, this one included.

        Raises:
            ClientFailureError: the run stops.
        """
        if self.on_client_error == "drop":
            return Verdict.DROP
        if self.on_client_error == "retry" and attempts < self.max_attempts:
            return Verdict.RETRY
        tried = f" (attempt {attempts} of {self.max_attempts})" if attempts > 1 else ""
        raise ClientFailureError(client, reason + tried)

    def require_enough(self, num_replies: int, num_asked: int, unit: str) -> None:
        """Checks a finished round.

        Raises:
            TooFewRepliesError: fewer than ``min_replies_fraction`` replied.
        """
        if num_replies < self.min_replies_fraction * num_asked or num_replies == 0:
            raise TooFewRepliesError(
                f"{unit}: {num_replies} of {num_asked} clients replied, "
                f"runtime.failures.min_replies_fraction asks for {self.min_replies_fraction:g}; "
                "the last good checkpoint is kept"
            )
