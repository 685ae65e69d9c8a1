"""Stage 4 on several workers: Ray Train starts them, DDP averages their gradients.

Every worker holds the whole foundation model and reads the kept embeddings; a batch is divided. The
workers hand each finished epoch to the driver, which keeps the checkpoints, as for every stage: a
lost worker ends the training, and the stage goes on from its newest checkpoint with new ones.
"""

import os
import tempfile
import threading
from dataclasses import replace
from typing import Any

import ray
import torch
from ray.util.placement_group import get_current_placement_group
from ray.util.queue import Empty, Queue

from dsfedmed_ray.errors import ConfigurationError, DSFedMedError, FoundationLostError
from dsfedmed_ray.learning.foundation_adaptation import BatchShare
from dsfedmed_ray.runtime.adaptation_order import AdaptationOrder, AdaptationSteps
from dsfedmed_ray.runtime.demand import Demand
from dsfedmed_ray.runtime.foundation_server import FoundationServer
from dsfedmed_ray.runtime.placement import FIXED, Placement
from dsfedmed_ray.runtime.room import Autoscaling

_POLL_SECONDS = 1.0
"""Between two looks at whether the workers are still there."""
WORKERS = "the workers of stage 4"


def worker_demand(foundation: Demand) -> Demand:
    """What a worker asks for: what the foundation model does, and a CPU at least."""
    return replace(foundation, num_cpus=max(1.0, foundation.num_cpus))


def check_outside_of_trials(num_workers: int) -> None:
    """Checks, before a run starts, that the workers would be placed where a run may place them.

    Raises:
        ConfigurationError: the run is a trial of a study.
    """
    if get_current_placement_group() is not None:
        raise ConfigurationError(
            f"foundation.num_workers is {num_workers} in a trial, whose actors live in the trial's "
            "own placement group, and Ray Train would place its workers outside of it; set "
            "foundation.num_workers=1 in a study"
        )


def adapt_on_workers(
    order: AdaptationOrder, foundation: Demand, autoscaling: Autoscaling = FIXED
) -> AdaptationSteps:
    """Trains the epochs that are left.

    Args:
        order: what to do.
        foundation: demand of the foundation model, ``auto`` resolved.
        autoscaling: which nodes may come for them, and how long to wait.

    Yields:
        Each epoch's mean loss, and the workers' common state after it.

    Raises:
        ResourceError: the workers were not placed in time.
        FoundationLostError: a worker died.
    """
    demand = worker_demand(foundation)
    # Ray Train waits for ever where there is no room; so the room is asked for beforehand.
    demands = [demand] * order.config.num_workers
    Placement(WORKERS, demands, autoscaling=autoscaling).release()
    epochs = Queue(maxsize=1, actor_options={"num_cpus": 0})
    training = _Training(order, demand, epochs)
    training.start()
    try:
        for epoch in range(order.first_epoch, order.config.epochs):
            loss, progress = _next(epochs, training)
            if epoch + 1 == order.config.epochs:
                training.join()  # its workers are gone when the next stage asks for their place
            yield loss, progress
    finally:
        epochs.shutdown(force=True)  # who still wants to hand over an epoch fails, and all end
        training.join()


def _next(epochs: Queue, training: "_Training") -> tuple[float, dict[str, Any]]:
    while True:
        try:
            loss, progress = epochs.get(timeout=_POLL_SECONDS)
            return loss, progress
        except Empty:
            if not training.is_alive():
                raise failure_of(training.error) from training.error


class _Training(threading.Thread):
    """Waits for Ray Train. In the main thread it would take the signals that save a run."""

    def __init__(self, order: AdaptationOrder, demand: Demand, epochs: Queue) -> None:
        super().__init__(daemon=True)
        self._order = order
        self._demand = demand
        self._epochs = epochs
        self.error: BaseException | None = None

    def run(self) -> None:
        from ray.train import FailureConfig, RunConfig, ScalingConfig
        from ray.train.torch import TorchTrainer
        from ray.train.v2.api.exceptions import TrainingFailedError

        os.environ.setdefault("RAY_CHDIR_TO_TRIAL_DIR", "0")  # paths of a run may be relative
        with tempfile.TemporaryDirectory() as folder:
            trainer = TorchTrainer(
                _work,
                train_loop_config={"order": self._order, "epochs": self._epochs},
                scaling_config=ScalingConfig(
                    num_workers=self._order.config.num_workers,
                    use_gpu=float(self._demand.num_gpus) > 0,
                    resources_per_worker=self._demand.bundle(),
                ),
                # Nothing is kept by Ray Train, and nothing is tried again.
                run_config=RunConfig(
                    name="adapt_foundation",
                    storage_path=folder,
                    failure_config=FailureConfig(max_failures=0),
                ),
            )
            try:
                trainer.fit()
            except (TrainingFailedError, ray.exceptions.RayError) as error:
                self.error = error


def failure_of(error: BaseException | None) -> BaseException:
    """Why no epoch comes any more.

    Ray Train wraps what a worker's code raised. What it does not wrap is the end of a process, of
    which the others' broken connections are the echo.

    Args:
        error: of Ray Train, if it gave one.
    """
    failures = getattr(error, "worker_failures", {}).values()
    raised = [getattr(failure, "_base_exc", None) for failure in failures]
    for cause in raised:
        if isinstance(cause, DSFedMedError):
            return cause
    if not raised or None in raised:
        return FoundationLostError(f"{WORKERS} died")
    return RuntimeError(f"{WORKERS} failed: {raised[0]!r}")


def _work(config: dict[str, Any]) -> None:
    """What every worker does; runs inside Ray Train."""
    import ray.train.torch as ray_torch

    order: AdaptationOrder = config["order"]
    context = ray.train.get_context()
    rank, num_workers = context.get_world_rank(), context.get_world_size()
    device = ray_torch.get_device()
    if device.type == "cuda":  # of several that this process may see
        torch.cuda.set_device(device)
    server = FoundationServer(order.settings)
    server.open_pool(order.synthetic)
    # The start was made before, for all workers alike.
    server.start_adaptation(replace(order.config, start_at_prior=False))
    server.restore_progress(order.progress)
    server.join_adaptation(
        BatchShare(rank=rank, num_workers=num_workers),
        # A mask decoder has heads that the loss does not reach.
        lambda part: ray_torch.prepare_model(
            part, parallel_strategy_kwargs={"find_unused_parameters": True}
        ),
    )
    for epoch in range(order.first_epoch, order.config.epochs):
        loss = torch.tensor(server.adapt_epoch(epoch), dtype=torch.float64, device=device)
        torch.distributed.all_reduce(loss)
        if rank == 0:
            config["epochs"].put((loss.item() / num_workers, server.progress_state()))
