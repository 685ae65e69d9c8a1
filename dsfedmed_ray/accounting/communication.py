"""The ledger: every byte that crosses between the server and a client.

Sizes are those of what is sent, serialised, not of what a formula expects. ``transfers.jsonl``
holds every transfer; the ledger in memory holds totals alone, so that it does not grow with rounds.
"""

import pickle
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from dsfedmed_ray.records import Transfer
from dsfedmed_ray.run_directory import read_json_lines


class Ledger:
    """Totals of all transfers of a run, by stage, direction and client.

    Recording costs the same however many transfers came before.

    Args:
        transfers: what is counted at once, for example :func:`read_transfers` of a resumed run.
    """

    def __init__(self, transfers: Iterable[Transfer] = ()) -> None:
        self._by_stage: Counter[str] = Counter()
        self._by_direction: Counter[str] = Counter({"uplink": 0, "downlink": 0})
        self._by_client: Counter[str] = Counter()
        for transfer in transfers:
            self.record(transfer)

    def record(self, transfer: Transfer) -> None:
        """Counts one transfer."""
        self._by_stage[transfer.stage] += transfer.num_bytes
        self._by_direction[transfer.direction] += transfer.num_bytes
        self._by_client[transfer.client] += transfer.num_bytes

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


def read_transfers(path: Path) -> Iterator[Transfer]:
    """Yields the transfers of a ``transfers.jsonl``; none if the file does not exist."""
    for line in read_json_lines(path):
        yield Transfer(**line)


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
    views = [buffer.raw() for buffer in buffers]
    # Pickle marks a read-only buffer with a byte more. What Ray delivered is read-only, and the
    # same upload must count the same before and after it travelled.
    return stream.num_bytes + sum(view.nbytes - view.readonly for view in views)


class _CountingStream:
    """A file that counts what is written and keeps nothing."""

    def __init__(self) -> None:
        self.num_bytes = 0

    def write(self, data: Any) -> int:
        size = memoryview(data).nbytes
        self.num_bytes += size
        return size
