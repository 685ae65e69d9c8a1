"""A call to the foundation model, in this process or in its actor, through one interface."""

from dataclasses import dataclass
from typing import Any, Protocol


class Pending(Protocol):
    """A result that may not be there yet."""

    def result(self) -> Any:
        """Waits for the result.

        Raises:
            FoundationLostError: the process that computed it died.
        """
        ...


@dataclass(frozen=True)
class Done:
    """A result that is there."""

    value: Any

    def result(self) -> Any:
        """The value."""
        return self.value


class FoundationHandle(Protocol):
    """Calls a :class:`~dsfedmed_ray.runtime.foundation_server.FoundationServer`, wherever it is."""

    def call(self, method: str, *arguments: Any) -> Pending:
        """Starts a method; calls are executed in order."""
        ...

    def replace(self) -> None:
        """Starts a new server with the given settings in the place of a lost one."""
        ...

    def close(self) -> None:
        """Ends the server."""
        ...
