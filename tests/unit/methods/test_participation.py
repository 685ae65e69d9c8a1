"""Which clients a round asks, who is there, and how long it takes on the virtual clock."""

from types import SimpleNamespace
from typing import Any

import pytest

from dsfedmed_ray.learning.segmentation_training import SegmentationTraining
from dsfedmed_ray.methods.participation import Participation
from dsfedmed_ray.runtime.availability import Availability


def participation(population: int, seed: int = 0, **changes: Any) -> Participation:
    """Client ``k`` is the site named ``k`` and has ``10 (k + 1)`` pairs."""
    split: Any = SimpleNamespace(
        num_clients=population,
        seen_sites=[str(client) for client in range(population)],
        num_train=lambda client: 10 * (client + 1),
    )
    settings: dict[str, Any] = {
        "stage": "train_federated",
        "clients_per_round": None,
        "joins": {},
        "training": SegmentationTraining(),
        "availability": Availability(),
    }
    return Participation(seed=seed, split=split, **{**settings, **changes})


@pytest.mark.parametrize("wanted", [None, 5, 9])
def test_without_a_smaller_number_all_take_part(wanted: int | None) -> None:
    assert participation(5, clients_per_round=wanted).asked(3) == [0, 1, 2, 3, 4]


def test_a_sample_is_ascending_without_repetition_and_of_its_round() -> None:
    draws = participation(1000, clients_per_round=50)
    first = draws.asked(0)
    assert first == sorted(set(first))
    assert len(first) == 50
    assert first == participation(1000, clients_per_round=50).asked(0)
    assert first != draws.asked(1)
    assert first != participation(1000, seed=1, clients_per_round=50).asked(0)


def test_samples_span_a_large_population() -> None:
    """200 of a million: each tenth of the ids is met; none would be with odds of 0.9**200."""
    split: Any = SimpleNamespace(num_clients=10**6, seen_sites=range(10**6))
    draws = Participation(
        seed=0,
        stage="train_federated",
        split=split,
        clients_per_round=200,
        joins={},
        training=SegmentationTraining(),
        availability=Availability(),
    )
    clients = draws.asked(7)
    assert {client // 10**5 for client in clients} == set(range(10))
    assert all(type(client) is int for client in clients)


def test_a_client_takes_part_from_its_round_on() -> None:
    draws = participation(4, joins={"1": 2, "2": 1})
    assert [draws.asked(index) for index in range(3)] == [[0, 3], [0, 2, 3], [0, 1, 2, 3]]
    assert [draws.joined(index, 2) for index in range(3)] == [[0, 3], [0, 2], [0, 1]]
    assert [draws.some_join(index) for index in range(4)] == [False, True, True, False]
    assert [draws.all_have_joined(index) for index in range(4)] == [False, False, True, True]


def test_samples_pass_over_those_that_have_not_joined() -> None:
    """Two of the three that are there; over many rounds each of them is met and no other."""
    draws = participation(5, clients_per_round=2, joins={"0": 100, "2": 100})
    samples = [draws.asked(index) for index in range(50)]
    assert all(len(set(sample)) == 2 for sample in samples)
    assert {client for sample in samples for client in sample} == {1, 3, 4}


def test_a_round_takes_as_long_as_its_slowest_client() -> None:
    """Two local epochs over 10, 20 and 30 pairs at 10 a second, 600 bytes at 200 a second.

    2, 4 and 6 seconds of training and 3 of transfer.
    """
    clients = participation(
        3,
        training=SegmentationTraining(epochs=2),
        availability=Availability(samples_per_second=10.0, bytes_per_second=200.0),
    ).attendance(0, num_bytes=600)
    assert clients.seconds == {0: 5.0, 1: 7.0, 2: 9.0}
    assert clients.round_seconds([0, 1, 2]) == 9.0
    assert clients.round_seconds([0, 1]) == 7.0
    assert (clients.in_time, clients.reached) == ([0, 1, 2], [0, 1, 2])


def test_a_deadline_leaves_the_slow_behind() -> None:
    """As above, 5, 7 and 9 seconds: with a deadline of 7 the server waits for 7 seconds."""
    availability = Availability(
        samples_per_second=10.0, bytes_per_second=200.0, deadline_seconds=7.0
    )
    clients = participation(
        3, training=SegmentationTraining(epochs=2), availability=availability
    ).attendance(0, num_bytes=600)
    assert (clients.in_time, clients.late, clients.absent) == ([0, 1], (2,), ())
    assert clients.reached == [0, 1, 2]
    assert clients.round_seconds([0, 1]) == 7.0
    assert clients.round_seconds([0]) == 7.0


def test_the_absent_get_nothing_and_the_same_seed_gives_the_same_trace() -> None:
    """Ten clients, half of them there on average; 200 rounds stay within four deviations."""
    draws = participation(10, availability=Availability(participation=0.5))
    rounds = [draws.attendance(index, 0) for index in range(200)]
    assert all(set(r.reached) | set(r.absent) == set(range(10)) for r in rounds)
    assert all(not set(r.reached) & set(r.absent) for r in rounds)
    there = sum(len(r.in_time) for r in rounds)
    assert abs(there - 1000) < 4 * (2000 * 0.25) ** 0.5
    again = participation(10, availability=Availability(participation=0.5))
    assert [again.attendance(index, 0) for index in range(200)] == rounds
    other = participation(10, seed=1, availability=Availability(participation=0.5))
    assert [other.attendance(index, 0) for index in range(200)] != rounds
