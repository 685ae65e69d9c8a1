"""The ledger's totals by hand, and its sizes against what Ray's serialiser puts on the wire."""

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dsfedmed_ray.accounting.communication import Ledger, payload_bytes, read_transfers
from dsfedmed_ray.records import Transfer


def transfer(client: str, direction: Any, stage: str, num_bytes: int) -> Transfer:
    return Transfer(
        client=client, direction=direction, stage=stage, what="state", num_bytes=num_bytes
    )


TRANSFERS = [
    transfer("a", "downlink", "train_federated", 100),
    transfer("a", "uplink", "train_federated", 50),
    transfer("b", "downlink", "train_federated", 100),
    transfer("b", "uplink", "tune_generators", 7),
]


def test_totals_by_hand() -> None:
    """100 + 50 + 100 + 7 = 257 over two clients: 128.5 each."""
    ledger = Ledger(TRANSFERS)
    assert ledger.total_bytes == 257
    assert ledger.per_client_bytes == 128.5
    assert ledger.by_stage == {"train_federated": 250, "tune_generators": 7}
    assert ledger.by_direction == {"uplink": 57, "downlink": 200}
    assert ledger.by_client == {"a": 150, "b": 107}


def test_empty_ledger() -> None:
    ledger = Ledger()
    assert (ledger.total_bytes, ledger.per_client_bytes, ledger.by_stage) == (0, 0, {})
    assert ledger.by_direction == {"uplink": 0, "downlink": 0}


def test_read_back_from_disk(tmp_path: Path) -> None:
    path = tmp_path / "transfers.jsonl"
    path.write_text("".join(json.dumps(asdict(item)) + "\n" for item in TRANSFERS))
    assert list(read_transfers(path)) == TRANSFERS
    assert Ledger(read_transfers(path)).summary() == Ledger(TRANSFERS).summary()
    assert list(read_transfers(tmp_path / "none.jsonl")) == []


def test_recording_is_cheap() -> None:
    """A thousand records take a few milliseconds, the last as the first."""
    ledger, seconds = Ledger(), []
    for _ in range(50):
        start = time.process_time()
        for _ in range(1000):
            ledger.record(TRANSFERS[0])
        seconds.append(time.process_time() - start)
    assert sorted(seconds)[25] < 0.02
    assert ledger.total_bytes == 5_000_000


@dataclass(frozen=True, kw_only=True)
class Upload:
    """As a client sends it: a dataclass of arrays."""

    controlnet: dict[str, np.ndarray]
    masks: np.ndarray
    name: str


PAYLOADS = {
    "flat state": np.arange(50_000, dtype=np.float32),
    "state by name": {f"layer{i}.weight": np.ones((16, 16, 3), np.float32) for i in range(20)},
    "tensors": {f"layer{i}.weight": torch.ones(64, 64) for i in range(4)},
    "bfloat16 tensor": torch.ones(1000, dtype=torch.bfloat16),
    "bytes": b"x" * 12_345,
    "not contiguous": np.ones((100, 100))[:, ::2],
    "upload": Upload(
        controlnet={"w": np.ones(999, np.float16)}, masks=np.ones((3, 8, 8, 1), bool), name="a"
    ),
    "number": 0.5,
}


@pytest.mark.parametrize("payload", PAYLOADS.values(), ids=PAYLOADS.keys())
def test_equals_what_ray_pickles(payload: Any) -> None:
    """Ray pickles with protocol 5 and sends the buffers beside the stream."""
    from ray import cloudpickle

    buffers: list[Any] = []
    stream = cloudpickle.dumps(payload, protocol=5, buffer_callback=buffers.append)
    on_the_wire = len(stream) + sum(len(memoryview(buffer).cast("B")) for buffer in buffers)
    assert payload_bytes(payload) == pytest.approx(on_the_wire, rel=0.001, abs=64)


def test_array_costs_its_own_bytes() -> None:
    """50,000 float32 are 200,000 bytes; the description of dtype and shape is under 200."""
    assert 200_000 < payload_bytes(PAYLOADS["flat state"]) < 200_200


def test_a_received_payload_counts_as_when_it_was_sent() -> None:
    """Arrays that came through Ray are read-only."""
    sent = {"weight": np.ones(5, np.float32), "bias": np.ones(2, np.float32)}
    received = {name: value.copy() for name, value in sent.items()}
    for value in received.values():
        value.flags.writeable = False
    assert payload_bytes(received) == payload_bytes(sent)
