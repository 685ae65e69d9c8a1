"""The bounded cache: what it keeps, what it forgets, and that it travels empty."""

import pickle

from dsfedmed_ray.data.cache import BoundedCache


def _fill(cache: BoundedCache[str, int], *values: int) -> list[int]:
    """Asks for each value under its own name; returns those that had to be made."""
    made: list[int] = []

    def make(value: int) -> int:
        made.append(value)
        return value

    for value in values:
        cache.get(str(value), lambda value=value: make(value))  # type: ignore[misc]
    return made


def test_what_was_used_last_is_kept_within_the_capacity() -> None:
    """Capacity 6, cost = value: 1 + 2 + 3 fit; 1 is used again; 4 drives out 2, then 3."""
    cache: BoundedCache[str, int] = BoundedCache(6, int)

    assert _fill(cache, 1, 2, 3, 1) == [1, 2, 3]
    assert _fill(cache, 4) == [4]
    assert _fill(cache, 1, 4) == []
    assert len(cache) == 2


def test_a_value_dearer_than_the_capacity_is_kept_alone_until_the_next_one() -> None:
    """Capacity 6: 7 drives out 1, and 2 drives out 7."""
    cache: BoundedCache[str, int] = BoundedCache(6, int)

    assert _fill(cache, 1, 7, 7) == [1, 7]
    assert len(cache) == 1
    assert _fill(cache, 2, 7) == [2, 7]


def test_the_cost_of_a_value_is_asked_when_it_comes_and_when_it_goes() -> None:
    """A sum over all that is kept, at each miss, would make a round of many clients quadratic."""
    asked: list[int] = []

    def cost(value: int) -> int:
        asked.append(value)
        return 1

    cache: BoundedCache[str, int] = BoundedCache(100, cost)
    _fill(cache, *range(150))

    assert len(asked) == 150 + 50


def test_a_copy_is_empty_and_works() -> None:
    cache: BoundedCache[str, int] = BoundedCache(6, int)
    _fill(cache, 1, 2)

    copy = pickle.loads(pickle.dumps(cache))

    assert len(copy) == 0
    assert _fill(copy, 1, 2, 1) == [1, 2]
