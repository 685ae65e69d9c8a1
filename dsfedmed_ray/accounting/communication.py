"""The ledger: every byte that crosses between the server and a client.

Sizes are those of what is sent, serialised, not of what a formula expects. The ledger keeps totals
and the lines not yet written, so that its memory does not grow with the rounds.
"""

import dataclasses
import json
import pickle
from collections import Counter
from collections.abc import Iterable
from typing import Any

from dsfedmed_ray.records import Transfer


class Ledger:
    """Totals of all transfers of a run, by stage, direction and client.

    Recording costs the same however many transfers came before. ``transfers.jsonl`` is the ledger's
    form on disk: append :meth:`take_lines` to it, and read it back with :meth:`from_lines`.
    """

    def __init__(self) -> None:
        self._num_transfers = 0
        self._pending: list[Transfer] = []
        self._by_stage: Counter[str] = Counter()
        self._by_direction: Counter[str] = Counter({"uplink": 0, "downlink": 0})
        self._by_client: Counter[str] = Counter()

    def record(self, transfer: Transfer) -> None:
        """Counts one transfer."""
        self._count(transfer)
        self._pending.append(transfer)

    def take_lines(self) -> list[str]:
        """The JSON lines of the transfers recorded since the last call, without line ends."""
        lines = [json.dumps(dataclasses.asdict(transfer)) for transfer in self._pending]
        self._pending.clear()
        return lines

    @classmethod
    def from_lines(cls, lines: Iterable[str]) -> "Ledger":
        """Rebuilds the totals from lines that are already on disk; nothing is pending.

        Args:
            lines: of ``transfers.jsonl``; for a resumed run, the first :attr:`num_transfers` that
                its checkpoint knew.
        """
        ledger = cls()
        for line in lines:
            ledger._count(Transfer(**json.loads(line)))
        return ledger

    @property
    def num_transfers(self) -> int:
        """Transfers counted, written or not."""
        return self._num_transfers

    @property
    def total_bytes(self) -> int:
        """Uplink and downlink bytes of all clients and stages."""
        return self._by_direction.total()

    @property
    def per_client_bytes(self) -> float:
        """The mean over the clients that sent or received anything; 0 if none did."""
        return self.total_bytes / max(len(self._by_client), 1)

    @property
    def by_stage(self) -> dict[str, int]:
        """Bytes by stage, in the order in which the stages first sent something."""
        return dict(self._by_stage)

    @property
    def by_direction(self) -> dict[str, int]:
        """Bytes by ``"uplink"`` and ``"downlink"``."""
        return dict(self._by_direction)

    @property
    def by_client(self) -> dict[str, int]:
        """Bytes by client, in the order in which the clients first took part."""
        return dict(self._by_client)

    def summary(self) -> dict[str, Any]:
        """The ``communication`` entry of ``summary.json``."""
        return {
            "total_bytes": self.total_bytes,
            "per_client_bytes": self.per_client_bytes,
            "by_stage": self.by_stage,
            "by_direction": self.by_direction,
        }

    def _count(self, transfer: Transfer) -> None:
        self._num_transfers += 1
        self._by_stage[transfer.stage] += transfer.num_bytes
        self._by_direction[transfer.direction] += transfer.num_bytes
        self._by_client[transfer.client] += transfer.num_bytes


def payload_bytes(payload: Any) -> int:
    """Size of a payload as it is sent, in bytes.

    The payload is pickled with protocol 5 and its buffers counted out of band, as Ray does, so
    that an array costs its own bytes and no copy is made of it. A torch tensor serialises itself
    within the stream, which does copy it: send states as arrays.

    Args:
        payload: anything that can be sent, for example an array, a dictionary of arrays or of
            tensors, bytes, or a frozen dataclass of these.
    """
    stream = _CountingStream()
    buffers: list[pickle.PickleBuffer] = []
    pickle.Pickler(stream, protocol=5, buffer_callback=buffers.append).dump(payload)
    return stream.num_bytes + sum(buffer.raw().nbytes for buffer in buffers)


class _CountingStream:
    """A file that counts what is written and keeps nothing."""

    def __init__(self) -> None:
        self.num_bytes = 0

    def write(self, data: Any) -> int:
        size = memoryview(data).nbytes
        self.num_bytes += size
        return size
