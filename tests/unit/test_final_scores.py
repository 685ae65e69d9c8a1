"""What the final scores say of a row's communication."""

import json
from dataclasses import asdict
from pathlib import Path

from dsfedmed_ray.final_scores import row_bytes
from dsfedmed_ray.records import Transfer


def test_plain_averaging_is_not_charged_for_clients_that_tune_alone(tmp_path: Path) -> None:
    """Client a tunes (100), makes a round (10) of each kind and gets the model (5).

    Client b tunes and gets it.
    Averaging alone would know a only: 10 + 5, refined 10 + 10 + 5. The whole method sends 230 to
    two clients.
    """
    lines = [
        ("tune_generators", "a", 100),
        ("tune_generators", "b", 100),
        ("train_federated", "a", 10),
        ("refine_federated", "a", 10),
        ("deliver", "a", 5),
        ("deliver", "b", 5),
    ]
    transfers = [
        Transfer(
            stage=stage,
            round_index=None,
            client=client,
            direction="uplink",
            what="state",
            num_bytes=num_bytes,
        )
        for stage, client, num_bytes in lines
    ]
    path = tmp_path / "transfers.jsonl"
    path.write_text("".join(json.dumps(asdict(line)) + "\n" for line in transfers))
    assert row_bytes(path, "fedavg") == 15
    assert row_bytes(path, "fedavg_refined") == 25
    assert row_bytes(path, "fedavg_synthetic") == 115
