"""The foundation model in an actor of its own, pinned to its share of a GPU."""

from typing import Any

import ray
from ray.exceptions import RayActorError

from dsfedmed_ray.errors import FoundationLostError
from dsfedmed_ray.runtime.demand import Demand
from dsfedmed_ray.runtime.foundation_server import FoundationServer, FoundationSettings
from dsfedmed_ray.runtime.pending import Pending
from dsfedmed_ray.runtime.placement import FIXED, Placement
from dsfedmed_ray.runtime.ray_failures import LOST, failed_start, unwrapping_user_errors
from dsfedmed_ray.runtime.room import Autoscaling

FOUNDATION = "the foundation model"
"""In messages about its place."""

FoundationActor = ray.remote(FoundationServer)


class _RayPending:
    def __init__(self, ref: Any) -> None:
        self._ref = ref

    def result(self) -> Any:
        try:
            with unwrapping_user_errors():
                return ray.get(self._ref)
        except LOST as error:
            if isinstance(error, RayActorError) and error.actor_init_failed:  # nor the next time
                raise failed_start("the foundation model", error) from error
            raise FoundationLostError("the foundation model's process died") from error


class RemoteFoundation:
    """A :class:`~dsfedmed_ray.runtime.pending.FoundationHandle` over an actor."""

    def __init__(
        self, settings: FoundationSettings, demand: Demand, autoscaling: Autoscaling = FIXED
    ) -> None:
        self._settings = settings
        self._placement = Placement(FOUNDATION, [demand], autoscaling=autoscaling)
        self.actor = self._start()

    def _start(self) -> Any:
        options = self._placement.options(0)
        return FoundationActor.options(max_restarts=0, **options).remote(self._settings)

    def call(self, method: str, *arguments: Any) -> Pending:
        """Starts a method on the actor; the actor runs calls one after the other."""
        try:
            return _RayPending(getattr(self.actor, method).remote(*arguments))
        except RayActorError as error:
            raise FoundationLostError("the foundation model's process died") from error

    def replace(self) -> None:
        """Starts a new actor; the stage restores it from its checkpoint."""
        ray.kill(self.actor, no_restart=True)
        self.actor = self._start()

    def close(self) -> None:
        """Kills the actor and releases its place."""
        ray.kill(self.actor, no_restart=True)
        self._placement.release()
