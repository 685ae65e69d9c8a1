"""Stage 5, one way: the foundation model's logits, asked for once and ahead of the steps."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dsfedmed_ray.runtime.pending import FoundationHandle, Pending


class OneWayTargets:
    """Logits of a model that does not learn; they never change.

    All of the pool is asked for at once, batch by batch in the order of need. A foundation model in
    a process of its own works through the batches while the lightweight model trains, which waits
    for nothing but the batch that it needs next.

    Args:
        foundation: with the pool open and distillation started.
        batches: rows of the pool, each row once. A row's last bits may depend on its batch, so the
            batches must be the same after resuming.
    """

    def __init__(self, foundation: FoundationHandle, batches: Sequence[Tensor]) -> None:
        self._asked = deque((rows, foundation.call("logits_of", rows)) for rows in batches)
        self._known = torch.zeros(sum(len(rows) for rows in batches), dtype=torch.bool)
        self._logits = torch.empty(0)

    def of(self, rows: Tensor) -> Pending:
        """The logits of some rows; they may still be on their way."""
        return _Rows(self, rows)

    def fetch(self, rows: Tensor) -> Tensor:
        """Waits for the logits of some rows."""
        while not self._known[rows].all():
            served, pending = self._asked.popleft()
            logits: Tensor = pending.result()
            if len(self._logits) == 0:
                self._logits = logits.new_empty(len(self._known), *logits.shape[1:])
            self._logits[served] = logits
            self._known[served] = True
        return self._logits[rows]


@dataclass(frozen=True)
class _Rows:
    targets: OneWayTargets
    rows: Tensor

    def result(self) -> Tensor:
        return self.targets.fetch(self.rows)
