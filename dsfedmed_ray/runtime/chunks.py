"""How a round's clients are handed out."""

from collections.abc import Iterator, Sequence


def chunked(
    client_ids: Sequence[int], num_workers: int, chunk_size: int | None
) -> Iterator[Sequence[int]]:
    """Splits clients into chunks.

    With a size, equal chunks. Without, guided self-scheduling: each chunk takes
    ``1 / (2 * num_workers)`` of what is left, so that workers are fed in few messages and still
    end together.
    """
    start = 0
    while start < len(client_ids):
        left = len(client_ids) - start
        size = chunk_size or -(-left // (2 * num_workers))
        yield client_ids[start : start + size]
        start += size
