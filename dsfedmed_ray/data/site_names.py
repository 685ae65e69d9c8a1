"""Sequences of site names that are computed, not stored, so that 10^6 sites cost nothing."""

from collections.abc import Sequence
from typing import overload


class NumberedNames(Sequence[str]):
    """``prefix000000``, ``prefix000001``, ...

    Args:
        prefix: what stands before the number.
        count: how many names there are.
    """

    def __init__(self, prefix: str, count: int) -> None:
        self._prefix = prefix
        self._count = count

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, position: int) -> str: ...
    @overload
    def __getitem__(self, position: slice) -> list[str]: ...
    def __getitem__(self, position: int | slice) -> str | list[str]:
        if isinstance(position, slice):
            return [self._name(number) for number in range(self._count)[position]]
        return self._name(range(self._count)[position])

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self._number(name) is not None

    def index(self, name: str, start: int = 0, stop: int | None = None) -> int:
        """The position of a name, in constant time.

        Raises:
            ValueError: the name is not in the sequence.
        """
        number = self._number(name)
        if number is None or number not in range(self._count)[start:stop]:
            raise ValueError(f"{name!r} is not in the sequence")
        return number

    def _name(self, number: int) -> str:
        return f"{self._prefix}{number:06d}"

    def _number(self, name: str) -> int | None:
        digits = name.removeprefix(self._prefix)
        if not (digits.isascii() and digits.isdigit()):
            return None
        number = int(digits)
        return number if number < self._count and self._name(number) == name else None


class NamesWithout(Sequence[str]):
    """A sequence without one of its names.

    Args:
        names: the whole sequence.
        left_out: a name in it.
    """

    def __init__(self, names: Sequence[str], left_out: str) -> None:
        self._names = names
        self._left_out = left_out
        self._gap = names.index(left_out)

    def __len__(self) -> int:
        return len(self._names) - 1

    @overload
    def __getitem__(self, position: int) -> str: ...
    @overload
    def __getitem__(self, position: slice) -> list[str]: ...
    def __getitem__(self, position: int | slice) -> str | list[str]:
        if isinstance(position, slice):
            return [self[number] for number in range(len(self))[position]]
        number = range(len(self))[position]
        return self._names[number + (number >= self._gap)]

    def __contains__(self, name: object) -> bool:
        return name != self._left_out and name in self._names

    def index(self, name: str, start: int = 0, stop: int | None = None) -> int:
        """The position of a name, as fast as in the whole sequence.

        Raises:
            ValueError: the name is not in the sequence.
        """
        if name in self:
            number = self._names.index(name)
            number -= number > self._gap
            if number in range(len(self))[start:stop]:
                return number
        raise ValueError(f"{name!r} is not in the sequence")
