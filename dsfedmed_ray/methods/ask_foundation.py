"""Questions to the foundation model's server that only the simulator asks."""

from collections.abc import Callable
from typing import TypeVar

from dsfedmed_ray.errors import FoundationLostError
from dsfedmed_ray.methods.resumable import MAX_FOUNDATION_LOSSES
from dsfedmed_ray.methods.run_context import RunContext
from dsfedmed_ray.runtime.pending import FoundationHandle

Answer = TypeVar("Answer")


def ask_foundation(context: RunContext, ask: Callable[[FoundationHandle], Answer]) -> Answer:
    """Asks, from the beginning again when the server's process dies.

    Args:
        context: of the run.
        ask: calls the server and waits for what it says; may be called several times.

    Raises:
        FoundationLostError: the process died too often.
    """
    server = context.foundation_server()
    losses = 0
    while True:
        try:
            return ask(server)
        except FoundationLostError:
            losses += 1
            if losses > MAX_FOUNDATION_LOSSES:
                raise
            context.progress.note("the foundation model's process died; it is asked again")
            server.replace()
