"""How a round's clients are handed out.

Client ``k`` has its home on worker ``k % num_workers``: there its pairs are in the cache from the
rounds before. A worker takes the chunks of its own clients first and others' when these are done.
"""

from collections.abc import Iterable, Sequence


def home_of(client_id: int, num_workers: int) -> int:
    """The worker that serves a client wherever it can."""
    return client_id % num_workers


def chunked(
    client_ids: Sequence[int], num_workers: int, chunk_size: int | None
) -> list[Sequence[int]]:
    """Splits clients into chunks of one home each, the large ones first.

    With a size, equal chunks. Without, guided self-scheduling: each chunk takes half of what is
    left of a home, so that workers are fed in few messages and still end together.
    """
    chunks: list[Sequence[int]] = []
    for worker in range(num_workers):
        own = [client for client in client_ids if home_of(client, num_workers) == worker]
        start = 0
        while start < len(own):
            size = chunk_size or -(-(len(own) - start) // 2)
            chunks.append(own[start : start + size])
            start += size
    return sorted(chunks, key=len, reverse=True)


def first_at_home(waiting: Iterable[Sequence[int]], worker: int, num_workers: int) -> int | None:
    """The place of the first chunk whose home is a worker; None if none of them is."""
    for place, client_ids in enumerate(waiting):
        if home_of(client_ids[0], num_workers) == worker:
            return place
    return None
