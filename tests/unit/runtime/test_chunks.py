"""How a round's clients are cut into tasks."""

import pytest

from dsfedmed_ray.runtime.chunks import chunked


@pytest.mark.parametrize("size", [1, 3, 16, None])
@pytest.mark.parametrize("num_clients", [0, 1, 7, 100])
@pytest.mark.parametrize("num_workers", [1, 2, 5])
def test_every_client_is_in_one_chunk(num_clients: int, num_workers: int, size: int | None) -> None:
    chunks = list(chunked(range(num_clients), num_workers, size))
    assert [client for chunk in chunks for client in chunk] == list(range(num_clients))
    assert all(len(chunk) > 0 for chunk in chunks)


def test_a_given_size_is_kept() -> None:
    assert [len(chunk) for chunk in chunked(range(10), 2, 4)] == [4, 4, 2]


def test_guided_chunks_start_large_and_end_with_one() -> None:
    """A quarter of what is left, rounded up, for two workers: 4 of 16, 3 of 12, 3 of 9, ..."""
    sizes = [len(chunk) for chunk in chunked(range(16), 2, None)]
    assert sizes == [4, 3, 3, 2, 1, 1, 1, 1]


def test_messages_grow_with_workers_and_not_with_clients() -> None:
    """About 2 W log(clients) chunks: 200 clients and 20,000 differ by a few."""
    few = len(list(chunked(range(200), 2, None)))
    many = len(list(chunked(range(20_000), 2, None)))
    assert few < 25
    assert many < 45
