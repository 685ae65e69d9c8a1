"""How a round's clients are cut into tasks."""

import pytest

from dsfedmed_ray.runtime.chunks import chunked, first_at_home, home_of


@pytest.mark.parametrize("size", [1, 3, 16, None])
@pytest.mark.parametrize("num_clients", [0, 1, 7, 100])
@pytest.mark.parametrize("num_workers", [1, 2, 5])
def test_every_client_is_in_one_chunk(num_clients: int, num_workers: int, size: int | None) -> None:
    chunks = chunked(range(num_clients), num_workers, size)
    assert sorted(client for chunk in chunks for client in chunk) == list(range(num_clients))
    assert all(len(chunk) > 0 for chunk in chunks)


def test_a_chunk_has_one_home_whoever_else_takes_part() -> None:
    """Even clients are worker 0's and odd ones worker 1's, in every round."""
    for clients in (range(16), range(3, 40, 3)):
        for chunk in chunked(clients, 2, None):
            assert len({home_of(client, 2) for client in chunk}) == 1


def test_a_given_size_is_kept() -> None:
    """Five clients a home."""
    assert [len(chunk) for chunk in chunked(range(10), 2, 4)] == [4, 4, 1, 1]


def test_guided_chunks_start_large_and_end_with_one() -> None:
    """Half of what is left of eight clients, rounded up: 4, 2, 1, 1; for each of two homes."""
    sizes = [len(chunk) for chunk in chunked(range(16), 2, None)]
    assert sizes == [4, 4, 2, 2, 1, 1, 1, 1]


def test_messages_grow_with_workers_and_not_with_clients() -> None:
    """About W log2(clients / W) chunks: 200 clients and 20,000 differ by a few."""
    few = len(chunked(range(200), 2, None))
    many = len(chunked(range(20_000), 2, None))
    assert few < 20
    assert many < 35


def test_a_worker_finds_its_own_clients_first() -> None:
    """Two workers; 4, 2 and 5, 7 wait in this order: worker 1's first is in place 2."""
    waiting = [[4, 0], [2], [5], [7]]
    assert first_at_home(waiting, 0, 2) == 0
    assert first_at_home(waiting, 1, 2) == 2
    assert first_at_home(waiting[:2], 1, 2) is None
