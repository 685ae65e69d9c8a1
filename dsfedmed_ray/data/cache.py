"""A bounded store of values that can be made again."""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from threading import Lock
from typing import Any, Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class BoundedCache(Generic[Key, Value]):
    """Keeps the values used last, up to a total cost.

    It pickles empty: a copy in another process makes its own values. Asking costs the same however
    many values are kept.

    Args:
        capacity: the largest total cost kept; the newest value is kept whatever it costs.
        cost: what one value costs, for example its bytes.
    """

    def __init__(self, capacity: int, cost: Callable[[Value], int]) -> None:
        self._capacity = capacity
        self._cost = cost
        self._kept: OrderedDict[Key, Value] = OrderedDict()
        self._total = 0
        self._lock = Lock()

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._capacity, self._cost)

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, key: Key, make: Callable[[], Value]) -> Value:
        """The value under ``key``, made if it is not kept."""
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        value = make()
        with self._lock:
            self._keep(key, value)
        return value

    def _keep(self, key: Key, value: Value) -> None:
        if key in self._kept:
            return
        self._kept[key] = value
        self._total += self._cost(value)
        while self._total > self._capacity and len(self._kept) > 1:
            _, oldest = self._kept.popitem(last=False)
            self._total -= self._cost(oldest)
