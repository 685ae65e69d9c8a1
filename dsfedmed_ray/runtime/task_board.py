"""The open work of a pool's workers: what waits, what runs, what stands behind it. No Ray.

A worker does its calls in the order in which it got them. So that it need not wait for the driver
between two chunks, a second one stands behind the first while there is plenty. Only the first is
watched and has a deadline: the one behind has not begun until the first has ended, and if the
worker is lost it waits again, whole, for it had no part in that.
"""

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from dsfedmed_ray.runtime.chunks import first_at_home


@dataclass
class Seat:
    """A place for one worker; the worker in it may be replaced."""

    index: int
    actor: Any
    started: bool = False
    failed_starts: int = 0


@dataclass
class Task:
    """A chunk of clients, and how many processes died under it."""

    client_ids: Sequence[int]
    deaths: int = 0


@dataclass
class Running:
    """What a worker is at."""

    seat: Seat
    task: Task | None  # None while the worker starts
    deadline: float | None = None
    behind: tuple[Any, Task] | None = None

    @property
    def num_clients(self) -> int:
        """Of the task that it is at."""
        return 0 if self.task is None else len(self.task.client_ids)


Submit = Callable[[Any, Sequence[int]], Any]
"""Hands clients to an actor; gives the reference of the answer."""


class Board:
    """The open work of one dispatch.

    Args:
        tasks: what is to be done.
        pinned: whether worker ``k`` serves client ``k`` only.
        seconds: for one client before it counts as hung; None for ever.
    """

    def __init__(self, tasks: Sequence[Task], *, pinned: bool, seconds: float | None) -> None:
        self.waiting = deque(tasks)
        self.running: dict[Any, Running] = {}
        self._pinned = pinned
        self._seconds = seconds

    def is_open(self) -> bool:
        """Whether a task waits or runs."""
        return bool(self.waiting) or any(r.task is not None for r in self.running.values())

    def assign(self, seats: Sequence[Seat], submit: Submit) -> None:
        """Gives every worker something to do, and something to do after it."""
        busy = {running.seat.index for running in self.running.values()}
        for seat in seats:
            if seat.index in busy:
                continue
            if not seat.started:
                self.running[seat.actor.__ray_ready__.remote()] = Running(seat, None)
                continue
            task = self._next(seat, len(seats))
            if task is not None:
                self.waiting.remove(task)
                self._run(seat, submit(seat.actor, task.client_ids), task)
        fair_share = self._num_open_clients() / len(seats)
        for running in self.running.values():
            # The last tasks go to whoever is free first.
            if len(self.waiting) <= len(seats):
                return
            if running.task is None or running.behind is not None:
                continue
            task = self._next(running.seat, len(seats))
            # Nobody is promised more than a share: others may be through sooner.
            if task is not None and running.num_clients + len(task.client_ids) <= fair_share:
                self.waiting.remove(task)
                running.behind = (submit(running.seat.actor, task.client_ids), task)

    def ended(self, ref: Any) -> Running:
        """Takes what has ended off the board; what stood behind it has begun."""
        running = self.running.pop(ref)
        if running.behind is not None:
            self._run(running.seat, *running.behind)
        return running

    def lost(self, ref: Any) -> Running:
        """Takes what a lost worker was at off the board; what stood behind it waits again."""
        running = self.running.pop(ref)
        if running.behind is not None:
            self.waiting.appendleft(running.behind[1])
        return running

    def hung(self) -> Iterator[Running]:
        """Takes what has run too long off the board."""
        now = time.monotonic()
        late = [
            r for r, at in self.running.items() if at.deadline is not None and at.deadline < now
        ]
        for ref in late:
            yield self.lost(ref)

    def seconds_to_next_deadline(self) -> float | None:
        """Until something may count as hung; None if nothing can."""
        deadlines = [r.deadline for r in self.running.values() if r.deadline is not None]
        return max(0.0, min(deadlines) - time.monotonic()) if deadlines else None

    def _run(self, seat: Seat, ref: Any, task: Task) -> None:
        limit = self._seconds
        end = None if limit is None else time.monotonic() + limit * len(task.client_ids)
        self.running[ref] = Running(seat, task, end)

    def _next(self, seat: Seat, num_seats: int) -> Task | None:
        """What waits of the worker's own clients, whose pairs it has; of a pool, else anyone's."""
        chunks = (task.client_ids for task in self.waiting)
        place = first_at_home(chunks, seat.index, num_seats)
        if place is None and (self._pinned or not self.waiting):
            return None
        return self.waiting[place or 0]

    def _num_open_clients(self) -> int:
        behind = [running.behind[1] for running in self.running.values() if running.behind]
        waiting = sum(len(task.client_ids) for task in (*self.waiting, *behind))
        return waiting + sum(running.num_clients for running in self.running.values())
