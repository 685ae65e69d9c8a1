"""Stage 5 at the clients: the foundation model's logits travel, and the clients distil.

Not the paper's method, whose two models meet at the server. Distillation is one way: the
foundation model stays as it was adapted, so its targets are served once.
"""

import time
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dsfedmed_ray.accounting.communication import payload_bytes
from dsfedmed_ray.data.synthetic_samples import read_synthetic
from dsfedmed_ray.learning.learnability import Selection
from dsfedmed_ray.learning.mutual_distillation import Distillation, PoolLearner
from dsfedmed_ray.methods.dsfedmed.exchange_logits import STAGE
from dsfedmed_ray.methods.dsfedmed.select_samples import (
    needs_scores,
    score_pool,
    selected_samples,
    whole_pool,
)
from dsfedmed_ray.methods.exchange import transfers_of
from dsfedmed_ray.methods.method import layout_of
from dsfedmed_ray.methods.run_context import RunContext
from dsfedmed_ray.models.segmenter import Segmenter
from dsfedmed_ray.records import Transfer
from dsfedmed_ray.run_directory import write_atomically
from dsfedmed_ray.runtime.client_pool import ClientPool, RoundResult
from dsfedmed_ray.runtime.pending import Done, FoundationHandle
from dsfedmed_ray.runtime.served_share import ServedDistillation, ServedShare, rows_of


class ServedTargets:
    """The epochs of distillation at the clients, without their validation.

    Args:
        context: the run.
        pool: the clients.
        foundation: with the pool open and distillation started.
        learner: the server's copy of the lightweight model, to score the pool with.
        masks: ``uint8 [pool, structures, size, size]`` of 0 and 1.
        synthetic: folder of the synthetic set.
        config: losses and batches.
        selection: which samples; the server selects over the whole pool.
    """

    def __init__(
        self,
        context: RunContext,
        pool: ClientPool,
        foundation: FoundationHandle,
        learner: PoolLearner,
        masks: Tensor,
        *,
        synthetic: Path,
        config: Distillation,
        selection: Selection,
    ) -> None:
        self.transfers: list[Transfer] = []
        self._context = context
        self._pool = pool
        self._learner = learner
        self._masks = masks
        self._synthetic = synthetic
        self._config = config
        self._selection = selection
        self._model: Segmenter = learner.model  # type: ignore[assignment]
        self._layout = layout_of(self._model)
        self._targets = (context.directory.checkpoints / STAGE / "targets.npy").absolute()
        logits = foundation.call("pool_logits").result().numpy().astype(np.float16)
        write_atomically(self._targets, lambda path: _save(path, logits))
        samples = read_synthetic(synthetic)
        self._rows = {
            client: set(rows_of(samples, pool.client_name(client)))
            for client in context.all_clients()
        }

    def epoch(self, epoch: int) -> dict[str, float]:
        """Selects, lets the clients distil and averages; what travelled is in ``transfers``."""
        self.transfers = self._serve_shares() if epoch == 0 else []
        started = time.perf_counter()
        kept = tuple(self._kept(epoch).tolist())
        scored = time.perf_counter()
        order = self._order(kept, epoch)
        taking = [client for client, rows in self._rows.items() if rows.intersection(kept)]
        before = self._layout.flatten(self._model.trainable_state())
        result = self._pool.fit_round(
            before,
            taking,
            round_index=epoch,
            total_weight=len(kept),
            stage=STAGE,
            distillation=order,
        )
        self._model.load_trainable_state(self._layout.unflatten(result.state))
        self.transfers += self._epoch_transfers(epoch, kept, result)
        losses = sum(reply.metrics["loss"] * reply.num_samples for reply in result.replies)
        return {
            "loss": losses / sum(reply.num_samples for reply in result.replies),
            "num_selected": float(len(kept)),
            "scoring_seconds": scored - started,
            "training_seconds": time.perf_counter() - scored,
        }

    def snapshot(self) -> dict[str, Tensor]:
        """What the next epochs need of the last ones: nothing, the targets are in a file."""
        return {}

    def restore(self, content: dict[str, Tensor]) -> None:
        """Goes on from :meth:`snapshot`."""

    def _order(self, kept: tuple[int, ...], epoch: int) -> ServedDistillation:
        return ServedDistillation(
            synthetic=self._synthetic,
            targets=self._targets,
            kept=kept,
            epoch=epoch,
            config=self._config,
        )

    def _kept(self, epoch: int) -> Tensor:
        if not needs_scores(self._selection):
            return whole_pool(len(self._masks))
        targets = Done(torch.from_numpy(np.load(self._targets)))
        scores, _ = score_pool(targets, self._learner, self._masks, self._selection, self._config)
        return selected_samples(scores, self._selection, self._context.seed, epoch)

    def _serve_shares(self) -> list[Transfer]:
        """Images, masks and targets go to their client once, before the first epoch."""
        sent: list[Transfer] = []
        for client, rows in self._rows.items():
            if not rows:  # its generator was left out
                continue
            name = self._pool.client_name(client)
            share = ServedShare.of(self._order((), 0), name)
            images, masks, targets = share.payload
            sizes = {
                "synthetic_pairs": payload_bytes((images, masks)),
                "targets": payload_bytes(targets),
            }
            sent += transfers_of(name, sizes, direction="downlink", stage=STAGE, round_index=0)
        return sent

    def _epoch_transfers(
        self, epoch: int, kept: tuple[int, ...], result: RoundResult
    ) -> list[Transfer]:
        lines: list[Transfer] = []
        for reply in result.replies:
            name = self._pool.client_name(reply.client_id)
            rows = np.array(sorted(self._rows[reply.client_id].intersection(kept)))
            down, up = {"selection": payload_bytes(rows)}, {"state": reply.num_uplink_bytes}
            lines += transfers_of(name, down, direction="downlink", stage=STAGE, round_index=epoch)
            lines += transfers_of(name, up, direction="uplink", stage=STAGE, round_index=epoch)
        return lines


def _save(path: Path, logits: NDArray[np.float16]) -> None:
    with path.open("wb") as target:  # np.save would append .npy to the temporary name
        np.save(target, logits)
