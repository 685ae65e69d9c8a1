"""What waits, what runs and what stands behind it, without any process."""

from collections.abc import Sequence
from typing import Any

import pytest

from dsfedmed_ray.runtime.task_board import Board, Seat, Task


class Actor:
    """Is asked whether it is ready; references are plain words."""

    def __init__(self, index: int) -> None:
        self.index = index
        self.__ray_ready__ = self

    def remote(self) -> str:
        return f"ready {self.index}"


def submit(actor: Any, client_ids: Sequence[int]) -> str:
    return f"{actor.index}: {list(client_ids)}"


def seats_of(number: int) -> list[Seat]:
    return [Seat(index, Actor(index), started=True) for index in range(number)]


def board_of(*client_ids: int, pinned: bool = False, seconds: float | None = None) -> Board:
    return Board([Task([client]) for client in client_ids], pinned=pinned, seconds=seconds)


def behind(board: Board) -> list[str | None]:
    return [running.behind and running.behind[0] for running in board.running.values()]


def test_a_worker_that_starts_gets_no_clients() -> None:
    board, seats = board_of(0, 1, 2), seats_of(2)
    seats[1].started = False
    board.assign(seats, submit)
    assert list(board.running) == ["0: [0]", "ready 1"]
    assert [len(task.client_ids) for task in board.waiting] == [1, 1]


def test_a_second_task_stands_behind_while_there_is_plenty() -> None:
    """Six tasks: two run, two more may wait for two free workers, so two stand behind."""
    board, seats = board_of(*range(6)), seats_of(2)
    board.assign(seats, submit)
    assert list(board.running) == ["0: [0]", "1: [1]"]
    assert behind(board) == ["0: [2]", "1: [3]"]
    assert [task.client_ids for task in board.waiting] == [[4], [5]]
    ended = board.ended("0: [0]")
    assert ended.task is not None
    assert ended.task.client_ids == [0]
    board.assign(seats, submit)
    assert list(board.running) == ["1: [1]", "0: [2]"]
    assert behind(board) == ["1: [3]", None]  # the last two go to whoever is free first


def test_nobody_is_promised_more_than_a_share() -> None:
    """Of 20 clients 15 are at home with one of two workers, whose first chunk has eight of them.

    Its next chunk of four would make twelve, more than ten; it waits, and the other worker, which
    is through with all of its own after five, takes it.
    """
    own, other = list(range(0, 30, 2)), list(range(1, 11, 2))
    chunks = [own[:8], own[8:12], other[:3], own[12:14], own[14:], other[3:4], other[4:]]
    board, seats = Board([Task(c) for c in chunks], pinned=False, seconds=None), seats_of(2)
    board.assign(seats, submit)
    assert behind(board) == [None, f"1: {other[3:4]}"]
    for done in (other[:3], other[3:4], other[4:]):
        board.ended(f"1: {done}")
        board.assign(seats, submit)
    assert list(board.running) == [f"0: {own[:8]}", f"1: {own[8:12]}"]


def test_one_actor_a_client_has_nothing_behind() -> None:
    board = board_of(0, 1, 2, pinned=True)
    board.assign(seats_of(3), submit)
    assert behind(board) == [None, None, None]
    assert not board.waiting
    assert board.is_open()


def test_what_stood_behind_a_lost_worker_waits_again_whole() -> None:
    board = Board([Task([0, 2]), Task([4, 6]), Task([8])], pinned=False, seconds=None)
    board.assign(seats_of(1), submit)
    assert behind(board) == ["0: [4, 6]"]
    lost = board.lost("0: [0, 2]")
    assert lost.task is not None
    assert lost.task.client_ids == [0, 2]
    assert [(task.client_ids, task.deaths) for task in board.waiting] == [([4, 6], 0), ([8], 0)]
    assert not board.running


def test_seconds_count_from_when_a_task_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    """A limit of 10 s a client; the first task of two clients ends after 15 of its 20 seconds."""
    now = 100.0
    monkeypatch.setattr("dsfedmed_ray.runtime.task_board.time.monotonic", lambda: now)
    board = Board([Task([0, 1]), Task([2]), Task([3])], pinned=False, seconds=10.0)
    board.assign(seats_of(1), submit)
    assert board.seconds_to_next_deadline() == 20.0
    now = 115.0
    board.ended("0: [0, 1]")
    assert board.seconds_to_next_deadline() == 10.0
    now = 125.5
    assert [running.task.client_ids for running in board.hung() if running.task] == [[2]]
    assert board.seconds_to_next_deadline() is None
