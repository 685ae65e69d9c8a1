"""FedBN: normalisation that stays at the clients, and the whole model that a server needs of it.

While rounds run, nothing of it travels. When they are over, each client that has trained sends what
it kept with the best round, once: the mean of these, weighted as in FedAvg, completes the shared
state for a site that has none of its own (the unseen site, the server's later stages).
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from safetensors.torch import load_file

from dsfedmed_ray.accounting.communication import payload_bytes
from dsfedmed_ray.learning.aggregation import FixedPointSum, StateLayout, scale_bits_for
from dsfedmed_ray.models.segmenter import State
from dsfedmed_ray.models.weights import save_weights
from dsfedmed_ray.records import Transfer
from dsfedmed_ray.runtime.client_pool import ClientPool

NORMS_FILE = "site_norms.safetensors"
"""Beside the model: what each scored site kept, by ``SITE/ENTRY``."""

SiteStates = Mapping[str, State]


def collect_norms(
    pool: ClientPool,
    clients: Sequence[int],
    layout: StateLayout,
    *,
    round_index: int,
    num_train: Callable[[int], int],
    num_scored: int,
    stage: str,
) -> tuple[State, dict[str, State], list[Transfer]]:
    """Asks clients for what they kept with a round.

    Integer counters are not averaged: the largest is taken, as in every round.

    Args:
        pool: serves the clients.
        clients: those that had trained by then.
        layout: of what they keep.
        round_index: the round.
        num_train: a client's aggregation weight.
        num_scored: clients ``0 ... num_scored - 1`` are scored at their sites; what those kept is
            returned, that of others only averaged.
        stage: for the ledger.

    Returns:
        The weighted mean, what each scored site kept, and what travelled.
    """
    bits = scale_bits_for(sum(num_train(client) for client in clients))
    total = FixedPointSum(*layout.sizes, bits)
    kept: dict[str, State] = {}
    sent: dict[int, Transfer] = {}
    for client, flat in pool.map("kept_state", clients, round_index):
        total.add(flat, num_train(client))
        name = pool.client_name(client)
        if client < num_scored:
            kept[name] = layout.unflatten(flat)
        sent[client] = Transfer(
            client=name,
            direction="uplink",
            stage=stage,
            what="norm_state",
            num_bytes=payload_bytes(flat),
        )
    return layout.unflatten(total.mean()), kept, [sent[client] for client in sorted(sent)]


def save_site_norms(norms: SiteStates, path: Path) -> None:
    """Writes what sites kept.

    Raises:
        OSError: the disk is full.
    """
    entries = {
        f"{site}/{name}": value for site in sorted(norms) for name, value in norms[site].items()
    }
    save_weights(entries, path)


def read_site_norms(folder: Path) -> dict[str, State]:
    """What sites kept, by site; empty where everything was averaged."""
    norms: dict[str, State] = {}
    if (folder / NORMS_FILE).exists():
        for key, value in load_file(folder / NORMS_FILE).items():
            site, _, name = key.rpartition("/")
            norms.setdefault(site, {})[name] = value
    return norms
